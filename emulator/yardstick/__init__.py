"""Unicorn alone, through its own Python binding: what benchmarks of the host hold ours against."""
