"""The microkernel: pure Python, standard library only, no CPU.

Read `entry.py` first: a trap comes in, a decision goes out.
"""
