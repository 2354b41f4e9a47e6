"""Random programs against the kernel: any number of system calls, and not one violation."""
