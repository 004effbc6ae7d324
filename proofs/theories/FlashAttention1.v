(** Normalised outputs: FlashAttention-1's update and the combination of split-KV partial outputs.

    FlashAttention-2 divides by l once, after its loop; OnlineSoftmax.v is about such un-normalised statistics.
    FlashAttention-1 keeps its output divided by the running l in slow memory, and split-KV decoding (Flash-Decoding)
    combines partial outputs that are already divided, each with its own L = m + log l. Proved: FlashAttention-1's
    update, as the paper prints it and as the simulator's program computes it, is the merge of OnlineSoftmax.v followed
    by a division, so that its loop over any key blocks computes attention; attention over partial outputs O_j, with
    their L_j as scores, is attention over all keys, so that split-KV decoding computes attention, and the same L as
    FlashAttention-2. Masked keys, masked blocks and masked rows are included.

    Not claimed: anything about rounding, which treats normalised and un-normalised forms differently. *)

From Coq Require Import Reals Lra List FunctionalExtensionality.
From IOAware Require Import OnlineSoftmax.
Import ListNotations.
Local Open Scope R_scope.

(** * FlashAttention-1 *)

(** A state (m, l, O) of FlashAttention-1: the third entry is divided by l. *)
Definition normalise (s : state) : state := let 'State m l acc := s in State m l (fun c => acc c / l).

(** Algorithm 1 of the paper, lines 10 to 13, with m', l' and P' the block's own maximum, sum and exponentials:
      m_new = max(m, m'),   l_new = e^(m - m_new) l + e^(m' - m_new) l',
      O_new = diag(l_new)^-1 (diag(l) e^(m - m_new) O + e^(m' - m_new) P' V). *)
Definition flash1_paper_step (s : state) (block : list key) : state :=
  let 'State m l out := s in
  let m' := rowmax block in
  let l' := rowsum m' block in
  let m_new := ext_max m m' in
  let l_new := exp_minus m m_new * l + exp_minus m' m_new * l' in
  State m_new l_new (fun c => / l_new * (l * exp_minus m m_new * out c + exp_minus m' m_new * PV m' block c)).

(** The same iteration as the simulator's flash1 has it: the exponentials are taken at m_new at once. *)
Definition flash1_step (s : state) (block : list key) : state :=
  let 'State m l out := s in
  let m_new := ext_max m (rowmax block) in
  let old := exp_minus m m_new * l in
  let l_new := old + rowsum m_new block in
  State m_new l_new (fun c => (old * out c + PV m_new block c) / l_new).

Definition flash1 (blocks : list (list key)) : state := fold_left flash1_step blocks empty.

(** The simulator's program and the paper's lines 10 to 13 are the same function of the state and the block.
    Used by: simulator/ioaware/algorithms/flash1.py (flash1). *)
Theorem flash1_step_is_paper_step s block : flash1_step s block = flash1_paper_step s block.
Proof.
  destruct s as [m l out]; simpl. unfold rowsum, PV.
  apply state_eq; intros; auto; rewrite ?weighted_rescale by (apply rowmax_covers); auto. unfold Rdiv; ring.
Qed.

(** FlashAttention-1's update is the merge of un-normalised statistics, normalised: dividing by l and merging commute.
    The state must be a possible one: where l is 0, no key was visible and the accumulator is 0. *)
Theorem flash1_step_is_normalised_merge s block :
  (l_of s = 0 -> forall c, acc_of s c = 0) ->
  flash1_step (normalise s) block = normalise (merge s (block_state block)).
Proof.
  destruct s as [m l acc]; simpl; intros H. unfold rowsum, PV.
  apply state_eq; intros; auto; rewrite !weighted_rescale by (apply rowmax_covers); auto.
  f_equal; f_equal. destruct (Req_dec l 0) as [->|E]; [rewrite H by auto; unfold Rdiv; ring | field; auto].
Qed.

Lemma block_state_possible keys : l_of (block_state keys) = 0 -> forall c, acc_of (block_state keys) c = 0.
Proof.
  unfold block_state; simpl. destruct (rowmax keys) as [|x] eqn:E; intros H c; [apply weighted_hidden|].
  pose proof (rowsum_at_least_1 _ _ E); lra.
Qed.

Lemma flash1_from a blocks :
  fold_left flash1_step blocks (normalise (block_state a)) = normalise (block_state (a ++ concat blocks)).
Proof.
  revert a; induction blocks as [|b blocks IH]; intros a; cbn [fold_left concat]; [now rewrite app_nil_r|].
  rewrite flash1_step_is_normalised_merge by (apply block_state_possible).
  now rewrite <- block_state_app, IH, app_assoc.
Qed.

(** FlashAttention-1's forward pass over any list of key blocks: the output is attention, m the largest score of the
    row, and l the sum of exp(s_j - m).
    Used by: simulator/ioaware/algorithms/flash1.py (flash1). *)
Theorem flash1_computes_attention blocks :
  let 'State m l out := flash1 blocks in
  let keys := concat blocks in
  out = attention keys /\ m = rowmax keys /\ l = rowsum m keys.
Proof.
  assert (E : flash1 blocks = normalise (block_state (concat blocks))).
  { transitivity (fold_left flash1_step blocks (normalise (block_state []))); [|apply (flash1_from [])].
    unfold flash1; f_equal. apply state_eq; intros; auto. unfold PV, weighted; simpl; unfold Rdiv; ring. }
  rewrite E; simpl. repeat split. apply (output_state_at (rowmax (concat blocks))), rowmax_covers.
Qed.

(** * Split-KV *)

(** What the first kernel of split-KV decoding stores for a split of the keys: a normalised output and its L. They take
    the places of a value row and a score. *)
Definition partial (split : list key) : key :=
  let s := block_state split in Key (logsumexp s) (output s).

(** One iteration of the second kernel. *)
Definition combine_step (s : state) (part : key) : state :=
  let 'State m l acc := s in
  let m_new := ext_max m (score part) in
  let w := exp_minus (score part) m_new in
  let alpha := exp_minus m m_new in
  State m_new (alpha * l + w) (fun c => alpha * acc c + w * value part c).

Definition split_kv (splits : list (list key)) : state := fold_left combine_step (map partial splits) empty.

Lemma combine_is_flash2 parts s : fold_left combine_step parts s = fold_left flash2_step (map (fun k => [k]) parts) s.
Proof.
  revert s; induction parts as [|k parts IH]; intros [m l acc]; simpl; auto. rewrite <- IH. f_equal.
  destruct (score k) eqn:E; simpl; unfold rowsum, PV, weighted; simpl; rewrite ?E;
    apply state_eq; intros; auto; ring.
Qed.

Lemma split_kv_block_state splits : split_kv splits = block_state (map partial splits).
Proof.
  unfold split_kv. rewrite combine_is_flash2. fold (flash2 (map (fun k => [k]) (map partial splits))).
  rewrite flash2_block_state. f_equal. induction (map partial splits); simpl; congruence.
Qed.

Lemma total_cons f k keys : total f (k :: keys) = f k + total f keys.
Proof. reflexivity. Qed.

Lemma partial_sum splits :
  total (fun k => ext_exp (score k)) (map partial splits) = total (fun k => ext_exp (score k)) (concat splits).
Proof.
  induction splits as [|split splits IH]; cbn [map concat]; auto.
  rewrite total_app, total_cons, <- IH, <- (exp_logsumexp split). reflexivity.
Qed.

Lemma partial_values splits c :
  total (fun k => ext_exp (score k) * value k c) (map partial splits) =
  total (fun k => ext_exp (score k) * value k c) (concat splits).
Proof.
  induction splits as [|split splits IH]; cbn [map concat]; auto.
  rewrite total_app, total_cons, <- IH. f_equal.
  unfold partial; cbn [score value]. rewrite exp_logsumexp, <- (rowsum_total (rowmax split)) by (apply rowmax_covers).
  rewrite <- (weighted_total (rowmax split)) by (apply rowmax_covers).
  unfold output; cbn [acc_of l_of block_state state_at].
  destruct (rowmax split) as [|x] eqn:E; [simpl; ring|].
  pose proof (rowsum_at_least_1 _ _ E). unfold PV; field; lra.
Qed.

(** Attention over partial outputs is attention over all keys: take the normalised outputs O_j of any splits as value
    rows, and their L_j as scores. A split without visible keys has L_j minus infinity and no weight. *)
Theorem attention_over_partial_outputs splits : attention (map partial splits) = attention (concat splits).
Proof.
  apply functional_extensionality; intro c. unfold attention. now rewrite partial_sum, partial_values.
Qed.

Lemma ext_exp_injective a b : ext_exp a = ext_exp b -> a = b.
Proof.
  destruct a as [|x], b as [|y]; simpl; intros E; auto; [pose proof (exp_pos y) | pose proof (exp_pos x) |];
    try lra. f_equal; now apply exp_inv.
Qed.

(** Split-KV decoding computes attention over all keys, and the same L as FlashAttention-2.
    Used by: simulator/ioaware/algorithms/split_kv.py (split_kv). *)
Theorem split_kv_computes_attention splits :
  output (split_kv splits) = attention (concat splits) /\ logsumexp (split_kv splits) = logsumexp (flash2 splits).
Proof.
  rewrite split_kv_block_state, flash2_block_state. split.
  - rewrite <- attention_over_partial_outputs. apply output_state_at, rowmax_covers.
  - apply ext_exp_injective. rewrite !exp_logsumexp. apply partial_sum.
Qed.

(** The combination in closed form: O is the sum over all splits of exp(L_j - L) O_j. *)
Theorem split_kv_weights splits c :
  let L := logsumexp (flash2 splits) in
  attention (concat splits) c = total (fun part => exp_minus (score part) L * value part c) (map partial splits).
Proof.
  cbv zeta. rewrite <- (proj2 (split_kv_computes_attention splits)), split_kv_block_state.
  rewrite <- attention_over_partial_outputs. set (parts := map partial splits).
  set (L := logsumexp (block_state parts)).
  assert (H : L = MinusInfinity -> all_masked parts).
  { intros E; apply rowmax_covers. unfold L, logsumexp in E; simpl in E.
    destruct (rowmax parts); auto; discriminate. }
  unfold attention. rewrite <- exp_logsumexp. fold L. rewrite <- (weighted_total L) by auto.
  unfold weighted at 1. destruct L as [|x]; simpl; [|pose proof (exp_pos x); field; lra].
  rewrite (total_ext _ (fun k => 0 * value k c)), total_scale.
  - unfold Rdiv; ring.
  - intros k _. destruct (score k); simpl; ring.
Qed.
