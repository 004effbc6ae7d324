(** The simulator's mask statistics for bands are right: causal masks, sliding windows and all other bands, for every
    length and every tile, ragged ones included.

    Query q sees key k if the gap k - (q + kv_len - q_len) is at least -left and at most right; a missing bound lets
    everything through. The key tiles that a query tile sees are then those from a first one up to an end; the simulator
    sums both as staircases (FloorSum.v), whole query tiles together and the last one, which may be ragged, by itself.
    [band] is that computation, and it equals the four sums over the visible pairs of tiles of IOCounts.v.

    Not claimed: anything about block-sparse masks, or about a batch of sequences of several lengths, whose statistics
    the simulator adds up. *)
From Coq Require Import Lia ZArith Bool.
From IOAware Require Import IOCounts FloorSum.
Open Scope nat_scope.

Lemma sum_window n begin finish f : begin <= finish -> finish <= n ->
  sum_seen n (fun j => (begin <=? j) && (j <? finish)) f + sum begin f = sum finish f.
Proof.
  intros. unfold sum_seen. rewrite (sum_three n begin finish) by assumption.
  assert (sum finish f = sum begin f + sum (finish - begin) (fun i => f (begin + i))) as ->.
  { rewrite <- (sum_split begin (finish - begin) f). f_equal. lia. }
  rewrite (sum_ext begin _ (fun _ => 0)), (sum_ext (n - finish) _ (fun _ => 0)).
  - rewrite !sum_const, (sum_ext (finish - begin) _ (fun i => f (begin + i))); [lia|].
    intros i inside. destruct (Nat.leb_spec begin (begin + i)), (Nat.ltb_spec (begin + i) finish); simpl; lia.
  - intros i inside. destruct (Nat.ltb_spec (finish + i) finish); [lia|]. now rewrite andb_false_r.
  - intros i inside. destruct (Nat.leb_spec begin i); [lia|reflexivity].
Qed.

Section Band.
  Variables (left right : option nat) (q_len kv_len tile_q tile_kv : nat).
  Let key_tiles := cdiv kv_len tile_kv.
  Let shift : Z := (Z.of_nat kv_len - Z.of_nat q_len)%Z.
  Let short := key_tiles * tile_kv - kv_len.

  (* The band: whether query q sees key k. *)
  Definition sees_key (q k : nat) : Prop :=
    let gap := (Z.of_nat k - (Z.of_nat q + shift))%Z in
    match left with Some l => (- Z.of_nat l <= gap)%Z | None => True end /\
    match right with Some r => (gap <= Z.of_nat r)%Z | None => True end.

  (* The last key of the last of [height] rows from [first], and the first key of the first one. *)
  Definition last_key (first height r : nat) : Z := (Z.of_nat (first + height) - 1 + shift + Z.of_nat r)%Z.
  Definition first_key (first l : nat) : Z := (Z.of_nat first + shift - Z.of_nat l)%Z.

  (* Whether a row of [height] rows from [first] sees a key of tile j: it begins soon enough, and ends late enough. *)
  Definition not_after (first height j : nat) : bool :=
    match right with Some r => (Z.of_nat (j * tile_kv) <=? last_key first height r)%Z | None => true end.
  Definition not_before (first j : nat) : bool :=
    match left with Some l => (first_key first l <? Z.of_nat (Nat.min kv_len ((j + 1) * tile_kv)))%Z | None => true end.
  Definition rows_see (first height j : nat) : bool := not_before first j && not_after first height j.
  Definition band_sees (i j : nat) : bool := rows_see (i * tile_q) (tile q_len tile_q i) j.

  (** ** As the simulator computes it *)

  (* Over [count] query tiles of [height] rows, from row [first] on: where their key tiles end, in sum, and for how many
     that is behind the last key tile. *)
  Definition band_ends (first count height : nat) : nat * nat :=
    match right with
    | Some r => staircase count tile_q tile_kv (key_tiles * tile_kv) key_tiles
                  (last_key first height r + Z.of_nat tile_kv)
    | None => (count * key_tiles, count)
    end.
  (* The same of where they begin. *)
  Definition band_begins (first count : nat) : nat * nat :=
    match left with
    | Some l => staircase count tile_q tile_kv kv_len key_tiles (first_key first l)
    | None => (0, 0)
    end.
  (* Visible pairs of tiles and key rows in them; the last key tile is short of some rows. *)
  Definition band_rows (first count height : nat) : Z * Z :=
    let (ends, whole) := band_ends first count height in
    let (begins, none) := band_begins first count in
    let visible := (Z.of_nat ends - Z.of_nat begins)%Z in
    (visible, visible * Z.of_nat tile_kv - (Z.of_nat whole - Z.of_nat none) * Z.of_nat short)%Z.

  (* Tiles, rows, cols, cells: the last query tile is as high as what is left. *)
  Definition band : Z * Z * Z * Z :=
    let query_tiles := cdiv q_len tile_q in
    let last := (query_tiles - 1) * tile_q in
    let height := Z.of_nat (q_len - last) in
    let (tiles, cols) := band_rows 0 (query_tiles - 1) tile_q in
    let (last_tiles, last_cols) := band_rows last 1 (q_len - last) in
    (tiles + last_tiles, Z.of_nat tile_q * tiles + height * last_tiles, cols + last_cols,
     Z.of_nat tile_q * cols + height * last_cols)%Z.

  Hypothesis (tile_q_positive : 0 < tile_q) (tile_kv_positive : 0 < tile_kv).

  (** A tile pair is visible to the simulator's tile relation if and only if some query of the one sees some key of the
      other.
      Used by: simulator/ioaware/masks/band.py (Band.pattern). *)
  Theorem band_by_elements : forall i j, i * tile_q < q_len -> j * tile_kv < kv_len ->
    band_sees i j = true <->
    exists q k, i * tile_q <= q < Nat.min q_len ((i + 1) * tile_q) /\
                j * tile_kv <= k < Nat.min kv_len ((j + 1) * tile_kv) /\ sees_key q k.
  Proof.
    intros i j some_rows some_keys.
    unfold band_sees, rows_see, not_before, not_after, sees_key, last_key, first_key, tile.
    set (f := i * tile_q) in *. replace ((i + 1) * tile_q) with (f + tile_q) by (unfold f; ring).
    set (g := j * tile_kv) in *. replace ((j + 1) * tile_kv) with (g + tile_kv) by (unfold g; ring).
    clearbody f g shift. rewrite andb_true_iff.
    set (last := Nat.min q_len (f + tile_q) - 1). set (key := Nat.min kv_len (g + tile_kv) - 1).
    split.
    - intros [before after]. destruct left as [l|].
      + apply Z.ltb_lt in before.
        destruct (Z.le_gt_cases (- Z.of_nat l) (Z.of_nat g - (Z.of_nat last + shift))) as [|low].
        { exists last, g. destruct right; rewrite ?Z.leb_le in after; lia. }
        destruct (Z.le_gt_cases (- Z.of_nat l) (Z.of_nat key - (Z.of_nat last + shift))).
        * exists last, (Z.to_nat (Z.of_nat last + shift - Z.of_nat l)). destruct right; lia.
        * exists (Z.to_nat (Z.of_nat key - shift + Z.of_nat l)), key. destruct right; lia.
      + exists last, g. destruct right; rewrite ?Z.leb_le in after; lia.
    - intros (q & k & q_inside & k_inside & l_gap & r_gap).
      destruct left, right; rewrite ?Z.leb_le, ?Z.ltb_lt; split; auto; lia.
  Qed.

  (** ** One query tile: it sees the key tiles from one up to another *)

  Definition end_tile (first height : nat) : nat :=
    match right with
    | Some r => let y := (last_key first height r + Z.of_nat tile_kv)%Z in
                if (Z.of_nat (key_tiles * tile_kv) <=? y)%Z then key_tiles else Z.to_nat (y / Z.of_nat tile_kv)
    | None => key_tiles
    end.
  Definition begin_tile (first : nat) : nat :=
    match left with
    | Some l => let x := first_key first l in
                if (Z.of_nat kv_len <=? x)%Z then key_tiles else Z.to_nat (x / Z.of_nat tile_kv)
    | None => 0
    end.
  Definition end_whole (first height : nat) : nat :=
    match right with
    | Some r => if (Z.of_nat (key_tiles * tile_kv) <=? last_key first height r + Z.of_nat tile_kv)%Z then 1 else 0
    | None => 1
    end.
  Definition begin_none (first : nat) : nat :=
    match left with Some l => if (Z.of_nat kv_len <=? first_key first l)%Z then 1 else 0 | None => 0 end.

  Lemma floor_spec x j : (Z.of_nat j < x / Z.of_nat tile_kv <-> Z.of_nat ((j + 1) * tile_kv) <= x)%Z.
  Proof.
    pose proof (Z.div_mod x (Z.of_nat tile_kv) ltac:(lia)).
    pose proof (Z.mod_pos_bound x (Z.of_nat tile_kv) ltac:(lia)).
    set (q := (x / Z.of_nat tile_kv)%Z) in *. rewrite Nat2Z.inj_mul, Nat2Z.inj_add. split; intros; nia.
  Qed.

  Lemma covered : kv_len <= key_tiles * tile_kv < kv_len + tile_kv.
  Proof. apply cdiv_spec. assumption. Qed.

  Lemma end_spec first height j : j < key_tiles -> not_after first height j = (j <? end_tile first height).
  Proof.
    intros inside. unfold not_after, end_tile. destruct right as [r|]; [|symmetry; apply Nat.ltb_lt; assumption].
    cbv zeta. set (y := last_key first height r). apply eq_true_iff_eq. rewrite Z.leb_le, Nat.ltb_lt.
    pose proof (floor_spec (y + Z.of_nat tile_kv) j). rewrite Nat.mul_add_distr_r, Nat2Z.inj_add in *.
    assert (j * tile_kv + tile_kv <= key_tiles * tile_kv) by nia.
    destruct (Z.leb_spec (Z.of_nat (key_tiles * tile_kv)) (y + Z.of_nat tile_kv)); lia.
  Qed.

  Lemma begin_spec first j : j < key_tiles -> not_before first j = (begin_tile first <=? j).
  Proof.
    intros inside. unfold not_before, begin_tile. destruct left as [l|]; [|reflexivity].
    cbv zeta. set (x := first_key first l). apply eq_true_iff_eq. rewrite Z.ltb_lt, Nat.leb_le.
    pose proof (floor_spec x j). pose proof covered.
    assert ((j + 1) * tile_kv <= key_tiles * tile_kv) by (apply Nat.mul_le_mono_r; lia).
    destruct (Z.leb_spec (Z.of_nat kv_len) x); [lia|].
    destruct (Nat.min_spec kv_len ((j + 1) * tile_kv)) as [[below ->]|[above ->]]; lia.
  Qed.

  Lemma end_bounded first height : end_tile first height <= key_tiles /\
    end_tile first height * tile_kv = Nat.min kv_len (end_tile first height * tile_kv) + end_whole first height * short.
  Proof.
    pose proof covered. unfold end_tile, end_whole, short. destruct right as [r|]; [|lia]. cbv zeta.
    set (y := (last_key first height r + Z.of_nat tile_kv)%Z).
    destruct (Z.leb_spec (Z.of_nat (key_tiles * tile_kv)) y) as [|inside]; [lia|].
    pose proof (floor_spec y (key_tiles - 1)) as floor.
    assert (Z.to_nat (y / Z.of_nat tile_kv) < key_tiles \/ key_tiles = 0) as [few|none].
    { destruct key_tiles as [|n]; [auto|left]. rewrite Nat.sub_succ, Nat.sub_0_r, Nat.add_1_r in floor. lia. }
    - split; [lia|]. assert ((Z.to_nat (y / Z.of_nat tile_kv) + 1) * tile_kv <= key_tiles * tile_kv)
        by (apply Nat.mul_le_mono_r; lia). lia.
    - assert (y < 0)%Z by (rewrite none in inside; lia).
      assert (y / Z.of_nat tile_kv < 0)%Z by (apply Z.div_lt_upper_bound; lia).
      replace (Z.to_nat (y / Z.of_nat tile_kv)) with 0 by lia. lia.
  Qed.

  Lemma begin_bounded first : begin_tile first <= key_tiles /\
    begin_tile first * tile_kv = Nat.min kv_len (begin_tile first * tile_kv) + begin_none first * short.
  Proof.
    pose proof covered. unfold begin_tile, begin_none, short. destruct left as [l|]; [|lia]. cbv zeta.
    set (x := first_key first l). destruct (Z.leb_spec (Z.of_nat kv_len) x) as [|inside]; [lia|].
    assert (Z.to_nat (x / Z.of_nat tile_kv) * tile_kv <= kv_len).
    { destruct (Z.to_nat (x / Z.of_nat tile_kv)) as [|k] eqn:floor; [lia|].
      pose proof (floor_spec x k). rewrite Nat.add_1_r in *. lia. }
    split; [|lia]. nia.
  Qed.

  Lemma begin_end first height : 0 < height -> begin_tile first <= end_tile first height.
  Proof.
    intros some. pose proof covered. pose proof (proj1 (begin_bounded first)) as few.
    unfold begin_tile, end_tile, first_key, last_key in *. destruct left as [l|]; [|lia].
    destruct right as [r|]; cbv zeta in *; [|assumption].
    set (x := (_ - Z.of_nat l)%Z) in *. set (y := (_ + Z.of_nat tile_kv)%Z).
    assert (x + Z.of_nat tile_kv <= y)%Z as order by (unfold x, y; lia).
    destruct (Z.leb_spec (Z.of_nat kv_len) x), (Z.leb_spec (Z.of_nat (key_tiles * tile_kv)) y); try lia.
    assert (x / Z.of_nat tile_kv <= y / Z.of_nat tile_kv)%Z by (apply Z.div_le_mono; lia). lia.
  Qed.

  (** ** All query tiles *)

  Definition row_sum (f : nat -> nat) (first height : nat) : nat := sum_seen key_tiles (rows_see first height) f.
  Definition row_tiles := row_sum (fun _ => 1).
  Definition row_cols := row_sum (tile kv_len tile_kv).

  Lemma row_window f first height : 0 < height ->
    row_sum f first height + sum (begin_tile first) f = sum (end_tile first height) f.
  Proof.
    intros some. rewrite <- (sum_window key_tiles (begin_tile first) (end_tile first height) f)
      by (apply end_bounded || apply begin_end; assumption).
    f_equal.
    apply sum_ext. intros j inside. unfold rows_see. now rewrite begin_spec, (end_spec first height).
  Qed.

  Lemma row_tiles_spec first height : 0 < height -> row_tiles first height + begin_tile first = end_tile first height.
  Proof.
    intros some. pose proof (row_window (fun _ => 1) first height some) as all. rewrite !sum_const in all.
    unfold row_tiles. lia.
  Qed.

  Lemma row_cols_spec first height : 0 < height ->
    row_cols first height + begin_tile first * tile_kv + end_whole first height * short =
    end_tile first height * tile_kv + begin_none first * short.
  Proof.
    intros some. pose proof (row_window (tile kv_len tile_kv) first height some) as all. rewrite !tiles_prefix in all.
    pose proof (proj2 (end_bounded first height)). pose proof (proj2 (begin_bounded first)). unfold row_cols. lia.
  Qed.

  Lemma band_ends_spec first count height : band_ends first count height =
    (sum count (fun i => end_tile (first + i * tile_q) height),
     sum count (fun i => end_whole (first + i * tile_q) height)).
  Proof.
    unfold band_ends, end_tile, end_whole. destruct right as [r|].
    - rewrite staircase_is_sum by assumption. unfold stair, reaches, at_step.
      f_equal; apply sum_ext; intros i _; unfold last_key; cbv zeta;
        replace (Z.of_nat (tile_q * i) + (Z.of_nat (first + height) - 1 + shift + Z.of_nat r + Z.of_nat tile_kv))%Z
          with (Z.of_nat (first + i * tile_q + height) - 1 + shift + Z.of_nat r + Z.of_nat tile_kv)%Z by lia;
        reflexivity.
    - rewrite !sum_const. f_equal. lia.
  Qed.

  Lemma band_begins_spec first count : band_begins first count =
    (sum count (fun i => begin_tile (first + i * tile_q)), sum count (fun i => begin_none (first + i * tile_q))).
  Proof.
    unfold band_begins, begin_tile, begin_none. destruct left as [l|].
    - rewrite staircase_is_sum by assumption. unfold stair, reaches, at_step.
      f_equal; apply sum_ext; intros i _; unfold first_key; cbv zeta;
        replace (Z.of_nat (tile_q * i) + (Z.of_nat first + shift - Z.of_nat l))%Z
          with (Z.of_nat (first + i * tile_q) + shift - Z.of_nat l)%Z by lia; reflexivity.
    - rewrite !sum_const. f_equal; lia.
  Qed.

  Lemma band_rows_spec first count height : 0 < height -> band_rows first count height =
    (Z.of_nat (sum count (fun i => row_tiles (first + i * tile_q) height)),
     Z.of_nat (sum count (fun i => row_cols (first + i * tile_q) height))).
  Proof.
    intros some. unfold band_rows. rewrite band_ends_spec, band_begins_spec. cbv zeta.
    set (f i := first + i * tile_q).
    assert (sum count (fun i => row_tiles (f i) height) + sum count (fun i => begin_tile (f i)) =
      sum count (fun i => end_tile (f i) height)) as tiles.
    { rewrite <- sum_add. apply sum_ext. intros. apply row_tiles_spec. assumption. }
    assert (sum count (fun i => row_cols (f i) height) + sum count (fun i => begin_tile (f i)) * tile_kv
      + sum count (fun i => end_whole (f i) height) * short =
      sum count (fun i => end_tile (f i) height) * tile_kv + sum count (fun i => begin_none (f i)) * short) as cols.
    { rewrite <- !sum_mul_r, <- !sum_add. apply sum_ext. intros. apply row_cols_spec. assumption. }
    subst f. cbv beta in *. f_equal; [lia|].
    set (ends := sum count (fun i => end_tile _ _)) in *. set (begins := sum count (fun i => begin_tile _)) in *.
    set (whole := sum count (fun i => end_whole _ _)) in *. set (none := sum count (fun i => begin_none _)) in *.
    rewrite !Z.mul_sub_distr_r. lia.
  Qed.

  (** The four statistics of any band are the sums over visible pairs of tiles: their number, query rows, key rows, and
      query rows times key rows.
      Used by: simulator/ioaware/masks/band.py (_band). *)
  Theorem band_statistics : 0 < q_len ->
    band = (Z.of_nat (seen_tiles band_sees q_len kv_len tile_q tile_kv),
            Z.of_nat (seen_rows band_sees q_len kv_len tile_q tile_kv),
            Z.of_nat (seen_cols band_sees q_len kv_len tile_q tile_kv),
            Z.of_nat (seen_cells band_sees q_len kv_len tile_q tile_kv)).
  Proof.
    intros some. pose proof (cdiv_spec q_len tile_q tile_q_positive) as bounds.
    unfold band, seen_tiles, seen_rows, seen_cols, seen_cells, over_pairs. cbv zeta.
    destruct (cdiv q_len tile_q) as [|T]; [lia|]. rewrite Nat.sub_succ, Nat.sub_0_r.
    set (last := T * tile_q). assert (0 < q_len - last) as rest by (unfold last; lia).
    rewrite !band_rows_spec by assumption.
    assert (forall i, i < T -> tile q_len tile_q i = tile_q) as whole.
    { intros i inside. unfold tile. assert ((i + 1) * tile_q <= T * tile_q) by (apply Nat.mul_le_mono_r; lia). lia. }
    assert (tile q_len tile_q T = q_len - last) as ragged by (unfold tile, last in *; lia).
    cbn [sum]. rewrite !Nat.mul_0_l, !Nat.add_0_r, !Nat.add_0_l, ragged.
    assert (forall i f, i < T -> sum_seen key_tiles (band_sees i) f = row_sum f (i * tile_q) tile_q) as row.
    { intros i f inside. unfold row_sum, band_sees. rewrite whole by assumption. reflexivity. }
    assert (forall f, sum_seen key_tiles (band_sees T) f = row_sum f last (q_len - last)) as last_row.
    { intros f. unfold row_sum, band_sees. rewrite ragged. reflexivity. }
    fold key_tiles. rewrite <- !Nat2Z.inj_mul, <- !Nat2Z.inj_add, <- !sum_mul_l. unfold row_tiles, row_cols.
    rewrite <- !last_row, <- !sum_seen_mul_l.
    apply f_equal2; [apply f_equal2; [apply f_equal2|]|]; apply f_equal, f_equal2.
    all: try (apply sum_ext; intros i inside; rewrite Nat.add_0_l, <- row, <- ?sum_seen_mul_l by assumption).
    all: apply sum_seen_ext; intros; rewrite ?whole by assumption; lia.
  Qed.
End Band.
