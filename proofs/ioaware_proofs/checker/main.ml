(* Read a trace, let the extracted checker play it, print what it says. The text of a trace:

     M d dv              words of fast memory, length of a row of Q and K, length of a row of V; then, in any order,
     list 0 1 2          a list of numbers; lists are named by their own numbers, from 0 on
     row I LIST          query row I sees the keys of a list
     load WORD DROPPED   or store WORD ..., compute WORD ...: an operation and the words that are dropped after it

   with words Q i a, K j a, V j c, P i j LIST (a score), O i c LIST (an output, keys that are summed), X n. *)
open Checker

let lists : int list array ref = ref (Array.make 16 [])
let known = ref 0

let add_list l =
  if !known = Array.length !lists then lists := Array.append !lists (Array.make !known []);
  !lists.(!known) <- l;
  incr known

let number = int_of_string
let list n = let n = number n in if n < !known then !lists.(n) else failwith "unknown list"

let rec words = function
  | [] -> []
  | "Q" :: i :: a :: rest -> Left (QK, number i, number a) :: words rest
  | "K" :: j :: a :: rest -> Right (QK, number j, number a) :: words rest
  | "V" :: j :: c :: rest -> Right (GV, number j, number c) :: words rest
  | "P" :: i :: j :: l :: rest -> Part (QK, number i, number j, list l) :: words rest
  | "O" :: i :: c :: l :: rest -> Out (number i, number c, list l) :: words rest
  | "X" :: n :: rest -> Other (number n) :: words rest
  | other :: _ -> failwith ("no word: " ^ other)

let computed = function
  | Part (p, i, j, l) -> Dot (p, i, j, l)
  | Out (i, c, []) -> Zero (i, c)
  | Out (i, c, l) -> Accumulate (i, c, l)
  | Other n -> Misc n
  | Left _ | Right _ -> failwith "inputs are not computed"

let operation verb rest =
  match verb, words rest with
  | "load", w :: dropped -> (Load w, dropped)
  | "store", w :: dropped -> (Store w, dropped)
  | "compute", w :: dropped -> (computed w, dropped)
  | _ -> failwith ("no operation: " ^ verb)

let reason = function
  | NeverStored -> "NeverStored"
  | NotInFast -> "NotInFast"
  | NoOperand -> "NoOperand"
  | TooManyWords -> "TooManyWords"

let () =
  let header = input_line stdin in
  let m, d, dv = Scanf.sscanf header "%d %d %d" (fun m d dv -> (m, d, dv)) in
  let rows = ref [] and trace = ref [] in
  (try
     while true do
       match String.split_on_char ' ' (input_line stdin) with
       | "list" :: numbers -> add_list (List.map number numbers)
       | [ "row"; i; l ] -> rows := (number i, list l) :: !rows
       | verb :: rest -> trace := operation verb rest :: !trace
       | [] -> ()
     done
   with End_of_file -> ());
  print_endline
    (match check m d dv (List.rev !rows) (List.rev !trace) with
    | Accepted (loads, stores) -> Printf.sprintf "Accepted %d %d" loads stores
    | Rejected (n, why) -> Printf.sprintf "Rejected %d %s" n (reason why)
    | Unfinished (i, k) -> Printf.sprintf "Unfinished %d %d" i k
    | Unordered -> "Unordered")
