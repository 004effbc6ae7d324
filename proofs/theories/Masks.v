(** The lower bound for the usual masks, with the number of visible pairs written out.

    Outputs.v has the bound for any set E of visible pairs. Here E is counted for dense attention, causal attention
    (with keys that precede the first query, as in decoding from a cache), sliding windows, and grouped queries. All
    statements are for d = head dimension of Q, K and V, and for M >= 4 d^2; for other M and dimensions take E from here
    and the bound from Outputs.v. *)
From Coq Require Import List Arith Lia.
From IOAware Require Import Machine Counting Outputs.
Import ListNotations.

(** The operations os compute attention on the pairs E: they start with an empty fast memory and no outputs in slow
    memory, are legal, and write all outputs. *)
Definition attention_run M d dv E os :=
  exists m ss, legal_run M d ([], m) os ss /\ no_outputs m /\ writes_outputs dv E (map snd ss).

(** Pairs by query row: row i < n sees the keys in columns i. *)
Definition visible (n : nat) (columns : nat -> list nat) : list (nat * nat) := mask (seq 0 n) columns.

Definition dense (queries keys : nat) := visible queries (fun _ => seq 0 keys).
(** Query row i is at position i + before and sees all keys up to its own position. *)
Definition causal (queries before : nat) := visible queries (fun i => seq 0 (S (i + before))).
(** Row i sees its own key and those just before it, w keys in all, or as many as there are. *)
Definition window (n w : nat) := visible n (fun i => seq (S i - w) (Nat.min w (S i))).
(** Grouped queries: h key heads of n keys each; each serves g query heads of n rows. *)
Definition grouped (h g n : nat) := visible (h * (g * n)) (fun i => seq (i / (g * n) * n) n).

Lemma visible_step n columns : length (visible (S n) columns) = length (visible n columns) + length (columns n).
Proof. unfold visible, mask. rewrite seq_S, flat_map_app, app_length. simpl. now rewrite app_nil_r, map_length. Qed.

Lemma dense_pairs q n : length (dense q n) = q * n.
Proof. induction q as [|q IH]; [auto|]. unfold dense in *. rewrite visible_step, IH, seq_length. lia. Qed.

Lemma causal_pairs q b : 2 * length (causal q b) = q * (q + 1) + 2 * (q * b).
Proof. induction q as [|q IH]; [auto|]. unfold causal in *. rewrite visible_step, seq_length. lia. Qed.

Lemma window_pairs n w : w <= n -> 2 * length (window n w) + w * w = w * (2 * n + 1).
Proof.
  assert (H : 2 * length (window n w) + Nat.min n w * Nat.min n w = Nat.min n w * (2 * n + 1)).
  { induction n as [|n IH]; [auto|]. unfold window in *. rewrite visible_step, seq_length.
    destruct (le_lt_dec w n) as [L|L].
    - rewrite !Nat.min_r in * by lia. rewrite (Nat.min_l w) by lia. lia.
    - rewrite (Nat.min_l n), (Nat.min_l (S n)), (Nat.min_r w) in * by lia. lia. }
  intros L. now rewrite Nat.min_r in H.
Qed.

Lemma grouped_pairs h g n : length (grouped h g n) = h * (g * n) * n.
Proof.
  unfold grouped. generalize (h * (g * n)) as q. induction q as [|q IH]; [auto|].
  rewrite visible_step, IH, seq_length. lia.
Qed.

Lemma visible_lower_bound M d n columns os : 0 < d -> 4 * (d * d) <= M -> (forall i, NoDup (columns i)) ->
  attention_run M d d (visible n columns) os -> d * d * (2 * length (visible n columns)) <= (loads os + M) * M.
Proof.
  intros Hd HM Hc (m & ss & Hr & Hm & HO). assert (0 < d * d) by (now apply Nat.mul_pos_pos).
  pose proof (outputs_lower_bound M d d m os ss (visible n columns) Hd ltac:(lia) Hr Hm
    (mask_nodup _ _ (seq_NoDup _ _) Hc) HO) as B.
  rewrite Nat.max_l in B by lia. lia.
Qed.

(** Dense attention with any numbers of queries and keys: 2 d^2 queries keys <= (loads + M) M, so that
    loads >= 2 N^2 d^2 / M - M for N queries and N keys. *)
Theorem dense_lower_bound M d queries keys os : 0 < d -> 4 * (d * d) <= M ->
  attention_run M d d (dense queries keys) os -> d * d * (2 * (queries * keys)) <= (loads os + M) * M.
Proof.
  intros Hd HM H. rewrite <- (dense_pairs queries keys). apply visible_lower_bound; auto using seq_NoDup.
Qed.

(** Causal attention, where keys in number "before" precede the first query (0 if there are as many keys as queries):
    d^2 (queries (queries + 1) + 2 queries before) <= (loads + M) M. *)
Theorem causal_lower_bound M d queries before os : 0 < d -> 4 * (d * d) <= M ->
  attention_run M d d (causal queries before) os ->
  d * d * (queries * (queries + 1) + 2 * (queries * before)) <= (loads os + M) * M.
Proof.
  intros Hd HM H. rewrite <- (causal_pairs queries before). apply visible_lower_bound; auto using seq_NoDup.
Qed.

(** Causal attention with a sliding window of w keys over N rows: d^2 w (2 N + 1 - w) <= (loads + M) M. *)
Theorem window_lower_bound M d N w os : 0 < d -> 4 * (d * d) <= M -> w <= N ->
  attention_run M d d (window N w) os -> d * d * (w * (2 * N + 1 - w)) <= (loads os + M) * M.
Proof.
  intros Hd HM Hw H. replace (w * (2 * N + 1 - w)) with (2 * length (window N w)).
  - apply visible_lower_bound; auto using seq_NoDup.
  - pose proof (window_pairs N w Hw). rewrite Nat.mul_sub_distr_l. lia.
Qed.

(** Grouped queries, dense: G query heads read the same N keys, H times over: 2 d^2 H G N^2 <= (loads + M) M. That the
    heads share keys does not lower the bound: it counts scores. *)
Theorem grouped_lower_bound M d H G N os : 0 < d -> 4 * (d * d) <= M ->
  attention_run M d d (grouped H G N) os -> d * d * (2 * (H * (G * N) * N)) <= (loads os + M) * M.
Proof.
  intros Hd HM Hr. rewrite <- (grouped_pairs H G N). apply visible_lower_bound; auto using seq_NoDup.
Qed.
