"""Debuggers: gdb, the terminal interface, and the views of a machine that stands still."""
