(** A checker for schedules, proved right.

    A trace is a list of operations of the machine of Machine.v, each with the words that are dropped after it. [check]
    plays a trace from an empty fast and an empty slow memory and counts its loads and stores. If it accepts, then the
    trace is a legal run with M words of fast memory; each of the given query rows ends in slow memory as the sum over
    exactly its visible keys; every product p_ij v_jk of a visible pair was formed on the way; and the lower bound of
    LowerBound.v applies to the loads that were counted. The checker runs inside Coq (vm_compute) on small traces and,
    extracted to OCaml (Extraction.v), on large ones.

    Not claimed: that a trace belongs to a program (simulator/ioaware/readers/trace.py makes traces and is tested, not
    proved), and anything about rounding. A rejected trace may be legal: the checker demands that unfinished outputs and
    scores are named by lists in a fixed order. *)
From Coq Require Import List Arith Bool Lia FMapPositive.
From IOAware Require Import Machine LowerBound Words.
Import ListNotations.

(** * Playing a trace *)
Definition trace := list (op * list word).

(** What is kept while a trace is played: both memories, the words in the fast one, loads and stores so far. *)
Record books := Books { in_fast : memory; held : nat; in_slow : memory; read : nat; written : nat }.

Inductive fault :=
| NeverStored   (* a word is loaded that is neither an input nor was stored before *)
| NotInFast     (* a word is stored that is not in fast memory *)
| NoOperand     (* an operation lacks an operand in fast memory *)
| TooManyWords. (* fast memory overflows *)

Inductive verdict :=
| Accepted (loads stores : nat)
| Rejected (operation : nat) (why : fault)   (* operations are counted from 0 *)
| Unfinished (row column : nat)              (* this output is not in slow memory in the end *)
| Unordered.                                 (* rows or visible keys are not in increasing order *)

Section Checker.
Variables (M d : nat).

Definition inputb (w : word) := match w with Left _ _ _ | Right _ _ _ => true | _ => false end.
Definition member (a : nat) (A : list nat) := existsb (Nat.eqb a) A.

Definition partial_sums (t : memory) p i j : list (list nat) :=
  flat_map (fun w => match w with
    | Part q i' j' A => if product_eqb p q && (i =? i') && (j =? j') then [A] else [] | _ => [] end)
    (bucket t (key (Part p i j []))).

Definition unfinished (t : memory) i k : list (list nat) :=
  flat_map (fun w => match w with Out i' k' J => if (i =? i') && (k =? k') then [J] else [] | _ => [] end)
    (bucket t (key (Out i k []))).

(** What of J is not in J'; linear, and complete if J' is a part of J in the same order. *)
Fixpoint without (J J' : list nat) : list nat :=
  match J, J' with
  | [], _ => []
  | _, [] => J
  | j :: J, j' :: J'' => if j =? j' then without J J'' else j :: without J J'
  end.

Definition covers A := match without (seq 0 d) A with [] => true | _ => false end.
Definition complete_score (t : memory) i j := existsb covers (partial_sums t QK i j).

Definition ready (t : memory) (o : op) : option fault :=
  match o with
  | Load _ | Zero _ _ | Misc _ => None
  | Store w => if has t w then None else Some NotInFast
  | Dot p i j A =>
      if forallb (fun a => (has t (Left p i a) && has t (Right p j a)) || existsb (member a) (partial_sums t p i j)) A
      then None else Some NoOperand
  | Accumulate i k J =>
      let sums := unfinished t i k in
      if match sums with [] => false | _ => true end &&
         forallb (fun j => complete_score t i j && has t (V j k)) (fold_left without sums J)
      then None else Some NoOperand
  end.

Definition loadable (slow : memory) (o : op) : bool :=
  match o with Load w => inputb w || has slow w | _ => true end.

Definition evict (b : memory * nat) (w : word) : memory * nat :=
  let (t, n) := b in if has t w then (drop t w, pred n) else b.

Definition make (b : memory * nat) (w : word) : memory * nat :=
  let (t, n) := b in if has t w then b else (put t w, S n).

Definition play (b : books) (o : op) (dropped : list word) : books + fault :=
  if loadable (in_slow b) o then
    match ready (in_fast b) o with
    | Some why => inr why
    | None =>
        let (t, n) := fold_left evict dropped (fold_left make (made o) (in_fast b, held b)) in
        if n <=? M then inl (match o with
          | Load _ => Books t n (in_slow b) (S (read b)) (written b)
          | Store w => Books t n (if has (in_slow b) w then in_slow b else put (in_slow b) w) (read b) (S (written b))
          | _ => Books t n (in_slow b) (read b) (written b)
          end)
        else inr TooManyWords
    end
  else inr NeverStored.

Fixpoint play_all (number : nat) (b : books) (tr : trace) : books + nat * fault :=
  match tr with
  | [] => inl b
  | (o, dropped) :: tr =>
      match play b o dropped with inl b => play_all (S number) b tr | inr why => inr (number, why) end
  end.

(** * Soundness of one step *)
(** The memories of the checker stand for a state of the machine. *)
Definition stands_for (b : books) (s : state) :=
  within (in_fast b) (fst s) /\ length (fst s) <= held b /\ within (in_slow b) (snd s).

Lemma without_spec J : forall J' j, In j J -> In j J' \/ In j (without J J').
Proof.
  induction J as [|x J IH]; [intros ? ? []|]. intros [|y J'] j Hj; [now right|]. simpl without.
  destruct (Nat.eqb_spec x y) as [<-|_]; destruct Hj as [<-|Hj].
  - left; now left.
  - destruct (IH J' j Hj); [left; now right|auto].
  - right; now left.
  - destruct (IH (y :: J') j Hj); [auto|right; now right].
Qed.

Lemma without_all sums : forall J j, In j J -> (exists J', In J' sums /\ In j J') \/ In j (fold_left without sums J).
Proof.
  induction sums as [|s sums IH]; intros J j H; simpl; [auto|]. destruct (without_spec J s j H) as [H'|H'].
  - left. exists s. split; [now left|auto].
  - destruct (IH _ _ H') as [(J' & H1 & H2)|]; [left; exists J'; split; [now right|auto]|auto].
Qed.

Lemma member_in a A : member a A = true -> In a A.
Proof. intros H. apply existsb_exists in H. destruct H as (x & Hx & E). apply Nat.eqb_eq in E. now subst. Qed.

Lemma partial_sums_in t c p i j A : within t c -> In A (partial_sums t p i j) -> In (Part p i j A) c.
Proof.
  intros Ht H. apply in_flat_map in H. destruct H as (w & Hw & H). apply Ht in Hw. destruct Hw as [_ Hw].
  destruct w as [| |q i' j' B| |]; try contradiction. destruct (_ && _) eqn:E; [|contradiction].
  destruct H as [<-|[]]. rewrite !andb_true_iff, product_eqb_spec, !Nat.eqb_eq in E. now destruct E as [[-> ->] ->].
Qed.

Lemma unfinished_in t c i k J : within t c -> In J (unfinished t i k) -> In (Out i k J) c.
Proof.
  intros Ht H. apply in_flat_map in H. destruct H as (w & Hw & H). apply Ht in Hw. destruct Hw as [_ Hw].
  destruct w as [| | |i' k' J'|]; try contradiction. destruct (_ && _) eqn:E; [|contradiction].
  destruct H as [<-|[]]. rewrite andb_true_iff, !Nat.eqb_eq in E. now destruct E as [-> ->].
Qed.

Lemma complete_score_sound t c i j : within t c -> complete_score t i j = true -> complete d QK i j c.
Proof.
  intros Ht H. apply existsb_exists in H. destruct H as (A & HA & H). exists A. split; [eapply partial_sums_in; eauto|].
  intros a Ha. unfold covers in H. destruct (without_spec (seq 0 d) A a ltac:(apply in_seq; lia)) as [|Hin]; [auto|].
  now destruct (without _ A).
Qed.

Lemma ready_sound t c o : within t c -> ready t o = None -> enabled d c o.
Proof.
  intros Ht. destruct o as [w|w|p i j A|i k|i k J|n]; simpl; auto.
  - destruct (has t w) eqn:H; [|discriminate]. intros _. eapply has_in; eauto.
  - destruct (forallb _ A) eqn:H; [|discriminate]. intros _ a Ha. rewrite forallb_forall in H. specialize (H a Ha).
    apply orb_true_iff in H. destruct H as [H|H].
    + right. apply andb_true_iff in H. destruct H. split; eapply has_in; eauto.
    + left. apply existsb_exists in H. destruct H as (B & HB & H). exists B.
      split; [eapply partial_sums_in; eauto|now apply member_in].
  - destruct (_ && _) eqn:H; [|discriminate]. intros _. apply andb_true_iff in H. destruct H as [H1 H2]. split.
    + destruct (unfinished t i k) as [|J' sums] eqn:E; [discriminate|]. exists J'.
      apply unfinished_in with t; [auto|]. rewrite E. now left.
    + intros j Hj. destruct (without_all (unfinished t i k) J j Hj) as [(J' & HJ & Hin)|Hin].
      * left. exists J'. split; [eapply unfinished_in; eauto|auto].
      * right. rewrite forallb_forall in H2. specialize (H2 j Hin). apply andb_true_iff in H2. destruct H2.
        split; [eapply complete_score_sound; eauto|eapply has_in; eauto].
Qed.

Definition counted (b : memory * nat) (c : list word) := within (fst b) c /\ length c <= snd b.

Lemma make_sound b c w : counted b c -> exists c', counted (make b w) c' /\ incl c' (w :: c).
Proof.
  destruct b as [t n]. intros [Ht Hn]. unfold make. destruct (has t w); simpl in *.
  - exists c. split; [now split|apply incl_tl, incl_refl].
  - exists (w :: c). split; [split; [now apply within_put|simpl; lia]|apply incl_refl].
Qed.

Lemma evict_sound b c w : counted b c -> exists c', counted (evict b w) c' /\ incl c' c.
Proof.
  destruct b as [t n]. intros [Ht Hn]. unfold evict. destruct (has t w) eqn:H; simpl in *.
  - exists (remove word_eq w c). split; [split; simpl; [now apply within_drop|]|].
    + pose proof (remove_length_lt word_eq c w (has_in _ _ _ Ht H)). lia.
    + intros x Hx. now apply in_remove in Hx.
  - exists c. split; [now split|apply incl_refl].
Qed.

Lemma evict_all_sound dropped : forall b c, counted b c ->
  exists c', counted (fold_left evict dropped b) c' /\ incl c' c.
Proof.
  induction dropped as [|w dropped IH]; intros b c H; simpl; [exists c; split; [auto|apply incl_refl]|].
  destruct (evict_sound b c w H) as (c1 & H1 & I1). destruct (IH _ _ H1) as (c2 & H2 & I2).
  exists c2. split; [auto|]. eapply incl_tran; eauto.
Qed.

Lemma made_sound o b c : counted b c -> exists c', counted (fold_left make (made o) b) c' /\ incl c' (made o ++ c).
Proof.
  intros H. assert (E : made o = [] \/ exists w, made o = [w]) by (destruct o; simpl; eauto).
  destruct E as [->|(w & ->)]; simpl; [exists c; split; [auto|apply incl_refl]|]. now apply make_sound.
Qed.

Lemma play_sound b o dropped b' s : stands_for b s -> play b o dropped = inl b' ->
  exists s', legal_step M d s o s' /\ stands_for b' s' /\
    read b' = loads [o] + read b /\ written b' = stores [o] + written b.
Proof.
  destruct s as [c m]. intros (Hf & Hn & Hs). unfold play.
  destruct (loadable (in_slow b) o) eqn:HL; [|discriminate].
  destruct (ready (in_fast b) o) eqn:HR; [discriminate|]. apply (ready_sound _ c) in HR; [|auto].
  destruct (made_sound o (in_fast b, held b) c (conj Hf Hn)) as (c1 & H1 & I1).
  destruct (evict_all_sound dropped _ _ H1) as (c2 & H2 & I2).
  destruct (fold_left evict _ _) as [t n]. destruct (Nat.leb_spec n M) as [HM|]; [|discriminate].
  intros E. injection E as <-. destruct H2 as [W2 L2]. simpl in *.
  assert (Hstep : step M d c o c2) by (split; [lia|split; [auto|eapply incl_tran; eauto]]).
  destruct o as [w|w|p i j A|i k|i k J|v].
  2: { exists (c2, w :: m). split; [now split|]. split; [|auto]. split; [auto|]. split; [auto|]. simpl.
       destruct (has (in_slow b) w); [|now apply within_put].
       apply within_weaken with m; [auto|apply incl_tl, incl_refl]. }
  all: exists (c2, m); split; [split; [auto|]|split; [exact (conj W2 (conj L2 Hs))|auto]]; simpl; auto.
  split; [|auto]. simpl in HL. apply orb_true_iff in HL. destruct HL as [HL|HL].
  - left. now destruct w.
  - right. eapply has_in; eauto.
Qed.

(** * Soundness of a whole trace *)
Lemma loads_cons o os : loads (o :: os) = loads [o] + loads os.
Proof. exact (loads_app [o] os). Qed.
Lemma stores_cons o os : stores (o :: os) = stores [o] + stores os.
Proof. exact (stores_app [o] os). Qed.

Lemma last_cons {A} (l : list A) : forall x y, last (x :: l) y = last l x.
Proof. induction l as [|z l IH]; intros x y; [auto|]. change (last (z :: l) y = last (z :: l) x). now rewrite !IH. Qed.

Lemma play_all_sound tr : forall number b s b', stands_for b s -> play_all number b tr = inl b' ->
  exists ss s', legal_run M d s (map fst tr) ss /\ last ss s = s' /\ stands_for b' s' /\
    read b' = loads (map fst tr) + read b /\ written b' = stores (map fst tr) + written b.
Proof.
  induction tr as [|[o dropped] tr IH]; intros number b s b' Hb; cbn [play_all map fst].
  - intros [= <-]. exists [s], s. split; [constructor|auto].
  - destruct (play b o dropped) as [b1|] eqn:E; [|discriminate]. intros Hp.
    destruct (play_sound _ _ _ _ _ Hb E) as (s1 & Hstep & H1 & HL & HS).
    destruct (IH _ _ _ _ H1 Hp) as (ss & s' & R & HE & H2 & HL2 & HS2).
    exists (s :: ss), s'. split; [econstructor; eauto|]. rewrite loads_cons, stores_cons. split; [|split; [auto|lia]].
    rewrite last_cons, <- HE. destruct R; now rewrite !last_cons.
Qed.

(** Whatever was added to an output was formed from a finished score and an entry of V, also if the output was stored
    and loaded in between. *)
Definition explained (all : list state) (w : word) :=
  match w with Out i k J => forall j, In j J -> exists s, In s all /\ used d (i, j, k) (fst s) | _ => True end.

Lemma outputs_explained all os : forall s ss, legal_run M d s os ss -> incl ss all ->
  (forall w, In w (fst s) \/ In w (snd s) -> explained all w) ->
  forall s', In s' ss -> forall w, In w (fst s') \/ In w (snd s') -> explained all w.
Proof.
  induction os as [|o os IH]; intros s ss Hr HI H0 s' Hin;
    inversion Hr as [|? ? s1 ? ss' [(_ & He & Hi) Hm] Hrun]; subst.
  { destruct Hin as [<-|[]]. auto. }
  destruct Hin as [<-|Hin]; [auto|]. assert (Hs : In s all) by (apply HI; now left).
  apply (IH s1 ss'); auto; [intros x Hx; apply HI; now right|]. clear IH Hrun Hr Hin.
  assert (Hslow : forall w, In w (snd s1) -> explained all w).
  { intros w Hw. destruct o as [v|v| | | |]; [destruct Hm as [_ Hm]|..]; rewrite Hm in Hw; auto.
    destruct Hw as [<-|Hw]; auto. }
  intros w [Hw|Hw]; [|auto]. apply Hi, in_app_iff in Hw. destruct Hw as [Hw|Hw]; [|auto].
  destruct o as [v|v|p i j A|i k|i k J|n]; simpl in *; try destruct Hw as [<-|[]]; simpl; auto.
  - destruct Hm as [[Hv|Hv] _]; [destruct v; simpl in *; tauto|auto].
  - contradiction.
  - intros j [].
  - destruct He as [_ He]. intros j Hj. destruct (He j Hj) as [(J' & HJ & Hj')|Hu]; [|exists s; auto].
    exact (H0 (Out i k J') (or_introl HJ) j Hj').
Qed.

(** * The outputs *)
Definition rows := list (nat * list nat). (* a query row and the keys that it sees *)

Fixpoint increasing (A : list nat) : bool :=
  match A with a :: (b :: _) as A' => (a <? b) && increasing A' | _ => true end.

Definition pairs (E : rows) : list (nat * nat) := flat_map (fun r => map (pair (fst r)) (snd r)) E.

Definition missing (slow : memory) dv (E : rows) : option (nat * nat) :=
  option_map fst (find (fun '(i, k, J) => negb (has slow (Out i k J)))
    (flat_map (fun r => map (fun k => (fst r, k, snd r)) (seq 0 dv)) E)).

Definition start := Books (PositiveMap.empty _) 0 (PositiveMap.empty _) 0 0.

(** The checker: M words of fast memory, rows of Q and K of length d, rows of V of length dv. *)
Definition check dv (E : rows) (tr : trace) : verdict :=
  if increasing (map fst E) && forallb (fun r => increasing (snd r)) E then
    match play_all 0 start tr with
    | inr (number, why) => Rejected number why
    | inl b => match missing (in_slow b) dv E with
               | Some (i, k) => Unfinished i k
               | None => Accepted (read b) (written b)
               end
    end
  else Unordered.

Lemma increasing_head A : forall a, increasing (a :: A) = true -> increasing A = true /\ forall x, In x A -> a < x.
Proof.
  induction A as [|b A IH]; intros a H; [split; [auto|intros ? []]|].
  change ((a <? b) && increasing (b :: A) = true) in H. apply andb_true_iff in H. destruct H as [Hab H].
  apply Nat.ltb_lt in Hab. destruct (IH b H) as [_ Hb]. split; [auto|].
  intros x [<-|Hx]; [auto|]. specialize (Hb x Hx). lia.
Qed.

Lemma increasing_nodup A : increasing A = true -> NoDup A.
Proof.
  induction A as [|a A IH]; intros H; [constructor|]. apply increasing_head in H. destruct H as [H Ha].
  constructor; [intros Hin; specialize (Ha a Hin); lia|auto].
Qed.

Lemma pairs_in E i j : In (i, j) (pairs E) -> exists J, In (i, J) E /\ In j J.
Proof.
  intros H. apply in_flat_map in H. destruct H as ([i' J] & Hr & H). apply in_map_iff in H.
  destruct H as (j' & E' & Hj). injection E' as <- <-. eauto.
Qed.

Lemma pairs_nodup E : NoDup (map fst E) -> (forall r, In r E -> NoDup (snd r)) -> NoDup (pairs E).
Proof.
  induction E as [|[i J] E IH]; intros HE HJ; [constructor|]. simpl in *. inversion HE as [|? ? Hi HE']; subst.
  assert (G : forall J, NoDup J -> NoDup (map (pair i) J ++ pairs E)).
  { induction 1 as [|j J' Hj HJ' IHJ]; simpl; [apply IH; [auto|intros r Hr; apply HJ; now right]|].
    constructor; [|auto]. intros Hin. apply in_app_iff in Hin. destruct Hin as [Hin|Hin].
    - apply in_map_iff in Hin. destruct Hin as (x & [= ->] & Hx). auto.
    - apply pairs_in in Hin. destruct Hin as (J2 & Hin & _). apply Hi. apply in_map_iff. exists (i, J2). auto. }
  apply G. apply (HJ (i, J)). now left.
Qed.

Lemma missing_none slow dv E i J k : missing slow dv E = None -> In (i, J) E -> k < dv -> has slow (Out i k J) = true.
Proof.
  unfold missing. destruct (find _ _) eqn:F; [discriminate|]. intros _ Hr Hk.
  apply (find_none _ _) with (x := (i, k, J)) in F; [now apply negb_false_iff|].
  apply in_flat_map. exists (i, J). split; [auto|]. apply in_map_iff. exists k. split; [auto|apply in_seq; lia].
Qed.

(** A trace that the checker accepts is a legal run from empty memories with the loads and stores that it reports. In
    the end slow memory holds, for each of the given rows i and each column k of V, the sum over exactly the visible
    keys of i; and for each visible key j the finished score of (i, j) and the entry V j k met in fast memory.
    Used by: simulator/ioaware/readers/trace.py (trace), proofs/ioaware_proofs/certificate.py (Checkers). *)
Theorem check_sound dv E tr l s : check dv E tr = Accepted l s ->
  exists ss, legal_run M d ([], []) (map fst tr) ss /\ loads (map fst tr) = l /\ stores (map fst tr) = s /\
    (forall i J k, In (i, J) E -> k < dv -> In (Out i k J) (snd (last ss ([], [])))) /\
    (forall i j k, In (i, j) (pairs E) -> k < dv -> exists c, In c (map fst ss) /\ used d (i, j, k) c).
Proof.
  unfold check. destruct (_ && _); [|discriminate].
  destruct (play_all 0 start tr) as [b|[]] eqn:P; [|discriminate].
  destruct (missing (in_slow b) dv E) as [[]|] eqn:F; [discriminate|]. intros [= <- <-].
  assert (H0 : stands_for start ([], []))
    by exact (conj (within_empty []) (conj (le_n 0) (within_empty []))).
  destruct (play_all_sound _ _ _ _ _ H0 P) as (ss & s' & R & HE & (_ & _ & Hs) & HL & HS). simpl in HL, HS.
  assert (Hout : forall i J k, In (i, J) E -> k < dv -> In (Out i k J) (snd (last ss ([], [])))).
  { intros i J k Hr Hk. rewrite HE. eapply has_in; [eauto|]. eapply missing_none; eauto. }
  exists ss. split; [auto|]. split; [lia|]. split; [lia|]. split; [auto|].
  intros i j k Hp Hk. apply pairs_in in Hp. destruct Hp as (J & Hr & Hj). specialize (Hout i J k Hr Hk).
  assert (Hlast : In (last ss ([], [])) ss).
  { assert (Hne : ss <> []) by (intros ->; inversion R). destruct (exists_last Hne) as (all & x & ->).
    rewrite last_last. apply in_app_iff. right. now left. }
  assert (X := outputs_explained ss (map fst tr) ([], []) ss R (incl_refl _)).
  destruct (X ltac:(intros w [[]|[]]) _ Hlast (Out i k J) (or_intror Hout) j Hj) as (x & Hx & Hu).
  exists (fst x). split; [apply in_map; auto|auto].
Qed.

Lemma check_nodup dv E tr l s : check dv E tr = Accepted l s -> NoDup (pairs E).
Proof.
  unfold check. destruct (_ && _) eqn:H; [|discriminate]. intros _. apply andb_true_iff in H. destruct H as [H1 H2].
  apply pairs_nodup; [now apply increasing_nodup|]. rewrite forallb_forall in H2.
  intros r Hr. apply increasing_nodup, H2, Hr.
Qed.

(** The lower bound holds for the loads that the checker reports: with the visible pairs E of the given rows,
    d (d + dv) |E| <= (loads + M) max (M, 2 d (d + dv)).
    Used by: proofs/ioaware_proofs/certificate.py (bounds). *)
Theorem checked_trace_bound dv E tr l s : 0 < dv -> 0 < M -> check dv E tr = Accepted l s ->
  d * (d + dv) * length (pairs E) <= (l + M) * Nat.max M (2 * (d * (d + dv))).
Proof.
  intros Hdv HM H. pose proof (check_nodup _ _ _ _ _ H) as HN.
  apply check_sound in H. destruct H as (ss & R & <- & _ & _ & Hu). apply legal_run_is_run in R.
  apply (attention_lower_bound_dims M d dv _ _ (pairs E) Hdv HM R HN). intros [i j] k He Hk. now apply Hu.
Qed.
End Checker.
