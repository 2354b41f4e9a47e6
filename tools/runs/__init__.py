"""Runs: boot and record one, read what it left, many of them, and what addresses in them are called."""
