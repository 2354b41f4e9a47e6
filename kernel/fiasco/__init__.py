"""The interface of Fiasco.OC on ia32: its numbers, its system call, its messages and objects."""
