"""PTX compiled to machine code through LLVM: a warp is a vector of 32 lanes. Same counts and findings as the grid.

emit, registers  LLVM IR as text; PTX registers in it
opcodes, convert element-wise opcodes
memory           loads, stores, atomics: translated, bounded and counted
warp, tensor     what lanes of a warp do together; cp.async
sites, place     the accesses of a kernel; where one goes
regions          conditional code that needs no parking
control          divergence and barriers: the function of a warp
thread_blocks    the loop over thread blocks
translate        from instructions to all of these
runtime, layout  the state of a launch, and the rare cases in numba; the frame of a warp
compile          machine code, kept on disk
run              a launch
"""
