"""Payloads and what they stand for; whatever they are, a request, None or PacketError comes out."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4lab.tools.debug.gdb.ids import ALL, ANY, PacketError, ThreadId, parse_thread_id
from l4lab.tools.debug.gdb.packets import breakpoints, files, memory, queries, resume, threads
from l4lab.tools.debug.gdb.packets import registers as r
from l4lab.tools.debug.gdb.packets.parsing import PARSERS, Request, parse

KNOWN: list[tuple[bytes, Request]] = [
    (b"qSupported", queries.Supported(())),
    (b"qSupported:multiprocess+;swbreak+", queries.Supported(("multiprocess+", "swbreak+"))),
    (b"QStartNoAckMode", queries.NoAcknowledgements()),
    (b"qXfer:features:read:target.xml:0,ffb", queries.Transfer("features", "target.xml", 0, 0xFFB)),
    (b"qXfer:threads:read::1a,10", queries.Transfer("threads", "", 0x1A, 0x10)),
    (b"qXfer:osdata:read:a:b:0,1", queries.Transfer("osdata", "a:b", 0, 1)),
    (b"qRcmd,68656c70", queries.MonitorCommand("help")),
    (b"qRcmd,ff", queries.MonitorCommand("�")),
    (b"qAttached", queries.Attached()),
    (b"qAttached:1f", queries.Attached()),
    (b"qSymbol::", queries.SymbolsWanted()),
    (b"qqemu.PhyMemMode", queries.MemoryMode(None)),
    (b"Qqemu.PhyMemMode:1", queries.MemoryMode(True)),
    (b"Qqemu.PhyMemMode:0", queries.MemoryMode(False)),
    (b"qqemu.Supported", queries.QemuSupported()),
    (b"Hg0", threads.SelectThread("g", ThreadId(None, ANY))),
    (b"Hc-1", threads.SelectThread("c", ThreadId(None, ALL))),
    (b"Hgp7.9", threads.SelectThread("g", ThreadId(7, 9))),
    (b"Hgp7", threads.SelectThread("g", ThreadId(7, ALL))),
    (b"Tp1.3b9aca00", threads.ThreadAlive(ThreadId(1, 1_000_000_000))),
    (b"qC", threads.CurrentThread()),
    (b"qfThreadInfo", threads.ListThreads(first=True)),
    (b"qsThreadInfo", threads.ListThreads(first=False)),
    (b"qThreadExtraInfo,p6.8", threads.ThreadText(ThreadId(6, 8))),
    (b"m1000,4", memory.ReadMemory(0x1000, 4)),
    (b"M1000,2:abcd", memory.WriteMemory(0x1000, b"\xab\xcd")),
    (b"X1000,3:a:,", memory.WriteMemory(0x1000, b"a:,")),
    (b"X0,0:", memory.WriteMemory(0, b"")),
    (b"g", r.ReadRegisters()),
    (b"G0011", r.WriteRegisters(b"\x00\x11")),
    (b"p1f", r.ReadRegister(0x1F)),
    (b"P8=78563412", r.WriteRegister(8, b"\x78\x56\x34\x12")),
    (b"Z0,8048032,1", breakpoints.SetBreakpoint(True, breakpoints.SOFTWARE, 0x8048032, 1)),
    (b"z4,20000000,4", breakpoints.SetBreakpoint(False, breakpoints.ACCESS_WATCH, 0x2000_0000, 4)),
    (b"?", resume.WhyStopped()),
    (b"vCont?", resume.WhichActions()),
    (b"vCont;c", resume.Resume((resume.Action("c", None),))),
    (
        b"vCont;r1000,1010:pf.10;C14:p6.8;s",
        resume.Resume(
            (
                resume.Action("r", ThreadId(15, 16), 0x1000, 0x1010),
                resume.Action("c", ThreadId(6, 8)),
                resume.Action("s", None),
            )
        ),
    ),
    (b"c", resume.Resume((resume.Action("c", None),), plain=True)),
    (b"C05", resume.Resume((resume.Action("c", None),), plain=True)),
    (b"s", resume.Resume((resume.Action("s", None),), plain=True)),
    (b"S05;", resume.Resume((resume.Action("s", None),), plain=True)),
    (b"bs", resume.ResumeBack(step=True)),
    (b"bc", resume.ResumeBack(step=False)),
    (b"D", resume.Detach(None)),
    (b"D;1f", resume.Detach(0x1F)),
    (b"k", resume.Kill(None)),
    (b"vKill;1", resume.Kill(1)),
    (b"vCtrlC", resume.InterruptRequest()),
    (b"vFile:setfs:0", files.SetFilesystem(0)),
    (b"vFile:open:2f61,0,0", files.OpenFile("/a", 0)),
    (b"vFile:pread:0,1000,20", files.ReadFile(0, 0x1000, 0x20)),
    (b"vFile:fstat:1", files.StatFile(1)),
    (b"vFile:close:1", files.CloseFile(1)),
]
NOT_HERE = [
    *(b"", b"!", b"R00", b"vRun", b"vAttach;1", b"vMustReplyEmpty", b"vFile:unlink:2f61", b"vFlashErase:0,1"),
    *(
        b"qXfer:siginfo:write::0:00",
        b"qSupportedX",
        b"qCRC:0,1",
        b"QNonStop:1",
        b"QPassSignals:e",
        b"QAgent:1",
    ),
    *(b"qTStatus", b"i", b"A", b"B", b"d", b"e", b"f", b"j", b"l", b"n", b"o", b"qGetTLSAddr:0,0,0", b"bx"),
]
WRONG = [
    *(b"m", b"m1000", b"m1000,", b"m,4", b"mg,4", b"m-1,4", b"m1000,4,4", b"m0x10,4", b"m 1,4", b"m1_0,4"),
    *(b"m10000000000000000,1", b"M1000,2", b"M1000,2:ab", b"M1000,2:abc", b"M1000,1:zz", b"X1000,2:a"),
    *(
        b"Z",
        b"Z0",
        b"Z0,1",
        b"Z5,1,1",
        b"Z0,1,1;X1,22",
        b"z9,0,0",
        b"Gabc",
        b"p",
        b"pzz",
        b"P1",
        b"P=00",
        b"P1=0",
    ),
    *(
        b"H",
        b"Hx0",
        b"Hg",
        b"Hgp",
        b"Hgp1.",
        b"Hg1.1",
        b"T",
        b"Tp.1",
        b"qThreadExtraInfo,",
        b"qRcmd,6",
        b"qRcmd,xy",
    ),
    *(
        b"vCont;",
        b"vCont;x",
        b"vCont;s:",
        b"vCont;r1:1",
        b"vCont;C",
        b"vCont;s1",
        b"vCont;c;;c",
        b"c1000",
        b"S",
    ),
    *(b"D;", b"D;x", b"vKill;", b"qAttached:x", b"vFile:open:2f61", b"vFile:pread:0,1", b"vFile:close:"),
    *(
        b"qXfer:features:read",
        b"qXfer:features:read:target.xml",
        b"qXfer:features:read::1",
        b"Qqemu.PhyMemMode:",
    ),
]


@pytest.mark.parametrize(("payload", "request_"), KNOWN, ids=[payload.decode() for payload, _ in KNOWN])
def test_a_request(payload: bytes, request_: Request) -> None:
    assert parse(payload) == request_


def test_every_parser_is_tried() -> None:
    tried = [payload for payload, _ in KNOWN]
    assert all(any(payload.startswith(prefix) for payload in tried) for prefix, _ in PARSERS)


@pytest.mark.parametrize("payload", NOT_HERE)
def test_what_is_not_known_here_is_no_request(payload: bytes) -> None:
    assert parse(payload) is None


@pytest.mark.parametrize("payload", WRONG)
def test_what_is_wrong_is_refused(payload: bytes) -> None:
    with pytest.raises(PacketError):
        parse(payload)


PREFIXES = st.sampled_from([prefix for prefix, _ in PARSERS])


@given(st.binary(max_size=60) | st.builds(bytes.__add__, PREFIXES, st.binary(max_size=60)))
def test_any_payload_is_a_request_or_none_or_refused(payload: bytes) -> None:
    with contextlib.suppress(PacketError):
        request = parse(payload)
        assert request is None or dataclasses.is_dataclass(request)


@given(st.sampled_from([payload for payload, _ in KNOWN]), st.data())
def test_a_request_with_a_byte_changed_is_one_or_none_or_refused(payload: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(payload) - 1))
    changed = payload[:at] + data.draw(st.binary(max_size=2)) + payload[at + 1 :]
    with contextlib.suppress(PacketError):
        request = parse(changed)
        assert request is None or dataclasses.is_dataclass(request)


@given(st.one_of(st.none(), st.integers(-1, 1 << 40)), st.integers(-1, 1 << 40))
def test_thread_ids_are_read_as_they_are_written(pid: int | None, tid: int) -> None:
    assert parse_thread_id(ThreadId(pid, tid).encode()) == ThreadId(pid, tid)
