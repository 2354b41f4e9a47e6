"""Bugs that break no invariant, planted into the kernel: the conformance suite must fail for each.

The suite's programs run on the real engine, so what a stale TLB lets user code see is seen here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from l4lab.emulator.errors import OperatorError
from l4lab.emulator.machine import Machine
from l4lab.emulator.results import RunResult
from l4lab.kernel import entry
from l4lab.kernel.errors import KernelBug
from l4lab.kernel.fiasco import abi, faults, interface, items, messages
from l4lab.kernel.interface import TIMED_OUT
from l4lab.kernel.sched import ReadyQueue
from l4lab.kernel.state import Kernel
from l4lab.kernel.thread import SenderQueue
from l4lab.tools.check import conformance
from l4lab.tools.runs import execute

Patch = pytest.MonkeyPatch


def wrong_error_code(patch: Patch) -> None:
    """A send timeout is reported as one of the receive phase."""
    patch.setitem(interface._SEND_CODES, TIMED_OUT, abi.IPC_RECEIVE_TIMEOUT)


def other_wrong_error_code(patch: Patch) -> None:
    """An empty capability slot is reported as a timeout."""
    patch.setattr(abi, "IPC_NOT_EXISTENT", abi.IPC_SEND_TIMEOUT)


def stale_translation(patch: Patch) -> None:
    """Translations are taken from the page tables, but no TLB is told."""

    def forget(kernel: Kernel) -> None:
        kernel.memory.stale = []

    patch.setattr(entry.shootdown, "settle", forget)


def wrong_order_of_senders(patch: Patch) -> None:
    """Last come, first served."""

    def first(self: SenderQueue) -> Any:
        return list(self)[-1]

    patch.setattr(SenderQueue, "first", first)


def wrong_order_of_equals(patch: Patch) -> None:
    """A preempted thread goes to the back of its priority."""

    def add(self: ReadyQueue, thread: Any, *, front: bool) -> None:
        real_add(self, thread, front=False)

    real_add = ReadyQueue.add
    patch.setattr(ReadyQueue, "add", add)


def rights_not_masked(patch: Patch) -> None:
    """An object sent through a capability without S keeps its S."""
    patch.setattr(items, "_KEPT_OBJECT_RIGHTS", abi.OBJECT_RIGHTS)


def label_without_rights(patch: Patch) -> None:
    """The gate's label does not show the rights used."""

    def address_to(sender: Any, gate: Any) -> None:
        sender.send_label = gate.label

    patch.setattr(messages, "address_to", address_to)
    patch.setattr(abi, "LABEL_RIGHTS_MASK", 0)


def timeout_too_late(patch: Patch) -> None:
    """Every wait with a timeout waits for ever."""
    real = messages.deadline_us

    def deadline_us(kernel: Kernel, thread: Any, encoded: int) -> int:
        found = real(kernel, thread, encoded)
        return messages.NEVER if found > 0 else found

    patch.setattr(messages, "deadline_us", deadline_us)


def registers_clobbered(patch: Patch) -> None:
    """An exception's answer sets one register too few."""
    order = list(faults._STATE_ORDER)
    order[abi.EXC_EBX] = None
    patch.setattr(faults, "_STATE_ORDER", tuple(order))


def receive_phase_after_a_failed_send(patch: Patch) -> None:
    """A failed send leaves the sent tag in EAX."""

    def fail_send(kernel: Kernel, thread: Any, code: int) -> None:
        real(kernel, thread, code)
        thread.frame[0] = thread.send_tag | abi.TAG_ERROR

    real = messages.fail_send
    patch.setattr(messages, "fail_send", fail_send)


PLANTS = {
    wrong_error_code: "IPC",
    other_wrong_error_code: "IPC",
    stale_translation: "MEM",
    wrong_order_of_senders: "IPC",
    wrong_order_of_equals: "RUN",
    rights_not_masked: "ITEM",
    label_without_rights: "GATE",
    timeout_too_late: "TIME",
    registers_clobbered: "EXC",
    receive_phase_after_a_failed_send: "IPC",
}
"""Bug -> the group of tests that is to find it."""
LIMIT_CYCLES = 1_500_000_000


class LimitedMachine(Machine):
    """One that a program does not keep busy for ever."""

    def run(self, max_cycles: int | None = None) -> RunResult:
        return super().run(LIMIT_CYCLES)


@pytest.fixture(autouse=True)
def _limited(monkeypatch: Patch) -> None:
    monkeypatch.setattr(execute, "Machine", LimitedMachine)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_conformance_suite_finds(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """At least one of the group's tests fails, or the suite does not come to its end."""
    plant(monkeypatch)
    try:
        failed = [verdict for verdict in conformance.run_suite([PLANTS[plant]]) if verdict.outcome == "FAIL"]
    except (OperatorError, KernelBug):  # the bug stopped the suite itself
        return
    assert failed, plant.__doc__


@pytest.mark.parametrize("group", sorted(set(PLANTS.values())))
def test_without_a_bug_the_group_passes(group: str) -> None:
    """The same runs, nothing planted."""
    assert [verdict for verdict in conformance.run_suite([group]) if verdict.outcome == "FAIL"] == []
