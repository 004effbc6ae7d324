"""PTX, executed without a GPU: parse -> analyse -> execute on NumPy in lock step -> count, and check every access.

parse     text to kernels, blocks, instructions
analyse   control flow, liveness, where pointers come from
ops       the one table of what opcodes mean
context   the thread blocks in flight, and what is watched
global_memory, shared_memory   bounds, counts, values
grid      the engine: a whole grid of thread blocks in lock step
shadow    races, uninitialised reads
count     bytes per site and tensor, 32-byte sectors, bank conflicts
"""
