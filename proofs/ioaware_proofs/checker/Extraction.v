(* The checker of Checker.v as an OCaml program: numbers become machine integers. *)
From Coq Require Import Extraction ExtrOcamlBasic ExtrOcamlNatInt ExtrOcamlZInt.
From Coq Require Import PArith.
From IOAware Require Import Machine Checker.

(* Typed, so that OCaml compares integers and not values of any type. *)
Extract Inlined Constant Nat.eqb => "((=) : int -> int -> bool)".
Extract Inlined Constant Nat.leb => "((<=) : int -> int -> bool)".
Extract Inlined Constant Nat.ltb => "((<) : int -> int -> bool)".
Extract Constant Pos.of_succ_nat => "Stdlib.Int.succ".

Extraction "checker.ml" check.
