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

PARSERS: Final[tuple[tuple[bytes, Callable[[bytes], Request | None]], ...]] = (
    (b"vFile:", files.parse),
    (b"vCont", resume.parse_vcont),
    (b"vKill", resume.parse_kill),
    (b"vCtrlC", resume.parse_interrupt),
    (b"qXfer:", queries.parse_transfer),
    (b"qSupported", queries.parse_supported),
    (b"qRcmd,", queries.parse_command),
    (b"qfThreadInfo", threads.parse_list),
    (b"qsThreadInfo", threads.parse_list),
    (b"qThreadExtraInfo,", threads.parse_extra),
    (b"qC", threads.parse_current),
    (b"qAttached", queries.parse_attached),
    (b"qSymbol", queries.parse_symbol),
    (b"qqemu.", queries.parse_qemu),
    (b"Qqemu.", queries.parse_qemu),
    (b"QStartNoAckMode", queries.parse_no_ack),
    (b"?", resume.parse_why),
    (b"bs", resume.parse_back),
    (b"bc", resume.parse_back),
    (b"c", resume.parse_plain),
    (b"C", resume.parse_plain),
    (b"s", resume.parse_plain),
    (b"S", resume.parse_plain),
    (b"D", resume.parse_detach),
    (b"k", resume.parse_kill),
    (b"g", registers.parse_all),
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
    for prefix, parser in PARSERS:
        if payload.startswith(prefix):
            return parser(payload)
    return None
