"""A GPU's own word: hardware counters through Nsight Compute, and compute-sanitizer as a second opinion.

Both look at a small process (worker.py) that launches kernels through the engine `cuda` and does nothing else.
docs/counters.md says which counter answers which prediction.
"""
