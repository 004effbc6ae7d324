(** Words of the machine of Machine.v, compared and found quickly: what the checker of Checker.v keeps memories in.

    A memory is a search tree of buckets of words. All that is proved is what the checker needs: a word that is found
    was put there and has not been dropped since. Whatever the keys of the buckets are, it may be slow, but not wrong. *)
From Coq Require Import List Arith PArith Bool Lia FMapPositive.
From IOAware Require Import Machine.
Import ListNotations.

(** * Comparing *)
Definition product_eqb (p q : product) := match p, q with QK, QK | GV, GV => true | _, _ => false end.

Fixpoint list_eqb (A B : list nat) : bool :=
  match A, B with [], [] => true | a :: A, b :: B => (a =? b) && list_eqb A B | _, _ => false end.

Definition word_eqb (x y : word) : bool :=
  match x, y with
  | Left p i a, Left q j b | Right p i a, Right q j b => product_eqb p q && (i =? j) && (a =? b)
  | Part p i j A, Part q i' j' B => product_eqb p q && (i =? i') && (j =? j') && list_eqb A B
  | Out i k J, Out i' k' J' => (i =? i') && (k =? k') && list_eqb J J'
  | Other n, Other n' => n =? n'
  | _, _ => false
  end.

Lemma product_eqb_spec p q : product_eqb p q = true <-> p = q.
Proof. destruct p, q; simpl; split; congruence. Qed.

Lemma list_eqb_spec A : forall B, list_eqb A B = true <-> A = B.
Proof.
  induction A as [|a A IH]; intros [|b B]; simpl; try (split; congruence).
  rewrite andb_true_iff, Nat.eqb_eq, IH. split; [intros []|intros [=]]; subst; auto.
Qed.

Lemma word_eqb_spec x y : word_eqb x y = true <-> x = y.
Proof.
  destruct x, y; simpl; try (split; congruence);
    rewrite ?andb_true_iff, ?product_eqb_spec, ?Nat.eqb_eq, ?list_eqb_spec; (split; [intros H|intros [=]]); subst; auto;
    repeat match goal with H : _ /\ _ |- _ => destruct H end; congruence.
Qed.

(** * Finding *)

(** A memory: buckets of words by a key. The proofs ask nothing of the key but that it is a function of the word; the
    lists of unfinished words are left out of it, so that all unfinished O_ik are in one bucket. *)
Definition memory := PositiveMap.t (list word).

Fixpoint join (p q : positive) : positive := 
  match p with xH => xI (xI q) | xO p => xO (xO (join p q)) | xI p => xI (xO (join p q)) end.
Definition address (tag : positive) (i j : nat) : positive := join (Pos.of_succ_nat i) (join tag (Pos.of_succ_nat j)).

Definition left_key p := match p with QK => 1%positive | GV => 2%positive end.
Definition right_key p := match p with QK => 3%positive | GV => 4%positive end.
Definition part_key p := match p with QK => 5%positive | GV => 6%positive end.
Definition key (w : word) : positive :=
  match w with
  | Left p i a => address (left_key p) i a
  | Right p j a => address (right_key p) j a
  | Part p i j _ => address (part_key p) i j
  | Out i k _ => address 7 i k
  | Other n => address 8 n 0
  end.

Definition bucket (t : memory) k : list word := match PositiveMap.find k t with Some b => b | None => [] end.
Definition has (t : memory) w : bool := existsb (word_eqb w) (bucket t (key w)).
Definition put (t : memory) w : memory := PositiveMap.add (key w) (w :: bucket t (key w)) t.
Definition drop (t : memory) w : memory :=
  PositiveMap.add (key w) (filter (fun x => negb (word_eqb w x)) (bucket t (key w))) t.

(** The words of a memory are among those of a list, each in its own bucket. *)
Definition within (t : memory) (c : list word) := forall k w, In w (bucket t k) -> key w = k /\ In w c.

Lemma bucket_add t k b k' : bucket (PositiveMap.add k b t) k' = if Pos.eqb k' k then b else bucket t k'.
Proof.
  unfold bucket. destruct (Pos.eqb_spec k' k) as [->|H]; [now rewrite PositiveMap.gss|].
  now rewrite PositiveMap.gso.
Qed.

Lemma has_in t c w : within t c -> has t w = true -> In w c.
Proof.
  intros Ht H. apply existsb_exists in H. destruct H as (x & Hx & E). apply word_eqb_spec in E; subst x.
  now apply Ht in Hx.
Qed.

Lemma within_empty c : within (PositiveMap.empty _) c.
Proof. intros k w. unfold bucket. rewrite PositiveMap.gempty. intros []. Qed.

Lemma within_weaken t c c' : within t c -> incl c c' -> within t c'.
Proof. intros H I k w Hw. apply H in Hw. destruct Hw; auto. Qed.

Lemma within_put t c w : within t c -> within (put t w) (w :: c).
Proof.
  intros H k x. unfold put. rewrite bucket_add. destruct (Pos.eqb_spec k (key w)) as [->|Hk].
  - intros [<-|Hx]; [split; [auto|now left]|]. apply H in Hx. destruct Hx. split; [auto|now right].
  - intros Hx. apply H in Hx. destruct Hx. split; [auto|now right].
Qed.

Lemma within_drop t c w : within t c -> within (drop t w) (remove word_eq w c).
Proof.
  intros H k x. unfold drop. rewrite bucket_add. destruct (Pos.eqb_spec k (key w)) as [->|Hk]; intros Hx.
  - apply filter_In in Hx. destruct Hx as [Hx Hn]. apply H in Hx. destruct Hx as [E Hx]. split; [auto|].
    apply in_in_remove; [|auto]. intros ->. now rewrite (proj2 (word_eqb_spec w w) eq_refl) in Hn.
  - apply H in Hx. destruct Hx as [E Hx]. split; [auto|]. apply in_in_remove; [|auto]. intros ->. now rewrite E in Hk.
Qed.
