(** Compulsory traffic, and all bounds together.

    Suppose that the slow memory holds neither sums nor outputs at the start. Then every entry of every row of Q that
    sees a key, and of every row of K and V that is seen, must be loaded at least once, and every entry of O must be
    stored at least once, on one processor or on several that share the slow memory. This binds where the bounds of
    LowerBound.v are void: when most of the problem fits into fast memory.

    The two bounds on loads are joined by a maximum, not by a sum: they may count the same loads. Stores come on top.
    For the backward pass only the loads of Q, K, V and dO are proved to be compulsory, if no sums were saved; that it
    also stores dQ, dK and dV is not modelled. *)
From Coq Require Import List Arith Lia FinFun.
From IOAware Require Import Machine Counting BackwardBound Parallel Outputs.
Import ListNotations.

(** The slow memory holds no sums and no outputs: inputs and anything else may be there. *)
Definition nothing_saved (m : slow) :=
  forall w, In w m -> match w with Part _ _ _ _ | Out _ _ _ => False | _ => True end.

(** How many query rows see a key, and how many keys are seen. *)
Definition rows (E : list (nat * nat)) : nat := length (nodup Nat.eq_dec (map fst E)).
Definition keys (E : list (nat * nat)) : nat := length (nodup Nat.eq_dec (map snd E)).

Definition compulsory_words (d dv : nat) (E : list (nat * nat)) : nat := d * (rows E + keys E) + dv * keys E.

(** d (d + dv) pairs / max (M, 2 d (d + dv)), rounded up, minus M; 0 if that is negative. *)
Definition io_words (M d dv pairs : nat) : nat :=
  let X := Nat.max M (2 * (d * (d + dv))) in (d * (d + dv) * pairs + (X - 1)) / X - M.

Lemma io_words_bound M d dv pairs l : 0 < M ->
  d * (d + dv) * pairs <= (l + M) * Nat.max M (2 * (d * (d + dv))) -> io_words M d dv pairs <= l.
Proof.
  intros HM H. unfold io_words. set (X := Nat.max M (2 * (d * (d + dv)))) in *.
  assert (0 < X) by (unfold X; lia). set (a := d * (d + dv) * pairs) in *. clearbody a X.
  enough ((a + (X - 1)) / X < S (l + M)) by lia.
  apply Nat.div_lt_upper_bound; [lia|]. rewrite Nat.mul_comm. simpl. lia.
Qed.

(** What a word in fast memory says about the words that were loaded. *)
Definition known (L : list word) (w : word) : Prop :=
  match w with
  | Left _ _ _ | Right _ _ _ => In w L
  | Part p i j A => forall a, In a A -> In (Left p i a) L /\ In (Right p j a) L
  | _ => True
  end.

Lemma in_loaded w os : In (Load w) os -> In w (loaded os).
Proof. induction os as [|o os IH]; simpl; [auto|]. intros [->|H]; [now left|]. destruct o; simpl; auto. Qed.

Lemma in_stored w os : In (Store w) os -> In w (stored os).
Proof. induction os as [|o os IH]; simpl; [auto|]. intros [->|H]; [now left|]. destruct o; simpl; auto. Qed.

Section Compulsory.
Variables (M d : nat).

Lemma known_step L s o s' : legal_step M d s o s' -> (forall w, o = Load w -> In w L) ->
  (forall w, In w (fst s) -> known L w) -> (forall w, In w (snd s) -> input w \/ known L w) ->
  (forall w, In w (fst s') -> known L w) /\ (forall w, In w (snd s') -> input w \/ known L w).
Proof.
  intros [(_ & He & Hi) Hm] HL HF HS. split; intros w Hw.
  - apply Hi, in_app_iff in Hw. destruct Hw as [Hw|Hw]; [|auto].
    destruct o as [v|v|p i j A|i k|i k J|n]; simpl in Hw; try contradiction; destruct Hw as [<-|[]]; simpl; auto.
    + assert (Hv : input v -> known L v) by (destruct v; simpl; try contradiction; auto).
      destruct Hm as [[Hin|Hin] _]; [auto|]. destruct (HS v Hin); auto.
    + intros a Ha. destruct (He a Ha) as [(B & HB & Hin)|[Hl Hr]].
      * exact (HF _ HB a Hin).
      * split; [exact (HF _ Hl)|exact (HF _ Hr)].
  - destruct o as [v|v|p i j A|i k|i k J|n]; try (apply HS; congruence).
    + apply HS. destruct Hm; congruence.
    + rewrite Hm in Hw. destruct Hw as [<-|Hw]; [right; apply HF, He|auto].
Qed.

Section Run.
Variables (p : nat) (s : parallel_state) (ros : list (nat * op)) (ss : list parallel_state).
Hypotheses (Hrun : parallel_run p M d s ros ss) (Hempty : empty s).

Lemma known_run : nothing_saved (snd s) ->
  forall s' r w, In s' ss -> In w (fst s' r) -> known (loaded (map snd ros)) w.
Proof.
  intros Hm s' r w Hs. set (L := loaded (map snd ros)).
  pose (I (s' : parallel_state) := (forall r w, In w (fst s' r) -> known L w) /\
    (forall w, In w (snd s') -> input w \/ known L w)).
  enough (I s') as [H _] by apply H. revert s' Hs. clear r w.
  apply (parallel_invariant p M d I s ros ss Hrun); unfold I.
  - split; [intros r w Hw; rewrite Hempty in Hw; contradiction|].
    intros w Hw. apply Hm in Hw. destruct w; simpl; auto; contradiction.
  - intros s1 r o s2 _ Hro (_ & Hst & Hq) [HF HS].
    destruct (known_step L _ _ _ Hst) as [HF' HS']; simpl; auto.
    + intros w ->. apply in_loaded. change (Load w) with (snd (r, Load w)). now apply in_map.
    + apply HF.
    + split; [|exact HS']. intros q w Hw.
      destruct (Nat.eq_dec q r) as [->|Hqr]; [now apply HF'|]. rewrite (Hq q Hqr) in Hw. eapply HF, Hw.
Qed.

(** Complete rows of Q, dO, K and V among the loaded words. *)
Lemma needed_words l dv u E L :
  (forall i a, In i (map fst E) -> (a < l -> In (Q i a) L) /\ (a < u -> In (dO i a) L)) ->
  (forall j a, In j (map snd E) -> (a < l -> In (K j a) L) /\ (a < dv -> In (V j a) L)) ->
  l * (rows E + keys E) + u * rows E + dv * keys E <= length L.
Proof.
  intros HR HC. unfold rows, keys.
  assert (R : NoDup (nodup Nat.eq_dec (map fst E))) by apply NoDup_nodup.
  assert (C : NoDup (nodup Nat.eq_dec (map snd E))) by apply NoDup_nodup.
  pose proof (left_rows QK l _ L R (fun i a Hi => proj1 (HR i a (proj1 (nodup_In _ _ _) Hi)))).
  pose proof (left_rows GV u _ L R (fun i a Hi => proj2 (HR i a (proj1 (nodup_In _ _ _) Hi)))).
  pose proof (right_rows QK l _ L C (fun j a Hj => proj1 (HC j a (proj1 (nodup_In _ _ _) Hj)))).
  pose proof (right_rows GV dv _ L C (fun j a Hj => proj2 (HC j a (proj1 (nodup_In _ _ _) Hj)))).
  pose proof (count_kinds L). lia.
Qed.

Lemma complete_loaded q n i j c L : complete n q i j c -> (forall w, In w c -> known L w) ->
  forall a, a < n -> In (Left q i a) L /\ In (Right q j a) L.
Proof. intros (A & HA & Hf) H a Ha. apply (H _ HA), Hf, Ha. Qed.

(** p processors that together write all outputs of the pairs E, from a slow memory without sums and outputs, load every
    row of Q, K and V that matters: loads >= d (rows + keys) + dv keys. *)
Theorem parallel_compulsory_loads dv E : 0 < dv -> nothing_saved (snd s) -> writes_outputs dv E (map snd ss) ->
  compulsory_words d dv E <= total_loads ros.
Proof.
  intros Hdv Hm HO. set (L := loaded (map snd ros)).
  assert (U : forall i j k, In (i, j) E -> k < dv ->
    In (V j k) L /\ forall a, a < d -> In (Q i a) L /\ In (K j a) L).
  { intros i j k He Hk. destruct (HO i j k He Hk) as (m & J & Hin & HJ & Hj).
    apply in_map_iff in Hin. destruct Hin as (s' & <- & Hs').
    destruct (outputs_used M d p s ros ss Hrun Hempty) with (s' := s') (i := i) (k := k) (J := J) (j := j)
      as (s1 & r & Hs1 & _ & Hc & HV); auto.
    { intros a b B HB. now apply Hm in HB. }
    pose proof (fun w => known_run Hm s1 r w Hs1) as HL. split; [exact (HL _ HV)|].
    eapply complete_loaded; eauto. }
  unfold compulsory_words, total_loads, loads. fold L.
  assert (B : d * (rows E + keys E) + 0 * rows E + dv * keys E <= length L); [|lia].
  apply needed_words; intros x a Hx; apply in_map_iff in Hx; destruct Hx as ([i j] & <- & He); split; intros Ha.
  - now apply (U i j 0).
  - lia.
  - now apply (U i j 0).
  - now apply (U i j a).
Qed.

(** The backward pass on p processors, from a slow memory without sums, loads every row of Q, K, V and dO that matters:
    loads >= (d + dv) (rows + keys). *)
Theorem parallel_backward_compulsory_loads dv E : nothing_saved (snd s) ->
  (forall e, In e E -> exists s' r, In s' ss /\ dS_ready d dv e (fst s' r)) ->
  (d + dv) * (rows E + keys E) <= total_loads ros.
Proof.
  intros Hm H. set (L := loaded (map snd ros)).
  assert (U : forall i j, In (i, j) E -> (forall a, a < d -> In (Q i a) L /\ In (K j a) L) /\
    forall a, a < dv -> In (dO i a) L /\ In (V j a) L).
  { intros i j He. destruct (H _ He) as (s' & r & Hs & HS & HG).
    split; eapply complete_loaded; eauto; intros w; now apply known_run. }
  unfold total_loads, loads. fold L.
  assert (B : d * (rows E + keys E) + dv * rows E + dv * keys E <= length L); [|lia].
  apply needed_words; intros x a Hx; apply in_map_iff in Hx; destruct Hx as ([i j] & <- & He);
    split; intros Ha; now apply (U i j).
Qed.

(** Every output that is in slow memory at some time, but was not there at the start, was stored: the rows of a list R,
    of dv outputs each, take dv |R| stores. Rows that see no key may be among them. *)
Theorem parallel_output_stores dv R : no_outputs (snd s) -> NoDup R ->
  (forall i k, In i R -> k < dv -> exists s' J, In s' ss /\ In (Out i k J) (snd s')) ->
  length R * dv <= total_stores ros.
Proof.
  intros Hm HR HO. unfold total_stores, stores.
  pose (I (s' : parallel_state) := forall w, In w (snd s') -> In w (snd s) \/ In w (stored (map snd ros))).
  assert (S : forall s', In s' ss -> I s').
  { apply (parallel_invariant p M d I s ros ss Hrun); unfold I; [auto|].
    intros s1 r o s2 _ Hro (_ & [_ Hst] & _) IH w Hw. simpl in Hst.
    destruct o as [v|v|q i j A|i k|i k J|n]; try (apply IH; congruence).
    - apply IH. destruct Hst; congruence.
    - rewrite Hst in Hw. destruct Hw as [->|Hw]; [right|auto].
      apply in_stored. change (Store w) with (snd (r, Store w)). now apply in_map. }
  rewrite <- (seq_length dv 0) at 1. rewrite <- prod_length.
  rewrite <- (map_length (fun w => match w with Out i k _ => (i, k) | _ => (0, 0) end) (stored _)).
  apply NoDup_incl_length; [apply product_nodup; auto using seq_NoDup|].
  intros [i k] Hin. apply in_prod_iff in Hin. rewrite in_seq in Hin.
  destruct (HO i k) as (s' & J & Hs & HJ); [apply Hin|lia|].
  destruct (S s' Hs _ HJ) as [H0|H0]; [now apply Hm in H0|].
  apply in_map_iff. now exists (Out i k J).
Qed.

Lemma written_rows_stored dv E : no_outputs (snd s) -> writes_outputs dv E (map snd ss) ->
  rows E * dv <= total_stores ros.
Proof.
  intros Hm HO. apply parallel_output_stores; [auto|apply NoDup_nodup|].
  intros i k Hi Hk. apply projected in Hi. destruct Hi as ([i' j] & He & <-).
  destruct (HO i' j k He Hk) as (m & J & Hin & HJ & _).
  apply in_map_iff in Hin. destruct Hin as (s' & <- & Hs'). eauto.
Qed.

(** All bounds together, for p processors: loads >= max (compulsory, proved), and loads + stores >= that + dv rows. *)
Theorem parallel_combined_lower_bound dv E : 0 < dv -> 0 < M -> nothing_saved (snd s) -> NoDup E ->
  writes_outputs dv E (map snd ss) ->
  let bound := Nat.max (compulsory_words d dv E) (io_words M d dv (length E)) in
  bound <= total_loads ros /\ bound + rows E * dv <= total_loads ros + total_stores ros.
Proof.
  intros Hdv HM Hm HE HO bound.
  assert (Hno : no_outputs (snd s)) by (intros i k J HJ; now apply Hm in HJ).
  assert (bound <= total_loads ros).
  { apply Nat.max_lub; [now apply parallel_compulsory_loads|]. apply io_words_bound; [auto|].
    eapply parallel_outputs_lower_bound; eauto. }
  split; [auto|]. apply Nat.add_le_mono; [auto|]. now apply written_rows_stored.
Qed.
End Run.

(** One processor: a run that writes all outputs of the pairs E, from a slow memory without sums and outputs, loads at
    least d (rows + keys) + dv keys words and stores at least dv rows.
    Used by: simulator/ioaware/bounds.py (compulsory). *)
Theorem compulsory_lower_bound dv m os ss E : 0 < dv -> legal_run M d ([], m) os ss -> nothing_saved m ->
  writes_outputs dv E (map snd ss) -> compulsory_words d dv E <= loads os /\ rows E * dv <= stores os.
Proof.
  intros Hdv Hr Hm HO. apply alone_run in Hr. rewrite <- alone_memories in HO.
  rewrite <- (alone_loads os), <- (alone_stores os). split.
  - eapply parallel_compulsory_loads; eauto using alone_empty.
  - eapply written_rows_stored; eauto. intros i k J HJ. now apply Hm in HJ.
Qed.

(** One processor, all bounds together: loads >= max (compulsory, proved), and loads + stores >= that + dv rows.
    Used by: simulator/ioaware/bounds.py (lower_bound). *)
Theorem combined_lower_bound dv m os ss E : 0 < dv -> 0 < M -> legal_run M d ([], m) os ss -> nothing_saved m ->
  NoDup E -> writes_outputs dv E (map snd ss) ->
  let bound := Nat.max (compulsory_words d dv E) (io_words M d dv (length E)) in
  bound <= loads os /\ bound + rows E * dv <= loads os + stores os.
Proof.
  intros Hdv HM Hr Hm HE HO. apply alone_run in Hr. rewrite <- alone_memories in HO.
  rewrite <- (alone_loads os), <- (alone_stores os).
  eapply parallel_combined_lower_bound; eauto using alone_empty.
Qed.
End Compulsory.
