(** The two-level machine that every lower bound and every certificate is about.

    There is a fast memory of M words (SRAM, registers) and an unlimited slow memory (HBM). Words are numbers of the
    attention problem: entries of Q, K, V and dO, unfinished sums of their inner products, unfinished outputs, and
    anything else (running maxima, row sums, gradients). An operation computes a new word from words in fast memory and
    may drop any words: evictions are free, results may overwrite operands, any order, any recomputation, any splitting
    of an inner product and any number of unfinished sums are allowed, and arithmetic costs nothing. Only loads (and,
    where a theorem says so, stores) are counted. What the machine cannot do is to use algebra other than adding up
    products, such as Strassen's, or to approximate; and it is one private fast memory, not a cache shared by many.

    A complete sum stands for the score and for every function of it, such as exp(s - m): they take one word. *)
From Coq Require Import List Arith Lia.
Import ListNotations.

(** * Words and operations *)

(** The two inner products of attention: scores Q K^T, and dP = dO V^T of the backward pass. *)
Inductive product := QK | GV.

Inductive word :=
| Left (p : product) (i a : nat)                 (* an entry of Q, or of dO *)
| Right (p : product) (j a : nat)                (* an entry of K, or of V *)
| Part (p : product) (i j : nat) (A : list nat)  (* sum over a in A of Left i a * Right j a *)
| Out (i c : nat) (J : list nat)                 (* unfinished O_ic: the keys in J are added up *)
| Other (n : nat).

Notation Q := (Left QK).
Notation K := (Right QK).
Notation dO := (Left GV).
Notation V := (Right GV).

Inductive op :=
| Load (w : word)
| Store (w : word)
| Dot (p : product) (i j : nat) (A : list nat)
| Zero (i c : nat)
| Accumulate (i c : nat) (J : list nat)
| Misc (n : nat).

Definition fast := list word.
Definition slow := list word.

Definition word_eq : forall x y : word, {x = y} + {x <> y}.
Proof. repeat decide equality. Defined.

(** * Steps *)
Section Machine.
Variables (M d : nat).

Definition full (A : list nat) := forall a, a < d -> In a A.

(** The sum of all d products of the pair (i, j) is in fast memory. *)
Definition complete p i j (c : fast) := exists A, In (Part p i j A) c /\ full A.

(** What an operation needs, and the word that it makes available. *)
Definition enabled (c : fast) (o : op) : Prop :=
  match o with
  | Load _ | Zero _ _ | Misc _ => True
  | Store w => In w c
  | Dot p i j A => forall a, In a A ->
      (exists B, In (Part p i j B) c /\ In a B) \/ (In (Left p i a) c /\ In (Right p j a) c)
  | Accumulate i k J => (exists J', In (Out i k J') c) /\ forall j, In j J ->
      (exists J', In (Out i k J') c /\ In j J') \/ (complete QK i j c /\ In (V j k) c)
  end.

Definition made (o : op) : list word :=
  match o with
  | Load w => [w] | Store _ => [] | Dot p i j A => [Part p i j A]
  | Zero i k => [Out i k []] | Accumulate i k J => [Out i k J] | Misc n => [Other n]
  end.

(** One step of the fast memory: what is left afterwards is any part of what was there and what was made. *)
Definition step (c : fast) (o : op) (c' : fast) : Prop :=
  length c' <= M /\ enabled c o /\ incl c' (made o ++ c).

(** A run and the fast memories that it passes through, the first one included. *)
Inductive run : fast -> list op -> list fast -> Prop :=
| run_nil c : run c [] [c]
| run_cons c o c' os cs : step c o c' -> run c' os cs -> run c (o :: os) (c :: cs).

(** The same with the slow memory: inputs can always be loaded, anything else must have been stored. *)
Definition state := (fast * slow)%type.
Definition input (w : word) := match w with Left _ _ _ | Right _ _ _ => True | _ => False end.

Definition legal_step (s : state) (o : op) (s' : state) : Prop :=
  step (fst s) o (fst s') /\
  match o with
  | Load w => (input w \/ In w (snd s)) /\ snd s' = snd s
  | Store w => snd s' = w :: snd s
  | _ => snd s' = snd s
  end.

Inductive legal_run : state -> list op -> list state -> Prop :=
| legal_nil s : legal_run s [] [s]
| legal_cons s o s' os ss : legal_step s o s' -> legal_run s' os ss -> legal_run s (o :: os) (s :: ss).

Lemma legal_run_is_run s os ss : legal_run s os ss -> run (fst s) os (map fst ss).
Proof. induction 1 as [|s o s' os ss [H _] _ IH]; simpl; econstructor; eauto. Qed.

(** * What a run achieves *)

(** The product p_ij v_jk is formed: the finished score and the entry of V are both in fast memory. *)
Definition used (e : nat * nat * nat) (c : fast) :=
  let '(i, j, k) := e in complete QK i j c /\ In (V j k) c.

(** * What it costs *)
Fixpoint loaded (os : list op) : list word :=
  match os with [] => [] | Load w :: os => w :: loaded os | _ :: os => loaded os end.
Fixpoint stored (os : list op) : list word :=
  match os with [] => [] | Store w :: os => w :: stored os | _ :: os => stored os end.
Definition loads os := length (loaded os).
Definition stores os := length (stored os).

Lemma loaded_app a b : loaded (a ++ b) = loaded a ++ loaded b.
Proof. induction a as [|[] a IH]; simpl; auto; now rewrite IH. Qed.
Lemma stored_app a b : stored (a ++ b) = stored a ++ stored b.
Proof. induction a as [|[] a IH]; simpl; auto; now rewrite IH. Qed.
Lemma loads_app a b : loads (a ++ b) = loads a + loads b.
Proof. unfold loads. now rewrite loaded_app, app_length. Qed.
Lemma stores_app a b : stores (a ++ b) = stores a + stores b.
Proof. unfold stores. now rewrite stored_app, app_length. Qed.

(** A cost per operation that may depend on the fast memory before it. *)
Section Cost.
Variable cost : fast -> op -> nat.

Fixpoint spent (cs : list fast) (os : list op) : nat :=
  match cs, os with c :: cs, o :: os => cost c o + spent cs os | _, _ => 0 end.

Lemma run_length c os cs : run c os cs -> length cs = S (length os).
Proof. induction 1; simpl; auto. Qed.

Lemma run_head c os cs : run c os cs -> exists cs', cs = c :: cs'.
Proof. inversion 1; eauto. Qed.

(** A run whose cost exceeds T can be cut after exactly T. *)
Lemma cut_after T : (forall c o, cost c o <= 1) -> forall os c cs, run c os cs -> length c <= M -> T <= spent cs os ->
  exists os1 os2 c1 cs1 cs2, os = os1 ++ os2 /\ run c os1 cs1 /\ run c1 os2 cs2 /\ length c1 <= M /\
    spent cs1 os1 = T /\ spent cs2 os2 = spent cs os - T /\ incl cs (cs1 ++ cs2).
Proof.
  intros H1 os. revert T. induction os as [|o os IH]; intros T c cs Hr Hc HT;
    inversion Hr as [|? ? c1 ? cs' Hst Hrun]; subst.
  - simpl in HT. assert (T = 0) by lia; subst.
    exists [], [], c, [c], [c]. simpl. split; [auto|]. split; [constructor|]. split; [constructor|].
    repeat split; auto. intros x Hx; simpl in *; tauto.
  - destruct (Nat.eq_dec T 0) as [->|HT0].
    + exists [], (o :: os), c, [c], (c :: cs'). simpl. split; [auto|]. split; [constructor|]. split; [auto|].
      repeat split; auto; try lia. intros x Hx; simpl in *; tauto.
    + simpl in HT. pose proof (H1 c o) as Hco.
      destruct (IH (T - cost c o) c1 cs' Hrun) as (os1 & os2 & c2 & cs1 & cs2 & -> & R1 & R2 & L & S1 & S2 & I);
        [apply Hst|lia|].
      exists (o :: os1), os2, c2, (c :: cs1), cs2. simpl. split; [auto|].
      split; [econstructor; eauto|]. split; [auto|]. repeat split; auto; try lia.
      * intros x [<-|Hx]; [now left|right; apply I, Hx].
Qed.

Lemma partition_by {X} (P R : X -> Prop) E : NoDup E -> (forall e, In e E -> P e \/ R e) ->
  exists E1 E2, length E = length E1 + length E2 /\ NoDup E1 /\ NoDup E2 /\
    (forall e, In e E1 -> In e E /\ P e) /\ (forall e, In e E2 -> In e E /\ R e).
Proof.
  induction 1 as [|e E He HE IH]; intros H.
  - exists [], []. simpl. split; [auto|]. split; [constructor|]. split; [constructor|]. split; intros ? [].
  - destruct IH as (E1 & E2 & HL & N1 & N2 & H1 & H2); [intros; apply H; simpl; auto|].
    destruct (H e (or_introl eq_refl)) as [HP|HR].
    + exists (e :: E1), E2. simpl. split; [lia|]. split; [constructor; auto; intros Hin; apply He, H1, Hin|].
      split; [auto|]. split; intros x Hx.
      * destruct Hx as [<-|Hx]; [auto|]. destruct (H1 x Hx); auto.
      * destruct (H2 x Hx); auto.
    + exists E1, (e :: E2). simpl. split; [lia|]. split; [auto|].
      split; [constructor; auto; intros Hin; apply He, H2, Hin|]. split; intros x Hx.
      * destruct (H1 x Hx); auto.
      * destruct Hx as [<-|Hx]; [auto|]. destruct (H2 x Hx); auto.
Qed.

(** Cut a run after every T: a bound on the work of one segment gives a bound on the whole. *)
Lemma segments {X} (work : X -> fast -> Prop) (T k B : nat) : 0 < T -> (forall c o, cost c o <= 1) ->
  (forall os c cs E, run c os cs -> length c <= M -> spent cs os <= T -> NoDup E ->
     (forall e, In e E -> exists c', In c' cs /\ work e c') -> k * length E <= B) ->
  forall n E os c cs, run c os cs -> length c <= M -> spent cs os < n * T -> NoDup E ->
  (forall e, In e E -> exists c', In c' cs /\ work e c') -> k * length E <= n * B.
Proof.
  intros HT H1 Seg n; induction n as [|n IH]; intros E os c cs Hr Hc HS HE Hw; [lia|].
  destruct (le_lt_dec (spent cs os) T) as [Hsmall|Hbig].
  - specialize (Seg os c cs E Hr Hc Hsmall HE Hw). lia.
  - destruct (cut_after T H1 os c cs Hr Hc) as (os1 & os2 & c1 & cs1 & cs2 & -> & R1 & R2 & L1 & S1 & S2 & I); [lia|].
    destruct (partition_by (fun e => exists c', In c' cs1 /\ work e c')
                (fun e => exists c', In c' cs2 /\ work e c') E HE) as (E1 & E2 & HL & N1 & N2 & W1 & W2).
    { intros e He. destruct (Hw e He) as (c' & Hin & He'). apply I, in_app_iff in Hin. destruct Hin; [left|right]; eauto. }
    pose proof (Seg os1 c cs1 E1 R1 Hc ltac:(lia) N1 (fun e He => proj2 (W1 e He))) as B1.
    pose proof (IH E2 os2 c1 cs2 R2 L1 ltac:(lia) N2 (fun e He => proj2 (W2 e He))) as B2.
    rewrite HL. lia.
Qed.

(** The number of segments that a run of cost C needs, in the form in which bounds use it. *)
Lemma segment_count T C : 0 < T -> exists n, C < n * T /\ n * T <= C + T.
Proof.
  intros HT. exists (S (C / T)). pose proof (Nat.div_mod C T ltac:(lia)). pose proof (Nat.mod_upper_bound C T ltac:(lia)).
  simpl. nia.
Qed.
End Cost.

(** Loads as such a cost. *)
Definition load_cost (_ : fast) (o : op) := match o with Load _ => 1 | _ => 0 end.

Lemma spent_loads os : forall c cs, run c os cs -> spent load_cost cs os = loads os.
Proof.
  induction os as [|o os IH]; intros c cs Hr; inversion Hr as [|? ? c1 ? cs' Hst Hrun]; subst; auto.
  unfold loads in *. simpl. rewrite (IH _ _ Hrun). now destruct o.
Qed.

Lemma load_cost_le c o : load_cost c o <= 1.
Proof. destruct o; simpl; lia. Qed.

(** * Where words come from *)

(** Inside one segment every word comes from W: what was in fast memory at its start, and what it loaded. *)
Definition from (W : list word) (w : word) : Prop :=
  match w with
  | Left _ _ _ | Right _ _ _ => In w W
  | Part p i j A => (exists B, In (Part p i j B) W) \/ (forall a, In a A -> In (Left p i a) W /\ In (Right p j a) W)
  | Out _ _ _ | Other _ => True
  end.

Lemma from_self W w : In w W -> from W w.
Proof. destruct w; simpl; auto. intros; left; eauto. Qed.

Lemma from_step W c o c' : (forall w, In w c -> from W w) -> incl (loaded [o]) W -> step c o c' ->
  forall w, In w c' -> from W w.
Proof.
  intros H0 HW (_ & He & Hi) w Hw. apply Hi, in_app_iff in Hw. destruct Hw as [Hw|Hw]; auto.
  destruct o as [v|v|p i j A|i k|i k J|n]; simpl in *; try destruct Hw as [<-|[]]; simpl; auto.
  - apply from_self, HW. simpl; auto.
  - contradiction.
  - clear Hi HW. induction A as [|a A IH]; [right; intros a []|].
    destruct IH as [L|R]; [intros; apply He; simpl; auto|now left|].
    destruct (He a (or_introl eq_refl)) as [(B & HB & Ha)|[Hl Hr]].
    + destruct (H0 _ HB) as [L|R']; [now left|]. right; intros x [<-|Hx]; auto.
    + apply H0 in Hl, Hr. right; intros x [<-|Hx]; auto.
Qed.

Lemma from_run W os : forall c cs, run c os cs -> (forall w, In w c -> from W w) -> incl (loaded os) W ->
  forall c', In c' cs -> forall w, In w c' -> from W w.
Proof.
  induction os as [|o os IH]; intros c cs Hr H0 HW c' Hin; inversion Hr as [|? ? c1 ? ? Hst Hrun]; subst.
  - destruct Hin as [<-|[]]; auto.
  - change (o :: os) with ([o] ++ os) in HW. rewrite loaded_app in HW.
    destruct Hin as [<-|Hin]; auto. apply (IH c1 cs0); auto.
    + eapply from_step; eauto. intros x Hx. apply HW, in_app_iff; auto.
    + intros x Hx. apply HW, in_app_iff; auto.
Qed.

(** A segment of at most T loads gets everything from M + T words. *)
Lemma segment_words T os c cs : run c os cs -> length c <= M -> loads os <= T ->
  exists W, length W <= M + T /\ forall c', In c' cs -> forall w, In w c' -> from W w.
Proof.
  intros Hr Hc HL. exists (c ++ loaded os). split.
  - rewrite app_length. unfold loads in HL. lia.
  - intros c' Hin w Hw. eapply from_run; eauto.
    + intros v Hv. apply from_self, in_app_iff; auto.
    + intros v Hv. apply in_app_iff; auto.
Qed.
End Machine.
