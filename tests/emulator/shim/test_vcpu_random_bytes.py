"""Random bytes as programs: whatever a guest executes, the process lives and the engine does as expected."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]

# Bytes that begin many different things, so that more than the next #UD is reached.
FREQUENT = bytes.fromhex(
    "89 8b 01 03 29 0f 66 f3 f2 f0 75 74 eb c3 e8 50 58 ff f7 83 81 c1 d9 dd dc a4 ab 9c 9d 8e cf 64 65 67"
)


def random_page(r: random.Random) -> bytes:
    return bytes(r.choice(FREQUENT) if r.random() < 0.5 else r.randrange(256) for _ in range(0x1000))


RUN = """
    import random, sys
    sys.path[:0] = [{tests!r}, {tests!r} + "/emulator/shim"]
    from support.guest import CODE, LARGE, READ_ONLY, READ_WRITE, Guest, instructions
    from test_vcpu_random_bytes import random_page
    from l4lab.kernel.frame import DS, ES, FS, GS, SS, EFLAGS, EIP, ESP

    r = random.Random({seed})
    guest = Guest(cores=2)
    for index in range(1024):  # every address leads somewhere
        if index != CODE >> 22:
            guest.ram.words[guest.space.directory * 1024 + index] = 0x0040_0000 | READ_WRITE | LARGE
    second = guest.new_page(CODE + 0x1000)
    guest.space.map(CODE, guest.code_pfn, READ_WRITE if {writable} else READ_ONLY)
    counted = 0
    for _ in range({pages}):
        guest.put(guest.code_pfn, random_page(r))
        guest.put(second, random_page(r))
        for _ in range(40):
            frame = guest.thread(CODE + r.randrange(0x1F00))
            for register in range(8):
                frame[register] = r.getrandbits(32)
            frame[ESP], frame[1] = 0x0060_0800, r.randrange(64)
            frame[EFLAGS] = r.choice((0x202, 0x202, 0x302, 0x246, 0xAD7))
            frame[FS], frame[GS] = r.choice((0, 0x23, 0x43)), r.choice((0, 0x23, 0x43))
            core = r.randrange(2)
            guest.run(frame, guest.vcpus[core].clock_cycles + 300, core)
            counted += instructions(frame)
            guest.pool.give_back(frame)
    print("done", counted)
"""


@pytest.mark.parametrize(("seed", "writable"), [(1, False), (2, True), (3, False), (4, True)])
def test_random_bytes_neither_kill_nor_confuse_the_engine(seed: int, writable: bool) -> None:
    """In a process of its own: what this guards against is an abort."""
    source = textwrap.dedent(RUN).format(tests=str(TESTS), seed=seed, writable=writable, pages=8)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    word, counted = done.stdout.split()
    assert word == "done" and int(counted) > 5000
