(** Lower bounds on the loads of exact attention, backward.

    The backward pass needs, for every visible pair (i, j) of E, the gradient dS_ij = P_ij (dP_ij - D_i) of its score,
    and so the two complete sums s_ij = Q_i . K_j (from which P_ij comes) and dP_ij = dO_i . V_j in fast memory at once.
    With rows of Q and K of d words and rows of dO and V of dv words,

        (d + dv)^2 |E| <= (loads + M) * max (M, 2 (d + dv)^2),

    so, for dv = d and M >= 8 d^2, at least 4 d^2 |E| / M - M loads.

    The slow memory may hold anything at the start. So this also covers a backward pass that reads P, or the scores, as
    the forward pass saved them: every such pair takes up a word of its own, so M words serve for only M pairs. Not
    counted are the words of D, of the row sums and of the gradients dQ, dK and dV, and no stores. As in LowerBound.v,
    other algebra than adding up products and approximation are not ruled out. *)
From Coq Require Import List Arith Lia.
From IOAware Require Import Machine Counting LowerBound.
Import ListNotations.

Section Backward.
Variables (M d dv : nat).

(** Both inner products of the pair are complete in fast memory: dS_ij can be formed. *)
Definition dS_ready (e : nat * nat) (c : fast) :=
  complete d QK (fst e) (snd e) c /\ complete dv GV (fst e) (snd e) c.

(** If the complete sums of both inner products of every pair of E are in fast memory together at some time of the run,
    then (d + dv)^2 |E| <= (loads + M) * max (M, 2 (d + dv)^2).
    Used by: simulator/ioaware/bounds.py (lower_bound). *)
Theorem backward_lower_bound_dims os cs E : 0 < M -> run M d [] os cs -> NoDup E ->
  (forall e, In e E -> exists c, In c cs /\ dS_ready e c) ->
  (d + dv) * (d + dv) * length E <= (loads os + M) * Nat.max M (2 * ((d + dv) * (d + dv))).
Proof.
  intros HM Hr HE H. rewrite <- (Nat.mul_1_l ((loads os + M) * _)).
  apply (bound_from_words dS_ready M d _ 1 os cs E); auto.
  clear. intros W E HE H. rewrite Nat.mul_1_l.
  apply (count_pairs (fun p => match p with QK => d | GV => dv end) W E HE).
  intros e He. destruct (H e He) as (c & Hc & HS & HG).
  destruct (complete_from _ _ _ _ _ _ HS Hc) as [L|R]; [left; now destruct e|].
  destruct (complete_from _ _ _ _ _ _ HG Hc) as [L|R']; [left; now destruct e|right].
  intros [] a Ha; auto.
Qed.
End Backward.

(** The same for dv = d: 4 d^2 |E| <= (loads + M) * max (M, 8 d^2). *)
Theorem backward_lower_bound M d os cs E : 0 < d -> 0 < M -> run M d [] os cs -> NoDup E ->
  (forall e, In e E -> exists c, In c cs /\ complete d QK (fst e) (snd e) c /\ complete d GV (fst e) (snd e) c) ->
  4 * (d * d * length E) <= (loads os + M) * Nat.max M (8 * (d * d)).
Proof.
  intros Hd HM Hr HE H. pose proof (backward_lower_bound_dims M d d os cs E HM Hr HE H) as B.
  replace (4 * (d * d * length E)) with ((d + d) * (d + d) * length E) by ring.
  now replace (8 * (d * d)) with (2 * ((d + d) * (d + d))) by ring.
Qed.
