(** Loads alone: 4 d dv |E| / M of them, if every output is written as one sum.

    KeyStationary.v gets along with fewer loads, because it leaves outputs in parts. If in the end slow memory must hold
    each O_ik as one sum with all its keys, then loads alone obey the bound of FullAttention.v, stores being free:

        4 d dv |E| <= (loads + outputs + M) * max (M, 8 d dv),

    with the number of outputs, N dv, which is small against the rest. Every legal run is covered, as there: any order,
    recomputed scores, outputs that are stored and loaded again, split-KV with its last pass.

    Why: count the separate sums of O_ik that the final output needs, one in fast memory and the others in slow memory.
    In the end there is one. A birth adds one; so all births but one must be made up for by loads that bring two sums
    together, in fast memory where there was a sum of O_ik already. Such a load brings no new cell to fast memory,
    so it is not needed for the count of what a segment can do. Charging births instead of such loads, one finds that
    loads and outputs are no fewer than births and other loads (NeededSums.v).

    Not covered is what FullAttention.v does not cover; and only one processor is considered here. *)
From Coq Require Import List Arith Lia.
From IOAware Require Import Machine Counting Outputs Masks FullAttention FlashSchedule FlashTraffic NeededSums.
From IOAware Require IOCounts.
Import ListNotations.

(** One sum of each output of the pairs E holds all its keys. *)
Definition whole_outputs dv (E : list (nat * nat)) (m : slow) := forall i k, In i (map fst E) -> k < dv ->
  exists J, In (Out i k J) m /\ forall j, In (i, j) E -> In j J.

(** The operations os compute attention, and at the end every output is in slow memory as one sum. *)
Definition whole_attention_run M d dv E os :=
  exists m ss, legal_run M d ([], m) os ss /\ no_outputs m /\ whole_outputs dv E (snd (last ss ([], m))).

Definition outputs dv (E : list (nat * nat)) := length (nodup Nat.eq_dec (map fst E)) * dv.

Lemma choose_sums (P : nat * nat -> list nat -> Prop) L : (forall x, In x L -> exists J, P x J) ->
  exists F, length F = length L /\ forall x, In x L -> exists J, In (Out (fst x) (snd x) J) F /\ P x J.
Proof.
  induction L as [|x L IH]; intros H; [exists []; split; [auto|intros ? []]|].
  destruct IH as (F & HF & HP); [intros; apply H; now right|]. destruct (H x (or_introl eq_refl)) as (J & HJ).
  exists (Out (fst x) (snd x) J :: F). split; [simpl; auto|].
  intros y [<-|Hy]; [exists J; split; [now left|auto]|]. destruct (HP y Hy) as (J' & Hin & HJ'). exists J'.
  split; [now right|auto].
Qed.

Lemma whole_added M d dv E os : whole_attention_run M d dv E os -> exists os' cs, run M d [] os' cs /\
  spent brings cs os' <= loads os + outputs dv E /\
  forall i j k, In (i, j) E -> k < dv -> exists c, In c cs /\ added d (i, j, k) c.
Proof.
  intros (m & ss & Hr & Hm & HO).
  destruct (choose_sums (fun x J => In (Out (fst x) (snd x) J) (snd (last ss ([], m))) /\
    forall j, In (fst x, j) E -> In j J) (list_prod (nodup Nat.eq_dec (map fst E)) (seq 0 dv))) as (F & HF & HP).
  { intros [i k] Hin. apply in_prod_iff in Hin. rewrite nodup_In, in_seq in Hin. apply HO; [apply Hin|simpl; lia]. }
  rewrite prod_length, seq_length in HF. fold (outputs dv E) in HF.
  destruct (prune_whole M d F os _ _ (legal_run_is_run M d _ _ _ Hr)) as (Hp & HL & HB).
  set (os' := pruned_ops F (map fst ss) os) in *. set (cs := pruned_states F (map fst ss) os) in *.
  assert (Hnil : pruned F (map fst ss) os = []) by (inversion Hr; reflexivity). rewrite Hnil in Hp.
  exists os', cs. split; [exact Hp|]. split.
  - pose proof (brings_joins M d [] os' cs Hp). unfold separate in HB. lia.
  - intros i j k Hij Hk. destruct (HP (i, k)) as (J & HJ & Hfin & Hall).
    { apply in_prod; [|apply in_seq; lia]. apply nodup_In. now apply (in_map fst) in Hij. }
    apply (final_products M d F (fun e => exists c, In c cs /\ added d e c) _ os ss Hr) with (J := J); auto.
    + intros [[|c cs'] rest] e Hin Hn; [now destruct Hn|]. exists (pruned F (c :: cs') rest).
      split; [|now apply needed_pruned]. now apply (in_map (fun m => pruned F (fst m) (snd m))) in Hin.
    + intros i' k' J' j' Hin. simpl in Hin. now apply Hm in Hin.
    + intros i' k' J' j' [].
Qed.

(** If all outputs are written as one sum each, then 4 d dv |E| <= (loads + outputs + M) * max (M, 8 d dv), where
    outputs is the number of rows that see a key, times dv. *)
Theorem whole_outputs_lower_bound M d dv E os : 0 < M -> NoDup E -> whole_attention_run M d dv E os ->
  4 * (d * dv) * length E <= (loads os + outputs dv E + M) * Nat.max M (8 * (d * dv)).
Proof.
  intros HM HE H. destruct (whole_added M d dv E os H) as (os' & cs & Hr & HL & Hall).
  eapply Nat.le_trans; [apply (supplied_bound M d dv brings os' cs E HM (brings_segments M d) Hr HE Hall)|].
  apply Nat.mul_le_mono_r. lia.
Qed.

(** If also dv <= d: (d + dv)^2 |E| <= (loads + outputs + M) * max (M, 2 (d + dv)^2). *)
Theorem narrow_whole_outputs_lower_bound M d dv E os : 0 < M -> 0 < dv <= d -> NoDup E ->
  whole_attention_run M d dv E os ->
  let s := (d + dv) * (d + dv) in s * length E <= (loads os + outputs dv E + M) * Nat.max M (2 * s).
Proof.
  intros HM Hdv HE H s. destruct (whole_added M d dv E os H) as (os' & cs & Hr & HL & Hall).
  eapply Nat.le_trans; [apply (supplied_bound_narrow M d dv brings os' cs E HM Hdv (brings_segments M d) Hr HE Hall)|].
  apply Nat.mul_le_mono_r. lia.
Qed.

Lemma flash2_dense_whole M d dv queries keys Br : 0 < Br -> (Br + 1) * (d + dv) + 1 <= M ->
  whole_attention_run M d dv (dense queries keys) (flash2_dense d dv queries keys Br).
Proof.
  intros HB HM. pose proof (cdiv_tiles queries Br HB) as HC. unfold flash2_dense.
  set (rows := row_tiles Br 0 queries (IOCounts.cdiv queries Br)) in *.
  set (tiles := map (fun r => (r, seq 0 keys)) rows).
  destruct (play_flash2 M d dv tiles [0] []) as (m' & Hp & _ & Ht).
  { intros tile Ht. apply in_map_iff in Ht. destruct Ht as (r & <- & Hr%row_tiles_rows). simpl.
    assert (length r * (d + dv) <= Br * (d + dv)) by (apply Nat.mul_le_mono_r; auto). lia. }
  destruct (Hp [] (incl_refl _) (Nat.le_0_l M)) as (ss & c1 & Hr & Hlast & _).
  exists [], ss. split; [exact Hr|]. split; [intros i k J []|]. rewrite Hlast. intros i k Hi Hk.
  apply in_map_iff in Hi. destruct Hi as ([i' j0] & <- & Hij). apply in_mask in Hij. destruct Hij as [Hi _].
  simpl. rewrite <- HC in Hi. apply in_concat in Hi. destruct Hi as (r & Hrow & Hi).
  exists (rev (seq 0 keys)). split.
  - apply (Ht 0 (r, seq 0 keys)); [now left|now apply (in_map (fun r => (r, seq 0 keys)))|].
    apply in_flat_map. exists i'. split; [exact Hi|]. apply (in_map (fun k => Out i' k (rev (seq 0 keys)))), in_seq.
    lia.
  - intros j Hj. apply in_mask in Hj. rewrite <- in_rev. apply Hj.
Qed.

(** Dense attention with dv <= d and M >= 2 (d + dv)^2: the loads L of FlashAttention-2 and those L' of any other
    schedule that writes each output as one sum have
    (M - 2 (d + dv)) (L - queries d - keys (d + dv)) <= (L' + queries dv + M) M, even if stores are free. *)
Theorem flash2_loads_optimal M d dv queries keys other : 0 < dv <= d -> 2 * ((d + dv) * (d + dv)) <= M ->
  whole_attention_run M d dv (dense queries keys) other ->
  let os := flash2_dense d dv queries keys (largest_tile M d dv) in
  whole_attention_run M d dv (dense queries keys) os /\
  (M - 2 * (d + dv)) * (loads os - (queries * d + keys * (d + dv))) <= (loads other + queries * dv + M) * M.
Proof.
  intros Hdv HM Hother os. destruct (largest_tile_spec M d dv ltac:(lia) HM ltac:(lia)) as (HB & HL & HMB). revert os.
  set (Br := largest_tile M d dv) in *.
  destruct (flash2_total_traffic M d dv queries keys Br HB HL) as (_ & HLo & _).
  intros os. split; [now apply flash2_dense_whole|]. unfold os. rewrite HLo.
  pose proof (narrow_whole_outputs_lower_bound M d dv (dense queries keys) other ltac:(lia) Hdv
    (mask_nodup _ _ (seq_NoDup _ _) (fun _ => seq_NoDup _ _)) Hother) as HLB. cbv zeta in HLB.
  rewrite Nat.max_l, dense_pairs in HLB by auto.
  assert (Hout : outputs dv (dense queries keys) <= queries * dv).
  { apply Nat.mul_le_mono_r.
    enough (length (nodup Nat.eq_dec (map fst (dense queries keys))) <= length (seq 0 queries)) by (now rewrite
      seq_length in *).
    apply NoDup_incl_length; [apply NoDup_nodup|].
    intros i Hi%nodup_In. apply in_map_iff in Hi. destruct Hi as ([i' j] & <- & Hij). now apply in_mask in Hij. }
  apply Nat.le_trans with ((loads other + outputs dv (dense queries keys) + M) * M);
    [apply Nat.le_trans with (2 := HLB)|apply Nat.mul_le_mono_r; lia].
  pose proof (IOCounts.cdiv_spec queries Br HB) as [_ HT]. set (T := IOCounts.cdiv queries Br) in *.
  assert (HT' : (T - 1) * Br <= queries) by (destruct T; simpl; lia). set (w := d + dv) in *.
  apply Nat.le_trans with ((w * Br) * ((T - 1) * (keys * w))).
  - apply Nat.mul_le_mono; [exact HMB|]. destruct T as [|T]; [simpl; lia|]. replace (S T - 1) with T by lia.
    replace (queries * d + S T * (keys * w)) with (T * (keys * w) + (queries * d + keys * w)) by ring. lia.
  - replace (w * Br * ((T - 1) * (keys * w))) with (w * w * ((T - 1) * Br * keys)) by ring.
    apply Nat.mul_le_mono_l, Nat.mul_le_mono_r, HT'.
Qed.
