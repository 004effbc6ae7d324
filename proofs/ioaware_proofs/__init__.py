"""The third leg of ioaware: machine-checked proofs under the numbers. Nothing is here yet; see the README."""
