"""Benchmarks, of the emulated machine and of the host, and the published figures they are held against."""
