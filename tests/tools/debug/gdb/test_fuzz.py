"""Sessions of random packets against a machine with real programs: whatever comes, an answer or silence.

Looking, stopping, stepping and travelling leave no trace in the result. Changing memory and registers does,
but whatever is put there, the kernel copes, as it does with any program.
"""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l4lab.emulator.debug.stops import StopKind
from l4lab.emulator.machine import Machine
from l4lab.emulator.results import collect
from l4lab.tools.debug.gdb.framing import encode
from support.gdb_client import Client
from support.runs import image

IMAGE = "pagefault"

addresses = st.one_of(
    st.sampled_from(
        [0, 0x8048032, 0x2000_0000, 0x2000_0FFE, 0xB2FF_FF80, 0xB400_0020, 0xEACF_F000, 0xFFFF_FFFF]
    ),
    st.integers(0, 1 << 33),
)
sizes = st.one_of(st.integers(0, 40), st.sampled_from([0x1000, 0x10000, 1 << 32, 1 << 63]))
thread_ids = st.one_of(
    st.sampled_from(
        ["0", "-1", "8", "p6.8", "p7.9", "pb.c", "pf.10", "p13.14", "p1.3b9aca00", "p1.3b9aca01"]
    ),
    st.sampled_from(["p-1.-1", "pf.-1", "p0.0", "p6.10", "p63.63", "p1.1"]),
    st.builds("p{:x}.{:x}".format, st.integers(0, 1 << 33), st.integers(0, 1 << 33)),
)
commands = st.sampled_from(
    [
        *(
            "catch fault",
            "catch map task=hello.1",
            "catch ipc",
            "catch unmap",
            "catch exception",
            "delete",
            "steps on",
        ),
        *(
            "back fault",
            "back map",
            "back ipc thread=pager.0",
            "forth fault",
            "forth entry",
            "forth cap",
            "where",
        ),
        *(
            "goto 0",
            "goto 700000",
            "goto 700000 1",
            "goto 99999999",
            "goto 1 9",
            "bt",
            "bt pager.0",
            "threads",
        ),
        *(
            "tasks",
            "caps",
            "ptable",
            "ptable hello.0 0x20000000",
            "mapdb 0x20000000",
            "info mem",
            "memory",
            "'",
        ),
        *(
            "message",
            "thread",
            "objects task",
            "ready",
            "quietly goto 680000",
            "quietly",
            "",
            "help",
            "info x",
            "x\0y",
        ),
    ]
)
letters = st.sampled_from("01234")
looking = st.one_of(
    st.sampled_from(
        ["?", "g", "qC", "qfThreadInfo", "vCont?", "qqemu.PhyMemMode", "Qqemu.PhyMemMode:0", "!", "i"]
    ),
    st.sampled_from(["qAttached:6", "QStartNoAckMode", "qSupported:multiprocess+;swbreak+", "qSupported"]),
    st.builds("p{:x}".format, st.integers(0, 70)),
    st.builds("m{:x},{:x}".format, addresses, sizes),
    st.builds("H{}{}".format, st.sampled_from("gc"), thread_ids),
    st.builds("T{}".format, thread_ids),
    st.builds("qThreadExtraInfo,{}".format, thread_ids),
    st.builds("{}{},{:x},{:x}".format, st.sampled_from("Zz"), letters, addresses, sizes),
    st.builds(
        "qXfer:{}:read:{}:{:x},{:x}".format,
        st.sampled_from(["features", "threads", "memory-map", "osdata", "exec-file"]),
        st.sampled_from(["", "target.xml", "threads", "objects", "f", "zz"]),
        sizes,
        sizes,
    ),
    st.builds(lambda text: f"qRcmd,{text.encode().hex()}", commands),
    st.builds("vFile:{}:{:x},{:x},{:x}".format, st.sampled_from(["open", "pread"]), sizes, sizes, sizes),
)
moving = st.one_of(
    st.sampled_from(["vCont;c", "c", "s", "bs", "bc", "vCont;s", "vCtrlC"]),
    st.builds("vCont;s:{};c".format, thread_ids),
    st.builds("vCont;r{:x},{:x}:{}".format, addresses, addresses, thread_ids),
)
changing = st.one_of(
    st.just("Qqemu.PhyMemMode:1"),
    st.builds("P{:x}={}".format, st.integers(0, 70), st.binary(min_size=4, max_size=4).map(bytes.hex)),
    st.builds(lambda at, data: f"M{at:x},{len(data):x}:{data.hex()}", addresses, st.binary(max_size=8)),
    st.builds(lambda data: f"G{data.hex()}", st.binary(min_size=376, max_size=376)),
)
damaged = st.one_of(st.binary(max_size=20), st.text("$#+-}\x03az09", max_size=12).map(str.encode))
meanwhile = st.lists(st.one_of(st.just(b""), st.just(b"\x03"), damaged), max_size=3)


@cache
def undebugged() -> tuple[list[int], bytes, object]:
    machine = Machine(image(IMAGE))
    result = machine.run()
    return [core.clock_cycles for core in machine.cores], bytes(machine.output), result.as_dict()


def talk(client: Client, packets: list[str | bytes], interruptions: list[bytes]) -> None:
    """Packets as text; bytes as they are."""
    arriving = iter(interruptions)
    client.meanwhile = lambda: next(arriving, b"")
    for packet in packets:
        if client.session.closed:
            break
        client.feed(encode(packet.encode("latin-1")) if isinstance(packet, str) else packet)


def leave(client: Client) -> None:
    """As the server does when a client has gone; then to the end."""
    client.target.clear_breakpoints()
    client.debugger.set_catches(())
    client.debugger.tells_new_tasks = False
    client.monitor.steps.follow(False)
    stop = client.debugger.resume()
    while stop.kind not in (StopKind.END, StopKind.BUG):
        stop = client.debugger.resume()
    assert stop.kind is StopKind.END, stop.text


@pytest.mark.slow
@settings(max_examples=60)
@given(st.lists(st.one_of(looking, moving, looking, damaged), min_size=5, max_size=40), meanwhile)
def test_looking_and_moving_never_fail_and_change_no_cycle(
    packets: list[str | bytes], interruptions: list[bytes]
) -> None:
    client = Client(IMAGE)
    talk(client, packets, interruptions)
    leave(client)
    clocks, output, result = undebugged()
    stop = client.debugger.last_stop
    assert stop.result is not None
    assert [core.clock_cycles for core in client.machine.cores] == clocks
    assert client.machine.output == output
    assert collect(client.machine, stop.result).as_dict() == result


@pytest.mark.slow
@settings(max_examples=60)
@given(st.lists(st.one_of(changing, moving, looking), min_size=5, max_size=40))
def test_whatever_is_changed_the_kernel_copes(packets: list[str | bytes]) -> None:
    client = Client(IMAGE)
    client.machine.limit_cycles = 3_000_000
    talk(client, packets, [])
    leave(client)


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_client_that_vanishes_in_the_middle_of_a_packet(cut: int) -> None:
    client = Client(IMAGE)
    assert client.feed(encode(b"vCont;c:8")[:cut]) == []
    leave(client)
    assert [core.clock_cycles for core in client.machine.cores] == undebugged()[0]
