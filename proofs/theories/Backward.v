(** The backward pass: FlashAttention's formulas for dQ, dK and dV are the derivatives of attention.

    Given are matrices Q (Nq x d), K (N x d) and V (N x dv), a bias B (Nq x N), scores S = scale Q K^T + B, P, the
    softmax of each row of S over the keys that the query sees, and the output O = (P o Z) V. Let dO be the gradient of
    a loss with respect to O. The backward pass does not store P: it computes P again from S and the saved L (or from
    m and l), then D = rowsum(dO o O),
        dP = (dO V^T) o Z,  dS = P o (dP - D),  dQ = scale dS K,  dK = scale dS^T Q,  dV = (P o Z)^T dO.
    Proved: along every differentiable motion of Q, K, V and the bias at once, the derivative of the loss, which is the
    sum of dO_ic O_ic, is the inner product of (dQ, dK, dV, dS) with the velocities; so every entry of dQ, dK, dV and
    dS is the partial derivative with respect to that entry. Z holds the dropout factors, keep_ij / (1 - p), all 1
    without dropout. Any mask is allowed, given as a function sees i j; a query that sees no key has P = 0 and O = 0,
    and passes no gradient on. Derivatives are Coquelicot's is_derive over the real numbers.

    Heads and batch entries are independent. Where the heads of a group share K and V, stack their rows of Q.

    Not claimed: anything about rounding, or about a loss that is not differentiable at O. *)

From Coq Require Import Reals Lra Lia FunctionalExtensionality.
From Coquelicot Require Import Coquelicot.
Local Open Scope R_scope.

(** * Finite sums, and their derivatives *)

Fixpoint sum (n : nat) (f : nat -> R) : R := match n with O => 0 | S k => sum k f + f k end.

Lemma sum_ext n f g : (forall k, (k < n)%nat -> f k = g k) -> sum n f = sum n g.
Proof. induction n; simpl; intros H; auto. rewrite IHn, H; auto. Qed.

Lemma sum_scale n c f : sum n (fun k => c * f k) = c * sum n f.
Proof. induction n; simpl; [ring | rewrite IHn; ring]. Qed.

Lemma sum_plus n f g : sum n (fun k => f k + g k) = sum n f + sum n g.
Proof. induction n; simpl; [ring | rewrite IHn; ring]. Qed.

Lemma sum_swap n m f : sum n (fun i => sum m (fun j => f i j)) = sum m (fun j => sum n (fun i => f i j)).
Proof.
  induction n; simpl; [|rewrite IHn, <- sum_plus; reflexivity].
  induction m; simpl; [auto | rewrite <- IHm; ring].
Qed.

Lemma sum_zero n f : (forall k, (k < n)%nat -> f k = 0) -> sum n f = 0.
Proof.
  intros H. rewrite (sum_ext n f (fun _ => 0 * 0)) by (intros; rewrite H; auto; ring). rewrite sum_scale; ring.
Qed.

Lemma sum_nonneg n f : (forall k, (k < n)%nat -> 0 <= f k) -> 0 <= sum n f.
Proof. induction n; simpl; intros H; [lra|]. apply Rplus_le_le_0_compat; auto. Qed.

Lemma sum_zero_terms n f : (forall k, (k < n)%nat -> 0 <= f k) -> sum n f = 0 -> forall k, (k < n)%nat -> f k = 0.
Proof.
  induction n; simpl; intros H E k Hk; [lia|].
  pose proof (sum_nonneg n f ltac:(auto)). pose proof (H n ltac:(auto)).
  destruct (Nat.eq_dec k n) as [->|]; [lra|]. apply IHn; auto; [lra | lia].
Qed.

Lemma sum_indicator n j f : (j < n)%nat -> sum n (fun k => f k * (if Nat.eqb k j then 1 else 0)) = f j.
Proof.
  induction n; intros H; [lia|]. simpl. destruct (Nat.eqb_spec n j) as [->|].
  - rewrite sum_zero; [ring|]. intros k Hk. destruct (Nat.eqb_spec k j); [lia | ring].
  - rewrite IHn by lia. ring.
Qed.

Lemma derive_sum n (f : nat -> R -> R) (f' : nat -> R) t :
  (forall k, (k < n)%nat -> is_derive (f k) t (f' k)) -> is_derive (fun t => sum n (fun k => f k t)) t (sum n f').
Proof.
  induction n; simpl; intros H; [apply @is_derive_const|].
  apply @is_derive_plus; [apply IHn; auto | apply H; lia].
Qed.

Lemma derive_mult (f g : R -> R) f' g' t :
  is_derive f t f' -> is_derive g t g' -> is_derive (fun t => f t * g t) t (f' * g t + f t * g').
Proof. intros Hf Hg. apply (is_derive_mult f g); auto. intros; apply Rmult_comm. Qed.

Lemma derive_exp (f : R -> R) f' t : is_derive f t f' -> is_derive (fun t => exp (f t)) t (f' * exp (f t)).
Proof. intros H. apply (is_derive_comp exp f t (exp (f t)) f'); auto. apply is_derive_exp. Qed.

Lemma derive_scale (f : R -> R) f' t c : is_derive f t f' -> is_derive (fun t => c * f t) t (c * f').
Proof. intros H. now apply is_derive_scal. Qed.

(** * Softmax of one row *)

Section Row.
Variable N : nat.                 (* number of keys *)
Variable sees : nat -> bool.      (* which keys the query sees *)

(** exp(S_j), which is exp(-oo) = 0 for a masked key *)
Definition exp_score (S : nat -> R) (j : nat) : R := if sees j then exp (S j) else 0.
Definition row_total (S : nat -> R) : R := sum N (exp_score S).

(** Where no key is visible, 0 / 0 = 0. *)
Definition softmax (S : nat -> R) (j : nat) : R := exp_score S j / row_total S.

Lemma exp_score_nonneg S j : 0 <= exp_score S j.
Proof. unfold exp_score; destruct (sees j); [left; apply exp_pos | lra]. Qed.

Lemma row_total_pos S j : (j < N)%nat -> sees j = true -> 0 < row_total S.
Proof.
  intros Hj V. destruct (Rle_lt_or_eq_dec 0 (row_total S)) as [|E]; auto.
  { apply sum_nonneg; intros; apply exp_score_nonneg. }
  pose proof (sum_zero_terms N _ (fun k _ => exp_score_nonneg S k) (eq_sym E) j Hj) as Z.
  unfold exp_score in Z; rewrite V in Z. pose proof (exp_pos (S j)); lra.
Qed.

Lemma softmax_hidden S j : sees j = false -> softmax S j = 0.
Proof. unfold softmax, exp_score; intros ->; unfold Rdiv; ring. Qed.

(** Probabilities of a row sum to 1 if the query sees a key. *)
Theorem softmax_row_sum S : (exists j, (j < N)%nat /\ sees j = true) -> sum N (softmax S) = 1.
Proof.
  intros (j & Hj & V). pose proof (row_total_pos S j Hj V) as Z.
  rewrite (sum_ext _ _ (fun k => / row_total S * exp_score S k)) by (intros; unfold softmax, Rdiv; ring).
  rewrite sum_scale. fold (row_total S). apply Rinv_l; lra.
Qed.

(** FlashAttention-2's backward pass computes P again from the scores and the saved L = log (sum_j exp S_j). *)
Theorem softmax_from_L S j : (j < N)%nat ->
  softmax S j = if sees j then exp (S j - ln (row_total S)) else 0.
Proof.
  intros Hj. destruct (sees j) eqn:V; [|now apply softmax_hidden].
  pose proof (row_total_pos S j Hj V). unfold softmax, exp_score, Rminus. rewrite V, exp_plus, exp_Ropp, exp_ln; auto.
Qed.

(** FlashAttention-1's backward pass computes P again from the scores and the saved m and l = sum_j exp(S_j - m). *)
Theorem softmax_from_m_and_l S m j :
  let l := sum N (fun k => if sees k then exp (S k - m) else 0) in
  softmax S j = if sees j then exp (S j - m) / l else 0.
Proof.
  intros l. destruct (sees j) eqn:V; [|now apply softmax_hidden].
  assert (E : row_total S = exp m * l).
  { unfold row_total, l. rewrite <- sum_scale. apply sum_ext; intros k _. unfold exp_score.
    destruct (sees k); [|ring]. rewrite <- exp_plus; f_equal; ring. }
  unfold softmax, exp_score; rewrite V, E. replace (exp (S j)) with (exp m * exp (S j - m)).
  2:{ rewrite <- exp_plus; f_equal; ring. }
  pose proof (exp_pos m). destruct (Req_dec l 0) as [L|L]; [|field; lra].
  rewrite L, Rmult_0_r. unfold Rdiv; rewrite Rinv_0; ring.
Qed.

(** The Jacobian of softmax is diag(P) - P P^T: along moving scores, dP_j/dt = P_j (S_j' - sum_k P_k S_k'). *)
Theorem softmax_derivative (S : nat -> R -> R) (S' : nat -> R) t j :
  (forall k, (k < N)%nat -> is_derive (S k) t (S' k)) -> (j < N)%nat ->
  let P := softmax (fun k => S k t) in
  is_derive (fun t => softmax (fun k => S k t) j) t (P j * (S' j - sum N (fun k => P k * S' k))).
Proof.
  intros HS Hj P.
  assert (HE : forall k, (k < N)%nat ->
    is_derive (fun t => exp_score (fun k => S k t) k) t (S' k * exp_score (fun k => S k t) k)).
  { intros k Hk. unfold exp_score. destruct (sees k); [now apply derive_exp, HS|].
    rewrite Rmult_0_r. apply @is_derive_const. }
  destruct (sees j) eqn:V.
  - pose proof (row_total_pos (fun k => S k t) j Hj V) as Z.
    replace (P j * _) with ((S' j * exp_score (fun k => S k t) j * row_total (fun k => S k t) -
      exp_score (fun k => S k t) j * sum N (fun k => S' k * exp_score (fun k => S k t) k)) /
      (row_total (fun k => S k t)) ^ 2).
    + apply (is_derive_div (fun t => exp_score (fun k => S k t) j) (fun t => row_total (fun k => S k t))); [auto| |lra].
      apply (derive_sum N (fun k t => exp_score (fun k => S k t) k)); auto.
    + rewrite (sum_ext N (fun k => P k * S' k)
        (fun k => / row_total (fun k => S k t) * (S' k * exp_score (fun k => S k t) k))).
      2:{ intros; unfold P, softmax, Rdiv; ring. }
      rewrite sum_scale. unfold P, softmax. field; lra.
  - unfold P. rewrite softmax_hidden, Rmult_0_l by auto.
    apply (is_derive_ext (fun _ => 0)); [intros; now rewrite softmax_hidden | apply @is_derive_const].
Qed.
End Row.

(** * Attention of whole matrices *)

Definition matrix := nat -> nat -> R.

(** <A, B>, the sum of the products of the entries of two matrices *)
Definition inner (rows columns : nat) (A B : matrix) : R := sum rows (fun i => sum columns (fun a => A i a * B i a)).

Section Attention.
Variables Nq N d dv : nat.             (* queries, keys, head dimension of Q and K, head dimension of V *)
Variable scale : R.
Variable sees : nat -> nat -> bool.    (* sees i j: query i sees key j *)
Variable Z : matrix.                   (* dropout factors; all 1 without dropout *)

Definition scores (Q K B : matrix) : matrix := fun i j => scale * sum d (fun a => Q i a * K j a) + B i j.
Definition probabilities (Q K B : matrix) : matrix := fun i => softmax N (sees i) (scores Q K B i).
Definition attention (Q K V B : matrix) : matrix :=
  fun i c => sum N (fun j => probabilities Q K B i j * Z i j * V j c).

Variable dO : matrix.

Definition loss (Q K V B : matrix) : R := inner Nq dv dO (attention Q K V B).

(** D = rowsum(dO o O),  dP = (dO V^T) o Z,  dS = P o (dP - D) *)
Definition D (Q K V B : matrix) (i : nat) : R := sum dv (fun c => dO i c * attention Q K V B i c).
Definition dP (V : matrix) : matrix := fun i j => sum dv (fun c => dO i c * V j c) * Z i j.
Definition dS (Q K V B : matrix) : matrix := fun i j => probabilities Q K B i j * (dP V i j - D Q K V B i).

(** dQ = scale dS K,  dK = scale dS^T Q,  dV = (P o Z)^T dO *)
Definition dQ (Q K V B : matrix) : matrix := fun i a => scale * sum N (fun j => dS Q K V B i j * K j a).
Definition dK (Q K V B : matrix) : matrix := fun j a => scale * sum Nq (fun i => dS Q K V B i j * Q i a).
Definition dV (Q K V B : matrix) : matrix := fun j c => sum Nq (fun i => probabilities Q K B i j * Z i j * dO i c).

(** D computed as rowsum(dO o O) equals rowsum(P o dP), with dropout too: the backward pass needs no second sweep. *)
Theorem D_two_forms Q K V B i : D Q K V B i = sum N (fun j => probabilities Q K B i j * dP V i j).
Proof.
  unfold D, dP, attention.
  rewrite (sum_ext dv _ (fun c => sum N (fun j => dO i c * (probabilities Q K B i j * Z i j * V j c)))).
  2:{ intros; now rewrite sum_scale. }
  rewrite sum_swap. apply sum_ext; intros j _.
  rewrite (sum_ext dv _ (fun c => probabilities Q K B i j * Z i j * (dO i c * V j c))) by (intros; ring).
  rewrite sum_scale; ring.
Qed.

(** A query that sees no key has output 0 and passes no gradient on. *)
Theorem masked_query Q K V B i : (forall j, (j < N)%nat -> sees i j = false) ->
  (forall c, attention Q K V B i c = 0) /\ (forall a, dQ Q K V B i a = 0) /\
  (forall j, (j < N)%nat -> dS Q K V B i j = 0).
Proof.
  intros H. assert (P : forall j, (j < N)%nat -> probabilities Q K B i j = 0).
  { intros; unfold probabilities; now rewrite softmax_hidden by auto. }
  assert (HdS : forall j, (j < N)%nat -> dS Q K V B i j = 0) by (intros; unfold dS; rewrite P by auto; ring).
  repeat split; auto.
  - intros c. apply sum_zero; intros; rewrite P by auto; ring.
  - intros a. unfold dQ. rewrite sum_zero; [ring|]. intros; rewrite HdS by auto; ring.
Qed.

(** Each entry of a matrix that depends on t has the derivative that the matrix A' says. *)
Definition moves (rows columns : nat) (A : R -> matrix) (t : R) (A' : matrix) : Prop :=
  forall i a, (i < rows)%nat -> (a < columns)%nat -> is_derive (fun t => A t i a) t (A' i a).

Section Motion.
Variables (Qt Kt Vt Bt : R -> matrix) (t : R) (Q' K' V' B' : matrix).
Hypothesis HQ : moves Nq d Qt t Q'.
Hypothesis HK : moves N d Kt t K'.
Hypothesis HV : moves N dv Vt t V'.
Hypothesis HB : moves Nq N Bt t B'.

Definition score_velocity (i j : nat) : R := scale * sum d (fun a => Q' i a * Kt t j a + Qt t i a * K' j a) + B' i j.

Lemma scores_derivative i j : (i < Nq)%nat -> (j < N)%nat ->
  is_derive (fun t => scores (Qt t) (Kt t) (Bt t) i j) t (score_velocity i j).
Proof.
  intros Hi Hj. unfold scores, score_velocity. apply @is_derive_plus; [|auto].
  apply (derive_scale (fun t => sum d (fun a => Qt t i a * Kt t j a))).
  apply (derive_sum d (fun a t => Qt t i a * Kt t j a)); intros a Ha.
  apply (derive_mult (fun t => Qt t i a) (fun t => Kt t j a)); auto.
Qed.

(** The loss of one query: the scores pass on dS, the values P o Z. *)
Lemma row_loss_derivative i : (i < Nq)%nat ->
  is_derive (fun t => sum dv (fun c => dO i c * attention (Qt t) (Kt t) (Vt t) (Bt t) i c)) t
    (sum N (fun j => dS (Qt t) (Kt t) (Vt t) (Bt t) i j * score_velocity i j) +
     sum N (fun j => sum dv (fun c => probabilities (Qt t) (Kt t) (Bt t) i j * Z i j * dO i c * V' j c))).
Proof.
  intros Hi. set (P := probabilities (Qt t) (Kt t) (Bt t) i). set (S' := score_velocity i).
  set (P' := fun j => P j * (S' j - sum N (fun k => P k * S' k))).
  assert (HP : forall j, (j < N)%nat -> is_derive (fun t => probabilities (Qt t) (Kt t) (Bt t) i j) t (P' j)).
  { intros j Hj. apply (softmax_derivative N (sees i) (fun j t => scores (Qt t) (Kt t) (Bt t) i j) S'); auto.
    intros k Hk. now apply scores_derivative. }
  replace (_ + _) with
    (sum dv (fun c => dO i c * sum N (fun j => P' j * Z i j * Vt t j c + P j * Z i j * V' j c))).
  - apply (derive_sum dv (fun c t => dO i c * attention (Qt t) (Kt t) (Vt t) (Bt t) i c)); intros c Hc.
    apply (derive_scale (fun t => attention (Qt t) (Kt t) (Vt t) (Bt t) i c)).
    apply (derive_sum N (fun j t => probabilities (Qt t) (Kt t) (Bt t) i j * Z i j * Vt t j c)); intros j Hj.
    apply (derive_mult (fun t => probabilities (Qt t) (Kt t) (Bt t) i j * Z i j) (fun t => Vt t j c)); auto.
    rewrite Rmult_comm. apply (is_derive_ext (fun t => Z i j * probabilities (Qt t) (Kt t) (Bt t) i j)).
    { intros; apply Rmult_comm. }
    apply (derive_scale (fun t => probabilities (Qt t) (Kt t) (Bt t) i j)); auto.
  - rewrite (sum_ext dv _ (fun c => sum N (fun j => dO i c * (P' j * Z i j * Vt t j c + P j * Z i j * V' j c)))).
    2:{ intros; now rewrite sum_scale. }
    rewrite sum_swap.
    rewrite (sum_ext N _ (fun j => P' j * dP (Vt t) i j + sum dv (fun c => P j * Z i j * dO i c * V' j c))).
    2:{ intros j _. unfold dP. rewrite (Rmult_comm (sum _ _)), <- Rmult_assoc, <- sum_scale, <- sum_plus.
        apply sum_ext; intros; ring. }
    rewrite sum_plus. f_equal. unfold P', dS. rewrite D_two_forms. fold P.
    set (X := sum N (fun k => P k * S' k)). set (Y := sum N (fun j => P j * dP (Vt t) i j)).
    rewrite (sum_ext N _ (fun j => P j * dP (Vt t) i j * S' j + - X * (P j * dP (Vt t) i j))) by (intros; ring).
    rewrite (sum_ext N (fun j => P j * (_ - Y) * S' j) (fun j => P j * dP (Vt t) i j * S' j + - Y * (P j * S' j)))
      by (intros; ring).
    rewrite !sum_plus, !sum_scale. fold X Y. ring.
Qed.

Lemma gradient_of_queries i : (i < Nq)%nat ->
  sum N (fun j => dS (Qt t) (Kt t) (Vt t) (Bt t) i j * score_velocity i j) =
  sum d (fun a => dQ (Qt t) (Kt t) (Vt t) (Bt t) i a * Q' i a) +
  sum N (fun j => sum d (fun a => scale * (dS (Qt t) (Kt t) (Vt t) (Bt t) i j * Qt t i a) * K' j a)) +
  sum N (fun j => dS (Qt t) (Kt t) (Vt t) (Bt t) i j * B' i j).
Proof.
  intros Hi. unfold dQ. set (s := dS (Qt t) (Kt t) (Vt t) (Bt t) i).
  rewrite (sum_ext d _ (fun a => sum N (fun j => scale * (s j * Kt t j a) * Q' i a))).
  2:{ intros. rewrite <- sum_scale, Rmult_comm, <- sum_scale. apply sum_ext; intros; ring. }
  rewrite (sum_swap d N), <- !sum_plus. apply sum_ext; intros j _. unfold score_velocity.
  rewrite <- sum_plus, Rmult_plus_distr_l, <- Rmult_assoc, <- sum_scale. f_equal. apply sum_ext; intros; ring.
Qed.

Lemma loss_derivative :
  is_derive (fun t => loss (Qt t) (Kt t) (Vt t) (Bt t)) t
    (inner Nq d (dQ (Qt t) (Kt t) (Vt t) (Bt t)) Q' + inner N d (dK (Qt t) (Kt t) (Vt t) (Bt t)) K' +
     inner Nq N (dS (Qt t) (Kt t) (Vt t) (Bt t)) B' + inner N dv (dV (Qt t) (Kt t) (Vt t) (Bt t)) V').
Proof.
  set (p := probabilities (Qt t) (Kt t) (Bt t)).
  replace (_ + _) with (sum Nq (fun i => sum N (fun j => dS (Qt t) (Kt t) (Vt t) (Bt t) i j * score_velocity i j) +
    sum N (fun j => sum dv (fun c => p i j * Z i j * dO i c * V' j c)))).
  { apply (derive_sum Nq (fun i t => sum dv (fun c => dO i c * attention (Qt t) (Kt t) (Vt t) (Bt t) i c))).
    intros; now apply row_loss_derivative. }
  rewrite sum_plus. f_equal.
  - rewrite (sum_ext Nq _ _ gradient_of_queries), !sum_plus. unfold inner; do 2 f_equal.
    rewrite sum_swap. apply sum_ext; intros j _. rewrite sum_swap. apply sum_ext; intros a _.
    unfold dK. rewrite <- sum_scale, Rmult_comm, <- sum_scale. apply sum_ext; intros; ring.
  - rewrite sum_swap. apply sum_ext; intros j _. rewrite sum_swap. apply sum_ext; intros c _. unfold dV; fold p.
    rewrite Rmult_comm, <- sum_scale. apply sum_ext; intros; ring.
Qed.
End Motion.

(** Whatever way Q, K, V and the bias B move, the loss changes at the rate <dQ, Q'> + <dK, K'> + <dS, B'> + <dV, V'>,
    where Q', K', B' and V' are their velocities: dQ = scale dS K, dK = scale dS^T Q and dV = (P o Z)^T dO are the
    gradient, with any mask and any dropout factors.
    Used by: simulator/ioaware/algorithms/flash2.py (flash2_backward). *)
Theorem attention_gradient (Q K V B : R -> matrix) (t : R) (Q' K' V' B' : matrix) :
  moves Nq d Q t Q' -> moves N d K t K' -> moves N dv V t V' -> moves Nq N B t B' ->
  is_derive (fun t => loss (Q t) (K t) (V t) (B t)) t
    (inner Nq d (dQ (Q t) (K t) (V t) (B t)) Q' + inner N d (dK (Q t) (K t) (V t) (B t)) K' +
     inner Nq N (dS (Q t) (K t) (V t) (B t)) B' + inner N dv (dV (Q t) (K t) (V t) (B t)) V').
Proof. apply loss_derivative. Qed.

(** ** One entry at a time *)

(** A with the entry i a replaced by x, and the matrix that is 1 there and 0 elsewhere *)
Definition with_entry (A : matrix) (i a : nat) (x : R) : matrix :=
  fun k b => if andb (Nat.eqb k i) (Nat.eqb b a) then x else A k b.
Definition unit_matrix (i a : nat) : matrix := fun k b => if andb (Nat.eqb k i) (Nat.eqb b a) then 1 else 0.
Definition zero_matrix : matrix := fun _ _ => 0.

Lemma with_own_entry A i a : with_entry A i a (A i a) = A.
Proof.
  do 2 (apply functional_extensionality; intro). unfold with_entry.
  destruct (Nat.eqb_spec x i), (Nat.eqb_spec x0 a); simpl; congruence.
Qed.

Lemma entry_moves rows columns A i a x : moves rows columns (with_entry A i a) x (unit_matrix i a).
Proof.
  intros k b _ _. unfold with_entry, unit_matrix.
  destruct (Nat.eqb k i && Nat.eqb b a)%bool; [apply @is_derive_id | apply @is_derive_const].
Qed.

Lemma constant_moves rows columns A x : moves rows columns (fun _ => A) x zero_matrix.
Proof. intros k b _ _. apply @is_derive_const. Qed.

Lemma inner_zero rows columns A : inner rows columns A zero_matrix = 0.
Proof. apply sum_zero; intros; apply sum_zero; intros; unfold zero_matrix; ring. Qed.

Lemma inner_unit rows columns A i a : (i < rows)%nat -> (a < columns)%nat ->
  inner rows columns A (unit_matrix i a) = A i a.
Proof.
  intros Hi Ha. unfold inner, unit_matrix. rewrite <- (sum_indicator rows i (fun k => A k a)) by auto.
  apply sum_ext; intros k _. destruct (Nat.eqb k i); simpl.
  - rewrite <- (sum_indicator columns a (A k)), Rmult_1_r by auto. reflexivity.
  - rewrite sum_zero; intros; ring.
Qed.

Ltac partial_derivative Q K V B x :=
  pose proof (attention_gradient Q K V B x) as H; cbv beta in H; rewrite with_own_entry in H;
  evar_last; [eapply H; eauto using entry_moves, constant_moves | rewrite !inner_zero, inner_unit by auto; ring].

(** Every entry of dQ is the partial derivative of the loss with respect to that entry of Q. *)
Theorem dQ_is_partial_derivative Q K V B i a : (i < Nq)%nat -> (a < d)%nat ->
  is_derive (fun x => loss (with_entry Q i a x) K V B) (Q i a) (dQ Q K V B i a).
Proof.
  intros Hi Ha.
  partial_derivative (with_entry Q i a) (fun _ : R => K) (fun _ : R => V) (fun _ : R => B) (Q i a).
Qed.

(** Every entry of dK is the partial derivative of the loss with respect to that entry of K. *)
Theorem dK_is_partial_derivative Q K V B j a : (j < N)%nat -> (a < d)%nat ->
  is_derive (fun x => loss Q (with_entry K j a x) V B) (K j a) (dK Q K V B j a).
Proof.
  intros Hj Ha.
  partial_derivative (fun _ : R => Q) (with_entry K j a) (fun _ : R => V) (fun _ : R => B) (K j a).
Qed.

(** Every entry of dV is the partial derivative of the loss with respect to that entry of V. *)
Theorem dV_is_partial_derivative Q K V B j c : (j < N)%nat -> (c < dv)%nat ->
  is_derive (fun x => loss Q K (with_entry V j c x) B) (V j c) (dV Q K V B j c).
Proof.
  intros Hj Hc.
  partial_derivative (fun _ : R => Q) (fun _ : R => K) (with_entry V j c) (fun _ : R => B) (V j c).
Qed.

(** Every entry of dS is the partial derivative of the loss with respect to that entry of the bias, which means of the
    score S = scale Q K^T + B itself. *)
Theorem dS_is_partial_derivative Q K V B i j : (i < Nq)%nat -> (j < N)%nat ->
  is_derive (fun x => loss Q K V (with_entry B i j x)) (B i j) (dS Q K V B i j).
Proof.
  intros Hi Hj.
  partial_derivative (fun _ : R => Q) (fun _ : R => K) (fun _ : R => V) (with_entry B i j) (B i j).
Qed.
End Attention.
