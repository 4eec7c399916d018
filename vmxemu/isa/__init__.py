"""Facts of the instruction set: the tables in isa/ as typed rows and as uint64 constants for kernels."""
