"""The list of modules that the boot loader leaves to the root task. Ref: ABI sheet section 13."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from l4lab.kernel.fiasco import abi

if TYPE_CHECKING:
    from collections.abc import Sequence

    from l4lab.kernel.interface import BootModule


def module_list(address: int, modules: Sequence[BootModule]) -> bytes:
    """Header, module array, command lines, to stand at `address`; the header's own command line is the root task's.

    `modules`: sigma0, the root task, and the others.
    """
    array_at = address + abi.MODULE_INFO_BYTES
    text_at = array_at + len(modules) * abi.MODULE_BYTES
    kinds = (abi.MODULE_TYPE_SIGMA0, abi.MODULE_TYPE_ROOT, *[abi.MODULE_TYPE_NORMAL] * (len(modules) - 2))
    entries, texts = bytearray(), bytearray()
    root_line = 0
    for kind, module in zip(kinds, modules, strict=True):
        line_at = text_at + len(texts)
        root_line = line_at if kind == abi.MODULE_TYPE_ROOT else root_line
        entries += struct.pack("<4Q", kind, module.start, module.end, line_at)
        texts += module.command_line + b"\0"
    return struct.pack("<3Q2I2Q", 0, root_line, array_at, len(modules), 0, 0, 0) + entries + texts
