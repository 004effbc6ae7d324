(** Online softmax: attention computed block by block equals attention computed at once.

    One query row is followed through a FlashAttention forward pass. The row meets keys; a key has a score
    s = scale * q k^T + bias, which is minus infinity if the key is masked, and a value row v. The textbook result is
        O = sum_j exp(s_j) v_j / sum_j exp(s_j),        L = log (sum_j exp(s_j)).
    A block of keys is summarised by three statistics: the largest score m, the sum l of exp(s_j - m), and the
    un-normalised output, the sum of exp(s_j - m) v_j. Statistics of two blocks merge into those of both. Proved:
    merging is associative and commutative, so that every tiling, order, bracketing (a loop, a tree of warps, a ring of
    devices, a split along the keys) and mask gives the textbook result; a row without a visible key gives O = 0 and
    L = minus infinity; every exponent is at most 0 and l lies between 1 and the number of keys, so nothing overflows;
    FlashAttention-2's loop computes such merges, line 10 of its paper as printed does not; the reference point may lag
    behind the maximum (FlashAttention-4). FlashAttention1.v goes on with FlashAttention-1 and split-KV decoding.

    Minus infinity is handled as the simulator's programs do: -oo - x = -oo, exp(-oo) = 0, log 0 = -oo, 0 / 0 = 0.
    Dropout multiplies a weight after the sum l is taken: take keep_j / (1 - p) * v_j as the value row. Rows, heads and
    batch entries are independent, so one row stands for all of them.

    Not claimed: anything about rounding. Numbers here are real numbers, and a finite score is any real number. *)

From Coq Require Import Reals Lra List Permutation FunctionalExtensionality.
Import ListNotations.
Local Open Scope R_scope.

(** * Scores: real numbers and minus infinity *)

Inductive extended := MinusInfinity | Finite (x : R).

Definition ext_max (a b : extended) : extended :=
  match a, b with
  | MinusInfinity, x | x, MinusInfinity => x
  | Finite x, Finite y => Finite (Rmax x y)
  end.

Definition ext_le (a b : extended) : Prop :=
  match a, b with
  | MinusInfinity, _ => True
  | Finite _, MinusInfinity => False
  | Finite x, Finite y => x <= y
  end.

Definition ext_exp (a : extended) : R := match a with MinusInfinity => 0 | Finite x => exp x end.

(** exp (a - b). The difference x - (-oo) is never taken: b is a maximum that includes a. *)
Definition exp_minus (a b : extended) : R :=
  match a, b with Finite x, Finite y => exp (x - y) | _, _ => 0 end.

Lemma ext_max_comm a b : ext_max a b = ext_max b a.
Proof. destruct a, b; simpl; auto. now rewrite Rmax_comm. Qed.
Lemma ext_max_assoc a b c : ext_max a (ext_max b c) = ext_max (ext_max a b) c.
Proof. destruct a, b, c; simpl; auto. now rewrite Rmax_assoc. Qed.
Lemma ext_le_trans a b c : ext_le a b -> ext_le b c -> ext_le a c.
Proof. destruct a, b, c; simpl; try tauto; apply Rle_trans. Qed.
Lemma ext_le_max_l a b : ext_le a (ext_max a b).
Proof. destruct a, b; simpl; auto using Rle_refl, Rmax_l. Qed.
Lemma ext_le_max_r a b : ext_le b (ext_max a b).
Proof. rewrite ext_max_comm; apply ext_le_max_l. Qed.
Lemma ext_le_hidden a b : ext_le a b -> b = MinusInfinity -> a = MinusInfinity.
Proof. intros H ->; destruct a; simpl in *; tauto. Qed.

Lemma exp_minus_chain a b c : (b = MinusInfinity -> a = MinusInfinity) ->
  exp_minus b c * exp_minus a b = exp_minus a c.
Proof.
  destruct a as [|a], b as [|b], c as [|c]; simpl; intros H; try ring; try (discriminate (H eq_refl)).
  rewrite <- exp_plus; f_equal; ring.
Qed.

Lemma ext_exp_chain a b : (b = MinusInfinity -> a = MinusInfinity) -> ext_exp b * exp_minus a b = ext_exp a.
Proof.
  destruct a as [|a], b as [|b]; simpl; intros H; try ring; try (discriminate (H eq_refl)).
  rewrite <- exp_plus; f_equal; ring.
Qed.

Lemma exp_minus_nonneg a b : 0 <= exp_minus a b.
Proof. destruct a, b; simpl; try lra. left; apply exp_pos. Qed.
Lemma exp_at_most x y : x <= y -> exp x <= exp y.
Proof. intros [H| ->]; [left; now apply exp_increasing | right; reflexivity]. Qed.
Lemma exp_minus_self x : exp (x - x) = 1.
Proof. rewrite Rminus_diag_eq by reflexivity. apply exp_0. Qed.

(** * Keys, and attention as the textbook defines it *)

Definition row := nat -> R.
Record key := Key { score : extended; value : row }.

Definition total (f : key -> R) (keys : list key) : R := fold_right (fun k sum => f k + sum) 0 keys.

(** softmax(s) V without any running maximum; 0 / 0 = 0 where no key is visible. *)
Definition attention (keys : list key) : row :=
  fun c => total (fun k => ext_exp (score k) * value k c) keys / total (fun k => ext_exp (score k)) keys.

Definition all_masked (keys : list key) : Prop := forall k, In k keys -> score k = MinusInfinity.

Lemma total_ext f g keys : (forall k, In k keys -> f k = g k) -> total f keys = total g keys.
Proof. induction keys; simpl; auto; intros H. rewrite IHkeys, (H a); auto. Qed.
Lemma total_scale c f keys : total (fun k => c * f k) keys = c * total f keys.
Proof. induction keys; simpl; [ring | rewrite IHkeys; ring]. Qed.
Lemma total_app f a b : total f (a ++ b) = total f a + total f b.
Proof. induction a; simpl; [ring | rewrite IHa; ring]. Qed.
Lemma total_le f g keys : (forall k, In k keys -> f k <= g k) -> total f keys <= total g keys.
Proof. induction keys; simpl; intros H; [lra|]. apply Rplus_le_compat; auto. Qed.

Lemma total_const c keys : total (fun _ => c) keys = INR (length keys) * c.
Proof.
  induction keys as [|k keys IH]; [simpl; ring|].
  change (length (k :: keys)) with (S (length keys)). rewrite S_INR; simpl; lra.
Qed.

Lemma total_perm f a b : Permutation a b -> total f a = total f b.
Proof. induction 1; simpl; lra. Qed.

(** ** The largest score of a block *)

Definition rowmax (keys : list key) : extended := fold_right (fun k m => ext_max (score k) m) MinusInfinity keys.

Lemma rowmax_app a b : rowmax (a ++ b) = ext_max (rowmax a) (rowmax b).
Proof.
  induction a as [|k a IH]; simpl; [now destruct (rowmax b)|].
  fold (rowmax (a ++ b)) (rowmax a). now rewrite IH, ext_max_assoc.
Qed.

Lemma rowmax_perm a b : Permutation a b -> rowmax a = rowmax b.
Proof. induction 1; simpl; auto; try congruence. now rewrite !ext_max_assoc, (ext_max_comm (score y)). Qed.

Lemma score_le_rowmax keys k : In k keys -> ext_le (score k) (rowmax keys).
Proof.
  induction keys as [|k' keys IH]; simpl; intros []; subst; [apply ext_le_max_l|].
  eapply ext_le_trans; [now apply IH | apply ext_le_max_r].
Qed.

Lemma rowmax_attained keys x : rowmax keys = Finite x -> exists k, In k keys /\ score k = Finite x.
Proof.
  revert x; induction keys as [|k keys IH]; simpl; intros x E; [discriminate|].
  fold (rowmax keys) in E. assert (C : score k = Finite x \/ rowmax keys = Finite x).
  { destruct (score k) as [|s], (rowmax keys) as [|y]; simpl in E; auto.
    revert E; unfold Rmax; destruct (Rle_dec s y); auto. }
  destruct C as [C|C]; [now exists k; auto | destruct (IH _ C) as (k' & Hin & Hk); eauto].
Qed.

Lemma rowmax_masked keys : all_masked keys -> rowmax keys = MinusInfinity.
Proof.
  intros H. destruct (rowmax keys) as [|x] eqn:E; auto.
  destruct (rowmax_attained _ _ E) as (k & Hin & Hk). rewrite (H _ Hin) in Hk; discriminate.
Qed.

Lemma rowmax_covers keys : rowmax keys = MinusInfinity -> all_masked keys.
Proof. intros E k Hk; eapply ext_le_hidden; [apply score_le_rowmax; eassumption | assumption]. Qed.

(** * Statistics of a block, and their merge *)

(** m: the reference point, a running maximum; l: the running sum; acc: the un-normalised output. *)
Record state := State { m_of : extended; l_of : R; acc_of : row }.

Definition empty : state := State MinusInfinity 0 (fun _ => 0).

(** The sum over a block of exp (s_j - m) f_j: rowsum P for f = 1, an entry of P V for f_j = V_jc. *)
Definition weighted (m : extended) (f : key -> R) (keys : list key) : R :=
  total (fun k => exp_minus (score k) m * f k) keys.
Definition rowsum (m : extended) : list key -> R := weighted m (fun _ => 1).
Definition PV (m : extended) (keys : list key) : row := fun c => weighted m (fun k => value k c) keys.

Definition state_at (m : extended) (keys : list key) : state := State m (rowsum m keys) (PV m keys).
Definition block_state (keys : list key) : state := state_at (rowmax keys) keys.

Definition merge (a b : state) : state :=
  let 'State m1 l1 acc1 := a in
  let 'State m2 l2 acc2 := b in
  let m := ext_max m1 m2 in
  State m (exp_minus m1 m * l1 + exp_minus m2 m * l2) (fun c => exp_minus m1 m * acc1 c + exp_minus m2 m * acc2 c).

(** O = diag(l)^-1 acc and L = m + log l, the two results of a forward pass. *)
Definition output (s : state) : row := fun c => acc_of s c / l_of s.
Definition logsumexp (s : state) : extended :=
  match m_of s with MinusInfinity => MinusInfinity | Finite m => Finite (m + ln (l_of s)) end.

Lemma state_eq m m' l l' acc acc' : m = m' -> l = l' -> (forall c, acc c = acc' c) -> State m l acc = State m' l' acc'.
Proof. intros -> -> H. f_equal. now apply functional_extensionality. Qed.

(** Merging does not depend on which of two blocks comes first. *)
Theorem merge_comm a b : merge a b = merge b a.
Proof.
  destruct a as [m1 l1 acc1], b as [m2 l2 acc2]; simpl. rewrite (ext_max_comm m2).
  apply state_eq; intros; auto; apply Rplus_comm.
Qed.

Lemma rescale_sum x y z p q :
  exp_minus (ext_max x y) z * (exp_minus x (ext_max x y) * p + exp_minus y (ext_max x y) * q) =
  exp_minus x z * p + exp_minus y z * q.
Proof.
  rewrite Rmult_plus_distr_l, <- !Rmult_assoc.
  rewrite !exp_minus_chain by (apply ext_le_hidden; auto using ext_le_max_l, ext_le_max_r). reflexivity.
Qed.

(** Merging does not depend on how three blocks are bracketed. *)
Theorem merge_assoc a b c : merge a (merge b c) = merge (merge a b) c.
Proof.
  destruct a as [m1 l1 acc1], b as [m2 l2 acc2], c as [m3 l3 acc3]; simpl.
  apply state_eq; intros; [apply ext_max_assoc| |]; rewrite !rescale_sum, ext_max_assoc; ring.
Qed.

(** A block without visible keys changes nothing. The state must be a possible one: l and acc are 0 where m is minus
    infinity, as they are after any number of keys. *)
Theorem merge_empty s : (m_of s = MinusInfinity -> l_of s = 0 /\ forall c, acc_of s c = 0) -> merge empty s = s.
Proof.
  destruct s as [[|x] l acc]; simpl; intros H.
  - destruct H as (-> & H); auto. apply state_eq; intros; rewrite ?H; auto; ring.
  - rewrite exp_minus_self. apply state_eq; intros; auto; ring.
Qed.

Lemma weighted_rescale x y f keys :
  (x = MinusInfinity -> all_masked keys) -> exp_minus x y * weighted x f keys = weighted y f keys.
Proof.
  intros H. unfold weighted. rewrite <- total_scale. apply total_ext; intros k Hk.
  rewrite <- Rmult_assoc, exp_minus_chain; auto. intros E; now apply H.
Qed.

Lemma weighted_total x f keys : (x = MinusInfinity -> all_masked keys) ->
  ext_exp x * weighted x f keys = total (fun k => ext_exp (score k) * f k) keys.
Proof.
  intros H. unfold weighted. rewrite <- total_scale. apply total_ext; intros k Hk.
  rewrite <- Rmult_assoc, ext_exp_chain; auto. intros E; now apply H.
Qed.

Lemma weighted_hidden f keys : weighted MinusInfinity f keys = 0.
Proof.
  unfold weighted. rewrite (total_ext _ (fun k => 0 * f k)); [rewrite total_scale; ring|].
  intros k _. destruct (score k); simpl; ring.
Qed.

Lemma rowsum_total x keys : (x = MinusInfinity -> all_masked keys) ->
  ext_exp x * rowsum x keys = total (fun k => ext_exp (score k)) keys.
Proof. intros H. unfold rowsum; rewrite weighted_total by auto. apply total_ext; intros; ring. Qed.

(** The statistics of two blocks together are the merge of their statistics. *)
Theorem block_state_app a b : block_state (a ++ b) = merge (block_state a) (block_state b).
Proof.
  unfold block_state, state_at, rowsum, PV; simpl. rewrite rowmax_app.
  apply state_eq; intros; auto; rewrite !weighted_rescale by (apply rowmax_covers); apply total_app.
Qed.

Lemma block_state_perm a b : Permutation a b -> block_state a = block_state b.
Proof.
  intros H; unfold block_state, state_at. rewrite (rowmax_perm _ _ H).
  apply state_eq; intros; auto; now apply total_perm.
Qed.

Lemma output_state_at x keys : (x = MinusInfinity -> all_masked keys) -> output (state_at x keys) = attention keys.
Proof.
  intros H; apply functional_extensionality; intro c; unfold output, attention; simpl.
  rewrite <- (rowsum_total x), <- (weighted_total x) by auto. fold (PV x keys c).
  destruct x as [|x]; simpl.
  - unfold PV; rewrite weighted_hidden; unfold Rdiv; ring.
  - pose proof (exp_pos x). destruct (Req_dec (rowsum (Finite x) keys) 0) as [E|E]; [|field; lra].
    rewrite E, Rmult_0_r; unfold Rdiv; rewrite Rinv_0; ring.
Qed.

Lemma rowsum_at_least_1 keys x : rowmax keys = Finite x -> 1 <= rowsum (Finite x) keys.
Proof.
  intros E. destruct (rowmax_attained _ _ E) as (k & Hin & Hk).
  destruct (in_split _ _ Hin) as (a & b & ->). unfold rowsum, weighted. rewrite total_app; simpl.
  rewrite Hk; simpl; rewrite exp_minus_self.
  assert (P : forall keys, 0 <= total (fun k => exp_minus (score k) (Finite x) * 1) keys).
  { intros keys. rewrite <- (Rmult_0_r (INR (length keys))), <- total_const.
    apply total_le; intros; rewrite Rmult_1_r; apply exp_minus_nonneg. }
  pose proof (P a); pose proof (P b); lra.
Qed.

Lemma exp_logsumexp keys : ext_exp (logsumexp (block_state keys)) = total (fun k => ext_exp (score k)) keys.
Proof.
  rewrite <- (rowsum_total (rowmax keys)) by (apply rowmax_covers).
  unfold logsumexp; simpl. destruct (rowmax keys) as [|x] eqn:E; simpl; [ring|].
  rewrite exp_plus, exp_ln; auto. pose proof (rowsum_at_least_1 _ _ E); lra.
Qed.

(** * Every way to tile the keys of a row *)

(** A plan says which blocks of keys are summarised and in which bracketing their statistics are merged. *)
Inductive plan := Block (keys : list key) | Merge (a b : plan).

Fixpoint keys_of (p : plan) : list key := match p with Block keys => keys | Merge a b => keys_of a ++ keys_of b end.
Fixpoint run (p : plan) : state := match p with Block keys => block_state keys | Merge a b => merge (run a) (run b) end.

(** The statistics at the end of any plan are those of a single block that holds all its keys. *)
Theorem run_any_plan p : run p = block_state (keys_of p).
Proof. induction p; simpl; auto. now rewrite IHp1, IHp2, block_state_app. Qed.

(** Every tiling, order and bracketing of the keys, with every mask, gives the textbook output softmax(q K^T) V. *)
Theorem tiled_computes_attention p keys : Permutation (keys_of p) keys -> output (run p) = attention keys.
Proof.
  intros H; rewrite run_any_plan, (block_state_perm _ _ H). apply output_state_at, rowmax_covers.
Qed.

(** The saved statistic L = m + log l is the logarithm of the sum of all exponentials. This determines L; the sum is 0
    and L minus infinity where no key is visible. *)
Theorem logsumexp_correct p : ext_exp (logsumexp (run p)) = total (fun k => ext_exp (score k)) (keys_of p).
Proof. rewrite run_any_plan. apply exp_logsumexp. Qed.

(** A row that sees no key ends with O = 0 and L = minus infinity, however its keys are tiled. *)
Theorem fully_masked_row p :
  all_masked (keys_of p) -> output (run p) = (fun _ => 0) /\ logsumexp (run p) = MinusInfinity.
Proof.
  intros H. rewrite run_any_plan. unfold block_state, output, logsumexp; simpl. rewrite (rowmax_masked _ H).
  split; auto. apply functional_extensionality; intro c. unfold PV; rewrite weighted_hidden. unfold Rdiv; ring.
Qed.

(** ** Nothing overflows *)

(** Every argument of exp is at most 0: neither an old reference point nor a score exceeds the new reference point. *)
Theorem exponents_nonpositive m block : let m_new := ext_max m (rowmax block) in
  ext_le m m_new /\ forall k, In k block -> ext_le (score k) m_new.
Proof.
  split; [apply ext_le_max_l|]. intros k Hk.
  apply ext_le_trans with (rowmax block); auto using score_le_rowmax, ext_le_max_r.
Qed.

(** The running sum l of a row with a visible key lies between 1 and the number of keys so far. *)
Theorem l_range p m : m_of (run p) = Finite m -> 1 <= l_of (run p) <= INR (length (keys_of p)).
Proof.
  rewrite run_any_plan; simpl; intros E; rewrite E. split; [now apply rowsum_at_least_1|].
  rewrite <- (Rmult_1_r (INR _)), <- total_const. apply total_le; intros k Hk.
  apply score_le_rowmax in Hk; rewrite E in Hk. destruct (score k) as [|s]; simpl in *; [lra|].
  rewrite Rmult_1_r, <- exp_0. apply exp_at_most; lra.
Qed.

(** * FlashAttention-2 and FlashAttention-4: loops over key blocks *)

(** One iteration with the reference point m_new, which moves l and acc from the old reference point to the new one. *)
Definition step (m_new : extended) (s : state) (block : list key) : state :=
  let 'State m l acc := s in
  let alpha := exp_minus m m_new in
  State m_new (alpha * l + rowsum m_new block) (fun c => alpha * acc c + PV m_new block c).

(** FlashAttention-2, Algorithm 1 lines 9 and 10: the new reference point is the new maximum. *)
Definition flash2_step (s : state) (block : list key) : state := step (ext_max (m_of s) (rowmax block)) s block.
Definition flash2 (blocks : list (list key)) : state := fold_left flash2_step blocks empty.

(** FlashAttention-4: the reference point r stays as it was until a score exceeds it by more than a threshold, so that
    acc need not be rescaled meanwhile. Here each iteration may choose any r. *)
Definition lazy_step (s : state) (r_block : R * list key) : state := step (Finite (fst r_block)) s (snd r_block).
Definition lazy (r_blocks : list (R * list key)) : state := fold_left lazy_step r_blocks empty.

(** One iteration of FlashAttention-2 merges the running statistics with those of the new block.
    Used by: simulator/ioaware/algorithms/flash2.py (flash2). *)
Theorem flash2_step_is_merge s block : flash2_step s block = merge s (block_state block).
Proof.
  destruct s as [m l acc]; unfold flash2_step, step; simpl. apply state_eq; intros; auto; unfold rowsum, PV;
    rewrite weighted_rescale by (apply rowmax_covers); reflexivity.
Qed.

Lemma flash2_from a blocks : fold_left flash2_step blocks (block_state a) = block_state (a ++ concat blocks).
Proof.
  revert a; induction blocks as [|b blocks IH]; intros a; cbn [fold_left concat]; [now rewrite app_nil_r|].
  now rewrite flash2_step_is_merge, <- block_state_app, IH, app_assoc.
Qed.

Lemma flash2_block_state blocks : flash2 blocks = block_state (concat blocks).
Proof. apply (flash2_from []). Qed.

(** FlashAttention-2's forward pass over any list of key blocks computes attention and L, the logarithm of the sum of
    exponentials.
    Used by: simulator/ioaware/algorithms/flash2.py (flash2). *)
Theorem flash2_computes_attention blocks : let s := flash2 blocks in
  output s = attention (concat blocks) /\
  ext_exp (logsumexp s) = total (fun k => ext_exp (score k)) (concat blocks).
Proof.
  cbv zeta; rewrite flash2_block_state. split; [apply output_state_at, rowmax_covers | apply exp_logsumexp].
Qed.

(** Line 10 of the paper's Algorithm 1 as printed: acc is multiplied by the inverse of e^(m - m_new). *)
Definition flash2_printed_step (s : state) (block : list key) : state :=
  let 'State m l acc := s in
  let m_new := ext_max m (rowmax block) in
  let alpha := exp_minus m m_new in
  State m_new (alpha * l + rowsum m_new block) (fun c => / alpha * acc c + PV m_new block c).

(** Line 10 of FlashAttention-2's Algorithm 1 is a misprint. On two blocks of one key each, with scores 0 and 1 and
    values 1 and 0, it yields more than 1, which no average of these values can be; attention is less than 1. *)
Theorem flash2_printed_line_10_is_wrong :
  let blocks := [[Key (Finite 0) (fun _ => 1)]; [Key (Finite 1) (fun _ => 0)]] in
  output (fold_left flash2_printed_step blocks empty) 0%nat > 1 /\ attention (concat blocks) 0%nat < 1.
Proof.
  unfold output, attention; simpl. unfold rowsum, PV, weighted; simpl. rewrite Rmax_right by lra.
  replace (0 - 1) with (- (1)) by ring. rewrite exp_Ropp, !exp_minus_self, exp_0.
  assert (E : 2 < exp 1) by (pose proof (exp_ineq1 1); lra). set (e := exp 1) in *; clearbody e. split.
  - rewrite !Rmult_0_r. replace (_ / _) with (1 + (e * e - e - 1) / (1 + e)) by (field; lra).
    assert (0 < e * (e - 2)) by (apply Rmult_lt_0_compat; lra).
    assert (0 < (e * e - e - 1) / (1 + e)) by (apply Rdiv_lt_0_compat; lra). lra.
  - replace (_ / _) with (1 - e / (1 + e)) by (field; lra).
    assert (0 < e / (1 + e)) by (apply Rdiv_lt_0_compat; lra). lra.
Qed.

Lemma lazy_from x a blocks : (x = MinusInfinity -> all_masked a) -> exists y,
  let keys := a ++ concat (map snd blocks) in
  fold_left lazy_step blocks (state_at x a) = state_at y keys /\ (y = MinusInfinity -> all_masked keys).
Proof.
  revert x a; induction blocks as [|[r b] blocks IH]; intros x a H; cbn [fold_left concat map fst snd].
  - exists x. now rewrite app_nil_r.
  - replace (lazy_step (state_at x a) (r, b)) with (state_at (Finite r) (a ++ b)).
    + rewrite app_assoc. apply IH; discriminate.
    + unfold lazy_step, step, state_at, rowsum, PV; cbn [fst snd].
      apply state_eq; intros; auto; rewrite weighted_rescale by auto; apply total_app.
Qed.

Lemma lazy_state_at blocks : exists y, let keys := concat (map snd blocks) in
  lazy blocks = state_at y keys /\ (y = MinusInfinity -> all_masked keys).
Proof. apply (lazy_from MinusInfinity []). intros _ k []. Qed.

(** FlashAttention-4's lazy rescaling is exact: whatever reference point r each iteration chooses, the output is
    attention. *)
Theorem lazy_rescaling_computes_attention blocks : output (lazy blocks) = attention (concat (map snd blocks)).
Proof. destruct (lazy_state_at blocks) as (y & E & H). rewrite E; now apply output_state_at. Qed.

(** If no score exceeds the last reference point r by more than tau, then l is at most e^tau times the number of keys:
    lazy rescaling costs tau / log 2 bits of range. *)
Theorem lazy_rescaling_bounded blocks r tau :
  let keys := concat (map snd blocks) in
  m_of (lazy blocks) = Finite r -> (forall k s, In k keys -> score k = Finite s -> s - r <= tau) ->
  l_of (lazy blocks) <= INR (length keys) * exp tau.
Proof.
  destruct (lazy_state_at blocks) as (y & -> & _); simpl; intros -> H.
  rewrite <- total_const. apply total_le; intros k Hk. rewrite Rmult_1_r.
  destruct (score k) as [|s] eqn:Es; simpl; [left; apply exp_pos | apply exp_at_most; eauto].
Qed.

(** * Base 2 *)

(** The exponential of hardware is 2^x: exp x = 2^(x log2 e), where log2 e = 1 / ln 2. *)
Theorem exp_in_base_2 x : exp x = Rpower 2 (x * / ln 2).
Proof.
  unfold Rpower. f_equal. field. apply Rgt_not_eq. rewrite <- ln_1. apply ln_increasing; lra.
Qed.
