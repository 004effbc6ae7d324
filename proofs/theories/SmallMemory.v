(** Small fast memories: attention moves at least 2 |E| d / sqrt(M) words, less lower terms.

    When M is below d^2, not even one row of Q and of K for each of sqrt(M) scores fits, and the bounds of LowerBound.v
    and FullAttention.v say little. Then Q K^T is like any matrix product, and its |E| d multiplications need
    2 |E| d / sqrt(M) words of traffic (LoomisWhitney.v): loads, and births of sums of scores. A sum that is born must
    be stored, or stay until its score is complete; so births are no more than stores, and one for each pair of E:

        4 (|E| d)^2 <= (loads + stores + |E| + 2 M)^2 M.

    Here E is the set of visible pairs, d the length of a row of Q and K, M the words of fast memory. Scores may be
    recomputed any number of times, inner products split and continued in any order, unfinished scores stored and loaded
    again. For N queries and keys this is Saha and Ye's bound for small memories with explicit constants: loads + stores
    are at least 2 N^2 d / sqrt(M) - N^2 - 2 M. It is the better bound for M below d^2 and void from M = 4 d^2 on.

    Not covered are algebra other than adding up products, and scores that slow memory holds at the start. The products
    p_ij v_jk are not counted: whether they need as much again, when scores may be recomputed for them, is open here. *)
From Coq Require Import List Arith Lia Bool.
From IOAware Require Import Machine Counting Parallel Outputs Masks Accumulators LoomisWhitney.
Import ListNotations.

Section SmallMemory.
Variables (M d : nat).
Notation legal_run := (legal_run M d).

(** * Storing a score when it is complete *)

(** The states of another run have the same fast memories, and more in slow memory. *)
Definition extends (ss ss' : list state) :=
  forall x, In x ss -> exists x', In x' ss' /\ fst x' = fst x /\ incl (snd x) (snd x').

Lemma extends_trans a b c : extends a b -> extends b c -> extends a c.
Proof.
  intros H1 H2 x Hx. destruct (H1 x Hx) as (y & Hy & Ey & Iy). destruct (H2 y Hy) as (z & Hz & Ez & Iz).
  exists z. split; [auto|]. split; [congruence|]. eapply incl_tran; eauto.
Qed.

Lemma extends_cons x x' a b : fst x' = fst x -> incl (snd x) (snd x') -> extends a b -> extends (x :: a) (x' :: b).
Proof.
  intros E I H y [<-|Hy]; [exists x'; simpl; auto|]. destruct (H y Hy) as (z & Hz & Ez). exists z. simpl; auto.
Qed.

Lemma more_slow s os ss : legal_run s os ss -> forall m, incl (snd s) m ->
  exists ss', legal_run (fst s, m) os ss' /\ extends ss ss'.
Proof.
  induction 1 as [s|s o s1 os ss [Hst Hslow] Hr IH]; intros m Hm.
  - exists [(fst s, m)]. split; [constructor|]. apply extends_cons; auto. intros x [].
  - set (m1 := match o with Store w => w :: m | _ => m end).
    destruct (IH m1) as (ss' & Hr' & He).
    { unfold m1. destruct o; try (rewrite Hslow; auto); [now destruct Hslow as [_ ->]|].
      intros x [<-|Hx]; simpl; auto. }
    exists ((fst s, m) :: ss'). split; [|now apply extends_cons].
    econstructor; [|exact Hr']. split; [exact Hst|]. unfold m1. destruct o; auto. destruct Hslow as [[Hi|Hi] _]; auto.
Qed.

Lemma legal_head s os ss : legal_run s os ss -> In s ss.
Proof. inversion 1; simpl; auto. Qed.

Lemma insert_store w s os ss : legal_run s os ss -> length (fst s) <= M -> forall x, In x ss -> In w (fst x) ->
  exists os' ss', legal_run s os' ss' /\ loads os' = loads os /\ stores os' = S (stores os) /\ extends ss ss' /\
    exists x', In x' ss' /\ In w (snd x').
Proof.
  intros Hr. induction Hr as [s|s o s1 os ss Hst Hr IH]; intros HL x Hx Hw.
  - destruct Hx as [<-|[]]. exists [Store w], [s; (fst s, w :: snd s)]. split; [|split; [auto|split; [auto|split]]].
    + econstructor; [|constructor]. split; [|auto]. split; [auto|]. split; [exact Hw|apply incl_refl].
    + intros y [<-|[]]. exists s. split; [now left|split; auto using incl_refl].
    + exists (fst s, w :: snd s). simpl; auto.
  - destruct Hx as [<-|Hx].
    + destruct (more_slow s (o :: os) (s :: ss)) with (m := w :: snd s) as (ss' & Hr' & He).
      { econstructor; eauto. }
      { apply incl_tl, incl_refl. }
      exists (Store w :: o :: os), (s :: ss'). split; [|split; [auto|split; [auto|split]]].
      * econstructor; [|exact Hr']. split; [|auto]. split; [auto|]. split; [exact Hw|apply incl_refl].
      * intros y Hy. destruct (He y Hy) as (z & Hz & E). exists z. simpl; auto.
      * exists (fst s, w :: snd s). split; [right; eapply legal_head; eauto|now left].
    + destruct (IH (proj1 (proj1 Hst)) x Hx Hw) as (os' & ss' & Hr' & HLo & HSt & He & x' & Hx' & Hw').
      exists (o :: os'), (s :: ss'). split; [econstructor; eauto|].
      rewrite (loads_app [o] os : loads (o :: os) = _), (loads_app [o] os' : loads (o :: os') = _).
      rewrite (stores_app [o] os : stores (o :: os) = _), (stores_app [o] os' : stores (o :: os') = _).
      split; [lia|]. split; [lia|]. split; [apply extends_cons; auto using incl_refl|]. exists x'. simpl; auto.
Qed.

Lemma store_scores s os ss E : legal_run s os ss -> length (fst s) <= M ->
  (forall i j, In (i, j) E -> exists x, In x ss /\ complete d QK i j (fst x)) ->
  exists os' ss', legal_run s os' ss' /\ loads os' = loads os /\ stores os' = stores os + length E /\ extends ss ss' /\
    forall i j, In (i, j) E -> exists x A, In x ss' /\ In (Part QK i j A) (snd x) /\ full d A.
Proof.
  intros Hr HL. induction E as [|[i j] E IH]; intros HE.
  - exists os, ss. repeat split; auto; try contradiction. intros x Hx. exists x. auto using incl_refl.
  - destruct IH as (os1 & ss1 & Hr1 & HL1 & HS1 & He1 & Hall1); [intros; apply HE; now right|].
    destruct (HE i j (or_introl eq_refl)) as (x & Hx & A & HA & HF). destruct (He1 x Hx) as (y & Hy & Ey & _).
    destruct (insert_store (Part QK i j A) s os1 ss1 Hr1 HL y Hy) as (os2 & ss2 & Hr2 & HL2 & HS2 & He2 & z & Hz & Hw);
      [now rewrite Ey|].
    exists os2, ss2. split; [auto|]. split; [lia|]. split; [simpl; lia|]. split; [eapply extends_trans; eauto|].
    intros i' j' [[= <- <-]|Hin]; [now exists z, A|]. destruct (Hall1 i' j' Hin) as (u & B & Hu & HB & HFB).
    destruct (He2 u Hu) as (u' & Hu' & _ & Iu). exists u', B. auto.
Qed.

(** * Forgetting outputs *)

Definition no_out (w : word) := match w with Out _ _ _ => false | _ => true end.
Definition erase (s : state) : state := (filter no_out (fst s), filter no_out (snd s)).
Definition erase_op (o : op) := match o with
  | Load (Out _ _ _) | Store (Out _ _ _) | Zero _ _ | Accumulate _ _ _ => Misc 0
  | _ => o end.

Lemma erase_step s o s' : legal_step M d s o s' -> legal_step M d (erase s) (erase_op o) (erase s').
Proof.
  destruct s as [c m], s' as [c' m']. intros [(HL & He & Hi) Hslow]. cbn [fst snd erase] in *. unfold erase.
  cbn [fst snd].
  assert (Hin : forall w, no_out w = true -> In w c -> In w (filter no_out c)) by (intros; now apply filter_In).
  split; [split; [|split]|].
  - apply Nat.le_trans with (2 := HL). clear. cbn [fst]. generalize no_out. intros f.
    induction c' as [|w c' IH]; simpl; [lia|]. destruct (f w); simpl; lia.
  - destruct o as [w|w|p i j A|i k|i k J|n]; try exact I; [destruct w; exact I|destruct w; try exact I; apply Hin;
      auto|].
    intros a Ha. destruct (He a Ha) as [(B & HB & HaB)|[H1 H2]]; [left; exists B|right]; auto.
  - intros w [Hw Hn]%filter_In. specialize (Hi w Hw). apply in_app_iff in Hi. apply in_app_iff.
    destruct Hi as [Hi|Hi]; [left|right; auto].
    destruct o as [u|u|p i j A|i k|i k J|n]; simpl in Hi; try contradiction; destruct Hi as [<-|[]]; try discriminate
      Hn;
      simpl; auto. destruct u; simpl; auto. discriminate Hn.
  - destruct o as [w|w|p i j A|i k|i k J|n]; cbn [erase_op]; try (now rewrite Hslow).
    + destruct Hslow as [Hw ->]. destruct w; simpl; auto;
        (split; [|auto]; destruct Hw as [[]|Hw]; right; now apply filter_In).
    + rewrite Hslow. destruct w; simpl; auto.
Qed.

Lemma erase_run s os ss : legal_run s os ss -> legal_run (erase s) (map erase_op os) (map erase ss).
Proof. induction 1; simpl; econstructor; eauto using erase_step. Qed.

Lemma erase_traffic os : loads (map erase_op os) <= loads os /\ stores (map erase_op os) <= stores os.
Proof.
  unfold loads, stores. induction os as [|o os [IH1 IH2]]; [auto|]. destruct o as [[]|[]| | | |]; simpl; lia.
Qed.

Definition needs_no_scores (o : op) := match o with Zero _ _ | Accumulate _ _ _ => False | _ => True end.

Lemma erase_local os : Forall needs_no_scores (map erase_op os).
Proof. apply Forall_map, Forall_forall. intros [[]|[]| | | |] _; exact I. Qed.

Lemma scores_local c c' o : needs_no_scores o -> enabled d c o ->
  (forall w, In w c -> score_of w = None \/ score_of w = target score_of o -> In w c') -> enabled d c' o.
Proof.
  destruct o as [w|w|p i j A|i k|i k J|n]; simpl; try contradiction; auto. intros _ He H a Ha.
  destruct (He a Ha) as [(B & HB & HaB)|[HL HR]]; [left; exists B|right]; split; auto.
Qed.

(** * Multiplications of stored scores *)

(** At this moment the operation multiplies, and its sum will be stored. *)
Definition useful_product (e : nat * nat * nat) (moment : list fast * list op) :=
  match moment with
  | (c :: cs, o :: os) => multiplies e (c, o) /\ live score_of (fst e) cs os = true
  | _ => False
  end.

Lemma stored_products (G : nat * nat * nat -> Prop) s os ss : legal_run s os ss ->
  (forall m e, In m (moments (map fst ss) os) -> useful_product e m -> G e) ->
  (forall i j A a, In (Part QK i j A) (snd s) -> In a A -> G (i, j, a)) ->
  (forall i j A a, In (Part QK i j A) (fst s) -> In a A -> live score_of (i, j) (map fst ss) os = true -> G (i, j, a))
    ->
  forall x, In x ss -> forall i j A a, In (Part QK i j A) (snd x) -> In a A -> G (i, j, a).
Proof.
  induction 1 as [s|s o s1 os ss [(_ & He & Hi) Hslow] Hr IH]; intros HG Hsnd Hfst x Hx.
  - destruct Hx as [<-|[]]. auto.
  - destruct Hx as [<-|Hx]; [auto|]. revert x Hx. cbn [map] in *.
    assert (Hlive : forall i j A a, In (Part QK i j A) (fst s) -> In a A ->
      saves score_of (i, j) o || live score_of (i, j) (map fst ss) os = true -> G (i, j, a)).
    { intros i j A a HA Ha Hl. apply (Hfst i j A a); auto. rewrite live_cons, Hl, andb_true_r. apply held_spec.
      exists (Part QK i j A). auto. }
    apply IH; clear IH.
    + intros m e Hm. apply HG. now right.
    + intros i j A a HA Ha.
      destruct o as [w|w|p b c B|b c|b c J|n]; [destruct Hslow as [_ Hslow]| | | | |]; rewrite Hslow in HA; eauto.
      destruct HA as [->|HA]; [|eauto]. apply (Hlive i j A a); auto. apply orb_true_iff. left. now apply sum_of_spec.
    + intros i j A a HA Ha Hl. apply Hi, in_app_iff in HA.
      destruct HA as [HA|HA]; [|apply (Hlive i j A a); auto; now rewrite Hl, orb_true_r].
      destruct o as [w|w|p b c B|b c|b c J|n]; simpl in HA; try contradiction; destruct HA as [HA|[]]; try
        discriminate HA.
      * subst w. destruct Hslow as [[[]|Hin] _]. eauto.
      * injection HA as -> -> -> ->. simpl in He. destruct (He a Ha) as [(B & HB & HaB)|[HQ HK]].
        -- apply (Hlive i j B a); auto.
        -- apply (HG (fst s :: map fst ss, Dot QK i j A :: os)); [now left|]. split; [|exact Hl].
           split; [exists A; auto|]. auto.
Qed.

Lemma useful_pruned_product e cs os m : In m (moments cs os) -> useful_product e m ->
  exists x, In x (combine (pruned_states score_of cs os) (pruned_ops score_of cs os)) /\ multiplies e x.
Proof.
  revert os. induction cs as [|c cs IH]; intros os Hm Hu; [destruct os; contradiction|]. destruct os as [|o os].
  - destruct Hm as [<-|[]]. contradiction.
  - destruct Hm as [<-|Hm]; [|destruct (IH os Hm Hu) as (x & Hx & Hmul); exists x; split; [now right|auto]].
    exists (pruned score_of (c :: cs) (o :: os), pruned_op score_of cs os o). split; [now left|].
    destruct e as [[i j] a]. destruct Hu as [[(A & Ho & Ha) [HQ HK]] Hl]. cbn [fst snd] in *. subst o. split; [|split].
    + exists A. split; [|auto]. unfold pruned_op. simpl. now rewrite Hl.
    + apply pruned_In. auto.
    + apply pruned_In. auto.
Qed.

(** * The bounds *)

Definition no_scores (m : slow) := forall i j A, ~ In (Part QK i j A) m.

Lemma stored_scores_bound m os ss E : 0 < M -> legal_run ([], m) os ss -> no_scores m -> NoDup E ->
  (forall i j, In (i, j) E -> exists x A, In x ss /\ In (Part QK i j A) (snd x) /\ full d A) ->
  let traffic := loads os + stores os + 2 * M in
  4 * ((length E * d) * (length E * d)) <= traffic * traffic * M.
Proof.
  intros HM Hr Hm HE Hall traffic. apply erase_run in Hr. destruct (erase_traffic os) as [HL HS].
  change (erase ([], m)) with ([] : fast, filter no_out m) in Hr.
  set (os1 := map erase_op os) in *. set (ss1 := map erase ss) in *.
  destruct (prune score_of M d needs_no_scores scores_local (fun _ => eq_refl) os1 _ _
    (legal_run_is_run M d _ _ _ Hr) (erase_local os)) as (Hp & HL1 & HB1).
  assert (Hnil : pruned score_of (map fst ss1) os1 = []) by (inversion Hr; reflexivity). rewrite Hnil in Hp.
  pose proof (multiplications_lower_bound M d _ _ (list_prod E (seq 0 d)) HM Hp
    (product_nodup _ _ HE (seq_NoDup _ _))) as B.
  rewrite prod_length, seq_length in B. cbv zeta in B. eapply Nat.le_trans; [apply B|].
  - intros [[i j] a] Hin. apply in_prod_iff in Hin. rewrite in_seq in Hin. destruct Hin as [Hij Ha].
    destruct (Hall i j Hij) as (x & A & Hx & HA & HF).
    apply (stored_products (fun e => exists y, In y _ /\ multiplies e y) _ _ _ Hr (fun m e Hin Hu =>
      useful_pruned_product e _ _ m Hin Hu)) with (x := erase x) (A := A); auto.
    + intros i' j' A' a' [Hin _]%filter_In. now apply Hm in Hin.
    + intros i' j' A' a' [].
    + now apply in_map.
    + now apply filter_In.
    + apply HF. lia.
  - apply Nat.mul_le_mono_r, Nat.mul_le_mono; unfold traffic; lia.
Qed.

(** Scores alone: a run that starts with an empty fast memory and no scores in slow memory, and that completes the
    scores of all pairs of E, has 4 (|E| d)^2 <= (loads + stores + |E| + 2 M)^2 M. *)
Theorem small_memory_score_lower_bound m os ss E : 0 < M -> legal_run ([], m) os ss -> no_scores m -> NoDup E ->
  (forall i j, In (i, j) E -> exists x, In x ss /\ complete d QK i j (fst x)) ->
  let traffic := loads os + stores os + length E + 2 * M in
  4 * ((length E * d) * (length E * d)) <= traffic * traffic * M.
Proof.
  intros HM Hr Hm HE Hall traffic.
  destruct (store_scores _ _ _ E Hr (Nat.le_0_l M) Hall) as (os' & ss' & Hr' & HL & HS & _ & Hall').
  pose proof (stored_scores_bound m os' ss' E HM Hr' Hm HE Hall') as B. cbv zeta in B. rewrite HL, HS in B.
  unfold traffic.
  now replace (loads os + stores os + length E + 2 * M) with (loads os + (stores os + length E) + 2 * M) by lia.
Qed.

(** Attention: a run that starts with an empty fast memory and neither outputs nor scores in slow memory, and that
    writes all outputs of the pairs E, has 4 (|E| d)^2 <= (loads + stores + |E| + 2 M)^2 M, so that
    loads + stores >= 2 |E| d / sqrt(M) - |E| - 2 M.
    Used by: simulator/ioaware/bounds.py (small_memory_words). *)
Theorem small_memory_lower_bound dv m os ss E : 0 < M -> 0 < dv -> legal_run ([], m) os ss -> no_outputs m ->
  no_scores m -> NoDup E -> writes_outputs dv E (map snd ss) ->
  let traffic := loads os + stores os + length E + 2 * M in
  4 * ((length E * d) * (length E * d)) <= traffic * traffic * M.
Proof.
  intros HM Hdv Hr Hno Hns HE HO. apply (small_memory_score_lower_bound m os ss E); auto.
  intros i j Hij. destruct (HO i j 0 Hij Hdv) as (m' & J & Hin & HJ & Hj).
  apply in_map_iff in Hin. destruct Hin as (s' & <- & Hs').
  destruct (outputs_used M d 1 _ _ _ (alone_run M d _ _ _ Hr) (alone_empty m) Hno (alone s') (in_map alone _ _ Hs')
    i 0 J j HJ Hj) as (s1 & r & Hs1 & Hr1 & Hu & _).
  apply in_map_iff in Hs1. destruct Hs1 as (x & <- & Hx). exists x. split; [exact Hx|].
  replace r with 0 in Hu by lia. exact Hu.
Qed.
End SmallMemory.
