(** FlashAttention-2 as a program of the two-level machine, with its outputs in fast memory.

    A tile of query rows is loaded, and sums of its outputs are begun. Then the keys come one after another: a row of K
    and a row of V are loaded, and for each query row the score is formed and its products with the row of V are added
    to the sums, in place. In the end the sums are stored. The tiles may have any rows, and each its own keys. If V has
    many columns, all this may be repeated for one block of columns after another. What is shown here is that such a
    program is legal in so many words of fast memory, that it writes all outputs of the pairs that its tiles visit, and
    how many words it loads and stores. FlashTraffic.v compares that with the least possible.

    The softmax itself is not in the machine: a complete sum stands for the score and for every function of it, and
    running maxima and row sums are left out. They would take 2 more words for each query row of a tile, if they are to
    be kept in the same memory. *)
From Coq Require Import List Arith Lia.
From IOAware Require Import Machine Counting Parallel Outputs Masks Accumulators FullAttention.
Import ListNotations.

Section Schedule.
Variables (M d dv first : nat).

(** * Playing operations *)

(** Whatever fast memory holds at least c, the operations os are legal, and then it holds at least c'. *)
Definition play c (m : slow) os c' (m' : slow) := forall c0, incl c c0 -> length c0 <= M ->
  exists ss c1, legal_run M d (c0, m) os ss /\ (forall x, last ss x = (c1, m')) /\ incl c' c1 /\ length c1 <= M.

Lemma play_nil c m : play c m [] c m.
Proof. intros c0 HI HL. exists [(c0, m)], c0. split; [constructor|auto]. Qed.

Lemma play_incl c1 c2 m os c3 c4 m' : incl c1 c2 -> incl c4 c3 -> play c1 m os c3 m' -> play c2 m os c4 m'.
Proof.
  intros H1 H2 H c0 HI HL. destruct (H c0 (incl_tran H1 HI) HL) as (ss & c & Hr & Hlast & HI' & HL').
  exists ss, c. eauto using incl_tran.
Qed.

Lemma play_step c m o c' m' : enabled d c o -> incl c' (made o ++ c) -> length c' <= M ->
  match o with Load w => input w /\ m' = m | Store w => m' = w :: m | _ => m' = m end -> play c m [o] c' m'.
Proof.
  intros He HI HL Hs c0 HI0 HL0. exists [(c0, m); (c', m')], c'. repeat split; auto using incl_refl.
  econstructor; [|constructor]. split; [split; [exact HL|split]|]; simpl.
  - exact (enabled_mono d c c0 o HI0 He).
  - intros x Hx. apply HI, in_app_iff in Hx. apply in_app_iff. destruct Hx; auto.
  - destruct o; auto. destruct Hs; auto.
Qed.

Lemma legal_run_app a : forall s ss b s1 ss', legal_run M d s a ss -> (forall x, last ss x = s1) ->
  legal_run M d s1 b ss' -> exists all, legal_run M d s (a ++ b) all /\ (forall x, last all x = last ss' x).
Proof.
  induction a as [|o a IH]; intros s ss b s1 ss' Ha Hlast Hb; inversion Ha as [|? ? s2 ? ss2 Hst Hrun]; subst.
  - simpl in Hlast. rewrite (Hlast s). exists ss'. split; auto.
  - assert (Hne : ss2 <> []) by (inversion Hrun; discriminate).
    destruct (IH s2 ss2 b s1 ss' Hrun) as (all & Hall & HL); auto.
    + intros x. now rewrite <- (Hlast x), (last_cons s x x).
    + exists (s :: all). split; [simpl; econstructor; eauto|]. intros x. rewrite (last_cons s x x); auto.
      inversion Hall; discriminate.
Qed.

Lemma play_app c1 m1 a c2 m2 b c3 m3 : play c1 m1 a c2 m2 -> play c2 m2 b c3 m3 -> play c1 m1 (a ++ b) c3 m3.
Proof.
  intros H1 H2 c0 HI HL. destruct (H1 c0 HI HL) as (ss & c & Hr & Hlast & HI' & HL').
  destruct (H2 c HI' HL') as (ss' & c' & Hr' & Hlast' & HI2 & HL2).
  destruct (legal_run_app _ _ _ _ _ _ Hr Hlast Hr') as (all & Hall & Heq).
  exists all, c'. repeat split; auto. intros x. now rewrite Heq.
Qed.

(** Bringing in inputs and beginning sums. *)
Definition beginning o := match o with Load w => input w | Zero _ _ => True | _ => False end.

Lemma play_begin os : forall c m, Forall beginning os -> length os + length c <= M ->
  play c m os (flat_map made os ++ c) m.
Proof.
  induction os as [|o os IH]; intros c m Ho HL; [apply play_nil|]. inversion Ho as [|? ? Hb Hos]; subst. simpl in HL.
  change (o :: os) with ([o] ++ os). apply play_app with (made o ++ c) m.
  - apply play_step; auto using incl_refl; destruct o; simpl in *; try contradiction; auto; lia.
  - apply play_incl with (made o ++ c) (flat_map made os ++ made o ++ c); auto using incl_refl.
    + intros x. cbn [flat_map app]. rewrite !in_app_iff. tauto.
    + apply IH; auto. destruct o; simpl in *; try contradiction; lia.
Qed.

Lemma play_stores ws : forall c m, length c <= M -> incl ws c -> play c m (map Store ws) c (rev ws ++ m).
Proof.
  induction ws as [|w ws IH]; intros c m HL HI; [apply play_nil|]. simpl. rewrite <- app_assoc.
  change (Store w :: map Store ws) with ([Store w] ++ map Store ws). apply play_app with c (w :: m).
  - apply play_step; auto using incl_refl. apply HI. now left.
  - apply IH; auto. intros x Hx; apply HI; now right.
Qed.

(** * The schedule *)

(** One row: the score, then the row of V times the score is added to the sums of the row of O. *)
Definition row_ops J j i := Dot QK i j (seq 0 d) :: map (fun k => Accumulate i k (j :: J)) (seq first dv).
Definition row_sums J i := map (fun k => Out i k J) (seq first dv).

Lemma play_accumulate i j J m A ks : forall c, full d A -> In (Part QK i j A) c ->
  (forall k, In k ks -> In (V j k) c) -> length ks + length c <= M ->
  play (map (fun k => Out i k J) ks ++ c) m (map (fun k => Accumulate i k (j :: J)) ks)
       (map (fun k => Out i k (j :: J)) ks ++ c) m.
Proof.
  intros c HF. revert c. induction ks as [|k ks IH]; intros c HP HV HL; [apply play_nil|]. simpl in HL. cbn [map].
  change (?o :: map ?f ks) with ([o] ++ map f ks).
  apply play_app with (map (fun k => Out i k J) ks ++ Out i k (j :: J) :: c) m.
  - apply play_step; auto.
    + split; [exists J; now left|]. intros j' [<-|Hj'].
      * right. split; [exists A; split; auto; right; apply in_app_iff; auto|].
        right. apply in_app_iff. right. apply HV. now left.
      * left. exists J. split; [now left|auto].
    + intros x. simpl. rewrite !in_app_iff. simpl. tauto.
    + rewrite app_length, map_length. simpl. lia.
  - apply play_incl with (map (fun k => Out i k J) ks ++ Out i k (j :: J) :: c)
      (map (fun k => Out i k (j :: J)) ks ++ Out i k (j :: J) :: c); auto using incl_refl.
    + intros x. simpl. rewrite !in_app_iff. simpl. tauto.
    + apply IH; simpl; auto; [|lia]. intros k' Hk'. right. apply HV. now right.
Qed.

Lemma play_row i j J c m : (forall a, a < d -> In (Q i a) c /\ In (K j a) c) ->
  (forall k, In k (seq first dv) -> In (V j k) c) -> dv + length c + 1 <= M -> play (row_sums J i ++ c) m (row_ops J j
    i) (row_sums (j :: J) i ++ c) m.
Proof.
  intros HQK HV HL. unfold row_ops. change (?o :: map ?f ?l) with ([o] ++ map f l).
  assert (Hlen : length (row_sums J i) = dv) by (unfold row_sums; now rewrite map_length, seq_length).
  apply play_app with (row_sums J i ++ Part QK i j (seq 0 d) :: c) m.
  - apply play_step; auto.
    + intros a Ha%in_seq. right. split; apply in_app_iff; right; apply HQK; lia.
    + intros x. simpl. rewrite !in_app_iff. simpl. tauto.
    + rewrite app_length. simpl. lia.
  - apply play_incl with (row_sums J i ++ Part QK i j (seq 0 d) :: c)
      (row_sums (j :: J) i ++ Part QK i j (seq 0 d) :: c); auto using incl_refl.
    + intros x. rewrite !in_app_iff. simpl. tauto.
    + apply play_accumulate with (seq 0 d); simpl; auto.
      * intros a Ha. apply in_seq. lia.
      * rewrite seq_length. lia.
Qed.

Lemma flat_map_length {X Y} (f : X -> list Y) n l :
  (forall x, In x l -> length (f x) = n) -> length (flat_map f l) = length l * n.
Proof.
  induction l as [|x l IH]; intros H; simpl; auto. rewrite app_length, H, IH; simpl; auto. intros; apply H; simpl; auto.
Qed.

Definition sums J rows := flat_map (row_sums J) rows.
Lemma sums_length J rows : length (sums J rows) = length rows * dv.
Proof. apply flat_map_length. intros. unfold row_sums. now rewrite map_length, seq_length. Qed.

Lemma play_rows j J m rows : forall c, (forall i a, In i rows -> a < d -> In (Q i a) c) ->
  (forall a, a < d -> In (K j a) c) -> (forall k, In k (seq first dv) -> In (V j k) c) ->
  length rows * dv + length c + 1 <= M ->
  play (sums J rows ++ c) m (flat_map (row_ops J j) rows) (sums (j :: J) rows ++ c) m.
Proof.
  induction rows as [|i rows IH]; intros c HQ HK HV HL; [apply play_nil|]. cbn [sums flat_map]. simpl in HL.
  fold (sums J rows) (sums (j :: J) rows). rewrite <- !app_assoc.
  apply play_app with (row_sums (j :: J) i ++ sums J rows ++ c) m.
  - apply play_row.
    + intros a Ha. split; apply in_app_iff; right; auto. apply HQ; simpl; auto.
    + intros k Hk. apply in_app_iff; auto.
    + rewrite app_length, sums_length. lia.
  - apply play_incl with (sums J rows ++ row_sums (j :: J) i ++ c) (sums (j :: J) rows ++ row_sums (j :: J) i ++ c).
    + intros x. rewrite !in_app_iff. tauto.
    + intros x. rewrite !in_app_iff. tauto.
    + apply IH; try (intros; apply in_app_iff; right; auto; apply HQ; simpl; auto).
      rewrite app_length. unfold row_sums. rewrite map_length, seq_length. lia.
Qed.

(** All keys, one after another, for one tile of query rows. *)
Definition key_words j := map (K j) (seq 0 d) ++ map (V j) (seq first dv).
Fixpoint sweep rows J js :=
  match js with
  | [] => []
  | j :: js => map Load (key_words j) ++ flat_map (row_ops J j) rows ++ sweep rows (j :: J) js
  end.
Definition query_words rows := flat_map (fun i => map (Q i) (seq 0 d)) rows.

Lemma query_words_length rows : length (query_words rows) = length rows * d.
Proof. apply flat_map_length. intros. now rewrite map_length, seq_length. Qed.
Lemma key_words_length j : length (key_words j) = d + dv.
Proof. unfold key_words. now rewrite app_length, !map_length, !seq_length. Qed.

Lemma play_loads ws c m : Forall input ws -> length ws + length c <= M -> play c m (map Load ws) (ws ++ c) m.
Proof.
  intros Hi HL. replace ws with (flat_map made (map Load ws)) at 2.
  - apply play_begin; [|now rewrite map_length]. apply Forall_map. exact Hi.
  - clear. induction ws; simpl; congruence.
Qed.

Lemma play_sweep rows m js : forall J, length rows * (d + dv) + (d + dv) + 1 <= M ->
  play (sums J rows ++ query_words rows) m (sweep rows J js) (sums (rev js ++ J) rows ++ query_words rows) m.
Proof.
  induction js as [|j js IH]; intros J HL; [apply play_nil|]. cbn [sweep].
  apply play_app with (key_words j ++ sums J rows ++ query_words rows) m;
    [|apply play_app with (sums (j :: J) rows ++ query_words rows) m].
  - apply play_loads.
    + unfold key_words. apply Forall_app. split; apply Forall_map, Forall_forall; simpl; auto.
    + rewrite !app_length, key_words_length, sums_length, query_words_length. lia.
  - apply play_incl with (sums J rows ++ key_words j ++ query_words rows)
      (sums (j :: J) rows ++ key_words j ++ query_words rows).
    + intros x. rewrite !in_app_iff. tauto.
    + intros x. rewrite !in_app_iff. tauto.
    + apply play_rows.
      * intros i a Hi Ha. apply in_app_iff. right. apply in_flat_map. exists i. split; auto. apply in_map, in_seq. lia.
      * intros a Ha. apply in_app_iff. left. apply in_app_iff. left. apply in_map, in_seq. lia.
      * intros k Hk. apply in_app_iff. left. apply in_app_iff. right. apply in_map, Hk.
      * rewrite app_length, key_words_length, query_words_length. lia.
  - replace (rev (j :: js) ++ J) with (rev js ++ j :: J) by (simpl; now rewrite <- app_assoc). apply IH, HL.
Qed.

Definition tile_ops js rows :=
  map Load (query_words rows) ++ flat_map (fun i => map (Zero i) (seq first dv)) rows ++ sweep rows [] js ++
  map Store (sums (rev js) rows).

Lemma play_tile js rows m : length rows * (d + dv) + (d + dv) + 1 <= M ->
  play [] m (tile_ops js rows) [] (rev (sums (rev js) rows) ++ m).
Proof.
  intros HL. unfold tile_ops.
  apply play_app with (query_words rows ++ []) m; [|apply play_app with (sums [] rows ++ query_words rows) m;
    [|apply play_app with (sums (rev js ++ []) rows ++ query_words rows) m]].
  - apply play_loads; [|rewrite query_words_length; simpl; lia]. unfold query_words. apply Forall_forall.
    intros x Hx. apply in_flat_map in Hx. destruct Hx as (i & _ & Hx). apply in_map_iff in Hx.
    now destruct Hx as (a & <- & _).
  - rewrite app_nil_r. set (zeros := flat_map _ rows).
    assert (Hz : flat_map made zeros = sums [] rows).
    { unfold zeros, sums. clear. induction rows as [|i rows IH]; simpl; auto. rewrite flat_map_app, IH. f_equal.
      unfold row_sums. generalize (seq first dv). induction l; simpl; congruence. }
    rewrite <- Hz. apply play_begin.
    + apply Forall_forall. intros o Ho. apply in_flat_map in Ho. destruct Ho as (i & _ & Ho). apply in_map_iff in Ho.
      now destruct Ho as (k & <- & _).
    + unfold zeros. rewrite (flat_map_length _ dv), query_words_length; [lia|]. intros.
      now rewrite map_length, seq_length.
  - apply play_sweep, HL.
  - rewrite app_nil_r. apply play_incl with (sums (rev js) rows ++ query_words rows)
      (sums (rev js) rows ++ query_words rows).
    + apply incl_refl.
    + intros x [].
    + apply play_stores; [rewrite app_length, sums_length, query_words_length; lia|apply incl_appl, incl_refl].
Qed.

(** Tiles of query rows, each with the keys that it visits, for dv columns of the outputs from the first one on. *)
Definition column_block (tiles : list (list nat * list nat)) :=
  flat_map (fun tile => tile_ops (snd tile) (fst tile)) tiles.

Lemma play_block tiles : forall m, (forall tile, In tile tiles -> length (fst tile) * (d + dv) + (d + dv) + 1 <= M) ->
  exists m', play [] m (column_block tiles) [] m' /\ incl m m' /\
    forall tile, In tile tiles -> incl (sums (rev (snd tile)) (fst tile)) m'.
Proof.
  induction tiles as [|tile tiles IH]; intros m HL.
  - exists m. split; [apply play_nil|]. split; [apply incl_refl|intros ? []].
  - set (m1 := rev (sums (rev (snd tile)) (fst tile)) ++ m).
    destruct (IH m1) as (m' & Hp & Hi & Ht); [intros; apply HL; simpl; auto|].
    apply incl_app_inv in Hi. destruct Hi as [Hi1 Hi2]. exists m'. split; [|split; [exact Hi2|]].
    + apply (play_app [] m (tile_ops (snd tile) (fst tile)) [] m1); auto. apply play_tile, HL. now left.
    + intros t [<-|Ht']; [|auto]. intros x Hx. apply Hi1. now apply in_rev in Hx.
Qed.

(** * Its traffic *)
Lemma loaded_map ws : loaded (map Load ws) = ws.
Proof. induction ws; simpl; congruence. Qed.
Lemma stored_map ws : stored (map Store ws) = ws.
Proof. induction ws; simpl; congruence. Qed.

Definition silent o := match o with Load _ | Store _ => False | _ => True end.
Lemma silent_spec os : Forall silent os -> loads os = 0 /\ stores os = 0.
Proof. unfold loads, stores. induction 1 as [|o os Ho _ [IH1 IH2]]; simpl; auto. now destruct o. Qed.

Lemma silent_rows J j rows : Forall silent (flat_map (row_ops J j) rows).
Proof.
  apply Forall_forall. intros o Ho. apply in_flat_map in Ho. destruct Ho as (i & _ & [<-|Ho]); [exact I|].
  apply in_map_iff in Ho. now destruct Ho as (k & <- & _).
Qed.
Lemma silent_zeros rows : Forall silent (flat_map (fun i => map (Zero i) (seq first dv)) rows).
Proof.
  apply Forall_forall. intros o Ho. apply in_flat_map in Ho. destruct Ho as (i & _ & Ho).
  apply in_map_iff in Ho. now destruct Ho as (k & <- & _).
Qed.
Lemma load_traffic ws : loads (map Load ws) = length ws /\ stores (map Load ws) = 0.
Proof. unfold loads, stores. rewrite loaded_map. split; auto. induction ws; simpl; auto. Qed.
Lemma store_traffic ws : loads (map Store ws) = 0 /\ stores (map Store ws) = length ws.
Proof. unfold loads, stores. rewrite stored_map. split; auto. induction ws; simpl; auto. Qed.

Lemma sweep_traffic rows js : forall J, loads (sweep rows J js) = length js * (d + dv) /\ stores (sweep rows J js) = 0.
Proof.
  induction js as [|j js IH]; intros J; [auto|]. cbn [sweep length].
  rewrite !loads_app, !stores_app. destruct (IH (j :: J)) as [-> ->].
  destruct (silent_spec _ (silent_rows J j rows)) as [-> ->]. destruct (load_traffic (key_words j)) as [-> ->].
  rewrite key_words_length. lia.
Qed.

Lemma block_traffic tiles :
  loads (column_block tiles) = length (flat_map fst tiles) * d + length (flat_map snd tiles) * (d + dv) /\
  stores (column_block tiles) = length (flat_map fst tiles) * dv.
Proof.
  induction tiles as [|[rows js] tiles [IH1 IH2]]; [auto|]. cbn [column_block flat_map fst snd].
  fold (column_block tiles). unfold tile_ops. rewrite !loads_app, !stores_app, IH1, IH2.
  destruct (load_traffic (query_words rows)) as [-> ->]. destruct (silent_spec _ (silent_zeros rows)) as [-> ->].
  destruct (sweep_traffic rows js []) as [-> ->]. destruct (store_traffic (sums (rev js) rows)) as [-> ->].
  rewrite query_words_length, sums_length, !app_length. lia.
Qed.
End Schedule.

(** All the tiles, for each block of dv columns: FlashAttention-2 has one block, that of all columns. *)
Definition flash2 d dv (blocks : list nat) tiles := flat_map (fun first => column_block d dv first tiles) blocks.

Lemma play_flash2 M d dv tiles blocks : forall m,
  (forall tile, In tile tiles -> length (fst tile) * (d + dv) + (d + dv) + 1 <= M) ->
  exists m', play M d [] m (flash2 d dv blocks tiles) [] m' /\ incl m m' /\
    forall first tile, In first blocks -> In tile tiles -> incl (sums dv first (rev (snd tile)) (fst tile)) m'.
Proof.
  induction blocks as [|first blocks IH]; intros m HL.
  - exists m. split; [apply play_nil|]. split; [apply incl_refl|intros ? ? []].
  - destruct (play_block M d dv first tiles m HL) as (m1 & Hp1 & Hi1 & Ht1).
    destruct (IH m1 HL) as (m2 & Hp2 & Hi2 & Ht2).
    exists m2. split; [exact (play_app M d _ _ _ _ _ _ _ _ Hp1 Hp2)|]. split; [eapply incl_tran; eauto|].
    intros f tile [<-|Hf] Ht; [|auto]. eapply incl_tran; eauto.
Qed.

(** All tiles together visit all pairs of E, and all blocks together have all columns. *)
Lemma flash2_is_legal M d dv blocks width E tiles :
  (forall tile, In tile tiles -> length (fst tile) * (d + dv) + (d + dv) + 1 <= M) ->
  (forall k, k < width -> exists first, In first blocks /\ In k (seq first dv)) ->
  (forall i j, In (i, j) E -> exists tile, In tile tiles /\ In i (fst tile) /\ In j (snd tile)) ->
  attention_run M d width E (flash2 d dv blocks tiles).
Proof.
  intros HL Hwidth HE. destruct (play_flash2 M d dv tiles blocks [] HL) as (m' & Hp & _ & Hm).
  destruct (Hp [] (incl_refl _) (Nat.le_0_l M)) as (ss & c1 & Hr & Hlast & _).
  exists [], ss. split; [exact Hr|]. split; [intros i k J []|]. intros i j k Hij Hk.
  destruct (HE i j Hij) as (tile & Ht & Hi & Hj). destruct (Hwidth k Hk) as (first & Hf & Hkf).
  exists m', (rev (snd tile)). split; [|split].
  - assert (Hne : ss <> []) by (inversion Hr; discriminate).
    apply in_map_iff. exists (last ss ([], [])). rewrite Hlast. split; [auto|]. rewrite <- (Hlast ([], [])).
    destruct (exists_last Hne) as (front & x & ->). rewrite last_last. apply in_app_iff. simpl; auto.
  - apply (Hm first tile Hf Ht), in_flat_map. exists i. split; [auto|].
    now apply (in_map (fun k => Out i k (rev (snd tile)))).
  - now apply in_rev in Hj.
Qed.

Lemma flash2_traffic d dv blocks tiles :
  loads (flash2 d dv blocks tiles) =
    length blocks * (length (flat_map fst tiles) * d + length (flat_map snd tiles) * (d + dv)) /\
  stores (flash2 d dv blocks tiles) = length blocks * (length (flat_map fst tiles) * dv).
Proof.
  unfold flash2. induction blocks as [|first blocks [IH1 IH2]]; [auto|]. cbn [flat_map length].
  rewrite loads_app, stores_app, IH1, IH2. destruct (block_traffic d dv first tiles) as [-> ->]. lia.
Qed.

(** * Tiles of Br query rows *)
Fixpoint row_tiles Br start (total count : nat) : list (list nat) :=
  match count with
  | 0 => []
  | S count => seq start (Nat.min Br (total - start)) :: row_tiles Br (start + Br) total count
  end.

Lemma row_tiles_length Br total count : forall start, length (row_tiles Br start total count) = count.
Proof. induction count; simpl; auto. Qed.

Lemma row_tiles_rows Br total count : forall start rows,
  In rows (row_tiles Br start total count) -> length rows <= Br.
Proof. induction count; simpl; intros start rows []; [subst; rewrite seq_length; lia|eauto]. Qed.

Lemma row_tiles_past Br total count : forall start, total <= start -> concat (row_tiles Br start total count) = [].
Proof.
  induction count as [|count IH]; intros start H; simpl; auto. rewrite IH by lia.
  now replace (Nat.min Br (total - start)) with 0 by lia.
Qed.

Lemma row_tiles_cover Br total count : forall start, start <= total -> total <= start + count * Br ->
  concat (row_tiles Br start total count) = seq start (total - start).
Proof.
  induction count as [|count IH]; intros start H1 H2; simpl in *.
  - now replace (total - start) with 0 by lia.
  - destruct (le_lt_dec total (start + Br)) as [Hs|Hb].
    + rewrite row_tiles_past, app_nil_r by lia. f_equal. lia.
    + rewrite IH by lia. replace (Nat.min Br (total - start)) with Br by lia. rewrite <- seq_app. f_equal. lia.
Qed.
