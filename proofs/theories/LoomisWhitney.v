(** The discrete Loomis-Whitney inequality, and what it says about multiplications.

    A finite set of points in space has at most sqrt(a b c) points, if a, b and c are the numbers of points of its three
    projections to planes. With the points (i, j, a) for the multiplications q_ia k_ja of Q K^T the projections are the
    sums (i, j), the entries (i, a) of Q and the entries (j, a) of K: all three must be in fast memory. So with w words
    at most (w / 3)^(3/2) multiplications can be done, and n multiplications need n / sqrt(M) words of traffic, times a
    constant. This is the bound of Hong and Kung, and of Irony, Toledo and Tiskin, with the constant 2 of Smith et al.

    A multiplication belongs to a step of a run, and not to a state: the first sum of a score may overwrite the only
    entries of Q and K that are left. So runs are cut between steps here. *)
From Coq Require Import List Arith Lia FinFun.
From IOAware Require Import Machine Counting Accumulators.
Import ListNotations.

(** * The inequality *)

(** Cauchy and Schwarz for two terms. *)
Lemma cauchy n m c a b a' b' : n * n <= c * (a * b) -> m * m <= c * (a' * b') ->
  (n + m) * (n + m) <= c * ((a + a') * (b + b')).
Proof.
  intros Hn Hm. pose proof (split_evenly (c * (a * b')) (c * (a' * b))) as HS.
  assert (Hnm : (n * n) * (m * m) <= (c * (a * b)) * (c * (a' * b'))) by now apply Nat.mul_le_mono.
  assert (H2 : 2 * (n * m) <= c * (a * b') + c * (a' * b)).
  { destruct (le_lt_dec (2 * (n * m)) (c * (a * b') + c * (a' * b))) as [|Hlt]; [auto|exfalso].
    pose proof (Nat.square_lt_mono_nonneg _ _ (Nat.le_0_l _) Hlt) as Hsq.
    replace ((2 * (n * m)) * (2 * (n * m))) with (4 * ((n * n) * (m * m))) in Hsq by ring.
    replace ((c * (a * b)) * (c * (a' * b'))) with ((c * (a * b')) * (c * (a' * b))) in Hnm by ring. lia. }
  replace ((n + m) * (n + m)) with (n * n + m * m + 2 * (n * m)) by ring.
  replace (c * ((a + a') * (b + b'))) with (c * (a * b) + c * (a' * b') + (c * (a * b') + c * (a' * b))) by ring. lia.
Qed.

Lemma filter_split {X} (f : X -> bool) l : length l = length (filter f l) + length (filter (fun x => negb (f x)) l).
Proof. induction l as [|x l IH]; simpl; auto. destruct (f x); simpl; lia. Qed.

Definition at_height (z : nat) {X} (p : X * nat) := snd p =? z.

Lemma loomis_whitney_heights zs : forall (P : list (nat * nat * nat)) (XY XZ YZ : list (nat * nat)), NoDup P ->
  (forall x y z, In (x, y, z) P -> In z zs /\ In (x, y) XY /\ In (x, z) XZ /\ In (y, z) YZ) ->
  length P * length P <= length XY * (length XZ * length YZ).
Proof.
  induction zs as [|z zs IH]; intros P XY XZ YZ HP H.
  - destruct P as [|[[x y] z] P]; [simpl; lia|]. now destruct (H x y z (or_introl eq_refl)).
  - set (f := @at_height z nat). set (g := fun p => negb (f p)).
    set (P1 := filter (@at_height z (nat * nat)) P). set (P2 := filter (fun p => negb (@at_height z (nat * nat) p)) P).
    assert (HP1 : forall x y z', In (x, y, z') P1 -> z' = z /\ In (x, y, z) P).
    { intros x y z' Hin. apply filter_In in Hin. destruct Hin as [Hin Hz]. apply Nat.eqb_eq in Hz. simpl in Hz.
      now subst. }
    assert (B1 : length P1 <= length XY).
    { rewrite <- (map_length fst). apply NoDup_incl_length.
      - assert (HN : NoDup P1) by now apply NoDup_filter. clear - HN HP1. revert HP1.
        induction HN as [|[[x y] z'] l Hl HN IHl]; intros HP1; simpl; constructor.
        + intros Hin. apply in_map_iff in Hin. destruct Hin as ([[x2 y2] z2] & [= -> ->] & Hin). apply Hl.
          destruct (HP1 x y z2 (or_intror Hin)) as [-> _]. now destruct (HP1 x y z' (or_introl eq_refl)) as [-> _].
        + apply IHl. intros x2 y2 z2 Hin. apply HP1. now right.
      - intros [x y] Hin. apply in_map_iff in Hin. destruct Hin as ([[x2 y2] z2] & [= -> ->] & Hin).
        destruct (HP1 x y z2 Hin) as [_ Hin']. now apply (H x y z). }
    assert (B2 : length P1 <= length (filter f XZ) * length (filter f YZ)).
    { rewrite <- prod_length, <- (map_length (fun p => ((fst (fst p), snd p), (snd (fst p), snd p)))).
      apply NoDup_incl_length.
      - apply Injective_map_NoDup; [|now apply NoDup_filter].
        intros [[x y] z1] [[x2 y2] z2] Eq. simpl in Eq. congruence.
      - intros q Hq. apply in_map_iff in Hq. destruct Hq as ([[x y] z'] & <- & Hin).
        destruct (HP1 x y z' Hin) as [-> Hin'].
        destruct (H x y z Hin') as (_ & _ & HXZ & HYZ).
        apply in_prod; apply filter_In; (split; [assumption|apply Nat.eqb_refl]). }
    assert (B3 : length P2 * length P2 <= length XY * (length (filter g XZ) * length (filter g YZ))).
    { apply IH; [now apply NoDup_filter|]. intros x y z' Hin. apply filter_In in Hin. destruct Hin as [Hin Hz].
      destruct (H x y z' Hin) as (Hzs & HXY & HXZ & HYZ). unfold at_height in Hz. simpl in Hz.
      split; [|split; [auto|split; apply filter_In; auto]].
      destruct Hzs as [->|Hzs]; [now rewrite Nat.eqb_refl in Hz|auto]. }
    rewrite (filter_split (@at_height z (nat * nat)) P), (filter_split f XZ), (filter_split f YZ).
    apply cauchy; [|exact B3]. now apply Nat.mul_le_mono.
Qed.

(** The discrete Loomis-Whitney inequality: a finite set P of points (x, y, z) with projections in XY, XZ and YZ has
    |P|^2 <= |XY| |XZ| |YZ|. *)
Theorem loomis_whitney (P : list (nat * nat * nat)) (XY XZ YZ : list (nat * nat)) : NoDup P ->
  (forall x y z, In (x, y, z) P -> In (x, y) XY /\ In (x, z) XZ /\ In (y, z) YZ) ->
  length P * length P <= length XY * (length XZ * length YZ).
Proof.
  intros HP H. apply (loomis_whitney_heights (map snd P)); auto. intros x y z Hin. split; [|auto].
  now apply (in_map snd) in Hin.
Qed.

Lemma split_in_three_sorted q u t : 27 * (q * ((q + u) * (q + u + t)))
  <= (q + (q + u) + (q + u + t)) * ((q + (q + u) + (q + u + t)) * (q + (q + u) + (q + u + t))).
Proof.
  apply Nat.le_trans with (27 * (q * ((q + u) * (q + u + t))) + (9 * (q * (u * u + u * t + t * t)) +
    (2 * u + t) * ((2 * u + t) * (2 * u + t)))); [lia|]. apply Nat.eq_le_incl. ring.
Qed.

Lemma split_in_three x y z : 27 * (x * (y * z)) <= (x + y + z) * ((x + y + z) * (x + y + z)).
Proof.
  assert (S : forall a b c, a <= b -> b <= c -> 27 * (a * (b * c)) <= (a + b + c) * ((a + b + c) * (a + b + c))).
  { intros a b c Hab Hbc. destruct (Nat.le_exists_sub _ _ Hab) as (u & -> & _).
    destruct (Nat.le_exists_sub _ _ Hbc) as (t & -> & _).
    replace (u + a) with (a + u) by lia. replace (t + (a + u)) with (a + u + t) by lia. apply split_in_three_sorted. }
  destruct (Nat.le_ge_cases x y), (Nat.le_ge_cases y z), (Nat.le_ge_cases x z);
    [pose proof (S x y z)|pose proof (S x y z)|pose proof (S x z y)|pose proof (S z x y)|pose proof (S y x z)|
     pose proof (S y z x)|pose proof (S z y x)|pose proof (S z y x)]; lia.
Qed.

(** * Multiplications *)

Definition score_of (w : word) := match w with Part QK i j _ => Some (i, j) | _ => None end.

(** The operation o adds the product q_ia k_ja to a sum of the score s_ij. *)
Definition multiplies (e : nat * nat * nat) (step : fast * op) := let '(i, j, a) := e in
  (exists A, snd step = Dot QK i j A /\ In a A) /\ In (Q i a) (fst step) /\ In (K j a) (fst step).

Definition pick {X} (f : word -> option X) W := flat_map (fun w => match f w with Some x => [x] | None => [] end) W.

Lemma pick_In {X} (f : word -> option X) w x W : In w W -> f w = Some x -> In x (pick f W).
Proof. intros Hw Hx. apply in_flat_map. exists w. rewrite Hx. simpl; auto. Qed.

Definition entry_of_Q w := match w with Left QK i a => Some (i, a) | _ => None end.
Definition entry_of_K w := match w with Right QK j a => Some (j, a) | _ => None end.

Lemma count_multiplications W P : NoDup P -> (forall i j a, In (i, j, a) P ->
    In (Q i a) W /\ In (K j a) W /\ exists w, In w W /\ score_of w = Some (i, j)) ->
  27 * (length P * length P) <= length W * (length W * length W).
Proof.
  intros HP H.
  assert (HL : length (pick score_of W) + length (pick entry_of_Q W) + length (pick entry_of_K W) <= length W).
  { clear. unfold pick. induction W as [|[[] ? ?|[] ? ?|[] ? ? ?| |] W IH]; simpl in *; lia. }
  assert (B : length P * length P <= length (pick score_of W) * (length (pick entry_of_Q W) * length (pick entry_of_K
    W))).
  { apply loomis_whitney; auto. intros i j a Hin. destruct (H i j a Hin) as (HQ & HK & w & Hw & Hs).
    split; [exact (pick_In _ _ _ _ Hw Hs)|].
    split; [exact (pick_In entry_of_Q _ _ _ HQ eq_refl)|exact (pick_In entry_of_K _ _ _ HK eq_refl)]. }
  pose proof (split_in_three (length (pick score_of W)) (length (pick entry_of_Q W)) (length (pick entry_of_K W))) as S.
  set (s := _ + _ + _) in *. apply Nat.le_trans with (27 * (length (pick score_of W) *
    (length (pick entry_of_Q W) * length (pick entry_of_K W)))); [now apply Nat.mul_le_mono_l|].
  apply Nat.le_trans with (1 := S). now repeat apply Nat.mul_le_mono.
Qed.

(** * Cutting a run between steps *)
Section Steps.
Variables (M d : nat) (cost : fast -> op -> nat).
Hypothesis cost_le : forall c o, cost c o <= 1.
Notation run := (run M d).
Notation spent := (spent cost).

Lemma cut_steps os : forall T c cs, run c os cs -> length c <= M -> T <= spent cs os ->
  exists os1 os2 c1 cs1 cs2, run c os1 cs1 /\ run c1 os2 cs2 /\ length c1 <= M /\
    spent cs1 os1 = T /\ spent cs2 os2 = spent cs os - T /\
    incl (combine cs os) (combine cs1 os1 ++ combine cs2 os2).
Proof.
  induction os as [|o os IH]; intros T c cs Hr Hc HT; inversion Hr as [|? ? c1 ? cs' Hst Hrun]; subst.
  - simpl in HT. exists [], [], c, [c], [c]. repeat split; auto; try constructor; simpl; try lia. intros x [].
  - destruct (Nat.eq_dec T 0) as [->|HT0].
    + exists [], (o :: os), c, [c], (c :: cs'). split; [constructor|]. split; [auto|]. split; [auto|].
      split; [auto|]. split; [now rewrite Nat.sub_0_r|]. apply incl_refl.
    + simpl in HT. pose proof (cost_le c o) as Hco.
      destruct (IH (T - cost c o) c1 cs' Hrun) as (os1 & os2 & c2 & cs1 & cs2 & R1 & R2 & L & S1 & S2 & I);
        [apply Hst|lia|].
      exists (o :: os1), os2, c2, (c :: cs1), cs2. split; [econstructor; eauto|]. split; [auto|]. simpl.
      repeat split; auto; try lia. intros x [<-|Hx]; [now left|right; apply I, Hx].
Qed.

Lemma segments_of_steps {X} (work : X -> fast * op -> Prop) (T B : nat) : 0 < T ->
  (forall os c cs E, run c os cs -> length c <= M -> spent cs os <= T -> NoDup E ->
     (forall e, In e E -> exists s, In s (combine cs os) /\ work e s) -> length E <= B) ->
  forall n E os c cs, run c os cs -> length c <= M -> spent cs os < n * T -> NoDup E ->
  (forall e, In e E -> exists s, In s (combine cs os) /\ work e s) -> length E <= n * B.
Proof.
  intros HT Seg n; induction n as [|n IH]; intros E os c cs Hr Hc HS HE Hw; [lia|].
  destruct (le_lt_dec (spent cs os) T) as [Hsmall|Hbig].
  - specialize (Seg os c cs E Hr Hc Hsmall HE Hw). lia.
  - destruct (cut_steps os T c cs Hr Hc) as (os1 & os2 & c1 & cs1 & cs2 & R1 & R2 & L1 & S1 & S2 & I); [lia|].
    destruct (partition_by (fun e => exists s, In s (combine cs1 os1) /\ work e s)
                (fun e => exists s, In s (combine cs2 os2) /\ work e s) E HE) as (E1 & E2 & HL & N1 & N2 & W1 & W2).
    { intros e He. destruct (Hw e He) as (s & Hin & He'). apply I, in_app_iff in Hin.
      destruct Hin; [left|right]; eauto. }
    pose proof (Seg os1 c cs1 E1 R1 Hc ltac:(lia) N1 (fun e He => proj2 (W1 e He))) as B1.
    pose proof (IH E2 os2 c1 cs2 R2 L1 ltac:(lia) N2 (fun e He => proj2 (W2 e He))) as B2. lia.
Qed.
End Steps.

(** A birth, here, begins a sum of a score s_ij in fast memory while it holds none. A run that does the multiplications
    q_ia k_ja of all (i, j, a) in P has 4 |P|^2 <= (loads + births + 2 M)^2 M, so loads + births >=
    2 |P| / sqrt(M) - 2 M. *)
Theorem multiplications_lower_bound M d os cs P : 0 < M -> run M d [] os cs -> NoDup P ->
  (forall e, In e P -> exists s, In s (combine cs os) /\ multiplies e s) ->
  let traffic := loads os + births score_of cs os + 2 * M in 4 * (length P * length P) <= traffic * traffic * M.
Proof.
  intros HM Hr HP Hw traffic. set (B := Nat.sqrt (M * (M * M))).
  destruct (segment_count (2 * M) (loads os + births score_of cs os)) as (n & Hn & Hn'); [lia|].
  assert (H : length P <= n * B).
  { apply (segments_of_steps M d (accumulator_cost score_of) (accumulator_cost_le score_of) multiplies (2 * M) B)
      with os [] cs; auto; [lia| |simpl; lia|now rewrite (accumulator_spent score_of M d [] os cs Hr)].
    clear. intros os c cs P Hr Hc HL HP Hw. set (W := c ++ paid score_of cs os).
    assert (HW : length W <= 3 * M) by (unfold W; rewrite app_length; pose proof (paid_length score_of cs os); lia).
    apply Nat.sqrt_le_square. pose proof (count_multiplications W P HP) as HC.
    assert (H3 : length W * (length W * length W) <= 3 * M * (3 * M * (3 * M))) by now repeat apply Nat.mul_le_mono.
    enough (27 * (length P * length P) <= length W * (length W * length W)) by lia. apply HC. clear HC H3.
    intros i j a Hin. destruct (Hw _ Hin) as ([c' o] & Hs & (A & Ho & Ha) & HQ & HK). cbn [fst snd] in *. subst o.
    assert (Hc' : In c' cs) by (eapply in_combine_l; eauto).
    assert (Hfrom : forall w, In w c' -> from W w).
    { apply (from_run M d W os c cs Hr); auto.
      - intros w Hw'. apply from_self, in_app_iff. auto.
      - apply incl_appr, (loaded_paid score_of M d os c cs Hr). }
    split; [exact (Hfrom _ HQ)|]. split; [exact (Hfrom _ HK)|].
    destruct (held score_of (i, j) c') eqn:Eh.
    - apply (held_from score_of M d W os c cs Hr) in Eh; auto.
      + intros x Hx. apply held_spec in Hx. destruct Hx as (w & Hw' & Hx). exists w. split; [apply in_app_iff|]; auto.
      + apply incl_appr, incl_refl.
    - exists (Part QK i j A). split; [|reflexivity]. apply in_app_iff. right. clear - Hs Eh.
      revert cs Hs. induction os as [|o os IH]; intros [|c cs] Hs; try contradiction. cbn [paid]. apply in_app_iff.
      destruct Hs as [[= -> ->]|Hs]; [left|right; auto].
      unfold accumulator_cost, birth, begins. simpl. rewrite Eh. simpl; auto. }
  assert (HB : B * B <= M * (M * M)) by apply Nat.sqrt_spec, Nat.le_0_l.
  assert (H1 : length P * length P <= (n * B) * (n * B)) by now apply Nat.mul_le_mono.
  assert (H2 : (n * n) * (B * B) <= (n * n) * (M * (M * M))) by now apply Nat.mul_le_mono_l.
  assert (H3 : (n * (2 * M)) * (n * (2 * M)) * M <= traffic * traffic * M)
    by (apply Nat.mul_le_mono_r, Nat.mul_le_mono; exact Hn').
  replace ((n * B) * (n * B)) with ((n * n) * (B * B)) in H1 by ring.
  replace ((n * (2 * M)) * (n * (2 * M)) * M) with (4 * ((n * n) * (M * (M * M)))) in H3 by ring. lia.
Qed.
