"""The third leg of ioaware: machine-checked proofs under the numbers, readable and recheckable from Python."""
