(** FlashAttention-2 moves the fewest words that any schedule of exact attention can, to the leading term.

    The program of FlashSchedule.v, with the largest query tile that fits, loads and stores N^2 (d + dv)^2 / M + O(N d)
    words for N queries and keys, which is 4 N^2 d^2 / M for dv = d, and half of that for causal attention if it skips
    the keys that no row of a tile sees. By FullAttention.v no schedule does with fewer than N^2 (d + dv)^2 / M - M, or
    half, if dv <= d. So for N much larger than M / d, and M at least 2 (d + dv)^2 and much larger than d, the ratio of
    the two tends to 1: the loop order of FlashAttention-2 cannot be improved, only lower terms can, as by visiting the
    keys back and forth. If dv is a multiple of d, the least is 4 N^2 d dv / M, and to reach it the program must do d
    columns of V at a time, and form all scores again for each.

    The comparison is between programs of one machine, which charges no room for running maxima and row sums: with two
    more words for each resident query row the tile is smaller by one part in (d + dv) / 2 + 1. It is about one fast
    memory, and about words, not time; recomputed scores cost nothing here. *)
From Coq Require Import List Arith Lia.
From IOAware Require Import Machine Counting Masks FullAttention FlashSchedule.
From IOAware Require IOCounts.
Import ListNotations.

(** Tiles of Br query rows; every tile visits all keys, or, causal, the keys up to its last row. *)
Definition flash2_dense d dv queries keys Br :=
  flash2 d dv [0] (map (fun rows => (rows, seq 0 keys)) (row_tiles Br 0 queries (IOCounts.cdiv queries Br))).
Definition flash2_causal d dv N Br :=
  flash2 d dv [0] (map (fun rows => (rows, seq 0 (S (last rows 0)))) (row_tiles Br 0 N (IOCounts.cdiv N Br))).

Lemma cdiv_tiles N Br : 0 < Br -> concat (row_tiles Br 0 N (IOCounts.cdiv N Br)) = seq 0 N.
Proof.
  intros HB. pose proof (IOCounts.cdiv_spec N Br HB). rewrite row_tiles_cover by lia. now rewrite Nat.sub_0_r.
Qed.

Lemma tiled_is_attention M d dv blocks width Br N E (keys : list nat -> list nat) :
  0 < Br -> (Br + 1) * (d + dv) + 1 <= M ->
  (forall k, k < width -> exists first, In first blocks /\ In k (seq first dv)) ->
  (forall i j rows, In (i, j) E -> In rows (row_tiles Br 0 N (IOCounts.cdiv N Br)) -> In i rows -> In j (keys rows)) ->
  (forall i j, In (i, j) E -> i < N) ->
  attention_run M d width E (flash2 d dv blocks (map (fun r => (r, keys r)) (row_tiles Br 0 N (IOCounts.cdiv N Br)))).
Proof.
  intros HB HM Hwidth Hkeys HE. apply flash2_is_legal; auto.
  - intros tile Ht. apply in_map_iff in Ht. destruct Ht as (r & <- & Hr%row_tiles_rows). simpl.
    assert (length r * (d + dv) <= Br * (d + dv)) by (apply Nat.mul_le_mono_r; auto). lia.
  - intros i j Hij. assert (Hi : In i (seq 0 N)) by (apply in_seq; pose proof (HE i j Hij); lia).
    rewrite <- (cdiv_tiles N Br HB) in Hi. apply in_concat in Hi. destruct Hi as (r & Hr & Hi).
    exists (r, keys r). split; [|split; [exact Hi|apply (Hkeys i j r); auto]].
    now apply (in_map (fun r => (r, keys r))).
Qed.

Lemma one_block dv k : k < dv -> exists first, In first [0] /\ In k (seq first dv).
Proof. intros Hk. exists 0. split; [now left|]. apply in_seq. lia. Qed.

Lemma tiled_rows Br N (keys : list nat -> list nat) : 0 < Br ->
  flat_map fst (map (fun r => (r, keys r)) (row_tiles Br 0 N (IOCounts.cdiv N Br))) = seq 0 N.
Proof. intros HB. now rewrite flat_map_concat_map, map_map, map_id, cdiv_tiles. Qed.

Lemma dense_traffic d dv blocks queries keys Br : 0 < Br ->
  let os := flash2 d dv blocks (map (fun r => (r, seq 0 keys)) (row_tiles Br 0 queries (IOCounts.cdiv queries Br))) in
  loads os = length blocks * (queries * d + IOCounts.cdiv queries Br * (keys * (d + dv))) /\
  stores os = length blocks * (queries * dv).
Proof.
  intros HB os. unfold os. destruct (flash2_traffic d dv blocks (map (fun r => (r, seq 0 keys))
    (row_tiles Br 0 queries (IOCounts.cdiv queries Br)))) as [-> ->].
  rewrite (tiled_rows Br queries (fun _ => seq 0 keys) HB), seq_length, (flat_map_length _ keys).
  - rewrite map_length, row_tiles_length. split; [ring|auto].
  - intros x Hx. apply in_map_iff in Hx. destruct Hx as (r & <- & _). apply seq_length.
Qed.

(** FlashAttention-2 with tiles of Br query rows computes dense attention. It needs (Br + 1) (d + dv) + 1 words of fast
    memory, loads queries * d + ceil(queries / Br) * keys * (d + dv) words and stores queries * dv. *)
Theorem flash2_total_traffic M d dv queries keys Br : 0 < Br -> (Br + 1) * (d + dv) + 1 <= M ->
  let os := flash2_dense d dv queries keys Br in attention_run M d dv (dense queries keys) os /\
  loads os = queries * d + IOCounts.cdiv queries Br * (keys * (d + dv)) /\ stores os = queries * dv.
Proof.
  intros HB HM os. split.
  - apply (tiled_is_attention M d dv [0] dv Br queries _ (fun _ => seq 0 keys)); auto using one_block.
    + intros i j r [_ Hj]%in_mask _ _. exact Hj.
    + intros i j [Hi _]%in_mask. apply in_seq in Hi. lia.
  - unfold os, flash2_dense. destruct (dense_traffic d dv [0] queries keys Br HB) as [-> ->]. simpl. lia.
Qed.

Lemma last_row start n : last (seq start n) 0 <= start + n - 1.
Proof.
  destruct n as [|n]; [simpl; lia|]. rewrite seq_S, last_last. lia.
Qed.

Lemma causal_keys Br N count : 0 < Br -> forall start,
  2 * length (flat_map snd (map (fun r => (r, seq 0 (S (last r 0)))) (row_tiles Br start N count)))
  <= count * (2 * start + (count + 1) * Br).
Proof.
  intros HB. induction count as [|count IH]; intros start; [auto|].
  cbn [row_tiles map flat_map fst snd]. rewrite app_length, seq_length. specialize (IH (start + Br)).
  pose proof (last_row start (Nat.min Br (N - start))). nia.
Qed.

(** FlashAttention-2 with tiles of Br query rows computes causal attention of N rows, and loads at most
    N d + ceil(N / Br) (ceil(N / Br) + 1) / 2 * Br (d + dv) words. *)
Theorem flash2_causal_total_traffic M d dv N Br : 0 < Br -> (Br + 1) * (d + dv) + 1 <= M ->
  let os := flash2_causal d dv N Br in let tiles := IOCounts.cdiv N Br in attention_run M d dv (causal N 0) os /\
  2 * loads os <= 2 * (N * d) + tiles * (tiles + 1) * Br * (d + dv) /\ stores os = N * dv.
Proof.
  intros HB HM os tiles. split.
  - apply (tiled_is_attention M d dv [0] dv Br N _ (fun r => seq 0 (S (last r 0)))); auto using one_block.
    + intros i j r [_ Hj]%in_mask Hr Hi. apply in_seq in Hj. apply in_seq.
      enough (i <= last r 0) by lia. clear - Hr Hi. revert Hr. generalize 0 at 1. generalize (IOCounts.cdiv N Br).
      induction n as [|n IH]; intros start Hr; [contradiction|]. destruct Hr as [<-|Hr]; [|eauto].
      apply in_seq in Hi. destruct (Nat.min Br (N - start)) as [|l]; [lia|]. rewrite seq_S, last_last. lia.
    + intros i j [Hi _]%in_mask. apply in_seq in Hi. lia.
  - unfold os, flash2_causal. fold tiles. pose proof (causal_keys Br N tiles HB 0) as HK.
    destruct (flash2_traffic d dv [0] (map (fun r => (r, seq 0 (S (last r 0)))) (row_tiles Br 0 N tiles))) as [-> ->].
    unfold tiles in *. rewrite (tiled_rows Br N (fun r => seq 0 (S (last r 0))) HB), seq_length. split; [|simpl; lia].
    apply (Nat.mul_le_mono_r _ _ (d + dv)) in HK. change (length [0]) with 1. lia.
Qed.

(** * Against every other schedule *)

(** The largest query tile that fits. *)
Definition largest_tile M d dv := (M - (d + dv) - 1) / (d + dv).

Lemma largest_tile_spec M d dv : 0 < d + dv -> 2 * ((d + dv) * (d + dv)) <= M -> 2 <= d + dv ->
  0 < largest_tile M d dv /\ (largest_tile M d dv + 1) * (d + dv) + 1 <= M /\
  M - 2 * (d + dv) <= (d + dv) * largest_tile M d dv.
Proof.
  intros Hw HM H2. set (w := d + dv) in *. unfold largest_tile. fold w.
  pose proof (Nat.div_mod (M - w - 1) w ltac:(lia)) as HE. pose proof (Nat.mod_upper_bound (M - w - 1) w ltac:(lia))
    as Hub.
  set (B := (M - w - 1) / w) in *. assert (2 * (2 * w) <= 2 * (w * w)) by nia.
  assert (0 < B) by (destruct B; lia). split; [auto|]. split; lia.
Qed.

(** Dense attention with dv <= d, and M >= 2 (d + dv)^2: with the largest tile that fits, the loads and stores L of
    FlashAttention-2 and those L' of any other schedule have
    (M - 2 (d + dv)) (L - (queries + keys) (d + dv)) <= (L' + M) M. *)
Theorem flash2_total_traffic_optimal M d dv queries keys other : 0 < dv <= d -> 2 * ((d + dv) * (d + dv)) <= M ->
  attention_run M d dv (dense queries keys) other ->
  let os := flash2_dense d dv queries keys (largest_tile M d dv) in attention_run M d dv (dense queries keys) os /\
  (M - 2 * (d + dv)) * (loads os + stores os - (queries + keys) * (d + dv)) <= (loads other + stores other + M) * M.
Proof.
  intros Hdv HM Hother os. destruct (largest_tile_spec M d dv ltac:(lia) HM ltac:(lia)) as (HB & HL & HMB). revert os.
  set (Br := largest_tile M d dv) in *.
  destruct (flash2_total_traffic M d dv queries keys Br HB HL) as (Hos & HLo & HSt).
  intros os. split; [exact Hos|]. unfold os. rewrite HLo, HSt.
  pose proof (narrow_traffic_lower_bound M d dv (dense queries keys) other ltac:(lia) Hdv
    (mask_nodup _ _ (seq_NoDup _ _) (fun _ => seq_NoDup _ _)) Hother) as HLB. cbv zeta in HLB.
  rewrite Nat.max_l, dense_pairs in HLB by auto. apply Nat.le_trans with (2 := HLB).
  pose proof (IOCounts.cdiv_spec queries Br HB) as [_ HT]. set (T := IOCounts.cdiv queries Br) in *.
  assert (HT' : (T - 1) * Br <= queries) by (destruct T; simpl; lia).
  set (w := d + dv) in *.
  apply Nat.le_trans with ((w * Br) * ((T - 1) * (keys * w))).
  - apply Nat.mul_le_mono; [exact HMB|]. destruct T as [|T]; [unfold w; simpl; lia|]. replace (S T - 1) with T by lia.
    replace (queries * d + S T * (keys * w) + queries * dv) with (T * (keys * w) + (queries + keys) * w)
      by (unfold w; ring). lia.
  - replace (w * Br * ((T - 1) * (keys * w))) with (w * w * ((T - 1) * Br * keys)) by ring.
    apply Nat.mul_le_mono_l, Nat.mul_le_mono_r, HT'.
Qed.

(** Causal attention of N rows, under the same conditions:
    (M - 2 (d + dv)) (2 L - 5 N (d + dv) - 2 M) <= 2 (L' + M) M. *)
Theorem flash2_causal_total_traffic_optimal M d dv N other : 0 < dv <= d -> 2 * ((d + dv) * (d + dv)) <= M ->
  attention_run M d dv (causal N 0) other ->
  let os := flash2_causal d dv N (largest_tile M d dv) in attention_run M d dv (causal N 0) os /\
  (M - 2 * (d + dv)) * (2 * (loads os + stores os) - (5 * (N * (d + dv)) + 2 * M))
  <= 2 * ((loads other + stores other + M) * M).
Proof.
  intros Hdv HM Hother os. destruct (largest_tile_spec M d dv ltac:(lia) HM ltac:(lia)) as (HB & HL & HMB). revert os.
  set (Br := largest_tile M d dv) in *. destruct (flash2_causal_total_traffic M d dv N Br HB HL) as (Hos & HLo & HSt).
  intros os. split; [exact Hos|]. fold os in HLo, HSt.
  pose proof (narrow_traffic_lower_bound M d dv (causal N 0) other ltac:(lia) Hdv
    (mask_nodup _ _ (seq_NoDup _ _) (fun _ => seq_NoDup _ _)) Hother) as HLB. cbv zeta in HLB.
  pose proof (causal_pairs N 0) as HP. rewrite Nat.max_l in HLB by auto. set (w := d + dv) in *.
  apply (Nat.mul_le_mono_l _ _ 2) in HLB. apply Nat.le_trans with (2 := HLB).
  replace (2 * (w * w * length (causal N 0))) with (w * w * (2 * length (causal N 0))) by ring. rewrite HP.
  pose proof (IOCounts.cdiv_spec N Br HB) as [_ HT]. set (T := IOCounts.cdiv N Br) in *.
  assert (HT' : (T - 1) * Br <= N) by (destruct T; simpl; lia).
  apply Nat.le_trans with ((w * Br) * (w * Br * ((T - 1) * (T - 1)))).
  - apply Nat.mul_le_mono; [exact HMB|]. assert (HN : N * d + N * dv = N * w) by (unfold w; ring).
    destruct T as [|T]; [simpl in *; lia|]. replace (S T - 1) with T in * by lia.
    assert (H1 : w * (T * Br) <= w * N) by now apply Nat.mul_le_mono_l.
    replace (S T * (S T + 1) * Br * w) with (w * Br * (T * T) + 3 * (w * (T * Br)) + 2 * (w * Br)) in HLo by ring. lia.
  - replace (w * Br * (w * Br * ((T - 1) * (T - 1)))) with (w * w * (((T - 1) * Br) * ((T - 1) * Br))) by ring.
    apply Nat.mul_le_mono_l. apply Nat.le_trans with (N * N); [now apply Nat.mul_le_mono|]. nia.
Qed.

(** * Wide values *)

(** If V is wider than Q and K, it is better to take d columns at a time, and to form the scores again for each. *)
Definition flash2_blocked d blocks queries keys Br :=
  flash2 d d (map (fun b => b * d) (seq 0 blocks))
    (map (fun rows => (rows, seq 0 keys)) (row_tiles Br 0 queries (IOCounts.cdiv queries Br))).

(** Dense attention with dv = blocks * d columns of V, and M >= 8 d dv: the loads and stores L of FlashAttention-2 done
    for d columns at a time and those L' of any other schedule have
    (M - 4 d) (L - 2 (queries + keys) dv) <= (L' + M) M. *)
Theorem flash2_blocked_total_traffic_optimal M d blocks queries keys other : 0 < d -> 0 < blocks ->
  8 * (d * (blocks * d)) <= M -> attention_run M d (blocks * d) (dense queries keys) other ->
  let os := flash2_blocked d blocks queries keys (largest_tile M d d) in
  attention_run M d (blocks * d) (dense queries keys) os /\
  (M - 4 * d) * (loads os + stores os - 2 * (queries + keys) * (blocks * d)) <= (loads other + stores other + M) * M.
Proof.
  intros Hd Hb HM Hother os.
  assert (HM8 : 2 * ((d + d) * (d + d)) <= M).
  { apply Nat.le_trans with (2 := HM). assert (d * d <= d * (blocks * d)) by (apply Nat.mul_le_mono_l; nia). lia. }
  destruct (largest_tile_spec M d d ltac:(lia) HM8 ltac:(lia)) as (HB & HL & HMB). revert os.
  set (Br := largest_tile M d d) in *. intros os. split.
  - apply (tiled_is_attention M d d _ _ Br queries _ (fun _ => seq 0 keys)); auto.
    + intros k Hk. exists (k / d * d). pose proof (Nat.div_mod k d ltac:(lia)).
      pose proof (Nat.mod_upper_bound k d ltac:(lia)).
      split; [|apply in_seq; lia]. apply (in_map (fun b => b * d)), in_seq. split; [lia|].
      apply Nat.div_lt_upper_bound; lia.
    + intros i j r [_ Hj]%in_mask _ _. exact Hj.
    + intros i j [Hi _]%in_mask. apply in_seq in Hi. lia.
  - unfold os, flash2_blocked. destruct (dense_traffic d d (map (fun b => b * d) (seq 0 blocks)) queries keys Br HB)
      as [-> ->].
    rewrite map_length, seq_length. assert (0 < d * d) by (now apply Nat.mul_pos_pos).
    pose proof (total_traffic_lower_bound M d (blocks * d) (dense queries keys) other ltac:(lia)
      (mask_nodup _ _ (seq_NoDup _ _) (fun _ => seq_NoDup _ _)) Hother) as HLB.
    rewrite Nat.max_l, dense_pairs in HLB by auto. apply Nat.le_trans with (2 := HLB).
    pose proof (IOCounts.cdiv_spec queries Br HB) as [_ HT]. set (T := IOCounts.cdiv queries Br) in *.
    assert (HT' : (T - 1) * Br <= queries) by (destruct T; simpl; lia).
    apply Nat.le_trans with ((2 * d * Br) * ((T - 1) * (2 * (keys * (blocks * d))))).
    + apply Nat.mul_le_mono; [lia|]. destruct T as [|T]; [simpl; lia|]. replace (S T - 1) with T by lia.
      replace (blocks * (queries * d + S T * (keys * (d + d))) + blocks * (queries * d))
        with (T * (2 * (keys * (blocks * d))) + 2 * (queries + keys) * (blocks * d)) by ring. lia.
    + replace (2 * d * Br * ((T - 1) * (2 * (keys * (blocks * d)))))
        with (4 * (d * (blocks * d)) * ((T - 1) * Br * keys)) by ring.
      apply Nat.mul_le_mono_l, Nat.mul_le_mono_r, HT'.
Qed.
