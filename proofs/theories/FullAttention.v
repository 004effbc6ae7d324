(** Loads and stores together: every schedule of exact attention moves 4 d dv |E| / M words, to the leading term.

    LowerBound.v counts loads only, with the constant 2 if dv = d. Here stores count too, and the constant is 4, which
    FlashAttention-2 attains (FlashTraffic.v). E is the set of visible pairs (i, j), d the length of a row of Q and K,
    dv that of a row of V and O, M the words of fast memory. Once the outputs are written,

        4 d dv |E| <= (loads + stores + M) * max (M, 8 d dv).

    Why: a product p_ij v_jk must be added to a sum of O_ik in fast memory. So while few words move, work needs rows of
    Q, rows of K, entries of V and sums of O all at once: with q, k, v and a words of each, a segment can add at most
    sqrt(q k v a) / d products, no more than (q + k + v + a)^2 / (16 d) (AccumulatorCount.v). A sum gets into fast
    memory by a load, or it is begun there; and a sum that was begun must be stored before it is dropped, or it was
    begun in vain (Accumulators.v).

    Covered are all legal runs of the machine of Machine.v, on one processor or on several: any order and tiling, scores
    that are recomputed any number of times or kept in slow memory, outputs that are read, updated and written again (as
    FlashAttention-1 does), partial outputs that are merged later or never (split-KV), and runs that throw work away.
    Nothing is assumed about the slow memory at the start but that it holds no sums of outputs.

    Not covered is algebra other than adding up products, nor the traffic of a cache that several processors share. For
    M below 8 d dv the bound is true, but weak (see SmallMemory.v).

    If dv differs from d, FlashAttention-2 moves (d + dv)^2 |E| / M words. For dv <= d that is proved here to be the
    least, too. For dv > d the bound stays 4 d dv. It is attained if d divides dv: by d columns of V at a time
    (FlashTraffic.v).

    Loads alone, with stores free of charge, are another matter. For dv = d LowerBound.v has the constant 2, and
    KeyStationary.v attains it, by writing outputs in parts that are never loaded again. If each output must be written
    as one sum, the constant is 4 for loads alone, too (WholeOutputs.v). *)
From Coq Require Import List Arith Lia Bool.
From IOAware Require Import Machine Counting LowerBound Parallel Outputs Masks Accumulators AccumulatorCount.
Import ListNotations.

(** * Sums of outputs *)

Definition output_of (w : word) := match w with Out i k _ => Some (i, k) | _ => None end.

(** The product p_ij v_jk can be added to a sum of O_ik in fast memory. *)
Definition added d (e : nat * nat * nat) (c : fast) := used d e c /\ held output_of (fst (fst e), snd e) c = true.

Lemma output_held i k c : held output_of (i, k) c = true <-> exists J, In (Out i k J) c.
Proof.
  rewrite held_spec. split; [intros (w & Hw & Hx)|intros [J HJ]; exists (Out i k J); auto].
  destruct w; try discriminate. injection Hx as -> ->. eauto.
Qed.

Lemma added_more d e c c' : incl c c' -> added d e c -> added d e c'.
Proof.
  destruct e as [[i j] k]. intros HI [[HS HV] Hh]. split; [split; [eapply complete_mono; eauto|auto]|].
  apply output_held in Hh. destruct Hh as [J HJ]. apply output_held. eauto.
Qed.

(** All that a segment sees comes from the words W. *)
Definition supplied (W : list word) (c : fast) :=
  (forall w, In w c -> from W w) /\ forall i k, held output_of (i, k) c = true -> exists J, In (Out i k J) W.

Lemma supplied_accumulable d dv W E cs : (forall c, In c cs -> supplied W c) ->
  (forall e, In e E -> exists c, In c cs /\ snd e < dv /\ added d e c) -> accumulable d dv W E.
Proof.
  intros HW Hw i j k He. destruct (Hw _ He) as (c & Hc & Hk & [[HS HV] Hh]). destruct (HW c Hc) as [Hfrom Hheld].
  split; [exact Hk|]. split; [exact (Hfrom _ HV)|]. split; [now apply Hheld|eapply complete_from; eauto].
Qed.

(** If segments of cost M live on 2 M words, and w words allow at most times * w * max (w, 2 s) / k of the work, then a
    whole run does at most 4 times as much of it for each M of its cost. *)
Lemma bound_from_supplied M d dv k times s cost os cs E : 0 < M -> (forall c o, cost c o <= 1) ->
  (forall os c cs, run M d c os cs -> length c <= M -> spent cost cs os <= M ->
     exists W, length W <= M + M /\ forall c', In c' cs -> supplied W c') ->
  (forall W F, NoDup F -> accumulable d dv W F -> k * length F <= times * (length W * Nat.max (length W) (2 * s))) ->
  run M d [] os cs -> NoDup E ->
  (forall i j k, In (i, j) E -> k < dv -> exists c, In c cs /\ added d (i, j, k) c) ->
  k * (length E * dv) <= 4 * (times * ((spent cost cs os + M) * Nat.max M s)).
Proof.
  intros HM Hcost Hseg Hwords Hr HE Hw. destruct (segment_count M (spent cost cs os) HM) as (n & Hn & Hn').
  set (Y := Nat.max M s).
  assert (H : k * length (list_prod E (seq 0 dv)) <= n * (times * ((M + M) * (Y + Y)))).
  { apply (segments M d cost (fun e c => snd e < dv /\ added d e c) M k
      (times * ((M + M) * (Y + Y))) HM Hcost) with os [] cs; auto.
    - clear - Hseg Hwords. intros os c cs E Hr Hc HL HE Hw. destruct (Hseg os c cs Hr Hc HL) as (W & HW & Hsup).
      apply Nat.le_trans with (times * (length W * Nat.max (length W) (2 * s))).
      + apply Hwords; auto. exact (supplied_accumulable d dv W E cs Hsup Hw).
      + apply Nat.mul_le_mono_l, Nat.mul_le_mono; unfold Y; lia.
    - simpl; lia.
    - apply product_nodup; auto using seq_NoDup.
    - intros [[i j] x] Hin. apply in_prod_iff in Hin. rewrite in_seq in Hin.
      destruct (Hw i j x) as (c & Hc & Ha); [tauto|lia|]. exists c. repeat split; auto; try apply Ha. simpl; lia. }
  rewrite prod_length, seq_length in H.
  replace (n * (times * ((M + M) * (Y + Y)))) with (4 * (times * (n * M * Y))) in H by ring.
  assert (times * (n * M * Y) <= times * ((spent cost cs os + M) * Y))
    by now apply Nat.mul_le_mono_l, Nat.mul_le_mono_r.
  lia.
Qed.

(** The two counts of AccumulatorCount.v, for whole runs. *)
Definition segments_supplied M d cost := (forall c o, cost c o <= 1) /\
  forall os c cs, run M d c os cs -> length c <= M -> spent cost cs os <= M ->
  exists W, length W <= M + M /\ forall c', In c' cs -> supplied W c'.

Lemma supplied_bound M d dv cost os cs E : 0 < M -> segments_supplied M d cost -> run M d [] os cs -> NoDup E ->
  (forall i j k, In (i, j) E -> k < dv -> exists c, In c cs /\ added d (i, j, k) c) ->
  4 * (d * dv) * length E <= (spent cost cs os + M) * Nat.max M (8 * (d * dv)).
Proof.
  intros HM [H1 Hseg] Hr HE Hw.
  pose proof (bound_from_supplied M d dv (16 * d) 1 (8 * (d * dv)) cost os cs E HM H1 Hseg) as B.
  rewrite Nat.mul_1_l in B.
  enough (16 * d * (length E * dv) <= 4 * ((spent cost cs os + M) * Nat.max M (8 * (d * dv)))) by lia.
  apply B; auto. intros W F HF H. rewrite Nat.mul_1_l. replace (2 * (8 * (d * dv))) with (16 * (d * dv)) by lia.
  now apply count_accumulated.
Qed.

Lemma supplied_bound_narrow M d dv cost os cs E : 0 < M -> 0 < dv <= d -> segments_supplied M d cost ->
  run M d [] os cs -> NoDup E ->
  (forall i j k, In (i, j) E -> k < dv -> exists c, In c cs /\ added d (i, j, k) c) ->
  let s := (d + dv) * (d + dv) in s * length E <= (spent cost cs os + M) * Nat.max M (2 * s).
Proof.
  intros HM Hdv [H1 Hseg] Hr HE Hw s. apply (Nat.mul_le_mono_pos_l _ _ (4 * dv)); [lia|].
  pose proof (bound_from_supplied M d dv (4 * s) dv (2 * s) cost os cs E HM H1 Hseg) as B.
  enough (4 * s * (length E * dv) <= 4 * (dv * ((spent cost cs os + M) * Nat.max M (2 * s)))) by lia.
  apply B; auto. intros W F HF H. replace (2 * (2 * s)) with (4 * s) by lia. now apply count_accumulated_narrow.
Qed.

Lemma accumulator_segments M d : segments_supplied M d (accumulator_cost output_of).
Proof.
  split; [apply accumulator_cost_le|]. intros os c cs Hr Hc HL. set (W := c ++ paid output_of cs os). exists W. split.
  - unfold W. rewrite app_length. pose proof (paid_length output_of cs os). lia.
  - intros c' Hc'. split.
    + apply (from_run M d W os c cs Hr); auto.
      * intros w Hin. apply from_self, in_app_iff. auto.
      * apply incl_appr, (loaded_paid output_of M d os c cs Hr).
    + intros i k Hh. apply (held_from output_of M d W os c cs Hr) in Hh; auto.
      * destruct Hh as (w & Hin & Hx). destruct w; try discriminate. injection Hx as -> ->. eauto.
      * intros y Hy. apply held_spec in Hy. destruct Hy as (w & Hin & Hy). exists w. split; [apply in_app_iff|]; auto.
      * apply incl_appr, incl_refl.
Qed.

(** A birth, here, begins a sum of O_ik in fast memory while it holds none. If all products p_ij v_jk of the pairs E
    are at some time formed while fast memory holds a sum of O_ik, to which they can be added, then
    4 d dv |E| <= (loads + births + M) max (M, 8 d dv). *)
Theorem accumulator_lower_bound M d dv os cs E : 0 < M -> run M d [] os cs -> NoDup E ->
  (forall i j k, In (i, j) E -> k < dv -> exists c, In c cs /\ added d (i, j, k) c) ->
  4 * (d * dv) * length E <= (loads os + births output_of cs os + M) * Nat.max M (8 * (d * dv)).
Proof.
  intros HM Hr HE Hw. rewrite <- (accumulator_spent output_of M d [] os cs Hr).
  apply supplied_bound with (d := d); auto using accumulator_segments.
Qed.

(** If dv <= d, more is true: (d + dv)^2 |E| <= (loads + births + M) max (M, 2 (d + dv)^2). *)
Theorem narrow_accumulator_lower_bound M d dv os cs E : 0 < M -> 0 < dv <= d -> run M d [] os cs -> NoDup E ->
  (forall i j k, In (i, j) E -> k < dv -> exists c, In c cs /\ added d (i, j, k) c) ->
  let s := (d + dv) * (d + dv) in s * length E <= (loads os + births output_of cs os + M) * Nat.max M (2 * s).
Proof.
  intros HM Hdv Hr HE Hw. rewrite <- (accumulator_spent output_of M d [] os cs Hr).
  apply supplied_bound_narrow; auto using accumulator_segments.
Qed.

(** * From births to stores *)
Section Stores.
Variables (p M d : nat).

(** The fast memories of processor r, along a parallel run. *)
Fixpoint track r (ss : list parallel_state) (ros : list (nat * op)) : list fast :=
  match ss, ros with
  | s :: ss, ro :: ros => if fst ro =? r then fst s r :: track r ss ros else track r ss ros
  | s :: _, [] => [fst s r]
  | [], _ => []
  end.

Lemma track_run r s ros ss : parallel_run p M d s ros ss -> run M d (fst s r) (program r ros) (track r ss ros).
Proof.
  induction 1 as [s|s [q o] s' ros ss (_ & [Hst _] & Hq) _ IH]; [constructor|]. unfold program. simpl.
  destruct (Nat.eqb_spec q r) as [->|Hqr]; [econstructor; eauto|]. now rewrite (Hq r) in IH by auto.
Qed.

(** At this moment the product can be added to a sum that will be stored. *)
Definition useful (e : nat * nat * nat) (moment : list fast * list op) :=
  match fst moment with [] => False | c :: _ => used d e c end /\
  live output_of (fst (fst e), snd e) (fst moment) (snd moment) = true.

(** The products of stored outputs were useful when they were formed. *)
Lemma stored_useful (G : nat * nat * nat -> Prop) s ros ss : parallel_run p M d s ros ss ->
  (forall r m e, r < p -> In m (moments (track r ss ros) (program r ros)) -> useful e m -> G e) ->
  (forall i k J j, In (Out i k J) (snd s) -> In j J -> G (i, j, k)) ->
  (forall r i k J j, r < p -> In (Out i k J) (fst s r) -> In j J ->
     live output_of (i, k) (track r ss ros) (program r ros) = true -> G (i, j, k)) ->
  forall s', In s' ss -> forall i k J j, In (Out i k J) (snd s') -> In j J -> G (i, j, k).
Proof.
  induction 1 as [s|s [q o] s1 ros ss (Hqp & [(_ & He & Hi) Hslow] & Hq) Hr IH]; intros HG Hsnd Hfst s' Hs'.
  - destruct Hs' as [<-|[]]. auto.
  - destruct Hs' as [<-|Hs']; [auto|]. revert s' Hs'. simpl in He, Hi, Hslow.
    assert (Hhead : exists tail, track q ss ros = fst s1 q :: tail) by exact (run_head _ _ _ _ _ (track_run q _ _ _
      Hr)).
    assert (Htrack : track q (s :: ss) ((q, o) :: ros) = fst s q :: track q ss ros) by (simpl; now rewrite
      Nat.eqb_refl).
    assert (Hprog : program q ((q, o) :: ros) = o :: program q ros) by (unfold program; simpl; now rewrite
      Nat.eqb_refl).
    assert (Hother : forall r, r <> q -> track r (s :: ss) ((q, o) :: ros) = track r ss ros /\
      program r ((q, o) :: ros) = program r ros).
    { intros r Hrq. unfold program. simpl. destruct (Nat.eqb_spec q r); [congruence|auto]. }
    assert (Hlive : forall i k J j, In (Out i k J) (fst s q) -> In j J ->
      saves output_of (i, k) o || live output_of (i, k) (track q ss ros) (program q ros) = true -> G (i, j, k)).
    { intros i k J j HJ Hj Hl. apply (Hfst q i k J j); auto. rewrite Htrack, Hprog, live_cons, Hl, andb_true_r.
      apply output_held. eauto. }
    apply IH; clear IH.
    + intros r m e Hrp Hm. apply (HG r m e Hrp). destruct (Nat.eq_dec r q) as [->|Hrq].
      * rewrite Htrack, Hprog. now right.
      * now destruct (Hother r Hrq) as [-> ->].
    + intros i k J j HJ Hj.
      destruct o as [w|w|x a b A|a b|a b J'|n]; [destruct Hslow as [_ Hslow]| | | | |]; rewrite Hslow in HJ; eauto.
      destruct HJ as [->|HJ]; [|eauto]. apply (Hlive i k J j); auto. apply orb_true_iff. left. now apply sum_of_spec.
    + intros r i k J j Hrp HJ Hj Hl. destruct (Nat.eq_dec r q) as [->|Hrq].
      * apply Hi, in_app_iff in HJ. destruct HJ as [HJ|HJ]; [|apply (Hlive i k J j); auto; now rewrite Hl, orb_true_r].
        destruct o as [w|w|x a b A|a b|a b J'|n]; simpl in HJ; try contradiction; destruct HJ as [HJ|[]];
          try discriminate HJ.
        -- subst w. destruct Hslow as [[[]|Hin] _]. eauto.
        -- injection HJ as -> -> <-. contradiction.
        -- injection HJ as -> -> ->. destruct He as [[J2 HJ2] He].
           destruct (He j Hj) as [(J3 & HJ3 & Hj3)|Hu]; [apply (Hlive i k J3 j); auto; now rewrite Hl, orb_true_r|].
           apply (HG q (fst s q :: track q ss ros, Accumulate i k J :: program q ros)); auto.
           ++ rewrite Htrack, Hprog. now left.
           ++ split; [exact Hu|]. cbn [fst snd]. rewrite live_cons, Hl, orb_true_r, andb_true_r.
              apply output_held. eauto.
      * rewrite (Hq r Hrq) in HJ. destruct (Hother r Hrq) as [Ht Hp]. apply (Hfst r i k J j); auto. now rewrite Ht, Hp.
Qed.

Lemma outputs_local c c' o : True -> enabled d c o ->
  (forall w, In w c -> output_of w = None \/ output_of w = target output_of o -> In w c') -> enabled d c' o.
Proof.
  intros _ He H. destruct o as [w|w|x a b A|i k|i k J|n]; simpl in *; auto.
  - intros z Hz. destruct (He z Hz) as [(B & HB & HzB)|[HL HR]]; [left; exists B|right]; auto.
  - destruct He as [[J' HJ'] He]. split; [eauto|]. intros j Hj.
    destruct (He j Hj) as [(J2 & H2 & Hj2)|[(A & HA & HF) HV]]; [left; eauto|right; split; [exists A|]; auto].
Qed.

Lemma useful_pruned e c cs os : useful e (c :: cs, os) -> added d e (pruned output_of (c :: cs) os).
Proof.
  destruct e as [[i j] k]. intros [[(A & HA & HF) HV] Hl]. cbn [fst snd] in *.
  assert (Hkeep : forall w, In w c -> output_of w = None -> In w (pruned output_of (c :: cs) os)).
  { intros w Hw Hn. apply pruned_In. split; [auto|]. unfold kept. now rewrite Hn. }
  split; [split; [exists A; auto|auto]|]. pose proof (live_held _ _ _ _ _ Hl) as Hh. apply output_held in Hh.
  destruct Hh as [J HJ]. apply output_held. exists J. apply pruned_In. auto.
Qed.

(** Pruned programs, from an empty fast memory, one after the other. *)
Lemma births_append os1 c cs1 : run M d c os1 cs1 -> forall os2 cs2, run M d [] os2 cs2 ->
  exists cs, run M d c (os1 ++ os2) cs /\
    births output_of cs (os1 ++ os2) <= births output_of cs1 os1 + births output_of cs2 os2 /\
    forall c1, In c1 cs1 \/ In c1 cs2 -> exists c2, In c2 cs /\ incl c1 c2.
Proof.
  unfold births. induction 1 as [c|c o c' os cs1 Hst Hr IH]; intros os2 cs2 H2.
  - assert (nil : incl [] c) by (intros ? []).
    inversion H2 as [|? o c' os cs (HM & He & Hi) Hr]; subst.
    + exists [c]. split; [constructor|]. split; [auto|]. intros c1 [[<-|[]]|[<-|[]]]; exists c; simpl; auto using
        incl_refl.
    + exists (c :: cs). split; [|split].
      * econstructor; [|exact Hr]. split; [auto|]. split; [exact (enabled_mono d [] c o nil He)|].
        intros x Hx. apply Hi in Hx. rewrite app_nil_r in Hx. apply in_app_iff. now left.
      * simpl. apply Nat.add_le_mono_r. unfold birth. destruct (begins output_of o); auto. simpl. destruct held; auto.
      * intros c1 [[<-|[]]|[<-|H1]]; [exists c|exists c|exists c1]; simpl; auto using incl_refl.
  - destruct (IH os2 cs2 H2) as (cs & Hcs & HB & Hall). exists (c :: cs). split; [econstructor; eauto|].
    split; [simpl; lia|]. intros c1 [[<-|H1]|H1].
    + exists c. simpl; auto using incl_refl.
    + destruct (Hall c1 (or_introl H1)) as (c2 & ? & ?). exists c2. simpl; auto.
    + destruct (Hall c1 (or_intror H1)) as (c2 & ? & ?). exists c2. simpl; auto.
Qed.

Lemma stores_of_one_more r ros :
  stores (map snd (filter (fun ro => fst ro <? S r) ros)) =
  stores (map snd (filter (fun ro => fst ro <? r) ros)) + stores (program r ros).
Proof.
  unfold program. induction ros as [|[q o] ros IH]; [auto|]. simpl.
  change (q <? S r) with (q <=? r). unfold stores in *. simpl.
  destruct (Nat.leb_spec q r), (Nat.ltb_spec q r), (Nat.eqb_spec q r); try lia;
    destruct o; simpl in *; lia.
Qed.

Lemma stores_of_some (f : nat * op -> bool) ros : stores (map snd (filter f ros)) <= total_stores ros.
Proof.
  unfold total_stores, stores. induction ros as [|[q o] ros IH]; [auto|].
  simpl. destruct (f (q, o)), o; simpl; lia.
Qed.

Lemma serialised_pruned s ros ss : parallel_run p M d s ros ss -> empty s -> exists os cs, run M d [] os cs /\
  loads os + births output_of cs os <= total_loads ros + total_stores ros /\
  forall r m e, r < p -> In m (moments (track r ss ros) (program r ros)) -> useful e m -> exists c, In c cs /\ added d
    e c.
Proof.
  intros Hr H0.
  assert (G : forall n, exists os cs, run M d [] os cs /\
    loads os + births output_of cs os <= loads (map snd (filter (fun ro => fst ro <? n) ros)) +
      stores (map snd (filter (fun ro => fst ro <? n) ros)) /\
    forall r m e, r < n -> In m (moments (track r ss ros) (program r ros)) -> useful e m -> exists c, In c cs /\ added
      d e c).
  { induction n as [|n (os & cs & Hcs & HL & Hall)].
    - exists [], [[]]. split; [constructor|]. split; [simpl; lia|intros; lia].
    - pose proof (track_run n _ _ _ Hr) as Hn. rewrite H0 in Hn.
      destruct (prune output_of M d (fun _ => True) outputs_local (fun _ => eq_refl) _ _ _ Hn)
        as (H2 & HL2 & HB2); [apply Forall_forall; auto|].
      set (os2 := pruned_ops _ _ _) in *. set (cs2 := pruned_states _ _ _) in *.
      assert (Hnil : pruned output_of (track n ss ros) (program n ros) = []).
      { destruct (run_head _ _ _ _ _ Hn) as (tail & ->). reflexivity. }
      rewrite Hnil in H2. destruct (births_append _ _ _ Hcs _ _ H2) as (cs3 & H3 & HB3 & Hall3).
      exists (os ++ os2), cs3. split; [exact H3|]. split.
      + rewrite loads_app, loads_of_one_more, stores_of_one_more. lia.
      + intros r m e Hrn Hm Hu.
        assert (Hc : exists c, (In c cs \/ In c cs2) /\ added d e c).
        { destruct (Nat.eq_dec r n) as [->|Hne].
          - exists (pruned output_of (fst m) (snd m)). split.
            + right. apply (in_map (fun m => pruned output_of (fst m) (snd m))), Hm.
            + destruct m as [[|c cs'] os']; [destruct Hu as [[] _]|]. now apply useful_pruned.
          - destruct (Hall r m e ltac:(lia) Hm Hu) as (c & Hc & Ha). eauto. }
        destruct Hc as (c & Hc & Ha). destruct (Hall3 c Hc) as (c2 & Hc2 & Hi2). exists c2. split; [auto|].
        eapply added_more; eauto. }
  destruct (G p) as (os & cs & Hcs & HL & Hall). exists os, cs. split; [auto|]. split; [|auto].
  pose proof (loads_of_some (fun ro => fst ro <? p) ros). pose proof (stores_of_some (fun ro => fst ro <? p) ros). lia.
Qed.

(** A run of one processor that adds all products of E, and whose loads and births are no more than all traffic. *)
Lemma outputs_added dv s ros ss E : parallel_run p M d s ros ss -> empty s -> no_outputs (snd s) ->
  writes_outputs dv E (map snd ss) -> exists os cs, run M d [] os cs /\
  loads os + births output_of cs os <= total_loads ros + total_stores ros /\
  forall i j k, In (i, j) E -> k < dv -> exists c, In c cs /\ added d (i, j, k) c.
Proof.
  intros Hr H0 Hm HO. destruct (serialised_pruned s ros ss Hr H0) as (os & cs & Hcs & HL & Hall).
  exists os, cs. split; [exact Hcs|]. split; [exact HL|].
  intros i j k He Hk. destruct (HO i j k He Hk) as (m & J & Hin & HJ & Hj).
  apply in_map_iff in Hin. destruct Hin as (s' & <- & Hs').
  apply (stored_useful (fun e => exists c, In c cs /\ added d e c) s ros ss Hr Hall) with (s' := s') (J := J); auto.
  - intros i' k' J' j' Hin. now apply Hm in Hin.
  - intros r i' k' J' j' _ Hin. now rewrite H0 in Hin.
Qed.

(** Attention on p processors that share the slow memory: if they write all outputs of the pairs E, then
    4 d dv |E| <= (loads + stores of all processors + M) * max (M, 8 d dv), however many processors there are.
    Used by: simulator/ioaware/bounds.py (lower_bound). *)
Theorem parallel_total_traffic_lower_bound dv s ros ss E : 0 < M ->
  parallel_run p M d s ros ss -> empty s -> no_outputs (snd s) -> NoDup E -> writes_outputs dv E (map snd ss) ->
  4 * (d * dv) * length E <= (total_loads ros + total_stores ros + M) * Nat.max M (8 * (d * dv)).
Proof.
  intros HM Hr H0 Hm HE HO. destruct (outputs_added dv s ros ss E Hr H0 Hm HO) as (os & cs & Hcs & HL & Hall).
  eapply Nat.le_trans; [apply (accumulator_lower_bound M d dv os cs E HM Hcs HE Hall)|].
  apply Nat.mul_le_mono_r. lia.
Qed.

(** The same for dv <= d: (d + dv)^2 |E| <= (loads + stores of all processors + M) * max (M, 2 (d + dv)^2).
    Used by: simulator/ioaware/bounds.py (lower_bound). *)
Theorem parallel_narrow_traffic_lower_bound dv s ros ss E : 0 < M -> 0 < dv <= d ->
  parallel_run p M d s ros ss -> empty s -> no_outputs (snd s) -> NoDup E -> writes_outputs dv E (map snd ss) ->
  let w := (d + dv) * (d + dv) in w * length E <= (total_loads ros + total_stores ros + M) * Nat.max M (2 * w).
Proof.
  intros HM Hdv Hr H0 Hm HE HO w. destruct (outputs_added dv s ros ss E Hr H0 Hm HO) as (os & cs & Hcs & HL & Hall).
  eapply Nat.le_trans; [apply (narrow_accumulator_lower_bound M d dv os cs E HM Hdv Hcs HE Hall)|].
  apply Nat.mul_le_mono_r. lia.
Qed.
End Stores.

(** Every run that computes attention of the pairs E has 4 d dv |E| <= (loads + stores + M) * max (M, 8 d dv). For
    dv = d and M >= 8 d^2 that is loads + stores >= 4 d^2 |E| / M - M. *)
Theorem total_traffic_lower_bound M d dv E os : 0 < M -> NoDup E -> attention_run M d dv E os ->
  4 * (d * dv) * length E <= (loads os + stores os + M) * Nat.max M (8 * (d * dv)).
Proof.
  intros HM HE (m & ss & Hr & Hm & HO). rewrite <- (alone_loads os), <- (alone_stores os).
  apply (parallel_total_traffic_lower_bound 1 M d dv _ _ (map alone ss) E HM (alone_run _ _ _ _ _ Hr)
    (alone_empty m) Hm HE).
  now rewrite alone_memories.
Qed.

(** If dv <= d, as in latent attention, the constant is that of FlashAttention-2, too:
    (d + dv)^2 |E| <= (loads + stores + M) * max (M, 2 (d + dv)^2). *)
Theorem narrow_traffic_lower_bound M d dv E os : 0 < M -> 0 < dv <= d -> NoDup E -> attention_run M d dv E os ->
  let s := (d + dv) * (d + dv) in s * length E <= (loads os + stores os + M) * Nat.max M (2 * s).
Proof.
  intros HM Hdv HE (m & ss & Hr & Hm & HO). rewrite <- (alone_loads os), <- (alone_stores os).
  apply (parallel_narrow_traffic_lower_bound 1 M d dv _ _ (map alone ss) E HM Hdv (alone_run _ _ _ _ _ Hr)
    (alone_empty m) Hm HE).
  now rewrite alone_memories.
Qed.
