"""A machine that can be stopped anywhere, looked at, and taken back in time."""
