"""What people use: the command line, benchmarks, traces. Nothing imports this package."""
