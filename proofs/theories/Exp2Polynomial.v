(** How far is FlashAttention-4's polynomial of degree 3 from 2^f? This file answers for every real f in [0, 1], by
    computing with integers only:

    1. exp lies between Taylor polynomials, and so does ln 2 between two numbers of ten digits;
    2. the claim becomes "this polynomial with integer coefficients is not negative on [0, 1]";
    3. a polynomial is not negative on [0, 1] if its constant outweighs its negative coefficients, or else if the
       same holds, in turn, for its left and its right half.

    Not claimed: that these coefficients are the best ones. Rounding is the subject of Exp2.v. *)
From Coq Require Import Reals ZArith List Bool Lia Lra.
Import ListNotations.
Local Open Scope R_scope.

(** FlashAttention-4's coefficients are fp32 numbers, so they are written exactly. *)
Definition c1 : R := 11662617 / 16777216.    (* 0.695146143436431884765625 *)
Definition c2 : R := 3817897 / 16777216.     (* 0.227564394474029541015625 *)
Definition c3 : R := 10350749 / 134217728.   (* 0.077119089663028717041015625 *)
Definition polynomial (f : R) : R := ((c3 * f + c2) * f + c1) * f + 1.

(** * Taylor polynomials of exp *)

Fixpoint term (n : nat) (u : R) : R :=       (* u^n / n! *)
  match n with
  | O => 1
  | S k => term k u * u / INR (S k)
  end.

Fixpoint taylor (n : nat) (u : R) : R :=
  match n with
  | O => 1
  | S k => taylor k u + term (S k) u
  end.

Lemma nonnegative_by_derivative (g g' : R -> R) : (forall u, derivable_pt_lim g u (g' u)) -> 0 <= g 0 ->
  (forall u, 0 <= u <= 1 -> 0 <= g' u) -> forall u, 0 <= u <= 1 -> 0 <= g u.
Proof.
  intros Hd H0 Hg u Hu. destruct (Req_dec u 0) as [-> | Hne]; [exact H0 |].
  destruct (MVT_cor2 g g' 0 u ltac:(lra) (fun v _ => Hd v)) as (v & E & Hv).
  pose proof (Hg v ltac:(lra)). nra.
Qed.

Lemma term_derivative n u : derivable_pt_lim (term (S n)) u (term n u).
Proof.
  revert u. induction n as [| n IH]; intros u.
  - simpl. replace 1 with ((1 * 1) / 1) at 2 by field.
    apply (derivable_pt_lim_ext (fun v => v)); [intros; simpl; field |].
    replace (1 * 1 / 1) with 1 by field. apply derivable_pt_lim_id.
  - assert (Hn : INR (S n) <> 0 /\ INR (S (S n)) <> 0) by (split; apply not_0_INR; lia).
    apply (derivable_pt_lim_ext (mult_real_fct (/ INR (S (S n))) (fun v => term (S n) v * v))).
    { intros v. unfold mult_real_fct. change (term (S (S n)) v) with (term (S n) v * v / INR (S (S n))).
      unfold Rdiv. ring. }
    replace (term (S n) u) with (/ INR (S (S n)) * (term n u * u + term (S n) u * 1)).
    { apply derivable_pt_lim_scal, (derivable_pt_lim_mult (term (S n)) id); [apply IH | apply derivable_pt_lim_id]. }
    change (term (S n) u) with (term n u * u / INR (S n)). rewrite (S_INR (S n)) in *. field. lra.
Qed.

Lemma taylor_derivative n u : derivable_pt_lim (taylor (S n)) u (taylor n u).
Proof.
  revert u. induction n as [| n IH]; intros u.
  - replace (taylor 0 u) with (0 + term 0 u) by (simpl; ring).
    apply (derivable_pt_lim_plus (fct_cte 1) (term 1)); [apply derivable_pt_lim_const | apply term_derivative].
  - change (taylor (S n) u) with (taylor n u + term (S n) u).
    apply (derivable_pt_lim_plus (taylor (S n)) (term (S (S n)))); [apply IH | apply term_derivative].
Qed.

Lemma term_0 n : term (S n) 0 = 0.
Proof. simpl term. unfold Rdiv. rewrite Rmult_0_r. ring. Qed.

Lemma taylor_0 n : taylor n 0 = 1.
Proof. induction n as [| n IH]; [reflexivity |]. cbn [taylor]. rewrite IH, term_0. ring. Qed.

Lemma exp_above_taylor n u : 0 <= u <= 1 -> taylor n u <= exp u.
Proof.
  revert u. induction n as [| n IH]; intros u Hu.
  - pose proof (exp_ineq1_le u). simpl. lra.
  - enough (0 <= exp u - taylor (S n) u) by lra.
    apply (nonnegative_by_derivative (fun v => exp v - taylor (S n) v) (fun v => exp v - taylor n v)); [| | | exact Hu].
    + intros v. apply (derivable_pt_lim_minus exp); [apply derivable_pt_lim_exp | apply taylor_derivative].
    + rewrite taylor_0, exp_0. lra.
    + intros v Hv. pose proof (IH v Hv). lra.
Qed.

Lemma exp_below_taylor n u : 0 <= u <= 1 -> exp u <= taylor n u + 3 * term (S n) u.
Proof.
  revert u. induction n as [| n IH]; intros u Hu.
  - enough (0 <= 1 + 3 * u - exp u) by (simpl; lra).
    apply (nonnegative_by_derivative (fun v => 1 + 3 * v - exp v) (fun v => 0 + 3 * 1 - exp v)); [| | | exact Hu].
    + intros v. apply (derivable_pt_lim_minus (fun w => 1 + 3 * w)); [| apply derivable_pt_lim_exp].
      apply (derivable_pt_lim_plus (fct_cte 1) (mult_real_fct 3 id)); [apply derivable_pt_lim_const |].
      apply derivable_pt_lim_scal, derivable_pt_lim_id.
    + rewrite exp_0. lra.
    + intros v Hv. pose proof exp_le_3. assert (exp v <= exp 1); [| lra].
      destruct (Req_dec v 1) as [-> | ?]; [lra | left; apply exp_increasing; lra].
  - enough (0 <= taylor (S n) u + 3 * term (S (S n)) u - exp u) by lra.
    apply (nonnegative_by_derivative (fun v => taylor (S n) v + 3 * term (S (S n)) v - exp v)
             (fun v => taylor n v + 3 * term (S n) v - exp v)); [| | | exact Hu].
    + intros v.
      apply (derivable_pt_lim_minus (fun w => taylor (S n) w + 3 * term (S (S n)) w)); [| apply derivable_pt_lim_exp].
      apply (derivable_pt_lim_plus (taylor (S n)) (mult_real_fct 3 (term (S (S n))))); [apply taylor_derivative |].
      apply derivable_pt_lim_scal, term_derivative.
    + rewrite taylor_0, term_0, exp_0. lra.
    + intros v Hv. pose proof (IH v Hv). lra.
Qed.

(** * Polynomials with integer coefficients, the constant first *)

Fixpoint eval (q : list Z) (t : R) : R :=
  match q with
  | [] => 0
  | c :: r => IZR c + t * eval r t
  end.

Fixpoint plus (q r : list Z) : list Z :=
  match q, r with
  | [], _ => r
  | _, [] => q
  | c :: q', d :: r' => (c + d)%Z :: plus q' r'
  end.

Definition times (a : Z) : list Z -> list Z := map (Z.mul a).

Lemma eval_plus q r t : eval (plus q r) t = eval q t + eval r t.
Proof.
  revert r. induction q as [| c q IH]; intros [| d r]; simpl; try ring. rewrite IH, plus_IZR. ring.
Qed.

Lemma eval_times a q t : eval (times a q) t = IZR a * eval q t.
Proof. induction q as [| c q IH]; simpl; [ring |]. fold (times a q). rewrite IH, mult_IZR. ring. Qed.

Lemma eval_last q c t : eval (q ++ [c]) t = eval q t + IZR c * t ^ length q.
Proof. induction q as [| d q IH]; simpl; [ring |]. rewrite IH. ring. Qed.

(** A lower bound on [0, 1]; the value at 1; the polynomial at t + 1; and d^degree times the polynomial at t / d. *)
Fixpoint low (q : list Z) : Z :=
  match q with
  | [] => 0
  | c :: r => c + Z.min 0 (low r)
  end.

Fixpoint sum (q : list Z) : Z :=
  match q with
  | [] => 0
  | c :: r => c + sum r
  end.

Fixpoint shift (q : list Z) : list Z :=
  match q with
  | [] => []
  | c :: r => let s := shift r in plus (c :: s) s
  end.

Fixpoint shrink (d : Z) (q : list Z) : list Z :=
  match q with
  | [] => []
  | c :: r => (c * d ^ Z.of_nat (length r))%Z :: shrink d r
  end.

(** Is q not negative on [0, 1]? Bisects at most `depth` times in a row. *)
Fixpoint nonnegative (depth : nat) (q : list Z) : bool :=
  if (0 <=? low q)%Z then true else
  match depth with
  | O => false
  | S k => let r := shrink 2 q in if nonnegative k r then nonnegative k (shift r) else false
  end.

Lemma eval_low q t : 0 <= t <= 1 -> IZR (low q) <= eval q t.
Proof.
  intros Ht. induction q as [| c r IH]; simpl; [lra |]. rewrite plus_IZR.
  assert (IZR (Z.min 0 (low r)) <= 0 /\ IZR (Z.min 0 (low r)) <= IZR (low r)) by (split; apply IZR_le; lia).
  nra.
Qed.

Lemma eval_shift q t : eval (shift q) t = eval q (t + 1).
Proof. induction q as [| c r IH]; cbn [shift]; [reflexivity |]. rewrite eval_plus. simpl. rewrite IH. ring. Qed.

Lemma eval_sum q : eval q 1 = IZR (sum q).
Proof. induction q as [| c r IH]; simpl; [reflexivity |]. rewrite IH, plus_IZR. ring. Qed.

Lemma eval_shrink d q t : (0 < d)%Z -> IZR d * eval (shrink d q) t = IZR d ^ length q * eval q (t / IZR d).
Proof.
  intros Hd. apply IZR_lt in Hd. induction q as [| c r IH]; cbn [shrink eval length pow]; [ring |].
  rewrite mult_IZR, <- pow_IZR.
  replace (IZR d * (IZR c * IZR d ^ length r + t * eval (shrink d r) t))
    with (IZR d * IZR c * IZR d ^ length r + t * (IZR d * eval (shrink d r) t)) by ring.
  rewrite IH. field. lra.
Qed.

Lemma nonnegative_correct depth q t : nonnegative depth q = true -> 0 <= t <= 1 -> 0 <= eval q t.
Proof.
  revert q t. induction depth as [| k IH]; intros q t H Ht; simpl in H; destruct (Z.leb_spec 0 (low q)) as [L | L].
  1, 3: apply IZR_le in L; pose proof (eval_low q t Ht); lra.
  { discriminate. }
  destruct (nonnegative k (shrink 2 q)) eqn:Hl; [| discriminate].
  pose proof (pow_lt 2 (length q) ltac:(lra)) as Hp.
  destruct (Rle_dec t (1 / 2)) as [Hh | Hh].
  - pose proof (IH _ (2 * t) Hl ltac:(lra)) as P. pose proof (eval_shrink 2 q (2 * t) eq_refl) as E.
    replace (2 * t / 2) with t in E by field. nra.
  - pose proof (IH _ (2 * t - 1) H ltac:(lra)) as P. rewrite eval_shift in P.
    pose proof (eval_shrink 2 q (2 * t - 1 + 1) eq_refl) as E. replace ((2 * t - 1 + 1) / 2) with t in E by field. nra.
Qed.

(** * Taylor polynomials of exp(t p / d), times n! d^n *)

Section Scaled.
Context (p d : Z) (Hd : (0 < d)%Z).

Fixpoint scale (n : nat) : Z :=
  match n with
  | O => 1
  | S k => scale k * (Z.of_nat (S k) * d)
  end.

Definition next (n : nat) (q : list Z) (m : Z) : list Z := times (Z.of_nat (S n) * d) q ++ [m * p ^ Z.of_nat (S n)]%Z.

Fixpoint scaled_taylor (n : nat) : list Z :=
  match n with
  | O => [1%Z]
  | S k => next k (scaled_taylor k) 1
  end.

Definition scaled_upper (n : nat) : list Z := next n (scaled_taylor n) 3.

Lemma scale_positive n : (0 < scale n)%Z.
Proof. induction n; cbn [scale]; [lia |]. apply Z.mul_pos_pos; [assumption | lia]. Qed.

Lemma scaled_length n : length (scaled_taylor n) = S n.
Proof.
  induction n as [| n IH]; [reflexivity |].
  cbn [scaled_taylor]. unfold next, times. rewrite app_length, map_length, IH. simpl. lia.
Qed.

Lemma scaled_term n t : IZR (scale n) * term n (t * (IZR p / IZR d)) = IZR (p ^ Z.of_nat n) * t ^ n.
Proof.
  induction n as [| n IH]; [simpl; ring |].
  cbn [scale term pow]. rewrite Nat2Z.inj_succ, Z.pow_succ_r, !mult_IZR by lia.
  rewrite <- (Nat2Z.inj_succ n), <- INR_IZR_INZ.
  assert (INR (S n) <> 0) by (apply not_0_INR; lia).
  assert (IZR d <> 0) by (apply not_0_IZR; lia).
  replace (IZR p * IZR (p ^ Z.of_nat n) * (t * t ^ n)) with (IZR p * t * (IZR (p ^ Z.of_nat n) * t ^ n)) by ring.
  rewrite <- IH. field. split; assumption.
Qed.

Lemma eval_next n q m t : length q = S n -> eval q t = IZR (scale n) * taylor n (t * (IZR p / IZR d)) ->
  eval (next n q m) t =
    IZR (scale (S n)) * (taylor n (t * (IZR p / IZR d)) + IZR m * term (S n) (t * (IZR p / IZR d))).
Proof.
  intros Hl Hq. unfold next. rewrite eval_last, eval_times, Hq.
  unfold times. rewrite map_length, Hl, (mult_IZR m).
  replace (IZR m * IZR (p ^ Z.of_nat (S n)) * t ^ S n) with (IZR m * (IZR (p ^ Z.of_nat (S n)) * t ^ S n)) by ring.
  rewrite <- scaled_term. cbn [scale]. rewrite (mult_IZR (scale n)). ring.
Qed.

Lemma eval_scaled_taylor n t : eval (scaled_taylor n) t = IZR (scale n) * taylor n (t * (IZR p / IZR d)).
Proof.
  induction n as [| n IH]; [simpl; ring |].
  cbn [scaled_taylor]. rewrite (eval_next n _ 1 t (scaled_length n) IH). cbn [taylor]. ring.
Qed.

Lemma eval_scaled_upper n t : eval (scaled_upper n) t =
  IZR (scale (S n)) * (taylor n (t * (IZR p / IZR d)) + 3 * term (S n) (t * (IZR p / IZR d))).
Proof. apply eval_next; [apply scaled_length | apply eval_scaled_taylor]. Qed.

Lemma exp_lower n t : 0 <= t * (IZR p / IZR d) <= 1 ->
  eval (scaled_taylor n) t <= IZR (scale n) * exp (t * (IZR p / IZR d)).
Proof.
  intros H. rewrite eval_scaled_taylor. pose proof (scale_positive n) as Hs. apply IZR_lt in Hs.
  apply Rmult_le_compat_l; [lra | now apply exp_above_taylor].
Qed.

Lemma exp_upper n t : 0 <= t * (IZR p / IZR d) <= 1 ->
  IZR (scale (S n)) * exp (t * (IZR p / IZR d)) <= eval (scaled_upper n) t.
Proof.
  intros H. rewrite eval_scaled_upper. pose proof (scale_positive (S n)) as Hs. apply IZR_lt in Hs.
  apply Rmult_le_compat_l; [lra | now apply exp_below_taylor].
Qed.

End Scaled.

(** * ln 2 *)

(** ln 2 lies between 0.6931471805 and 0.6931471806. *)
Definition ln2_below : Z := 6931471805.
Definition ln2_above : Z := 6931471806.
Definition ln2_unit : Z := 10000000000.

Lemma ln2_below_range : 0 <= IZR ln2_below / IZR ln2_unit <= 1.
Proof. unfold ln2_below, ln2_unit. lra. Qed.

Lemma ln2_above_range : 0 <= IZR ln2_above / IZR ln2_unit <= 1.
Proof. unfold ln2_above, ln2_unit. lra. Qed.

Lemma ln_2_bounds : IZR ln2_below / IZR ln2_unit <= ln 2 <= IZR ln2_above / IZR ln2_unit.
Proof.
  pose proof ln2_below_range. pose proof ln2_above_range.
  split; apply Rnot_lt_le; intros H1; apply exp_increasing in H1; rewrite exp_ln in H1 by lra.
  - pose proof (exp_upper ln2_below ln2_unit eq_refl 11 1 ltac:(lra)) as E. rewrite eval_sum, Rmult_1_l in E.
    assert (C : (sum (scaled_upper ln2_below ln2_unit 11) <= scale ln2_unit 12 * 2)%Z) by (vm_compute; discriminate).
    apply IZR_le in C. rewrite mult_IZR in C.
    pose proof (scale_positive ln2_unit eq_refl 12) as S. apply IZR_lt in S. nra.
  - pose proof (exp_lower ln2_above ln2_unit eq_refl 11 1 ltac:(lra)) as E. rewrite eval_sum, Rmult_1_l in E.
    assert (C : (scale ln2_unit 11 * 2 <= sum (scaled_taylor ln2_above ln2_unit 11))%Z) by (vm_compute; discriminate).
    apply IZR_le in C. rewrite mult_IZR in C.
    pose proof (scale_positive ln2_unit eq_refl 11) as S. apply IZR_lt in S. nra.
Qed.

Lemma power_lower f : 0 <= f <= 1 ->
  eval (scaled_taylor ln2_below ln2_unit 11) f <= IZR (scale ln2_unit 11) * Rpower 2 f.
Proof.
  intros Hf. pose proof ln2_below_range. pose proof ln_2_bounds as [L _].
  eapply Rle_trans; [apply exp_lower; [reflexivity | nra] |].
  pose proof (scale_positive ln2_unit eq_refl 11) as S. apply IZR_lt in S. apply Rmult_le_compat_l; [lra |].
  unfold Rpower. apply Rnot_lt_le. intros H1. apply exp_lt_inv in H1. nra.
Qed.

Lemma power_upper f : 0 <= f <= 1 ->
  IZR (scale ln2_unit 12) * Rpower 2 f <= eval (scaled_upper ln2_above ln2_unit 11) f.
Proof.
  intros Hf. pose proof ln2_above_range. pose proof ln_2_bounds as [_ L].
  eapply Rle_trans; [| apply exp_upper; [reflexivity | nra]].
  pose proof (scale_positive ln2_unit eq_refl 12) as S. apply IZR_lt in S. apply Rmult_le_compat_l; [lra |].
  unfold Rpower. apply Rnot_lt_le. intros H1. apply exp_lt_inv in H1. nra.
Qed.

(** * The two sides *)

Definition integer_polynomial : list Z := [134217728; 93300936; 30543176; 10350749]%Z.   (* times 2^27 *)

Lemma eval_integer_polynomial f : eval integer_polynomial f = 134217728 * polynomial f.
Proof. unfold polynomial, c1, c2, c3. simpl. field. Qed.

(** (1 + e) 2^f - polynomial f and polynomial f - (1 - e) 2^f for e = m / 10^8, times positive integers. *)
Definition upper_side (m : Z) : list Z :=
  plus (times ((100000000 + m) * 134217728) (scaled_taylor ln2_below ln2_unit 11))
       (times (- 100000000 * scale ln2_unit 11) integer_polynomial).
Definition lower_side (m : Z) : list Z :=
  plus (times (100000000 * scale ln2_unit 12) integer_polynomial)
       (times (- (100000000 - m) * 134217728) (scaled_upper ln2_above ln2_unit 11)).

Lemma upper_side_correct m f : (0 <= m)%Z -> 0 <= f <= 1 -> 0 <= eval (upper_side m) f ->
  polynomial f <= (1 + IZR m / 100000000) * Rpower 2 f.
Proof.
  intros Hm Hf. apply IZR_le in Hm. unfold upper_side.
  rewrite eval_plus, !eval_times, eval_integer_polynomial, !mult_IZR, plus_IZR.
  pose proof (power_lower f Hf) as P. pose proof (scale_positive ln2_unit eq_refl 11) as S. apply IZR_lt in S.
  set (s := IZR (scale ln2_unit 11)) in *. set (t := eval (scaled_taylor ln2_below ln2_unit 11) f) in *. intros H.
  assert ((100000000 + IZR m) * t <= (100000000 + IZR m) * (s * Rpower 2 f)) by (apply Rmult_le_compat_l; lra).
  apply Rmult_le_reg_l with s; [lra |]. lra.
Qed.

Lemma lower_side_correct m f : (m <= 100000000)%Z -> 0 <= f <= 1 -> 0 <= eval (lower_side m) f ->
  (1 - IZR m / 100000000) * Rpower 2 f <= polynomial f.
Proof.
  intros Hm Hf. apply IZR_le in Hm. unfold lower_side.
  rewrite eval_plus, !eval_times, eval_integer_polynomial, !mult_IZR, opp_IZR, minus_IZR.
  pose proof (power_upper f Hf) as P. pose proof (scale_positive ln2_unit eq_refl 12) as S. apply IZR_lt in S.
  set (s := IZR (scale ln2_unit 12)) in *. set (t := eval (scaled_upper ln2_above ln2_unit 11) f) in *. intros H.
  assert ((100000000 - IZR m) * (s * Rpower 2 f) <= (100000000 - IZR m) * t) by (apply Rmult_le_compat_l; lra).
  apply Rmult_le_reg_l with s; [lra |]. lra.
Qed.

(** In exact arithmetic the polynomial of degree 3 is within 8.763e-5 of 2^f, relatively, for every real f in [0, 1]:
    not a maximum over samples. *)
Theorem exp2_polynomial_error f : 0 <= f <= 1 -> Rabs (polynomial f / Rpower 2 f - 1) <= 8763 / 100000000.
Proof.
  intros Hf.
  assert (U : nonnegative 16 (upper_side 8763) = true) by (vm_compute; reflexivity).
  assert (L : nonnegative 16 (lower_side 8763) = true) by (vm_compute; reflexivity).
  pose proof (upper_side_correct 8763 f ltac:(lia) Hf (nonnegative_correct _ _ _ U Hf)).
  pose proof (lower_side_correct 8763 f ltac:(lia) Hf (nonnegative_correct _ _ _ L Hf)).
  assert (P : 0 < Rpower 2 f) by apply exp_pos.
  assert (E : polynomial f = polynomial f / Rpower 2 f * Rpower 2 f) by (field; lra).
  set (q := polynomial f / Rpower 2 f) in *.
  apply Rabs_le. split; apply Rmult_le_reg_r with (Rpower 2 f); lra.
Qed.

(** The bound is sharp: at f = 1/10 the polynomial exceeds 2^f by more than 8.762e-5, relatively. *)
Theorem exp2_polynomial_error_sharp :
  exists f, 0 <= f <= 1 /\ 8762 / 100000000 <= polynomial f / Rpower 2 f - 1.
Proof.
  exists (1 / 10). split; [lra |].
  assert (H : (1 - -8762 / 100000000) * Rpower 2 (1 / 10) <= polynomial (1 / 10)).
  { apply (lower_side_correct (-8762)); [lia | lra |].
    assert (C : (0 <= sum (shrink 10 (lower_side (-8762))))%Z) by (vm_compute; discriminate).
    apply IZR_le in C. rewrite <- eval_sum in C.
    pose proof (eval_shrink 10 (lower_side (-8762)) 1 eq_refl) as E.
    pose proof (pow_lt 10 (length (lower_side (-8762))) ltac:(lra)). nra. }
  assert (P : 0 < Rpower 2 (1 / 10)) by apply exp_pos.
  apply Rmult_le_reg_r with (Rpower 2 (1 / 10)); [lra |].
  replace ((polynomial (1 / 10) / Rpower 2 (1 / 10) - 1) * Rpower 2 (1 / 10))
    with (polynomial (1 / 10) - Rpower 2 (1 / 10)) by (field; lra).
  lra.
Qed.
