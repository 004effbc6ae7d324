(** Relative errors as exponents: how they add up in products, in sums of any order, in a score and in exp(a - b).

    A computed number is the exact one times e^t with |t| <= k. The errors k of products and quotients add up, which
    factors 1 + u do not. A sum of terms of any sign is off by at most e^k - 1 times the sum of their absolute values.
    Not claimed: anything about overflow, underflow, infinities and NaN. A rounding here is any function on the real
    numbers whose relative error is bounded. *)
From Coq Require Import Reals Lra Lia List Permutation.
Import ListNotations.
Local Open Scope R_scope.

(** ** Errors as exponents *)

(** x is y times e^t with |t| <= k. *)
Definition close (k x y : R) : Prop := exists t, Rabs t <= k /\ x = y * exp t.

(** x differs from y by at most e^k - 1 times the size w. *)
Definition within (k x y w : R) : Prop := Rabs (x - y) <= (exp k - 1) * w.

Lemma Rabs_le_inv x b : Rabs x <= b -> - b <= x <= b.
Proof. unfold Rabs. destruct (Rcase_abs x); lra. Qed.

Lemma exp_le a b : a <= b -> exp a <= exp b.
Proof. intros [H | ->]; [left; now apply exp_increasing | lra]. Qed.

Lemma ln_le a b : 0 < a -> a <= b -> ln a <= ln b.
Proof. intros Ha [H | ->]; [left; now apply ln_increasing | lra]. Qed.

Lemma exp_ge_1 k : 0 <= k -> 1 <= exp k.
Proof. intros H. rewrite <- exp_0. now apply exp_le. Qed.

Lemma exp_minus_one t k : Rabs t <= k -> Rabs (exp t - 1) <= exp k - 1.
Proof.
  intros H. apply Rabs_le_inv in H. pose proof (exp_ineq1_le k). pose proof (exp_ineq1_le t).
  pose proof (exp_le t k ltac:(lra)). apply Rabs_le. lra.
Qed.

Lemma close_refl k y : 0 <= k -> close k y y.
Proof. intros H. exists 0. rewrite Rabs_R0, exp_0. split; [lra | ring]. Qed.

Lemma close_weaken a b x y : a <= b -> close a x y -> close b x y.
Proof. intros H (t & Ht & ->). exists t. split; [lra | reflexivity]. Qed.

Lemma close_mul a b x y x' y' : close a x y -> close b x' y' -> close (a + b) (x * x') (y * y').
Proof.
  intros (t & Ht & ->) (t' & Ht' & ->). exists (t + t').
  split; [pose proof (Rabs_triang t t'); lra | rewrite exp_plus; ring].
Qed.

Lemma close_trans a b x y z : close a x y -> close b y z -> close (a + b) x z.
Proof.
  intros (t & Ht & ->) (t' & Ht' & ->). exists (t + t').
  split; [pose proof (Rabs_triang t t'); lra | rewrite exp_plus; ring].
Qed.

Lemma close_inv k x y : close k x y -> close k (/ x) (/ y).
Proof.
  intros (t & Ht & ->). exists (- t). rewrite Rabs_Ropp, exp_Ropp, Rinv_mult. auto.
Qed.

Lemma close_exp k s t : Rabs (s - t) <= k -> close k (exp s) (exp t).
Proof. intros H. exists (s - t). rewrite <- exp_plus. split; [lra | f_equal; ring]. Qed.

Lemma close_interval k x y : 0 < y -> close k x y <-> y * exp (- k) <= x <= y * exp k.
Proof.
  intros Hy. split.
  - intros (t & Ht & ->). apply Rabs_le_inv in Ht.
    split; (apply Rmult_le_compat_l; [lra | apply exp_le; lra]).
  - intros [L U]. pose proof (exp_pos (- k)) as P. assert (0 < x) by nra.
    exists (ln (x / y)). assert (0 < x / y) by now apply Rdiv_lt_0_compat. rewrite exp_ln by auto. split; [|field; lra].
    assert (Hx : exp (- k) <= x / y <= exp k).
    { split; (apply Rmult_le_reg_r with y; [lra|]); replace (x / y * y) with x by (field; lra); lra. }
    pose proof (ln_le _ _ P (proj1 Hx)) as Hl. pose proof (ln_le (x / y) (exp k) ltac:(assumption) (proj2 Hx)) as Hu.
    rewrite ln_exp in Hl, Hu. apply Rabs_le. lra.
Qed.

Lemma close_pos k x y : 0 < y -> close k x y -> 0 < x.
Proof. intros Hy (t & _ & ->). pose proof (exp_pos t). nra. Qed.

Lemma close_add k x y x' y' : 0 < y -> 0 < y' -> close k x y -> close k x' y' -> close k (x + x') (y + y').
Proof.
  intros Hy Hy' H H'. apply close_interval in H; auto. apply close_interval in H'; auto.
  apply close_interval; lra.
Qed.

(** A relative error of at most k / (1 + k): what rounding to nearest has, for its unit roundoff k. *)
Lemma close_relative k x y : 0 <= k -> Rabs (x - y) <= k / (1 + k) * Rabs y -> close k x y.
Proof.
  intros Hk H. destruct (Req_dec y 0) as [-> | Ny].
  - rewrite Rabs_R0, Rmult_0_r in H. pose proof (Rabs_pos (x - 0)).
    assert (x = 0) by (destruct (Req_dec (x - 0) 0) as [|N]; [lra | pose proof (Rabs_pos_lt _ N); lra]).
    subst. now apply close_refl.
  - set (r := x / y). assert (Hx : x = y * r) by (unfold r; field; auto).
    assert (Hr : Rabs (r - 1) <= k / (1 + k)).
    { apply Rmult_le_reg_r with (Rabs y); [now apply Rabs_pos_lt|].
      rewrite <- Rabs_mult. replace ((r - 1) * y) with (x - y) by (rewrite Hx; ring). exact H. }
    apply Rabs_le_inv in Hr. assert (E : k / (1 + k) = 1 - / (1 + k)) by (field; lra).
    assert (0 < / (1 + k)) by (apply Rinv_0_lt_compat; lra).
    assert (r <= 1 + k) by (assert (k / (1 + k) * (1 + k) = k) by (field; lra);
      assert (0 <= k / (1 + k)) by (apply Rmult_le_pos; lra); nra).
    pose proof (exp_ineq1_le k) as E1. rewrite Hx, <- (Rmult_1_r y) at 1.
    replace (y * 1 * r) with (r * y) by ring. replace y with (1 * y) at 2 by ring.
    replace k with (k + 0) by ring. apply close_mul; [|apply close_refl; lra].
    apply close_interval; [lra|]. rewrite !Rmult_1_l, exp_Ropp. split; [|lra].
    apply Rle_trans with (/ (1 + k)); [apply Rinv_le_contravar; lra | lra].
Qed.

Lemma close_within k x y : close k x y -> within k x y (Rabs y).
Proof.
  intros (t & Ht & ->). unfold within. replace (y * exp t - y) with ((exp t - 1) * y) by ring.
  rewrite Rabs_mult. apply Rmult_le_compat_r; [apply Rabs_pos | now apply exp_minus_one].
Qed.

Lemma within_weaken a b x y w : a <= b -> 0 <= w -> within a x y w -> within b x y w.
Proof.
  unfold within. intros H Hw A. apply Rle_trans with (1 := A). apply Rmult_le_compat_r; auto.
  pose proof (exp_le _ _ H). lra.
Qed.

Lemma within_add k x y w x' y' w' : within k x y w -> within k x' y' w' -> within k (x + x') (y + y') (w + w').
Proof.
  unfold within. intros A B. replace (x + x' - (y + y')) with ((x - y) + (x' - y')) by ring.
  apply Rle_trans with (1 := Rabs_triang _ _). lra.
Qed.

Lemma within_mul a b c' c x y w :
  close a c' c -> Rabs y <= w -> within b x y w -> within (a + b) (c' * x) (c * y) (Rabs c * w).
Proof.
  unfold within. intros (t & Ht & ->) Hy Hx. rewrite exp_plus.
  replace (c * exp t * x - c * y) with (c * (exp t * (x - y) + (exp t - 1) * y)) by ring.
  rewrite Rabs_mult. replace ((exp a * exp b - 1) * (Rabs c * w)) with
    (Rabs c * (exp a * ((exp b - 1) * w) + (exp a - 1) * w)) by ring.
  apply Rmult_le_compat_l; [apply Rabs_pos|]. apply Rle_trans with (1 := Rabs_triang _ _). rewrite !Rabs_mult.
  pose proof (exp_minus_one _ _ Ht). pose proof (exp_pos t). rewrite (Rabs_right (exp t)) by lra.
  assert (exp t <= exp a) by (apply exp_le; apply Rabs_le_inv in Ht; lra).
  apply Rplus_le_compat; apply Rmult_le_compat; auto using Rabs_pos; lra.
Qed.

(** ** Sums over lists *)

Fixpoint total {A} (f : A -> R) (l : list A) : R := match l with [] => 0 | a :: l => f a + total f l end.

Lemma total_app {A} (f : A -> R) a b : total f (a ++ b) = total f a + total f b.
Proof. induction a as [|x a IH]; cbn; lra. Qed.

Lemma total_permutation {A} (f : A -> R) a b : Permutation a b -> total f a = total f b.
Proof. induction 1; cbn; lra. Qed.

Lemma total_map {A C} (f : C -> R) (g : A -> C) l : total f (map g l) = total (fun a => f (g a)) l.
Proof. induction l as [|a l IH]; cbn; lra. Qed.

Lemma total_ext {A} (f g : A -> R) l : (forall a, In a l -> f a = g a) -> total f l = total g l.
Proof.
  intros H. induction l as [|a l IH]; cbn; [reflexivity|].
  rewrite H, IH; cbn; auto. intros; apply H; cbn; auto.
Qed.

Lemma total_scale {A} (f : A -> R) c l : total (fun a => c * f a) l = c * total f l.
Proof. induction l as [|a l IH]; cbn; lra. Qed.

Lemma total_minus {A} (f g : A -> R) l : total (fun a => f a - g a) l = total f l - total g l.
Proof. induction l as [|a l IH]; cbn; lra. Qed.

Lemma total_le {A} (f g : A -> R) l : (forall a, In a l -> f a <= g a) -> total f l <= total g l.
Proof.
  intros H. induction l as [|a l IH]; cbn; [lra|].
  apply Rplus_le_compat; [apply H; cbn; auto | apply IH; intros; apply H; cbn; auto].
Qed.

Lemma total_pos {A} (f : A -> R) l : l <> [] -> (forall a, In a l -> 0 < f a) -> 0 < total f l.
Proof.
  intros N H. destruct l as [|a l]; [congruence|]. cbn.
  assert (total (fun _ => 0 * 0) l <= total f l)
    by (apply total_le; intros; rewrite Rmult_0_l; left; apply H; cbn; auto).
  rewrite total_scale in *. specialize (H a (or_introl eq_refl)). lra.
Qed.

Lemma total_abs {A} (f : A -> R) l : Rabs (total f l) <= total (fun a => Rabs (f a)) l.
Proof.
  induction l as [|a l IH]; cbn; [rewrite Rabs_R0; lra|].
  apply Rle_trans with (1 := Rabs_triang _ _). lra.
Qed.

(** ** Sums in any order *)

Section Sums.
Variable fl : R -> R.
Variable u : R.
Hypothesis u_nonneg : 0 <= u.
Hypothesis fl_close : forall x, close u (fl x) x.

(** A product, rounded; or exact, as inside a fused multiply-add. *)
Definition product (a b z : R) : Prop := z = a * b \/ z = fl (a * b).

Lemma product_close a b z : product a b z -> close u z (a * b).
Proof. intros [-> | ->]; [now apply close_refl | apply fl_close]. Qed.

(** The terms of a list, added up in some order with any parentheses; every addition is rounded. *)
Inductive summed {A} (term : A -> R -> Prop) : list A -> R -> Prop :=
| summed_one a x : term a x -> summed term [a] x
| summed_add l x l' x' : summed term l x -> summed term l' x' -> summed term (l ++ l') (fl (x + x'))
| summed_reorder l l' x : Permutation l l' -> summed term l x -> summed term l' x.

Lemma add_within k x y w x' y' w' :
  Rabs y <= w -> Rabs y' <= w' -> within k x y w -> within k x' y' w' -> within (k + u) (fl (x + x')) (y + y') (w + w').
Proof.
  intros Hy Hy' A B. pose proof (within_add _ _ _ _ _ _ _ A B) as H.
  destruct (fl_close (x + x')) as (t & Ht & ->).
  replace (y + y') with (1 * (y + y')) by ring. replace (w + w') with (Rabs 1 * (w + w')) by (rewrite Rabs_R1; ring).
  rewrite Rplus_comm, (Rmult_comm (x + x')). apply within_mul; auto.
  - exists t. split; [auto | ring].
  - apply Rle_trans with (1 := Rabs_triang _ _). lra.
Qed.

Lemma add_close k x y x' y' :
  0 < y -> 0 < y' -> close k x y -> close k x' y' -> close (k + u) (fl (x + x')) (y + y').
Proof. intros. rewrite Rplus_comm. apply close_trans with (x + x'); auto. now apply close_add. Qed.

Lemma summed_length {A} (term : A -> R -> Prop) l x : summed term l x -> (1 <= length l)%nat.
Proof. induction 1; cbn; rewrite ?app_length; try lia. erewrite <- Permutation_length; eauto. Qed.

(** One addition less than there are terms, and the terms' own error k. *)
Lemma summed_within {A} (term : A -> R -> Prop) (f : A -> R) k l x :
  0 <= k -> (forall a z, In a l -> term a z -> close k z (f a)) -> summed term l x ->
  within (k + (INR (length l) - 1) * u) x (total f l) (total (fun a => Rabs (f a)) l).
Proof.
  intros Hk H S. revert H. induction S as [a x Ha | l x l' x' S IH S' IH' | l l' x P S IH]; intros H.
  - cbn. replace (f a + 0) with (f a) by ring. replace (Rabs (f a) + 0) with (Rabs (f a)) by ring.
    replace (k + (1 - 1) * u) with k by ring. apply close_within, H; cbn; auto.
  - rewrite !total_app, app_length, plus_INR.
    pose proof (le_INR _ _ (summed_length _ _ _ S)). pose proof (le_INR _ _ (summed_length _ _ _ S')). cbn in *.
    assert (W : forall n, 1 <= n -> n <= INR (length l) + INR (length l') - 1 ->
      k + (n - 1) * u <= k + (INR (length l) + INR (length l') - 1 - 1) * u).
    { intros n _ Hn. apply Rplus_le_compat_l, Rmult_le_compat_r; lra. }
    replace (k + (INR (length l) + INR (length l') - 1) * u)
      with (k + (INR (length l) + INR (length l') - 1 - 1) * u + u) by ring.
    apply add_within; auto using total_abs.
    + apply within_weaken with (k + (INR (length l) - 1) * u); [apply W; lra | |].
      * apply Rle_trans with (2 := total_abs f l), Rabs_pos.
      * apply IH. intros; apply H; auto; apply in_or_app; auto.
    + apply within_weaken with (k + (INR (length l') - 1) * u); [apply W; lra | |].
      * apply Rle_trans with (2 := total_abs f l'), Rabs_pos.
      * apply IH'. intros; apply H; auto; apply in_or_app; auto.
  - rewrite <- (Permutation_length P), <- !(total_permutation _ _ _ P). apply IH.
    intros a z Ha. apply H. now apply (Permutation_in a P).
Qed.

(** The same for positive terms, whose sum has a relative error of its own. *)
Lemma summed_close {A} (term : A -> R -> Prop) (f : A -> R) k l x :
  (forall a z, In a l -> term a z -> close k z (f a)) -> (forall a, In a l -> 0 < f a) -> summed term l x ->
  close (k + (INR (length l) - 1) * u) x (total f l).
Proof.
  intros H F S. revert H F. induction S as [a x Ha | l x l' x' S IH S' IH' | l l' x P S IH]; intros H F.
  - cbn. replace (f a + 0) with (f a) by ring. replace (k + (1 - 1) * u) with k by ring. apply H; cbn; auto.
  - rewrite total_app, app_length, plus_INR.
    pose proof (summed_length _ _ _ S) as L. pose proof (summed_length _ _ _ S') as L'.
    assert (N : l <> [] /\ l' <> []) by (split; intros ->; cbn in *; lia).
    apply le_INR in L. apply le_INR in L'. cbn in L, L'.
    replace (k + (INR (length l) + INR (length l') - 1) * u)
      with (k + (INR (length l) + INR (length l') - 1 - 1) * u + u) by ring.
    assert (Hl : forall a, In a l -> In a (l ++ l')) by (intros; apply in_or_app; auto).
    assert (Hl' : forall a, In a l' -> In a (l ++ l')) by (intros; apply in_or_app; auto).
    apply add_close; try (apply total_pos; [apply N | auto]).
    + apply close_weaken with (2 := IH ltac:(auto) ltac:(auto)). apply Rplus_le_compat_l, Rmult_le_compat_r; lra.
    + apply close_weaken with (2 := IH' ltac:(auto) ltac:(auto)). apply Rplus_le_compat_l, Rmult_le_compat_r; lra.
  - rewrite <- (Permutation_length P), <- (total_permutation _ _ _ P).
    assert (Q : forall a, In a l -> In a l') by (intros a Ha; now apply (Permutation_in a P)). apply IH; auto.
Qed.
End Sums.

(** ** Where the hypotheses come from *)

(** An exponential of a rounded difference: the rounding moves the argument by at most u (b - a), the exponential itself
    has a relative error of at most e + slope |x| at x, which is below some worst < 1. So exp(a - b) has an error of
    rho (b - a) + eps as an exponent, with rho = u + slope (1 + u) / (1 - worst) and eps = e / (1 - worst).
    Used by: proofs/ioaware_proofs/rounding.py (error_bound). *)
Theorem difference_exp_error (fl machine_exp : R -> R) (u e slope worst a b : R) :
  0 <= u -> 0 <= e -> 0 <= slope -> a <= b -> Rabs (fl (a - b) - (a - b)) <= u * (b - a) ->
  Rabs (machine_exp (fl (a - b)) - exp (fl (a - b))) <= (e + slope * Rabs (fl (a - b))) * exp (fl (a - b)) ->
  e + slope * Rabs (fl (a - b)) <= worst < 1 ->
  close ((u + slope * (1 + u) / (1 - worst)) * (b - a) + e / (1 - worst)) (machine_exp (fl (a - b))) (exp (a - b)).
Proof.
  intros Hu He Hs Hab Hfl Hexp Hw. set (y := fl (a - b)) in *. set (E := e + slope * Rabs y) in *.
  assert (HE : 0 <= E) by (pose proof (Rmult_le_pos _ _ Hs (Rabs_pos y)); unfold E; lra).
  assert (Hy : Rabs y <= (1 + u) * (b - a)).
  { replace y with ((y - (a - b)) + (a - b)) by ring. apply Rle_trans with (1 := Rabs_triang _ _).
    rewrite (Rabs_left1 (a - b)) by lra. lra. }
  assert (I : 0 < / (1 - worst)) by (apply Rinv_0_lt_compat; lra).
  apply close_weaken with (E / (1 - worst) + u * (b - a)).
  - unfold E, Rdiv. pose proof (Rmult_le_compat_l _ _ _ Hs Hy) as S.
    apply (Rmult_le_compat_r (/ (1 - worst))) in S; lra.
  - apply close_trans with (exp y); [|now apply close_exp]. apply close_relative; [apply Rmult_le_pos; lra|].
    rewrite (Rabs_right (exp y)) by (left; apply exp_pos). apply Rle_trans with (1 := Hexp).
    apply Rmult_le_compat_r; [left; apply exp_pos|]. fold E.
    replace (E / (1 - worst) / (1 + E / (1 - worst))) with (E * / (1 - worst + E)) by (field; lra).
    rewrite <- (Rmult_1_r E) at 1. apply Rmult_le_compat_l; auto.
    rewrite <- Rinv_1. apply Rinv_le_contravar; lra.
Qed.

(** The score of a key: a dot product of d terms, added up in any order, times the rounded scale. It is off by at most
    e^((d + 2) u) - 1 times scale times the sum of the absolute products.
    Used by: proofs/ioaware_proofs/rounding.py (error_bound). *)
Theorem score_error (fl : R -> R) (u scale scale_hat : R) (products : list (R * R)) (dot : R) :
  0 <= u -> (forall x, close u (fl x) x) -> 0 <= scale -> close u scale_hat scale ->
  summed fl (fun p x => product fl (fst p) (snd p) x) products dot ->
  Rabs (fl (scale_hat * dot) - scale * total (fun p => fst p * snd p) products)
  <= (exp ((INR (length products) + 2) * u) - 1) * (scale * total (fun p => Rabs (fst p * snd p)) products).
Proof.
  intros Hu Hfl Hs Hc S.
  assert (W : within (u + (INR (length products) - 1) * u) dot (total (fun p => fst p * snd p) products)
    (total (fun p => Rabs (fst p * snd p)) products)).
  { eapply summed_within; [..|apply S]; auto. intros p x _. now apply product_close. }
  destruct (Hfl (scale_hat * dot)) as (t & Ht & ->).
  replace (scale_hat * dot * exp t) with ((scale_hat * exp t) * dot) by ring.
  assert (C : close (u + u) (scale_hat * exp t) scale) by (apply close_trans with scale_hat; [now exists t | auto]).
  pose proof (within_mul _ _ _ _ _ _ _ C (total_abs _ _) W) as H.
  unfold within in H. rewrite (Rabs_right scale) in H by lra.
  replace (u + u + (u + (INR (length products) - 1) * u)) with ((INR (length products) + 2) * u) in H by ring. exact H.
Qed.
