"""What each kernel object does on a message: one module for each object's protocol.

Every handler has the signature of `common.Handler`: the caller and its message in, the answer's tag
out. Refusals are answers too. Order inside a handler: label, right, word count, opcode, arguments
(ABI sheet section 6, "Error order"), then the point of no return.
"""
