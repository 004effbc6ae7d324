"""The simulated algorithms as real CUDA kernels: run on any machine, counted, checked. docs/kernels.md says how."""
