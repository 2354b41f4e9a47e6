"""Bugs planted into the kernel, one kind after the other: the checks must notice every one of them.

Without this, "no violation in a million system calls" could mean that nobody looked. What random
programs cannot notice, because no invariant is broken, is planted in `tests/system`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from l4lab.kernel import (
    capability,
    capspace,
    charges,
    costs,
    dispatch,
    entry,
    lifecycle,
    mapdb,
    ports,
    shootdown,
)
from l4lab.kernel.capability import Capability, KernelObject
from l4lab.kernel.fiasco import fastpath
from l4lab.kernel.mapdb import Mapping
from l4lab.kernel.memory import Memory
from l4lab.kernel.paging import PageTables
from l4lab.kernel.quota import Quota
from l4lab.kernel.sched import Core
from l4lab.kernel.state import Kernel
from l4lab.kernel.thread import READY, ReplySlot, Thread
from l4lab.tools.check.fuzz.hunt import hunt

CALLS = 12_000
Patch = pytest.MonkeyPatch


def sometimes(original: Callable[..., Any], otherwise: Callable[..., Any], every: int) -> Callable[..., Any]:
    """A function that behaves like the original, but for every n-th time."""
    count = 0

    def function(*arguments: Any, **keywords: Any) -> Any:
        nonlocal count
        count += 1
        chosen = otherwise if count % every == 0 else original
        return chosen(*arguments, **keywords)

    return function


def nothing(*_: Any, **__: Any) -> None:
    """Forgotten."""


def stale_translation(patch: Patch) -> None:
    """Translations are taken from the page tables, but no TLB is told."""

    def forget(kernel: Kernel) -> None:
        kernel.memory.stale = []

    patch.setattr(entry.shootdown, "settle", forget)


def shootdown_of_this_core_only(patch: Patch) -> None:
    """Other cores are not told."""
    original = shootdown.settle

    def settle(kernel: Kernel) -> None:
        here = 1 << kernel.here
        kernel.memory.stale = [(live & here, page) for live, page in kernel.memory.stale]
        original(kernel)

    patch.setattr(entry.shootdown, "settle", settle)


def lost_mapping_node(patch: Patch) -> None:
    """A mapping is not hooked into the tree: its parent could not take it back."""
    patch.setattr(mapdb, "attach", sometimes(mapdb.attach, nothing, 20))


def lost_page_table_entry(patch: Patch) -> None:
    """A mapping is removed, but its entry stays."""
    patch.setattr(PageTables, "clear", sometimes(PageTables.clear, nothing, 10))


def writable_page(patch: Patch) -> None:
    """The right to write is taken, but not from the page tables."""
    patch.setattr(PageTables, "make_read_only", nothing)


def leaked_frame(patch: Patch) -> None:
    """A page table's frame does not come back, though the budget does."""

    def keep(self: Memory, pfn: int, quota: Quota) -> None:
        quota.refund(4096)

    patch.setattr(Memory, "_give_back_frame", sometimes(Memory._give_back_frame, keep, 7))


def leaked_budget(patch: Patch) -> None:
    """What an object cost is not given back."""
    patch.setattr(Quota, "refund", sometimes(Quota.refund, nothing, 50))


def lost_wake_up(patch: Patch) -> None:
    """A thread is ready, but no queue has it."""
    patch.setattr(dispatch, "wake", sometimes(dispatch.wake, nothing, 40))


def lost_timeout(patch: Patch) -> None:
    """A thread whose wait is over keeps its timeout armed."""
    patch.setattr(dispatch, "disarm", sometimes(dispatch.disarm, nothing, 5))


def uncounted_capability(patch: Patch) -> None:
    """A counted capability is not counted: the object dies too early."""
    original = capability.insert

    def insert(*arguments: Any, **keywords: Any) -> bool:
        done = original(*arguments, **keywords)
        if done and keywords.get("counted", True):
            arguments[2].counted -= 1
        return done

    patch.setattr(capability, "insert", sometimes(original, insert, 30))


def object_that_never_dies(patch: Patch) -> None:
    """The last counted capability goes, and the object stays."""

    def drop(cap: Capability) -> bool:
        real_drop(cap)
        return False

    real_drop = capability.drop
    patch.setattr(capability, "drop", sometimes(real_drop, drop, 3))


def zombie(patch: Patch) -> None:
    """An object is marked dead, but never ended."""
    patch.setattr(lifecycle, "_end", sometimes(lifecycle._end, nothing, 20))


def dangling_reply_slot(patch: Patch) -> None:
    """A caller that stopped waiting is still in the server's reply slot."""
    patch.setattr(ReplySlot, "clear", sometimes(ReplySlot.clear, nothing, 2))


def more_than_was_given(patch: Patch) -> None:
    """A part of the kernel's share of RAM is passed on as if it were sigma0's."""

    def owns(self: Memory, pfn: int) -> bool:
        return pfn < self.ram_frames

    patch.setattr(Memory, "is_sigma0s", owns)


def space_of_another(patch: Patch) -> None:
    """A thread goes on with the page directory of its task, which has ended."""

    def end(kernel: Kernel, task: Any) -> None:
        directories = {thread: thread.frame[17] for thread in task.threads}
        real_end(kernel, task)
        for thread, cr3 in directories.items():
            thread.frame[17] = cr3

    real_end = lifecycle._end_task
    patch.setattr(lifecycle, "_end_task", end)


def lost_port(patch: Patch) -> None:
    """Ports are taken from a task, but their cost is not given back."""
    patch.setattr(ports, "MAPPING_BYTES", 33)


def crash(patch: Patch) -> None:
    """A Python exception in a rare path."""

    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    patch.setattr(capspace, "unmap_range", sometimes(capspace.unmap_range, fail, 60))


def short_cut_of_its_own(patch: Patch) -> None:
    """The fast path books the copying of words as something else."""
    patch.setattr(fastpath, "COPY", costs.DECODE)


def ready_again(patch: Patch) -> None:
    """The dead rise."""
    original = lifecycle.kill

    def kill(kernel: Kernel, me: Thread) -> None:
        original(kernel, me)
        me.state = READY

    patch.setattr(lifecycle, "kill", kill)


def free_removal(patch: Patch) -> None:
    """Mappings go without anybody paying."""

    def forget(kernel: Kernel, cause: int) -> None:
        kernel.memory.removals = kernel.memory.cleared_pages = kernel.memory.range_steps = 0

    patch.setattr(charges, "memory", forget)


def free_queueing(patch: Patch) -> None:
    """A ready thread is queued without anybody paying."""

    def queue(kernel: Kernel, core: Core, thread: Thread, *, front: bool) -> None:
        core.ready.add(thread, front=front)

    patch.setattr(dispatch, "enqueue", queue)


def free_death(patch: Patch) -> None:
    """What a dying object's capabilities cost to take away is not billed."""

    def kill(kernel: Kernel, obj: KernelObject) -> None:
        before = list(kernel.bill)
        original(kernel, obj)
        kernel.bill[:] = before

    original = capspace.kill_object
    patch.setattr(capspace, "kill_object", kill)


PLANTS = {
    free_removal: "billed for work",
    free_queueing: "schedule",
    free_death: "billed for work",
    short_cut_of_its_own: "leave different things",
    ready_again: "becomes ready from dead",
    stale_translation: "stale translation",
    shootdown_of_this_core_only: "stale translation",
    lost_mapping_node: "",
    lost_page_table_entry: "",
    writable_page: "entry says",
    leaked_frame: "",
    leaked_budget: "budget",
    lost_wake_up: "not queued",
    lost_timeout: "",
    uncounted_capability: "counts",
    object_that_never_dies: "",
    zombie: "",
    dangling_reply_slot: "",
    more_than_was_given: "maps the kernel's frames",
    space_of_another: "page directory",
    lost_port: "budget",
    crash: "ZeroDivisionError",
}


LONG_HUNTS = {crash, space_of_another, writable_page}


@pytest.mark.parametrize(
    "plant",
    [
        pytest.param(plant, id=plant.__name__, marks=[pytest.mark.slow] * (plant in LONG_HUNTS))
        for plant in PLANTS
    ],
)
def test_random_programs_find(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """Each planted bug ends the run, with a report that names what is wrong."""
    plant(monkeypatch)
    summary = hunt(CALLS, seed=1)
    assert summary.violation is not None, plant.__doc__
    assert PLANTS[plant] in summary.violation.error


def test_without_a_bug_there_is_no_violation() -> None:
    """The same run, nothing planted."""
    summary = hunt(CALLS, seed=1)
    assert summary.violation is None, summary.violation
    assert summary.tally.calls >= CALLS
    assert Mapping.__slots__  # the kernel under test is the real one


def test_a_run_is_determined_by_its_seed() -> None:
    """The same seed gives the same history, another seed another one."""
    runs = [hunt(1000, seed).as_dict() for seed in (3, 3, 4)]
    for document in runs:
        del document["seconds"]
    assert runs[0] == runs[1] != runs[2]
