"""From a payload to the request it stands for. Parsing only; what a request does is in `conversation`.

`parse` finds the family by the payload's first letters. A payload that nobody knows is None, which the
client learns as an empty reply; one that is wrong raises PacketError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from l4lab.tools.debug.gdb.packets import breakpoints, files, memory, queries, registers, resume, threads

Request = (
    breakpoints.Request
    | files.Request
    | memory.Request
    | queries.Request
    | registers.Request
    | resume.Request
    | threads.Request
)

WHOLE: Final[dict[bytes, Request]] = {
    b"vCont?": resume.WhichActions(),
    b"vCtrlC": resume.InterruptRequest(),
    b"?": resume.WhyStopped(),
    b"bs": resume.ResumeBack(step=True),
    b"bc": resume.ResumeBack(step=False),
    b"D": resume.Detach(None),
    b"k": resume.Kill(None),
    b"g": registers.ReadRegisters(),
    b"qC": threads.CurrentThread(),
    b"qfThreadInfo": threads.ListThreads(first=True),
    b"qsThreadInfo": threads.ListThreads(first=False),
    b"qqemu.Supported": queries.QemuSupported(),
    b"qqemu.PhyMemMode": queries.MemoryMode(None),
    b"QStartNoAckMode": queries.NoAcknowledgements(),
}
"""Payloads that say all by themselves."""

PARSERS: Final[tuple[tuple[bytes, Callable[[bytes], Request | None]], ...]] = (
    (b"vFile:", files.parse),
    (b"vCont;", resume.parse_vcont),
    (b"vKill;", resume.parse_kill),
    (b"qXfer:", queries.parse_transfer),
    (b"qSupported", queries.parse_supported),
    (b"qRcmd,", queries.parse_command),
    (b"qThreadExtraInfo,", threads.parse_extra),
    (b"qSymbol:", lambda _: queries.SymbolsWanted()),
    (b"qAttached", queries.parse_attached),
    (b"Qqemu.", queries.parse_qemu),
    (b"c", resume.parse_plain),
    (b"C", resume.parse_plain),
    (b"s", resume.parse_plain),
    (b"S", resume.parse_plain),
    (b"D;", resume.parse_detach),
    (b"G", registers.parse_all),
    (b"p", registers.parse_one),
    (b"P", registers.parse_one),
    (b"m", memory.parse_read),
    (b"M", memory.parse_write),
    (b"X", memory.parse_write_binary),
    (b"H", threads.parse_select),
    (b"T", threads.parse_alive),
    (b"Z", breakpoints.parse),
    (b"z", breakpoints.parse),
)
"""By prefix; the first that fits parses."""


def parse(payload: bytes) -> Request | None:
    """The request that `payload` is; None if it is of a kind that is not known here. Raises PacketError."""
    if payload in WHOLE:
        return WHOLE[payload]
    for prefix, parser in PARSERS:
        if payload.startswith(prefix):
            return parser(payload)
    return None
