(** FlashAttention-4 computes part of its exponentials without the GPU's exponential unit: a polynomial of degree 3
    and integer arithmetic on the exponent field. This file bounds the relative error of that code, step by step,
    against the true power 2^x:

    1. the split x = n + f, with n = floor x found by adding the magic number 2^23 + 2^22, rounded downwards;
    2. the fraction f = x - n, rounded to fp32 (it is not always an fp32 number: x = -2^-30 has f = 1 - 2^-30);
    3. the polynomial, evaluated by three fp32 fused multiply-adds (its exact error: Exp2Polynomial.v);
    4. the multiplication by 2^n.

    An fp32 number is a real number here, and every operation is the exact one followed by one rounding (Flocq's
    binary32 with subnormals, no largest number). Exp2Bits.v shows that the instructions on bit patterns compute these
    real numbers, overflow and the exponent field included, and what happens below -126.

    Not claimed: anything about the hardware instruction ex2.approx, which computes the other exponentials; the cast of
    the result to bf16 or fp16 (up to 2^-8 or 2^-11, more than all errors here); the rounding of the scores that x was
    made from, for which software_exp2_error_near gives the price. *)
From Coq Require Import Reals ZArith Lia Lra.
From Flocq Require Import Core Relative.
From IOAware Require Import Exp2Polynomial.
Local Open Scope R_scope.

Definition fp32_format : Z -> Z := FLT_exp (-149) 24.
Definition fp32 : R -> R := round radix2 fp32_format ZnearestE.
Definition fp32_down : R -> R := round radix2 fp32_format Zfloor.

Definition magic : R := 12582912.            (* 2^23 + 2^22 *)
Definition whole (x : R) : R := fp32 (fp32_down (x + magic) - magic).
Definition fraction (x : R) : R := fp32 (x - whole x).
Definition horner (g : R) : R := fp32 (fp32 (fp32 (c3 * g + c2) * g + c1) * g + 1).
Definition software_exp2 (x : R) : R := horner (fraction x) * Rpower 2 (whole x).

(** * One rounding *)

Local Instance fp32_format_valid : Valid_exp fp32_format.
Proof. apply FLT_exp_valid. reflexivity. Qed.

Lemma fp32_error k y : (-125 <= k)%Z -> Rabs y < bpow radix2 k -> Rabs (fp32 y - y) <= bpow radix2 (k - 25).
Proof.
  intros Hk Hy. unfold fp32.
  destruct (Req_dec y 0) as [-> | Hy0].
  { rewrite round_0 by typeclasses eauto. rewrite Rminus_0_r, Rabs_R0. apply bpow_ge_0. }
  apply Rle_trans with (1 := error_le_half_ulp radix2 fp32_format _ y).
  rewrite ulp_neq_0 by assumption.
  replace (bpow radix2 (k - 25)) with (/ 2 * bpow radix2 (k - 24)).
  2: { replace (k - 24)%Z with (k - 25 + 1)%Z by lia. rewrite bpow_plus. simpl (bpow radix2 1). lra. }
  apply Rmult_le_compat_l; [lra |]. apply bpow_le.
  assert (mag radix2 y <= k)%Z by (apply mag_le_bpow; assumption).
  unfold cexp, fp32_format, FLT_exp. lia.
Qed.

Lemma fp32_integer z : (Z.abs z < 2 ^ 24)%Z -> fp32 (IZR z) = IZR z.
Proof.
  intros Hz. apply round_generic; [typeclasses eauto |].
  apply generic_format_FLT. exists (Float radix2 z 0); simpl; try lia.
  unfold F2R; simpl. ring.
Qed.

Lemma fp32_between lo hi y : (Z.abs lo < 2 ^ 24)%Z -> (Z.abs hi < 2 ^ 24)%Z ->
  IZR lo <= y <= IZR hi -> IZR lo <= fp32 y <= IZR hi.
Proof.
  intros Hlo Hhi [Hl Hh].
  rewrite <- (fp32_integer lo Hlo), <- (fp32_integer hi Hhi).
  split; apply round_le; try typeclasses eauto; assumption.
Qed.

(** * The split *)

Lemma add_magic_down x : -4194304 <= x < 4194304 -> fp32_down (x + magic) = IZR (Zfloor x + 12582912).
Proof.
  intros Hx. unfold fp32_down, round, F2R, scaled_mantissa.
  assert (Hm : mag radix2 (x + magic) = 24%Z :> Z).
  { apply mag_unique_pos. unfold magic. change (bpow radix2 (24 - 1)) with 8388608.
    change (bpow radix2 24) with 16777216. lra. }
  unfold cexp. rewrite Hm. change (fp32_format 24) with 0%Z. simpl bpow.
  rewrite !Rmult_1_r. simpl. unfold magic.
  f_equal. apply Zfloor_imp. rewrite !plus_IZR.
  pose proof (Zfloor_lb x). pose proof (Zfloor_ub x). lra.
Qed.

Lemma floor_range lo hi x : IZR lo <= x <= IZR hi -> (lo <= Zfloor x <= hi)%Z.
Proof.
  intros [Hl Hh]. split.
  - now apply Zfloor_lub.
  - apply le_IZR. pose proof (Zfloor_lb x). lra.
Qed.

(** Adding the magic number 12582912 = 2^23 + 2^22 with rounding downwards, and subtracting it, gives exactly floor x,
    for every real x between -2^22 and 2^22. *)
Theorem magic_number_is_floor x : -4194304 <= x < 4194304 -> whole x = IZR (Zfloor x).
Proof.
  intros Hx. unfold whole. rewrite (add_magic_down x Hx).
  unfold magic. rewrite <- minus_IZR. replace (Zfloor x + 12582912 - 12582912)%Z with (Zfloor x) by lia.
  apply fp32_integer.
  pose proof (floor_range (-4194304) 4194304 x ltac:(lra)). lia.
Qed.

(** The computed fraction lies in [0, 1], both ends included, and differs from x - floor x by at most 2^-25.
    The end 1 is reached, by every x between -2^-25 and 0. *)
Theorem fraction_error x : -4194304 <= x < 4194304 ->
  0 <= fraction x <= 1 /\ Rabs (fraction x - (x - IZR (Zfloor x))) <= / 33554432.
Proof.
  intros Hx. unfold fraction. rewrite (magic_number_is_floor x Hx).
  pose proof (Zfloor_lb x). pose proof (Zfloor_ub x). split.
  - apply (fp32_between 0 1); lia || lra.
  - apply (fp32_error 0); [lia |]. apply Rabs_def1; simpl; lra.
Qed.

(** * Horner's rule *)

Lemma horner_absolute_error g : 0 <= g <= 1 ->
  Rabs (horner g - polynomial g) <= / 16777216 * (1 + g / 2 + g * g / 4).
Proof.
  intros Hg. unfold horner.
  set (p2 := fp32 (c3 * g + c2)). set (p1 := fp32 (p2 * g + c1)).
  assert (H2 : Rabs (p2 - (c3 * g + c2)) <= / 67108864).
  { apply (fp32_error (-1)); [lia |]. simpl bpow. unfold c2, c3. apply Rabs_def1; lra. }
  apply Rabs_le_inv in H2.
  assert (B2 : 0 <= p2 <= 30469 / 100000) by (unfold c2, c3 in H2; lra).
  assert (Bg : 0 <= p2 * g <= 30469 / 100000) by nra.
  assert (H1 : Rabs (p1 - (p2 * g + c1)) <= / 33554432).
  { apply (fp32_error 0); [lia |]. simpl bpow. unfold c1. apply Rabs_def1; lra. }
  apply Rabs_le_inv in H1.
  assert (B1 : 0 <= p1 <= 99984 / 100000) by (unfold c1 in H1; lra).
  assert (H0 : Rabs (fp32 (p1 * g + 1) - (p1 * g + 1)) <= / 16777216).
  { apply (fp32_error 1); [lia |]. simpl bpow. apply Rabs_def1; nra. }
  apply Rabs_le_inv in H0.
  apply Rabs_le. unfold polynomial.
  assert (0 <= g * g) by nra.
  set (e2 := p2 - (c3 * g + c2)) in *. set (e1 := p1 - (p2 * g + c1)) in *.
  set (e0 := fp32 (p1 * g + 1) - (p1 * g + 1)) in *.
  replace (fp32 (p1 * g + 1) - (((c3 * g + c2) * g + c1) * g + 1)) with (e0 + e1 * g + e2 * (g * g))
    by (unfold e0, e1, e2; ring).
  assert (- / 33554432 * g <= e1 * g <= / 33554432 * g) by nra.
  assert (- / 67108864 * (g * g) <= e2 * (g * g) <= / 67108864 * (g * g)) by nra.
  lra.
Qed.

(** The three fused multiply-adds together are relatively within 2^-24 of the exact polynomial: no worse than a single
    rounding, because the errors of the first two steps are multiplied by f and f^2 while the value grows faster. *)
Theorem horner_error g : 0 <= g <= 1 -> Rabs (horner g / polynomial g - 1) <= / 16777216.
Proof.
  intros Hg. pose proof (horner_absolute_error g Hg) as H.
  assert (Hp : 1 + g / 2 + g * g / 4 <= polynomial g).
  { unfold polynomial, c1, c2, c3. assert (0 <= g * g <= g) by nra. assert (0 <= g * g * g) by nra. lra. }
  assert (0 <= g * g) by nra.
  replace (horner g / polynomial g - 1) with ((horner g - polynomial g) / polynomial g) by (field; lra).
  unfold Rdiv. rewrite Rabs_mult, Rabs_inv, (Rabs_pos_eq (polynomial g)) by lra.
  apply Rmult_le_reg_r with (polynomial g); [lra |].
  rewrite Rmult_assoc, Rinv_l by lra. lra.
Qed.

(** The computed polynomial lies in [1, 2): its fp32 exponent field is that of 1, so that adding n to the field
    multiplies it by 2^n. *)
Theorem horner_range g : 0 <= g <= 1 -> 1 <= horner g < 2.
Proof.
  intros Hg. pose proof (horner_absolute_error g Hg) as H. apply Rabs_le_inv in H.
  assert (0 <= g * g <= g) by nra. assert (0 <= g * g * g <= g) by nra. split.
  2: { unfold polynomial, c1, c2, c3 in H. lra. }
  unfold horner. set (p2 := fp32 (c3 * g + c2)). set (p1 := fp32 (p2 * g + c1)).
  assert (0 <= p2) by (apply (fp32_between 0 1); unfold c2, c3; lia || lra).
  assert (p2 * g <= 2). { assert (p2 <= 2) by (apply (fp32_between 0 2); unfold c2, c3; lia || lra). nra. }
  assert (0 <= p2 * g) by nra.
  assert (0 <= p1 <= 3) by (apply (fp32_between 0 3); unfold c1; lia || lra).
  apply (fp32_between 1 4); [lia | lia | nra].
Qed.

(** * End to end *)

Lemma exp_near u : Rabs u <= / 1024 -> Rabs (exp u - 1) <= Rabs u * (1 + / 1000).
Proof.
  intros Hu. apply Rabs_le_inv in Hu. pose proof (exp_ineq1_le u). pose proof (exp_ineq1_le (- u)) as Hm.
  assert (exp u * exp (- u) = 1) by (rewrite <- exp_plus, Rplus_opp_r; apply exp_0).
  assert (exp u <= / (1 - u)).
  { apply Rmult_le_reg_r with (1 - u); [lra |]. rewrite Rinv_l by lra. pose proof (exp_pos u). nra. }
  assert (/ (1 - u) <= 1 + u + u * u * (1001 / 1000)).
  { apply Rmult_le_reg_r with (1 - u); [lra |]. rewrite Rinv_l by lra. nra. }
  destruct (Rle_dec 0 u).
  - rewrite (Rabs_pos_eq u) by lra. apply Rabs_le. nra.
  - rewrite (Rabs_left u) by lra. apply Rabs_le. nra.
Qed.

Lemma ln_2_short : 69314 / 100000 <= ln 2 <= 69315 / 100000.
Proof. pose proof ln_2_bounds as H. unfold ln2_below, ln2_above, ln2_unit in H. lra. Qed.

Lemma Rpower_2_near d : Rabs d <= / 1024 -> Rabs (Rpower 2 d - 1) <= 6939 / 10000 * Rabs d.
Proof.
  intros Hd. pose proof ln_2_short. pose proof (Rabs_pos d).
  assert (Hu : Rabs (d * ln 2) <= 69315 / 100000 * Rabs d) by (rewrite Rabs_mult, (Rabs_pos_eq (ln 2)); nra).
  pose proof (exp_near (d * ln 2) ltac:(lra)). unfold Rpower. lra.
Qed.

Lemma product_error a b x y : Rabs (a - 1) <= x -> Rabs (b - 1) <= y -> Rabs (a * b - 1) <= x + (1 + x) * y.
Proof.
  intros Ha Hb. replace (a * b - 1) with (a - 1 + a * (b - 1)) by ring.
  apply Rle_trans with (1 := Rabs_triang _ _). rewrite Rabs_mult.
  assert (Rabs a <= 1 + x) by (apply Rabs_le_inv in Ha; apply Rabs_le; lra).
  pose proof (Rabs_pos a). pose proof (Rabs_pos (b - 1)). nra.
Qed.

(** Whatever fraction g in [0, 1] within 2^-25 of x - n the kernel arrives at, by whatever rounding, the result is
    within 8.772e-5 of 2^x, relatively. The headline below is the case of FlashAttention-4's own split. *)
Theorem exp2_error_any_fraction x n g : 0 <= g <= 1 -> Rabs (g - (x - n)) <= / 33554432 ->
  Rabs (horner g * Rpower 2 n / Rpower 2 x - 1) <= 8772 / 100000000.
Proof.
  intros Hg Hd.
  pose proof (horner_range g Hg) as [Hh _].
  assert (Hp : polynomial g <> 0) by (unfold polynomial, c1, c2, c3; nra).
  assert (0 < Rpower 2 g /\ 0 < Rpower 2 x) as [? ?] by (split; apply exp_pos).
  replace (horner g * Rpower 2 n / Rpower 2 x)
    with (horner g / polynomial g * (polynomial g / Rpower 2 g) * Rpower 2 (g - (x - n))).
  2: { assert (E : Rpower 2 (g - (x - n)) * Rpower 2 x = Rpower 2 g * Rpower 2 n).
       { rewrite <- !Rpower_plus. f_equal. ring. }
       replace (Rpower 2 (g - (x - n))) with (Rpower 2 g * Rpower 2 n / Rpower 2 x) by (rewrite <- E; field; lra).
       field. lra. }
  pose proof (product_error _ _ _ _ (horner_error g Hg) (exp2_polynomial_error g Hg)) as H1.
  pose proof (product_error _ _ _ _ H1 (Rpower_2_near (g - (x - n)) ltac:(lra))) as H2.
  lra.
Qed.

(** The headline. For every real x in [-126, 127], every fp32 number there included, FlashAttention-4's software exp2
    is within 8.772e-5 of 2^x, relatively: the polynomial owns 8.763e-5 of that, all roundings together the rest. *)
Theorem software_exp2_error x : -126 <= x <= 127 ->
  Rabs (software_exp2 x / Rpower 2 x - 1) <= 8772 / 100000000.
Proof.
  intros Hx. assert (Hr : -4194304 <= x < 4194304) by lra.
  destruct (fraction_error x Hr). unfold software_exp2. rewrite (magic_number_is_floor x Hr).
  now apply exp2_error_any_fraction.
Qed.

(** * From 2^x to exp *)

(** log2 e = 1 / ln 2 as the fp32 number that kernels multiply by: 1.44269502162933349609375. *)
Definition fp32_log2e : R := 12102203 / 8388608.
Definition software_exp (s : R) : R := software_exp2 (fp32 (s * fp32_log2e)).

(** An exponent that is off by d costs a relative error of 0.694 d, little more than ln 2 per unit: computed at x, the
    result is within 8.772e-5 + 0.694 |x - y| of 2^y. Whatever rounding made x out of y is covered. *)
Theorem software_exp2_error_near x y : -126 <= x <= 127 -> Rabs (x - y) <= / 1024 ->
  Rabs (software_exp2 x / Rpower 2 y - 1) <= 8772 / 100000000 + 694 / 1000 * Rabs (x - y).
Proof.
  intros Hx Hd. pose proof (software_exp2_error x Hx) as He.
  pose proof (product_error _ _ _ _ He (Rpower_2_near (x - y) Hd)) as H.
  assert (0 < Rpower 2 x /\ 0 < Rpower 2 y) as [? ?] by (split; apply exp_pos).
  replace (software_exp2 x / Rpower 2 y) with (software_exp2 x / Rpower 2 x * Rpower 2 (x - y)).
  2: { assert (E : Rpower 2 x = Rpower 2 (x - y) * Rpower 2 y) by (rewrite <- Rpower_plus; f_equal; ring).
       rewrite E. field. split; apply Rgt_not_eq; [lra | apply exp_pos]. }
  pose proof (Rabs_pos (x - y)). lra.
Qed.

Lemma fp32_relative_error y : Rabs (fp32 y - y) <= / 16777216 * Rabs y + bpow radix2 (-150).
Proof.
  unfold fp32, fp32_format.
  destruct (error_N_FLT radix2 (-149) 24 ltac:(reflexivity) (fun z => negb (Z.even z)) y)
    as (eps & eta & Heps & Heta & _ & ->).
  replace (y * (1 + eps) + eta - y) with (eps * y + eta) by ring.
  apply Rle_trans with (1 := Rabs_triang _ _). rewrite Rabs_mult.
  apply Rplus_le_compat; [apply Rmult_le_compat_r; [apply Rabs_pos |] |].
  - apply Rle_trans with (1 := Heps). simpl. lra.
  - apply Rle_trans with (1 := Heta). change (bpow radix2 (-149)) with (bpow radix2 (-150 + 1)).
    rewrite bpow_plus. simpl (bpow radix2 1). lra.
Qed.

Lemma exponent_error s : Rabs s <= 87 ->
  Rabs (fp32 (s * fp32_log2e) - s / ln 2) <= 1054 / 10000000000 * Rabs s + / 1000000000.
Proof.
  intros Hs. pose proof (fp32_relative_error (s * fp32_log2e)) as Hr.
  rewrite Rabs_mult, (Rabs_pos_eq fp32_log2e) in Hr by (unfold fp32_log2e; lra).
  assert (Hl : Rabs (fp32_log2e - / ln 2) <= 194 / 10000000000).
  { pose proof ln_2_bounds as L. unfold ln2_below, ln2_above, ln2_unit in L. unfold fp32_log2e.
    replace (12102203 / 8388608 - / ln 2) with ((12102203 / 8388608 * ln 2 - 1) / ln 2) by (field; lra).
    unfold Rdiv at 1. rewrite Rabs_mult, (Rabs_inv (ln 2)), (Rabs_pos_eq (ln 2)) by lra.
    apply Rmult_le_reg_r with (ln 2); [lra |]. rewrite Rmult_assoc, Rinv_l, Rmult_1_r by lra.
    apply Rabs_le. lra. }
  assert (He : bpow radix2 (-150) <= / 1000000000).
  { apply Rle_trans with (bpow radix2 (-30)); [apply bpow_le; lia | simpl; lra]. }
  replace (fp32 (s * fp32_log2e) - s / ln 2)
    with (fp32 (s * fp32_log2e) - s * fp32_log2e + s * (fp32_log2e - / ln 2)) by (unfold Rdiv; ring).
  apply Rle_trans with (1 := Rabs_triang _ _). rewrite (Rabs_mult s).
  pose proof (Rabs_pos s).
  assert (Rabs s * Rabs (fp32_log2e - / ln 2) <= Rabs s * (194 / 10000000000)) by (apply Rmult_le_compat_l; lra).
  unfold fp32_log2e in *. lra.
Qed.

(** exp(s) computed as software exp2 of the fp32 product s * log2 e: for |s| <= 87 the relative error is at most
    8.773e-5 + 7.4e-8 |s|. The second term is the rounding of the product and of log2 e: 6.5e-6 at the ends. *)
Theorem software_exp_error s : Rabs s <= 87 ->
  Rabs (software_exp s / exp s - 1) <= 8773 / 100000000 + 74 / 1000000000 * Rabs s.
Proof.
  intros Hs. pose proof (exponent_error s Hs) as Hd.
  pose proof ln_2_short. pose proof (Rabs_pos s).
  assert (Hp : Rpower 2 (s / ln 2) = exp s).
  { unfold Rpower. f_equal. field. lra. }
  rewrite <- Hp. unfold software_exp.
  assert (Hr : Rabs (s / ln 2) <= 12552 / 100).
  { unfold Rdiv at 1. rewrite Rabs_mult, Rabs_inv, (Rabs_pos_eq (ln 2)) by lra.
    apply Rmult_le_reg_r with (ln 2); [lra |]. rewrite Rmult_assoc, Rinv_l by lra. lra. }
  eapply Rle_trans; [apply software_exp2_error_near |].
  - apply Rabs_le_inv in Hd. apply Rabs_le_inv in Hr. lra.
  - lra.
  - lra.
Qed.
