"""PTX, executed without a GPU: parse -> analyse -> execute on NumPy in lock step -> count, and check every access.

parse                          text to kernels, blocks, instructions
analyse                        control flow, liveness, where pointers come from
ops, arithmetic                the one table of what opcodes mean, and the functions that NumPy lacks
slots, steps                   instructions as Python functions of a list of slots
grid                           the engine: a whole grid of thread blocks in lock step
global_memory, shared_memory   values, bounds, counts
context, findings              the thread blocks in flight, and what was found wrong
shadow                         races, uninitialised reads
count                          bytes per site and tensor, 32-byte sectors, bank conflicts
"""
