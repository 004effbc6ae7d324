(** The rounding error of FlashAttention-2 as a number, at 65536 keys.

    Head dimension 128, 512 tiles of 128 keys, every operation rounded to the nearest fp32 number (ties to even). Q, K
    and V are numbers of any format: the error is against exact softmax attention on these inputs. Two things are
    assumed of the input: scale times the sum over the head dimension of |q_i k_i| is at most 32 for every key (so that
    scores lie between -32 and 32), and |v| <= V. One thing is assumed of the machine: between -67 and 0, the relative
    error of its exponential is at most 3 + 1.2 |x| times 2^-23, the largest relative size of a unit in the last place.
    The CUDA programming guide states 2 + floor(1.173 |x|) units for __expf, as found in tests that are not exhaustive.

    Not claimed: that a given machine's exponential is so exact; anything about underflow and overflow (exponents are
    unbounded here, though exp(-67) is far above fp32's smallest normal number); tensor cores that truncate instead of
    rounding; a kernel that adds the products of a tile one by one to its running sum (online_error covers it, as more
    pieces, with a larger number). *)
From Coq Require Import Reals Lra Lia List.
From Flocq Require Import Core Relative.
From Interval Require Specific_ops Specific_stdz.
From Interval Require Import Tactic.
From IOAware Require Import RelativeError WeightError Rounding.
Import ListNotations.
Local Open Scope R_scope.

(** The interval tactic on Coq's own integers (with i_prec): slower, and no axioms about machine numbers. *)
Module IntegerFloat := Specific_ops.SpecificFloat Specific_stdz.StdZRadix2.
Module IntegerInterval := IntervalTactic IntegerFloat.
Import IntegerInterval.

(** Rounding to the nearest number of so many significant bits, ties to even, exponents unbounded. *)
Definition nearest (bits : Z) (x : R) : R := round radix2 (FLX_exp bits) ZnearestE x.
Definition fp32 : R -> R := nearest 24.
Definition bf16 : R -> R := nearest 8.
Definition u32 : R := / 2 ^ 24.
Definition u16 : R := / 2 ^ 8.

Lemma nearest_relative bits x : (0 < bits)%Z ->
  Rabs (nearest bits x - x) <= u_ro radix2 bits / (1 + u_ro radix2 bits) * Rabs x.
Proof.
  intros H. destruct (relative_error_N_FLX'_ex radix2 bits H (fun z => negb (Z.even z)) x) as (e & He & E).
  unfold nearest. rewrite E. replace (x * (1 + e) - x) with (e * x) by ring.
  rewrite Rabs_mult. apply Rmult_le_compat_r; [apply Rabs_pos | exact He].
Qed.

Lemma nearest_close bits x : (0 < bits)%Z -> close (u_ro radix2 bits) (nearest bits x) x.
Proof. intros H. apply close_relative; [apply u_ro_pos | now apply nearest_relative]. Qed.

Lemma u32_ro : u_ro radix2 24 = u32.
Proof. unfold u_ro, u32. cbn. lra. Qed.

Lemma u16_ro : u_ro radix2 8 = u16.
Proof. unfold u_ro, u16. cbn. lra. Qed.

(** fp32, which has 24 significant bits, rounds with a factor e^t, |t| <= 2^-24. *)
Theorem fp32_rounding x : close u32 (fp32 x) x.
Proof. rewrite <- u32_ro. now apply nearest_close. Qed.

(** bf16, which has 8 significant bits, 7 of them stored, rounds with a factor e^t, |t| <= 2^-8. *)
Theorem bf16_rounding x : close u16 (bf16 x) x.
Proof. rewrite <- u16_ro. now apply nearest_close. Qed.

Section FlashAttention2.
(** The exponential of the machine. *)
Variable machine_exp : R -> R.
Hypothesis machine_exp_error : forall x, -67 <= x <= 0 ->
  Rabs (machine_exp x - exp x) <= (3 / 2 ^ 23 + 12 / 10 / 2 ^ 23 * Rabs x) * exp x.

Definition difference_exp (a b : R) : R := machine_exp (fp32 (a - b)).

Definition rho : R := u32 + 12 / 10 / 2 ^ 23 * (1 + u32) / (1 - / 10 ^ 5).
Definition eps : R := 3 / 2 ^ 23 / (1 - / 10 ^ 5).

Lemma difference_exp_close a b : -33 <= a -> a <= b -> b <= 33 ->
  close (rho * (b - a) + eps) (difference_exp a b) (exp (a - b)).
Proof.
  intros Ha Hab Hb. assert (Hu : 0 <= u32 <= / 100) by (unfold u32; lra).
  assert (F : Rabs (fp32 (a - b) - (a - b)) <= u32 * (b - a)).
  { apply Rle_trans with (1 := nearest_relative 24 (a - b) eq_refl). rewrite u32_ro, Rabs_left1 by lra.
    replace (- (a - b)) with (b - a) by ring. apply Rmult_le_compat_r; [lra|].
    assert (/ (1 + u32) <= 1) by (rewrite <- Rinv_1; apply Rinv_le_contravar; lra).
    apply Rle_trans with (u32 * 1); [apply Rmult_le_compat_l; lra | lra]. }
  assert (M : u32 * (b - a) <= / 100 * (b - a)) by (apply Rmult_le_compat_r; lra).
  assert (D : -67 <= fp32 (a - b) <= 0) by (apply Rabs_le_inv in F; lra).
  apply difference_exp_error; try lra; [now apply machine_exp_error | rewrite Rabs_left1; lra].
Qed.

(** The score of a key is scale times q.k, computed as a sum of 128 products in any order; the scale is rounded, too. *)
Definition scored (scale : R) (k : key) : Prop := exists products dot,
  length products = 128%nat /\ summed fp32 (fun p x => product fp32 (fst p) (snd p) x) products dot /\
  score k = fp32 (fp32 scale * dot) /\ exact_score k = scale * total (fun p => fst p * snd p) products /\
  scale * total (fun p => Rabs (fst p * snd p)) products <= 32.

Definition sigma : R := (exp (130 * u32) - 1) * 32.

Lemma scored_ok scale k : 0 <= scale -> scored scale k -> key_ok (-33) sigma k.
Proof.
  intros Hs (products & dot & Len & S & E & Ex & A).
  assert (Es : Rabs (score k - exact_score k) <= sigma).
  { rewrite E, Ex. assert (Hu : 0 <= u32) by (unfold u32; lra).
    pose proof (score_error fp32 u32 scale (fp32 scale) products dot Hu fp32_rounding Hs (fp32_rounding _) S) as B.
    rewrite Len in B. replace (INR 128 + 2) with 130 in B by (rewrite INR_IZR_INZ; cbn; ring).
    apply Rle_trans with (1 := B). apply Rmult_le_compat_l; auto. unfold u32. interval with (i_prec 50). }
  split; auto. assert (Hx : Rabs (exact_score k) <= 32).
  { rewrite Ex, Rabs_mult, (Rabs_right scale) by lra. apply Rle_trans with (2 := A).
    apply Rmult_le_compat_l; auto using total_abs. }
  assert (sigma <= 1) by (unfold sigma, u32; interval with (i_prec 50)).
  apply Rabs_le_inv in Es. apply Rabs_le_inv in Hx. lra.
Qed.

(** P and O in any formats, of unit roundoffs u_cast and u_store. *)
Lemma error_at_65536 cast store u_cast u_store V scale keys scalings m l o x :
  (forall y, close u_cast (cast y) y) -> (forall y, close u_store (store y) y) -> 0 <= u_cast ->
  0 < V -> 0 <= scale -> (forall k, In k keys -> scored scale k /\ Rabs (value k) <= V) ->
  online fp32 33 difference_exp cast 128 scalings 512 keys m l o -> quotient fp32 o l x ->
  Rabs (store x - attention keys)
  <= (exp (2301 * u32 + u_cast + u_store) - 1
      + (exp (2 * (sigma + rho * 66 + 512 * eps)) - 1) / 2) * V.
Proof.
  intros Hc Hs Pc HV Hscale Hk On Q. assert (Hu : 0 <= u32) by (unfold u32; lra).
  apply online_computed in On. destruct On as [Hsc On].
  assert (C : computed fp32 33 difference_exp cast 128 511 1022 keys m l o)
    by (apply computed_more with (3 := On); lia).
  assert (Hrho : 0 <= rho) by (unfold rho, u32; lra). assert (Heps : 0 <= eps) by (unfold eps; lra).
  pose proof (output_error fp32 u32 Hu fp32_rounding (-33) 33 difference_exp rho eps Hrho Heps) as T.
  assert (E : error_bound u32 (-33) 33 rho eps u_cast u_store sigma 128 511 1022
    = exp (2301 * u32 + u_cast + u_store) - 1 + (exp (2 * (sigma + rho * 66 + 512 * eps)) - 1) / 2).
  { unfold error_bound. rewrite !INR_IZR_INZ.
    change (Z.of_nat (1022 + 128)) with 1150%Z. change (Z.of_nat 512) with 512%Z. repeat f_equal; lra. }
  rewrite <- E. eapply T; eauto; [exact difference_exp_close |].
  intros k Ik. destruct (Hk k Ik). split; auto. now apply scored_ok with scale.
Qed.

(** All in fp32: 65536 keys, head dimension 128, tiles of 128 keys, scale * sum |q_i k_i| <= 32, |v| <= V. The output is
    within 0.000582 V of exact softmax attention. *)
Theorem error_fp32_65536 V scale keys scalings m l o x :
  0 < V -> 0 <= scale -> (forall k, In k keys -> scored scale k /\ Rabs (value k) <= V) ->
  online fp32 33 difference_exp (fun p => p) 128 scalings 512 keys m l o -> quotient fp32 o l x ->
  Rabs (x - attention keys) <= 582 / 1000000 * V.
Proof.
  intros HV Hs Hk On Q.
  assert (I : forall y, close 0 y y) by (intros; apply close_refl; lra).
  apply Rle_trans with (1 := error_at_65536 _ (fun y => y) 0 0 V _ _ _ _ _ _ _ I I (Rle_refl 0) HV Hs Hk On Q).
  apply Rmult_le_compat_r; [lra|]. unfold sigma, rho, eps, u32. interval with (i_prec 50).
Qed.

(** P rounded to bf16 before the second product, its row sums not; all else as in error_fp32_65536. The output is within
    0.0045 V of exact softmax attention; 2^-8 = 0.0039 of it is the rounding of P. *)
Theorem error_bf16_65536 V scale keys scalings m l o x :
  0 < V -> 0 <= scale -> (forall k, In k keys -> scored scale k /\ Rabs (value k) <= V) ->
  online fp32 33 difference_exp bf16 128 scalings 512 keys m l o -> quotient fp32 o l x ->
  Rabs (x - attention keys) <= 45 / 10000 * V.
Proof.
  intros HV Hs Hk On Q. assert (Hu : 0 <= u16) by (unfold u16; lra).
  assert (I : forall y, close 0 y y) by (intros; apply close_refl; lra).
  apply Rle_trans with (1 := error_at_65536 _ (fun y => y) u16 0 V _ _ _ _ _ _ _ bf16_rounding I Hu HV Hs Hk On Q).
  apply Rmult_le_compat_r; [lra|]. unfold sigma, rho, eps, u16, u32. interval with (i_prec 50).
Qed.

(** P and the stored output rounded to bf16, as in a bf16 kernel: within 0.00843 V of exact softmax attention. *)
Theorem error_bf16_stored_65536 V scale keys scalings m l o x :
  0 < V -> 0 <= scale -> (forall k, In k keys -> scored scale k /\ Rabs (value k) <= V) ->
  online fp32 33 difference_exp bf16 128 scalings 512 keys m l o -> quotient fp32 o l x ->
  Rabs (bf16 x - attention keys) <= 843 / 100000 * V.
Proof.
  intros HV Hs Hk On Q. assert (Hu : 0 <= u16) by (unfold u16; lra).
  apply Rle_trans
    with (1 := error_at_65536 _ _ u16 u16 V _ _ _ _ _ _ _ bf16_rounding bf16_rounding Hu HV Hs Hk On Q).
  apply Rmult_le_compat_r; [lra|]. unfold sigma, rho, eps, u16, u32. interval with (i_prec 50).
Qed.
End FlashAttention2.
