(** What else is proved about a trace that the checker of Checker.v accepts: it computes attention in the sense of
    Masks.v, so the bound of FullAttention.v on loads and stores together applies to its counts.

    This file stands apart because the checker itself, in Coq or extracted, needs none of it. The limits are those of
    FullAttention.v and Checker.v. *)
From Coq Require Import List Arith Lia.
From IOAware Require Import Machine Outputs Masks FullAttention Checker.
Import ListNotations.

Lemma last_in {X} (l : list X) x : l <> [] -> In (last l x) l.
Proof.
  intros H. destruct (exists_last H) as (all & y & ->). rewrite last_last. apply in_app_iff. right. now left.
Qed.

(** An accepted trace is a run that computes attention of the given rows: from empty memories it writes all outputs of
    the visible pairs to slow memory. *)
Theorem checked_trace_attention M d dv E tr l s : check M d dv E tr = Accepted l s ->
  attention_run M d dv (pairs E) (map fst tr).
Proof.
  intros H. apply check_sound in H. destruct H as (ss & R & _ & _ & HO & _). exists [], ss.
  split; [exact R|]. split; [intros i k J []|]. intros i j k Hp Hk. apply pairs_in in Hp. destruct Hp as (J & Hr & Hj).
  exists (snd (last ss ([], []))), J. split; [|split; [now apply HO|exact Hj]].
  apply in_map, last_in. intros ->. inversion R.
Qed.

(** The loads l and stores s that the checker reports satisfy 4 d dv |E| <= (l + s + M) max (M, 8 d dv), with the
    visible pairs E of the given rows.
    Used by: proofs/ioaware_proofs/certificate.py (bounds). *)
Theorem checked_trace_traffic M d dv E tr l s : 0 < M -> check M d dv E tr = Accepted l s ->
  4 * (d * dv) * length (pairs E) <= (l + s + M) * Nat.max M (8 * (d * dv)).
Proof.
  intros HM H. pose proof (check_nodup M d dv E tr l s H) as HN.
  pose proof (checked_trace_attention _ _ _ _ _ _ _ H) as HA. apply check_sound in H. destruct H as (_ & _ & <- & <- & _). now apply total_traffic_lower_bound.
Qed.
