(** Counting products that are added to outputs: how many of them w words are enough for.

    To add p_ij v_jk to a sum of O_ik in fast memory, one needs that sum, V_jk, and the score s_ij; the score is either
    continued from a sum among the words, or the row of Q and the row of K are there. With x complete rows of Q, y
    complete rows of K, u entries of V and o sums of outputs, no more than o y, x u and x y dv products can be added
    from complete rows. Dividing the words among the four kinds in the best way gives at most w^2 / (16 d) products, and
    if dv <= d, at most dv w^2 / (4 (d + dv)^2). These are the lemmas behind FullAttention.v. *)
From Coq Require Import List Arith Lia FinFun.
From IOAware Require Import Machine Counting.
Import ListNotations.

(** * Words by kind, sums of outputs too *)

Definition is_out (w : word) : bool := match w with Out _ _ _ => true | _ => false end.

Lemma count_kinds_and_sums W :
  count (is_left QK) W + count (is_right QK) W + count (is_right GV) W + count is_out W + count is_part W <= length W.
Proof. unfold count. induction W as [|[[] ? ?|[] ? ?| | |] W IH]; cbn in *; lia. Qed.

(** The outputs that have a sum among the words. *)
Definition out_cells (W : list word) : list (nat * nat) :=
  map (fun w => match w with Out i k _ => (i, k) | _ => (0, 0) end) (filter is_out W).

Lemma in_out_cells i k J W : In (Out i k J) W -> In (i, k) (out_cells W).
Proof. intros H. apply in_map_iff. exists (Out i k J). split; auto. now apply filter_In. Qed.

(** Every product (i, j, k) can be added, with fast memories that come from the words W. *)
Definition accumulable d dv W E := forall i j k, In (i, j, k) E ->
  k < dv /\ In (V j k) W /\ (exists J, In (Out i k J) W) /\
  (continued W (i, j) \/ forall a, a < d -> In (Q i a) W /\ In (K j a) W).

(** n1 of the products are continued, n have complete rows: x of Q and y of K. *)
Lemma accumulable_counts d dv W E : NoDup E -> accumulable d dv W E -> exists n1 n x y,
  length E = n1 + n /\ n1 <= count is_part W * dv /\
  x * d <= count (is_left QK) W /\ y * d <= count (is_right QK) W /\
  n <= count is_out W * y /\ n <= x * count (is_right GV) W /\ n <= x * (y * dv).
Proof.
  intros HE H.
  destruct (partition_by (fun e => continued W (fst e))
    (fun e => forall a, a < d -> In (Q (fst (fst e)) a) W /\ In (K (snd (fst e)) a) W) E HE)
    as (E1 & E2 & HL & N1 & N2 & H1 & H2); [intros [[i j] k] He; now apply (H i j k)|].
  assert (B1 : length E1 <= count is_part W * dv).
  { rewrite <- part_pairs_length, <- (seq_length dv 0), <- prod_length. apply NoDup_incl_length; auto.
    intros [[i j] k] He. destruct (H1 _ He) as [HIn (p & B & HB)].
    apply in_prod; [eapply in_part_pairs, HB|]. apply in_seq. pose proof (H _ _ _ HIn). lia. }
  set (R := nodup Nat.eq_dec (map (fun e => fst (fst e)) E2)).
  set (C := nodup Nat.eq_dec (map (fun e => snd (fst e)) E2)).
  set (VV := nodup word_eq (map (fun e => V (snd (fst e)) (snd e)) E2)).
  assert (HR : length R * d <= count (is_left QK) W).
  { apply left_rows; [apply NoDup_nodup|]. intros i a Hi Ha. apply projected in Hi.
    destruct Hi as (e & He & <-). now apply (H2 e He). }
  assert (HC : length C * d <= count (is_right QK) W).
  { apply right_rows; [apply NoDup_nodup|]. intros j a Hj Ha. apply projected in Hj.
    destruct Hj as (e & He & <-). now apply (H2 e He). }
  assert (HV : length VV <= count (is_right GV) W).
  { apply (count_at_least (fun w => w)); [now intros x y Eq|apply NoDup_nodup|].
    intros w Hw. apply nodup_In, in_map_iff in Hw. destruct Hw as ([[i j] k] & <- & He).
    split; auto. now apply (H i j k), H2. }
  assert (B2 : length E2 <= count is_out W * length C).
  { unfold count. rewrite <- (map_length (fun w => match w with Out i k _ => (i, k) | _ => (0, 0) end) (filter is_out
      W)).
    fold (out_cells W). rewrite <- prod_length, <- (map_length (fun e => ((fst (fst e), snd e), snd (fst e)))).
    apply NoDup_incl_length.
    { apply Injective_map_NoDup; auto. intros [[i j] k] [[i' j'] k'] Eq. simpl in Eq. congruence. }
    intros x Hx. apply in_map_iff in Hx. destruct Hx as ([[i j] k] & <- & He).
    apply in_prod; [|apply projected; eexists; split; eauto].
    destruct (H i j k (proj1 (H2 _ He))) as (_ & _ & (J & HJ) & _). eapply in_out_cells, HJ. }
  assert (B3 : length E2 <= length R * length VV).
  { rewrite <- (map_length (fun e => (fst (fst e), V (snd (fst e)) (snd e)))), <- prod_length.
    apply NoDup_incl_length.
    { apply Injective_map_NoDup; auto. intros [[i j] k] [[i' j'] k'] Eq. simpl in Eq. congruence. }
    intros x Hx. apply in_map_iff in Hx. destruct Hx as ([[i j] k] & <- & He).
    apply in_prod; [apply projected; eexists; split; eauto|]. apply nodup_In.
    now apply (in_map (fun e => V (snd (fst e)) (snd e))) in He. }
  assert (B4 : length E2 <= length R * (length C * dv)).
  { rewrite <- (map_length (fun e => (fst (fst e), (snd (fst e), snd e)))), <- (seq_length dv 0), <- !prod_length.
    apply NoDup_incl_length.
    { apply Injective_map_NoDup; auto. intros [[i j] k] [[i' j'] k'] Eq. simpl in Eq. congruence. }
    intros e He. apply in_map_iff in He. destruct He as ([[i j] k] & <- & He).
    repeat apply in_prod; try (apply projected; eexists; split; eauto).
    apply in_seq. destruct (H i j k (proj1 (H2 _ He))) as [Hk _]. simpl. lia. }
  exists (length E1), (length E2), (length R), (length C). repeat split; auto.
  apply Nat.le_trans with (1 := B3). now apply Nat.mul_le_mono_l.
Qed.

(** * The best division *)

(** Four kinds of words, each pair of kinds bounding the work: best divided evenly. *)
Lemma split_in_four n a b c e : n * n <= (a * b) * (c * e) -> 16 * n <= (a + b + (c + e)) * (a + b + (c + e)).
Proof.
  intros H. pose proof (split_evenly a b). pose proof (split_evenly c e). pose proof (split_evenly (a + b) (c + e)).
  set (x := a + b) in *. set (y := c + e) in *. set (s := x + y) in *. clearbody x y s.
  assert (H4 : (4 * (a * b)) * (4 * (c * e)) <= (x * x) * (y * y)) by now apply Nat.mul_le_mono.
  assert (H5 : (4 * (x * y)) * (4 * (x * y)) <= (s * s) * (s * s)) by now apply Nat.mul_le_mono.
  destruct (le_lt_dec (16 * n) (s * s)) as [|Hlt]; [auto|exfalso].
  assert (H6 : (s * s) * (s * s) < (16 * n) * (16 * n)) by (apply Nat.square_lt_mono_nonneg; lia).
  replace ((4 * (a * b)) * (4 * (c * e))) with (16 * (a * b * (c * e))) in H4 by ring.
  replace ((4 * (x * y)) * (4 * (x * y))) with (16 * ((x * x) * (y * y))) in H5 by ring.
  replace ((16 * n) * (16 * n)) with (256 * (n * n)) in H6 by ring. lia.
Qed.

Lemma count_accumulated d dv W E : NoDup E -> accumulable d dv W E ->
  16 * d * length E <= length W * Nat.max (length W) (16 * (d * dv)).
Proof.
  intros HE H. destruct (accumulable_counts d dv W E HE H) as (n1 & n & x & y & -> & B1 & HR & HC & B2 & B3 & _).
  pose proof (count_kinds_and_sums W) as HK. clear - B1 HR HC B2 B3 HK.
  set (w := length W) in *. set (X := Nat.max w (16 * (d * dv))).
  assert (HX : w <= X /\ 16 * (d * dv) <= X) by (unfold X; lia). clearbody X w. destruct HX as [HX1 HX2].
  set (q := count (is_left QK) W) in *. set (c := count (is_right QK) W) in *. set (o := count is_out W) in *.
  set (u := count (is_right GV) W) in *. set (p := count is_part W) in *. clearbody q c o u p.
  assert (A1 : n * d <= o * c).
  { apply Nat.le_trans with (o * y * d); [now apply Nat.mul_le_mono_r|].
    rewrite <- Nat.mul_assoc. now apply Nat.mul_le_mono_l. }
  assert (A2 : n * d <= u * q).
  { apply Nat.le_trans with (x * u * d); [now apply Nat.mul_le_mono_r|].
    replace (x * u * d) with (u * (x * d)) by ring. now apply Nat.mul_le_mono_l. }
  pose proof (split_in_four (n * d) o c u q (Nat.mul_le_mono _ _ _ _ A1 A2)) as A3.
  set (s := o + c + (u + q)) in *. assert (Hs : s + p <= w) by (unfold s; lia). clearbody s.
  assert (A4 : s * s <= s * X) by (apply Nat.mul_le_mono_l; lia).
  assert (A5 : d * 16 * n1 <= d * 16 * (p * dv)) by now apply Nat.mul_le_mono_l.
  assert (A6 : p * (16 * (d * dv)) <= p * X) by now apply Nat.mul_le_mono_l.
  assert (A7 : (s + p) * X <= w * X) by now apply Nat.mul_le_mono_r.
  replace (16 * d * (n1 + n)) with (d * 16 * n1 + 16 * (n * d)) by ring.
  replace (d * 16 * (p * dv)) with (p * (16 * (d * dv))) in A5 by ring.
  rewrite Nat.mul_add_distr_r in A7. lia.
Qed.

(** For dv <= d the rows themselves are the scarcer: P = x y pairs of rows, n products, s words. *)
Lemma few_columns d dv n x y s : dv <= d -> n <= dv * (x * y) -> (x + y) * (d * (x * y) + n) <= x * y * s ->
  4 * ((d + dv) * (d + dv)) * n <= dv * (s * s).
Proof.
  intros Hd Hn Hs. pose proof (split_evenly x y) as HS. set (P := x * y) in *.
  destruct (Nat.eq_dec P 0) as [->|HP]; [rewrite Nat.mul_0_r in Hn; lia|].
  set (t := d * P + n) in *.
  assert (H1 : (x + y) * t * ((x + y) * t) <= P * s * (P * s)) by now apply Nat.mul_le_mono.
  assert (H2 : 4 * P * (t * t) <= (x + y) * (x + y) * (t * t)) by now apply Nat.mul_le_mono_r.
  replace ((x + y) * t * ((x + y) * t)) with ((x + y) * (x + y) * (t * t)) in H1 by ring.
  assert (H3 : P * (4 * (t * t)) <= P * (P * (s * s))) by lia. apply Nat.mul_le_mono_pos_l in H3; [|lia].
  destruct (Nat.le_exists_sub _ _ Hn) as (r & Hr & _). destruct (Nat.le_exists_sub _ _ Hd) as (f & Hf & _).
  assert (H4 : P * ((d + dv) * (d + dv) * n) <= dv * (t * t)).
  { apply Nat.le_trans with (P * ((d + dv) * (d + dv) * n) + r * (f * (d + dv) * P + dv * r)); [lia|].
    apply Nat.eq_le_incl. unfold t.
    assert (E : P * ((d + dv) * (d + dv) * n) + r * (d * d * P) = dv * ((d * P + n) * (d * P + n)) + r * (dv * n)).
    { replace (r * (d * d * P)) with (d * d * P * r) by ring. nia. }
    assert (E2 : f * (d + dv) * P + dv * r + dv * n = d * d * P) by (subst d; nia). nia. }
  assert (H5 : dv * (4 * (t * t)) <= dv * (P * (s * s))) by now apply Nat.mul_le_mono_l.
  assert (H6 : P * (4 * ((d + dv) * (d + dv)) * n) <= P * (dv * (s * s))) by lia.
  apply Nat.mul_le_mono_pos_l in H6; [exact H6|lia].
Qed.

Lemma count_accumulated_narrow d dv W E : dv <= d -> NoDup E -> accumulable d dv W E ->
  let s := (d + dv) * (d + dv) in 4 * s * length E <= dv * (length W * Nat.max (length W) (4 * s)).
Proof.
  intros Hd HE H s. destruct (accumulable_counts d dv W E HE H) as (n1 & n & x & y & -> & B1 & HR & HC & B2 & B3 & B4).
  pose proof (count_kinds_and_sums W) as HK. clear - Hd B1 HR HC B2 B3 B4 HK.
  set (w := length W) in *. set (X := Nat.max w (4 * s)).
  assert (HX : w <= X /\ 4 * s <= X) by (unfold X; lia). clearbody X w. destruct HX as [HX1 HX2].
  set (q := count (is_left QK) W) in *. set (c := count (is_right QK) W) in *. set (o := count is_out W) in *.
  set (u := count (is_right GV) W) in *. set (p := count is_part W) in *. clearbody q c o u p.
  set (h := q + c + (o + u)). assert (Hh : h + p <= w) by (unfold h; lia).
  assert (A1 : 4 * s * n <= dv * (h * h)).
  { apply (few_columns d dv n x y h Hd); [lia|].
    assert (x * y * (x * d) <= x * y * q) by now apply Nat.mul_le_mono_l.
    assert (x * y * (y * d) <= x * y * c) by now apply Nat.mul_le_mono_l.
    assert (x * n <= x * (o * y)) by now apply Nat.mul_le_mono_l.
    assert (y * n <= y * (x * u)) by now apply Nat.mul_le_mono_l. unfold h. lia. }
  clearbody h s.
  assert (A4 : dv * (h * h) <= dv * (h * X)) by (apply Nat.mul_le_mono_l, Nat.mul_le_mono_l; lia).
  assert (A5 : 4 * s * n1 <= 4 * s * (p * dv)) by now apply Nat.mul_le_mono_l.
  assert (A6 : dv * (p * (4 * s)) <= dv * (p * X)) by now apply Nat.mul_le_mono_l, Nat.mul_le_mono_l.
  assert (A7 : dv * ((h + p) * X) <= dv * (w * X)) by now apply Nat.mul_le_mono_l, Nat.mul_le_mono_r.
  lia.
Qed.
