(** From finished outputs to lower bounds.

    LowerBound.v and Parallel.v suppose that every product p_ij v_jk of a visible pair is formed. Here this follows from
    what a user sees: the slow memory holds no outputs at the start, and later on, for every visible pair (i, j) and
    every column k, a word of O_ik to which key j has been added. An output word can only grow by a product whose
    finished score and entry of V are in the same fast memory. Unfinished outputs may be stored, loaded and merged
    again, by any processor (split-KV); it is enough that they are written in parts.

    The slow memory may hold anything else at the start, such as finished scores. *)
From Coq Require Import List Arith Lia.
From IOAware Require Import Machine Counting LowerBound Parallel.
Import ListNotations.

Definition no_outputs (m : slow) := forall i k J, ~ In (Out i k J) m.

(** Every visible key is added to every column k < dv of its output row, in a word of one of the slow memories. *)
Definition writes_outputs (dv : nat) (E : list (nat * nat)) (memories : list slow) := forall i j k,
  In (i, j) E -> k < dv -> exists m J, In m memories /\ In (Out i k J) m /\ In j J.

Section Outputs.
Variables (M d : nat).

Lemma output_origin s o s' i k J j : legal_step M d s o s' -> In (Out i k J) (fst s' ++ snd s') -> In j J ->
  (exists J', In (Out i k J') (fst s ++ snd s) /\ In j J') \/ used d (i, j, k) (fst s).
Proof.
  intros [(_ & He & Hi) Hm] Hin Hj.
  assert (old : In (Out i k J) (fst s ++ snd s) ->
    (exists J', In (Out i k J') (fst s ++ snd s) /\ In j J') \/ used d (i, j, k) (fst s)) by (left; eauto).
  apply in_app_iff in Hin. destruct Hin as [Hin|Hin].
  - apply Hi, in_app_iff in Hin. destruct Hin as [Hin|Hin]; [|apply old, in_app_iff; auto].
    destruct o as [w|w|q a b A|a b|a b J'|n]; simpl in Hin; try contradiction;
      destruct Hin as [Hin|[]]; try discriminate Hin.
    + subst w. destruct Hm as [[[]|Hs] _]. apply old, in_app_iff; auto.
    + injection Hin as -> -> <-. contradiction.
    + injection Hin as -> -> ->. destruct (proj2 He j Hj) as [(J2 & HJ & Hj2)|Hu]; [left|right; exact Hu].
      exists J2. split; [apply in_app_iff; auto|auto].
  - apply old, in_app_iff. destruct o as [w|w|q a b A|a b|a b J'|n]; try (right; congruence).
    + destruct Hm as [_ Hm]. right; congruence.
    + rewrite Hm in Hin. destruct Hin as [->|Hin]; auto.
Qed.

Lemma outputs_used p s ros ss : parallel_run p M d s ros ss -> empty s -> no_outputs (snd s) ->
  forall s', In s' ss -> forall i k J j, In (Out i k J) (snd s') -> In j J ->
  exists s1 r, In s1 ss /\ r < p /\ used d (i, j, k) (fst s1 r).
Proof.
  intros Hr H0 Hm s' Hs i k J j HO.
  pose (I (s' : parallel_state) := forall i k J j,
    (exists r, In (Out i k J) (fst s' r)) \/ In (Out i k J) (snd s') -> In j J ->
    exists s1 r, In s1 ss /\ r < p /\ used d (i, j, k) (fst s1 r)).
  apply (parallel_invariant p M d I s ros ss Hr) with (s' := s') (J := J); auto; unfold I; clear - Hr H0 Hm.
  - intros i k J j [(r & HO)|HO]; [rewrite H0 in HO; contradiction|now apply Hm in HO].
  - intros s1 r o s2 Hs1 _ (Hrp & Hst & Hq) IH i k J j HO Hj.
    assert (HO' : (exists q, q <> r /\ In (Out i k J) (fst s1 q)) \/ In (Out i k J) (fst s2 r ++ snd s2)).
    { rewrite in_app_iff. destruct HO as [(q & HO)|HO]; auto.
      destruct (Nat.eq_dec q r) as [->|Hqr]; [auto|]. rewrite (Hq q Hqr) in HO. eauto. }
    destruct HO' as [(q & _ & HO')|HO']; [apply (IH i k J j); eauto|].
    destruct (output_origin _ _ _ _ _ _ _ Hst HO' Hj) as [(J' & HJ & Hj')|Hu]; [|now exists s1, r].
    simpl in HJ. apply in_app_iff in HJ. apply (IH i k J' j); auto. destruct HJ; eauto.
Qed.

(** p processors that together write all outputs of attention on the pairs E have
    d (d + dv) |E| <= (loads of all processors + M) * max (M, 2 d (d + dv)). *)
Theorem parallel_outputs_lower_bound p dv s ros ss E : 0 < dv -> 0 < M ->
  parallel_run p M d s ros ss -> empty s -> no_outputs (snd s) -> NoDup E -> writes_outputs dv E (map snd ss) ->
  d * (d + dv) * length E <= (total_loads ros + M) * Nat.max M (2 * (d * (d + dv))).
Proof.
  intros Hdv HM Hr H0 Hm HE HO. apply (parallel_attention_lower_bound p M d dv s ros ss E); auto.
  intros [i j] k He Hk. destruct (HO i j k He Hk) as (m & J & Hin & HJ & Hj).
  apply in_map_iff in Hin. destruct Hin as (s' & <- & Hs'). eapply outputs_used; eauto.
Qed.

(** * One processor *)

Definition alone (s : state) : parallel_state := (fun r => if r =? 0 then fst s else [], snd s).

Lemma alone_run s os ss : legal_run M d s os ss -> parallel_run 1 M d (alone s) (map (pair 0) os) (map alone ss).
Proof.
  induction 1 as [s|[c m] o [c' m'] os ss Hst _ IH]; simpl; [constructor|]. econstructor; [|exact IH].
  split; [lia|]. split; [exact Hst|]. intros [|q] Hq; [congruence|auto].
Qed.

Lemma alone_loads os : total_loads (map (pair 0) os) = loads os.
Proof. unfold total_loads. now rewrite map_map, map_id. Qed.
Lemma alone_stores os : total_stores (map (pair 0) os) = stores os.
Proof. unfold total_stores. now rewrite map_map, map_id. Qed.
Lemma alone_empty m : empty (alone ([], m)).
Proof. now intros [|r]. Qed.
Lemma alone_memories ss : map snd (map alone ss) = map snd ss.
Proof. now rewrite map_map. Qed.

(** Attention, from its outputs: a legal run that starts with an empty fast memory and no outputs in slow memory, and
    that writes all outputs of the pairs E, has d (d + dv) |E| <= (loads + M) * max (M, 2 d (d + dv)).
    Used by: simulator/ioaware/bounds.py (lower_bound). *)
Theorem outputs_lower_bound dv m os ss E : 0 < dv -> 0 < M ->
  legal_run M d ([], m) os ss -> no_outputs m -> NoDup E -> writes_outputs dv E (map snd ss) ->
  d * (d + dv) * length E <= (loads os + M) * Nat.max M (2 * (d * (d + dv))).
Proof.
  intros Hdv HM Hr Hm HE HO. rewrite <- (alone_loads os).
  apply (parallel_outputs_lower_bound 1 dv _ _ (map alone ss) E Hdv HM (alone_run _ _ _ Hr) (alone_empty m) Hm HE).
  now rewrite alone_memories.
Qed.
End Outputs.
