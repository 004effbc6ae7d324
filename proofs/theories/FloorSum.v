(** Sums of floors without enumerating them: the arithmetic under the simulator's mask statistics.

    [floor_sum] is the simulator's loop, Euclid's algorithm on the lattice points under a line; [staircase] adds up
    floors that are cut off below zero and replaced by a top from some point on. Both equal the sums they stand for.

    Not claimed: how few steps they take. The number of steps that the loop is given is more than it needs. *)
From Coq Require Import Lia ZArith Bool.
From IOAware Require Import IOCounts.
Open Scope nat_scope.

(** ** A sum of floors, by Euclid's algorithm *)

(* The simulator's loop, run at most so many steps; m falls at every step. *)
Fixpoint floor_sum (steps n m a b : nat) : nat :=
  match steps with
  | 0 => 0
  | S steps =>
    if (n =? 0) || (m =? 0) then 0 else
    let a' := a mod m in
    let b' := b mod m in
    (n - 1) * n / 2 * (a / m) + n * (b / m) + floor_sum steps ((a' * n + b') / m) a' m ((a' * n + b') mod m)
  end.

Lemma sum_reversed n f : sum n (fun i => f (n - 1 - i)) = sum n f.
Proof. exact (sum_back_and_forth n 1 f). Qed.

Lemma sum_below n k : k <= n -> sum n (fun i => if i <? k then 1 else 0) = k.
Proof.
  intros few. enough (forall n, sum n (fun i => if i <? k then 1 else 0) = Nat.min n k) as -> by lia.
  clear. induction n as [|n IH]; [reflexivity|]. simpl sum. rewrite IH. destruct (Nat.ltb_spec n k); lia.
Qed.

Lemma below_floor m j x : 0 < m -> (j < x / m <-> m * (j + 1) <= x).
Proof.
  intros positive. pose proof (Nat.div_mod x m ltac:(lia)). pose proof (Nat.mod_upper_bound x m ltac:(lia)).
  set (q := x / m) in *. split; intros; nia.
Qed.

Lemma floor_below m y x : 0 < m -> x < m * (y + 1) -> x / m <= y.
Proof. intros positive few. apply Nat.lt_succ_r, Nat.div_lt_upper_bound; lia. Qed.

(* The pairs (i, j) with m (j + 1) <= a i + b, counted by i and by j, both from the far end. *)
Lemma floors_exchanged n m a b : 0 < a -> a < m -> b < m ->
  sum n (fun i => (a * i + b) / m) =
  sum ((a * n + b) / m) (fun j => (m * j + (a * n + b) mod m) / a).
Proof.
  intros some smaller rest.
  pose proof (Nat.div_mod (a * n + b) m ltac:(lia)) as whole.
  pose proof (Nat.mod_upper_bound (a * n + b) m ltac:(lia)) as less.
  set (y := (a * n + b) / m) in *. set (z := (a * n + b) mod m) in *.
  transitivity (sum n (fun i => sum y (fun j => if j <? (a * i + b) / m then 1 else 0))).
  { apply sum_ext. intros i inside. symmetry. apply sum_below, floor_below; [lia|].
    assert (a * (i + 1) <= a * n) by (apply Nat.mul_le_mono_l; lia). lia. }
  rewrite sum_swap, <- sum_reversed. apply sum_ext. intros j inside.
  transitivity (sum n (fun i => if i <? (m * j + z) / a then 1 else 0)).
  - rewrite <- sum_reversed. apply sum_ext. intros i i_inside.
    assert (y - 1 - j < (a * (n - 1 - i) + b) / m <-> i < (m * j + z) / a) as same.
    { rewrite !below_floor by lia. replace (y - 1 - j + 1) with (y - j) by lia.
      rewrite !Nat.mul_sub_distr_l, Nat.mul_add_distr_l.
      assert (m * j <= m * y) by (apply Nat.mul_le_mono_l; lia).
      assert (a * (i + 1) <= a * n) by (apply Nat.mul_le_mono_l; lia). lia. }
    destruct (Nat.ltb_spec (y - 1 - j) ((a * (n - 1 - i) + b) / m)), (Nat.ltb_spec i ((m * j + z) / a)); lia.
  - apply sum_below, floor_below; [lia|].
    assert (m * (j + 1) <= m * y) by (apply Nat.mul_le_mono_l; lia). lia.
Qed.

Lemma sum_of_positions n : sum n (fun i => i) = (n - 1) * n / 2.
Proof.
  assert (2 * sum n (fun i => i) = (n - 1) * n) as twice.
  { induction n as [|n IH]; [reflexivity|]. simpl sum. destruct n as [|n]; [reflexivity|]. simpl in *. lia. }
  rewrite <- twice, Nat.mul_comm, Nat.div_mul; lia.
Qed.

Lemma floors_reduced n m a b : 0 < m ->
  sum n (fun i => (a * i + b) / m) =
  (n - 1) * n / 2 * (a / m) + n * (b / m) + sum n (fun i => (a mod m * i + b mod m) / m).
Proof.
  intros positive. rewrite <- sum_of_positions, <- (sum_const n), (Nat.mul_comm _ (a / m)), <- sum_mul_l, <- !sum_add.
  apply sum_ext. intros i _. rewrite <- Nat.div_add_l by lia. f_equal.
  rewrite (Nat.div_mod a m) at 1 by lia. rewrite (Nat.div_mod b m) at 1 by lia. ring.
Qed.

(** The loop computes the sum of (a i + b) / m, rounded down, over i < n, for all natural numbers with m > 0.
    Used by: simulator/ioaware/masks/band.py (_floor_sum). *)
Theorem floor_sum_is_sum_of_floors : forall steps n m a b, 0 < m <= steps ->
  floor_sum steps n m a b = sum n (fun i => (a * i + b) / m).
Proof.
  induction steps as [|steps IH]; intros n m a b [positive enough]; [lia|]. cbn [floor_sum].
  destruct (Nat.eqb_spec n 0) as [->|some]; [reflexivity|].
  destruct (Nat.eqb_spec m 0); [lia|]. cbv zeta. cbn [orb]. rewrite floors_reduced by assumption. f_equal.
  pose proof (Nat.mod_upper_bound a m ltac:(lia)). pose proof (Nat.mod_upper_bound b m ltac:(lia)).
  destruct (Nat.eq_dec (a mod m) 0) as [none|more].
  - rewrite none. rewrite (Nat.div_small (0 * n + b mod m)) by lia.
    transitivity 0; [destruct steps; reflexivity|].
    symmetry. rewrite (sum_ext n _ (fun _ => 0)); [rewrite sum_const; lia|]. intros. apply Nat.div_small. lia.
  - rewrite IH by lia. symmetry. apply floors_exchanged; lia.
Qed.

(** ** Parts of sums *)

Lemma sum_split k l f : sum (k + l) f = sum k f + sum l (fun i => f (k + i)).
Proof. induction l as [|l IH]; [rewrite Nat.add_0_r; simpl; lia|]. rewrite Nat.add_succ_r. simpl. lia. Qed.

Lemma sum_three n k l f : k <= l -> l <= n ->
  sum n f = sum k f + sum (l - k) (fun i => f (k + i)) + sum (n - l) (fun i => f (l + i)).
Proof.
  intros. replace n with (l + (n - l)) at 1 by lia. rewrite sum_split.
  replace l with (k + (l - k)) at 1 by lia. rewrite sum_split. reflexivity.
Qed.

Lemma sum_mul_r n c f : sum n (fun i => f i * c) = sum n f * c.
Proof. rewrite Nat.mul_comm, <- sum_mul_l. apply sum_ext. intros. lia. Qed.

(** ** A staircase *)

Section Staircase.
  Variables (n a m full top : nat) (b : Z).

  (* The line a i + b; its floor where it is below [full] and above zero, and [top] from [full] on. *)
  Definition at_step (i : nat) : Z := (Z.of_nat (a * i) + b)%Z.
  Definition reaches (i : nat) : bool := (Z.of_nat full <=? at_step i)%Z.
  Definition stair (i : nat) : nat := if reaches i then top else Z.to_nat (at_step i / Z.of_nat m).

  (* The first i at which the line is at x or above. *)
  Definition first_from (x : nat) : nat := Z.to_nat (- (- (Z.of_nat x - b) / Z.of_nat a)).

  (* As the simulator computes it: the sum of the stairs, and how many are at the top. *)
  Definition staircase : nat * nat :=
    let at_top := Nat.min (first_from full) n in
    let positive := Nat.min (first_from m) at_top in
    let floors := floor_sum m (at_top - positive) m a (Z.to_nat (at_step positive)) in
    (floors + (n - at_top) * top, n - at_top).

  Hypothesis (a_positive : 0 < a) (m_positive : 0 < m).

  Lemma first_from_spec x i : first_from x <= i <-> (Z.of_nat x <= at_step i)%Z.
  Proof.
    unfold first_from, at_step. set (d := (Z.of_nat x - b)%Z).
    pose proof (Z.div_mod (- d) (Z.of_nat a) ltac:(lia)). pose proof (Z.mod_pos_bound (- d) (Z.of_nat a) ltac:(lia)).
    set (q := (- d / Z.of_nat a)%Z) in *. rewrite Nat2Z.inj_mul. split; intros; nia.
  Qed.

  Lemma at_step_shift k i : at_step (k + i) = (Z.of_nat (a * i) + at_step k)%Z.
  Proof. unfold at_step. lia. Qed.

  (** The staircase computes what it stands for: the sum over i < n of [top] where a i + b >= [full], else of
      (a i + b) / m rounded down and not below zero; and how many i reach the top. Here a > 0 and m > 0, and b may be
      negative.
      Used by: simulator/ioaware/masks/band.py (_staircase). *)
  Theorem staircase_is_sum : staircase = (sum n stair, sum n (fun i => if reaches i then 1 else 0)).
  Proof.
    unfold staircase. set (l := Nat.min (first_from full) n). set (k := Nat.min (first_from m) l).
    assert (k <= l /\ l <= n) as [kl ln] by lia. cbv zeta. f_equal.
    - rewrite (sum_three n k l) by assumption. rewrite floor_sum_is_sum_of_floors by lia.
      rewrite (sum_ext k stair (fun _ => 0)), (sum_ext (n - l) (fun i => stair (l + i)) (fun _ => top)).
      + rewrite !sum_const, Nat.mul_0_r. simpl. f_equal. apply sum_ext. intros i inside.
        unfold stair, reaches. destruct (Z.leb_spec (Z.of_nat full) (at_step (k + i))) as [above|_].
        * apply first_from_spec in above. lia.
        * rewrite at_step_shift. pose proof (proj1 (first_from_spec m k)).
          rewrite <- (Nat2Z.id (_ / m)), Nat2Z.inj_div, Nat2Z.inj_add, Z2Nat.id by lia. reflexivity.
      + intros i inside. unfold stair, reaches.
        destruct (Z.leb_spec (Z.of_nat full) (at_step (l + i))); [auto|].
        pose proof (proj1 (first_from_spec full (l + i))). lia.
      + intros i inside. unfold stair, reaches. destruct (Z.leb_spec (Z.of_nat full) (at_step i)) as [above|_].
        * apply first_from_spec in above. lia.
        * pose proof (proj2 (first_from_spec m i)). destruct (Z.ltb_spec (at_step i) (Z.of_nat m)); [|lia].
          assert (at_step i / Z.of_nat m < 1)%Z by (apply Z.div_lt_upper_bound; lia). lia.
    - rewrite (sum_three n l l) by lia. rewrite Nat.sub_diag. cbn [sum].
      rewrite (sum_ext l _ (fun _ => 0)), (sum_ext (n - l) _ (fun _ => 1)); [rewrite !sum_const; lia| |].
      + intros i inside. unfold reaches. destruct (Z.leb_spec (Z.of_nat full) (at_step (l + i))); [auto|].
        pose proof (proj1 (first_from_spec full (l + i))). lia.
      + intros i inside. unfold reaches. destruct (Z.leb_spec (Z.of_nat full) (at_step i)) as [above|_]; [|auto].
        apply first_from_spec in above. lia.
  Qed.
End Staircase.
