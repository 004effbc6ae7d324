(** What the simulator's programs cost for the masks that people use, and which of them costs less.

    The theorems of Programs.v hold for every mask and leave its four sums over visible tiles open. Here the sums are
    worked out for the full and for the causal mask, and the totals of one head (q_len = kv_len = N, head_dim =
    value_dim = d, query tiles of Br rows, key tiles of Bc rows) are compared: the formulas of the FlashAttention papers
    with every constant, and the exact point from which FlashAttention-2 moves less than FlashAttention.

    Words are counted as thread blocks ask for them; an atomic add is a read and a write. Not claimed: that tiles of the
    sizes named fit into fast memory beside everything else a kernel keeps there. *)
From Coq Require Import Lia ZArith.
From IOAware Require Import IOCounts Programs Bands.

(** ** The full mask *)

Lemma sum_seen_all n f : sum_seen n (fun _ => true) f = sum n f.
Proof. reflexivity. Qed.

Section Full.
  Variables (q_len kv_len tile_q tile_kv : nat).
  Hypothesis (q_positive : 0 < tile_q) (kv_positive : 0 < tile_kv).

  Lemma full_tiles : seen_tiles full q_len kv_len tile_q tile_kv = cdiv q_len tile_q * cdiv kv_len tile_kv.
  Proof.
    etransitivity; [|apply sum_const]. apply sum_ext. intros. unfold full.
    rewrite sum_seen_all, sum_const. ring.
  Qed.
  Lemma full_rows : seen_rows full q_len kv_len tile_q tile_kv = q_len * cdiv kv_len tile_kv.
  Proof.
    rewrite <- (tiles_cover q_len tile_q q_positive) at 2. rewrite Nat.mul_comm, <- sum_mul_l.
    apply sum_ext. intros. unfold full. rewrite sum_seen_all. apply sum_const.
  Qed.
  Lemma full_cols : seen_cols full q_len kv_len tile_q tile_kv = cdiv q_len tile_q * kv_len.
  Proof.
    etransitivity; [|apply sum_const]. apply sum_ext. intros. unfold full.
    rewrite sum_seen_all. apply tiles_cover. assumption.
  Qed.
  Lemma full_cells : seen_cells full q_len kv_len tile_q tile_kv = q_len * kv_len.
  Proof.
    rewrite <- (tiles_cover q_len tile_q q_positive) at 2. rewrite Nat.mul_comm, <- sum_mul_l.
    apply sum_ext. intros. unfold full. rewrite sum_seen_all, sum_mul_l, tiles_cover by assumption. ring.
  Qed.
End Full.

(** The full mask's statistics are products: every query tile meets every key tile.
    Used by: simulator/ioaware/readers/formula.py (statistic_of_full). *)
Theorem full_statistics : forall q_len kv_len tile_q tile_kv,
  0 < tile_q -> 0 < tile_kv ->
  seen_tiles full q_len kv_len tile_q tile_kv = cdiv q_len tile_q * cdiv kv_len tile_kv /\
  seen_rows full q_len kv_len tile_q tile_kv = q_len * cdiv kv_len tile_kv /\
  seen_cols full q_len kv_len tile_q tile_kv = cdiv q_len tile_q * kv_len /\
  seen_cells full q_len kv_len tile_q tile_kv = q_len * kv_len.
Proof. auto using full_tiles, full_rows, full_cols, full_cells. Qed.

(** ** One head: N queries and keys of d numbers *)

Definition algorithm :=
  nat -> nat -> nat -> nat -> nat -> nat -> nat -> nat -> nat -> (nat -> nat -> bool) -> prog.

(* All words between memory and chip. *)
Definition traffic (program : algorithm) (N d Br Bc : nat) (mask : nat -> nat -> bool) : nat :=
  count words (program 1 1 1 N N d d Br Bc mask).

Ltac one_head counts :=
  intros; unfold traffic; rewrite counts by assumption; cbv zeta;
  rewrite ?full_tiles, ?full_rows, ?full_cols, ?full_cells by assumption; cbn [words]; ring.

(** Standard attention, forward: S and P cross between chip and memory four times, and the tiles of its two matrix
    products read Q, K and V again. *)
Theorem naive_traffic : forall N d Br Bc, 0 < Br -> 0 < Bc ->
  traffic naive N d Br Bc full = 4 * N * N + (1 + cdiv N Bc + 2 * cdiv N Br) * N * d.
Proof. one_head naive_counts. Qed.

(** Standard attention, backward. *)
Theorem naive_backward_traffic : forall N d Br Bc, 0 < Br -> 0 < Bc ->
  traffic naive_backward N d Br Bc full = 7 * N * N + (3 + 3 * cdiv N Bc + 2 * cdiv N Br) * N * d.
Proof. one_head naive_backward_counts. Qed.

(** FlashAttention, forward: O, l and m make a round trip per key tile. *)
Theorem flash1_traffic : forall N d Br Bc, 0 < Br -> 0 < Bc ->
  traffic flash1 N d Br Bc full = 3 * N * d + 2 * N + cdiv N Bc * (3 * N * d + 4 * N).
Proof. one_head flash1_counts. Qed.

(** FlashAttention, backward: dQ makes a round trip per key tile. *)
Theorem flash1_backward_traffic : forall N d Br Bc, 0 < Br -> 0 < Bc ->
  traffic flash1_backward N d Br Bc full = 7 * N * d + cdiv N Bc * (5 * N * d + 2 * N).
Proof. one_head flash1_backward_counts. Qed.

(** FlashAttention-2, forward: K and V are read once per query tile, all else once. *)
Theorem flash2_traffic : forall N d Br Bc, 0 < Br -> 0 < Bc ->
  traffic flash2 N d Br Bc full = 2 * N * d + N + 2 * cdiv N Br * N * d.
Proof. one_head flash2_counts. Qed.

(* The key rows kept at the turns: at every second turn, rounded up, the last key tile, at the others the first one. *)
Definition kept_rows (N Br Bc : nat) : nat :=
  let turns := cdiv N Br - 1 in
  cdiv turns 2 * tile N Bc (cdiv N Bc - 1) + (turns - cdiv turns 2) * tile N Bc 0.

(** FlashAttention-2, forward, keys walked back and forth: K and V are read once per query tile, less the key tile that
    is on chip already at each of the T_r - 1 turns.
    Used by: simulator/ioaware/algorithms/serpentine.py (flash2_serpentine). *)
Theorem flash2_serpentine_traffic : forall N d Br Bc, 0 < N -> 0 < Br -> 0 < Bc ->
  traffic flash2_serpentine N d Br Bc full + 2 * d * kept_rows N Br Bc = traffic flash2 N d Br Bc full.
Proof.
  intros N d Br Bc some query_rows key_rows. rewrite flash2_traffic by assumption. unfold traffic, kept_rows.
  pose proof (flash2_serpentine_counts words 1 1 1 N N d d Br Bc full query_rows key_rows some some) as counts.
  cbv zeta in *. cbn [words] in counts. rewrite tile_first, tile_last by assumption.
  pose proof (cdiv_spec N Br query_rows). pose proof (cdiv_spec (cdiv N Br - 1) 2 ltac:(lia)).
  set (first := Nat.min Bc N) in *. set (last := N + Bc - _) in *. set (T := cdiv N Br) in *.
  assert (0 < T) by (destruct T; lia). set (back := cdiv (T - 1) 2) in *. set (counted := count words _) in *.
  assert (T = 1 + back + (T - 1 - back)) as turns by lia. set (forth := T - 1 - back) in *. rewrite turns in *.
  clearbody counted first last back forth. lia.
Qed.

(** FlashAttention-2 walked back and forth never moves more than FlashAttention-2. *)
Theorem flash2_serpentine_at_most_flash2 : forall N d Br Bc, 0 < N -> 0 < Br -> 0 < Bc ->
  traffic flash2_serpentine N d Br Bc full <= traffic flash2 N d Br Bc full.
Proof. intros. rewrite <- (flash2_serpentine_traffic N d Br Bc) by assumption. lia. Qed.

(** FlashAttention-2, backward, dQ by atomic adds: Q, dO, L and D are read and dQ is added to once per key tile. *)
Theorem flash2_backward_traffic : forall N d Br Bc, 0 < Br -> 0 < Bc ->
  traffic flash2_backward N d Br Bc full = 9 * N * d + N + cdiv N Bc * (4 * N * d + 2 * N).
Proof. one_head flash2_backward_counts. Qed.

(** Split keys (Flash-Decoding) with the kernel that combines the parts: any lengths, any number of query heads on a
    key head. Keys are read once; the parts of O and L are written and read once per key tile. *)
Theorem split_kv_traffic : forall batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  count words (split_kv batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    batch * kv_heads * kv_len * (head_dim + value_dim)
  + batch * kv_heads * group * q_len * (value_dim + 1)
  + batch * kv_heads * group * q_len * cdiv kv_len tile_kv * (head_dim + 2 * value_dim + 2).
Proof. intros. rewrite split_kv_counts by assumption. cbn [words]. ring. Qed.

(** ** Comparisons *)

(** Standard attention is quadratic in the length, whatever its tiles. *)
Theorem naive_quadratic : forall N d Br Bc, 0 < Br -> 0 < Bc -> 4 * N * N <= traffic naive N d Br Bc full.
Proof. intros. rewrite naive_traffic by assumption. lia. Qed.

Lemma cdiv_whole N : 0 < N -> cdiv N N = 1.
Proof. intros positive. pose proof (cdiv_spec N N positive). nia. Qed.

(** With one tile per sequence, each of standard attention's kernels reads its inputs once: the paper's count. *)
Theorem naive_whole : forall N d, 0 < N ->
  traffic naive N d N N full = 4 * N * N + 4 * N * d /\
  traffic naive_backward N d N N full = 7 * N * N + 8 * N * d.
Proof.
  intros N d positive. rewrite naive_traffic, naive_backward_traffic, cdiv_whole by assumption. split; ring.
Qed.

(** FlashAttention-2 moves no more than FlashAttention if it has no more query tiles than the other has key tiles. *)
Theorem flash2_at_most_flash1 : forall N d Br Bc Br1 Bc1,
  0 < Br -> 0 < Bc -> 0 < Br1 -> 0 < Bc1 -> cdiv N Br <= cdiv N Bc1 ->
  traffic flash2 N d Br Bc full <= traffic flash1 N d Br1 Bc1 full.
Proof.
  intros N d Br Bc Br1 Bc1 **. rewrite flash1_traffic, flash2_traffic by assumption.
  set (T2 := cdiv N Br) in *. set (T1 := cdiv N Bc1) in *.
  assert (T2 * (N * d) <= T1 * (N * d)) by (apply Nat.mul_le_mono_r; assumption). nia.
Qed.

(** The exact crossover: FlashAttention-2 with T2 query tiles moves no more than FlashAttention with T1 key tiles if and
    only if 2 T2 d <= d + 1 + T1 (3 d + 4). With small query tiles it can lose. *)
Theorem flash2_flash1_crossover : forall N d Br Bc Br1 Bc1,
  0 < N -> 0 < Br -> 0 < Bc -> 0 < Br1 -> 0 < Bc1 ->
  traffic flash2 N d Br Bc full <= traffic flash1 N d Br1 Bc1 full <->
  2 * cdiv N Br * d <= d + 1 + cdiv N Bc1 * (3 * d + 4).
Proof.
  intros N d Br Bc Br1 Bc1 **. rewrite flash1_traffic, flash2_traffic by assumption.
  set (T2 := cdiv N Br). set (T1 := cdiv N Bc1).
  replace (2 * N * d + N + 2 * T2 * N * d) with (N * (2 * d + 1 + 2 * T2 * d)) by ring.
  replace (3 * N * d + 2 * N + T1 * (3 * N * d + 4 * N)) with (N * (3 * d + 2 + T1 * (3 * d + 4))) by ring.
  rewrite <- Nat.mul_le_mono_pos_l by assumption. lia.
Qed.

(* M words hold [share] tiles, so M times the number of tiles is at most [share] times the length, and one tile more. *)
Lemma tiles_times_memory N tile M share : 0 < tile -> M <= share * tile -> cdiv N tile * M <= share * N + M.
Proof.
  intros positive fits. pose proof (cdiv_spec N tile positive) as [_ few]. set (T := cdiv N tile) in *.
  destruct T as [|T]; [lia|].
  assert (T * tile <= N) by nia.
  assert (T * M <= T * (share * tile)) by (apply Nat.mul_le_mono_l; assumption).
  assert (share * (T * tile) <= share * N) by (apply Nat.mul_le_mono_l; assumption).
  nia.
Qed.

(** FlashAttention's Theorem 2 with every constant: with the paper's key tiles of ceil(M / 4 d) rows for M words of fast
    memory, M times the traffic is at most 12 M N d + 28 (N d)^2. *)
Theorem flash1_upper_bound : forall N d M Br, 0 < d -> 0 < M -> 0 < Br ->
  M * traffic flash1 N d Br (cdiv M (4 * d)) full <= 12 * M * (N * d) + 28 * (N * d) * (N * d).
Proof.
  intros N d M Br Hd HM HBr.
  pose proof (cdiv_spec M (4 * d) ltac:(lia)) as [fits _]. set (Bc := cdiv M (4 * d)) in *.
  assert (HBc : 0 < Bc) by (destruct Bc; lia).
  rewrite flash1_traffic by assumption.
  pose proof (tiles_times_memory N Bc M (4 * d) HBc ltac:(lia)). set (T := cdiv N Bc) in *.
  assert (HN : N <= N * d) by nia.
  replace (M * (3 * N * d + 2 * N + T * (3 * N * d + 4 * N)))
    with (M * (3 * (N * d) + 2 * N) + T * M * (3 * (N * d) + 4 * N)) by ring.
  replace (4 * d * N) with (4 * (N * d)) in * by ring. set (x := N * d) in *.
  assert (T * M * (3 * x + 4 * N) <= (4 * x + M) * (7 * x)) by (apply Nat.mul_le_mono; lia).
  assert (M * (3 * x + 2 * N) <= M * (5 * x)) by (apply Nat.mul_le_mono_l; lia).
  lia.
Qed.

(** FlashAttention's Theorem 5, the backward pass, with the same tiles: at most 14 M N d + 28 (N d)^2. *)
Theorem flash1_backward_upper_bound : forall N d M Br, 0 < d -> 0 < M -> 0 < Br ->
  M * traffic flash1_backward N d Br (cdiv M (4 * d)) full <= 14 * M * (N * d) + 28 * (N * d) * (N * d).
Proof.
  intros N d M Br Hd HM HBr.
  pose proof (cdiv_spec M (4 * d) ltac:(lia)) as [fits _]. set (Bc := cdiv M (4 * d)) in *.
  assert (HBc : 0 < Bc) by (destruct Bc; lia).
  rewrite flash1_backward_traffic by assumption.
  pose proof (tiles_times_memory N Bc M (4 * d) HBc ltac:(lia)). set (T := cdiv N Bc) in *.
  assert (HN : N <= N * d) by nia.
  replace (M * (7 * N * d + T * (5 * N * d + 2 * N)))
    with (M * (7 * (N * d)) + T * M * (5 * (N * d) + 2 * N)) by ring.
  replace (4 * d * N) with (4 * (N * d)) in * by ring. set (x := N * d) in *.
  assert (T * M * (5 * x + 2 * N) <= (4 * x + M) * (7 * x)) by (apply Nat.mul_le_mono; lia).
  lia.
Qed.

(** FlashAttention-2 with query tiles of at least M / 8 d rows: M times the traffic is at most 5 M N d + 16 (N d)^2. *)
Theorem flash2_upper_bound : forall N d M Br Bc, 0 < d -> 0 < Br -> 0 < Bc -> M <= 8 * d * Br ->
  M * traffic flash2 N d Br Bc full <= 5 * M * (N * d) + 16 * (N * d) * (N * d).
Proof.
  intros N d M Br Bc Hd HBr HBc fits. rewrite flash2_traffic by assumption.
  pose proof (tiles_times_memory N Br M (8 * d) HBr fits). set (T := cdiv N Br) in *.
  assert (HN : N <= N * d) by nia.
  replace (M * (2 * N * d + N + 2 * T * N * d)) with (M * (2 * (N * d) + N) + T * M * (2 * (N * d))) by ring.
  replace (8 * d * N) with (8 * (N * d)) in * by ring. set (x := N * d) in *.
  assert (T * M * (2 * x) <= (8 * x + M) * (2 * x)) by (apply Nat.mul_le_mono_r; lia).
  assert (M * (2 * x + N) <= M * (3 * x)) by (apply Nat.mul_le_mono_l; lia).
  lia.
Qed.

(** ** Grouped queries *)

(** In FlashAttention-2 every query head reads the keys for itself: sharing one key head among a group of query heads
    shrinks the tensor K, not the words that thread blocks ask for. *)
Theorem flash2_reads_keys_per_query_head :
  forall batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv, 0 < tile_q -> 0 < tile_kv ->
  count (only (Read "K")) (flash2 batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv full) =
    batch * (kv_heads * group) * cdiv q_len tile_q * (kv_len * head_dim).
Proof. intros. rewrite flash2_counts by assumption. cbv zeta. rewrite full_cols by assumption. cbn. ring. Qed.

(** Split keys read each key once for all the query heads of its group. *)
Theorem split_kv_reads_keys_once :
  forall batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees, 0 < tile_q -> 0 < tile_kv ->
  count (only (Read "K")) (split_kv batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    batch * kv_heads * (kv_len * head_dim).
Proof. intros. rewrite split_kv_counts by assumption. cbn. ring. Qed.

(** ** The causal mask, aligned at its last query and key as FlashAttention-2 aligns it *)

(* Key tile j begins before the last key that the last row of query tile i sees. *)
Definition causal (q_len kv_len tile_q tile_kv i j : nat) : bool :=
  j * tile_kv + q_len <? Nat.min q_len ((i + 1) * tile_q) + kv_len.

(** A tile pair is visible if and only if some query q of the one sees some key k of the other: k + q_len <= q + kv_len.
    Used by: simulator/ioaware/masks/band.py (Band.pattern). *)
Theorem causal_by_elements : forall q_len kv_len tile_q tile_kv i j,
  0 < tile_q -> 0 < tile_kv -> i * tile_q < q_len -> j * tile_kv < kv_len ->
  causal q_len kv_len tile_q tile_kv i j = true <->
  exists q k, i * tile_q <= q < Nat.min q_len ((i + 1) * tile_q) /\
              j * tile_kv <= k < Nat.min kv_len ((j + 1) * tile_kv) /\ k + q_len <= q + kv_len.
Proof.
  intros. unfold causal. rewrite Nat.ltb_lt, !Nat.mul_add_distr_r. split.
  - intros. exists (Nat.min q_len ((i + 1) * tile_q) - 1), (j * tile_kv). lia.
  - intros (q & k & ? & ? & ?). lia.
Qed.

(** The causal mask is the band that ends with the query's own key: the statistics of bands are the causal mask's too.
    Used by: simulator/ioaware/masks/band.py (CAUSAL). *)
Theorem causal_is_a_band : forall q_len kv_len tile_q tile_kv i j, 0 < tile_q -> i * tile_q < q_len ->
  causal q_len kv_len tile_q tile_kv i j = band_sees None (Some 0) q_len kv_len tile_q tile_kv i j.
Proof.
  intros. unfold causal, band_sees, rows_see, not_before, not_after, last_key, tile. rewrite Nat.mul_add_distr_r.
  apply Bool.eq_true_iff_eq. simpl andb. rewrite Nat.ltb_lt, Z.leb_le. lia.
Qed.

Lemma cdiv_le length step k : 0 < step -> cdiv length step <= k <-> length <= k * step.
Proof. intros positive. pose proof (cdiv_spec length step positive). split; nia. Qed.

(* The tiles that begin before position x are as many as cover the positions before x. *)
Lemma tiles_before n step x : 0 < step ->
  sum_seen n (fun j => j * step <? x) (fun _ => 1) = Nat.min n (cdiv x step).
Proof.
  intros positive. induction n as [|n IH]; [reflexivity|].
  unfold sum_seen in *. cbn [sum]. rewrite IH. pose proof (cdiv_le x step n positive).
  destruct (Nat.ltb_spec (n * step) x); lia.
Qed.

Lemma sum_seen_same n s t f : (forall j, j < n -> s j = t j) -> sum_seen n s f = sum_seen n t f.
Proof. intros same. apply sum_ext. intros j Hj. rewrite same; auto. Qed.

(** Causal tile skipping: query tile i visits exactly the key tiles that hold the keys its last row sees. *)
Theorem causal_visible_tiles : forall q_len kv_len tile_q tile_kv i,
  0 < tile_kv -> q_len <= kv_len ->
  sum_seen (cdiv kv_len tile_kv) (causal q_len kv_len tile_q tile_kv i) (fun _ => 1) =
  cdiv (Nat.min q_len ((i + 1) * tile_q) + (kv_len - q_len)) tile_kv.
Proof.
  intros q_len kv_len tile_q tile_kv i positive longer.
  set (x := Nat.min q_len ((i + 1) * tile_q) + (kv_len - q_len)).
  rewrite (sum_seen_same _ _ (fun j => j * tile_kv <? x)).
  - rewrite tiles_before by assumption. apply Nat.min_r.
    apply cdiv_le; [assumption|]. pose proof (cdiv_spec kv_len tile_kv positive). unfold x. lia.
  - intros j _. unfold causal, x. apply Bool.eq_true_iff_eq. rewrite !Nat.ltb_lt. lia.
Qed.

Section Square.
  (* T tiles of B rows on both sides *)
  Variables (T B : nat).
  Hypothesis (positive : 0 < B).
  Let mask := causal (T * B) (T * B) B B.

  Lemma cdiv_exact k : cdiv (k * B) B = k.
  Proof. pose proof (cdiv_spec (k * B) B positive). nia. Qed.

  Lemma tile_whole i : i < T -> tile (T * B) B i = B.
  Proof. intros. unfold tile. apply Nat.min_l. nia. Qed.

  Lemma square_visible i : i < T -> sum_seen T (mask i) (fun _ => 1) = i + 1.
  Proof.
    intros inside. pose proof (causal_visible_tiles (T * B) (T * B) B B i positive (le_n _)) as visible.
    rewrite cdiv_exact in visible. unfold mask. rewrite visible.
    rewrite Nat.min_r by nia. replace (T * B - T * B) with 0 by lia. rewrite Nat.add_0_r. apply cdiv_exact.
  Qed.

  Lemma triangle n : 2 * sum n (fun i => i + 1) = n * (n + 1).
  Proof. induction n; simpl sum; lia. Qed.

  Lemma square_tiles : 2 * seen_tiles mask (T * B) (T * B) B B = T * (T + 1).
  Proof.
    unfold seen_tiles, over_pairs. rewrite cdiv_exact, (sum_ext _ _ (fun i => i + 1)) by apply square_visible.
    apply triangle.
  Qed.

  Lemma square_cols : seen_cols mask (T * B) (T * B) B B = B * seen_tiles mask (T * B) (T * B) B B.
  Proof.
    unfold seen_cols, seen_tiles, over_pairs. rewrite cdiv_exact, <- sum_mul_l. apply sum_ext. intros i _.
    rewrite <- sum_seen_mul_l. apply sum_seen_ext. intros j inside. rewrite tile_whole by assumption. ring.
  Qed.

  Lemma square_rows : seen_rows mask (T * B) (T * B) B B = B * seen_tiles mask (T * B) (T * B) B B.
  Proof.
    unfold seen_rows, seen_tiles, over_pairs. rewrite cdiv_exact, <- sum_mul_l. apply sum_ext. intros i inside.
    rewrite <- sum_seen_mul_l. apply sum_seen_ext. intros. rewrite tile_whole by assumption. ring.
  Qed.
End Square.

(** With T tiles of B rows on both sides, the causal mask lets T (T + 1) / 2 of the T^2 pairs of tiles through. *)
Theorem causal_pairs : forall T B, 0 < B ->
  2 * seen_tiles (causal (T * B) (T * B) B B) (T * B) (T * B) B B = T * (T + 1).
Proof. exact square_tiles. Qed.

(** Causal FlashAttention-2 with T tiles of B rows on both sides (N = T B) moves 2 N d + N + (T + 1) N d words, where
    the full mask moves 2 N d + N + 2 T N d: reading K and V costs about half. *)
Theorem flash2_causal_traffic : forall T B d, 0 < B ->
  let N := T * B in
  traffic flash2 N d B B (causal N N B B) = 2 * N * d + N + (T + 1) * N * d.
Proof.
  intros T B d positive N. unfold traffic, N. rewrite flash2_counts by assumption. cbv zeta. cbn [words].
  rewrite square_cols by assumption. pose proof (square_tiles T B positive) as pairs.
  set (S := seen_tiles _ _ _ _ _) in *.
  transitivity (2 * (T * B) * d + T * B + B * d * (2 * S)); [ring|]. rewrite pairs. ring.
Qed.

(** Causal FlashAttention with T tiles of B rows on both sides: Q is read again, and O, l and m make their round trips,
    for visible tiles only. *)
Theorem flash1_causal_traffic : forall T B d, 0 < B ->
  let N := T * B in
  2 * traffic flash1 N d B B (causal N N B B) = 6 * N * d + 4 * N + (T + 1) * (3 * N * d + 4 * N).
Proof.
  intros T B d positive N. unfold traffic, N. rewrite flash1_counts by assumption. cbv zeta. cbn [words].
  rewrite square_rows by assumption. pose proof (square_tiles T B positive) as pairs.
  set (S := seen_tiles _ _ _ _ _) in *.
  transitivity (6 * (T * B) * d + 4 * (T * B) + B * (3 * d + 4) * (2 * S)); [ring|]. rewrite pairs. ring.
Qed.
