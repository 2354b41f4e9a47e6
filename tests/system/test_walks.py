"""Random walks of a debugger, forward and back: where it has been before, everything is as it was then.

Over breakpoints, catchpoints, moves to cycles and events, steps of single threads, with whatever thread selected,
dead ones and those that are not made yet included.
"""

from __future__ import annotations

import hashlib
import random

import pytest

from l4lab.emulator.debug.debugged import Position
from l4lab.emulator.files.manifest import Manifest
from l4lab.kernel.frame import EIP
from support.gdb_client import Client
from support.runs import image

KINDS = ("fault", "ipc", "create", "delete", "map", "unmap")
STEPS, LONG = 16, 60
LAST_CYCLE = 400_000


class Walk:
    """A client that goes where chance leads it. `seen`: what there was at each position."""

    def __init__(self, manifest: Manifest, seed: int) -> None:
        self.random = random.Random(seed)
        self.client = Client(manifest)
        self.seen: dict[Position, tuple[object, ...]] = {}
        self.last: Position | None = None
        self.moves: list[str] = []

    def state(self) -> tuple[object, ...]:
        """All that a program or a person could tell two moments apart by."""
        machine = self.client.machine
        return (
            tuple(core.vcpu.clock_cycles for core in machine.cores),
            {
                number: (thread.state, bytes(thread.frame))
                for number, thread in machine.kernel.threads.items()
            },
            hashlib.sha1(machine.ram.bytes_).hexdigest(),
            bytes(machine.output),
        )

    def look(self) -> None:
        """Compare with what was here before."""
        position, state = self.client.machine.position, self.state()
        before = self.seen.setdefault(position, state)
        self.last = position
        assert state == before, f"{position} is not what it was, after {self.moves}"

    def step(self) -> str:
        """One move; what it was."""
        thread = self.random.choice(self.threads())
        self.client.ask(f"Hg{thread}")
        move = self.random.choice(
            [
                f"back {self.random.choice(KINDS)}",
                f"forth {self.random.choice(KINDS)}",
                f"goto {self.random.randrange(LAST_CYCLE)}",
                f"goto {self.random.choice([0, *self.clocks()])}",
                "forth entry",
                f"catch {self.random.choice(KINDS)}",
                "uncatch",
                "break",
                "stepi",
                "reverse-stepi",
            ]
        )
        if move == "stepi":
            self.client.ask("vCont;c" if self.random.random() < 0.3 else f"vCont;s:{thread}")
        elif move == "reverse-stepi":
            self.client.ask("bs")
        elif move == "break":
            self.change_breakpoint(thread)
        elif move.startswith(("catch", "uncatch")):
            self.client.command(move if move != "uncatch" else "uncatch all")
        else:
            self.client.command(move)
            self.client.ask("vCont;c")
        return f"{thread} {move}"

    def threads(self) -> list[str]:
        """All of them, dead ones and those that are not made yet included."""
        listed, reply = [], self.client.ask("qfThreadInfo")
        while reply != "l":
            listed += reply[1:].split(",")
            reply = self.client.ask("qsThreadInfo")
        return listed

    def clocks(self) -> list[int]:
        """Of all cores, now."""
        return [core.vcpu.clock_cycles for core in self.client.machine.cores]

    def change_breakpoint(self, thread: str) -> None:
        """At the instruction that a thread is at: inserted, or taken away."""
        kernel = self.client.machine.kernel
        frames = [each.frame for each in kernel.threads.values()]
        address = self.random.choice(frames)[EIP] if frames else 0
        self.client.ask(f"{self.random.choice('ZZz')}0,{address:x},1")

    def go(self, steps: int) -> None:
        """So many moves."""
        self.look()
        for _ in range(steps):
            self.moves.append(self.step())
            self.look()


def check(walk: Walk, steps: int) -> None:
    """Wherever it has been it finds the same when it comes again, by its own way or straight, in any order."""
    walk.go(steps)
    places = [position for position in walk.seen if position != walk.last]
    assert len(places) >= 3
    for position in walk.random.sample(places, len(places)):
        walk.client.debugger.go_to(position)
        assert walk.client.machine.position == position
        walk.look()


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", ["clntsrv", "pagefault"])
def test_walks_through_images(name: str, seed: int) -> None:
    check(Walk(image(name), seed), STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 7))
@pytest.mark.parametrize("name", ["hello", "clntsrv", "pagefault"])
def test_long_walks_through_images(name: str, seed: int) -> None:
    check(Walk(image(name), seed), LONG)
