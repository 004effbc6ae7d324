(** The schedule of FlashAttention-2 meets the lower bounds of LowerBound.v to the leading constant.

    A tile of Br query rows is loaded once and stays; the keys pass by, one at a time, each with its row of V if the
    products p_ij v_jk are wanted. This is a legal run of the machine of Machine.v and loads

        N d + ceil(N / Br) N d      if only the scores are wanted,   with Br d + d + 1 <= M, and
        N d + 2 ceil(N / Br) N d    for the products p_ij v_jk,      with Br d + 2 d + 1 <= M.

    With the largest such Br these are N^2 d^2 / M and 2 N^2 d^2 / M to leading order, as the lower bounds are: their
    constants 1 and 2 cannot be improved on this machine.

    Here a product counts when its score and its entry of V meet; the sums of O take no room. With room for them Br
    halves, and the constant of this schedule is 4: FlashTraffic.v. Another schedule keeps the second constant even then,
    by writing outputs in parts: KeyStationary.v. Rows of Q, K and V have the same length d here, and there is no mask. *)
From Coq Require Import List Arith Lia.
From IOAware Require Import IOCounts Machine Counting LowerBound.
Import ListNotations.

Section Schedule.
Variables (M d : nat).

(** * Runs, one after the other *)

(** A legal run that ends in a given state. *)
Inductive travels : state -> list op -> state -> list state -> Prop :=
| stays s : travels s [] s [s]
| goes s o s1 os s2 ss : legal_step M d s o s1 -> travels s1 os s2 ss -> travels s (o :: os) s2 (s :: ss).

Lemma travels_legal s os s' ss : travels s os s' ss -> legal_run M d s os ss.
Proof. induction 1; econstructor; eauto. Qed.

Lemma travels_first s os s' ss : travels s os s' ss -> In s ss.
Proof. destruct 1; now left. Qed.

Lemma travels_app s os1 s1 ss1 : travels s os1 s1 ss1 -> forall os2 s2 ss2, travels s1 os2 s2 ss2 ->
  exists ss, travels s (os1 ++ os2) s2 ss /\ incl ss1 ss /\ incl ss2 ss.
Proof.
  induction 1 as [s|s o s1 os s2 ss Hst _ IH]; intros os2 s3 ss2 H2.
  - exists ss2. split; [auto|]. split; [|apply incl_refl]. intros x [<-|[]]. eapply travels_first; eauto.
  - destruct (IH _ _ _ H2) as (ss' & R & I1 & I2). exists (s :: ss'). split; [econstructor; eauto|].
    split; [|now apply incl_tl]. intros x [<-|Hx]; [now left|right; auto].
Qed.

(** From any fast memory that holds c, the operations lead to one that holds c', and on the way, for each pair (i, j) of
    D, the score is complete while all words of [partner j] are there. *)
Variable partner : nat -> list word.
Definition meets (e : nat * nat) (c : fast) := complete d QK (fst e) (snd e) c /\ incl (partner (snd e)) c.

Definition leads c os c' (D : list (nat * nat)) := forall s, incl c (fst s) -> length (fst s) <= M ->
  exists s' ss, travels s os s' ss /\ incl c' (fst s') /\ length (fst s') <= M /\
    forall e, In e D -> exists x, In x ss /\ meets e (fst x).

Lemma leads_nothing c : leads c [] c [].
Proof. intros s I L. exists s, [s]. split; [constructor|]. split; [auto|]. split; [auto|intros ? []]. Qed.

Lemma leads_app c os1 c1 D1 c2 os2 c3 D2 : leads c os1 c1 D1 -> incl c2 c1 -> leads c2 os2 c3 D2 ->
  leads c (os1 ++ os2) c3 (D1 ++ D2).
Proof.
  intros H1 I H2 s Is Ls. destruct (H1 s Is Ls) as (s1 & ss1 & R1 & I1 & L1 & W1).
  destruct (H2 s1 (incl_tran I I1) L1) as (s2 & ss2 & R2 & I2 & L2 & W2).
  destruct (travels_app _ _ _ _ R1 _ _ _ R2) as (ss & R & J1 & J2).
  exists s2, ss. split; [auto|]. split; [auto|]. split; [auto|]. intros e He. apply in_app_iff in He.
  destruct He as [He|He]; [destruct (W1 e He) as (x & Hx & Hm)|destruct (W2 e He) as (x & Hx & Hm)]; exists x; auto.
Qed.

(** Loading inputs; what else was in fast memory is dropped. *)
Lemma leads_load ws : forall c, (forall w, In w ws -> input w) -> length ws + length c <= M ->
  leads c (map Load ws) (ws ++ c) [].
Proof.
  induction ws as [|w ws IH]; intros c Hin L; [apply leads_nothing|]. simpl in L.
  assert (H1 : leads c [Load w] (w :: c) []).
  { intros s Is Ls. exists (w :: c, snd s), [s; (w :: c, snd s)]. split; [|split; [apply incl_refl|split]].
    - econstructor; [|constructor]. split; [split; [simpl; lia|split; [exact I|]]|].
      + intros x [<-|Hx]; [now left|right; auto].
      + split; [left; apply Hin; now left|auto].
    - simpl; lia.
    - intros ? []. }
  assert (H2 : leads (w :: c) (map Load ws) (ws ++ w :: c) []) by (apply IH; simpl; [auto using in_cons|lia]).
  assert (H := leads_app _ _ _ _ _ _ _ _ H1 (incl_refl _) H2). intros s Is Ls.
  destruct (H s Is Ls) as (s' & ss & R & I' & L' & W). exists s', ss. split; [auto|]. split; [|auto].
  intros x [<-|Hx]; apply I', in_app_iff; [right; now left|]. apply in_app_iff in Hx. simpl. tauto.
Qed.

(** A score; the one before it is dropped. *)
Definition score j i := Dot QK i j (seq 0 d).

Lemma leads_score c i j : length c < M -> incl (partner j) c -> (forall a, a < d -> In (Q i a) c /\ In (K j a) c) ->
  leads c [score j i] c [(i, j)].
Proof.
  intros L HP Hin s Is Ls. set (c' := Part QK i j (seq 0 d) :: c).
  exists (c', snd s), [s; (c', snd s)]. split; [|split; [apply incl_tl, incl_refl|split; [simpl; lia|]]].
  - econstructor; [|constructor]. split; [|reflexivity]. split; [simpl; lia|]. split.
    + intros a Ha. apply in_seq in Ha. destruct (Hin a ltac:(lia)). right; auto.
    + intros x [<-|Hx]; [now left|right; auto].
  - intros e [<-|[]]. exists (c', snd s). split; [right; now left|]. split.
    + exists (seq 0 d). split; [now left|]. intros a Ha. apply in_seq; lia.
    + apply incl_tl, HP.
Qed.

Lemma leads_scores c j rows : length c < M -> incl (partner j) c ->
  (forall i a, In i rows -> a < d -> In (Q i a) c /\ In (K j a) c) ->
  leads c (map (score j) rows) c (map (fun i => (i, j)) rows).
Proof.
  intros L HP. induction rows as [|i rows IH]; intros Hin; [apply leads_nothing|].
  apply (leads_app c [score j i] c [(i, j)] c (map (score j) rows) c); [|apply incl_refl|apply IH; auto using in_cons].
  apply leads_score; auto. intros a Ha. apply Hin; [now left|auto].
Qed.

(** * The schedule *)
Variable width : nat.
Hypothesis partner_width : forall j, length (partner j) = width.
Hypothesis partner_inputs : forall j w, In w (partner j) -> input w.
Hypothesis partner_keys : forall j a, a < d -> In (K j a) (partner j).

Definition queries rows := map (fun p => Q (fst p) (snd p)) (list_prod rows (seq 0 d)).
Definition pass rows j := map Load (partner j) ++ map (score j) rows.
Definition tile_pass N rows := map Load (queries rows) ++ flat_map (pass rows) (seq 0 N).
Definition flash N tiles := flat_map (tile_pass N) tiles.

Lemma queries_length rows : length (queries rows) = length rows * d.
Proof. unfold queries. now rewrite map_length, prod_length, seq_length. Qed.

Lemma queries_in rows i a : In i rows -> a < d -> In (Q i a) (queries rows).
Proof. intros Hi Ha. apply in_map_iff. exists (i, a). split; [auto|]. apply in_prod; [auto|apply in_seq; lia]. Qed.

Lemma leads_keys rows keys : length rows * d + width + 1 <= M ->
  leads (queries rows) (flat_map (pass rows) keys) (queries rows)
    (flat_map (fun j => map (fun i => (i, j)) rows) keys).
Proof.
  intros L. induction keys as [|j keys IH]; [apply leads_nothing|].
  apply leads_app with (c1 := queries rows) (c2 := queries rows); [|apply incl_refl|auto].
  set (c := partner j ++ queries rows).
  assert (Lc : length c < M) by (unfold c; rewrite app_length, partner_width, queries_length; lia).
  assert (H1 : leads (queries rows) (map Load (partner j)) c []).
  { apply leads_load; [apply partner_inputs|]. rewrite partner_width, queries_length. lia. }
  assert (H2 : leads c (map (score j) rows) c (map (fun i => (i, j)) rows)).
  { apply leads_scores; [auto|apply incl_appl, incl_refl|]. intros i a Hi Ha.
    split; apply in_app_iff; [right; now apply queries_in|left; now apply partner_keys]. }
  intros s Is Ls. destruct (leads_app _ _ _ _ _ _ _ _ H1 (incl_refl _) H2 s Is Ls) as (s' & ss & R & I & L' & W).
  exists s', ss. split; [auto|]. split; [|auto]. intros x Hx. apply I, in_app_iff. now right.
Qed.

Lemma leads_flash N tiles : (forall rows, In rows tiles -> length rows * d + width + 1 <= M) ->
  leads [] (flash N tiles) [] (flat_map (fun rows => flat_map (fun j => map (fun i => (i, j)) rows) (seq 0 N)) tiles).
Proof.
  induction tiles as [|rows tiles IH]; intros L; [apply leads_nothing|].
  apply leads_app with (c1 := queries rows) (c2 := []); [|intros ? []|apply IH; auto using in_cons].
  specialize (L rows (or_introl eq_refl)).
  assert (H1 : leads [] (map Load (queries rows)) (queries rows) []).
  { rewrite <- (app_nil_r (queries rows)) at 2. apply leads_load.
    - intros w Hw. apply in_map_iff in Hw. destruct Hw as (p & <- & _). exact I.
    - rewrite queries_length. simpl. lia. }
  exact (leads_app _ _ _ _ _ _ _ _ H1 (incl_refl _) (leads_keys rows (seq 0 N) L)).
Qed.

(** ** Its loads *)
Lemma loads_map ws : loads (map Load ws) = length ws.
Proof. unfold loads. induction ws; simpl; auto. Qed.

Lemma loads_scores j rows : loads (map (score j) rows) = 0.
Proof. unfold loads. induction rows; simpl; auto. Qed.

Lemma loads_keys rows keys : loads (flat_map (pass rows) keys) = length keys * width.
Proof.
  induction keys as [|j keys IH]; [auto|]. simpl. unfold pass at 1.
  now rewrite !loads_app, loads_map, loads_scores, partner_width, IH, Nat.add_0_r.
Qed.

Lemma loads_flash N tiles : loads (flash N tiles) = length (concat tiles) * d + length tiles * (N * width).
Proof.
  induction tiles as [|rows tiles IH]; [auto|].
  change (flash N (rows :: tiles)) with (tile_pass N rows ++ flash N tiles).
  simpl concat. unfold tile_pass. rewrite !loads_app, loads_map, loads_keys, IH, app_length, queries_length, seq_length.
  simpl length. ring.
Qed.

(** ** Tiles of at most Br of the rows 0 .. N - 1 *)
Fixpoint cut Br number first N :=
  match number with 0 => [] | S number => seq first (Nat.min Br (N - first)) :: cut Br number (first + Br) N end.

Lemma cut_length Br number : forall first N, length (cut Br number first N) = number.
Proof. induction number; simpl; auto. Qed.

Lemma cut_rows Br number : forall first N rows, In rows (cut Br number first N) -> length rows <= Br.
Proof. induction number; simpl; intros first N rows []; [subst; rewrite seq_length; lia|eauto]. Qed.

Lemma cut_concat Br number : forall first N, N <= first + number * Br ->
  concat (cut Br number first N) = seq first (N - first).
Proof.
  induction number as [|number IH]; intros first N H; simpl in *.
  - now replace (N - first) with 0 by lia.
  - rewrite IH by lia. destruct (le_lt_dec (N - first) Br) as [L|L].
    + replace (N - (first + Br)) with 0 by lia. rewrite Nat.min_r by lia. apply app_nil_r.
    + rewrite Nat.min_l by lia. replace (N - first) with (Br + (N - (first + Br))) by lia. now rewrite seq_app.
Qed.

(** The schedule with tiles of Br query rows. *)
Lemma flash_runs N Br : 0 < Br -> Br * d + width + 1 <= M ->
  exists os ss, legal_run M d ([], []) os ss /\ loads os = N * d + cdiv N Br * (N * width) /\
    forall i j, i < N -> j < N -> exists s, In s ss /\ meets (i, j) (fst s).
Proof.
  intros HB HM. set (tiles := cut Br (cdiv N Br) 0 N).
  assert (HC : concat tiles = seq 0 N).
  { unfold tiles. rewrite cut_concat; [now rewrite Nat.sub_0_r|]. pose proof (cdiv_spec N Br HB). lia. }
  assert (Hrows : forall rows, In rows tiles -> length rows * d + width + 1 <= M).
  { intros rows Hin. apply cut_rows in Hin. pose proof (Nat.mul_le_mono_r _ _ d Hin). lia. }
  destruct (leads_flash N tiles Hrows ([], []) (incl_refl _) (Nat.le_0_l M)) as (s' & ss & R & _ & _ & W).
  exists (flash N tiles), ss. split; [now apply travels_legal with s'|]. split.
  - rewrite loads_flash, HC, seq_length. unfold tiles. now rewrite cut_length.
  - intros i j Hi Hj. apply W. assert (Hin : In i (concat tiles)) by (rewrite HC; apply in_seq; lia).
    apply in_concat in Hin. destruct Hin as (rows & Hr & Hir). apply in_flat_map. exists rows. split; [auto|].
    apply in_flat_map. exists j. split; [apply in_seq; lia|]. apply in_map_iff. now exists i.
Qed.
End Schedule.

(** * What it attains *)
Definition key_row d j := map (K j) (seq 0 d).
Definition key_value_row d j := key_row d j ++ map (V j) (seq 0 d).

Lemma key_row_in d j a : a < d -> In (K j a) (key_row d j).
Proof. intros H. apply in_map, in_seq. lia. Qed.

(** All N^2 scores, with tiles of Br query rows: the schedule of FlashAttention-2 is a legal run of the machine that
    loads exactly N d + ceil(N / Br) N d words, if Br d + d + 1 <= M. *)
Theorem flash_attains M d N Br : 0 < Br -> Br * d + d + 1 <= M ->
  exists os ss, legal_run M d ([], []) os ss /\ loads os = N * d + cdiv N Br * (N * d) /\
    forall i j, i < N -> j < N -> exists s, In s ss /\ complete d QK i j (fst s).
Proof.
  intros HB HM. destruct (flash_runs M d (key_row d) d) with (N := N) (Br := Br) as (os & ss & R & L & W); auto.
  - intros j. unfold key_row. now rewrite map_length, seq_length.
  - intros j w Hw. apply in_map_iff in Hw. destruct Hw as (a & <- & _). exact I.
  - intros j a Ha. now apply key_row_in.
  - exists os, ss. split; [auto|]. split; [auto|]. intros i j Hi Hj. destruct (W i j Hi Hj) as (s & Hs & Hm & _). eauto.
Qed.

(** All products p_ij v_jk of full attention, in terms of [used]: each is there for the taking when its finished score
    and its entry of V are both in fast memory. The schedule of FlashAttention-2 is a legal run that loads exactly
    N d + 2 ceil(N / Br) N d words, if Br d + 2 d + 1 <= M. The sums of O take no room here. *)
Theorem attention_attains M d N Br : 0 < Br -> Br * d + 2 * d + 1 <= M ->
  exists os ss, legal_run M d ([], []) os ss /\ loads os = N * d + cdiv N Br * (N * (2 * d)) /\
    forall i j k, i < N -> j < N -> k < d -> exists s, In s ss /\ used d (i, j, k) (fst s).
Proof.
  intros HB HM.
  destruct (flash_runs M d (key_value_row d) (2 * d)) with (N := N) (Br := Br) as (os & ss & R & L & W); auto.
  - intros j. unfold key_value_row, key_row. rewrite app_length, !map_length, seq_length. lia.
  - intros j w Hw. apply in_app_iff in Hw. destruct Hw as [Hw|Hw]; apply in_map_iff in Hw; destruct Hw as (a & <- & _);
      exact I.
  - intros j a Ha. apply in_app_iff. left. now apply key_row_in.
  - exists os, ss. split; [auto|]. split; [auto|]. intros i j k Hi Hj Hk. destruct (W i j Hi Hj) as (s & Hs & Hm & HV).
    exists s. split; [auto|]. split; [auto|]. apply HV, in_app_iff. right. apply in_map, in_seq. simpl. lia.
Qed.

(** * And that it is optimal to leading order *)
Lemma largest_tile d room : 0 < d -> d <= room -> exists Br, 0 < Br /\ Br * d <= room /\ room + 1 <= Br * d + d.
Proof.
  intros Hd HM. exists (room / d). pose proof (Nat.div_mod room d ltac:(lia)) as E.
  pose proof (Nat.mod_upper_bound room d ltac:(lia)). rewrite Nat.mul_comm in E.
  split; [|lia]. destruct (room / d); lia.
Qed.

(** What tiles cost beyond one pass: one tile fewer than there are, times the rows of a tile, is at most N. *)
Lemma repeated N Br : 0 < Br -> (cdiv N Br - 1) * Br <= N.
Proof. intros HB. pose proof (cdiv_spec N Br HB). rewrite Nat.mul_sub_distr_r. lia. Qed.

Definition all_pairs N := list_prod (seq 0 N) (seq 0 N).

Lemma all_pairs_nodup N : NoDup (all_pairs N).
Proof. apply product_nodup; apply seq_NoDup. Qed.

(** Scores: with the largest tile, the loads L of the schedule and those L' of any run that completes all N^2 scores
    satisfy (M - 2 d) (L - 2 N d) <= N^2 d^2 <= (L' + M) M. So for N d and M that are small against L, and d that is
    small against M, no run loads less than the schedule. *)
Theorem flash_optimal M d N : 0 < d -> 2 * (d * d) <= M -> 2 * d + 1 <= M ->
  exists os ss, legal_run M d ([], []) os ss /\
    (forall i j, i < N -> j < N -> exists s, In s ss /\ complete d QK i j (fst s)) /\
    forall os' cs', run M d [] os' cs' ->
      (forall i j, i < N -> j < N -> exists c, In c cs' /\ complete d QK i j c) ->
      (M - 2 * d) * (loads os - 2 * (N * d)) <= N * N * (d * d) <= (loads os' + M) * M.
Proof.
  intros Hd H2 HM. destruct (largest_tile d (M - d - 1) Hd ltac:(lia)) as (Br & HB & H1 & H3).
  destruct (flash_attains M d N Br HB ltac:(lia)) as (os & ss & R & HL & HW).
  exists os, ss. split; [auto|]. split; [auto|]. intros os' cs' R' W'. split.
  - pose proof (repeated N Br HB) as HT. rewrite HL. set (T := cdiv N Br) in *.
    apply Nat.le_trans with ((Br * d) * ((T - 1) * (N * d))).
    + apply Nat.mul_le_mono; [lia|]. rewrite Nat.mul_sub_distr_r. lia.
    + replace (Br * d * ((T - 1) * (N * d))) with (((T - 1) * Br) * (N * (d * d))) by ring.
      replace (N * N * (d * d)) with (N * (N * (d * d))) by ring. now apply Nat.mul_le_mono_r.
  - pose proof (score_lower_bound M d os' cs' (all_pairs N) Hd ltac:(lia) R' (all_pairs_nodup N)) as B.
    unfold all_pairs in B. rewrite prod_length, seq_length in B. rewrite (Nat.max_l M) in B by lia.
    rewrite (Nat.mul_comm (N * N)). apply B. intros [i j] He. apply in_prod_iff in He. rewrite !in_seq in He.
    apply W'; simpl; lia.
Qed.

(** Full attention: with the largest tile, the loads L of the schedule and those L' of any run that forms all products
    p_ij v_jk satisfy (M - 3 d) (L - 3 N d) <= 2 N^2 d^2 <= (L' + M) M. So the constant 2 of the lower bound is tight
    for runs that need no room for the sums of O. *)
Theorem attention_optimal M d N : 0 < d -> 4 * (d * d) <= M -> 3 * d + 1 <= M ->
  exists os ss, legal_run M d ([], []) os ss /\
    (forall i j k, i < N -> j < N -> k < d -> exists s, In s ss /\ used d (i, j, k) (fst s)) /\
    forall os' cs', run M d [] os' cs' ->
      (forall i j k, i < N -> j < N -> k < d -> exists c, In c cs' /\ used d (i, j, k) c) ->
      (M - 3 * d) * (loads os - 3 * (N * d)) <= 2 * (N * N * (d * d)) <= (loads os' + M) * M.
Proof.
  intros Hd H4 HM. destruct (largest_tile d (M - 2 * d - 1) Hd ltac:(lia)) as (Br & HB & H1 & H3).
  destruct (attention_attains M d N Br HB ltac:(lia)) as (os & ss & R & HL & HW).
  exists os, ss. split; [auto|]. split; [auto|]. intros os' cs' R' W'. split.
  - pose proof (repeated N Br HB) as HT. rewrite HL. set (T := cdiv N Br) in *.
    apply Nat.le_trans with ((Br * d) * (2 * ((T - 1) * (N * d)))).
    + apply Nat.mul_le_mono; [lia|]. rewrite Nat.mul_sub_distr_r. lia.
    + replace (Br * d * (2 * ((T - 1) * (N * d)))) with (2 * (((T - 1) * Br) * (N * (d * d)))) by ring.
      replace (N * N * (d * d)) with (N * (N * (d * d))) by ring.
      apply Nat.mul_le_mono_l. now apply Nat.mul_le_mono_r.
  - pose proof (attention_lower_bound M d os' cs' (all_pairs N) Hd ltac:(lia) R' (all_pairs_nodup N)) as B.
    unfold all_pairs in B. rewrite prod_length, seq_length in B. rewrite (Nat.max_l M) in B by lia.
    rewrite (Nat.mul_comm (N * N)). apply B. intros [i j] k He Hk. apply in_prod_iff in He. rewrite !in_seq in He.
    apply W'; simpl; lia.
Qed.
