"""The second leg of ioaware: real CUDA kernels of the simulated algorithms. Nothing is here yet; see the README."""
