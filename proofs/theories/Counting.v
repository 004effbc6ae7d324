(** Counting: how much attention work can be finished with w words.

    Hold w words. A score is either continued from an unfinished sum among them, or all of its row of Q and all of its
    row of K are among them. So w words give at most (their unfinished sums) + (complete rows of Q) * (complete rows of
    K) scores, and whichever way the w words are divided, that is no more than w * max (w, 4 d^2) / (4 d^2). The same
    count is made for the products p_ij v_jk of O = P V and for the pairs of the backward pass. Cutting a run after
    every M loads, each segment lives on at most 2 M words: so the count for one segment gives a bound for the whole.

    These are the lemmas behind LowerBound.v and BackwardBound.v. Nothing is assumed about order, tiling or masks. *)
From Coq Require Import List Arith Lia FinFun.
From IOAware Require Import Machine.
Import ListNotations.

(** * Lists without duplicates *)

Lemma nodup_app {X} (a b : list X) : NoDup a -> NoDup b -> (forall x, In x a -> ~ In x b) -> NoDup (a ++ b).
Proof.
  induction 1 as [|x a Hx Ha IH]; simpl; auto. intros Hb H. constructor.
  - rewrite in_app_iff. intros [Hin|Hin]; [auto|]. apply (H x); auto.
  - apply IH; auto.
Qed.

(** The pairs (i, j) of the rows i, each with its own list of columns j: every mask has this form. *)
Definition mask {X Y} (rows : list X) (columns : X -> list Y) : list (X * Y) :=
  flat_map (fun i => map (pair i) (columns i)) rows.

Lemma in_mask {X Y} (rows : list X) (columns : X -> list Y) i j :
  In (i, j) (mask rows columns) <-> In i rows /\ In j (columns i).
Proof.
  unfold mask. rewrite in_flat_map. split.
  - intros (i' & Hi & Hin). apply in_map_iff in Hin. destruct Hin as (j' & [= <- <-] & Hj). auto.
  - intros [Hi Hj]. exists i. split; auto. now apply in_map.
Qed.

Lemma mask_nodup {X Y} (rows : list X) (columns : X -> list Y) :
  NoDup rows -> (forall i, NoDup (columns i)) -> NoDup (mask rows columns).
Proof.
  induction 1 as [|i rows Hi Hr IH]; intros Hc; [constructor|]. apply nodup_app; auto.
  - apply Injective_map_NoDup; [congruence|auto].
  - intros [i' j] Hin Hin'. apply in_map_iff in Hin. destruct Hin as (? & [= <- _] & _).
    now apply in_mask in Hin'.
Qed.

Lemma product_nodup {X Y} (a : list X) (b : list Y) : NoDup a -> NoDup b -> NoDup (list_prod a b).
Proof.
  intros Ha Hb. enough (E : mask a (fun _ => b) = list_prod a b) by (rewrite <- E; now apply mask_nodup).
  clear. induction a as [|x a IH]; [auto|]. exact (f_equal (app (map (pair x) b)) IH).
Qed.

Lemma projected {X} (f : X -> nat) L y : In y (nodup Nat.eq_dec (map f L)) <-> exists e, In e L /\ f e = y.
Proof. rewrite nodup_In, in_map_iff. firstorder. Qed.

(** * Words by kind *)

Definition is_left (p : product) (w : word) : bool :=
  match w, p with Left QK _ _, QK => true | Left GV _ _, GV => true | _, _ => false end.
Definition is_right (p : product) (w : word) : bool :=
  match w, p with Right QK _ _, QK => true | Right GV _ _, GV => true | _, _ => false end.
Definition is_part (w : word) : bool := match w with Part _ _ _ _ => true | _ => false end.
Definition count (kind : word -> bool) (W : list word) : nat := length (filter kind W).

Lemma count_kinds W :
  count (is_left QK) W + count (is_left GV) W + count (is_right QK) W + count (is_right GV) W + count is_part W
  <= length W.
Proof. unfold count. induction W as [|[[] ? ?|[] ? ?| | |] W IH]; cbn in *; lia. Qed.

Lemma count_at_least {X} (f : X -> word) kind L W : Injective f -> NoDup L ->
  (forall x, In x L -> In (f x) W /\ kind (f x) = true) -> length L <= count kind W.
Proof.
  intros Hf HL H. unfold count. rewrite <- (map_length f). apply NoDup_incl_length.
  - now apply Injective_map_NoDup.
  - intros w Hw. apply in_map_iff in Hw. destruct Hw as (x & <- & Hx). now apply filter_In, H.
Qed.

(** Complete rows, each of l words, of Q or dO; of K or V. *)
Lemma left_rows p l R W : NoDup R -> (forall i a, In i R -> a < l -> In (Left p i a) W) ->
  length R * l <= count (is_left p) W.
Proof.
  intros HR H. rewrite <- (seq_length l 0) at 1. rewrite <- prod_length.
  apply (count_at_least (fun x => Left p (fst x) (snd x))).
  - intros [] [] [= -> ->]. auto.
  - apply product_nodup; auto using seq_NoDup.
  - intros [i a] Hin. apply in_prod_iff in Hin. rewrite in_seq in Hin. simpl.
    split; [apply H; [apply Hin|lia]|now destruct p].
Qed.

Lemma right_rows p l R W : NoDup R -> (forall j a, In j R -> a < l -> In (Right p j a) W) ->
  length R * l <= count (is_right p) W.
Proof.
  intros HR H. rewrite <- (seq_length l 0) at 1. rewrite <- prod_length.
  apply (count_at_least (fun x => Right p (fst x) (snd x))).
  - intros [] [] [= -> ->]. auto.
  - apply product_nodup; auto using seq_NoDup.
  - intros [i a] Hin. apply in_prod_iff in Hin. rewrite in_seq in Hin. simpl.
    split; [apply H; [apply Hin|lia]|now destruct p].
Qed.

(** The pairs that unfinished sums stand for. *)
Definition part_pairs (W : list word) : list (nat * nat) :=
  map (fun w => match w with Part _ i j _ => (i, j) | _ => (0, 0) end) (filter is_part W).

Lemma in_part_pairs p i j B W : In (Part p i j B) W -> In (i, j) (part_pairs W).
Proof. intros H. apply in_map_iff. exists (Part p i j B). split; auto. now apply filter_In. Qed.

Lemma part_pairs_length W : length (part_pairs W) = count is_part W.
Proof. apply map_length. Qed.

(** * What w words are enough for *)

Lemma split_evenly x y : 4 * (x * y) <= (x + y) * (x + y).
Proof. destruct (Nat.le_ge_cases x y) as [L|L]; destruct (Nat.le_exists_sub _ _ L) as (z & -> & _); nia. Qed.

(** Of w words, l and r are of the two factors, and p are unfinished sums. *)
Lemma best_division s w l r p X : l + r + p <= w -> w <= X -> 4 * s <= X -> 4 * (l * r) + 4 * s * p <= w * X.
Proof.
  intros H Hw Hs. pose proof (split_evenly l r).
  assert ((l + r) * (l + r) <= (l + r) * X) by (apply Nat.mul_le_mono_l; lia).
  assert (4 * s * p <= X * p) by (now apply Nat.mul_le_mono_r).
  assert ((l + r + p) * X <= w * X) by (now apply Nat.mul_le_mono_r).
  replace ((l + r + p) * X) with ((l + r) * X + X * p) in * by ring. lia.
Qed.

(** The pair's row and column are held, for both inner products up to the lengths that are wanted. *)
Definition fresh (len : product -> nat) (W : list word) (e : nat * nat) :=
  forall p a, a < len p -> In (Left p (fst e) a) W /\ In (Right p (snd e) a) W.
Definition continued (W : list word) (e : nat * nat) := exists p B, In (Part p (fst e) (snd e) B) W.

Lemma count_pairs (len : product -> nat) W E : NoDup E -> (forall e, In e E -> continued W e \/ fresh len W e) ->
  let s := (len QK + len GV) * (len QK + len GV) in 4 * s * length E <= length W * Nat.max (length W) (4 * s).
Proof.
  intros HE H s. destruct (partition_by _ _ E HE H) as (E1 & E2 & HL & N1 & N2 & H1 & H2). clear H HE.
  assert (B1 : length E1 <= count is_part W).
  { rewrite <- part_pairs_length. apply NoDup_incl_length; auto.
    intros [i j] He. destruct (H1 _ He) as [_ (p & B & HB)]. eapply in_part_pairs, HB. }
  set (R := nodup Nat.eq_dec (map fst E2)). set (C := nodup Nat.eq_dec (map snd E2)).
  assert (B2 : length E2 <= length R * length C).
  { rewrite <- prod_length. apply NoDup_incl_length; auto.
    intros [i j] He. apply in_prod; apply projected; eexists; split; eauto. }
  assert (HR : forall p, length R * len p <= count (is_left p) W).
  { intros p. apply left_rows; [apply NoDup_nodup|]. intros i a Hi Ha. apply projected in Hi.
    destruct Hi as (e & He & <-). now apply (H2 e He). }
  assert (HC : forall p, length C * len p <= count (is_right p) W).
  { intros p. apply right_rows; [apply NoDup_nodup|]. intros j a Hj Ha. apply projected in Hj.
    destruct Hj as (e & He & <-). now apply (H2 e He). }
  pose proof (HR QK); pose proof (HR GV); pose proof (HC QK); pose proof (HC GV); pose proof (count_kinds W).
  set (l := count (is_left QK) W + count (is_left GV) W).
  set (r := count (is_right QK) W + count (is_right GV) W).
  assert (Hprod : (length R * (len QK + len GV)) * (length C * (len QK + len GV)) <= l * r)
    by (apply Nat.mul_le_mono; unfold l, r; lia).
  pose proof (best_division s (length W) l r (count is_part W) _ ltac:(unfold l, r; lia)
    (Nat.le_max_l (length W) (4 * s)) (Nat.le_max_r _ _)) as HD.
  assert (4 * s * length E <= 4 * s * (count is_part W + length R * length C)) by (apply Nat.mul_le_mono_l; lia).
  replace (4 * s * (count is_part W + length R * length C))
    with (4 * (length R * (len QK + len GV) * (length C * (len QK + len GV))) + 4 * s * count is_part W) in *
    by (unfold s; ring).
  lia.
Qed.

(** The product p_ij v_jk, with V_jk held, and the score s_ij continued or fresh. *)
Lemma count_products d v W E : NoDup E ->
  (forall e k, In (e, k) E -> k < v /\ In (V (snd e) k) W /\
     (continued W e \/ forall a, a < d -> In (Q (fst e) a) W /\ In (K (snd e) a) W)) ->
  let s := d * (d + v) in 4 * s * length E <= v * (length W * Nat.max (length W) (4 * s)).
Proof.
  intros HE H s.
  destruct (partition_by (fun e => continued W (fst e))
    (fun e => forall a, a < d -> In (Q (fst (fst e)) a) W /\ In (K (snd (fst e)) a) W) E HE)
    as (E1 & E2 & HL & N1 & N2 & H1 & H2); [intros [e k] He; exact (proj2 (proj2 (H _ _ He)))|].
  assert (B1 : length E1 <= count is_part W * v).
  { rewrite <- part_pairs_length, <- (seq_length v 0), <- prod_length. apply NoDup_incl_length; auto.
    intros [[i j] k] He. destruct (H1 _ He) as [HIn (p & B & HB)].
    apply in_prod; [eapply in_part_pairs, HB|]. apply in_seq. pose proof (H _ _ HIn). lia. }
  set (R := nodup Nat.eq_dec (map (fun e => fst (fst e)) E2)).
  set (C := nodup Nat.eq_dec (map (fun e => snd (fst e)) E2)).
  pose proof (fun i j k (He : In (i, j, k) E2) => H _ _ (proj1 (H2 _ He))) as Hk.
  assert (HR : length R * d <= count (is_left QK) W).
  { apply left_rows; [apply NoDup_nodup|]. intros i a Hi Ha. apply projected in Hi.
    destruct Hi as (e & He & <-). now apply (H2 e He). }
  assert (HC : length C * d <= count (is_right QK) W).
  { apply right_rows; [apply NoDup_nodup|]. intros j a Hj Ha. apply projected in Hj.
    destruct Hj as (e & He & <-). now apply (H2 e He). }
  assert (swap : Injective (fun e : nat * nat * nat => (fst (fst e), (snd (fst e), snd e)))).
  { intros [[i j] k] [[i' j'] k'] Eq. simpl in Eq. congruence. }
  set (VV := nodup word_eq (map (fun e => V (snd (fst e)) (snd e)) E2)).
  assert (HV : length VV <= count (is_right GV) W).
  { apply (count_at_least (fun w => w)); [now intros x y|apply NoDup_nodup|].
    intros w Hw. apply nodup_In, in_map_iff in Hw. destruct Hw as ([[i j] k] & <- & He).
    split; auto. now apply (Hk _ _ _ He). }
  assert (B2 : length E2 <= length R * (length C * v)).
  { rewrite <- (map_length (fun e => (fst (fst e), (snd (fst e), snd e)))), <- (seq_length v 0), <- !prod_length.
    apply NoDup_incl_length; [now apply Injective_map_NoDup|]. intros x Hx. apply in_map_iff in Hx.
    destruct Hx as ([[i j] k] & <- & He). pose proof (Hk _ _ _ He). apply in_prod; [|apply in_prod].
    - apply projected. now exists (i, j, k).
    - apply projected. now exists (i, j, k).
    - apply in_seq. simpl. lia. }
  assert (B3 : length E2 <= length R * length VV).
  { rewrite <- (map_length (fun e => (fst (fst e), V (snd (fst e)) (snd e)))), <- prod_length.
    apply NoDup_incl_length; [apply Injective_map_NoDup; auto; intros [[i j] k] [[i' j'] k'] [=]; congruence|].
    intros x Hx. apply in_map_iff in Hx. destruct Hx as ([[i j] k] & <- & He).
    apply in_prod; [apply projected; now exists (i, j, k)|]. apply nodup_In.
    now apply (in_map (fun e => V (snd (fst e)) (snd e))) in He. }
  pose proof (count_kinds W) as HK.
  set (w := length W) in *. set (X := Nat.max w (4 * s)).
  assert (HX : w <= X /\ 4 * s <= X) by (unfold X; lia). clearbody X.
  set (q := count (is_left QK) W) in *. set (c := count (is_right QK) W) in *.
  set (u := count (is_right GV) W) in *. set (p := count is_part W) in *.
  assert (A1 : length E2 * (d * d) <= v * (q * c)).
  { apply Nat.le_trans with (length R * (length C * v) * (d * d)); [now apply Nat.mul_le_mono_r|].
    replace (length R * (length C * v) * (d * d)) with (v * ((length R * d) * (length C * d))) by ring.
    apply Nat.mul_le_mono_l. now apply Nat.mul_le_mono. }
  assert (A2 : length E2 * (d * v) <= v * (q * u)).
  { apply Nat.le_trans with (length R * length VV * (d * v)); [now apply Nat.mul_le_mono_r|].
    replace (length R * length VV * (d * v)) with (v * ((length R * d) * length VV)) by ring.
    apply Nat.mul_le_mono_l. now apply Nat.mul_le_mono. }
  pose proof (best_division s w q (c + u) p X ltac:(lia) (proj1 HX) (proj2 HX)) as HD.
  apply (Nat.mul_le_mono_l _ _ v) in HD.
  assert (A3 : 4 * s * length E1 <= 4 * s * (p * v)) by (now apply Nat.mul_le_mono_l).
  replace (v * (4 * (q * (c + u)) + 4 * s * p)) with (4 * (v * (q * c) + v * (q * u)) + 4 * s * (p * v)) in HD by ring.
  replace (4 * s * length E) with (4 * s * length E1 + 4 * (length E2 * (d * d) + length E2 * (d * v)))
    by (rewrite HL; unfold s; ring).
  lia.
Qed.

(** * From one segment to the whole run *)

(** If w words allow at most times * w * max (w, 4 s) / (4 s) pieces of work, so much for a run from an empty memory. *)
Lemma bound_from_words {X} (work : X -> fast -> Prop) M d s times os cs E : 0 < M ->
  (forall W F, NoDup F -> (forall e, In e F -> exists c, (forall w, In w c -> from W w) /\ work e c) ->
     4 * s * length F <= times * (length W * Nat.max (length W) (4 * s))) ->
  run M d [] os cs -> NoDup E -> (forall e, In e E -> exists c, In c cs /\ work e c) ->
  s * length E <= times * ((loads os + M) * Nat.max M (2 * s)).
Proof.
  intros HM HW Hr HE Hw. destruct (segment_count M (loads os) HM) as (n & Hn & Hn').
  set (Y := Nat.max M (2 * s)).
  assert (H : 4 * s * length E <= n * (times * ((M + M) * (Y + Y)))).
  { apply (segments M d load_cost work M (4 * s) (times * ((M + M) * (Y + Y))) HM load_cost_le) with os [] cs; auto.
    - clear - HW. intros os c cs E Hr Hc HL HE Hw. rewrite (spent_loads M d os c cs Hr) in HL.
      destruct (segment_words M d M os c cs Hr Hc HL) as (W & HWM & Hfrom).
      apply Nat.le_trans with (times * (length W * Nat.max (length W) (4 * s))).
      + apply HW; auto. intros e He. destruct (Hw e He) as (c' & Hin & He'). exists c'. split; eauto.
      + apply Nat.mul_le_mono_l, Nat.mul_le_mono; unfold Y; lia.
    - simpl; lia.
    - now rewrite (spent_loads M d os [] cs Hr). }
  replace (n * (times * ((M + M) * (Y + Y)))) with (4 * (times * (n * M * Y))) in H by ring.
  assert (times * (n * M * Y) <= times * ((loads os + M) * Y)) by (apply Nat.mul_le_mono_l, Nat.mul_le_mono_r; lia).
  lia.
Qed.
