(** FlashAttention-4's software exp2 as it is written for the GPU: seven fp32 instructions, a shift and an integer
    addition on 32-bit patterns.

        max            x = max(x, -127)
        add.rm         r = x + 12582912, rounded downwards: 12582912 + floor x
        sub.rn         f = x - (r - 12582912), two instructions
        fma.rn         p = ((c3 f + c2) f + c1) f + 1, three instructions
        shl, add.s32   bits of the result = (bits of r << 23) + bits of p, modulo 2^32

    Flocq's binary32 is the IEEE-754 format itself: infinities, NaN, signed zeros, bit patterns. The theorems say that
    for every fp32 x in [-126, 127] nothing overflows, that the integer addition multiplies p by 2^floor(x) exactly,
    and hence that the bound of Exp2.v holds for the pattern that comes out. Below -126 the result is no longer
    accurate relatively, but it stays between 0 and 2^-126, as 2^x does; a masked score, minus infinity, gives 0.

    Not claimed: x > 127; the .ftz suffix, which reads a subnormal x as 0 and changes no other step; that a compiler
    emits exactly these instructions. *)
From Coq Require Import Reals ZArith Lia Lra.
From Flocq Require Import Core BinarySingleNaN Binary Bits.
From IOAware Require Import Exp2Polynomial Exp2.
Local Open Scope R_scope.

Local Notation value := (Binary.B2R 24 128).
Local Notation finite := (Binary.is_finite 24 128).

Definition add_down : binary32 -> binary32 -> binary32 := b32_plus mode_DN.
Definition subtract : binary32 -> binary32 -> binary32 := b32_minus mode_NE.
Definition fma : binary32 -> binary32 -> binary32 -> binary32 := b32_fma mode_NE.

Definition lowest_bits : binary32 := b32_of_bits 0xC2FE0000.   (* -127 *)
Definition magic_bits : binary32 := b32_of_bits 0x4B400000.
Definition c3_bits : binary32 := b32_of_bits 0x3D9DF09D.
Definition c2_bits : binary32 := b32_of_bits 0x3E6906A4.
Definition c1_bits : binary32 := b32_of_bits 0x3F31F519.
Definition one_bits : binary32 := b32_of_bits 0x3F800000.

(** shl.b32 by 23 and add.s32: arithmetic modulo 2^32 on the two patterns. *)
Definition insert_exponent (rounded p : binary32) : binary32 :=
  b32_of_bits ((bits_of_b32 rounded * 2 ^ 23 + bits_of_b32 p) mod 2 ^ 32).

(** max.f32: the larger operand, and -127 if x is NaN. *)
Definition clamp (x : binary32) : binary32 :=
  match b32_compare x lowest_bits with Some Gt => x | _ => lowest_bits end.

Definition rounded_down (x : binary32) : binary32 := add_down x magic_bits.
Definition fraction_of (x : binary32) : binary32 := subtract x (subtract (rounded_down x) magic_bits).
Definition horner_of (f : binary32) : binary32 := fma (fma (fma c3_bits f c2_bits) f c1_bits) f one_bits.
Definition exp2_unclamped (x : binary32) : binary32 := insert_exponent (rounded_down x) (horner_of (fraction_of x)).
Definition exp2_program (x : binary32) : binary32 := exp2_unclamped (clamp x).

Lemma pattern_value z s m e : Binary.B2FF 24 128 (b32_of_bits z) = Binary.F754_finite s m e ->
  value (b32_of_bits z) = F2R (Float radix2 (cond_Zopp s (Z.pos m)) e).
Proof. intros H. now rewrite <- Binary.FF2R_B2FF, H. Qed.

Lemma constant_values : value magic_bits = magic /\ value c3_bits = c3 /\ value c2_bits = c2 /\ value c1_bits = c1 /\
  value one_bits = 1 /\ value lowest_bits = -127.
Proof.
  unfold magic, c1, c2, c3.
  repeat split; (etransitivity; [apply pattern_value; vm_compute; reflexivity | unfold F2R; simpl; lra]).
Qed.

(** * Adding to the exponent field *)

Lemma normal_pattern (y : binary32) k : (-126 <= k <= 127)%Z -> finite y = true ->
  bpow radix2 k <= value y < bpow radix2 (k + 1) ->
  exists m H, y = Binary.B754_finite 24 128 false m (k - 23) H /\ (2 ^ 23 <= Z.pos m < 2 ^ 24)%Z.
Proof.
  intros Hk Hf Hv. pose proof (bpow_gt_0 radix2 k) as Hk0.
  destruct y as [s | s | s pl Hpl | s m e H]; try discriminate; simpl in Hv; [lra |].
  destruct s.
  { exfalso. assert (F2R (Float radix2 (Z.neg m) e) < 0) by (apply F2R_lt_0; reflexivity). simpl in Hv. lra. }
  assert (Hm : mag radix2 (F2R (Float radix2 (Z.pos m) e)) = (k + 1)%Z :> Z).
  { apply mag_unique_pos. replace (k + 1 - 1)%Z with k by lia. exact Hv. }
  assert (He : e = (k - 23)%Z).
  { pose proof (proj1 (andb_prop _ _ H)) as Hc.
    pose proof (Binary.canonical_canonical_mantissa 24 128 false m e Hc) as C.
    unfold canonical, cexp in C. simpl cond_Zopp in C. rewrite Hm in C. simpl Fexp in C.
    unfold SpecFloat.fexp, SpecFloat.emin in C. lia. }
  subst e. exists m, H. split; [reflexivity |].
  unfold F2R in Hv. simpl Fnum in Hv. simpl Fexp in Hv.
  replace k with (k - 23 + 23)%Z in Hv at 1 by lia. replace (k + 1)%Z with (k - 23 + 24)%Z in Hv by lia.
  rewrite !bpow_plus, !(Rmult_comm (bpow radix2 (k - 23))) in Hv.
  destruct Hv as [Hl Hh].
  apply Rmult_le_reg_r in Hl; [| apply bpow_gt_0]. apply Rmult_lt_reg_r in Hh; [| apply bpow_gt_0].
  split; [apply le_IZR | apply lt_IZR]; assumption.
Qed.

Lemma bits_of_normal m e H : (2 ^ 23 <= Z.pos m)%Z ->
  bits_of_b32 (Binary.B754_finite 24 128 false m e H) = ((e + 149) * 2 ^ 23 + Z.pos m)%Z.
Proof.
  intros Hm. unfold bits_of_b32, bits_of_binary_float.
  rewrite Zle_bool_true by lia. unfold join_bits. rewrite Z.shiftl_mul_pow2 by lia.
  unfold SpecFloat.emin. lia.
Qed.

Lemma magic_pattern (y : binary32) n : (-127 <= n <= 127)%Z -> finite y = true -> value y = IZR (n + 12582912) ->
  exists m H, y = Binary.B754_finite 24 128 false m (23 - 23) H /\ Z.pos m = (n + 12582912)%Z.
Proof.
  intros Hn Fy Vy.
  destruct (normal_pattern y 23 ltac:(lia) Fy) as (m & H & -> & _).
  { rewrite Vy. change (bpow radix2 23) with (IZR 8388608). change (bpow radix2 (23 + 1)) with (IZR 16777216).
    split; [apply IZR_le | apply IZR_lt]; lia. }
  exists m, H. split; [reflexivity |].
  simpl in Vy. unfold F2R in Vy. simpl in Vy. rewrite Rmult_1_r in Vy. now apply eq_IZR in Vy.
Qed.

Lemma bounded_shift m e n : SpecFloat.bounded 24 128 m e = true -> (-149 < e)%Z -> (-149 <= e + n <= 104)%Z ->
  SpecFloat.bounded 24 128 m (e + n) = true.
Proof.
  unfold SpecFloat.bounded, SpecFloat.canonical_mantissa, SpecFloat.fexp, SpecFloat.emin.
  intros H He Hn. apply andb_prop in H as [H _]. apply Zeq_bool_eq in H.
  apply andb_true_intro. split; [apply Zeq_bool_true; lia | apply Zle_bool_true; lia].
Qed.

(** Shifting the pattern of 12582912 + n left by 23 and adding it to the pattern of an fp32 number p in [1, 2) gives
    the pattern of p 2^n, exactly, for every n from -126 to 127: the upper bits of 12582912 leave the 32-bit word. *)
Theorem insert_exponent_is_scaling rounded p n : (-126 <= n <= 127)%Z ->
  finite rounded = true -> value rounded = IZR (n + 12582912) -> finite p = true -> 1 <= value p < 2 ->
  finite (insert_exponent rounded p) = true /\ value (insert_exponent rounded p) = value p * bpow radix2 n.
Proof.
  intros Hn Fr Vr Fp Vp.
  destruct (normal_pattern p 0 ltac:(lia) Fp Vp) as (m & Hm & -> & Bm).
  destruct (magic_pattern rounded n ltac:(lia) Fr Vr) as (r & Hr & -> & Er).
  pose proof (bounded_shift m (0 - 23) n Hm ltac:(lia) ltac:(lia)) as Hs.
  assert (E : insert_exponent (Binary.B754_finite 24 128 false r (23 - 23) Hr)
                              (Binary.B754_finite 24 128 false m (0 - 23) Hm)
            = Binary.B754_finite 24 128 false m (0 - 23 + n) Hs).
  { unfold insert_exponent. rewrite !bits_of_normal by lia. rewrite Er.
    replace (((23 - 23 + 149) * 2 ^ 23 + (n + 12582912)) * 2 ^ 23 + ((0 - 23 + 149) * 2 ^ 23 + Z.pos m))%Z
      with ((0 - 23 + n + 149) * 2 ^ 23 + Z.pos m + 2465792 * 2 ^ 32)%Z by lia.
    rewrite Z_mod_plus_full, Z.mod_small by lia.
    rewrite <- (bits_of_normal m _ Hs) by lia.
    apply (binary_float_of_bits_of_binary_float 23 8). }
  rewrite E. split; [reflexivity |].
  simpl. unfold F2R. simpl Fnum. simpl Fexp. rewrite Rmult_assoc, <- bpow_plus. reflexivity.
Qed.

Lemma subnormal_pattern z : (0 <= z < 2 ^ 23)%Z ->
  finite (b32_of_bits z) = true /\ value (b32_of_bits z) = IZR z * bpow radix2 (-149).
Proof.
  intros Hz. unfold b32_of_bits, binary_float_of_bits.
  rewrite Binary.is_finite_FF2B, Binary.B2R_FF2B.
  unfold binary_float_of_bits_aux, split_bits.
  rewrite (Z.mod_small z), Z.div_small by lia. rewrite Zle_bool_false by lia. simpl Zeq_bool. cbv iota.
  destruct z as [| q | q]; [simpl; split; [reflexivity | lra] | | lia].
  split; [reflexivity |]. reflexivity.
Qed.

Lemma insert_exponent_underflow rounded p : finite rounded = true -> value rounded = IZR (-127 + 12582912) ->
  finite p = true -> 1 <= value p < 2 ->
  finite (insert_exponent rounded p) = true /\ 0 <= value (insert_exponent rounded p) < bpow radix2 (-126).
Proof.
  intros Fr Vr Fp Vp.
  destruct (normal_pattern p 0 ltac:(lia) Fp Vp) as (m & Hm & -> & Bm).
  destruct (magic_pattern rounded (-127) ltac:(lia) Fr Vr) as (r & Hr & -> & Er).
  unfold insert_exponent. rewrite !bits_of_normal by lia. rewrite Er.
  replace (((23 - 23 + 149) * 2 ^ 23 + (-127 + 12582912)) * 2 ^ 23 + ((0 - 23 + 149) * 2 ^ 23 + Z.pos m))%Z
    with (Z.pos m - 2 ^ 23 + 2465792 * 2 ^ 32)%Z by lia.
  rewrite Z_mod_plus_full, Z.mod_small by lia.
  destruct (subnormal_pattern (Z.pos m - 2 ^ 23) ltac:(lia)) as [-> ->]. split; [reflexivity |].
  pose proof (bpow_gt_0 radix2 (-149)) as Hp. change (-126)%Z with (23 + -149)%Z. rewrite bpow_plus.
  change (bpow radix2 23) with (IZR (2 ^ 23)). split.
  - apply Rmult_le_pos; [apply IZR_le; lia | lra].
  - apply Rmult_lt_compat_r; [exact Hp | apply IZR_lt; lia].
Qed.

(** * The instructions *)

Lemma below_overflow z : (Z.abs z <= 16777216)%Z -> Rabs (IZR z) < bpow radix2 128.
Proof.
  intros Hz. rewrite <- abs_IZR. apply Rle_lt_trans with (bpow radix2 24).
  - change (bpow radix2 24) with (IZR 16777216). now apply IZR_le.
  - apply bpow_lt. lia.
Qed.

Lemma fp32_below_overflow y : -16777215 <= y <= 16777215 -> Rabs (fp32 y) < bpow radix2 128.
Proof.
  intros Hy. pose proof (fp32_between (-16777215) 16777215 y ltac:(lia) ltac:(lia) Hy).
  apply Rle_lt_trans with (Rabs (IZR 16777215)); [| apply below_overflow; lia].
  rewrite (Rabs_pos_eq 16777215) by lra. apply Rabs_le. lra.
Qed.

Lemma add_down_value x y : finite x = true -> finite y = true ->
  Rabs (fp32_down (value x + value y)) < bpow radix2 128 ->
  finite (add_down x y) = true /\ value (add_down x y) = fp32_down (value x + value y).
Proof.
  intros Fx Fy H.
  pose proof (Binary.Bplus_correct 24 128 eq_refl eq_refl binop_nan_pl32 mode_DN x y Fx Fy) as C.
  rewrite Rlt_bool_true in C by exact H. now destruct C as (Hv & Hf & _).
Qed.

Lemma subtract_value x y : finite x = true -> finite y = true -> -16777215 <= value x - value y <= 16777215 ->
  finite (subtract x y) = true /\ value (subtract x y) = fp32 (value x - value y).
Proof.
  intros Fx Fy H.
  pose proof (Binary.Bminus_correct 24 128 eq_refl eq_refl binop_nan_pl32 mode_NE x y Fx Fy) as C.
  rewrite Rlt_bool_true in C by (apply fp32_below_overflow; exact H). now destruct C as (Hv & Hf & _).
Qed.

Lemma fma_value x y z : finite x = true -> finite y = true -> finite z = true ->
  -16777215 <= value x * value y + value z <= 16777215 ->
  finite (fma x y z) = true /\ value (fma x y z) = fp32 (value x * value y + value z).
Proof.
  intros Fx Fy Fz H.
  pose proof (Binary.Bfma_correct 24 128 eq_refl eq_refl ternop_nan_pl32 mode_NE x y z Fx Fy Fz) as C.
  cbv zeta in C.
  rewrite Rlt_bool_true in C by (apply fp32_below_overflow; exact H). now destruct C as (Hv & Hf & _).
Qed.

Lemma horner_value f : finite f = true -> 0 <= value f <= 1 ->
  finite (horner_of f) = true /\ value (horner_of f) = horner (value f).
Proof.
  intros Ff Hf. destruct constant_values as (_ & V3 & V2 & V1 & V0 & _). unfold horner_of.
  destruct (fma_value c3_bits f c2_bits) as [F2 P2]; try reflexivity; [exact Ff | |].
  { rewrite V3, V2. unfold c3, c2. lra. }
  rewrite V3, V2 in P2.
  assert (B2 : 0 <= value (fma c3_bits f c2_bits) <= 1).
  { rewrite P2. apply (fp32_between 0 1); unfold c3, c2; lia || lra. }
  destruct (fma_value (fma c3_bits f c2_bits) f c1_bits) as [F1 P1]; try assumption; try reflexivity.
  { rewrite V1. unfold c1. nra. }
  assert (B1 : 0 <= value (fma (fma c3_bits f c2_bits) f c1_bits) <= 2).
  { rewrite P1, V1. apply (fp32_between 0 2); unfold c1; lia || nra. }
  rewrite V1 in P1.
  destruct (fma_value (fma (fma c3_bits f c2_bits) f c1_bits) f one_bits) as [F0 P0]; try assumption; try reflexivity.
  { rewrite V0. nra. }
  split; [exact F0 |]. rewrite P0, V0, P1, P2. reflexivity.
Qed.

Lemma split_values x : finite x = true -> -127 <= value x <= 127 ->
  (finite (rounded_down x) = true /\ value (rounded_down x) = IZR (Zfloor (value x) + 12582912)) /\
  (finite (fraction_of x) = true /\ value (fraction_of x) = fraction (value x)).
Proof.
  intros Fx Hx. assert (Hr : -4194304 <= value x < 4194304) by lra.
  pose proof (floor_range (-127) 127 (value x) Hx) as Hn.
  destruct constant_values as (Vm & _).
  assert (R : finite (rounded_down x) = true /\ value (rounded_down x) = IZR (Zfloor (value x) + 12582912)).
  { rewrite <- (add_magic_down _ Hr), <- Vm. apply add_down_value; [exact Fx | reflexivity |].
    rewrite Vm, (add_magic_down _ Hr). apply below_overflow. lia. }
  split; [exact R |]. destruct R as [Fr Vr].
  assert (W : finite (subtract (rounded_down x) magic_bits) = true /\
              value (subtract (rounded_down x) magic_bits) = whole (value x)).
  { unfold whole. rewrite (add_magic_down _ Hr), <- Vr, <- Vm.
    apply subtract_value; [exact Fr | reflexivity |]. rewrite Vr, Vm. unfold magic.
    rewrite <- minus_IZR. split; apply IZR_le; lia. }
  destruct W as [Fw Vw].
  pose proof (Zfloor_lb (value x)). pose proof (Zfloor_ub (value x)).
  unfold fraction. rewrite <- Vw. apply subtract_value; [exact Fx | exact Fw |].
  rewrite Vw, (magic_number_is_floor _ Hr). lra.
Qed.

Lemma polynomial_values x : finite x = true -> -127 <= value x <= 127 ->
  finite (horner_of (fraction_of x)) = true /\ 1 <= value (horner_of (fraction_of x)) < 2 /\
  value (horner_of (fraction_of x)) = horner (fraction (value x)).
Proof.
  intros Fx Hx. destruct (split_values x Fx Hx) as (_ & Ff & Vf).
  destruct (fraction_error (value x) ltac:(lra)) as [Bf _].
  rewrite <- Vf in *. destruct (horner_value _ Ff Bf) as [Fp Vp]. rewrite Vp.
  pose proof (horner_range _ Bf). auto.
Qed.

Lemma clamp_above x : finite x = true -> -127 < value x -> clamp x = x.
Proof.
  intros Fx Hx. unfold clamp, b32_compare. destruct constant_values as (_ & _ & _ & _ & _ & Vl).
  rewrite Binary.Bcompare_correct by (exact Fx || reflexivity). now rewrite Vl, Rcompare_Gt.
Qed.

Lemma clamp_below x : finite x = true -> value x <= -127 -> clamp x = lowest_bits.
Proof.
  intros Fx Hx. unfold clamp, b32_compare. destruct constant_values as (_ & _ & _ & _ & _ & Vl).
  rewrite Binary.Bcompare_correct by (exact Fx || reflexivity). rewrite Vl.
  destruct (Rle_lt_or_eq_dec _ _ Hx) as [H | ->]; [now rewrite Rcompare_Lt | now rewrite Rcompare_Eq].
Qed.

(** * End to end *)

Lemma Rpower_2_integer n : Rpower 2 (IZR n) = bpow radix2 n.
Proof. rewrite bpow_powerRZ. symmetry. apply (powerRZ_Rpower 2 n). lra. Qed.

(** The instructions compute software_exp2 of Exp2.v, rounding for rounding: for every fp32 x in [-126, 127] the
    result is finite and its value is that real number. *)
Theorem exp2_program_value x : finite x = true -> -126 <= value x <= 127 ->
  finite (exp2_program x) = true /\ value (exp2_program x) = software_exp2 (value x).
Proof.
  intros Fx Hx. unfold exp2_program. rewrite (clamp_above x Fx) by lra.
  destruct (split_values x Fx ltac:(lra)) as [[Fr Vr] _].
  destruct (polynomial_values x Fx ltac:(lra)) as (Fp & Bp & Vp).
  pose proof (floor_range (-126) 127 (value x) Hx) as Hn.
  destruct (insert_exponent_is_scaling _ _ _ Hn Fr Vr Fp Bp) as [Fe Ve].
  split; [exact Fe |]. unfold exp2_unclamped, software_exp2.
  rewrite Ve, Vp, (magic_number_is_floor (value x)) by lra. now rewrite Rpower_2_integer.
Qed.

(** The headline on bit patterns: for every fp32 x in [-126, 127], the fp32 number that FlashAttention-4's instructions
    leave behind is within 8.772e-5 of 2^x, relatively. *)
Theorem exp2_program_error x : finite x = true -> -126 <= value x <= 127 ->
  Rabs (value (exp2_program x) / Rpower 2 (value x) - 1) <= 8772 / 100000000.
Proof.
  intros Fx Hx. destruct (exp2_program_value x Fx Hx) as [_ ->]. now apply software_exp2_error.
Qed.

(** A masked score, minus infinity, gets weight zero exactly: the clamp makes it -127, whose pattern comes out as 0. *)
Theorem exp2_program_of_minus_infinity :
  value (exp2_program (Binary.B754_infinity 24 128 true)) = 0 /\
  finite (exp2_program (Binary.B754_infinity 24 128 true)) = true.
Proof. split; reflexivity. Qed.

(** Below -126 the result lies between 0 and 2^-126, as 2^x does: the absolute error is below 2^-126 = 1.2e-38. *)
Theorem exp2_program_below x : finite x = true -> value x < -126 ->
  finite (exp2_program x) = true /\ 0 <= value (exp2_program x) < bpow radix2 (-126).
Proof.
  intros Fx Hx. unfold exp2_program. destruct (Rle_lt_dec (value x) (-127)) as [H | H].
  { rewrite (clamp_below x Fx H).
    replace (exp2_unclamped lowest_bits) with (Binary.B754_zero 24 128 false) by (vm_compute; reflexivity).
    simpl. split; [reflexivity |]. split; [lra | apply (bpow_gt_0 radix2 (-126))]. }
  rewrite (clamp_above x Fx H).
  destruct (split_values x Fx ltac:(lra)) as [[Fr Vr] _].
  destruct (polynomial_values x Fx ltac:(lra)) as (Fp & Bp & _).
  assert (Hn : Zfloor (value x) = (-127)%Z) by (apply Zfloor_imp; simpl; lra).
  rewrite Hn in Vr. exact (insert_exponent_underflow _ _ Fr Vr Fp Bp).
Qed.
