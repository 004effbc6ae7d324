(** Sums that are accumulated in fast memory, and what it costs to begin one there.

    A sum, such as the unfinished output O_ik, gets into fast memory in two ways: it is loaded, or it is begun there.
    Beginning a sum while fast memory holds none of the same cell (i, k) is called a birth. This file counts births
    like loads, and then charges them to stores: a sum that leaves fast memory without ever having been stored had no
    effect, so it need not be begun. The run without such sums is called pruned; it makes the same loads, and no more
    births than the run makes stores of sums. Nothing is assumed about the order of the work, about recomputation, or
    about how many partial sums of a cell there are. *)
From Coq Require Import List Arith Lia Bool.
From IOAware Require Import Machine.
Import ListNotations.

Definition cell_eq : forall x y : nat * nat, {x = y} + {x <> y}.
Proof. repeat decide equality. Defined.

Lemma last_cons {X} (x y z : X) l : l <> [] -> last (x :: l) y = last l z.
Proof.
  intros Hl. destruct l as [|w l]; [congruence|]. clear. revert x w. induction l as [|u l IH]; intros x w; [auto|].
  exact (IH w u).
Qed.

Section Accumulators.
(** Which words are sums, and of what. *)
Variable cell : word -> option (nat * nat).

Definition sum_of x w := match cell w with Some y => if cell_eq x y then true else false | None => false end.

(** Some sum of x is in fast memory. *)
Definition held x (c : fast) := existsb (sum_of x) c.

Lemma sum_of_spec x w : sum_of x w = true <-> cell w = Some x.
Proof. unfold sum_of. destruct (cell w) as [y|]; [destruct (cell_eq x y)|]; split; congruence. Qed.

Lemma held_spec x c : held x c = true <-> exists w, In w c /\ cell w = Some x.
Proof. unfold held. rewrite existsb_exists. now setoid_rewrite sum_of_spec. Qed.

(** The cell whose sum an operation makes (not: loads), and the cell whose sum it makes or stores. *)
Definition begins (o : op) :=
  match o with Load _ | Store _ => None | _ => match made o with w :: _ => cell w | [] => None end end.
Definition target (o : op) := match o with Store w => cell w | _ => begins o end.

(** * Births *)

Definition birth (c : fast) (o : op) :=
  match begins o with Some x => if held x c then 0 else 1 | None => 0 end.
Definition births := spent birth.
Definition accumulator_cost c o := load_cost c o + birth c o.

Lemma birth_le c o : birth c o <= 1.
Proof. unfold birth. destruct begins as [x|]; auto. destruct held; auto. Qed.

Lemma accumulator_cost_le c o : accumulator_cost c o <= 1.
Proof. unfold accumulator_cost. pose proof (birth_le c o). destruct o; [auto| | | | |]; exact H. Qed.

Lemma spent_add f g cs os : spent (fun c o => f c o + g c o) cs os = spent f cs os + spent g cs os.
Proof. revert cs; induction os as [|o os IH]; intros [|c cs]; simpl; auto. rewrite IH. lia. Qed.

(** The words that a run paid for: those loaded, and those born. *)
Fixpoint paid (cs : list fast) (os : list op) : list word :=
  match cs, os with
  | c :: cs, o :: os => (if accumulator_cost c o =? 1 then made o else []) ++ paid cs os
  | _, _ => []
  end.

Lemma paid_length cs os : length (paid cs os) <= spent accumulator_cost cs os.
Proof.
  revert cs; induction os as [|o os IH]; intros [|c cs]; auto. cbn [paid spent]. rewrite app_length. specialize (IH cs).
  destruct (Nat.eqb_spec (accumulator_cost c o) 1) as [->|]; [|simpl; lia]. destruct o; simpl; lia.
Qed.

Section Runs.
Variables (M d : nat).
Notation run := (run M d).

Lemma accumulator_spent c os cs : run c os cs -> spent accumulator_cost cs os = loads os + births cs os.
Proof. intros Hr. unfold accumulator_cost. now rewrite spent_add, (spent_loads _ _ _ _ _ Hr). Qed.

Lemma loaded_paid os : forall c cs, run c os cs -> incl (loaded os) (paid cs os).
Proof.
  induction os as [|o os IH]; intros c cs Hr; [intros ? []|].
  inversion Hr as [|? ? c1 ? cs' Hst Hrun]; subst. cbn [paid]. specialize (IH _ _ Hrun).
  destruct o; simpl; try (apply incl_appr; exact IH); auto.
  intros x [<-|Hx]; simpl; auto.
Qed.

Definition covers W (c : fast) := forall x, held x c = true -> exists w, In w W /\ cell w = Some x.

(** What is born or held before a step. *)
Lemma covers_target W c o x : covers W c -> incl (if accumulator_cost c o =? 1 then made o else []) W ->
  In x (flat_map (fun w => match cell w with Some x => [x] | None => [] end) (made o)) ->
  exists w, In w W /\ cell w = Some x.
Proof.
  intros Hc HW Hx. apply in_flat_map in Hx. destruct Hx as (w & Hw & Hx).
  destruct (cell w) as [y|] eqn:Ey; [|contradiction]. destruct Hx as [->|[]].
  destruct (held x c) eqn:Eh; [auto|]. exists w. split; [|auto]. apply HW.
  assert (accumulator_cost c o = 1) as ->; [|exact Hw].
  unfold accumulator_cost, birth, begins. destruct o; simpl in *; try contradiction; auto;
    destruct Hw as [->|[]]; now rewrite Ey, Eh.
Qed.

(** Inside a segment every sum continues one that was there at the start, was loaded, or was born. *)
Lemma held_from W os : forall c cs, run c os cs -> covers W c -> incl (paid cs os) W ->
  forall c', In c' cs -> covers W c'.
Proof.
  induction os as [|o os IH]; intros c cs Hr H0 HW c' Hin; inversion Hr as [|? ? c1 ? cs' Hst Hrun]; subst.
  - destruct Hin as [<-|[]]; auto.
  - destruct Hin as [<-|Hin]; [auto|]. cbn [paid] in HW. apply incl_app_inv in HW. destruct HW as [HW1 HW2].
    apply (IH c1 cs'); auto. intros x Hx. apply held_spec in Hx. destruct Hx as (w & Hw & Hx).
    destruct Hst as (_ & _ & Hi). apply Hi, in_app_iff in Hw. destruct Hw as [Hw|Hw].
    + apply (covers_target W c o x H0 HW1). apply in_flat_map. exists w. split; [auto|]. rewrite Hx. now left.
    + apply H0, held_spec. eauto.
Qed.

(** * Pruning *)

Definition saves x (o : op) := match o with Store w => sum_of x w | _ => false end.

(** A sum of x is in fast memory, and one will be stored before the last of them leaves it. *)
Fixpoint live x (cs : list fast) (os : list op) : bool :=
  match cs, os with
  | c :: cs, o :: os => held x c && (saves x o || live x cs os)
  | _, _ => false
  end.

Lemma live_cons x c cs o os : live x (c :: cs) (o :: os) = held x c && (saves x o || live x cs os).
Proof. reflexivity. Qed.

Lemma live_held x c cs os : live x (c :: cs) os = true -> held x c = true.
Proof. destruct os; simpl; [discriminate|]. now intros [H _]%andb_true_iff. Qed.

Definition kept cs os (w : word) := match cell w with Some x => live x cs os | None => true end.
Definition pruned cs os := match cs with [] => [] | c :: _ => filter (kept cs os) c end.
Definition pruned_op cs os (o : op) :=
  match begins o with Some x => if live x cs os then o else Misc 0 | None => o end.

(** What is left of a run, from each of its moments on. *)
Fixpoint moments (cs : list fast) (os : list op) :=
  match cs, os with
  | _ :: cs', _ :: os' => (cs, os) :: moments cs' os'
  | _ :: _, [] => [(cs, os)]
  | [], _ => []
  end.
Fixpoint pruned_ops (cs : list fast) (os : list op) :=
  match cs, os with _ :: cs, o :: os => pruned_op cs os o :: pruned_ops cs os | _, _ => [] end.
Definition pruned_states cs os := map (fun m => pruned (fst m) (snd m)) (moments cs os).

Lemma pruned_In w c cs os : In w (pruned (c :: cs) os) <-> In w c /\ kept (c :: cs) os w = true.
Proof. apply filter_In. Qed.

Lemma kept_before w c c1 cs o os : In w c -> kept (c1 :: cs) os w = true -> kept (c :: c1 :: cs) (o :: os) w = true.
Proof.
  unfold kept. destruct (cell w) as [x|] eqn:E; [|auto]. intros Hw Hk. rewrite live_cons, Hk, orb_true_r, andb_true_r.
  apply held_spec. eauto.
Qed.

(** Operations that need no sums but those of the cell that they work on. *)
Variable local : op -> Prop.
Hypothesis local_enabled : forall c c' o, local o -> enabled d c o ->
  (forall w, In w c -> cell w = None \/ cell w = target o -> In w c') -> enabled d c' o.

Hypothesis other_cell : forall n, cell (Other n) = None.

Lemma prune_step c o c1 cs os : local o -> step M d c o c1 ->
  step M d (pruned (c :: c1 :: cs) (o :: os)) (pruned_op (c1 :: cs) os o) (pruned (c1 :: cs) os).
Proof.
  intros Hlocal (HL & He & Hi). split; [|split].
  - apply Nat.le_trans with (2 := HL). simpl. clear. generalize (kept (c1 :: cs) os). intros f.
    induction c1 as [|x l IH]; simpl; [lia|]. destruct (f x); simpl; lia.
  - assert (Hkeep : (forall x, target o = Some x -> saves x o || live x (c1 :: cs) os = true) ->
      enabled d (pruned (c :: c1 :: cs) (o :: os)) o).
    { intros Hx. apply (local_enabled c); auto. intros w Hw Hc. apply pruned_In. split; [auto|]. unfold kept.
      destruct (cell w) as [x|] eqn:E; [|auto]. rewrite live_cons, andb_true_iff. split; [apply held_spec; eauto|].
      apply Hx. destruct Hc; congruence. }
    unfold pruned_op. destruct (begins o) as [x|] eqn:E; [destruct (live x (c1 :: cs) os) eqn:El; [|exact I]|];
      apply Hkeep; intros y Hy.
    + assert (x = y) as -> by (destruct o; simpl in *; congruence). now rewrite El, orb_true_r.
    + apply orb_true_iff. left. destruct o; try (simpl in *; congruence). now apply sum_of_spec.
  - intros w [Hw Hk]%pruned_In. apply in_app_iff. specialize (Hi w Hw). apply in_app_iff in Hi. destruct Hi as [Hi|Hi].
    + left. unfold kept in Hk. unfold pruned_op, begins. destruct o; try exact Hi; simpl in Hi; destruct Hi as [<-|[]];
        cbn [made]; destruct (cell _) as [x|]; try rewrite Hk; now left.
    + right. apply pruned_In. split; [auto|]. now apply kept_before.
Qed.

Definition cells (c : fast) := flat_map (fun w => match cell w with Some x => [x] | None => [] end) c.
Definition live_cells cs os :=
  match cs with [] => [] | c :: _ => nodup cell_eq (filter (fun x => live x cs os) (cells c)) end.

Lemma live_cells_spec x c cs os : In x (live_cells (c :: cs) os) <-> live x (c :: cs) os = true.
Proof.
  unfold live_cells. rewrite nodup_In, filter_In. split; [tauto|]. intros H. split; [|exact H].
  apply live_held, held_spec in H. destruct H as (w & Hw & Hx). apply in_flat_map. exists w. rewrite Hx. simpl; auto.
Qed.

Lemma live_cells_NoDup cs os : NoDup (live_cells cs os).
Proof. destruct cs; [constructor|apply NoDup_nodup]. Qed.

Lemma prune_births c o c1 cs os :
  birth (pruned (c :: c1 :: cs) (o :: os)) (pruned_op (c1 :: cs) os o) + length (live_cells (c :: c1 :: cs) (o :: os))
  <= stores [o] + length (live_cells (c1 :: cs) os).
Proof.
  assert (Hstay : forall x, live x (c :: c1 :: cs) (o :: os) = true -> saves x o = false ->
    In x (live_cells (c1 :: cs) os)).
  { intros x Hx Hs. apply live_cells_spec. rewrite live_cons, Hs in Hx. now apply andb_true_iff in Hx. }
  assert (Hplain : (forall x, saves x o = false) ->
    length (live_cells (c :: c1 :: cs) (o :: os)) <= length (live_cells (c1 :: cs) os)).
  { intros Hs. apply NoDup_incl_length; [apply live_cells_NoDup|]. intros x Hx%live_cells_spec. auto. }
  assert (Hborn : (forall x, saves x o = false) ->
    birth (pruned (c :: c1 :: cs) (o :: os)) (pruned_op (c1 :: cs) os o) + length (live_cells (c :: c1 :: cs) (o :: os))
      <= length (live_cells (c1 :: cs) os)).
  { intros Hs. unfold birth, pruned_op. destruct (begins o) as [x|] eqn:E; [|rewrite E; exact (Hplain Hs)].
    destruct (live x (c1 :: cs) os) eqn:El; [|simpl; rewrite other_cell; exact (Hplain Hs)].
    rewrite E. destruct (held x _) eqn:Eh; [exact (Hplain Hs)|].
    change (length (x :: live_cells (c :: c1 :: cs) (o :: os)) <= length (live_cells (c1 :: cs) os)).
    apply NoDup_incl_length.
    - constructor; [|apply live_cells_NoDup]. intros Hin%live_cells_spec. pose proof (live_held _ _ _ _ Hin) as Hh.
      apply held_spec in Hh. destruct Hh as (w & Hw & Hc). rewrite <- not_true_iff_false in Eh. apply Eh, held_spec.
      exists w. split; [|auto]. apply pruned_In. split; [auto|]. unfold kept. now rewrite Hc.
    - intros y [<-|Hy]; [now apply live_cells_spec|]. apply live_cells_spec in Hy. auto. }
  destruct o as [v|v|p i j A|i k|i k J|n]; try exact (Hborn (fun x => eq_refl)).
  change (length (live_cells (c :: c1 :: cs) (Store v :: os)) <= S (length (live_cells (c1 :: cs) os))).
  destruct (cell v) as [x|] eqn:E.
  - apply (NoDup_incl_length (l' := x :: live_cells (c1 :: cs) os)); [apply live_cells_NoDup|].
    intros y Hy%live_cells_spec. destruct (saves y (Store v)) eqn:Es; [left|right; auto].
    apply sum_of_spec in Es. congruence.
  - apply le_S, Hplain. intros x. simpl. unfold sum_of. now rewrite E.
Qed.

(** The whole run, pruned: the same loads, and births that are no more than its stores. *)
Lemma prune os : forall c cs, run c os cs -> Forall local os ->
  run (pruned cs os) (pruned_ops cs os) (pruned_states cs os) /\ loads (pruned_ops cs os) = loads os /\
  births (pruned_states cs os) (pruned_ops cs os) + length (live_cells cs os) <= stores os.
Proof.
  induction os as [|o os IH]; intros c cs Hr Hlocal; inversion Hr as [|? ? c1 ? cs1 Hst Hrun]; subst.
  - split; [constructor|]. split; [auto|]. simpl. induction (cells c); auto.
  - inversion Hlocal as [|? ? Ho Hos]; subst. destruct (IH c1 cs1 Hrun Hos) as (Hr' & HL & HB). clear IH.
    destruct (run_head _ _ _ _ _ Hrun) as (tail & ->).
    change (pruned_ops (c :: c1 :: tail) (o :: os)) with (pruned_op (c1 :: tail) os o :: pruned_ops (c1 :: tail) os).
    change (pruned_states (c :: c1 :: tail) (o :: os))
      with (pruned (c :: c1 :: tail) (o :: os) :: pruned_states (c1 :: tail) os).
    split; [|split].
    + econstructor; [apply prune_step; eauto|exact Hr'].
    + rewrite (loads_app [_] (pruned_ops _ _) : loads (_ :: _) = _), HL, (loads_app [o] os : loads (o :: os) = _).
      f_equal.
      unfold pruned_op, begins. destruct o; auto; destruct (match made _ with [] => _ | _ => _ end); auto; destruct
        live; auto.
    + pose proof (prune_births c o c1 tail os) as HP. unfold births in *. cbn [spent].
      rewrite (stores_app [o] os : stores (o :: os) = _). lia.
Qed.
End Runs.
End Accumulators.
