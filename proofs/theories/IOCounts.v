(** What a loop nest moves between memory and chip, counted exactly.

    A program is the loop nest of an algorithm of the simulator: loads, stores and atomic adds of so many words of a
    tensor, floating-point work, and loops around them. [count] sums what it does, weighing each quantity as the reader
    likes: every read word by 1, only the words of K, or every word by the bytes of its number format. Tiles are ragged:
    the last one of an axis holds what is left. A mask is ANY relation between query tiles and key tiles, so a theorem
    about [sees] holds for causal, sliding-window, block-sparse and random masks alike; the closed forms mention it only
    through four sums over its visible pairs of tiles, the simulator's mask statistics. A loop may walk its tiles back
    and forth; what the walk before has left on chip is then not loaded again.

    The file Programs.v, printed by the simulator, holds every algorithm in this language and, proved by the tactic of
    ClosedForms.v, the closed forms that the simulator evaluates for its traffic and arithmetic.

    Not claimed: where the words come from (L2 or DRAM), how long they take, or that the on-chip values are right. The
    batch is so many equal sequences; packed sequences of other lengths are a sum of such problems. *)
From Coq Require Export Arith.
From Coq Require Import Lia List String.
Export ListNotations.
Export String.StringSyntax.
Open Scope nat_scope.

(** ** The language *)

Inductive quantity :=
  | Read (tensor : string)   (* words from memory to the chip *)
  | Write (tensor : string)  (* words from the chip to memory *)
  | Add (tensor : string)    (* words added atomically in memory *)
  | Flop                     (* operations of matrix products *)
  | Exp.                     (* exponentials *)

Inductive prog :=
  | Do (what : quantity) (amount : nat)
  | Seq (ps : list prog)
  | For (trips : nat) (body : nat -> prog)
  | ForSeen (trips : nat) (sees : nat -> bool) (body : nat -> prog).  (* only the tiles that the mask lets through *)

Notation Load tensor := (Do (Read tensor)).
Notation Store tensor := (Do (Write tensor)).
Notation AtomicAdd tensor := (Do (Add tensor)).
Notation Flops := (Do Flop).
Notation Exps := (Do Exp).

Definition Unless (skipped : bool) (p : prog) : prog := if skipped then Seq [] else p.

(* f 0 + f 1 + ... + f (n - 1) *)
Fixpoint sum (n : nat) (f : nat -> nat) : nat :=
  match n with 0 => 0 | S k => sum k f + f k end.

(* the same over the j that the mask lets through *)
Definition sum_seen (n : nat) (sees : nat -> bool) (f : nat -> nat) : nat :=
  sum n (fun j => if sees j then f j else 0).

(* What one word or one operation counts for. *)
Definition weights := quantity -> nat.

Fixpoint count (w : weights) (p : prog) : nat :=
  match p with
  | Do what amount => w what * amount
  | Seq ps => fold_right (fun p rest => count w p + rest) 0 ps
  | For trips body => sum trips (fun i => count w (body i))
  | ForSeen trips sees body => sum_seen trips sees (fun i => count w (body i))
  end.

(* All words between memory and chip; an atomic add reads and writes. *)
Definition words : weights := fun what =>
  match what with Read _ | Write _ => 1 | Add _ => 2 | Flop | Exp => 0 end.

(* One quantity and nothing else. *)
Definition only (counted : quantity) : weights := fun what =>
  match counted, what with
  | Read t, Read u | Write t, Write u | Add t, Add u => if String.eqb t u then 1 else 0
  | Flop, Flop | Exp, Exp => 1
  | _, _ => 0
  end.

(** ** Tiles and masks *)

(* How many tiles of [step] positions an axis has, rounded up, and how many positions tile i has. *)
Definition cdiv (length step : nat) : nat := (length + step - 1) / step.
Definition tile (length step i : nat) : nat := Nat.min step (length - i * step).

Section Statistics.
  Variables (sees : nat -> nat -> bool) (q_len kv_len tile_q tile_kv : nat).

  (* The sum of [f i j] over the pairs of a query tile i and a key tile j that the mask lets through. *)
  Definition over_pairs (f : nat -> nat -> nat) : nat :=
    sum (cdiv q_len tile_q) (fun i => sum_seen (cdiv kv_len tile_kv) (fun j => sees i j) (f i)).

  Definition seen_tiles := over_pairs (fun _ _ => 1).
  Definition seen_rows := over_pairs (fun i _ => tile q_len tile_q i).
  Definition seen_cols := over_pairs (fun _ j => tile kv_len tile_kv j).
  Definition seen_cells := over_pairs (fun i j => tile q_len tile_q i * tile kv_len tile_kv j).
End Statistics.

(* The mask that hides nothing. *)
Definition full (_ _ : nat) : bool := true.

(** ** Walks back and forth *)

(* The tile at step t of walk i over so many tiles: forwards in even walks, backwards in odd ones. *)
Definition back_and_forth (tiles i t : nat) : nat := if Nat.odd i then tiles - 1 - t else t.

(* The last step before t that is visited. *)
Fixpoint last_step (visited : nat -> bool) (t : nat) : option nat :=
  match t with 0 => None | S before => if visited before then Some before else last_step visited before end.

(* The tile that was visited last before step t of walk i: in this walk, or else in the ones before. *)
Fixpoint on_chip (sees : nat -> nat -> bool) (tiles i t : nat) : option nat :=
  match last_step (fun t => sees i (back_and_forth tiles i t)) t, i with
  | Some before, _ => Some (back_and_forth tiles i before)
  | None, 0 => None
  | None, S walk => on_chip sees tiles walk tiles
  end.

(* Whether step t of walk i finds its tile on chip. *)
Definition kept (sees : nat -> nat -> bool) (tiles i t : nat) : bool :=
  match on_chip sees tiles i t with Some j => j =? back_and_forth tiles i t | None => false end.

(* Over all walks: the positions of an axis in the tiles that are not found on chip. *)
Definition fetched_rows (walks length step : nat) : nat :=
  let tiles := cdiv length step in
  sum walks (fun i =>
    sum_seen tiles (fun t => negb (kept full tiles i t)) (fun t => tile length step (back_and_forth tiles i t))).

(** ** Sums *)

Lemma sum_ext n f g : (forall i, i < n -> f i = g i) -> sum n f = sum n g.
Proof. induction n; simpl; intros; auto. rewrite IHn, H; auto. Qed.

Lemma sum_add n f g : sum n (fun i => f i + g i) = sum n f + sum n g.
Proof. induction n; simpl; auto. rewrite IHn; ring. Qed.

Lemma sum_mul_l n c f : sum n (fun i => c * f i) = c * sum n f.
Proof. induction n; simpl; auto. rewrite IHn; ring. Qed.

Lemma sum_const n c : sum n (fun _ => c) = n * c.
Proof. induction n; simpl; auto. rewrite IHn; ring. Qed.

Lemma sum_swap n m (f : nat -> nat -> nat) : sum n (fun i => sum m (f i)) = sum m (fun j => sum n (fun i => f i j)).
Proof.
  induction n; simpl.
  - rewrite sum_const. lia.
  - rewrite IHn. symmetry. apply sum_add.
Qed.

Lemma sum_seen_ext n s f g : (forall i, i < n -> f i = g i) -> sum_seen n s f = sum_seen n s g.
Proof. intros H. apply sum_ext. intros i Hi. destruct (s i); auto. Qed.

Lemma sum_seen_add n s f g : sum_seen n s (fun i => f i + g i) = sum_seen n s f + sum_seen n s g.
Proof. unfold sum_seen. rewrite <- sum_add. apply sum_ext. intros i _. destruct (s i); auto. Qed.

Lemma sum_seen_mul_l n s c f : sum_seen n s (fun i => c * f i) = c * sum_seen n s f.
Proof. unfold sum_seen. rewrite <- sum_mul_l. apply sum_ext. intros i _. destruct (s i); auto. Qed.

Lemma sum_first n f : sum (S n) f = f 0 + sum n (fun i => f (S i)).
Proof. induction n; [simpl; lia|]. change (sum (S (S n)) f) with (sum (S n) f + f (S n)). rewrite IHn. simpl. lia. Qed.

Lemma cdiv_spec length step : 0 < step -> length <= cdiv length step * step < length + step.
Proof.
  intros positive. unfold cdiv.
  pose proof (Nat.div_mod (length + step - 1) step ltac:(lia)).
  pose proof (Nat.mod_upper_bound (length + step - 1) step ltac:(lia)). nia.
Qed.

Lemma tiles_prefix length step k : sum k (tile length step) = Nat.min length (k * step).
Proof. induction k; simpl; [lia|]. rewrite IHk. unfold tile. lia. Qed.

Lemma tile_first length step : tile length step 0 = Nat.min step length.
Proof. unfold tile. lia. Qed.

Lemma tile_last length step : 0 < length -> 0 < step ->
  tile length step (cdiv length step - 1) = length + step - step * cdiv length step.
Proof.
  intros some positive. pose proof (cdiv_spec length step positive). unfold tile.
  destruct (cdiv length step) as [|before]; [lia|]. rewrite Nat.sub_succ, Nat.sub_0_r. nia.
Qed.

(** Tiles of any step, ragged or not, hold every position of an axis exactly once: their extents add up to its length.
    Used by: simulator/ioaware/readers/algebra.py (over_loop). *)
Theorem tiles_cover : forall length step, 0 < step -> sum (cdiv length step) (tile length step) = length.
Proof. intros length step positive. rewrite tiles_prefix. pose proof (cdiv_spec length step positive). lia. Qed.

(** ** The mask's statistics, seen from query tiles and from key tiles *)

Section FromBothSides.
  Variables (sees : nat -> nat -> bool) (q_len kv_len tile_q tile_kv : nat).

  Let tiles_of_keys i f := sum_seen (cdiv kv_len tile_kv) (fun j => sees i j) f.
  Let tiles_of_queries j f := sum_seen (cdiv q_len tile_q) (fun i => sees i j) f.

  Lemma from_keys f :
    sum (cdiv kv_len tile_kv) (fun j => tiles_of_queries j (fun i => f i j)) =
    over_pairs sees q_len kv_len tile_q tile_kv f.
  Proof. unfold tiles_of_queries, over_pairs, sum_seen. apply sum_swap. Qed.

  Lemma tiles_from_queries : sum (cdiv q_len tile_q) (fun i => tiles_of_keys i (fun _ => 1)) =
    seen_tiles sees q_len kv_len tile_q tile_kv.
  Proof. reflexivity. Qed.

  Lemma cols_from_queries : sum (cdiv q_len tile_q) (fun i => tiles_of_keys i (fun j => tile kv_len tile_kv j)) =
    seen_cols sees q_len kv_len tile_q tile_kv.
  Proof. reflexivity. Qed.

  Lemma cells_from_queries :
    sum (cdiv q_len tile_q) (fun i => tile q_len tile_q i * tiles_of_keys i (fun j => tile kv_len tile_kv j)) =
    seen_cells sees q_len kv_len tile_q tile_kv.
  Proof. apply sum_ext. intros i _. symmetry. apply sum_seen_mul_l. Qed.

  Lemma rows_from_queries : sum (cdiv q_len tile_q) (fun i => tile q_len tile_q i * tiles_of_keys i (fun _ => 1)) =
    seen_rows sees q_len kv_len tile_q tile_kv.
  Proof.
    apply sum_ext. intros i _. symmetry. unfold tiles_of_keys. rewrite <- sum_seen_mul_l.
    apply sum_seen_ext. intros. lia.
  Qed.

  Lemma tiles_from_keys : sum (cdiv kv_len tile_kv) (fun j => tiles_of_queries j (fun _ => 1)) =
    seen_tiles sees q_len kv_len tile_q tile_kv.
  Proof. apply from_keys. Qed.

  Lemma rows_from_keys : sum (cdiv kv_len tile_kv) (fun j => tiles_of_queries j (fun i => tile q_len tile_q i)) =
    seen_rows sees q_len kv_len tile_q tile_kv.
  Proof. apply from_keys. Qed.

  Lemma cells_from_keys :
    sum (cdiv kv_len tile_kv) (fun j => tile kv_len tile_kv j * tiles_of_queries j (fun i => tile q_len tile_q i)) =
    seen_cells sees q_len kv_len tile_q tile_kv.
  Proof.
    etransitivity; [|apply from_keys]. apply sum_ext. intros j _. symmetry. unfold tiles_of_queries.
    rewrite <- sum_seen_mul_l. apply sum_seen_ext. intros. lia.
  Qed.

  Lemma cols_from_keys : sum (cdiv kv_len tile_kv) (fun j => tile kv_len tile_kv j * tiles_of_queries j (fun _ => 1)) =
    seen_cols sees q_len kv_len tile_q tile_kv.
  Proof.
    etransitivity; [|apply (from_keys (fun _ j => tile kv_len tile_kv j))]. apply sum_ext. intros j _. symmetry.
    unfold tiles_of_queries. rewrite <- sum_seen_mul_l. apply sum_seen_ext. intros. lia.
  Qed.
End FromBothSides.

(** ** Walks back and forth, summed *)

Lemma sum_back_and_forth n i f : sum n (fun t => f (back_and_forth n i t)) = sum n f.
Proof.
  unfold back_and_forth. destruct (Nat.odd i); [|reflexivity].
  induction n as [|n IH]; [reflexivity|]. rewrite sum_first.
  rewrite (sum_ext n _ (fun t => f (n - 1 - t))) by (intros; f_equal; lia).
  rewrite IH. simpl. replace (n - 0 - 0) with n by lia. lia.
Qed.

Lemma kept_full n i t : t < n -> kept full n i t = andb (t =? 0) (negb (i =? 0)).
Proof.
  intros inside. unfold kept. destruct t as [|t].
  - destruct i as [|i]; [reflexivity|]. destruct n as [|n]; [lia|]. simpl on_chip.
    assert (on_chip full (S n) i (S n) = Some (back_and_forth (S n) i n)) as -> by (destruct i; reflexivity).
    apply Nat.eqb_eq. unfold back_and_forth. rewrite Nat.odd_succ, <- Nat.negb_odd. destruct (Nat.odd i); simpl; lia.
  - assert (on_chip full n i (S t) = Some (back_and_forth n i t)) as -> by (destruct i; reflexivity).
    apply Nat.eqb_neq. unfold back_and_forth. destruct (Nat.odd i); lia.
Qed.

Lemma fetched_in_walk n i f : 0 < n ->
  sum_seen n (fun t => negb (kept full n i t)) f + (if i =? 0 then 0 else f 0) = sum n f.
Proof.
  intros some. destruct n as [|n]; [lia|]. unfold sum_seen. rewrite !sum_first, kept_full by lia.
  rewrite (sum_ext n _ (fun t => f (S t))) by (intros; rewrite kept_full by lia; reflexivity).
  destruct (i =? 0); simpl; lia.
Qed.

Lemma half_step n : cdiv (S n) 2 = cdiv n 2 + if Nat.odd (S n) then 1 else 0.
Proof.
  pose proof (cdiv_spec n 2 ltac:(lia)). pose proof (cdiv_spec (S n) 2 ltac:(lia)).
  destruct (Nat.odd (S n)) eqn:parity; rewrite Nat.odd_succ in parity.
  - apply Nat.even_spec in parity as [k ->]. lia.
  - rewrite <- Nat.negb_odd in parity. apply Bool.negb_false_iff, Nat.odd_spec in parity as [k ->]. lia.
Qed.

Lemma sum_turns n a b :
  sum (S n) (fun i => if i =? 0 then 0 else if Nat.odd i then b else a) + cdiv n 2 * a = cdiv n 2 * b + n * a.
Proof.
  induction n as [|n IH]; [reflexivity|].
  change (sum (S (S n)) ?f) with (sum (S n) f + f (S n)). rewrite half_step.
  change (S n =? 0) with false. cbv iota. destruct (Nat.odd (S n)); lia.
Qed.

(** Tiles walked back and forth: of walks times length positions, all but those kept at the turns are fetched. The
    last tile is kept at every second turn, rounded up, the first tile at the others.
    Used by: simulator/ioaware/readers/algebra.py (_kept). *)
Theorem kept_at_turns : forall walks length step, 0 < walks -> 0 < length -> 0 < step ->
  let turns := walks - 1 in
  let last := length + step - step * cdiv length step in
  let first := Nat.min step length in
  fetched_rows walks length step + cdiv turns 2 * last + (turns - cdiv turns 2) * first = walks * length.
Proof.
  intros walks length step some longer positive. cbv zeta.
  destruct walks as [|turns]; [lia|]. rewrite Nat.sub_succ, Nat.sub_0_r, <- tile_first, <- tile_last by assumption.
  pose proof (cdiv_spec length step positive) as count. set (n := cdiv length step) in *.
  pose proof (sum_turns turns (tile length step 0) (tile length step (n - 1))) as saved.
  assert (fetched_rows (S turns) length step
    + sum (S turns) (fun i => if i =? 0 then 0 else if Nat.odd i then tile length step (n - 1) else tile length step 0)
    = S turns * length) as all.
  { unfold fetched_rows. rewrite <- sum_add, <- sum_const. apply sum_ext. intros i _. fold n.
    transitivity (sum n (tile length step)); [|apply tiles_cover; assumption].
    rewrite <- (sum_back_and_forth n i), <- (fetched_in_walk n i) by (destruct n; lia). f_equal.
    destruct (i =? 0); [reflexivity|]. unfold back_and_forth. rewrite Nat.sub_0_r. destruct (Nat.odd i); reflexivity. }
  pose proof (cdiv_spec turns 2 ltac:(lia)). rewrite Nat.mul_sub_distr_r.
  assert (cdiv turns 2 * tile length step 0 <= turns * tile length step 0) by (apply Nat.mul_le_mono_r; lia). lia.
Qed.
