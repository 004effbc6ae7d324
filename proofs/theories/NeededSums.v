(** The sums that a run needs for outputs written whole, and what it costs to begin them.

    Suppose that in the end slow memory holds certain words, the final outputs, each of them one sum. Going backwards
    through the run one sees, at each moment, which words of slow memory these need, and of which cells they need the
    sums in fast memory. The separate sums that are needed grow in number with each birth, and only a load joining two
    sums of a cell in fast memory makes them fewer. So births are no more than final outputs and such joins; and a join
    brings no new cell to fast memory. WholeOutputs.v makes a lower bound on loads of this.

    The run without the sums that are not needed is called pruned, as in Accumulators.v, where it is the stores that
    pay for the births. *)
From Coq Require Import List Arith Lia Bool.
From IOAware Require Import Machine Counting LowerBound Parallel Outputs Accumulators FullAttention.
Import ListNotations.

Notation held := (held output_of).
Notation birth := (birth output_of).
Notation sum_of := (sum_of output_of).

(** * Loads that bring a new sum, and loads that join two *)

Definition joins (c : fast) (o : op) :=
  match o with Load w => match output_of w with Some x => if held x c then 1 else 0 | None => 0 end | _ => 0 end.
Definition brings (c : fast) (o : op) := match o with Load _ => 1 - joins c o | _ => birth c o end.

Lemma brings_le c o : brings c o <= 1.
Proof. destruct o; try apply birth_le. apply Nat.le_sub_l. Qed.

Lemma brings_joins M d c os cs : run M d c os cs -> spent brings cs os + spent joins cs os = loads os + spent birth cs
  os.
Proof.
  intros Hr. rewrite <- (spent_loads _ _ _ _ _ Hr), <- !spent_add. clear. revert cs.
  induction os as [|o os IH]; intros [|c cs]; simpl; auto. rewrite IH. f_equal.
  destruct o as [w| | | | |]; try (unfold brings, joins, load_cost; lia). unfold Accumulators.birth. simpl.
  destruct (output_of w) as [x|]; [destruct (held x c)|]; reflexivity.
Qed.

Fixpoint brought (cs : list fast) (os : list op) : list word :=
  match cs, os with
  | c :: cs, o :: os => (if brings c o =? 1 then made o else []) ++ brought cs os
  | _, _ => []
  end.

Lemma brought_length cs os : length (brought cs os) <= spent brings cs os.
Proof.
  revert cs; induction os as [|o os IH]; intros [|c cs]; auto. cbn [brought spent]. rewrite app_length.
  specialize (IH cs).
  destruct (Nat.eqb_spec (brings c o) 1) as [->|]; [|simpl; lia]. destruct o; simpl; lia.
Qed.

Lemma brought_inputs os : forall cs w, length cs = S (length os) -> In w (loaded os) -> output_of w = None ->
  In w (brought cs os).
Proof.
  induction os as [|o os IH]; intros [|c cs] w HL Hw Hn; try contradiction; try discriminate. injection HL as HL.
  cbn [brought]. apply in_app_iff. destruct o as [u| | | | |]; simpl in Hw; try (right; now apply IH).
  destruct Hw as [->|Hw]; [left|right; now apply IH]. simpl. rewrite Hn. now left.
Qed.

Lemma from_inputs W W' w : (forall u, In u W' -> output_of u = None -> In u W) -> from W' w -> from W w.
Proof.
  intros H. destruct w as [p i a|p j a|p i j A|i k J|n]; simpl; auto.
  intros [[B HB]|HA]; [left; exists B; auto|right]. intros a Ha. destruct (HA a Ha). split; auto.
Qed.

Lemma held_brought W os M d : forall c cs, run M d c os cs -> covers output_of W c -> incl (brought cs os) W ->
  forall c', In c' cs -> covers output_of W c'.
Proof.
  induction os as [|o os IH]; intros c cs Hr H0 HW c' Hin; inversion Hr as [|? ? c1 ? cs' Hst Hrun]; subst.
  - destruct Hin as [<-|[]]; auto.
  - destruct Hin as [<-|Hin]; [auto|]. cbn [brought] in HW. apply incl_app_inv in HW. destruct HW as [HW1 HW2].
    apply (IH c1 cs'); auto. intros x Hx. destruct (held x c) eqn:Eh; [auto|]. apply held_spec in Hx.
    destruct Hx as (w & Hw & Hx). destruct Hst as (_ & _ & Hi). apply Hi, in_app_iff in Hw.
    destruct Hw as [Hw|Hw]; [|apply H0, held_spec; eauto]. exists w. split; [|auto]. apply HW1.
    assert (brings c o = 1) as ->; [|exact Hw].
    unfold brings, joins, Accumulators.birth.
    destruct o; simpl in Hw; try contradiction; destruct Hw as [<-|[]]; try discriminate Hx.
    + now rewrite Hx, Eh.
    + injection Hx as <-. simpl. now rewrite Eh.
    + injection Hx as <-. simpl. now rewrite Eh.
Qed.

Lemma brings_segments M d : segments_supplied M d brings.
Proof.
  split; [apply brings_le|]. intros os c cs Hr Hc HL. set (W := c ++ brought cs os). exists W. split.
  - unfold W. rewrite app_length. pose proof (brought_length cs os). lia.
  - intros c' Hc'. split.
    + intros w Hw. apply (from_inputs W (c ++ loaded os)).
      * intros u Hu Hn. apply in_app_iff in Hu. apply in_app_iff. destruct Hu as [Hu|Hu]; [auto|right].
        apply brought_inputs; auto. exact (run_length M d c os cs Hr).
      * apply (from_run M d _ os c cs Hr) with c'; auto; [intros; apply from_self, in_app_iff; auto|].
        apply incl_appr, incl_refl.
    + intros i k Hh. apply (held_brought W os M d c cs Hr) in Hh; auto.
      * destruct Hh as (w & Hin & Hx). destruct w; try discriminate. injection Hx as -> ->. eauto.
      * intros y Hy. apply held_spec in Hy. destruct Hy as (w & Hin & Hy). exists w. split; [apply in_app_iff|]; auto.
      * apply incl_appr, incl_refl.
Qed.

(** * What the final outputs need *)
Section Needs.
Variables (M d : nat) (finals : list word).
Notation run := (run M d).
Notation legal_run := (legal_run M d).

Definition member w (need : list word) := if in_dec word_eq w need then true else false.

(** From each moment on: the words of slow memory that the final outputs need, and the cells whose sums in fast memory
    they need. *)
Fixpoint needs (cs : list fast) (os : list op) : list word * (nat * nat -> bool) :=
  match cs, os with
  | c :: cs, o :: os =>
      let later := needs cs os in
      match o with
      | Store w => (remove word_eq w (fst later),
                    fun x => held x c && (snd later x || (sum_of x w && member w (fst later))))
      | Load w => (match output_of w with
                   | Some x => if snd later x then w :: fst later else fst later
                   | None => fst later end,
                   fun x => held x c && snd later x)
      | _ => (fst later, fun x => held x c && snd later x)
      end
  | _, _ => (finals, fun _ => false)
  end.
Definition need cs os := fst (needs cs os).
Definition live x cs os := snd (needs cs os) x.

Lemma member_spec w l : member w l = true <-> In w l.
Proof. unfold member. destruct in_dec; split; auto; discriminate. Qed.

Lemma live_held x c cs os : live x (c :: cs) os = true -> held x c = true.
Proof.
  unfold live. destruct os as [|o os]; simpl; [discriminate|]. destruct o; simpl; now intros [H _]%andb_true_iff.
Qed.

Lemma live_before x c cs o os : held x c = true -> live x cs os = true -> live x (c :: cs) (o :: os) = true.
Proof. unfold live. intros H1 H2. destruct o; simpl; rewrite H1, H2; reflexivity. Qed.

Lemma live_stored x c cs w os : held x c = true -> output_of w = Some x -> In w (need cs os) ->
  live x (c :: cs) (Store w :: os) = true.
Proof.
  unfold live, need. intros H1 H2 H3. simpl. rewrite H1. simpl. apply orb_true_iff. right.
  apply andb_true_iff. split; [now apply sum_of_spec|now apply member_spec].
Qed.

Lemma live_after x c cs o os : live x (c :: cs) (o :: os) = true ->
  live x cs os = true \/ exists w, o = Store w /\ output_of w = Some x /\ In w (need cs os).
Proof.
  unfold live, need. destruct o as [w|w| | | |]; simpl; intros [_ H]%andb_true_iff; auto.
  apply orb_true_iff in H. destruct H as [H|[H1 H2]%andb_true_iff]; [auto|right]. exists w.
  split; [auto|]. split; [now apply sum_of_spec|now apply member_spec].
Qed.

Definition kept cs os w := match output_of w with Some x => live x cs os | None => true end.
Definition pruned cs os := match cs with [] => [] | c :: _ => filter (kept cs os) c end.
Definition pruned_op cs os (o : op) := match o with
  | Zero i k | Accumulate i k _ => if live (i, k) cs os then o else Misc 0
  | Store _ => Misc 0
  | _ => o end.
Fixpoint pruned_ops (cs : list fast) (os : list op) :=
  match cs, os with _ :: cs, o :: os => pruned_op cs os o :: pruned_ops cs os | _, _ => [] end.
Definition pruned_states cs os := map (fun m => pruned (fst m) (snd m)) (moments cs os).

Lemma pruned_In w c cs os : In w (pruned (c :: cs) os) <-> In w c /\ kept (c :: cs) os w = true.
Proof. apply filter_In. Qed.

Lemma pruned_held x c cs os : live x (c :: cs) os = true -> held x (pruned (c :: cs) os) = true.
Proof.
  intros Hl. pose proof (live_held _ _ _ _ Hl) as Hh. apply held_spec in Hh. destruct Hh as (w & Hw & Hx).
  apply held_spec. exists w. split; [|auto]. apply pruned_In. split; [auto|]. unfold kept. now rewrite Hx.
Qed.

Lemma prune_step c o c1 cs os : step M d c o c1 ->
  step M d (pruned (c :: c1 :: cs) (o :: os)) (pruned_op (c1 :: cs) os o) (pruned (c1 :: cs) os).
Proof.
  intros (HL & He & Hi).
  assert (Hkeep : forall w, output_of w = None -> In w c -> In w (pruned (c :: c1 :: cs) (o :: os))).
  { intros w Hn Hw. apply pruned_In. split; [auto|]. unfold kept. now rewrite Hn. }
  assert (Hold : forall w, In w c -> kept (c1 :: cs) os w = true -> In w (pruned (c :: c1 :: cs) (o :: os))).
  { intros w Hw Hk. apply pruned_In. split; [auto|]. unfold kept in *. destruct (output_of w) as [x|] eqn:E; [|auto].
    apply live_before; auto. apply held_spec. eauto. }
  split; [|split].
  - apply Nat.le_trans with (2 := HL). simpl. clear. generalize (kept (c1 :: cs) os). intros f.
    induction c1 as [|x l IH]; simpl; [lia|]. destruct (f x); simpl; lia.
  - destruct o as [v|v|p i j A|i k|i k J|n]; cbn [pruned_op]; try exact I; try (destruct live eqn:El; exact I).
    + intros a Ha. destruct (He a Ha) as [(B & HB & HaB)|[H1 H2]]; [left; exists B|right]; auto.
    + destruct (live (i, k) (c1 :: cs) os) eqn:El; [|exact I].
      assert (Hout : forall J', In (Out i k J') c -> In (Out i k J') (pruned (c :: c1 :: cs) (Accumulate i k J :: os)))
        by (intros J' HJ; apply Hold; auto).
      destruct He as [[J' HJ'] He]. split; [eauto|]. intros j Hj.
      destruct (He j Hj) as [(J2 & H2 & Hj2)|[(A & HA & HF) HV]]; [left; eauto|right; split; [exists A|]; auto].
  - intros w [Hw Hk]%pruned_In. apply in_app_iff. specialize (Hi w Hw). apply in_app_iff in Hi.
    destruct Hi as [Hi|Hi]; [left|right; auto].
    destruct o as [v|v|p i j A|i k|i k J|n]; simpl in Hi; try contradiction; destruct Hi as [<-|[]]; cbn [pruned_op];
      try (now left); unfold kept in Hk; simpl in Hk; rewrite Hk; now left.
Qed.

(** * Births against joins *)

Definition live_cells cs os := match cs with
  | [] => []
  | c :: _ => nodup cell_eq (filter (fun x => live x cs os) (cells output_of c)) end.
Definition separate cs os := length (live_cells cs os) + length (nodup word_eq (need cs os)).

Lemma live_cells_spec x c cs os : In x (live_cells (c :: cs) os) <-> live x (c :: cs) os = true.
Proof.
  unfold live_cells. rewrite nodup_In, filter_In. split; [tauto|]. intros H. split; [|exact H].
  apply live_held, held_spec in H. destruct H as (w & Hw & Hx). apply in_flat_map. exists w. rewrite Hx. simpl; auto.
Qed.

Lemma live_cells_NoDup cs os : NoDup (live_cells cs os).
Proof. destruct cs; [constructor|apply NoDup_nodup]. Qed.

Lemma cells_stay c o c1 cs os : (forall w x, o = Store w -> output_of w = Some x -> ~ In w (need (c1 :: cs) os)) ->
  incl (live_cells (c :: c1 :: cs) (o :: os)) (live_cells (c1 :: cs) os).
Proof.
  intros H x Hx%live_cells_spec. apply live_cells_spec. destruct (live_after _ _ _ _ _ Hx) as [|(w & Ho & Hw & Hin)];
    auto.
  now apply (H w x) in Ho.
Qed.

(** A cell that is held only afterwards counts one more. *)
Lemma cell_added x c o c1 cs os : (forall w, o <> Store w) -> live x (c1 :: cs) os = true ->
  held x (pruned (c :: c1 :: cs) (o :: os)) = false ->
  S (length (live_cells (c :: c1 :: cs) (o :: os))) <= length (live_cells (c1 :: cs) os).
Proof.
  intros Ho Hl Hh. change (length (x :: live_cells (c :: c1 :: cs) (o :: os)) <= length (live_cells (c1 :: cs) os)).
  apply NoDup_incl_length.
  - constructor; [|apply live_cells_NoDup]. intros Hin%live_cells_spec. apply pruned_held in Hin. congruence.
  - intros y [<-|Hy]; [now apply live_cells_spec|]. revert y Hy. apply cells_stay. intros w y Ew. now apply Ho in Ew.
Qed.

Lemma need_removed w l : In w l -> S (length (nodup word_eq (remove word_eq w l))) <= length (nodup word_eq l).
Proof.
  intros Hw. change (length (w :: nodup word_eq (remove word_eq w l)) <= length (nodup word_eq l)).
  apply NoDup_incl_length.
  - constructor; [|apply NoDup_nodup]. rewrite nodup_In. apply remove_In.
  - intros u [<-|Hu]; apply nodup_In; auto. apply nodup_In, in_remove in Hu. tauto.
Qed.

Lemma separate_step c o c1 cs os :
  birth (pruned (c :: c1 :: cs) (o :: os)) (pruned_op (c1 :: cs) os o) + separate (c :: c1 :: cs) (o :: os)
  <= separate (c1 :: cs) os + joins (pruned (c :: c1 :: cs) (o :: os)) (pruned_op (c1 :: cs) os o).
Proof.
  assert (Hplain : (forall w, o <> Store w) ->
    length (live_cells (c :: c1 :: cs) (o :: os)) <= length (live_cells (c1 :: cs) os)).
  { intros Ho. apply NoDup_incl_length; [apply live_cells_NoDup|]. apply cells_stay. intros w x Ew.
    now apply Ho in Ew. }
  assert (Hborn : forall i k, begins output_of o = Some (i, k) -> live (i, k) (c1 :: cs) os = true -> (forall w, o <>
    Store w) ->
    birth (pruned (c :: c1 :: cs) (o :: os)) o + length (live_cells (c :: c1 :: cs) (o :: os))
      <= length (live_cells (c1 :: cs) os)).
  { intros i k E El Ho. unfold Accumulators.birth. rewrite E. destruct (held (i, k) _) eqn:Eh; [exact (Hplain Ho)|].
    exact (cell_added _ _ _ _ _ _ Ho El Eh). }
  unfold separate. destruct o as [w|w|p i j A|i k|i k J|n]; cbn [pruned_op].
  - specialize (Hplain (fun w' => ltac:(discriminate))).
    change (need (c :: c1 :: cs) (Load w :: os)) with (match output_of w with
      Some x => if live x (c1 :: cs) os then w :: need (c1 :: cs) os else need (c1 :: cs) os
      | None => need (c1 :: cs) os end).
    unfold Accumulators.birth, joins. cbn [begins]. destruct (output_of w) as [x|] eqn:E; [|lia].
    destruct (live x (c1 :: cs) os) eqn:El; [|destruct held; lia].
    assert (Hneed : length (nodup word_eq (w :: need (c1 :: cs) os)) <= S (length (nodup word_eq (need (c1 :: cs)
      os)))).
    { simpl. destruct in_dec; simpl; lia. }
    destruct (held x _) eqn:Eh; [lia|].
    pose proof (cell_added x c (Load w) c1 cs os (fun w' => ltac:(discriminate)) El Eh). lia.
  - change (need (c :: c1 :: cs) (Store w :: os)) with (remove word_eq w (need (c1 :: cs) os)).
    change (birth _ (Misc 0)) with 0. change (joins _ (Misc 0)) with 0.
    assert (Hless : length (nodup word_eq (remove word_eq w (need (c1 :: cs) os))) <= length (nodup word_eq (need (c1
      :: cs) os))).
    { apply NoDup_incl_length; [apply NoDup_nodup|]. intros u Hu%nodup_In. apply nodup_In. now apply in_remove in Hu. }
    destruct (in_dec word_eq w (need (c1 :: cs) os)) as [Hin|Hin].
    + pose proof (need_removed w _ Hin) as Hrem. destruct (output_of w) as [x|] eqn:E.
      * assert (length (live_cells (c :: c1 :: cs) (Store w :: os)) <= length (x :: live_cells (c1 :: cs) os));
          [|simpl in *; lia].
        apply NoDup_incl_length; [apply live_cells_NoDup|]. intros y Hy%live_cells_spec.
        destruct (live_after _ _ _ _ _ Hy) as [Hl|(w' & [= <-] & Hw' & _)]; [right; now apply live_cells_spec|left;
          congruence].
      * assert (length (live_cells (c :: c1 :: cs) (Store w :: os)) <= length (live_cells (c1 :: cs) os)); [|lia].
        apply NoDup_incl_length; [apply live_cells_NoDup|]. apply cells_stay. intros w' y [= <-] Hy. congruence.
    + assert (length (live_cells (c :: c1 :: cs) (Store w :: os)) <= length (live_cells (c1 :: cs) os)); [|lia].
      apply NoDup_incl_length; [apply live_cells_NoDup|]. apply cells_stay. now intros w' y [= <-] _.
  - specialize (Hplain (fun w' => ltac:(discriminate))). change (need (c :: c1 :: cs) (_ :: os)) with (need (c1 :: cs)
      os).
    change (birth _ (Dot p i j A)) with 0. lia.
  - specialize (Hplain (fun w' => ltac:(discriminate))). change (need (c :: c1 :: cs) (_ :: os)) with (need (c1 :: cs)
      os).
    destruct (live (i, k) (c1 :: cs) os) eqn:El; [|change (birth _ (Misc 0)) with 0; lia].
    specialize (Hborn i k eq_refl El (fun w' => ltac:(discriminate))). lia.
  - specialize (Hplain (fun w' => ltac:(discriminate))). change (need (c :: c1 :: cs) (_ :: os)) with (need (c1 :: cs)
      os).
    destruct (live (i, k) (c1 :: cs) os) eqn:El; [|change (birth _ (Misc 0)) with 0; lia].
    specialize (Hborn i k eq_refl El (fun w' => ltac:(discriminate))). lia.
  - specialize (Hplain (fun w' => ltac:(discriminate))). change (need (c :: c1 :: cs) (_ :: os)) with (need (c1 :: cs)
      os).
    change (birth _ (Misc n)) with 0. lia.
Qed.

Lemma prune_whole os : forall c cs, run c os cs ->
  run (pruned cs os) (pruned_ops cs os) (pruned_states cs os) /\ loads (pruned_ops cs os) = loads os /\
  spent birth (pruned_states cs os) (pruned_ops cs os) + separate cs os
  <= length finals + spent joins (pruned_states cs os) (pruned_ops cs os).
Proof.
  induction os as [|o os IH]; intros c cs Hr; inversion Hr as [|? ? c1 ? cs1 Hst Hrun]; subst.
  - split; [constructor|]. split; [auto|]. unfold separate, live_cells.
    assert (filter (fun x => live x [c] []) (cells output_of c) = []) as -> by (induction (cells output_of c); auto).
    simpl. rewrite Nat.add_0_r. apply NoDup_incl_length; [apply NoDup_nodup|]. intros w Hw%nodup_In. exact Hw.
  - destruct (IH c1 cs1 Hrun) as (Hr' & HL & HB). clear IH. destruct (run_head _ _ _ _ _ Hrun) as (tail & ->).
    change (pruned_ops (c :: c1 :: tail) (o :: os)) with (pruned_op (c1 :: tail) os o :: pruned_ops (c1 :: tail) os).
    change (pruned_states (c :: c1 :: tail) (o :: os))
      with (pruned (c :: c1 :: tail) (o :: os) :: pruned_states (c1 :: tail) os).
    split; [|split].
    + econstructor; [apply prune_step; eauto|exact Hr'].
    + rewrite (loads_app [_] (pruned_ops _ _) : loads (_ :: _) = _), HL, (loads_app [o] os : loads (o :: os) = _).
      f_equal. destruct o; auto; cbn [pruned_op]; destruct live; auto.
    + pose proof (separate_step c o c1 tail os) as HP. cbn [spent]. lia.
Qed.

(** * The products of the final outputs *)

Definition needed_product (e : nat * nat * nat) (m : list fast * list op) :=
  match fst m with [] => False | c :: _ => used d e c end /\ live (fst (fst e), snd e) (fst m) (snd m) = true.

Lemma final_products (G : nat * nat * nat -> Prop) s os ss : legal_run s os ss ->
  (forall m e, In m (moments (map fst ss) os) -> needed_product e m -> G e) ->
  (forall i k J j, In (Out i k J) (snd s) -> In (Out i k J) (need (map fst ss) os) -> In j J -> G (i, j, k)) ->
  (forall i k J j, In (Out i k J) (fst s) -> In j J -> live (i, k) (map fst ss) os = true -> G (i, j, k)) ->
  forall i k J j, In (Out i k J) finals -> In (Out i k J) (snd (last ss s)) -> In j J -> G (i, j, k).
Proof.
  induction 1 as [s|s o s1 os ss [(_ & He & Hi) Hslow] Hr IH]; intros HG Hsnd Hfst.
  - intros i k J j Hf Hin. now apply Hsnd.
  - assert (Hne : ss <> []) by (inversion Hr; discriminate).
    rewrite (last_cons s s s1 ss Hne). cbn [map] in *.
    assert (Hlive : forall i k J j, In (Out i k J) (fst s) -> In j J -> live (i, k) (map fst ss) os = true -> G (i, j,
      k)).
    { intros i k J j HJ Hj Hl. apply (Hfst i k J j); auto. apply live_before; auto. apply output_held. eauto. }
    apply IH; clear IH.
    + intros m e Hm. apply HG. now right.
    + intros i k J j HJ Hn Hj.
      destruct o as [w|w|p a b A|a b|a b J'|n]; [destruct Hslow as [Hw Hslow]| | | | |]; rewrite Hslow in HJ; eauto.
      * apply (Hsnd i k J j); auto. unfold need. simpl. destruct (output_of w) as [x|]; auto.
        destruct (snd (needs (map fst ss) os) x); [right|]; auto.
      * destruct (word_eq w (Out i k J)) as [->|Hd].
        -- apply (Hfst i k J j); auto. apply live_stored; auto. apply output_held. eauto.
        -- destruct HJ as [HJ|HJ]; [congruence|]. apply (Hsnd i k J j); auto. apply in_in_remove; auto.
    + intros i k J j HJ Hj Hl. apply Hi, in_app_iff in HJ. destruct HJ as [HJ|HJ]; [|eauto].
      destruct o as [w|w|p a b A|a b|a b J'|n]; simpl in HJ; try contradiction; destruct HJ as [HJ|[]];
        try discriminate HJ.
      * subst w. destruct Hslow as [[[]|Hin] _]. apply (Hsnd i k J j); auto. unfold need. simpl.
        unfold live in Hl. rewrite Hl. now left.
      * injection HJ as -> -> <-. contradiction.
      * injection HJ as -> -> ->. destruct He as [[J2 HJ2] He].
        destruct (He j Hj) as [(J3 & HJ3 & Hj3)|Hu]; [eauto|].
        apply (HG (fst s :: map fst ss, Accumulate i k J :: os)); [now left|]. split; [exact Hu|].
        apply live_before; auto. apply output_held. eauto.
Qed.

Lemma needed_pruned e c cs os : needed_product e (c :: cs, os) -> added d e (pruned (c :: cs) os).
Proof.
  destruct e as [[i j] k]. intros [[(A & HA & HF) HV] Hl]. cbn [fst snd] in *.
  assert (Hkeep : forall w, In w c -> output_of w = None -> In w (pruned (c :: cs) os)).
  { intros w Hw Hn. apply pruned_In. split; [auto|]. unfold kept. now rewrite Hn. }
  split; [split; [exists A; auto|auto]|]. now apply pruned_held.
Qed.
End Needs.
