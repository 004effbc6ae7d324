"""The designs of the FlashAttention kernels, a file per generation: roles, ledgers, matrix products, what overlaps."""
