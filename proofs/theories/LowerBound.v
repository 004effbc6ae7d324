(** Lower bounds on the loads of exact attention, forward.

    Let E be the visible pairs (i, j) of query rows and keys: all of them, or those that a causal, sliding-window or any
    other mask leaves, over as many heads as share the fast memory. Let d be the length of a row of Q and K, dv the
    length of a row of V, and M the words of fast memory. Then a run of the machine of Machine.v that starts with an
    empty fast memory and forms every product p_ij v_jk of visible pairs has

        d (d + dv) |E| <= (loads + M) * max (M, 2 d (d + dv)),

    so, for dv = d and M >= 4 d^2, at least 2 d^2 |E| / M - M loads. This holds for any order and tiling, any
    recomputation, any number of unfinished sums, and whatever the slow memory holds at the start, saved scores too.

    It does not hold for algorithms that use other algebra than adding up products, or that approximate. It is void when
    everything fits into fast memory; then Compulsory.v says what must be loaded. For M below 2 d (d + dv) it is true,
    but weak. It counts the traffic of one fast memory, not that of a cache shared by several (see Parallel.v). *)
From Coq Require Import List Arith Lia.
From IOAware Require Import Machine Counting.
Import ListNotations.

Section Bounds.
Variables (M d : nat).

Lemma complete_from p n W i j c : complete n p i j c -> (forall w, In w c -> from W w) ->
  continued W (i, j) \/ forall a, a < n -> In (Left p i a) W /\ In (Right p j a) W.
Proof.
  intros (A & HA & Hfull) Hc. destruct (Hc _ HA) as [(B & HB)|H].
  - left. now exists p, B.
  - right. intros a Ha. apply H, Hfull, Ha.
Qed.

(** Scores alone: a run that finishes the score of every pair of E has d^2 |E| <= (loads + M) * max (M, 2 d^2). *)
Theorem score_lower_bound os cs E : 0 < d -> 0 < M -> run M d [] os cs -> NoDup E ->
  (forall e, In e E -> exists c, In c cs /\ complete d QK (fst e) (snd e) c) ->
  d * d * length E <= (loads os + M) * Nat.max M (2 * (d * d)).
Proof.
  intros _ HM Hr HE H. rewrite <- (Nat.mul_1_l ((loads os + M) * _)).
  apply (bound_from_words (fun e => complete d QK (fst e) (snd e)) M d (d * d) 1 os cs E); auto.
  clear. intros W E HE H. rewrite Nat.mul_1_l.
  pose proof (count_pairs (fun p => match p with QK => d | GV => 0 end) W E HE) as B. simpl in B.
  rewrite Nat.add_0_r in B. apply B. intros e He. destruct (H e He) as (c & Hc & Hw).
  destruct (complete_from _ _ _ _ _ _ Hw Hc) as [L|R]; [left; now destruct e|right]. intros [] a Ha; [auto|lia].
Qed.

(** Any set E of products p_ij v_jk with k < dv, each formed at some time of the run:
    d (d + dv) |E| <= dv (loads + M) * max (M, 2 d (d + dv)). *)
Theorem products_lower_bound dv os cs E : 0 < M -> run M d [] os cs -> NoDup E ->
  (forall e k, In (e, k) E -> k < dv /\ exists c, In c cs /\ used d (e, k) c) ->
  d * (d + dv) * length E <= dv * ((loads os + M) * Nat.max M (2 * (d * (d + dv)))).
Proof.
  intros HM Hr HE H.
  apply (bound_from_words (fun e c => snd e < dv /\ used d e c) M d (d * (d + dv)) dv os cs E); auto.
  - clear. intros W E HE H. apply (count_products d dv W E HE). intros [i j] k He.
    destruct (H _ He) as (c & Hc & Hk & Hs & HV). split; [auto|]. split; [exact (Hc _ HV)|].
    exact (complete_from _ _ _ _ _ _ Hs Hc).
  - intros [e k] He. destruct (H _ _ He) as (Hk & c & Hc & Hu). now exists c.
Qed.

(** Attention with rows of Q and K of d words and rows of V of dv words: if every product p_ij v_jk of the pairs E is
    formed at some time of the run, then d (d + dv) |E| <= (loads + M) * max (M, 2 d (d + dv)).
    Used by: simulator/ioaware/bounds.py (lower_bound). *)
Theorem attention_lower_bound_dims dv os cs E : 0 < dv -> 0 < M -> run M d [] os cs -> NoDup E ->
  (forall e k, In e E -> k < dv -> exists c, In c cs /\ used d (e, k) c) ->
  d * (d + dv) * length E <= (loads os + M) * Nat.max M (2 * (d * (d + dv))).
Proof.
  intros Hdv HM Hr HE H.
  assert (B : d * (d + dv) * length (list_prod E (seq 0 dv)) <=
              dv * ((loads os + M) * Nat.max M (2 * (d * (d + dv))))).
  { apply (products_lower_bound dv os cs); auto using product_nodup, seq_NoDup.
    intros e k Hin. apply in_prod_iff in Hin. rewrite in_seq in Hin. split; [lia|apply H; [apply Hin|lia]]. }
  rewrite prod_length, seq_length in B. apply (Nat.mul_le_mono_pos_l _ _ dv Hdv).
  now replace (dv * (d * (d + dv) * length E)) with (d * (d + dv) * (length E * dv)) by ring.
Qed.

(** The same for dv = d: 2 d^2 |E| <= (loads + M) * max (M, 4 d^2). *)
Theorem attention_lower_bound os cs E : 0 < d -> 0 < M -> run M d [] os cs -> NoDup E ->
  (forall e k, In e E -> k < d -> exists c, In c cs /\ used d (fst e, snd e, k) c) ->
  2 * (d * d * length E) <= (loads os + M) * Nat.max M (4 * (d * d)).
Proof.
  intros Hd HM Hr HE H.
  replace (2 * (d * d * length E)) with (d * (d + d) * length E) by ring.
  replace (4 * (d * d)) with (2 * (d * (d + d))) by ring.
  apply (attention_lower_bound_dims d os cs); auto. intros [i j] k. apply H.
Qed.
End Bounds.
