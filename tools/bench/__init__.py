"""Benchmarks of the emulated machine, in its cycles, the same in every run; those of the host are in `host/`."""
