"""What mapping and unmapping memory is charged for: page table entries, trees, and what a trace says of holes."""

from __future__ import annotations

import pytest

from l4lab.kernel.costs import CAUSES, LOCK, MAP, KernelCosts
from l4lab.kernel.events import MAP as MAP_EVENT
from l4lab.kernel.events import EventLog, decode
from l4lab.kernel.fiasco import abi, items
from l4lab.kernel.fiasco.flexpage import decode as decode_page
from l4lab.kernel.invariants import check_all
from l4lab.kernel.objects import Task
from support.kernel_world import World, memory_page

EVERYTHING = decode_page(abi.FPAGE_ALL)
FROM = 0x400  # the 4 MiB that root gets from sigma0, as page numbers
SINGLE = 0x2000
AT = 0x4000
MAP_PAGE_CYCLES = 7


class Spaces:
    """sigma0, root and a task that has nothing; `charged` is what one transfer has cost, by cause."""

    def __init__(self) -> None:
        self.world = World()
        kernel = self.world.kernel
        assert self.world.sigma0.task is not None and self.world.root.task is not None
        self.sigma0, self.root = self.world.sigma0.task, self.world.root.task
        self.task = self.world.new_task(0x60)
        kernel.costs = KernelCosts(map_page=MAP_PAGE_CYCLES)

    def map(self, source: Task, vpn: int, order: int, target: Task, at: int) -> int:
        """How many pages `target` has there then."""
        kernel = self.world.kernel
        kernel.bill = [0] * CAUSES
        word = memory_page(vpn << 12, order)
        items.map_flexpage(kernel, source, word, target, EVERYTHING, at << 12)
        there = range(at, at + (1 << order - 12))
        return sum(kernel.memory.lookup(target.space, page) is not None for page in there)

    def charged(self, cause: int) -> int:
        return self.world.kernel.bill[cause]


@pytest.mark.parametrize("order", [12, 13, 20, 21, 22])
def test_every_entry_written_is_charged(order: int) -> None:
    """1,024 single pages are 1,024 entries, not one superpage: their count does not tell."""
    spaces = Spaces()
    spaces.map(spaces.sigma0, FROM + 1, 12, spaces.task, SINGLE)  # a page table: no superpage fits there now
    pages = 1 << order - 12
    assert spaces.map(spaces.sigma0, FROM, order, spaces.task, SINGLE) == pages
    assert spaces.charged(MAP) == pages * MAP_PAGE_CYCLES


def test_a_superpage_is_one_entry() -> None:
    spaces = Spaces()
    assert spaces.map(spaces.sigma0, FROM, 22, spaces.task, AT) == 1024
    assert spaces.charged(MAP) == MAP_PAGE_CYCLES
    assert spaces.map(spaces.sigma0, FROM, 24, spaces.task, AT) == 4096
    assert spaces.charged(MAP) == 4 * MAP_PAGE_CYCLES


@pytest.mark.parametrize(("source", "target"), [(0, 1), (1, 0), (1, 2), (1, 1)])
def test_a_superpage_needs_both_sides_aligned(source: int, target: int) -> None:
    """And a whole one: between two that are off by as much, only the pages in between are one."""
    spaces = Spaces()
    memory = spaces.world.kernel.memory
    to, pages = spaces.task.space, 3 * 1024 - 2
    memory.map_range(spaces.sigma0.space, FROM + source, to, AT + target, pages, abi.MEMORY_RIGHTS)
    mappings = [memory.lookup(to, AT + target + page) for page in range(pages)]
    assert all(mapping is not None for mapping in mappings)
    frames = [to.tables.translate((AT + target + page) << 12) for page in range(pages)]
    expected = [(FROM + source + page) << 12 for page in range(pages)]
    assert [found is not None and found.physical for found in frames] == expected
    whole = [mapping for mapping in mappings if mapping is not None and mapping.is_superpage]
    assert len(whole) == (1024 if source == target else 0)


def test_a_superpage_takes_away_what_was_made_of_it_and_of_that() -> None:
    """Root's goes; with it the task's, whole, and the single pages of another that were made of parts of it."""
    spaces = Spaces()
    other = spaces.world.new_task(0x61)
    memory = spaces.world.kernel.memory
    spaces.map(spaces.sigma0, FROM, 22, spaces.root, AT)
    spaces.map(spaces.root, AT, 22, spaces.task, AT)
    for page in (0, 3, 1023):
        spaces.map(spaces.task, AT + page, 12, other, SINGLE + page)
    assert spaces.world.unmap(abi.BOOT_CAP_TASK, memory_page(AT << 12, 22)).value == 0
    for task, at in ((spaces.root, AT), (spaces.task, AT), (other, SINGLE)):
        assert all(memory.lookup(task.space, at + page) is None for page in (0, 3, 1023))
    check_all(spaces.world.kernel)


def test_only_what_is_there_is_charged() -> None:
    """Pages 0, 1, 5 and 7 of eight."""
    spaces = Spaces()
    for page in (0, 1, 5, 7):
        spaces.map(spaces.sigma0, FROM + page, 12, spaces.root, SINGLE + page)
    assert spaces.map(spaces.root, SINGLE, 15, spaces.task, AT) == 4
    assert spaces.charged(MAP) == 4 * MAP_PAGE_CYCLES


def test_a_trace_tells_each_stretch_without_a_hole() -> None:
    spaces = Spaces()
    for page in (0, 1, 5, 7):
        spaces.map(spaces.sigma0, FROM + page, 12, spaces.root, SINGLE + page)
    kernel = spaces.world.kernel
    kernel.trace = log = EventLog()
    spaces.map(spaces.root, SINGLE, 15, spaces.task, AT)
    kernel.trace = None
    told = [
        (event.a >> 12, event.b >> 12, event.extra)
        for event in decode(log.pending)
        if event.kind == MAP_EVENT
    ]
    assert told == [(SINGLE, AT, 2), (SINGLE + 5, AT + 5, 1), (SINGLE + 7, AT + 7, 1)]


@pytest.mark.parametrize("locked", [0, 1, 7])
def test_every_tree_that_is_used_is_waited_for(locked: int) -> None:
    """Also that of a page in the middle of the range, and behind a hole."""
    spaces = Spaces()
    for page in (0, 1, 5, 7):
        spaces.map(spaces.sigma0, FROM + page, 12, spaces.root, SINGLE + page)
    kernel = spaces.world.kernel
    kernel.held.clear()
    held = spaces.root.space.pages[SINGLE + locked]
    held.locked_until_cycles = kernel.now_cycles + 10_000
    spaces.map(spaces.root, SINGLE, 15, spaces.task, AT)
    assert spaces.charged(LOCK) == 10_000
    assert held in kernel.held


def test_unmapping_waits_for_every_tree_too() -> None:
    """By a system call; the first page of the range is not there at all."""
    spaces = Spaces()
    world, pages = spaces.world, spaces.root.space.pages
    for page in (1, 2):
        spaces.map(spaces.sigma0, FROM + page, 12, spaces.root, SINGLE + page)
    until = pages[SINGLE + 2].locked_until_cycles = world.now_cycles + 50_000
    world.unmap(abi.BOOT_CAP_TASK, memory_page(SINGLE << 12, 14))
    assert world.decisions[0].bill[LOCK] == until - world.now_cycles
    assert SINGLE + 1 not in pages and SINGLE + 2 not in pages
