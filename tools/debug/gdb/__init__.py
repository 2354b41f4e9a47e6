"""A gdb remote stub for machines: threads, address spaces, time both ways.

    framing      bytes <-> packets
    packets/     payloads -> requests, one file for each family; no effects
    session      one client's conversation: what a request does, what is answered
    target       the machine as gdb sees it
    server       sockets, and who runs when

Ref: "Debugging with GDB", appendix "GDB Remote Serial Protocol".
"""
