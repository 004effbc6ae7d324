(** How far rounding takes attention that is computed tile by tile from exact softmax attention.

    A key's weight exp(s - m) is computed once and then rescaled by exp(m_old - m_new) whenever the reference m, the
    running maximum, grows. Three errors are followed separately, each as the exponent k of a factor e^k.
    Scores: each is off by at most sigma.
    Exponentials: exp(a - b) is off by eps, and by rho times b - a since the difference is rounded. The reference only
    grows, so the differences that one key meets add up to m_final - s. The sum telescopes: rho counts the range of the
    scores once, not once per tile, while eps counts every exponential.
    Sums and products: u for each, in a tile (in any order) and for every later rescaling and addition.
    Scores and exponentials make wrong weights, which enter numerator and denominator of the output alike; this halves
    their effect.

    Not claimed: anything about underflow, overflow, infinities or NaN (a rounding is a relative error of a real number;
    a masked key is one that is absent); that the instructions of a given GPU fulfil the hypotheses; that the bound is
    attained; the backward pass. A split-KV tree here combines states (m, l, o), not normalised outputs. *)
From Coq Require Import Reals Lra Lia List Permutation.
From IOAware Require Import RelativeError WeightError.
Import ListNotations.
Local Open Scope R_scope.

(** ** The recurrence in floating point *)

Section Recurrence.
(** Additions, products and quotients are rounded by fl, to nearest with unit roundoff u. *)
Variable fl : R -> R.
Variable u : R.
Hypothesis u_nonneg : 0 <= u.
Hypothesis fl_close : forall x, close u (fl x) x.

(** All scores and references lie in [low, high]; there difference_exp a b is exp(a - b) as computed. *)
Variables low high : R.
Variable difference_exp : R -> R -> R.
Variables rho eps : R.
Hypothesis rho_nonneg : 0 <= rho.
Hypothesis eps_nonneg : 0 <= eps.
Hypothesis exp_close : forall a b, low <= a -> a <= b -> b <= high ->
  close (rho * (b - a) + eps) (difference_exp a b) (exp (a - b)).

(** P is rounded to the format of the second matrix product, and the output to that of memory. *)
Variables cast store : R -> R.
Variables u_cast u_store : R.
Hypothesis cast_close : forall x, close u_cast (cast x) x.
Hypothesis store_close : forall x, close u_store (store x) x.
Hypothesis u_cast_nonneg : 0 <= u_cast.

(** A score is off by at most sigma. *)
Variable sigma : R.
Definition key_ok (k : key) : Prop := low <= score k /\ Rabs (score k - exact_score k) <= sigma.

(** A tile of at most B keys and a reference m that no score of it exceeds: l is the sum of the weights, o that of the
    rounded weights times v, each in any order and with fused multiply-adds or without. *)
Variable B : nat.
Definition tile (keys : list key) (m l o : R) : Prop :=
  (length keys <= B)%nat /\ m <= high /\ (forall k, In k keys -> score k <= m) /\
  summed fl (fun k x => x = difference_exp (score k) m) keys l /\
  summed fl (fun k x => product fl (cast (difference_exp (score k) m)) (value k) x) keys o.

(** States (m, l, o) of some keys which take [scalings] changes of the reference and [steps] roundings at most, in any
    order of rescaling and adding. *)
Inductive computed : nat -> nat -> list key -> R -> R -> R -> Prop :=
| computed_tile keys m l o : tile keys m l o -> computed 0 0 keys m l o
| computed_rescaled scalings steps keys m l o m' l' o' :
    computed scalings steps keys m l o -> m <= m' <= high ->
    product fl (difference_exp m m') l l' -> product fl (difference_exp m m') o o' ->
    computed (S scalings) (S steps) keys m' l' o'
| computed_added scalings steps keys keys' m l o l' o' :
    computed scalings steps keys m l o -> computed scalings steps keys' m l' o' ->
    computed scalings (S steps) (keys ++ keys') m (fl (l + l')) (fl (o + o'))
| computed_more scalings steps scalings' steps' keys m l o :
    (scalings <= scalings')%nat -> (steps <= steps')%nat ->
    computed scalings steps keys m l o -> computed scalings' steps' keys m l o.

(** The weights that a state really used stand beside their keys. *)
Definition weight_ok (scalings : nat) (m : R) (weighted : key * R) : Prop :=
  let (k, w) := weighted in
  low <= score k <= m /\ close (sigma + rho * (m - score k) + INR (S scalings) * eps) w (exp (exact_score k - m)).

Definition represents (scalings steps : nat) (weighted : list (key * R)) (m l o : R) : Prop :=
  weighted <> [] /\ m <= high /\ (forall p, In p weighted -> weight_ok scalings m p) /\
  close ((INR (steps + B) - 1) * u) l (total snd weighted) /\
  within (INR (steps + B) * u + u_cast) o (total (fun p => snd p * value (fst p)) weighted)
    (total (fun p => Rabs (snd p * value (fst p))) weighted).

Lemma weight_pos scalings m p : weight_ok scalings m p -> 0 < snd p.
Proof. destruct p as [k w]. intros [_ H]. apply close_pos in H; auto using exp_pos. Qed.

Lemma tile_represents keys m l o : (forall k, In k keys -> key_ok k) -> tile keys m l o ->
  represents 0 0 (map (fun k => (k, difference_exp (score k) m)) keys) m l o.
Proof.
  intros Ok (Len & Hm & Hk & Sl & So). set (w := fun k => difference_exp (score k) m).
  assert (W : forall k, In k keys -> weight_ok 0 m (k, w k)).
  { intros k Ik. destruct (Ok k Ik) as [Hs He]. specialize (Hk k Ik). split; auto.
    replace (sigma + rho * (m - score k) + INR 1 * eps) with (rho * (m - score k) + eps + sigma) by (cbn; ring).
    apply close_trans with (exp (score k - m)); [apply exp_close; lra|].
    apply close_exp. replace (score k - m - (exact_score k - m)) with (score k - exact_score k) by ring. auto. }
  assert (P : forall k, In k keys -> 0 < w k) by (intros k Ik; now apply (weight_pos 0 m (k, w k)), W).
  pose proof (summed_length _ _ _ _ Sl) as L1. assert (N : keys <> []) by (intros ->; cbn in L1; lia).
  pose proof (le_INR _ _ Len) as LB. apply le_INR in L1. cbn in L1.
  split; [destruct keys; cbn; congruence|]. split; [auto|].
  split; [intros p Ip; apply in_map_iff in Ip; destruct Ip as (k & <- & Ik); now apply W|].
  rewrite !total_map. cbn [snd fst Nat.add]. split.
  - apply close_weaken with (0 + (INR (length keys) - 1) * u).
    + rewrite Rplus_0_l. apply Rmult_le_compat_r; lra.
    + eapply summed_close; [..|apply Sl]; auto. intros k x Ik ->. apply close_refl; lra.
  - apply within_weaken with (u + u_cast + (INR (length keys) - 1) * u).
    + assert (INR (length keys) * u <= INR B * u) by (apply Rmult_le_compat_r; auto). lra.
    + apply Rle_trans with (2 := total_abs _ _). apply Rabs_pos.
    + eapply summed_within; [..|apply So]; auto; [lra|]. intros k x Ik Hx.
      apply product_close with (u := u) in Hx; auto. apply close_trans with (1 := Hx).
      rewrite <- (Rplus_0_r u_cast). apply close_mul; [apply cast_close | apply close_refl; lra].
Qed.

Lemma rescaled_represents scalings steps weighted m l o m' l' o' :
  represents scalings steps weighted m l o -> m <= m' <= high ->
  product fl (difference_exp m m') l l' -> product fl (difference_exp m m') o o' ->
  represents (S scalings) (S steps) (map (fun p => (fst p, difference_exp m m' * snd p)) weighted) m' l' o'.
Proof.
  intros (N & Hm & W & L & O) Hm' Pl Po. set (alpha := difference_exp m m') in *.
  assert (Low : low <= m).
  { destruct weighted as [|[k w] rest]; [congruence|]. destruct (W _ (or_introl eq_refl)) as [Hs _]. lra. }
  pose proof (exp_close m m' Low ltac:(lra) ltac:(lra)) as A. fold alpha in A.
  assert (Pa : 0 < alpha) by (apply close_pos in A; auto using exp_pos).
  split; [destruct weighted; cbn; congruence|]. split; [lra|]. split.
  - intros p Ip. apply in_map_iff in Ip. destruct Ip as ([k w] & <- & Ip). destruct (W _ Ip) as [Hs Hw].
    split; [cbn; lra|]. cbn [fst snd].
    replace (exp (exact_score k - m')) with (exp (m - m') * exp (exact_score k - m))
      by (rewrite <- exp_plus; f_equal; ring).
    apply close_weaken with (2 := close_mul _ _ _ _ _ _ A Hw). rewrite (S_INR (S scalings)). lra.
  - rewrite !total_map. cbn [fst snd Nat.add]. rewrite S_INR.
    rewrite (total_ext (fun a => alpha * snd a * _) (fun a => alpha * (snd a * value (fst a)))) by (intros; ring).
    rewrite (total_ext (fun a => Rabs (alpha * snd a * _)) (fun a => alpha * Rabs (snd a * value (fst a))))
      by (intros; rewrite <- (Rabs_right alpha) at 2 by lra; rewrite <- Rabs_mult; f_equal; ring).
    rewrite !total_scale. apply product_close with (u := u) in Pl; auto. apply product_close with (u := u) in Po; auto.
    split.
    + apply close_weaken with (u + (0 + (INR (steps + B) - 1) * u)); [lra|].
      apply close_trans with (1 := Pl). apply close_mul; [apply close_refl; lra | auto].
    + destruct Po as (t & Ht & ->). replace (alpha * o * exp t) with ((alpha * exp t) * o) by ring.
      rewrite <- (Rabs_right alpha) at 3 by lra.
      replace ((INR (steps + B) + 1) * u + u_cast) with (u + (INR (steps + B) * u + u_cast)) by ring.
      apply within_mul; auto using total_abs. now exists t.
Qed.

Lemma added_represents scalings steps weighted weighted' m l o l' o' :
  represents scalings steps weighted m l o -> represents scalings steps weighted' m l' o' ->
  represents scalings (S steps) (weighted ++ weighted') m (fl (l + l')) (fl (o + o')).
Proof.
  intros (N & Hm & W & L & O) (N' & _ & W' & L' & O').
  split; [destruct weighted; cbn; congruence|]. split; [auto|].
  split; [intros p Ip; apply in_app_or in Ip; destruct Ip; auto|].
  rewrite !total_app. cbn [Nat.add]. rewrite S_INR. split.
  - replace ((INR (steps + B) + 1 - 1) * u) with ((INR (steps + B) - 1) * u + u) by ring.
    apply add_close; auto; apply total_pos; auto; intros; eapply weight_pos; eauto.
  - replace ((INR (steps + B) + 1) * u + u_cast) with (INR (steps + B) * u + u_cast + u) by ring.
    apply add_within; auto using total_abs.
Qed.

Lemma more_represents scalings steps scalings' steps' weighted m l o :
  (scalings <= scalings')%nat -> (steps <= steps')%nat ->
  represents scalings steps weighted m l o -> represents scalings' steps' weighted m l o.
Proof.
  intros Hc Hr (N & Hm & W & L & O). apply le_n_S, le_INR in Hc.
  assert (Hr' : INR (steps + B) * u <= INR (steps' + B) * u) by (apply Rmult_le_compat_r; auto; apply le_INR; lia).
  repeat split; auto.
  - intros [k w] Ip. destruct (W _ Ip) as [Hs Hw]. split; auto. apply close_weaken with (2 := Hw).
    apply Rplus_le_compat_l, Rmult_le_compat_r; auto.
  - apply close_weaken with (2 := L). lra.
  - apply within_weaken with (3 := O); [lra|]. apply Rle_trans with (2 := total_abs _ _). apply Rabs_pos.
Qed.

Lemma computed_represents scalings steps keys m l o :
  computed scalings steps keys m l o -> (forall k, In k keys -> key_ok k) ->
  exists weighted, map fst weighted = keys /\ represents scalings steps weighted m l o.
Proof.
  induction 1 as [keys m l o T | c r keys m l o m' l' o' _ IH Hm Pl Po
    | c r keys keys' m l o l' o' _ IH _ IH' | c r c' r' keys m l o Hc Hr _ IH]; intros Ok.
  - exists (map (fun k => (k, difference_exp (score k) m)) keys). split; [|now apply tile_represents].
    rewrite map_map. apply map_id.
  - destruct (IH Ok) as (ws & <- & H). eexists. split; [|eapply rescaled_represents; eauto]. now rewrite map_map.
  - destruct IH as (ws & <- & H); [intros; apply Ok, in_or_app; auto|].
    destruct IH' as (ws' & <- & H'); [intros; apply Ok, in_or_app; auto|].
    exists (ws ++ ws'). split; [apply map_app | now apply added_represents].
  - destruct (IH Ok) as (ws & <- & H). exists ws. split; [reflexivity | eapply more_represents; eauto].
Qed.

(** ** The output *)

(** o / l, or o times the reciprocal of l. *)
Definition quotient (o l x : R) : Prop := x = fl (o / l) \/ x = fl (o * fl (/ l)).

Lemma quotient_close o l x : quotient o l x -> close (2 * u) x (/ l * o).
Proof.
  intros [-> | ->].
  - apply close_weaken with (u + 0); [lra|]. apply close_trans with (1 := fl_close _).
    replace (o / l) with (/ l * o) by (unfold Rdiv; ring). apply close_refl; lra.
  - replace (2 * u) with (u + (u + 0)) by ring. apply close_trans with (1 := fl_close _).
    rewrite Rmult_comm. apply close_mul; [apply fl_close | apply close_refl; lra].
Qed.

(** Relative to the largest |v|: what the sums and casts contribute, and what the wrong weights do. *)
Definition error_bound (scalings steps : nat) : R :=
  (exp ((2 * INR (steps + B) + 1) * u + u_cast + u_store) - 1)
  + (exp (2 * (sigma + rho * (high - low) + INR (S scalings) * eps)) - 1) / 2.

(** Any schedule of tiles, rescalings and additions: with k = (2 (steps + B) + 1) u + u_cast + u_store and
    D = sigma + rho (high - low) + (scalings + 1) eps, the output is off by at most e^k - 1 + (e^(2D) - 1) / 2 times
    the largest |v|. No sum over tiles of the differences of references appears: they telescope to high - low. *)
Theorem output_error (V : R) scalings steps keys m l o x : 0 < V ->
  (forall k, In k keys -> key_ok k /\ Rabs (value k) <= V) ->
  computed scalings steps keys m l o -> quotient o l x ->
  Rabs (store x - attention keys) <= error_bound scalings steps * V.
Proof.
  intros HV Hv C Q. destruct (computed_represents _ _ _ _ _ _ C) as (ws & <- & N & Hm & W & L & O); [now apply Hv|].
  set (D := sigma + rho * (high - low) + INR (S scalings) * eps).
  set (O' := total (fun p => snd p * value (fst p)) ws) in *. set (L' := total snd ws) in *.
  assert (HV' : forall p, In p ws -> Rabs (value (fst p)) <= V) by (intros p Ip; apply Hv, in_map_iff; eauto).
  assert (PL : 0 < L') by (apply total_pos; auto; intros; eapply weight_pos; eauto).
  assert (E1 : Rabs (O' / L' - attention (map fst ws)) <= (exp (2 * D) - 1) / 2 * V).
  { apply weights_error with m; auto. intros k w Ip. split; [apply (HV' _ Ip)|].
    destruct (W _ Ip) as [Hs Hw]. apply close_weaken with (2 := Hw). unfold D.
    assert (rho * (m - score k) <= rho * (high - low)) by (apply Rmult_le_compat_l; lra). lra. }
  assert (E2 : Rabs (store x - O' / L') <= (exp ((2 * INR (steps + B) + 1) * u + u_cast + u_store) - 1) * V).
  { destruct (close_trans _ _ _ _ _ (store_close x) (quotient_close _ _ _ Q)) as (t & Ht & ->).
    replace (/ l * o * exp t) with ((/ l * exp t) * o) by ring.
    replace (O' / L') with (/ L' * O') by (unfold Rdiv; ring).
    assert (A : close (u_store + 2 * u + (INR (steps + B) - 1) * u) (/ l * exp t) (/ L')).
    { apply close_trans with (/ l); [now exists t | now apply close_inv]. }
    pose proof (within_mul _ _ _ _ _ _ _ A (total_abs _ _) O) as H. unfold within in H.
    replace (u_store + 2 * u + (INR (steps + B) - 1) * u + (INR (steps + B) * u + u_cast))
      with ((2 * INR (steps + B) + 1) * u + u_cast + u_store) in H by ring.
    apply Rle_trans with (1 := H). pose proof (close_pos _ _ _ PL L) as Pl.
    set (k := (2 * INR (steps + B) + 1) * u + u_cast + u_store) in *.
    assert (T : Rabs (/ L') * total (fun p => Rabs (snd p * value (fst p))) ws <= V).
    { rewrite Rabs_right by (left; now apply Rinv_0_lt_compat). apply Rmult_le_reg_l with (1 := PL).
      rewrite <- Rmult_assoc, Rinv_r, Rmult_1_l by lra. unfold L'. rewrite (Rmult_comm (total snd ws)), <- total_scale.
      apply total_le. intros p Ip. rewrite Rabs_mult, (Rmult_comm V).
      pose proof (weight_pos _ _ _ (W _ Ip)). rewrite (Rabs_right (snd p)) by lra.
      apply Rmult_le_compat_l; auto; lra. }
    apply Rmult_le_compat_l; auto. unfold k.
    pose proof (exp_ge_1 k) as G. enough (0 <= k) by (fold k; lra).
    pose proof (pos_INR (steps + B)). assert (0 <= u_store) by (destruct (store_close 1) as (s & Hs & _);
      pose proof (Rabs_pos s); lra).
    unfold k. assert (0 <= (2 * INR (steps + B) + 1) * u) by (apply Rmult_le_pos; lra). lra. }
  unfold error_bound. fold D. rewrite Rmult_plus_distr_r.
  replace (store x - attention (map fst ws)) with ((store x - O' / L') + (O' / L' - attention (map fst ws))) by ring.
  apply Rle_trans with (1 := Rabs_triang _ _). lra.
Qed.

(** ** The two schedules in use *)

(** FlashAttention-2: keys arrive in pieces, tiles or parts of tiles. Before a piece is added the running state may be
    rescaled to the piece's reference (always, or only if the maximum grew). That the real loop starts from m = -inf and
    l = o = 0 adds nothing: 0 times 0 and 0 plus x are exact. *)
Inductive online : nat -> nat -> list key -> R -> R -> R -> Prop :=
| online_first keys m l o : tile keys m l o -> online 0 1 keys m l o
| online_rescaled scalings pieces keys m l o keys' m' l' o' ml mo :
    online scalings pieces keys m l o -> m <= m' -> tile keys' m' l' o' ->
    product fl (difference_exp m m') l ml -> product fl (difference_exp m m') o mo ->
    online (S scalings) (S pieces) (keys ++ keys') m' (fl (ml + l')) (fl (mo + o'))
| online_added scalings pieces keys m l o keys' l' o' :
    online scalings pieces keys m l o -> tile keys' m l' o' ->
    online scalings (S pieces) (keys ++ keys') m (fl (l + l')) (fl (o + o')).

Lemma online_computed scalings pieces keys m l o : online scalings pieces keys m l o ->
  (S scalings <= pieces)%nat /\ computed scalings (scalings + pieces - 1) keys m l o.
Proof.
  induction 1 as [keys m l o T | c n keys m l o keys' m' l' o' ml mo _ [Hn IH] Hm T Pl Po
    | c n keys m l o keys' l' o' _ [Hn IH] T]; (split; [lia|]).
  - now apply computed_tile.
  - replace (S c + S n - 1)%nat with (S (S (c + n - 1))) by lia. apply computed_added.
    + apply computed_rescaled with m l o; auto. split; [auto | apply T].
    + apply computed_more with 0%nat 0%nat; try lia. now apply computed_tile.
  - replace (c + S n - 1)%nat with (S (c + n - 1)) by lia. apply computed_added; auto.
    apply computed_more with 0%nat 0%nat; try lia. now apply computed_tile.
Qed.

(** The loop over key tiles: the error grows with the number of pieces that are added, and with the number of times the
    state is rescaled, not with the number of keys. With one piece of B keys for each of T tiles the exponents are
    k = (4 T + 2 B - 3) u + u_cast + u_store and D = sigma + rho (high - low) + T eps.
    Used by: proofs/ioaware_proofs/rounding.py (error_bound). *)
Theorem online_error (V : R) scalings pieces keys m l o x : 0 < V ->
  (forall k, In k keys -> key_ok k /\ Rabs (value k) <= V) ->
  online scalings pieces keys m l o -> quotient o l x ->
  Rabs (store x - attention keys) <= error_bound scalings (scalings + pieces - 1) * V.
Proof.
  intros HV Hv O Q. apply output_error with (keys := keys) (m := m) (l := l) (o := o); auto. now apply online_computed.
Qed.

(** Split-KV: states of disjoint splits are combined in pairs; both are rescaled to a common reference. *)
Inductive tree (scalings steps : nat) : nat -> list key -> R -> R -> R -> Prop :=
| tree_leaf keys m l o : computed scalings steps keys m l o -> tree scalings steps 0 keys m l o
| tree_node h h' keys m l o keys' m' l' o' top al ao bl bo :
    tree scalings steps h keys m l o -> tree scalings steps h' keys' m' l' o' -> m <= top <= high -> m' <= top ->
    product fl (difference_exp m top) l al -> product fl (difference_exp m top) o ao ->
    product fl (difference_exp m' top) l' bl -> product fl (difference_exp m' top) o' bo ->
    tree scalings steps (S (Nat.max h h')) (keys ++ keys') top (fl (al + bl)) (fl (ao + bo)).

Lemma tree_computed scalings steps h keys m l o : tree scalings steps h keys m l o ->
  computed (h + scalings) (h + (h + steps)) keys m l o.
Proof.
  induction 1 as [keys m l o C | h h' keys m l o keys' m' l' o' top al ao bl bo _ IH _ IH' Hm Hm' Al Ao Bl Bo]; auto.
  cbn [Nat.add]. rewrite Nat.add_succ_r. apply computed_added.
  - apply computed_rescaled with m l o; auto. apply computed_more with (3 := IH); lia.
  - apply computed_rescaled with m' l' o'; auto; [|lra]. apply computed_more with (3 := IH'); lia.
Qed.

(** The tree over splits: the error grows with the height h of the tree, not with the number of splits. *)
Theorem tree_error (V : R) scalings steps h keys m l o x : 0 < V ->
  (forall k, In k keys -> key_ok k /\ Rabs (value k) <= V) ->
  tree scalings steps h keys m l o -> quotient o l x ->
  Rabs (store x - attention keys) <= error_bound (h + scalings) (2 * h + steps) * V.
Proof.
  intros HV Hv T Q. apply output_error with (keys := keys) (m := m) (l := l) (o := o); auto.
  replace (2 * h + steps)%nat with (h + (h + steps))%nat by lia. now apply tree_computed.
Qed.
End Recurrence.
