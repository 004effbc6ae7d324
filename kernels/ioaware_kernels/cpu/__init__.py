"""The simulator's programs `naive` and `flash2` as kernels for this CPU, compiled by Numba, to be timed.

prepare.py    a kernel with its memory, ready to run          verify.py   is it right?
flash2.py, naive.py   the kernels     work.py, tiles.py   who does what, in tiles of which size
strip.py, matmul.py, exp.py, vector.py   what both are made of, from query strips down to vector registers

Numba caches machine code beside a source file, but does not see when a file that it calls changes: after editing one
of the last row, remove __pycache__.
"""
