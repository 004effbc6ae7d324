(** With stores free of charge, the constant of the bound on loads cannot be improved.

    LowerBound.v shows that attention loads at least d (d + dv) |E| / M - M words, which is half of what
    FlashAttention-2 loads if dv = d. Here is a program that needs no more, to the leading term. It keeps a tile of keys
    and values in fast memory, loads one query row after another, adds up what its output gets from the tile, and stores
    that part of the output. Parts are never loaded again: the outputs are written in parts, as in split-KV attention
    before its last pass. It makes up for it in stores, dv (d + dv) |E| / M of them. Both together are as many as those
    of FlashAttention-2, and the least possible if dv <= d (FullAttention.v).

    So a bound on loads alone that is better must count stores, as FullAttention.v does, or ask that each output be
    written as one sum, as WholeOutputs.v does. *)
From Coq Require Import List Arith Lia.
From IOAware Require Import Machine Counting Outputs Masks FullAttention FlashSchedule FlashTraffic.
From IOAware Require IOCounts.
Import ListNotations.

Section Schedule.
Variables (M d dv : nat).
Notation play := (play M d).
Notation row_sums := (row_sums dv 0).

(** The keys of a tile, one after another, for one query row. *)
Fixpoint visits i J js := match js with [] => [] | j :: js => row_ops d dv 0 J j i ++ visits i (j :: J) js end.

Definition tile_words js := flat_map (key_words d dv 0) js.
Definition query_row i := map (Q i) (seq 0 d).

Lemma play_visits i c m js : forall J, (forall a, a < d -> In (Q i a) c) ->
  (forall j, In j js -> incl (key_words d dv 0 j) c) -> dv + length c + 1 <= M ->
  play (row_sums J i ++ c) m (visits i J js) (row_sums (rev js ++ J) i ++ c) m.
Proof.
  induction js as [|j js IH]; intros J HQ HK HL; [apply play_nil|]. cbn [visits].
  apply play_app with (row_sums (j :: J) i ++ c) m.
  - apply play_row; [| |exact HL].
    + intros a Ha. split; [auto|]. apply (HK j (or_introl eq_refl)), in_app_iff. left. apply in_map, in_seq. lia.
    + intros k Hk. apply (HK j (or_introl eq_refl)), in_app_iff. right. now apply in_map.
  - replace (rev (j :: js) ++ J) with (rev js ++ j :: J) by (simpl; now rewrite <- app_assoc).
    apply IH; auto. intros j' Hj'. apply HK. now right.
Qed.

Definition row_pass js i :=
  map Load (query_row i) ++ map (Zero i) (seq 0 dv) ++ visits i [] js ++ map Store (row_sums (rev js) i).

Lemma query_row_length i : length (query_row i) = d.
Proof. unfold query_row. now rewrite map_length, seq_length. Qed.
Lemma row_sums_length J i : length (row_sums J i) = dv.
Proof. unfold FlashSchedule.row_sums. now rewrite map_length, seq_length. Qed.
Lemma tile_words_length js : length (tile_words js) = length js * (d + dv).
Proof. apply flat_map_length. intros. apply key_words_length. Qed.

Lemma play_row_pass js i m : (length js + 1) * (d + dv) + 1 <= M ->
  play (tile_words js) m (row_pass js i) (tile_words js) (rev (row_sums (rev js) i) ++ m).
Proof.
  intros HL. set (c := query_row i ++ tile_words js).
  assert (Hc : length c = d + length js * (d + dv)).
  { unfold c. now rewrite app_length, query_row_length, tile_words_length. }
  unfold row_pass. apply play_app with c m; [|apply play_app with (row_sums [] i ++ c) m;
    [|apply play_app with (row_sums (rev js ++ []) i ++ c) m]].
  - apply play_loads; [|rewrite query_row_length, tile_words_length; lia]. apply Forall_map, Forall_forall. simpl; auto.
  - assert (Hz : flat_map made (map (Zero i) (seq 0 dv)) = row_sums [] i).
    { unfold FlashSchedule.row_sums. generalize (seq 0 dv). intros l. induction l; simpl; congruence. }
    rewrite <- Hz. apply play_begin; [apply Forall_map, Forall_forall; simpl; auto|].
    rewrite map_length, seq_length. lia.
  - apply play_visits; [| |lia].
    + intros a Ha. apply in_app_iff. left. apply in_map, in_seq. lia.
    + intros j Hj w Hw. apply in_app_iff. right. apply in_flat_map. eauto.
  - rewrite app_nil_r. apply play_incl with (row_sums (rev js) i ++ c) (row_sums (rev js) i ++ c).
    + apply incl_refl.
    + intros w Hw. unfold c. rewrite !in_app_iff. auto.
    + apply play_stores; [rewrite app_length, row_sums_length; lia|apply incl_appl, incl_refl].
Qed.

Definition tile_pass rows js := map Load (tile_words js) ++ flat_map (row_pass js) rows.

Lemma play_rows_pass js rows : forall m, (length js + 1) * (d + dv) + 1 <= M ->
  exists m', play (tile_words js) m (flat_map (row_pass js) rows) (tile_words js) m' /\ incl m m' /\
    forall i, In i rows -> incl (row_sums (rev js) i) m'.
Proof.
  induction rows as [|i rows IH]; intros m HL.
  - exists m. split; [apply play_nil|]. split; [apply incl_refl|intros ? []].
  - destruct (IH (rev (row_sums (rev js) i) ++ m) HL) as (m' & Hp & Hi & Hr). apply incl_app_inv in Hi.
    destruct Hi as [Hi1 Hi2]. exists m'. split; [|split; [exact Hi2|]].
    + simpl. exact (play_app M d _ _ _ _ _ _ _ _ (play_row_pass js i m HL) Hp).
    + intros i' [<-|Hi']; [|auto]. intros w Hw. apply Hi1. now apply in_rev in Hw.
Qed.

(** Tiles of keys, each for all query rows. *)
Definition key_stationary rows tiles := flat_map (tile_pass rows) tiles.

Lemma play_key_stationary rows tiles : forall m, (forall js, In js tiles -> (length js + 1) * (d + dv) + 1 <= M) ->
  exists m', play [] m (key_stationary rows tiles) [] m' /\ incl m m' /\
    forall js i, In js tiles -> In i rows -> incl (row_sums (rev js) i) m'.
Proof.
  induction tiles as [|js tiles IH]; intros m HL.
  - exists m. split; [apply play_nil|]. split; [apply incl_refl|intros ? ? []].
  - pose proof (HL js (or_introl eq_refl)) as Hjs. destruct (play_rows_pass js rows m Hjs) as (m1 & Hp1 & Hi1 & Hr1).
    destruct (IH m1) as (m2 & Hp2 & Hi2 & Hr2); [intros; apply HL; now right|].
    exists m2. split; [|split; [eapply incl_tran; eauto|]].
    + simpl. apply play_app with [] m1; [|exact Hp2]. apply play_app with (tile_words js ++ []) m.
      * apply play_loads; [|rewrite tile_words_length; simpl; lia]. apply Forall_forall. intros w Hw.
        apply in_flat_map in Hw. destruct Hw as (j & _ & Hw). apply in_app_iff in Hw.
        destruct Hw as [Hw|Hw]; apply in_map_iff in Hw; destruct Hw as (a & <- & _); exact I.
      * rewrite app_nil_r. apply play_incl with (tile_words js) (tile_words js); auto using incl_refl. intros w [].
    + intros js' i [<-|Hjs'] Hi; [|auto]. eapply incl_tran; eauto.
Qed.

Lemma silent_visits i js : forall J, Forall silent (visits i J js).
Proof.
  induction js as [|j js IH]; intros J; [constructor|]. cbn [visits]. apply Forall_app. split; [|apply IH].
  constructor; [exact I|]. apply Forall_map, Forall_forall. intros k _. exact I.
Qed.

Lemma key_stationary_traffic rows tiles :
  loads (key_stationary rows tiles) = length (concat tiles) * (d + dv) + length tiles * (length rows * d) /\
  stores (key_stationary rows tiles) = length tiles * (length rows * dv).
Proof.
  assert (Hrow : forall js, loads (flat_map (row_pass js) rows) = length rows * d /\
    stores (flat_map (row_pass js) rows) = length rows * dv).
  { intros js. induction rows as [|i rows' [IH1 IH2]]; [auto|]. cbn [flat_map length].
    rewrite loads_app, stores_app, IH1, IH2. unfold row_pass. rewrite !loads_app, !stores_app.
    destruct (load_traffic (query_row i)) as [-> ->]. rewrite query_row_length.
    destruct (silent_spec _ (silent_visits i js [])) as [-> ->].
    destruct (store_traffic (row_sums (rev js) i)) as [-> ->]. rewrite row_sums_length.
    assert (Hz : Forall silent (map (Zero i) (seq 0 dv))) by (apply Forall_map, Forall_forall; simpl; auto).
    destruct (silent_spec _ Hz) as [-> ->]. lia. }
  induction tiles as [|js tiles [IH1 IH2]]; [auto|]. cbn [key_stationary flat_map concat length].
  fold (key_stationary rows tiles). unfold tile_pass. destruct (Hrow js) as [HL HS].
  rewrite !loads_app, !stores_app, IH1, IH2, HL, HS, app_length.
  destruct (load_traffic (tile_words js)) as [-> ->]. rewrite tile_words_length. lia.
Qed.
End Schedule.

(** Attention with tiles of Bc keys that stay, with all query rows passing by. *)
Definition key_stationary_dense d dv queries keys Bc :=
  key_stationary d dv (seq 0 queries) (row_tiles Bc 0 keys (IOCounts.cdiv keys Bc)).

(** With tiles of Bc keys it computes dense attention, written in parts. It needs (Bc + 1) (d + dv) + 1 words of fast
    memory, loads keys * (d + dv) + ceil(keys / Bc) * queries * d words and stores ceil(keys / Bc) * queries * dv. *)
Theorem key_stationary_is_attention M d dv queries keys Bc : 0 < Bc -> (Bc + 1) * (d + dv) + 1 <= M ->
  let os := key_stationary_dense d dv queries keys Bc in attention_run M d dv (dense queries keys) os /\
  loads os = keys * (d + dv) + IOCounts.cdiv keys Bc * (queries * d) /\
  stores os = IOCounts.cdiv keys Bc * (queries * dv).
Proof.
  intros HB HM os. pose proof (cdiv_tiles keys Bc HB) as HC. set (tiles := row_tiles Bc 0 keys (IOCounts.cdiv keys
    Bc)) in *.
  split.
  - destruct (play_key_stationary M d dv (seq 0 queries) tiles []) as (m' & Hp & _ & Hm).
    { intros js Hjs%row_tiles_rows. apply Nat.le_trans with (2 := HM).
      apply Nat.add_le_mono_r, Nat.mul_le_mono_r. lia. }
    destruct (Hp [] (incl_refl _) (Nat.le_0_l M)) as (ss & c1 & Hr & Hlast & _).
    exists [], ss. split; [exact Hr|]. split; [intros i k J []|]. intros i j k Hij Hk.
    apply in_mask in Hij. destruct Hij as [Hi Hj]. rewrite <- HC in Hj. apply in_concat in Hj.
    destruct Hj as (js & Hjs & Hj). exists m', (rev js). split; [|split].
    + assert (Hne : ss <> []) by (inversion Hr; discriminate).
      apply in_map_iff. exists (last ss ([], [])). rewrite Hlast. split; [auto|]. rewrite <- (Hlast ([], [])).
      destruct (exists_last Hne) as (front & x & ->). rewrite last_last. apply in_app_iff. simpl; auto.
    + apply (Hm js i Hjs Hi), (in_map (fun k => Out i k (rev js))), in_seq. lia.
    + now apply in_rev in Hj.
  - unfold os, key_stationary_dense. fold tiles.
    destruct (key_stationary_traffic d dv (seq 0 queries) tiles) as [-> ->].
    rewrite HC, !seq_length. unfold tiles. now rewrite row_tiles_length.
Qed.

(** The loads L of this program, with the largest tile that fits, and those L' of any schedule of dense attention have
    (M - 2 (d + dv)) (L - keys (d + dv) - queries d) <= (L' + M) M, if M >= 2 d (d + dv) and M >= 3 (d + dv). So the
    bound on loads of Outputs.v and LowerBound.v is attained, to its leading term. *)
Theorem loads_bound_attained M d dv queries keys other : 0 < dv -> 0 < d -> 2 * (d * (d + dv)) <= M ->
  3 * (d + dv) <= M -> attention_run M d dv (dense queries keys) other ->
  let os := key_stationary_dense d dv queries keys (largest_tile M d dv) in
  attention_run M d dv (dense queries keys) os /\
  (M - 2 * (d + dv)) * (loads os - (keys * (d + dv) + queries * d)) <= (loads other + M) * M.
Proof.
  intros Hdv Hd HM H3 (m & ss & Hr & Hm & HO). unfold largest_tile. set (w := d + dv) in *.
  pose proof (Nat.div_mod (M - w - 1) w ltac:(lia)) as HE. pose proof (Nat.mod_upper_bound (M - w - 1) w ltac:(lia))
    as Hub.
  set (Bc := (M - w - 1) / w) in *.
  assert (HB : 0 < Bc) by (destruct Bc; lia).
  destruct (key_stationary_is_attention M d dv queries keys Bc HB ltac:(fold w; lia)) as (Hos & HL & _).
  split; [exact Hos|]. rewrite HL. fold w.
  pose proof (outputs_lower_bound M d dv m other ss (dense queries keys) Hdv ltac:(lia) Hr Hm
    (mask_nodup _ _ (seq_NoDup _ _) (fun _ => seq_NoDup _ _)) HO) as HLB.
  fold w in HLB. rewrite Nat.max_l, dense_pairs in HLB by auto. apply Nat.le_trans with (2 := HLB).
  pose proof (IOCounts.cdiv_spec keys Bc HB) as [_ HT]. set (T := IOCounts.cdiv keys Bc) in *.
  assert (HT' : (T - 1) * Bc <= keys) by (destruct T; simpl; lia).
  apply Nat.le_trans with ((w * Bc) * ((T - 1) * (queries * d))).
  - apply Nat.mul_le_mono; [lia|]. destruct T as [|T]; [simpl; lia|]. replace (S T - 1) with T by lia. simpl. lia.
  - replace (w * Bc * ((T - 1) * (queries * d))) with (d * w * (queries * ((T - 1) * Bc))) by ring.
    apply Nat.mul_le_mono_l, Nat.mul_le_mono_l, HT'.
Qed.
