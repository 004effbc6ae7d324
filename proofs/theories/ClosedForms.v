(** The tactic [closed_form]: the closed form of a program of IOCounts.v, proved for every size, tile and mask.

    It sums the loop nest, innermost loops first, with one rule per shape of a loop nest; [ring] then compares the sum
    with the closed form. Programs.v, printed by the simulator, uses it for every program. A closed form that subtracts
    has what it subtracts on the left side of the equation, beside the count.

    Nothing is claimed here: the rules are lemmas, and a tactic proves nothing that Coq does not check. *)
From Coq Require Import Lia ZArith.
From Coq Require Export ZArithRing.
From IOAware Require Export IOCounts.
Open Scope nat_scope.

(** ** The rules

    Each rule is a lemma whose premises are the sums of the parts. A product under a sum gives up its constant factors one by one, until an extent, or an extent beside what is
    seen of the other axis, is left. *)

Section Rules.
  Variables (n : nat) (s : nat -> bool) (c a b : nat) (f g : nat -> nat).

  Lemma rule_add : sum n f = a -> sum n g = b -> sum n (fun i => f i + g i) = a + b.
  Proof. intros <- <-. apply sum_add. Qed.
  Lemma rule_seen_add : sum_seen n s f = a -> sum_seen n s g = b -> sum_seen n s (fun i => f i + g i) = a + b.
  Proof. intros <- <-. apply sum_seen_add. Qed.

  Variables (w : weights) (p : prog) (ps : list prog) (body : nat -> prog).

  Lemma rule_do what : count w (Do what c) = w what * c.
  Proof. reflexivity. Qed.
  Lemma rule_seq : count w p = a -> count w (Seq ps) = b -> count w (Seq (p :: ps)) = a + b.
  Proof. intros <- <-. reflexivity. Qed.
  Lemma rule_last : count w p = a -> count w (Seq [p]) = a.
  Proof. intros <-. simpl. lia. Qed.
  Lemma rule_unless skipped : count w p = a -> count w (Unless skipped p) = if skipped then 0 else a.
  Proof. intros <-. destruct skipped; reflexivity. Qed.
  Lemma rule_for : (forall i, count w (body i) = f i) -> sum n f = a -> count w (For n body) = a.
  Proof. intros H <-. simpl. apply sum_ext. auto. Qed.
  Lemma rule_for_same : count w p = a -> count w (For n (fun _ => p)) = n * a.
  Proof. intros <-. simpl. apply sum_const. Qed.
  Lemma rule_for_seen : (forall i, count w (body i) = f i) -> sum_seen n s f = a -> count w (ForSeen n s body) = a.
  Proof. intros H <-. simpl. apply sum_seen_ext. auto. Qed.
End Rules.

(* Walked back and forth, one walk visits every position once; all walks fetch what is not kept. *)
Section BackAndForth.
  Variables (length step : nat).
  Let tiles := cdiv length step.

  Lemma rule_unless_kept n skipped f a :
    sum_seen n (fun t => negb (skipped t)) f = a -> sum n (fun t => if skipped t then 0 else f t) = a.
  Proof. intros <-. apply sum_ext. intros t _. destruct (skipped t); reflexivity. Qed.

  Lemma rule_one_walk i : 0 < step -> sum tiles (fun t => tile length step (back_and_forth tiles i t)) = length.
  Proof. intros. unfold tiles. rewrite sum_back_and_forth. apply tiles_cover. assumption. Qed.

  Lemma rule_all_walks walks :
    sum walks (fun i => sum_seen tiles (fun t => negb (kept full tiles i t))
      (fun t => tile length step (back_and_forth tiles i t))) = fetched_rows walks length step.
  Proof. reflexivity. Qed.

  Lemma fetched_less_kept axis per : 0 < axis -> 0 < per -> 0 < length -> 0 < step ->
    (Z.of_nat (fetched_rows (cdiv axis per) length step) = Z.of_nat (cdiv axis per) * Z.of_nat length
      - Z.of_nat (cdiv (cdiv axis per - 1) 2) * Z.of_nat (length + step - step * cdiv length step)
      - (Z.of_nat (cdiv axis per) - 1 - Z.of_nat (cdiv (cdiv axis per - 1) 2)) * Z.of_nat (Nat.min step length))%Z.
  Proof.
    intros some positive **. pose proof (cdiv_spec axis per positive). set (walks := cdiv axis per) in *.
    assert (0 < walks) by (destruct walks; lia). pose proof (kept_at_turns walks length step) as all. cbv zeta in all.
    pose proof (cdiv_spec (walks - 1) 2 ltac:(lia)).
    replace (Z.of_nat walks - 1 - Z.of_nat (cdiv (walks - 1) 2))%Z
      with (Z.of_nat (walks - 1 - cdiv (walks - 1) 2)) by lia.
    rewrite <- !Nat2Z.inj_mul. lia.
  Qed.
End BackAndForth.

Section Products.
  Variables (n c a : nat) (f g : nat -> nat).

  Lemma factor_left : sum n f = a -> sum n (fun i => c * f i) = c * a.
  Proof. intros <-. apply sum_mul_l. Qed.
  Lemma factor_right : sum n f = a -> sum n (fun i => f i * c) = c * a.
  Proof. intros <-. rewrite <- sum_mul_l. apply sum_ext. intros. ring. Qed.
  Lemma factor_left_left : sum n (fun i => f i * g i) = a -> sum n (fun i => c * f i * g i) = c * a.
  Proof. intros <-. rewrite <- sum_mul_l. apply sum_ext. intros. ring. Qed.
  Lemma factor_left_right : sum n (fun i => f i * g i) = a -> sum n (fun i => f i * c * g i) = c * a.
  Proof. intros <-. rewrite <- sum_mul_l. apply sum_ext. intros. ring. Qed.
  Lemma factor_right_left : sum n (fun i => f i * g i) = a -> sum n (fun i => f i * (c * g i)) = c * a.
  Proof. intros <-. rewrite <- sum_mul_l. apply sum_ext. intros. ring. Qed.
  Lemma factor_right_right : sum n (fun i => f i * g i) = a -> sum n (fun i => f i * (g i * c)) = c * a.
  Proof. intros <-. rewrite <- sum_mul_l. apply sum_ext. intros. ring. Qed.
  Lemma commuted : sum n (fun i => g i * f i) = a -> sum n (fun i => f i * g i) = a.
  Proof. intros <-. apply sum_ext. intros. ring. Qed.

  Variable s : nat -> bool.

  Lemma seen_factor_left : sum_seen n s f = a -> sum_seen n s (fun i => c * f i) = c * a.
  Proof. intros <-. apply sum_seen_mul_l. Qed.
  Lemma seen_factor_right : sum_seen n s f = a -> sum_seen n s (fun i => f i * c) = c * a.
  Proof. intros <-. rewrite <- sum_seen_mul_l. apply sum_seen_ext. intros. ring. Qed.
  Lemma seen_constant : sum_seen n s (fun _ => c) = c * sum_seen n s (fun _ => 1).
  Proof. rewrite <- sum_seen_mul_l. apply sum_seen_ext. intros. lia. Qed.
End Products.

Ltac sum_seen_rule :=
  lazymatch goal with
  | |- sum_seen ?n ?s (fun i => @?f i + @?g i) = _ => eapply (rule_seen_add n s _ _ f g); sum_seen_rule
  | |- sum_seen ?n ?s (fun _ => ?c) = _ => apply (seen_constant n c s)
  | |- sum_seen ?n ?s (fun i => @?f i * @?g i) = _ =>
      lazymatch constr:((f, g)) with
      | (fun _ => ?c, _) => eapply (seen_factor_left n c _ g s); sum_seen_rule
      | (_, fun _ => ?c) => eapply (seen_factor_right n c _ f s); sum_seen_rule
      end
  | |- _ => reflexivity
  end.

Ltac sum_rule :=
  lazymatch goal with
  | |- sum ?n (fun i => @?f i + @?g i) = _ => eapply (rule_add n _ _ f g); sum_rule
  | |- sum ?n (fun _ => ?c) = _ => apply (sum_const n c)
  | |- sum ?n (fun i => @?f i * @?g i) = _ => product_rule n f g
  | |- sum ?n (fun i => if @?b i then 0 else @?f i) = _ => eapply (rule_unless_kept n b f); sum_seen_rule
  | |- _ => base_rule
  end
with product_rule n f g :=
  lazymatch constr:((f, g)) with
  | (fun _ => ?c, _) => eapply (factor_left n c _ g); sum_rule
  | (_, fun _ => ?c) => eapply (factor_right n c _ f); sum_rule
  | (fun i => @?x i * @?y i, _) =>
      lazymatch constr:((x, y)) with
      | (fun _ => ?c, _) => eapply (factor_left_left n c _ y g)
      | (_, fun _ => ?c) => eapply (factor_left_right n c _ x g)
      end; sum_rule
  | (_, fun i => @?x i * @?y i) =>
      lazymatch constr:((x, y)) with
      | (fun _ => ?c, _) => eapply (factor_right_left n c _ f y)
      | (_, fun _ => ?c) => eapply (factor_right_right n c _ f x)
      end; sum_rule
  | _ => first [base_rule | apply (commuted n _ f g); base_rule]
  end
with base_rule :=
  match goal with
  | positive : 0 < _ |- _ => apply (tiles_cover _ _ positive)
  | positive : 0 < _ |- _ => apply (rule_one_walk _ _ _ positive)
  | |- _ => apply (tiles_cover _ 1 Nat.lt_0_1)
  | |- _ => apply rule_all_walks
  | sees : nat -> nat -> bool |- _ =>
      first [ apply (tiles_from_queries sees) | apply (rows_from_queries sees)
            | apply (cols_from_queries sees) | apply (cells_from_queries sees)
            | apply (tiles_from_keys sees) | apply (rows_from_keys sees)
            | apply (cols_from_keys sees) | apply (cells_from_keys sees) ]
  end.

Ltac count_rule :=
  lazymatch goal with
  | |- count _ (Do _ _) = _ => apply rule_do
  | |- count _ (Seq []) = _ => reflexivity
  | |- count _ (Seq [?p]) = _ => eapply rule_last; count_rule
  | |- count _ (Seq (?p :: ?ps)) = _ => eapply rule_seq; [count_rule | count_rule]
  | |- count _ (Unless ?skipped _) = _ => eapply rule_unless; count_rule
  | |- count _ (For ?n (fun _ => ?p)) = _ => eapply rule_for_same; count_rule
  | |- count _ (For ?n ?body) = _ => eapply rule_for; [intros ?; each_iteration | sum_rule]
  | |- count _ (ForSeen ?n ?s ?body) = _ => eapply rule_for_seen; [intros ?; each_iteration | sum_seen_rule]
  end
with each_iteration := etransitivity; [cbv beta; count_rule | reflexivity].

(* An equation with positions fetched in walks back and forth, in integers, where what is kept can be taken off. *)
Ltac integers :=
  apply Nat2Z.inj; repeat first [rewrite Nat2Z.inj_add | rewrite Nat2Z.inj_mul];
  rewrite !fetched_less_kept by assumption; ring.

(* Pairs of tiles are tiles: a step of two is positive too. *)
Ltac doubled :=
  repeat match goal with
  | positive : 0 < ?step |- context [2 * ?step] =>
      lazymatch goal with _ : 0 < 2 * step |- _ => fail | |- _ => assert (0 < 2 * step) by lia end
  end.

(* The closed form of a program: unfold its name first. *)
Ltac closed_form :=
  intros; cbv zeta; doubled;
  let counted := fresh in
  match goal with |- context [count ?w ?p] => eassert (counted : count w p = _) by count_rule end;
  rewrite counted; clear counted;
  lazymatch goal with |- context [fetched_rows] => integers | |- _ => ring end.
