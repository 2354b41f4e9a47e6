"""The four kinds of error, and which of them are exceptions.

an IPC or system call error for a guest   a returned code of `abi`, never an exception
a guest's fault                           a value (`traps`), delivered to a handler thread
our own mistake                           KernelBug: stops the machine, state dumped
the operator's mistake                    emulator.errors.OperatorError: one line, exit code 2
"""


class KernelBug(Exception):
    """The kernel broke one of its own rules. Never the guest's doing.

    `detail` is the invariant that failed and the objects it names; whoever catches it
    (the machine) adds a dump of the kernel's state.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
