"""Benchmarks of the host: what engine, kernel, many cores and debugging cost it; no two runs agree to the digit."""
