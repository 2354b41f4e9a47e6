"""What is compiled: the shim and the user programs with one pinned compiler, and the C header of the interface."""
