(** Every algorithm of the simulator as a loop nest, and the closed forms of its traffic and arithmetic as its theorem.

    Printed by `python -m ioaware_proofs.bridge` from simulator/ioaware/algorithms: do not edit. A definition is the
    recorded loop nest; the theorem below it is what the simulator's own algebra says that the nest costs, all launches
    of kernels together. A program whose text depends on padding, dropout or a mask stands here once for each text.
    Programs that walk splits of the keys (flash_decoding, mla) and linear attention are not here: their counts are
    tested, not proved.

    No theorem stands below flash2_serpentine_masked and flash2_serpentine_padding: kept_rows has no expression in Coq.

    Not claimed: that the values are right, or that a kernel moves these words; those are the simulator's `execute` and
    `ioaware verify`. The closed forms of thread blocks and of reads from shared memory are not here. *)
From IOAware Require Import ClosedForms.

Definition naive
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "S = QK^T" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "Q" (rows_i * head_dim);
          Load "K" (cols_j * head_dim);
          Flops (2 * rows_i * cols_j * head_dim);
          Store "S" (rows_i * cols_j)
        ])))));
    (* kernel "P = softmax S" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      let cols_i_sees := sum_seen (cdiv kv_len tile_kv) (fun j => sees i j) (tile kv_len tile_kv) in
      For (cdiv rows_i 1) (fun i' =>
        let rows_i' := tile rows_i 1 i' in
        Seq [
          Load "S" (rows_i' * cols_i_sees);
          Exps (rows_i' * cols_i_sees);
          Store "P" (rows_i' * cols_i_sees)
        ])))));
    (* kernel "O = PV" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "P" (rows_i * cols_j);
            Load "V" (cols_j * value_dim);
            Flops (2 * rows_i * cols_j * value_dim)
          ]);
        Store "O" (rows_i * value_dim)
      ]))))
  ].

(** standard attention, three kernels (forward): all that it moves and computes, whatever a word of each tensor and an
    operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem naive_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cols := seen_cols sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (naive batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "Q") * (batch * kv_heads * group * head_dim * rows)
  + w (Read "K") * (batch * kv_heads * group * head_dim * cols)
  + w (Read "S") * (batch * kv_heads * group * cells)
  + w (Write "S") * (batch * kv_heads * group * cells)
  + w (Read "P") * (batch * kv_heads * group * cells)
  + w (Write "P") * (batch * kv_heads * group * cells)
  + w (Read "V") * (batch * kv_heads * group * value_dim * cols)
  + w (Write "O") * (batch * kv_heads * group * q_len * value_dim)
  + w Flop * (2 * batch * kv_heads * group * cells * (head_dim + value_dim))
  + w Exp * (batch * kv_heads * group * cells).
Proof. unfold naive. closed_form. Qed.

Definition naive_padding
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "S = QK^T" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "Q" (rows_i * head_dim);
          Load "K" (cols_j * head_dim);
          Flops (2 * rows_i * cols_j * head_dim);
          Load "padding" cols_j;
          Store "S" (rows_i * cols_j)
        ])))));
    (* kernel "P = softmax S" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      let cols_i_sees := sum_seen (cdiv kv_len tile_kv) (fun j => sees i j) (tile kv_len tile_kv) in
      For (cdiv rows_i 1) (fun i' =>
        let rows_i' := tile rows_i 1 i' in
        Seq [
          Load "S" (rows_i' * cols_i_sees);
          Exps (rows_i' * cols_i_sees);
          Store "P" (rows_i' * cols_i_sees)
        ])))));
    (* kernel "O = PV" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "P" (rows_i * cols_j);
            Load "V" (cols_j * value_dim);
            Flops (2 * rows_i * cols_j * value_dim)
          ]);
        Store "O" (rows_i * value_dim)
      ]))))
  ].

(** standard attention, three kernels (forward, padding): all that it moves and computes, whatever a word of each tensor
    and an operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem naive_padding_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cols := seen_cols sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (naive_padding batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "Q") * (batch * kv_heads * group * head_dim * rows)
  + w (Read "K") * (batch * kv_heads * group * head_dim * cols)
  + w (Read "padding") * (batch * kv_heads * group * cols)
  + w (Read "S") * (batch * kv_heads * group * cells)
  + w (Write "S") * (batch * kv_heads * group * cells)
  + w (Read "P") * (batch * kv_heads * group * cells)
  + w (Write "P") * (batch * kv_heads * group * cells)
  + w (Read "V") * (batch * kv_heads * group * value_dim * cols)
  + w (Write "O") * (batch * kv_heads * group * q_len * value_dim)
  + w Flop * (2 * batch * kv_heads * group * cells * (head_dim + value_dim))
  + w Exp * (batch * kv_heads * group * cells).
Proof. unfold naive_padding. closed_form. Qed.

Definition naive_backward
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "dV = P^T dO" *)
    For batch (fun b => For kv_heads (fun h => For (cdiv kv_len tile_kv) (fun j =>
      let cols_j := tile kv_len tile_kv j in
      Seq [
        For group (fun g => ForSeen (cdiv q_len tile_q) (fun i => sees i j) (fun i =>
          let rows_i := tile q_len tile_q i in
          Seq [
            Load "P" (rows_i * cols_j);
            Load "dO" (rows_i * value_dim);
            Flops (2 * rows_i * cols_j * value_dim)
          ]));
        Store "dV" (cols_j * value_dim)
      ])));
    (* kernel "dP = dO V^T" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "dO" (rows_i * value_dim);
          Load "V" (cols_j * value_dim);
          Flops (2 * rows_i * cols_j * value_dim);
          Store "dP" (rows_i * cols_j)
        ])))));
    (* kernel "dS = dsoftmax(P, dP)" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      let cols_i_sees := sum_seen (cdiv kv_len tile_kv) (fun j => sees i j) (tile kv_len tile_kv) in
      For (cdiv rows_i 1) (fun i' =>
        let rows_i' := tile rows_i 1 i' in
        Seq [
          Load "P" (rows_i' * cols_i_sees);
          Load "dP" (rows_i' * cols_i_sees);
          Store "dS" (rows_i' * cols_i_sees)
        ])))));
    (* kernel "dQ = dS K" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "dS" (rows_i * cols_j);
            Load "K" (cols_j * head_dim);
            Flops (2 * rows_i * cols_j * head_dim)
          ]);
        Store "dQ" (rows_i * head_dim)
      ]))));
    (* kernel "dK = dS^T Q" *)
    For batch (fun b => For kv_heads (fun h => For (cdiv kv_len tile_kv) (fun j =>
      let cols_j := tile kv_len tile_kv j in
      Seq [
        For group (fun g => ForSeen (cdiv q_len tile_q) (fun i => sees i j) (fun i =>
          let rows_i := tile q_len tile_q i in
          Seq [
            Load "dS" (rows_i * cols_j);
            Load "Q" (rows_i * head_dim);
            Flops (2 * rows_i * cols_j * head_dim)
          ]));
        Store "dK" (cols_j * head_dim)
      ])))
  ].

(** standard attention, three kernels (backward): all that it moves and computes, whatever a word of each tensor and an
    operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem naive_backward_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cols := seen_cols sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (naive_backward batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "P") * (2 * batch * kv_heads * group * cells)
  + w (Read "dO") * (2 * batch * kv_heads * group * value_dim * rows)
  + w (Write "dV") * (batch * kv_heads * kv_len * value_dim)
  + w (Read "V") * (batch * kv_heads * group * value_dim * cols)
  + w (Read "dP") * (batch * kv_heads * group * cells)
  + w (Write "dP") * (batch * kv_heads * group * cells)
  + w (Read "dS") * (2 * batch * kv_heads * group * cells)
  + w (Write "dS") * (batch * kv_heads * group * cells)
  + w (Read "K") * (batch * kv_heads * group * head_dim * cols)
  + w (Write "dQ") * (batch * kv_heads * group * q_len * head_dim)
  + w (Read "Q") * (batch * kv_heads * group * head_dim * rows)
  + w (Write "dK") * (batch * kv_heads * kv_len * head_dim)
  + w Flop * (4 * batch * kv_heads * group * cells * (head_dim + value_dim)).
Proof. unfold naive_backward. closed_form. Qed.

Definition eager
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "S = QK^T" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "Q" (rows_i * head_dim);
          Load "K" (cols_j * head_dim);
          Flops (2 * rows_i * cols_j * head_dim);
          Store "S" (rows_i * cols_j)
        ])))));
    (* kernel "P = softmax S" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len 1) (fun i =>
      let rows_i := tile q_len 1 i in
      Seq [
        Load "S" (rows_i * kv_len);
        Exps (rows_i * kv_len);
        Store "P" (rows_i * kv_len)
      ]))));
    (* kernel "O = PV" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        For (cdiv kv_len tile_kv) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "P" (rows_i * cols_j);
            Load "V" (cols_j * value_dim);
            Flops (2 * rows_i * cols_j * value_dim)
          ]);
        Store "O" (rows_i * value_dim)
      ]))))
  ].

(** eager PyTorch, one kernel per operator (forward): all that it moves and computes, whatever a word of each tensor and
    an operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem eager_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  count w (eager batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "Q") * (batch * kv_heads * group * q_len * head_dim * cdiv kv_len tile_kv)
  + w (Read "K") * (batch * kv_heads * group * kv_len * head_dim * cdiv q_len tile_q)
  + w (Read "S") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "S") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "P") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "P") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "V") * (batch * kv_heads * group * kv_len * value_dim * cdiv q_len tile_q)
  + w (Write "O") * (batch * kv_heads * group * q_len * value_dim)
  + w Flop * (2 * batch * kv_heads * group * q_len * kv_len * (head_dim + value_dim))
  + w Exp * (batch * kv_heads * group * q_len * kv_len).
Proof. unfold eager. closed_form. Qed.

Definition eager_masked
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "S = QK^T" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "Q" (rows_i * head_dim);
          Load "K" (cols_j * head_dim);
          Flops (2 * rows_i * cols_j * head_dim);
          Store "S" (rows_i * cols_j)
        ])))));
    (* kernel "mask" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "S" (rows_i * cols_j);
          Store "S_masked" (rows_i * cols_j)
        ])))));
    (* kernel "P = softmax S" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len 1) (fun i =>
      let rows_i := tile q_len 1 i in
      Seq [
        Load "S_masked" (rows_i * kv_len);
        Exps (rows_i * kv_len);
        Store "P" (rows_i * kv_len)
      ]))));
    (* kernel "O = PV" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        For (cdiv kv_len tile_kv) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "P" (rows_i * cols_j);
            Load "V" (cols_j * value_dim);
            Flops (2 * rows_i * cols_j * value_dim)
          ]);
        Store "O" (rows_i * value_dim)
      ]))))
  ].

(** eager PyTorch, one kernel per operator (forward, masked): all that it moves and computes, whatever a word of each
    tensor and an operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem eager_masked_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  count w (eager_masked batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "Q") * (batch * kv_heads * group * q_len * head_dim * cdiv kv_len tile_kv)
  + w (Read "K") * (batch * kv_heads * group * kv_len * head_dim * cdiv q_len tile_q)
  + w (Read "S") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "S") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "S_masked") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "S_masked") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "P") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "P") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "V") * (batch * kv_heads * group * kv_len * value_dim * cdiv q_len tile_q)
  + w (Write "O") * (batch * kv_heads * group * q_len * value_dim)
  + w Flop * (2 * batch * kv_heads * group * q_len * kv_len * (head_dim + value_dim))
  + w Exp * (batch * kv_heads * group * q_len * kv_len).
Proof. unfold eager_masked. closed_form. Qed.

Definition eager_padding
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "S = QK^T" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "Q" (rows_i * head_dim);
          Load "K" (cols_j * head_dim);
          Flops (2 * rows_i * cols_j * head_dim);
          Store "S" (rows_i * cols_j)
        ])))));
    (* kernel "mask" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "S" (rows_i * cols_j);
          Load "padding" cols_j;
          Store "S_masked" (rows_i * cols_j)
        ])))));
    (* kernel "P = softmax S" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len 1) (fun i =>
      let rows_i := tile q_len 1 i in
      Seq [
        Load "S_masked" (rows_i * kv_len);
        Exps (rows_i * kv_len);
        Store "P" (rows_i * kv_len)
      ]))));
    (* kernel "O = PV" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        For (cdiv kv_len tile_kv) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "P" (rows_i * cols_j);
            Load "V" (cols_j * value_dim);
            Flops (2 * rows_i * cols_j * value_dim)
          ]);
        Store "O" (rows_i * value_dim)
      ]))))
  ].

(** eager PyTorch, one kernel per operator (forward, padding): all that it moves and computes, whatever a word of each
    tensor and an operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem eager_padding_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  count w (eager_padding batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "Q") * (batch * kv_heads * group * q_len * head_dim * cdiv kv_len tile_kv)
  + w (Read "K") * (batch * kv_heads * group * kv_len * head_dim * cdiv q_len tile_q)
  + w (Read "S") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "S") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "padding") * (batch * kv_heads * group * kv_len * cdiv q_len tile_q)
  + w (Read "S_masked") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "S_masked") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "P") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "P") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "V") * (batch * kv_heads * group * kv_len * value_dim * cdiv q_len tile_q)
  + w (Write "O") * (batch * kv_heads * group * q_len * value_dim)
  + w Flop * (2 * batch * kv_heads * group * q_len * kv_len * (head_dim + value_dim))
  + w Exp * (batch * kv_heads * group * q_len * kv_len).
Proof. unfold eager_padding. closed_form. Qed.

Definition eager_dropout
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "S = QK^T" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "Q" (rows_i * head_dim);
          Load "K" (cols_j * head_dim);
          Flops (2 * rows_i * cols_j * head_dim);
          Store "S" (rows_i * cols_j)
        ])))));
    (* kernel "P = softmax S" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len 1) (fun i =>
      let rows_i := tile q_len 1 i in
      Seq [
        Load "S" (rows_i * kv_len);
        Exps (rows_i * kv_len);
        Store "P" (rows_i * kv_len)
      ]))));
    (* kernel "dropout" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Store "keep" (rows_i * cols_j);
          Load "P" (rows_i * cols_j);
          Store "P_dropped" (rows_i * cols_j)
        ])))));
    (* kernel "O = PV" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        For (cdiv kv_len tile_kv) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "P_dropped" (rows_i * cols_j);
            Load "V" (cols_j * value_dim);
            Flops (2 * rows_i * cols_j * value_dim)
          ]);
        Store "O" (rows_i * value_dim)
      ]))))
  ].

(** eager PyTorch, one kernel per operator (forward, dropout): all that it moves and computes, whatever a word of each
    tensor and an operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem eager_dropout_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  count w (eager_dropout batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "Q") * (batch * kv_heads * group * q_len * head_dim * cdiv kv_len tile_kv)
  + w (Read "K") * (batch * kv_heads * group * kv_len * head_dim * cdiv q_len tile_q)
  + w (Read "S") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "S") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "P") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "P") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "keep") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "P_dropped") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "P_dropped") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "V") * (batch * kv_heads * group * kv_len * value_dim * cdiv q_len tile_q)
  + w (Write "O") * (batch * kv_heads * group * q_len * value_dim)
  + w Flop * (2 * batch * kv_heads * group * q_len * kv_len * (head_dim + value_dim))
  + w Exp * (batch * kv_heads * group * q_len * kv_len).
Proof. unfold eager_dropout. closed_form. Qed.

Definition eager_masked_dropout
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "S = QK^T" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "Q" (rows_i * head_dim);
          Load "K" (cols_j * head_dim);
          Flops (2 * rows_i * cols_j * head_dim);
          Store "S" (rows_i * cols_j)
        ])))));
    (* kernel "mask" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "S" (rows_i * cols_j);
          Store "S_masked" (rows_i * cols_j)
        ])))));
    (* kernel "P = softmax S" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len 1) (fun i =>
      let rows_i := tile q_len 1 i in
      Seq [
        Load "S_masked" (rows_i * kv_len);
        Exps (rows_i * kv_len);
        Store "P" (rows_i * kv_len)
      ]))));
    (* kernel "dropout" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Store "keep" (rows_i * cols_j);
          Load "P" (rows_i * cols_j);
          Store "P_dropped" (rows_i * cols_j)
        ])))));
    (* kernel "O = PV" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        For (cdiv kv_len tile_kv) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "P_dropped" (rows_i * cols_j);
            Load "V" (cols_j * value_dim);
            Flops (2 * rows_i * cols_j * value_dim)
          ]);
        Store "O" (rows_i * value_dim)
      ]))))
  ].

(** eager PyTorch, one kernel per operator (forward, masked, dropout): all that it moves and computes, whatever a word
    of each tensor and an operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem eager_masked_dropout_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  count w (eager_masked_dropout batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "Q") * (batch * kv_heads * group * q_len * head_dim * cdiv kv_len tile_kv)
  + w (Read "K") * (batch * kv_heads * group * kv_len * head_dim * cdiv q_len tile_q)
  + w (Read "S") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "S") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "S_masked") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "S_masked") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "P") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "P") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "keep") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "P_dropped") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "P_dropped") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "V") * (batch * kv_heads * group * kv_len * value_dim * cdiv q_len tile_q)
  + w (Write "O") * (batch * kv_heads * group * q_len * value_dim)
  + w Flop * (2 * batch * kv_heads * group * q_len * kv_len * (head_dim + value_dim))
  + w Exp * (batch * kv_heads * group * q_len * kv_len).
Proof. unfold eager_masked_dropout. closed_form. Qed.

Definition eager_padding_dropout
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "S = QK^T" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "Q" (rows_i * head_dim);
          Load "K" (cols_j * head_dim);
          Flops (2 * rows_i * cols_j * head_dim);
          Store "S" (rows_i * cols_j)
        ])))));
    (* kernel "mask" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "S" (rows_i * cols_j);
          Load "padding" cols_j;
          Store "S_masked" (rows_i * cols_j)
        ])))));
    (* kernel "P = softmax S" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len 1) (fun i =>
      let rows_i := tile q_len 1 i in
      Seq [
        Load "S_masked" (rows_i * kv_len);
        Exps (rows_i * kv_len);
        Store "P" (rows_i * kv_len)
      ]))));
    (* kernel "dropout" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Store "keep" (rows_i * cols_j);
          Load "P" (rows_i * cols_j);
          Store "P_dropped" (rows_i * cols_j)
        ])))));
    (* kernel "O = PV" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        For (cdiv kv_len tile_kv) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "P_dropped" (rows_i * cols_j);
            Load "V" (cols_j * value_dim);
            Flops (2 * rows_i * cols_j * value_dim)
          ]);
        Store "O" (rows_i * value_dim)
      ]))))
  ].

(** eager PyTorch, one kernel per operator (forward, padding, dropout): all that it moves and computes, whatever a word
    of each tensor and an operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem eager_padding_dropout_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  count w (eager_padding_dropout batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "Q") * (batch * kv_heads * group * q_len * head_dim * cdiv kv_len tile_kv)
  + w (Read "K") * (batch * kv_heads * group * kv_len * head_dim * cdiv q_len tile_q)
  + w (Read "S") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "S") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "padding") * (batch * kv_heads * group * kv_len * cdiv q_len tile_q)
  + w (Read "S_masked") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "S_masked") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "P") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "P") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "keep") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "P_dropped") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "P_dropped") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "V") * (batch * kv_heads * group * kv_len * value_dim * cdiv q_len tile_q)
  + w (Write "O") * (batch * kv_heads * group * q_len * value_dim)
  + w Flop * (2 * batch * kv_heads * group * q_len * kv_len * (head_dim + value_dim))
  + w Exp * (batch * kv_heads * group * q_len * kv_len).
Proof. unfold eager_padding_dropout. closed_form. Qed.

Definition eager_backward
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "dV = P^T dO" *)
    For batch (fun b => For kv_heads (fun h => For (cdiv kv_len tile_kv) (fun j =>
      let cols_j := tile kv_len tile_kv j in
      Seq [
        For group (fun g => For (cdiv q_len tile_q) (fun i =>
          let rows_i := tile q_len tile_q i in
          Seq [
            Load "P" (rows_i * cols_j);
            Load "dO" (rows_i * value_dim);
            Flops (2 * rows_i * cols_j * value_dim)
          ]));
        Store "dV" (cols_j * value_dim)
      ])));
    (* kernel "dP = dO V^T" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "dO" (rows_i * value_dim);
          Load "V" (cols_j * value_dim);
          Flops (2 * rows_i * cols_j * value_dim);
          Store "dP" (rows_i * cols_j)
        ])))));
    (* kernel "dS = dsoftmax(P, dP)" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len 1) (fun i =>
      let rows_i := tile q_len 1 i in
      Seq [
        Load "P" (rows_i * kv_len);
        Load "dP" (rows_i * kv_len);
        Store "dS" (rows_i * kv_len)
      ]))));
    (* kernel "dQ = dS K" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        For (cdiv kv_len tile_kv) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "dS" (rows_i * cols_j);
            Load "K" (cols_j * head_dim);
            Flops (2 * rows_i * cols_j * head_dim)
          ]);
        Store "dQ" (rows_i * head_dim)
      ]))));
    (* kernel "dK = dS^T Q" *)
    For batch (fun b => For kv_heads (fun h => For (cdiv kv_len tile_kv) (fun j =>
      let cols_j := tile kv_len tile_kv j in
      Seq [
        For group (fun g => For (cdiv q_len tile_q) (fun i =>
          let rows_i := tile q_len tile_q i in
          Seq [
            Load "dS" (rows_i * cols_j);
            Load "Q" (rows_i * head_dim);
            Flops (2 * rows_i * cols_j * head_dim)
          ]));
        Store "dK" (cols_j * head_dim)
      ])))
  ].

(** eager PyTorch, one kernel per operator (backward): all that it moves and computes, whatever a word of each tensor
    and an operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem eager_backward_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  count w (eager_backward batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "P") * (2 * batch * kv_heads * group * q_len * kv_len)
  + w (Read "dO") * (2 * batch * kv_heads * group * q_len * value_dim * cdiv kv_len tile_kv)
  + w (Write "dV") * (batch * kv_heads * kv_len * value_dim)
  + w (Read "V") * (batch * kv_heads * group * kv_len * value_dim * cdiv q_len tile_q)
  + w (Read "dP") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "dP") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "dS") * (2 * batch * kv_heads * group * q_len * kv_len)
  + w (Write "dS") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "K") * (batch * kv_heads * group * kv_len * head_dim * cdiv q_len tile_q)
  + w (Write "dQ") * (batch * kv_heads * group * q_len * head_dim)
  + w (Read "Q") * (batch * kv_heads * group * q_len * head_dim * cdiv kv_len tile_kv)
  + w (Write "dK") * (batch * kv_heads * kv_len * head_dim)
  + w Flop * (4 * batch * kv_heads * group * q_len * kv_len * (head_dim + value_dim)).
Proof. unfold eager_backward. closed_form. Qed.

Definition eager_backward_dropout
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "dV = P^T dO" *)
    For batch (fun b => For kv_heads (fun h => For (cdiv kv_len tile_kv) (fun j =>
      let cols_j := tile kv_len tile_kv j in
      Seq [
        For group (fun g => For (cdiv q_len tile_q) (fun i =>
          let rows_i := tile q_len tile_q i in
          Seq [
            Load "P_dropped" (rows_i * cols_j);
            Load "dO" (rows_i * value_dim);
            Flops (2 * rows_i * cols_j * value_dim)
          ]));
        Store "dV" (cols_j * value_dim)
      ])));
    (* kernel "dP = dO V^T" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "dO" (rows_i * value_dim);
          Load "V" (cols_j * value_dim);
          Flops (2 * rows_i * cols_j * value_dim);
          Store "dP_dropped" (rows_i * cols_j)
        ])))));
    (* kernel "dropout" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "dP_dropped" (rows_i * cols_j);
          Load "keep" (rows_i * cols_j);
          Store "dP" (rows_i * cols_j)
        ])))));
    (* kernel "dS = dsoftmax(P, dP)" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len 1) (fun i =>
      let rows_i := tile q_len 1 i in
      Seq [
        Load "P" (rows_i * kv_len);
        Load "dP" (rows_i * kv_len);
        Store "dS" (rows_i * kv_len)
      ]))));
    (* kernel "dQ = dS K" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        For (cdiv kv_len tile_kv) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "dS" (rows_i * cols_j);
            Load "K" (cols_j * head_dim);
            Flops (2 * rows_i * cols_j * head_dim)
          ]);
        Store "dQ" (rows_i * head_dim)
      ]))));
    (* kernel "dK = dS^T Q" *)
    For batch (fun b => For kv_heads (fun h => For (cdiv kv_len tile_kv) (fun j =>
      let cols_j := tile kv_len tile_kv j in
      Seq [
        For group (fun g => For (cdiv q_len tile_q) (fun i =>
          let rows_i := tile q_len tile_q i in
          Seq [
            Load "dS" (rows_i * cols_j);
            Load "Q" (rows_i * head_dim);
            Flops (2 * rows_i * cols_j * head_dim)
          ]));
        Store "dK" (cols_j * head_dim)
      ])))
  ].

(** eager PyTorch, one kernel per operator (backward, dropout): all that it moves and computes, whatever a word of each
    tensor and an operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem eager_backward_dropout_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  count w (eager_backward_dropout batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "P_dropped") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "dO") * (2 * batch * kv_heads * group * q_len * value_dim * cdiv kv_len tile_kv)
  + w (Write "dV") * (batch * kv_heads * kv_len * value_dim)
  + w (Read "V") * (batch * kv_heads * group * kv_len * value_dim * cdiv q_len tile_q)
  + w (Read "dP_dropped") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "dP_dropped") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "keep") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "dP") * (batch * kv_heads * group * q_len * kv_len)
  + w (Write "dP") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "P") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "dS") * (2 * batch * kv_heads * group * q_len * kv_len)
  + w (Write "dS") * (batch * kv_heads * group * q_len * kv_len)
  + w (Read "K") * (batch * kv_heads * group * kv_len * head_dim * cdiv q_len tile_q)
  + w (Write "dQ") * (batch * kv_heads * group * q_len * head_dim)
  + w (Read "Q") * (batch * kv_heads * group * q_len * head_dim * cdiv kv_len tile_kv)
  + w (Write "dK") * (batch * kv_heads * kv_len * head_dim)
  + w Flop * (4 * batch * kv_heads * group * q_len * kv_len * (head_dim + value_dim)).
Proof. unfold eager_backward_dropout. closed_form. Qed.

Definition safe_softmax
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "S = QK^T" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "Q" (rows_i * head_dim);
          Load "K" (cols_j * head_dim);
          Flops (2 * rows_i * cols_j * head_dim);
          Store "S" (rows_i * cols_j)
        ])))));
    (* kernel "P = softmax S" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Load "S" (rows_i * cols_j));
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "S" (rows_i * cols_j);
            Exps (rows_i * cols_j)
          ]);
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "S" (rows_i * cols_j);
            Exps (rows_i * cols_j);
            Store "P" (rows_i * cols_j)
          ])
      ]))));
    (* kernel "O = PV" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "P" (rows_i * cols_j);
            Load "V" (cols_j * value_dim);
            Flops (2 * rows_i * cols_j * value_dim)
          ]);
        Store "O" (rows_i * value_dim)
      ]))))
  ].

(** three kernels, streaming three-pass softmax (forward): all that it moves and computes, whatever a word of each
    tensor and an operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem safe_softmax_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cols := seen_cols sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (safe_softmax batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "Q") * (batch * kv_heads * group * head_dim * rows)
  + w (Read "K") * (batch * kv_heads * group * head_dim * cols)
  + w (Read "S") * (3 * batch * kv_heads * group * cells)
  + w (Write "S") * (batch * kv_heads * group * cells)
  + w (Read "P") * (batch * kv_heads * group * cells)
  + w (Write "P") * (batch * kv_heads * group * cells)
  + w (Read "V") * (batch * kv_heads * group * value_dim * cols)
  + w (Write "O") * (batch * kv_heads * group * q_len * value_dim)
  + w Flop * (2 * batch * kv_heads * group * cells * (head_dim + value_dim))
  + w Exp * (2 * batch * kv_heads * group * cells).
Proof. unfold safe_softmax. closed_form. Qed.

Definition safe_softmax_padding
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "S = QK^T" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "Q" (rows_i * head_dim);
          Load "K" (cols_j * head_dim);
          Flops (2 * rows_i * cols_j * head_dim);
          Load "padding" cols_j;
          Store "S" (rows_i * cols_j)
        ])))));
    (* kernel "P = softmax S" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Load "S" (rows_i * cols_j));
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "S" (rows_i * cols_j);
            Exps (rows_i * cols_j)
          ]);
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "S" (rows_i * cols_j);
            Exps (rows_i * cols_j);
            Store "P" (rows_i * cols_j)
          ])
      ]))));
    (* kernel "O = PV" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "P" (rows_i * cols_j);
            Load "V" (cols_j * value_dim);
            Flops (2 * rows_i * cols_j * value_dim)
          ]);
        Store "O" (rows_i * value_dim)
      ]))))
  ].

(** three kernels, streaming three-pass softmax (forward, padding): all that it moves and computes, whatever a word of
    each tensor and an operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem safe_softmax_padding_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cols := seen_cols sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (safe_softmax_padding batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "Q") * (batch * kv_heads * group * head_dim * rows)
  + w (Read "K") * (batch * kv_heads * group * head_dim * cols)
  + w (Read "padding") * (batch * kv_heads * group * cols)
  + w (Read "S") * (3 * batch * kv_heads * group * cells)
  + w (Write "S") * (batch * kv_heads * group * cells)
  + w (Read "P") * (batch * kv_heads * group * cells)
  + w (Write "P") * (batch * kv_heads * group * cells)
  + w (Read "V") * (batch * kv_heads * group * value_dim * cols)
  + w (Write "O") * (batch * kv_heads * group * q_len * value_dim)
  + w Flop * (2 * batch * kv_heads * group * cells * (head_dim + value_dim))
  + w Exp * (2 * batch * kv_heads * group * cells).
Proof. unfold safe_softmax_padding. closed_form. Qed.

Definition fused_softmax_backward
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "dV = P^T dO" *)
    For batch (fun b => For kv_heads (fun h => For (cdiv kv_len tile_kv) (fun j =>
      let cols_j := tile kv_len tile_kv j in
      Seq [
        For group (fun g => ForSeen (cdiv q_len tile_q) (fun i => sees i j) (fun i =>
          let rows_i := tile q_len tile_q i in
          Seq [
            Load "P" (rows_i * cols_j);
            Load "dO" (rows_i * value_dim);
            Flops (2 * rows_i * cols_j * value_dim)
          ]));
        Store "dV" (cols_j * value_dim)
      ])));
    (* kernel "dP = dO V^T" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "dO" (rows_i * value_dim);
          Load "V" (cols_j * value_dim);
          Flops (2 * rows_i * cols_j * value_dim);
          Store "dP" (rows_i * cols_j)
        ])))));
    (* kernel "dS = dsoftmax(P, dP)" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "P" (rows_i * cols_j);
            Load "dP" (rows_i * cols_j)
          ]);
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "P" (rows_i * cols_j);
            Load "dP" (rows_i * cols_j);
            Store "dS" (rows_i * cols_j)
          ])
      ]))));
    (* kernel "dQ = dS K" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "dS" (rows_i * cols_j);
            Load "K" (cols_j * head_dim);
            Flops (2 * rows_i * cols_j * head_dim)
          ]);
        Store "dQ" (rows_i * head_dim)
      ]))));
    (* kernel "dK = dS^T Q" *)
    For batch (fun b => For kv_heads (fun h => For (cdiv kv_len tile_kv) (fun j =>
      let cols_j := tile kv_len tile_kv j in
      Seq [
        For group (fun g => ForSeen (cdiv q_len tile_q) (fun i => sees i j) (fun i =>
          let rows_i := tile q_len tile_q i in
          Seq [
            Load "dS" (rows_i * cols_j);
            Load "Q" (rows_i * head_dim);
            Flops (2 * rows_i * cols_j * head_dim)
          ]));
        Store "dK" (cols_j * head_dim)
      ])))
  ].

(** three kernels, streaming three-pass softmax (backward): all that it moves and computes, whatever a word of each
    tensor and an operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem fused_softmax_backward_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cols := seen_cols sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (fused_softmax_backward batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "P") * (3 * batch * kv_heads * group * cells)
  + w (Read "dO") * (2 * batch * kv_heads * group * value_dim * rows)
  + w (Write "dV") * (batch * kv_heads * kv_len * value_dim)
  + w (Read "V") * (batch * kv_heads * group * value_dim * cols)
  + w (Read "dP") * (2 * batch * kv_heads * group * cells)
  + w (Write "dP") * (batch * kv_heads * group * cells)
  + w (Read "dS") * (2 * batch * kv_heads * group * cells)
  + w (Write "dS") * (batch * kv_heads * group * cells)
  + w (Read "K") * (batch * kv_heads * group * head_dim * cols)
  + w (Write "dQ") * (batch * kv_heads * group * q_len * head_dim)
  + w (Read "Q") * (batch * kv_heads * group * head_dim * rows)
  + w (Write "dK") * (batch * kv_heads * kv_len * head_dim)
  + w Flop * (4 * batch * kv_heads * group * cells * (head_dim + value_dim)).
Proof. unfold fused_softmax_backward. closed_form. Qed.

Definition online_softmax
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "S = QK^T" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "Q" (rows_i * head_dim);
          Load "K" (cols_j * head_dim);
          Flops (2 * rows_i * cols_j * head_dim);
          Store "S" (rows_i * cols_j)
        ])))));
    (* kernel "P = softmax S" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "S" (rows_i * cols_j);
            Exps rows_i;
            Exps (rows_i * cols_j)
          ]);
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "S" (rows_i * cols_j);
            Exps (rows_i * cols_j);
            Store "P" (rows_i * cols_j)
          ])
      ]))));
    (* kernel "O = PV" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "P" (rows_i * cols_j);
            Load "V" (cols_j * value_dim);
            Flops (2 * rows_i * cols_j * value_dim)
          ]);
        Store "O" (rows_i * value_dim)
      ]))))
  ].

(** three kernels, streaming two-pass softmax (forward): all that it moves and computes, whatever a word of each tensor
    and an operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem online_softmax_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cols := seen_cols sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (online_softmax batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "Q") * (batch * kv_heads * group * head_dim * rows)
  + w (Read "K") * (batch * kv_heads * group * head_dim * cols)
  + w (Read "S") * (2 * batch * kv_heads * group * cells)
  + w (Write "S") * (batch * kv_heads * group * cells)
  + w (Read "P") * (batch * kv_heads * group * cells)
  + w (Write "P") * (batch * kv_heads * group * cells)
  + w (Read "V") * (batch * kv_heads * group * value_dim * cols)
  + w (Write "O") * (batch * kv_heads * group * q_len * value_dim)
  + w Flop * (2 * batch * kv_heads * group * cells * (head_dim + value_dim))
  + w Exp * (batch * kv_heads * group * (2 * cells + rows)).
Proof. unfold online_softmax. closed_form. Qed.

Definition online_softmax_padding
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "S = QK^T" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "Q" (rows_i * head_dim);
          Load "K" (cols_j * head_dim);
          Flops (2 * rows_i * cols_j * head_dim);
          Load "padding" cols_j;
          Store "S" (rows_i * cols_j)
        ])))));
    (* kernel "P = softmax S" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "S" (rows_i * cols_j);
            Exps rows_i;
            Exps (rows_i * cols_j)
          ]);
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "S" (rows_i * cols_j);
            Exps (rows_i * cols_j);
            Store "P" (rows_i * cols_j)
          ])
      ]))));
    (* kernel "O = PV" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "P" (rows_i * cols_j);
            Load "V" (cols_j * value_dim);
            Flops (2 * rows_i * cols_j * value_dim)
          ]);
        Store "O" (rows_i * value_dim)
      ]))))
  ].

(** three kernels, streaming two-pass softmax (forward, padding): all that it moves and computes, whatever a word of
    each tensor and an operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem online_softmax_padding_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cols := seen_cols sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (online_softmax_padding batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "Q") * (batch * kv_heads * group * head_dim * rows)
  + w (Read "K") * (batch * kv_heads * group * head_dim * cols)
  + w (Read "padding") * (batch * kv_heads * group * cols)
  + w (Read "S") * (2 * batch * kv_heads * group * cells)
  + w (Write "S") * (batch * kv_heads * group * cells)
  + w (Read "P") * (batch * kv_heads * group * cells)
  + w (Write "P") * (batch * kv_heads * group * cells)
  + w (Read "V") * (batch * kv_heads * group * value_dim * cols)
  + w (Write "O") * (batch * kv_heads * group * q_len * value_dim)
  + w Flop * (2 * batch * kv_heads * group * cells * (head_dim + value_dim))
  + w Exp * (batch * kv_heads * group * (2 * cells + rows)).
Proof. unfold online_softmax_padding. closed_form. Qed.

Definition memory_efficient
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "summarize chunks" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        Load "Q" (rows_i * head_dim);
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "K" (cols_j * head_dim);
            Load "V" (cols_j * value_dim);
            Flops (2 * rows_i * cols_j * head_dim);
            Exps (rows_i * cols_j);
            Store "m_part" rows_i;
            Store "l_part" rows_i;
            Flops (2 * rows_i * cols_j * value_dim);
            Store "O_part" (rows_i * value_dim)
          ])
      ]))));
    (* kernel "combine" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          Load "m_part" rows_i);
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          Seq [
            Load "m_part" rows_i;
            Exps rows_i;
            Load "l_part" rows_i;
            Load "O_part" (rows_i * value_dim)
          ]);
        Store "O" (rows_i * value_dim)
      ]))))
  ].

(** Rabe-Staats chunks, partial results combined at the end (forward): all that it moves and computes, whatever a word
    of each tensor and an operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem memory_efficient_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cols := seen_cols sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (memory_efficient batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "Q") * (batch * kv_heads * group * q_len * head_dim)
  + w (Read "K") * (batch * kv_heads * group * head_dim * cols)
  + w (Read "V") * (batch * kv_heads * group * value_dim * cols)
  + w (Read "m_part") * (2 * batch * kv_heads * group * rows)
  + w (Write "m_part") * (batch * kv_heads * group * rows)
  + w (Read "l_part") * (batch * kv_heads * group * rows)
  + w (Write "l_part") * (batch * kv_heads * group * rows)
  + w (Read "O_part") * (batch * kv_heads * group * value_dim * rows)
  + w (Write "O_part") * (batch * kv_heads * group * value_dim * rows)
  + w (Write "O") * (batch * kv_heads * group * q_len * value_dim)
  + w Flop * (2 * batch * kv_heads * group * cells * (head_dim + value_dim))
  + w Exp * (batch * kv_heads * group * (cells + rows)).
Proof. unfold memory_efficient. closed_form. Qed.

Definition memory_efficient_padding
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "summarize chunks" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        Load "Q" (rows_i * head_dim);
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "K" (cols_j * head_dim);
            Load "V" (cols_j * value_dim);
            Flops (2 * rows_i * cols_j * head_dim);
            Load "padding" cols_j;
            Exps (rows_i * cols_j);
            Store "m_part" rows_i;
            Store "l_part" rows_i;
            Flops (2 * rows_i * cols_j * value_dim);
            Store "O_part" (rows_i * value_dim)
          ])
      ]))));
    (* kernel "combine" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          Load "m_part" rows_i);
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          Seq [
            Load "m_part" rows_i;
            Exps rows_i;
            Load "l_part" rows_i;
            Load "O_part" (rows_i * value_dim)
          ]);
        Store "O" (rows_i * value_dim)
      ]))))
  ].

(** Rabe-Staats chunks, partial results combined at the end (forward, padding): all that it moves and computes, whatever
    a word of each tensor and an operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem memory_efficient_padding_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cols := seen_cols sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (memory_efficient_padding batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "Q") * (batch * kv_heads * group * q_len * head_dim)
  + w (Read "K") * (batch * kv_heads * group * head_dim * cols)
  + w (Read "V") * (batch * kv_heads * group * value_dim * cols)
  + w (Read "padding") * (batch * kv_heads * group * cols)
  + w (Read "m_part") * (2 * batch * kv_heads * group * rows)
  + w (Write "m_part") * (batch * kv_heads * group * rows)
  + w (Read "l_part") * (batch * kv_heads * group * rows)
  + w (Write "l_part") * (batch * kv_heads * group * rows)
  + w (Read "O_part") * (batch * kv_heads * group * value_dim * rows)
  + w (Write "O_part") * (batch * kv_heads * group * value_dim * rows)
  + w (Write "O") * (batch * kv_heads * group * q_len * value_dim)
  + w Flop * (2 * batch * kv_heads * group * cells * (head_dim + value_dim))
  + w Exp * (batch * kv_heads * group * (cells + rows)).
Proof. unfold memory_efficient_padding. closed_form. Qed.

Definition memory_efficient_backward
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "summarize chunks" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        Load "Q" (rows_i * head_dim);
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "K" (cols_j * head_dim);
            Load "V" (cols_j * value_dim);
            Flops (2 * rows_i * cols_j * head_dim);
            Exps (rows_i * cols_j);
            Store "m_part" rows_i;
            Store "l_part" rows_i;
            Flops (2 * rows_i * cols_j * value_dim);
            Store "O_part" (rows_i * value_dim)
          ])
      ]))));
    (* kernel "gradients" *)
    For batch (fun b => For kv_heads (fun h =>
      Seq [
        For (cdiv kv_len tile_kv) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Store "dK" (cols_j * head_dim);
            Store "dV" (cols_j * value_dim)
          ]);
        For group (fun g => For (cdiv q_len tile_q) (fun i =>
          let rows_i := tile q_len tile_q i in
          Seq [
            Load "Q" (rows_i * head_dim);
            Load "O" (rows_i * value_dim);
            Load "dO" (rows_i * value_dim);
            ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
              Load "m_part" rows_i);
            ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
              Seq [
                Load "m_part" rows_i;
                Exps rows_i;
                Load "l_part" rows_i
              ]);
            ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
              let cols_j := tile kv_len tile_kv j in
              Seq [
                Load "K" (cols_j * head_dim);
                Load "V" (cols_j * value_dim);
                Load "dK" (cols_j * head_dim);
                Load "dV" (cols_j * value_dim);
                Flops (2 * rows_i * cols_j * head_dim);
                Exps (rows_i * cols_j);
                Flops (2 * rows_i * cols_j * value_dim);
                Flops (2 * rows_i * cols_j * value_dim);
                Store "dV" (cols_j * value_dim);
                Flops (2 * rows_i * cols_j * head_dim);
                Store "dK" (cols_j * head_dim);
                Flops (2 * rows_i * cols_j * head_dim)
              ]);
            Store "dQ" (rows_i * head_dim)
          ]))
      ]))
  ].

(** Rabe-Staats chunks, partial results combined at the end (backward): all that it moves and computes, whatever a word
    of each tensor and an operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem memory_efficient_backward_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cols := seen_cols sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (memory_efficient_backward batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "Q") * (2 * batch * kv_heads * group * q_len * head_dim)
  + w (Read "K") * (2 * batch * kv_heads * group * head_dim * cols)
  + w (Read "V") * (2 * batch * kv_heads * group * value_dim * cols)
  + w (Read "m_part") * (2 * batch * kv_heads * group * rows)
  + w (Write "m_part") * (batch * kv_heads * group * rows)
  + w (Read "l_part") * (batch * kv_heads * group * rows)
  + w (Write "l_part") * (batch * kv_heads * group * rows)
  + w (Write "O_part") * (batch * kv_heads * group * value_dim * rows)
  + w (Read "dK") * (batch * kv_heads * group * head_dim * cols)
  + w (Write "dK") * (batch * kv_heads * head_dim * (group * cols + kv_len))
  + w (Read "dV") * (batch * kv_heads * group * value_dim * cols)
  + w (Write "dV") * (batch * kv_heads * value_dim * (group * cols + kv_len))
  + w (Read "O") * (batch * kv_heads * group * q_len * value_dim)
  + w (Read "dO") * (batch * kv_heads * group * q_len * value_dim)
  + w (Write "dQ") * (batch * kv_heads * group * q_len * head_dim)
  + w Flop * (2 * batch * kv_heads * group * cells * (4 * head_dim + 3 * value_dim))
  + w Exp * (batch * kv_heads * group * (2 * cells + rows)).
Proof. unfold memory_efficient_backward. closed_form. Qed.

Definition memory_efficient_backward_padding
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "summarize chunks" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        Load "Q" (rows_i * head_dim);
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "K" (cols_j * head_dim);
            Load "V" (cols_j * value_dim);
            Flops (2 * rows_i * cols_j * head_dim);
            Load "padding" cols_j;
            Exps (rows_i * cols_j);
            Store "m_part" rows_i;
            Store "l_part" rows_i;
            Flops (2 * rows_i * cols_j * value_dim);
            Store "O_part" (rows_i * value_dim)
          ])
      ]))));
    (* kernel "gradients" *)
    For batch (fun b => For kv_heads (fun h =>
      Seq [
        For (cdiv kv_len tile_kv) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Store "dK" (cols_j * head_dim);
            Store "dV" (cols_j * value_dim)
          ]);
        For group (fun g => For (cdiv q_len tile_q) (fun i =>
          let rows_i := tile q_len tile_q i in
          Seq [
            Load "Q" (rows_i * head_dim);
            Load "O" (rows_i * value_dim);
            Load "dO" (rows_i * value_dim);
            ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
              Load "m_part" rows_i);
            ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
              Seq [
                Load "m_part" rows_i;
                Exps rows_i;
                Load "l_part" rows_i
              ]);
            ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
              let cols_j := tile kv_len tile_kv j in
              Seq [
                Load "K" (cols_j * head_dim);
                Load "V" (cols_j * value_dim);
                Load "dK" (cols_j * head_dim);
                Load "dV" (cols_j * value_dim);
                Flops (2 * rows_i * cols_j * head_dim);
                Load "padding" cols_j;
                Exps (rows_i * cols_j);
                Flops (2 * rows_i * cols_j * value_dim);
                Flops (2 * rows_i * cols_j * value_dim);
                Store "dV" (cols_j * value_dim);
                Flops (2 * rows_i * cols_j * head_dim);
                Store "dK" (cols_j * head_dim);
                Flops (2 * rows_i * cols_j * head_dim)
              ]);
            Store "dQ" (rows_i * head_dim)
          ]))
      ]))
  ].

(** Rabe-Staats chunks, partial results combined at the end (backward, padding): all that it moves and computes,
    whatever a word of each tensor and an operation weigh (w), for every mask, every size and every tile, ragged ones
    included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem memory_efficient_backward_padding_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cols := seen_cols sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (memory_efficient_backward_padding batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "Q") * (2 * batch * kv_heads * group * q_len * head_dim)
  + w (Read "K") * (2 * batch * kv_heads * group * head_dim * cols)
  + w (Read "V") * (2 * batch * kv_heads * group * value_dim * cols)
  + w (Read "padding") * (2 * batch * kv_heads * group * cols)
  + w (Read "m_part") * (2 * batch * kv_heads * group * rows)
  + w (Write "m_part") * (batch * kv_heads * group * rows)
  + w (Read "l_part") * (batch * kv_heads * group * rows)
  + w (Write "l_part") * (batch * kv_heads * group * rows)
  + w (Write "O_part") * (batch * kv_heads * group * value_dim * rows)
  + w (Read "dK") * (batch * kv_heads * group * head_dim * cols)
  + w (Write "dK") * (batch * kv_heads * head_dim * (group * cols + kv_len))
  + w (Read "dV") * (batch * kv_heads * group * value_dim * cols)
  + w (Write "dV") * (batch * kv_heads * value_dim * (group * cols + kv_len))
  + w (Read "O") * (batch * kv_heads * group * q_len * value_dim)
  + w (Read "dO") * (batch * kv_heads * group * q_len * value_dim)
  + w (Write "dQ") * (batch * kv_heads * group * q_len * head_dim)
  + w Flop * (2 * batch * kv_heads * group * cells * (4 * head_dim + 3 * value_dim))
  + w Exp * (batch * kv_heads * group * (2 * cells + rows)).
Proof. unfold memory_efficient_backward_padding. closed_form. Qed.

Definition flash1
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  (* kernel "flash1" *)
  For batch (fun b => For kv_heads (fun h => For group (fun g =>
    Seq [
      For (cdiv q_len tile_q) (fun i =>
        let rows_i := tile q_len tile_q i in
        Seq [
          Store "O" (rows_i * value_dim);
          Store "l" rows_i;
          Store "m" rows_i
        ]);
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "K" (cols_j * head_dim);
          Load "V" (cols_j * value_dim);
          ForSeen (cdiv q_len tile_q) (fun i => sees i j) (fun i =>
            let rows_i := tile q_len tile_q i in
            Seq [
              Load "Q" (rows_i * head_dim);
              Load "O" (rows_i * value_dim);
              Load "l" rows_i;
              Load "m" rows_i;
              Flops (2 * rows_i * cols_j * head_dim);
              Exps (rows_i * cols_j);
              Exps rows_i;
              Flops (2 * rows_i * cols_j * value_dim);
              Store "O" (rows_i * value_dim);
              Store "l" rows_i;
              Store "m" rows_i
            ])
        ])
    ]))).

(** FlashAttention: key tiles outside, O makes round trips (forward): all that it moves and computes, whatever a word of
    each tensor and an operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem flash1_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (flash1 batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "O") * (batch * kv_heads * group * value_dim * rows)
  + w (Write "O") * (batch * kv_heads * group * value_dim * (q_len + rows))
  + w (Read "l") * (batch * kv_heads * group * rows)
  + w (Write "l") * (batch * kv_heads * group * (q_len + rows))
  + w (Read "m") * (batch * kv_heads * group * rows)
  + w (Write "m") * (batch * kv_heads * group * (q_len + rows))
  + w (Read "K") * (batch * kv_heads * group * kv_len * head_dim)
  + w (Read "V") * (batch * kv_heads * group * kv_len * value_dim)
  + w (Read "Q") * (batch * kv_heads * group * head_dim * rows)
  + w Flop * (2 * batch * kv_heads * group * cells * (head_dim + value_dim))
  + w Exp * (batch * kv_heads * group * (cells + rows)).
Proof. unfold flash1. closed_form. Qed.

Definition flash1_padding
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  (* kernel "flash1" *)
  For batch (fun b => For kv_heads (fun h => For group (fun g =>
    Seq [
      For (cdiv q_len tile_q) (fun i =>
        let rows_i := tile q_len tile_q i in
        Seq [
          Store "O" (rows_i * value_dim);
          Store "l" rows_i;
          Store "m" rows_i
        ]);
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "K" (cols_j * head_dim);
          Load "V" (cols_j * value_dim);
          Load "padding" cols_j;
          ForSeen (cdiv q_len tile_q) (fun i => sees i j) (fun i =>
            let rows_i := tile q_len tile_q i in
            Seq [
              Load "Q" (rows_i * head_dim);
              Load "O" (rows_i * value_dim);
              Load "l" rows_i;
              Load "m" rows_i;
              Flops (2 * rows_i * cols_j * head_dim);
              Exps (rows_i * cols_j);
              Exps rows_i;
              Flops (2 * rows_i * cols_j * value_dim);
              Store "O" (rows_i * value_dim);
              Store "l" rows_i;
              Store "m" rows_i
            ])
        ])
    ]))).

(** FlashAttention: key tiles outside, O makes round trips (forward, padding): all that it moves and computes, whatever
    a word of each tensor and an operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem flash1_padding_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (flash1_padding batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "O") * (batch * kv_heads * group * value_dim * rows)
  + w (Write "O") * (batch * kv_heads * group * value_dim * (q_len + rows))
  + w (Read "l") * (batch * kv_heads * group * rows)
  + w (Write "l") * (batch * kv_heads * group * (q_len + rows))
  + w (Read "m") * (batch * kv_heads * group * rows)
  + w (Write "m") * (batch * kv_heads * group * (q_len + rows))
  + w (Read "K") * (batch * kv_heads * group * kv_len * head_dim)
  + w (Read "V") * (batch * kv_heads * group * kv_len * value_dim)
  + w (Read "padding") * (batch * kv_heads * group * kv_len)
  + w (Read "Q") * (batch * kv_heads * group * head_dim * rows)
  + w Flop * (2 * batch * kv_heads * group * cells * (head_dim + value_dim))
  + w Exp * (batch * kv_heads * group * (cells + rows)).
Proof. unfold flash1_padding. closed_form. Qed.

Definition flash1_backward
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  (* kernel "flash1 backward" *)
  For batch (fun b => For kv_heads (fun h =>
    Seq [
      For group (fun g => For (cdiv q_len tile_q) (fun i =>
        let rows_i := tile q_len tile_q i in
        Store "dQ" (rows_i * head_dim)));
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Store "dK" (cols_j * head_dim);
          Store "dV" (cols_j * value_dim)
        ]);
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "K" (cols_j * head_dim);
          Load "V" (cols_j * value_dim);
          For group (fun g => ForSeen (cdiv q_len tile_q) (fun i => sees i j) (fun i =>
            let rows_i := tile q_len tile_q i in
            Seq [
              Load "Q" (rows_i * head_dim);
              Load "O" (rows_i * value_dim);
              Load "dO" (rows_i * value_dim);
              Load "l" rows_i;
              Load "m" rows_i;
              Flops (2 * rows_i * cols_j * head_dim);
              Exps (rows_i * cols_j);
              Flops (2 * rows_i * cols_j * value_dim);
              Flops (2 * rows_i * cols_j * value_dim);
              Load "dQ" (rows_i * head_dim);
              Flops (2 * rows_i * cols_j * head_dim);
              Store "dQ" (rows_i * head_dim);
              Flops (2 * rows_i * cols_j * head_dim)
            ]));
          Store "dK" (cols_j * head_dim);
          Store "dV" (cols_j * value_dim)
        ])
    ])).

(** FlashAttention: key tiles outside, O makes round trips (backward): all that it moves and computes, whatever a word
    of each tensor and an operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem flash1_backward_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (flash1_backward batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "dQ") * (batch * kv_heads * group * head_dim * rows)
  + w (Write "dQ") * (batch * kv_heads * group * head_dim * (q_len + rows))
  + w (Write "dK") * (2 * batch * kv_heads * kv_len * head_dim)
  + w (Write "dV") * (2 * batch * kv_heads * kv_len * value_dim)
  + w (Read "K") * (batch * kv_heads * kv_len * head_dim)
  + w (Read "V") * (batch * kv_heads * kv_len * value_dim)
  + w (Read "Q") * (batch * kv_heads * group * head_dim * rows)
  + w (Read "O") * (batch * kv_heads * group * value_dim * rows)
  + w (Read "dO") * (batch * kv_heads * group * value_dim * rows)
  + w (Read "l") * (batch * kv_heads * group * rows)
  + w (Read "m") * (batch * kv_heads * group * rows)
  + w Flop * (2 * batch * kv_heads * group * cells * (3 * head_dim + 2 * value_dim))
  + w Exp * (batch * kv_heads * group * cells).
Proof. unfold flash1_backward. closed_form. Qed.

Definition flash1_backward_padding
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  (* kernel "flash1 backward" *)
  For batch (fun b => For kv_heads (fun h =>
    Seq [
      For group (fun g => For (cdiv q_len tile_q) (fun i =>
        let rows_i := tile q_len tile_q i in
        Store "dQ" (rows_i * head_dim)));
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Store "dK" (cols_j * head_dim);
          Store "dV" (cols_j * value_dim)
        ]);
      For (cdiv kv_len tile_kv) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "K" (cols_j * head_dim);
          Load "V" (cols_j * value_dim);
          Load "padding" cols_j;
          For group (fun g => ForSeen (cdiv q_len tile_q) (fun i => sees i j) (fun i =>
            let rows_i := tile q_len tile_q i in
            Seq [
              Load "Q" (rows_i * head_dim);
              Load "O" (rows_i * value_dim);
              Load "dO" (rows_i * value_dim);
              Load "l" rows_i;
              Load "m" rows_i;
              Flops (2 * rows_i * cols_j * head_dim);
              Exps (rows_i * cols_j);
              Flops (2 * rows_i * cols_j * value_dim);
              Flops (2 * rows_i * cols_j * value_dim);
              Load "dQ" (rows_i * head_dim);
              Flops (2 * rows_i * cols_j * head_dim);
              Store "dQ" (rows_i * head_dim);
              Flops (2 * rows_i * cols_j * head_dim)
            ]));
          Store "dK" (cols_j * head_dim);
          Store "dV" (cols_j * value_dim)
        ])
    ])).

(** FlashAttention: key tiles outside, O makes round trips (backward, padding): all that it moves and computes, whatever
    a word of each tensor and an operation weigh (w), for every mask, every size and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem flash1_backward_padding_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (flash1_backward_padding batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "dQ") * (batch * kv_heads * group * head_dim * rows)
  + w (Write "dQ") * (batch * kv_heads * group * head_dim * (q_len + rows))
  + w (Write "dK") * (2 * batch * kv_heads * kv_len * head_dim)
  + w (Write "dV") * (2 * batch * kv_heads * kv_len * value_dim)
  + w (Read "K") * (batch * kv_heads * kv_len * head_dim)
  + w (Read "V") * (batch * kv_heads * kv_len * value_dim)
  + w (Read "padding") * (batch * kv_heads * kv_len)
  + w (Read "Q") * (batch * kv_heads * group * head_dim * rows)
  + w (Read "O") * (batch * kv_heads * group * value_dim * rows)
  + w (Read "dO") * (batch * kv_heads * group * value_dim * rows)
  + w (Read "l") * (batch * kv_heads * group * rows)
  + w (Read "m") * (batch * kv_heads * group * rows)
  + w Flop * (2 * batch * kv_heads * group * cells * (3 * head_dim + 2 * value_dim))
  + w Exp * (batch * kv_heads * group * cells).
Proof. unfold flash1_backward_padding. closed_form. Qed.

Definition flash2
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  (* kernel "flash2" *)
  For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
    let rows_i := tile q_len tile_q i in
    Seq [
      Load "Q" (rows_i * head_dim);
      ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "K" (cols_j * head_dim);
          Load "V" (cols_j * value_dim);
          Flops (2 * rows_i * cols_j * head_dim);
          Exps (rows_i * cols_j);
          Exps rows_i;
          Flops (2 * rows_i * cols_j * value_dim)
        ]);
      Store "O" (rows_i * value_dim);
      Store "L" rows_i
    ])))).

(** FlashAttention-2: query tiles outside, O written once; backward with atomic dQ (forward): all that it moves and
    computes, whatever a word of each tensor and an operation weigh (w), for every mask, every size and every tile,
    ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem flash2_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cols := seen_cols sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (flash2 batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "Q") * (batch * kv_heads * group * q_len * head_dim)
  + w (Read "K") * (batch * kv_heads * group * head_dim * cols)
  + w (Read "V") * (batch * kv_heads * group * value_dim * cols)
  + w (Write "O") * (batch * kv_heads * group * q_len * value_dim)
  + w (Write "L") * (batch * kv_heads * group * q_len)
  + w Flop * (2 * batch * kv_heads * group * cells * (head_dim + value_dim))
  + w Exp * (batch * kv_heads * group * (cells + rows)).
Proof. unfold flash2. closed_form. Qed.

Definition flash2_padding
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  (* kernel "flash2" *)
  For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
    let rows_i := tile q_len tile_q i in
    Seq [
      Load "Q" (rows_i * head_dim);
      ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Load "K" (cols_j * head_dim);
          Load "V" (cols_j * value_dim);
          Flops (2 * rows_i * cols_j * head_dim);
          Load "padding" cols_j;
          Exps (rows_i * cols_j);
          Exps rows_i;
          Flops (2 * rows_i * cols_j * value_dim)
        ]);
      Store "O" (rows_i * value_dim);
      Store "L" rows_i
    ])))).

(** FlashAttention-2: query tiles outside, O written once; backward with atomic dQ (forward, padding): all that it moves
    and computes, whatever a word of each tensor and an operation weigh (w), for every mask, every size and every tile,
    ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem flash2_padding_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cols := seen_cols sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (flash2_padding batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "Q") * (batch * kv_heads * group * q_len * head_dim)
  + w (Read "K") * (batch * kv_heads * group * head_dim * cols)
  + w (Read "V") * (batch * kv_heads * group * value_dim * cols)
  + w (Read "padding") * (batch * kv_heads * group * cols)
  + w (Write "O") * (batch * kv_heads * group * q_len * value_dim)
  + w (Write "L") * (batch * kv_heads * group * q_len)
  + w Flop * (2 * batch * kv_heads * group * cells * (head_dim + value_dim))
  + w Exp * (batch * kv_heads * group * (cells + rows)).
Proof. unfold flash2_padding. closed_form. Qed.

Definition flash2_backward
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "preprocess" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        Load "O" (rows_i * value_dim);
        Load "dO" (rows_i * value_dim);
        Store "D" rows_i;
        Store "dQ_sum" (rows_i * head_dim)
      ]))));
    (* kernel "main" *)
    For batch (fun b => For kv_heads (fun h => For (cdiv kv_len tile_kv) (fun j =>
      let cols_j := tile kv_len tile_kv j in
      Seq [
        Load "K" (cols_j * head_dim);
        Load "V" (cols_j * value_dim);
        For group (fun g => ForSeen (cdiv q_len tile_q) (fun i => sees i j) (fun i =>
          let rows_i := tile q_len tile_q i in
          Seq [
            Load "Q" (rows_i * head_dim);
            Load "dO" (rows_i * value_dim);
            Load "L" rows_i;
            Load "D" rows_i;
            Flops (2 * rows_i * cols_j * head_dim);
            Exps (rows_i * cols_j);
            Flops (2 * rows_i * cols_j * value_dim);
            Flops (2 * rows_i * cols_j * value_dim);
            Flops (2 * rows_i * cols_j * head_dim);
            AtomicAdd "dQ_sum" (rows_i * head_dim);
            Flops (2 * rows_i * cols_j * head_dim)
          ]));
        Store "dK" (cols_j * head_dim);
        Store "dV" (cols_j * value_dim)
      ])));
    (* kernel "convert" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        Load "dQ_sum" (rows_i * head_dim);
        Store "dQ" (rows_i * head_dim)
      ]))))
  ].

(** FlashAttention-2: query tiles outside, O written once; backward with atomic dQ (backward): all that it moves and
    computes, whatever a word of each tensor and an operation weigh (w), for every mask, every size and every tile,
    ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem flash2_backward_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (flash2_backward batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "O") * (batch * kv_heads * group * q_len * value_dim)
  + w (Read "dO") * (batch * kv_heads * group * value_dim * (q_len + rows))
  + w (Read "D") * (batch * kv_heads * group * rows)
  + w (Write "D") * (batch * kv_heads * group * q_len)
  + w (Read "dQ_sum") * (batch * kv_heads * group * q_len * head_dim)
  + w (Write "dQ_sum") * (batch * kv_heads * group * q_len * head_dim)
  + w (Add "dQ_sum") * (batch * kv_heads * group * head_dim * rows)
  + w (Read "K") * (batch * kv_heads * kv_len * head_dim)
  + w (Read "V") * (batch * kv_heads * kv_len * value_dim)
  + w (Read "Q") * (batch * kv_heads * group * head_dim * rows)
  + w (Read "L") * (batch * kv_heads * group * rows)
  + w (Write "dK") * (batch * kv_heads * kv_len * head_dim)
  + w (Write "dV") * (batch * kv_heads * kv_len * value_dim)
  + w (Write "dQ") * (batch * kv_heads * group * q_len * head_dim)
  + w Flop * (2 * batch * kv_heads * group * cells * (3 * head_dim + 2 * value_dim))
  + w Exp * (batch * kv_heads * group * cells).
Proof. unfold flash2_backward. closed_form. Qed.

Definition flash2_backward_padding
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "preprocess" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        Load "O" (rows_i * value_dim);
        Load "dO" (rows_i * value_dim);
        Store "D" rows_i;
        Store "dQ_sum" (rows_i * head_dim)
      ]))));
    (* kernel "main" *)
    For batch (fun b => For kv_heads (fun h => For (cdiv kv_len tile_kv) (fun j =>
      let cols_j := tile kv_len tile_kv j in
      Seq [
        Load "K" (cols_j * head_dim);
        Load "V" (cols_j * value_dim);
        Load "padding" cols_j;
        For group (fun g => ForSeen (cdiv q_len tile_q) (fun i => sees i j) (fun i =>
          let rows_i := tile q_len tile_q i in
          Seq [
            Load "Q" (rows_i * head_dim);
            Load "dO" (rows_i * value_dim);
            Load "L" rows_i;
            Load "D" rows_i;
            Flops (2 * rows_i * cols_j * head_dim);
            Exps (rows_i * cols_j);
            Flops (2 * rows_i * cols_j * value_dim);
            Flops (2 * rows_i * cols_j * value_dim);
            Flops (2 * rows_i * cols_j * head_dim);
            AtomicAdd "dQ_sum" (rows_i * head_dim);
            Flops (2 * rows_i * cols_j * head_dim)
          ]));
        Store "dK" (cols_j * head_dim);
        Store "dV" (cols_j * value_dim)
      ])));
    (* kernel "convert" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        Load "dQ_sum" (rows_i * head_dim);
        Store "dQ" (rows_i * head_dim)
      ]))))
  ].

(** FlashAttention-2: query tiles outside, O written once; backward with atomic dQ (backward, padding): all that it
    moves and computes, whatever a word of each tensor and an operation weigh (w), for every mask, every size and every
    tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem flash2_backward_padding_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (flash2_backward_padding batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "O") * (batch * kv_heads * group * q_len * value_dim)
  + w (Read "dO") * (batch * kv_heads * group * value_dim * (q_len + rows))
  + w (Read "D") * (batch * kv_heads * group * rows)
  + w (Write "D") * (batch * kv_heads * group * q_len)
  + w (Read "dQ_sum") * (batch * kv_heads * group * q_len * head_dim)
  + w (Write "dQ_sum") * (batch * kv_heads * group * q_len * head_dim)
  + w (Add "dQ_sum") * (batch * kv_heads * group * head_dim * rows)
  + w (Read "K") * (batch * kv_heads * kv_len * head_dim)
  + w (Read "V") * (batch * kv_heads * kv_len * value_dim)
  + w (Read "padding") * (batch * kv_heads * kv_len)
  + w (Read "Q") * (batch * kv_heads * group * head_dim * rows)
  + w (Read "L") * (batch * kv_heads * group * rows)
  + w (Write "dK") * (batch * kv_heads * kv_len * head_dim)
  + w (Write "dV") * (batch * kv_heads * kv_len * value_dim)
  + w (Write "dQ") * (batch * kv_heads * group * q_len * head_dim)
  + w Flop * (2 * batch * kv_heads * group * cells * (3 * head_dim + 2 * value_dim))
  + w Exp * (batch * kv_heads * group * cells).
Proof. unfold flash2_backward_padding. closed_form. Qed.

Definition flash2_backward_two_kernels
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "preprocess" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        Load "O" (rows_i * value_dim);
        Load "dO" (rows_i * value_dim);
        Store "D" rows_i
      ]))));
    (* kernel "dK, dV" *)
    For batch (fun b => For kv_heads (fun h => For (cdiv kv_len tile_kv) (fun j =>
      let cols_j := tile kv_len tile_kv j in
      Seq [
        Load "K" (cols_j * head_dim);
        Load "V" (cols_j * value_dim);
        For group (fun g => ForSeen (cdiv q_len tile_q) (fun i => sees i j) (fun i =>
          let rows_i := tile q_len tile_q i in
          Seq [
            Load "Q" (rows_i * head_dim);
            Load "dO" (rows_i * value_dim);
            Load "L" rows_i;
            Load "D" rows_i;
            Flops (2 * rows_i * cols_j * head_dim);
            Exps (rows_i * cols_j);
            Flops (2 * rows_i * cols_j * value_dim);
            Flops (2 * rows_i * cols_j * value_dim);
            Flops (2 * rows_i * cols_j * head_dim)
          ]));
        Store "dK" (cols_j * head_dim);
        Store "dV" (cols_j * value_dim)
      ])));
    (* kernel "dQ" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        Load "Q" (rows_i * head_dim);
        Load "dO" (rows_i * value_dim);
        Load "L" rows_i;
        Load "D" rows_i;
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "K" (cols_j * head_dim);
            Load "V" (cols_j * value_dim);
            Flops (2 * rows_i * cols_j * head_dim);
            Exps (rows_i * cols_j);
            Flops (2 * rows_i * cols_j * value_dim);
            Flops (2 * rows_i * cols_j * head_dim)
          ]);
        Store "dQ" (rows_i * head_dim)
      ]))))
  ].

(** FlashAttention-2 with a two-kernel backward pass that needs no atomics (backward): all that it moves and computes,
    whatever a word of each tensor and an operation weigh (w), for every mask, every size and every tile, ragged ones
    included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem flash2_backward_two_kernels_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cols := seen_cols sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (flash2_backward_two_kernels batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "O") * (batch * kv_heads * group * q_len * value_dim)
  + w (Read "dO") * (batch * kv_heads * group * value_dim * (2 * q_len + rows))
  + w (Read "D") * (batch * kv_heads * group * (q_len + rows))
  + w (Write "D") * (batch * kv_heads * group * q_len)
  + w (Read "K") * (batch * kv_heads * head_dim * (group * cols + kv_len))
  + w (Read "V") * (batch * kv_heads * value_dim * (group * cols + kv_len))
  + w (Read "Q") * (batch * kv_heads * group * head_dim * (q_len + rows))
  + w (Read "L") * (batch * kv_heads * group * (q_len + rows))
  + w (Write "dK") * (batch * kv_heads * kv_len * head_dim)
  + w (Write "dV") * (batch * kv_heads * kv_len * value_dim)
  + w (Write "dQ") * (batch * kv_heads * group * q_len * head_dim)
  + w Flop * (2 * batch * kv_heads * group * cells * (4 * head_dim + 3 * value_dim))
  + w Exp * (2 * batch * kv_heads * group * cells).
Proof. unfold flash2_backward_two_kernels. closed_form. Qed.

Definition flash2_backward_two_kernels_padding
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "preprocess" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        Load "O" (rows_i * value_dim);
        Load "dO" (rows_i * value_dim);
        Store "D" rows_i
      ]))));
    (* kernel "dK, dV" *)
    For batch (fun b => For kv_heads (fun h => For (cdiv kv_len tile_kv) (fun j =>
      let cols_j := tile kv_len tile_kv j in
      Seq [
        Load "K" (cols_j * head_dim);
        Load "V" (cols_j * value_dim);
        Load "padding" cols_j;
        For group (fun g => ForSeen (cdiv q_len tile_q) (fun i => sees i j) (fun i =>
          let rows_i := tile q_len tile_q i in
          Seq [
            Load "Q" (rows_i * head_dim);
            Load "dO" (rows_i * value_dim);
            Load "L" rows_i;
            Load "D" rows_i;
            Flops (2 * rows_i * cols_j * head_dim);
            Exps (rows_i * cols_j);
            Flops (2 * rows_i * cols_j * value_dim);
            Flops (2 * rows_i * cols_j * value_dim);
            Flops (2 * rows_i * cols_j * head_dim)
          ]));
        Store "dK" (cols_j * head_dim);
        Store "dV" (cols_j * value_dim)
      ])));
    (* kernel "dQ" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        Load "Q" (rows_i * head_dim);
        Load "dO" (rows_i * value_dim);
        Load "L" rows_i;
        Load "D" rows_i;
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "K" (cols_j * head_dim);
            Load "V" (cols_j * value_dim);
            Flops (2 * rows_i * cols_j * head_dim);
            Load "padding" cols_j;
            Exps (rows_i * cols_j);
            Flops (2 * rows_i * cols_j * value_dim);
            Flops (2 * rows_i * cols_j * head_dim)
          ]);
        Store "dQ" (rows_i * head_dim)
      ]))))
  ].

(** FlashAttention-2 with a two-kernel backward pass that needs no atomics (backward, padding): all that it moves and
    computes, whatever a word of each tensor and an operation weigh (w), for every mask, every size and every tile,
    ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem flash2_backward_two_kernels_padding_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q tile_kv in
  let cols := seen_cols sees q_len kv_len tile_q tile_kv in
  let cells := seen_cells sees q_len kv_len tile_q tile_kv in
  count w (flash2_backward_two_kernels_padding batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv
    sees) =
    w (Read "O") * (batch * kv_heads * group * q_len * value_dim)
  + w (Read "dO") * (batch * kv_heads * group * value_dim * (2 * q_len + rows))
  + w (Read "D") * (batch * kv_heads * group * (q_len + rows))
  + w (Write "D") * (batch * kv_heads * group * q_len)
  + w (Read "K") * (batch * kv_heads * head_dim * (group * cols + kv_len))
  + w (Read "V") * (batch * kv_heads * value_dim * (group * cols + kv_len))
  + w (Read "padding") * (batch * kv_heads * (group * cols + kv_len))
  + w (Read "Q") * (batch * kv_heads * group * head_dim * (q_len + rows))
  + w (Read "L") * (batch * kv_heads * group * (q_len + rows))
  + w (Write "dK") * (batch * kv_heads * kv_len * head_dim)
  + w (Write "dV") * (batch * kv_heads * kv_len * value_dim)
  + w (Write "dQ") * (batch * kv_heads * group * q_len * head_dim)
  + w Flop * (2 * batch * kv_heads * group * cells * (4 * head_dim + 3 * value_dim))
  + w Exp * (2 * batch * kv_heads * group * cells).
Proof. unfold flash2_backward_two_kernels_padding. closed_form. Qed.

Definition flash2_serpentine
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  (* kernel "flash2, persistent" *)
  For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
    let rows_i := tile q_len tile_q i in
    Seq [
      Load "Q" (rows_i * head_dim);
      For (cdiv kv_len tile_kv) (fun t =>
        let j := back_and_forth (cdiv kv_len tile_kv) i t in
        let kept_j := kept full (cdiv kv_len tile_kv) i t in
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Unless kept_j (Load "K" (cols_j * head_dim));
          Unless kept_j (Load "V" (cols_j * value_dim));
          Flops (2 * rows_i * cols_j * head_dim);
          Exps (rows_i * cols_j);
          Exps rows_i;
          Flops (2 * rows_i * cols_j * value_dim)
        ]);
      Store "O" (rows_i * value_dim);
      Store "L" rows_i
    ])))).

(** FlashAttention-2 in one thread block per head, keys walked back and forth; forward only (forward): all that it moves
    and computes, whatever a word of each tensor and an operation weigh (w), for all lengths from 1 on, no mask and
    every tile, ragged ones included. What closed forms subtract stands on the left: first and last are the rows of a
    walk's end tiles, back is the number of turns at the last one.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem flash2_serpentine_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv -> 0 < q_len -> 0 < kv_len ->
  let first := Nat.min tile_kv kv_len in
  let last := kv_len + tile_kv - tile_kv * cdiv kv_len tile_kv in
  let back := cdiv (cdiv q_len tile_q - 1) 2 in
  count w (flash2_serpentine batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees)
  + w (Read "K") * (batch * kv_heads * group * head_dim * (back * last + cdiv q_len tile_q * first))
  + w (Read "V") * (batch * kv_heads * group * value_dim * (back * last + cdiv q_len tile_q * first)) =
    w (Read "Q") * (batch * kv_heads * group * q_len * head_dim)
  + w (Read "K") * (batch * kv_heads * group * head_dim * (kv_len * cdiv q_len tile_q + back * first + first))
  + w (Read "V") * (batch * kv_heads * group * value_dim * (kv_len * cdiv q_len tile_q + back * first + first))
  + w (Write "O") * (batch * kv_heads * group * q_len * value_dim)
  + w (Write "L") * (batch * kv_heads * group * q_len)
  + w Flop * (2 * batch * kv_heads * group * q_len * kv_len * (head_dim + value_dim))
  + w Exp * (batch * kv_heads * group * q_len * (kv_len + cdiv kv_len tile_kv)).
Proof. unfold flash2_serpentine. closed_form. Qed.

Definition flash2_serpentine_masked
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  (* kernel "flash2, persistent" *)
  For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
    let rows_i := tile q_len tile_q i in
    Seq [
      Load "Q" (rows_i * head_dim);
      ForSeen (cdiv kv_len tile_kv) (fun t => sees i (back_and_forth (cdiv kv_len tile_kv) i t)) (fun t =>
        let j := back_and_forth (cdiv kv_len tile_kv) i t in
        let kept_j := kept sees (cdiv kv_len tile_kv) i t in
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Unless kept_j (Load "K" (cols_j * head_dim));
          Unless kept_j (Load "V" (cols_j * value_dim));
          Flops (2 * rows_i * cols_j * head_dim);
          Exps (rows_i * cols_j);
          Exps rows_i;
          Flops (2 * rows_i * cols_j * value_dim)
        ]);
      Store "O" (rows_i * value_dim);
      Store "L" rows_i
    ])))).

Definition flash2_serpentine_padding
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  (* kernel "flash2, persistent" *)
  For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
    let rows_i := tile q_len tile_q i in
    Seq [
      Load "Q" (rows_i * head_dim);
      ForSeen (cdiv kv_len tile_kv) (fun t => sees i (back_and_forth (cdiv kv_len tile_kv) i t)) (fun t =>
        let j := back_and_forth (cdiv kv_len tile_kv) i t in
        let kept_j := kept sees (cdiv kv_len tile_kv) i t in
        let cols_j := tile kv_len tile_kv j in
        Seq [
          Unless kept_j (Load "K" (cols_j * head_dim));
          Unless kept_j (Load "V" (cols_j * value_dim));
          Flops (2 * rows_i * cols_j * head_dim);
          Unless kept_j (Load "padding" cols_j);
          Exps (rows_i * cols_j);
          Exps rows_i;
          Flops (2 * rows_i * cols_j * value_dim)
        ]);
      Store "O" (rows_i * value_dim);
      Store "L" rows_i
    ])))).

Definition flash4
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  (* kernel "flash4" *)
  For batch (fun b =>
    For kv_heads (fun h => For group (fun g => For (cdiv q_len (2 * tile_q)) (fun i =>
      let rows_i := tile q_len (2 * tile_q) i in
      Seq [
        Load "Q" (rows_i * head_dim);
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "K" (cols_j * head_dim);
            Load "V" (cols_j * value_dim);
            Flops (2 * rows_i * cols_j * head_dim);
            Exps (rows_i * cols_j);
            Exps rows_i;
            Flops (2 * rows_i * cols_j * value_dim)
          ]);
        Store "O" (rows_i * value_dim);
        Store "L" rows_i
      ])))).

(** FlashAttention-4: two query tiles to a block, lazy rescaling; backward by pairs of CTAs (forward): all that it moves
    and computes, whatever a word of each tensor and an operation weigh (w), for every mask, every size and every tile,
    ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem flash4_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len (2 * tile_q) tile_kv in
  let cols := seen_cols sees q_len kv_len (2 * tile_q) tile_kv in
  let cells := seen_cells sees q_len kv_len (2 * tile_q) tile_kv in
  count w (flash4 batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "Q") * (batch * kv_heads * group * q_len * head_dim)
  + w (Read "K") * (batch * kv_heads * group * head_dim * cols)
  + w (Read "V") * (batch * kv_heads * group * value_dim * cols)
  + w (Write "O") * (batch * kv_heads * group * q_len * value_dim)
  + w (Write "L") * (batch * kv_heads * group * q_len)
  + w Flop * (2 * batch * kv_heads * group * cells * (head_dim + value_dim))
  + w Exp * (batch * kv_heads * group * (cells + rows)).
Proof. unfold flash4. closed_form. Qed.

Definition flash4_padding
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  (* kernel "flash4" *)
  For batch (fun b =>
    For kv_heads (fun h => For group (fun g => For (cdiv q_len (2 * tile_q)) (fun i =>
      let rows_i := tile q_len (2 * tile_q) i in
      Seq [
        Load "Q" (rows_i * head_dim);
        ForSeen (cdiv kv_len tile_kv) (fun j => sees i j) (fun j =>
          let cols_j := tile kv_len tile_kv j in
          Seq [
            Load "K" (cols_j * head_dim);
            Load "V" (cols_j * value_dim);
            Flops (2 * rows_i * cols_j * head_dim);
            Load "padding" cols_j;
            Exps (rows_i * cols_j);
            Exps rows_i;
            Flops (2 * rows_i * cols_j * value_dim)
          ]);
        Store "O" (rows_i * value_dim);
        Store "L" rows_i
      ])))).

(** FlashAttention-4: two query tiles to a block, lazy rescaling; backward by pairs of CTAs (forward, padding): all that
    it moves and computes, whatever a word of each tensor and an operation weigh (w), for every mask, every size and
    every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem flash4_padding_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len (2 * tile_q) tile_kv in
  let cols := seen_cols sees q_len kv_len (2 * tile_q) tile_kv in
  let cells := seen_cells sees q_len kv_len (2 * tile_q) tile_kv in
  count w (flash4_padding batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "Q") * (batch * kv_heads * group * q_len * head_dim)
  + w (Read "K") * (batch * kv_heads * group * head_dim * cols)
  + w (Read "V") * (batch * kv_heads * group * value_dim * cols)
  + w (Read "padding") * (batch * kv_heads * group * cols)
  + w (Write "O") * (batch * kv_heads * group * q_len * value_dim)
  + w (Write "L") * (batch * kv_heads * group * q_len)
  + w Flop * (2 * batch * kv_heads * group * cells * (head_dim + value_dim))
  + w Exp * (batch * kv_heads * group * (cells + rows)).
Proof. unfold flash4_padding. closed_form. Qed.

Definition flash4_backward
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "preprocess" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        Load "O" (rows_i * value_dim);
        Load "dO" (rows_i * value_dim);
        Store "D" rows_i;
        Store "dQ_sum" (rows_i * head_dim)
      ]))));
    (* kernel "main, pairs of CTAs" *)
    For batch (fun b => For kv_heads (fun h => For (cdiv kv_len (2 * tile_kv)) (fun j =>
      let cols_j := tile kv_len (2 * tile_kv) j in
      Seq [
        Load "K" (cols_j * head_dim);
        Load "V" (cols_j * value_dim);
        For group (fun g => ForSeen (cdiv q_len tile_q) (fun i => sees i j) (fun i =>
          let rows_i := tile q_len tile_q i in
          Seq [
            Load "Q" (rows_i * head_dim);
            Load "dO" (rows_i * value_dim);
            Load "L" rows_i;
            Load "D" rows_i;
            Flops (2 * rows_i * cols_j * head_dim);
            Exps (rows_i * cols_j);
            Flops (2 * rows_i * cols_j * value_dim);
            Flops (2 * rows_i * cols_j * value_dim);
            Flops (2 * rows_i * cols_j * head_dim);
            AtomicAdd "dQ_sum" (rows_i * head_dim);
            Flops (2 * rows_i * cols_j * head_dim)
          ]));
        Store "dK" (cols_j * head_dim);
        Store "dV" (cols_j * value_dim)
      ])));
    (* kernel "convert" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        Load "dQ_sum" (rows_i * head_dim);
        Store "dQ" (rows_i * head_dim)
      ]))))
  ].

(** FlashAttention-4: two query tiles to a block, lazy rescaling; backward by pairs of CTAs (backward): all that it
    moves and computes, whatever a word of each tensor and an operation weigh (w), for every mask, every size and every
    tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem flash4_backward_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q (2 * tile_kv) in
  let cells := seen_cells sees q_len kv_len tile_q (2 * tile_kv) in
  count w (flash4_backward batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "O") * (batch * kv_heads * group * q_len * value_dim)
  + w (Read "dO") * (batch * kv_heads * group * value_dim * (q_len + rows))
  + w (Read "D") * (batch * kv_heads * group * rows)
  + w (Write "D") * (batch * kv_heads * group * q_len)
  + w (Read "dQ_sum") * (batch * kv_heads * group * q_len * head_dim)
  + w (Write "dQ_sum") * (batch * kv_heads * group * q_len * head_dim)
  + w (Add "dQ_sum") * (batch * kv_heads * group * head_dim * rows)
  + w (Read "K") * (batch * kv_heads * kv_len * head_dim)
  + w (Read "V") * (batch * kv_heads * kv_len * value_dim)
  + w (Read "Q") * (batch * kv_heads * group * head_dim * rows)
  + w (Read "L") * (batch * kv_heads * group * rows)
  + w (Write "dK") * (batch * kv_heads * kv_len * head_dim)
  + w (Write "dV") * (batch * kv_heads * kv_len * value_dim)
  + w (Write "dQ") * (batch * kv_heads * group * q_len * head_dim)
  + w Flop * (2 * batch * kv_heads * group * cells * (3 * head_dim + 2 * value_dim))
  + w Exp * (batch * kv_heads * group * cells).
Proof. unfold flash4_backward. closed_form. Qed.

Definition flash4_backward_padding
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "preprocess" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        Load "O" (rows_i * value_dim);
        Load "dO" (rows_i * value_dim);
        Store "D" rows_i;
        Store "dQ_sum" (rows_i * head_dim)
      ]))));
    (* kernel "main, pairs of CTAs" *)
    For batch (fun b => For kv_heads (fun h => For (cdiv kv_len (2 * tile_kv)) (fun j =>
      let cols_j := tile kv_len (2 * tile_kv) j in
      Seq [
        Load "K" (cols_j * head_dim);
        Load "V" (cols_j * value_dim);
        Load "padding" cols_j;
        For group (fun g => ForSeen (cdiv q_len tile_q) (fun i => sees i j) (fun i =>
          let rows_i := tile q_len tile_q i in
          Seq [
            Load "Q" (rows_i * head_dim);
            Load "dO" (rows_i * value_dim);
            Load "L" rows_i;
            Load "D" rows_i;
            Flops (2 * rows_i * cols_j * head_dim);
            Exps (rows_i * cols_j);
            Flops (2 * rows_i * cols_j * value_dim);
            Flops (2 * rows_i * cols_j * value_dim);
            Flops (2 * rows_i * cols_j * head_dim);
            AtomicAdd "dQ_sum" (rows_i * head_dim);
            Flops (2 * rows_i * cols_j * head_dim)
          ]));
        Store "dK" (cols_j * head_dim);
        Store "dV" (cols_j * value_dim)
      ])));
    (* kernel "convert" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        Load "dQ_sum" (rows_i * head_dim);
        Store "dQ" (rows_i * head_dim)
      ]))))
  ].

(** FlashAttention-4: two query tiles to a block, lazy rescaling; backward by pairs of CTAs (backward, padding): all
    that it moves and computes, whatever a word of each tensor and an operation weigh (w), for every mask, every size
    and every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem flash4_backward_padding_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  let rows := seen_rows sees q_len kv_len tile_q (2 * tile_kv) in
  let cells := seen_cells sees q_len kv_len tile_q (2 * tile_kv) in
  count w (flash4_backward_padding batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "O") * (batch * kv_heads * group * q_len * value_dim)
  + w (Read "dO") * (batch * kv_heads * group * value_dim * (q_len + rows))
  + w (Read "D") * (batch * kv_heads * group * rows)
  + w (Write "D") * (batch * kv_heads * group * q_len)
  + w (Read "dQ_sum") * (batch * kv_heads * group * q_len * head_dim)
  + w (Write "dQ_sum") * (batch * kv_heads * group * q_len * head_dim)
  + w (Add "dQ_sum") * (batch * kv_heads * group * head_dim * rows)
  + w (Read "K") * (batch * kv_heads * kv_len * head_dim)
  + w (Read "V") * (batch * kv_heads * kv_len * value_dim)
  + w (Read "padding") * (batch * kv_heads * kv_len)
  + w (Read "Q") * (batch * kv_heads * group * head_dim * rows)
  + w (Read "L") * (batch * kv_heads * group * rows)
  + w (Write "dK") * (batch * kv_heads * kv_len * head_dim)
  + w (Write "dV") * (batch * kv_heads * kv_len * value_dim)
  + w (Write "dQ") * (batch * kv_heads * group * q_len * head_dim)
  + w Flop * (2 * batch * kv_heads * group * cells * (3 * head_dim + 2 * value_dim))
  + w Exp * (batch * kv_heads * group * cells).
Proof. unfold flash4_backward_padding. closed_form. Qed.

Definition split_kv
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "split" *)
    For batch (fun b => For kv_heads (fun h => For (cdiv kv_len tile_kv) (fun j =>
      let cols_j := tile kv_len tile_kv j in
      Seq [
        Load "K" (cols_j * head_dim);
        Load "V" (cols_j * value_dim);
        For group (fun g => For (cdiv q_len tile_q) (fun i =>
          let rows_i := tile q_len tile_q i in
          Seq [
            Load "Q" (rows_i * head_dim);
            Flops (2 * rows_i * cols_j * head_dim);
            Exps (rows_i * cols_j);
            Flops (2 * rows_i * cols_j * value_dim);
            Store "O_part" (rows_i * value_dim);
            Store "L_part" rows_i
          ]))
      ])));
    (* kernel "combine" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        For (cdiv kv_len tile_kv) (fun j =>
          Seq [
            Load "O_part" (rows_i * value_dim);
            Load "L_part" rows_i;
            Exps rows_i;
            Exps rows_i
          ]);
        Store "O" (rows_i * value_dim);
        Store "L" rows_i
      ]))))
  ].

(** one thread block per key tile for all queries, partial results combined; forward only (forward): all that it moves
    and computes, whatever a word of each tensor and an operation weigh (w), for every mask, every size and every tile,
    ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem split_kv_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  count w (split_kv batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "K") * (batch * kv_heads * kv_len * head_dim)
  + w (Read "V") * (batch * kv_heads * kv_len * value_dim)
  + w (Read "Q") * (batch * kv_heads * group * q_len * head_dim * cdiv kv_len tile_kv)
  + w (Read "O_part") * (batch * kv_heads * group * q_len * value_dim * cdiv kv_len tile_kv)
  + w (Write "O_part") * (batch * kv_heads * group * q_len * value_dim * cdiv kv_len tile_kv)
  + w (Read "L_part") * (batch * kv_heads * group * q_len * cdiv kv_len tile_kv)
  + w (Write "L_part") * (batch * kv_heads * group * q_len * cdiv kv_len tile_kv)
  + w (Write "O") * (batch * kv_heads * group * q_len * value_dim)
  + w (Write "L") * (batch * kv_heads * group * q_len)
  + w Flop * (2 * batch * kv_heads * group * q_len * kv_len * (head_dim + value_dim))
  + w Exp * (batch * kv_heads * group * q_len * (kv_len + 2 * cdiv kv_len tile_kv)).
Proof. unfold split_kv. closed_form. Qed.

Definition split_kv_padding
    (batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv : nat) (sees : nat -> nat -> bool) : prog :=
  Seq [
    (* kernel "split" *)
    For batch (fun b => For kv_heads (fun h => For (cdiv kv_len tile_kv) (fun j =>
      let cols_j := tile kv_len tile_kv j in
      Seq [
        Load "K" (cols_j * head_dim);
        Load "V" (cols_j * value_dim);
        Load "padding" cols_j;
        For group (fun g => For (cdiv q_len tile_q) (fun i =>
          let rows_i := tile q_len tile_q i in
          Seq [
            Load "Q" (rows_i * head_dim);
            Flops (2 * rows_i * cols_j * head_dim);
            Exps (rows_i * cols_j);
            Flops (2 * rows_i * cols_j * value_dim);
            Store "O_part" (rows_i * value_dim);
            Store "L_part" rows_i
          ]))
      ])));
    (* kernel "combine" *)
    For batch (fun b => For kv_heads (fun h => For group (fun g => For (cdiv q_len tile_q) (fun i =>
      let rows_i := tile q_len tile_q i in
      Seq [
        For (cdiv kv_len tile_kv) (fun j =>
          Seq [
            Load "O_part" (rows_i * value_dim);
            Load "L_part" rows_i;
            Exps rows_i;
            Exps rows_i
          ]);
        Store "O" (rows_i * value_dim);
        Store "L" rows_i
      ]))))
  ].

(** one thread block per key tile for all queries, partial results combined; forward only (forward, padding): all that
    it moves and computes, whatever a word of each tensor and an operation weigh (w), for every mask, every size and
    every tile, ragged ones included.
    Used by: simulator/ioaware/readers/count.py (count). *)
Theorem split_kv_padding_counts :
  forall w batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees,
  0 < tile_q -> 0 < tile_kv ->
  count w (split_kv_padding batch kv_heads group q_len kv_len head_dim value_dim tile_q tile_kv sees) =
    w (Read "K") * (batch * kv_heads * kv_len * head_dim)
  + w (Read "V") * (batch * kv_heads * kv_len * value_dim)
  + w (Read "padding") * (batch * kv_heads * kv_len)
  + w (Read "Q") * (batch * kv_heads * group * q_len * head_dim * cdiv kv_len tile_kv)
  + w (Read "O_part") * (batch * kv_heads * group * q_len * value_dim * cdiv kv_len tile_kv)
  + w (Write "O_part") * (batch * kv_heads * group * q_len * value_dim * cdiv kv_len tile_kv)
  + w (Read "L_part") * (batch * kv_heads * group * q_len * cdiv kv_len tile_kv)
  + w (Write "L_part") * (batch * kv_heads * group * q_len * cdiv kv_len tile_kv)
  + w (Write "O") * (batch * kv_heads * group * q_len * value_dim)
  + w (Write "L") * (batch * kv_heads * group * q_len)
  + w Flop * (2 * batch * kv_heads * group * q_len * kv_len * (head_dim + value_dim))
  + w Exp * (batch * kv_heads * group * q_len * (kv_len + 2 * cdiv kv_len tile_kv)).
Proof. unfold split_kv_padding. closed_form. Qed.
