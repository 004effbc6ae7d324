(** Several processors: p private fast memories of M words each, and one slow memory that they share.

    Steps of the processors are interleaved in any order, and processors may exchange words through the slow memory.
    The loads of all the processors are counted. The bounds of LowerBound.v do not depend on what the slow memory holds.
    So one processor could do all the work alone, one program after the other, with the same loads, forgetting its fast
    memory between two programs. Hence the bounds of LowerBound.v and BackwardBound.v hold for the sum of the loads, and
    M does not become p M in them. A processor can be a streaming multiprocessor or a thread block, as long as it starts
    with an empty fast memory.

    Not covered are fast memories that others read directly (distributed shared memory of a cluster), and a cache
    between the processors and the slow memory: loads that it serves are counted, too. *)
From Coq Require Import List Arith Lia.
From IOAware Require Import Machine Counting LowerBound BackwardBound.
Import ListNotations.

Section Parallel.
Variables (p M d : nat).

(** The fast memory of every processor, and the slow memory. *)
Definition parallel_state := ((nat -> fast) * slow)%type.

(** Processor number r does one legal step; the fast memories of the others stay as they are. *)
Definition parallel_step (s : parallel_state) (ro : nat * op) (s' : parallel_state) : Prop :=
  let (r, o) := ro in
  r < p /\ legal_step M d (fst s r, snd s) o (fst s' r, snd s') /\ forall q, q <> r -> fst s' q = fst s q.

Inductive parallel_run : parallel_state -> list (nat * op) -> list parallel_state -> Prop :=
| parallel_nil s : parallel_run s [] [s]
| parallel_cons s ro s' ros ss :
    parallel_step s ro s' -> parallel_run s' ros ss -> parallel_run s (ro :: ros) (s :: ss).

Definition empty (s : parallel_state) := forall r, fst s r = [].

(** The loads and stores of all processors. *)
Definition total_loads (ros : list (nat * op)) := loads (map snd ros).
Definition total_stores (ros : list (nat * op)) := stores (map snd ros).

Lemma parallel_invariant (I : parallel_state -> Prop) s ros ss : parallel_run s ros ss -> I s ->
  (forall s r o s', In s ss -> In (r, o) ros -> parallel_step s (r, o) s' -> I s -> I s') ->
  forall s', In s' ss -> I s'.
Proof.
  induction 1 as [s|s [r o] s' ros ss Hst Hr IH]; intros H0 H s1 Hin.
  - now destruct Hin as [<-|[]].
  - destruct Hin as [<-|Hin]; [auto|]. apply IH; auto.
    + apply (H s r o); simpl; auto.
    + intros s2 r2 o2 s3 H2 Ho. apply H; simpl; auto.
Qed.

(** * One processor does the work of all *)

Definition program (r : nat) (ros : list (nat * op)) : list op := map snd (filter (fun ro => fst ro =? r) ros).

Lemma projection r s ros ss : parallel_run s ros ss ->
  exists cs, run M d (fst s r) (program r ros) cs /\ forall s', In s' ss -> In (fst s' r) cs.
Proof.
  induction 1 as [s|s [q o] s' ros ss (_ & [Hst _] & Hq) _ (cs & Hr & Hin)].
  - exists [fst s r]. split; [constructor|]. intros s' [<-|[]]. now left.
  - unfold program. simpl. destruct (Nat.eqb_spec q r) as [->|Hqr].
    + exists (fst s r :: cs). split; [econstructor; eauto|]. intros s1 [<-|H1]; [now left|right; auto].
    + rewrite (Hq r) in Hr by auto. exists cs. split; auto. intros s1 [<-|H1]; [|auto].
      destruct (run_head _ _ _ _ _ Hr) as (cs' & ->). now left.
Qed.

Lemma enabled_mono c c' o : incl c c' -> enabled d c o -> enabled d c' o.
Proof.
  intros H. destruct o as [w|w|q i j A|i k|i k J|n]; simpl; auto.
  - intros HA a Ha. destruct (HA a Ha) as [(B & HB & Hin)|[HL HR]]; [left|right]; eauto.
  - intros [(J0 & H0) HJ]. split; [eauto|]. intros j Hj.
    destruct (HJ j Hj) as [(J' & H1 & H2)|[(A & HA & Hf) HV]]; [left; eauto|right].
    split; [exists A|]; auto.
Qed.

(** Programs from an empty fast memory can be run one after the other. *)
Lemma run_append os1 c cs1 : run M d c os1 cs1 -> forall os2 cs2, run M d [] os2 cs2 ->
  exists cs, run M d c (os1 ++ os2) cs /\ forall c1, In c1 cs1 \/ In c1 cs2 -> exists c2, In c2 cs /\ incl c1 c2.
Proof.
  assert (refl : forall c : fast, incl c c) by (intros ? ? ?; auto).
  induction 1 as [c|c o c' os cs1 Hst Hr IH]; intros os2 cs2 H2.
  - assert (nil : incl [] c) by (intros ? []).
    inversion H2 as [|? o c' os cs (HM & He & Hi) Hr]; subst.
    + exists [c]. split; [constructor|]. intros c1 [[<-|[]]|[<-|[]]]; exists c; simpl; auto.
    + exists (c :: cs). split.
      * econstructor; [|exact Hr]. split; [auto|]. split; [exact (enabled_mono [] c o nil He)|].
        intros x Hx. apply Hi in Hx. rewrite app_nil_r in Hx. apply in_app_iff. now left.
      * intros c1 [[<-|[]]|[<-|H1]]; [exists c|exists c|exists c1]; simpl; auto.
  - destruct (IH os2 cs2 H2) as (cs & Hcs & Hall). exists (c :: cs). split; [econstructor; eauto|].
    intros c1 [[<-|H1]|H1].
    + exists c. simpl; auto.
    + destruct (Hall c1 (or_introl H1)) as (c2 & ? & ?). exists c2. simpl; auto.
    + destruct (Hall c1 (or_intror H1)) as (c2 & ? & ?). exists c2. simpl; auto.
Qed.

Lemma loads_of_one_more r ros :
  loads (map snd (filter (fun ro => fst ro <? S r) ros)) =
  loads (map snd (filter (fun ro => fst ro <? r) ros)) + loads (program r ros).
Proof.
  unfold program. induction ros as [|[q o] ros IH]; [auto|]. simpl.
  change (q <? S r) with (q <=? r). unfold loads in *. simpl.
  destruct (Nat.leb_spec q r), (Nat.ltb_spec q r), (Nat.eqb_spec q r); try lia;
    destruct o; simpl in *; lia.
Qed.

Lemma loads_of_some (f : nat * op -> bool) ros : loads (map snd (filter f ros)) <= total_loads ros.
Proof.
  unfold total_loads, loads. induction ros as [|[q o] ros IH]; [auto|].
  simpl. destruct (f (q, o)), o; simpl; lia.
Qed.

Lemma serialised s ros ss : parallel_run s ros ss -> empty s ->
  exists os cs, run M d [] os cs /\ loads os <= total_loads ros /\
    forall s' r, In s' ss -> r < p -> exists c, In c cs /\ incl (fst s' r) c.
Proof.
  intros Hr H0.
  assert (G : forall n, exists os cs, run M d [] os cs /\
    loads os = loads (map snd (filter (fun ro => fst ro <? n) ros)) /\
    forall s' r, In s' ss -> r < n -> exists c, In c cs /\ incl (fst s' r) c).
  { induction n as [|n (os & cs & Hcs & HL & Hall)].
    - exists [], [[]]. split; [constructor|]. split; [|intros; lia]. clear. induction ros as [|[] ros IH]; auto.
    - destruct (projection n s ros ss Hr) as (cs2 & H2 & Hin). rewrite (H0 n) in H2.
      destruct (run_append _ _ _ Hcs _ _ H2) as (cs3 & H3 & Hall3).
      exists (os ++ program n ros), cs3. split; [auto|]. split.
      + now rewrite loads_app, HL, loads_of_one_more.
      + intros s' r Hs Hrn. destruct (Nat.eq_dec r n) as [->|Hne]; [apply Hall3; auto|].
        destruct (Hall s' r Hs ltac:(lia)) as (c1 & Hc1 & Hi1).
        destruct (Hall3 c1 (or_introl Hc1)) as (c2 & Hc2 & Hi2). exists c2. split; [auto|]. eapply incl_tran; eauto. }
  destruct (G p) as (os & cs & Hcs & HL & Hall). exists os, cs. split; [auto|]. split; [|auto].
  rewrite HL. apply loads_of_some.
Qed.

Lemma complete_mono n q i j c c' : incl c c' -> complete n q i j c -> complete n q i j c'.
Proof. intros H (A & HA & Hf). exists A. auto. Qed.

(** Attention on p processors: if every product p_ij v_jk of the pairs E is formed at some time in some fast memory,
    then d (d + dv) |E| <= (loads of all processors + M) * max (M, 2 d (d + dv)). For dv = d and M >= 4 d^2 the sum of
    all loads is at least 2 d^2 |E| / M - M, however many processors there are.
    Used by: simulator/ioaware/bounds.py (lower_bound). *)
Theorem parallel_attention_lower_bound dv s ros ss E : 0 < dv -> 0 < M -> parallel_run s ros ss -> empty s -> NoDup E ->
  (forall e k, In e E -> k < dv -> exists s' r, In s' ss /\ r < p /\ used d (e, k) (fst s' r)) ->
  d * (d + dv) * length E <= (total_loads ros + M) * Nat.max M (2 * (d * (d + dv))).
Proof.
  intros Hdv HM Hr H0 HE H. destruct (serialised s ros ss Hr H0) as (os & cs & Hcs & HL & Hall).
  apply Nat.le_trans with ((loads os + M) * Nat.max M (2 * (d * (d + dv)))); [|apply Nat.mul_le_mono_r; lia].
  apply (attention_lower_bound_dims M d dv os cs); auto.
  intros [i j] k He Hk. destruct (H _ _ He Hk) as (s' & r & Hs & Hrp & Hu).
  destruct (Hall s' r Hs Hrp) as (c & Hc & Hi). exists c. split; [auto|].
  destruct Hu as [HS HV]. split; [eapply complete_mono; eauto|auto].
Qed.

(** The backward pass on p processors: (d + dv)^2 |E| <= (loads of all processors + M) * max (M, 2 (d + dv)^2).
    Used by: simulator/ioaware/bounds.py (lower_bound). *)
Theorem parallel_backward_lower_bound dv s ros ss E : 0 < M -> parallel_run s ros ss -> empty s -> NoDup E ->
  (forall e, In e E -> exists s' r, In s' ss /\ r < p /\ dS_ready d dv e (fst s' r)) ->
  (d + dv) * (d + dv) * length E <= (total_loads ros + M) * Nat.max M (2 * ((d + dv) * (d + dv))).
Proof.
  intros HM Hr H0 HE H. destruct (serialised s ros ss Hr H0) as (os & cs & Hcs & HL & Hall).
  apply Nat.le_trans with ((loads os + M) * Nat.max M (2 * ((d + dv) * (d + dv)))); [|apply Nat.mul_le_mono_r; lia].
  apply (backward_lower_bound_dims M d dv os cs); auto.
  intros e He. destruct (H e He) as (s' & r & Hs & Hrp & HS & HG).
  destruct (Hall s' r Hs Hrp) as (c & Hc & Hi). exists c. split; [auto|]. split; eapply complete_mono; eauto.
Qed.
End Parallel.
