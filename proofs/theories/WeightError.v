(** What wrong softmax weights do to the output of attention.

    If every weight exp(s - m) is wrong by a factor between e^-D and e^D, softmax attention is off by at most
    (e^(2D) - 1) / 2, which is about D, times the largest |v|. Wrong weights are what errors in scores and in
    exponentials amount to.
    Not claimed: that this is attained, or anything about how numerator and denominator are summed. *)
From Coq Require Import Reals Lra List.
From IOAware Require Import RelativeError.
Import ListNotations.
Local Open Scope R_scope.

(** A key as one query row and one output column see it: its exact score s, its score as computed, its entry of V. *)
Record key := Key { exact_score : R; score : R; value : R }.

(** Softmax attention by the textbook: sum of exp(s) v over sum of exp(s). *)
Definition attention (keys : list key) : R :=
  total (fun k => exp (exact_score k) * value k) keys / total (fun k => exp (exact_score k)) keys.

Lemma attention_shifted m keys : keys <> [] ->
  total (fun k => exp (exact_score k - m) * value k) keys
  = attention keys * total (fun k => exp (exact_score k - m)) keys.
Proof.
  intros N. assert (P : 0 < total (fun k => exp (exact_score k)) keys) by (apply total_pos; auto using exp_pos).
  rewrite (total_ext _ (fun k => exp (- m) * (exp (exact_score k) * value k)))
    by (intros; unfold Rminus; rewrite exp_plus; ring).
  rewrite (total_ext (fun k => exp (exact_score k - m)) (fun k => exp (- m) * exp (exact_score k)))
    by (intros; unfold Rminus; rewrite exp_plus; ring).
  rewrite !total_scale. unfold attention. field. lra.
Qed.

Lemma deviation_le v c V : Rabs v <= V -> Rabs c <= V -> V * Rabs (v - c) <= V * V - v * c.
Proof.
  intros Hv Hc. apply Rabs_le_inv in Hv. apply Rabs_le_inv in Hc.
  unfold Rabs. destruct (Rcase_abs (v - c)).
  - assert (0 <= (V + v) * (V - c)) by (apply Rmult_le_pos; lra). nra.
  - assert (0 <= (V - v) * (V + c)) by (apply Rmult_le_pos; lra). nra.
Qed.

Lemma attention_le V keys : keys <> [] -> (forall k, In k keys -> Rabs (value k) <= V) -> Rabs (attention keys) <= V.
Proof.
  intros N HV. assert (P : 0 < total (fun k => exp (exact_score k)) keys) by (apply total_pos; auto using exp_pos).
  unfold attention, Rdiv. rewrite Rabs_mult, (Rabs_right (/ _)) by (left; now apply Rinv_0_lt_compat).
  apply Rmult_le_reg_r with (1 := P). rewrite Rmult_assoc, Rinv_l, Rmult_1_r by lra.
  apply Rle_trans with (1 := total_abs _ _). rewrite <- total_scale. apply total_le. intros k Hk.
  rewrite Rabs_mult, (Rabs_right (exp _)) by (left; apply exp_pos). rewrite Rmult_comm.
  apply Rmult_le_compat_r; auto. left; apply exp_pos.
Qed.

(** A weight wrong by e^t, |t| <= D, is within sinh D of cosh D times the right one. *)
Lemma centred_weight D w p : 0 < p -> close D w p ->
  Rabs (w - (exp D + exp (- D)) / 2 * p) <= (exp D - exp (- D)) / 2 * p.
Proof. intros Hp H. apply close_interval in H; auto. apply Rabs_le. lra. Qed.

(** Softmax attention with weights w, each wrong by at most a factor e^D (for instance since its score is wrong by at
    most D), is off by at most (e^(2D) - 1) / 2 times the largest |v|: about D, not 2 D, for the error is common to
    numerator and denominator. *)
Theorem weights_error (D V m : R) (weighted : list (key * R)) :
  0 < V -> weighted <> [] ->
  (forall k w, In (k, w) weighted -> Rabs (value k) <= V /\ close D w (exp (exact_score k - m))) ->
  Rabs (total (fun p => snd p * value (fst p)) weighted / total snd weighted - attention (map fst weighted))
  <= (exp (2 * D) - 1) / 2 * V.
Proof.
  intros HV N H. set (keys := map fst weighted). set (O := attention keys).
  assert (Nk : keys <> []) by (unfold keys; destruct weighted; cbn; congruence).
  assert (HO : Rabs O <= V).
  { apply attention_le; auto. intros k Hk. apply in_map_iff in Hk.
    destruct Hk as ([k' w] & <- & Hk). now apply H in Hk. }
  assert (HD : 0 <= D).
  { destruct weighted as [|[k w] l]; [congruence|]. destruct (H k w (or_introl eq_refl)) as [_ (t & Ht & _)].
    pose proof (Rabs_pos t). lra. }
  set (p := fun a : key * R => exp (exact_score (fst a) - m)). set (v := fun a : key * R => value (fst a)).
  set (L := total p weighted). set (Lw := total snd weighted).
  assert (Hp : forall a, 0 < p a) by (intros; apply exp_pos).
  assert (HL : 0 < L) by (apply total_pos; auto).
  assert (Hw : forall a, In a weighted -> close D (snd a) (p a)) by (intros [k w] Ha; now apply H in Ha).
  assert (HLw : exp (- D) * L <= Lw).
  { unfold L, Lw. rewrite <- total_scale. apply total_le. intros a Ha.
    apply Hw, close_interval in Ha; auto. rewrite Rmult_comm. apply Ha. }
  pose proof (exp_pos (- D)) as PD. assert (HLw0 : 0 < Lw) by nra.
  (* the exact deviations from O cancel *)
  assert (Z : total (fun a => p a * (v a - O)) weighted = 0).
  { rewrite (total_ext _ (fun a => p a * v a - O * p a)) by (intros; ring). rewrite total_minus, total_scale.
    pose proof (attention_shifted m keys Nk) as E. unfold keys in E at 1 3. rewrite !total_map in E. fold O in E.
    unfold p, v. rewrite E. ring. }
  (* and are small in the mean *)
  assert (M : total (fun a => p a * Rabs (v a - O)) weighted <= V * L).
  { apply Rmult_le_reg_l with V; auto.
    apply Rle_trans with (V * V * L - O * total (fun a => p a * v a) weighted).
    - unfold L. rewrite <- !total_scale, <- total_minus. apply total_le. intros a Ha.
      assert (A : V * Rabs (v a - O) <= V * V - v a * O)
        by (apply deviation_le; auto; destruct a as [k w]; now apply H in Ha).
      pose proof (Rmult_le_compat_l _ _ _ (Rlt_le _ _ (Hp a)) A). lra.
    - assert (E : total (fun a => p a * v a) weighted = O * L).
      { rewrite (total_ext _ (fun a => p a * (v a - O) - (- O) * p a)) by (intros; ring).
        rewrite total_minus, total_scale, Z. unfold L. ring. }
      rewrite E. pose proof (Rle_0_sqr O) as S. unfold Rsqr in S. nra. }
  set (C := (exp D + exp (- D)) / 2). set (S := (exp D - exp (- D)) / 2).
  assert (B : Rabs (total (fun a => snd a * (v a - O)) weighted) <= S * (V * L)).
  { replace (total (fun a => snd a * (v a - O)) weighted)
      with (total (fun a => (snd a - C * p a) * (v a - O)) weighted).
    - apply Rle_trans with (1 := total_abs _ _).
      apply Rle_trans with (total (fun a => S * (p a * Rabs (v a - O))) weighted).
      + apply total_le. intros a Ha. rewrite Rabs_mult, <- Rmult_assoc.
        apply Rmult_le_compat_r; [apply Rabs_pos|]. apply centred_weight; auto.
      + rewrite total_scale. apply Rmult_le_compat_l; auto. unfold S.
        pose proof (exp_le (- D) D). lra.
    - rewrite (total_ext _ (fun a => snd a * (v a - O) - C * (p a * (v a - O)))) by (intros; ring).
      rewrite total_minus, total_scale, Z. ring. }
  replace (total (fun a => snd a * (v a - O)) weighted)
    with (total (fun a => snd a * v a) weighted - O * Lw) in B
    by (rewrite (total_ext (fun a => snd a * (v a - O)) (fun a => snd a * v a - O * snd a)) by (intros; ring);
        rewrite total_minus, total_scale; reflexivity).
  fold v Lw. change (fun p0 => snd p0 * value (fst p0)) with (fun a : key * R => snd a * v a).
  replace (total (fun a => snd a * v a) weighted / Lw - O)
    with ((total (fun a => snd a * v a) weighted - O * Lw) * / Lw) by (field; lra).
  rewrite Rabs_mult, (Rabs_right (/ Lw)) by (left; now apply Rinv_0_lt_compat).
  apply Rmult_le_reg_r with (1 := HLw0). rewrite Rmult_assoc, Rinv_l, Rmult_1_r by lra.
  apply Rle_trans with (1 := B).
  replace (2 * D) with (D + D) by ring. rewrite exp_plus.
  assert (E : exp D * exp (- D) = 1) by (rewrite <- exp_plus, <- exp_0; f_equal; ring).
  pose proof (exp_pos D).
  replace (S * (V * L)) with ((exp D * exp D - 1) / 2 * V * (exp (- D) * L)).
  - apply Rmult_le_compat_l; auto. apply Rmult_le_pos; [|lra].
    pose proof (exp_ge_1 D). nra.
  - unfold S. transitivity ((exp D * (exp D * exp (- D)) - exp (- D)) / 2 * V * L); [field|]. rewrite E. field.
Qed.
