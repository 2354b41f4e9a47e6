"""What a guest can make the host hold: every byte of the kernel's memory that it is charged costs a few of the host's.

README tells the largest ratio (`HOST_BYTES_PER_KERNEL_BYTE`); it was measured here, shape by shape.
"""

from __future__ import annotations

import itertools
import re
import tracemalloc
from collections.abc import Callable

import pytest

from l4lab.kernel import capability, lifecycle, mapdb, ports
from l4lab.kernel.capability import KernelObject
from l4lab.kernel.memory import Space
from l4lab.kernel.objects import Task
from l4lab.kernel.paging import ENTRIES
from l4lab.tools.native.build import CHECKOUT
from support.kernel_world import World

HOST_BYTES_PER_KERNEL_BYTE = 16
HOST_BYTES_PER_MAPPING = 300
PAGES = 3 * ENTRIES  # so many are mapped in each shape
FIRST, SLOT = 0x1000, 0x4000


def task(world: World) -> Task:
    made = lifecycle.create_task(world.kernel, world.kernel.root_quota)
    assert made is not None
    return made


def sigma0(world: World) -> Task:
    assert world.sigma0.task is not None
    return world.sigma0.task


def map_page(world: World, source: Space, vpn: int, target: Space, at: int) -> None:
    memory = world.kernel.memory
    assert memory.map_range(source, vpn, target, at, 1, mapdb.ALL_RIGHTS).pages == 1


def flat(world: World) -> int:
    """Each page once."""
    target = task(world).space
    for page in range(PAGES):
        map_page(world, sigma0(world).space, 0x200 + page, target, FIRST + page)
    return PAGES


def chain(world: World) -> int:
    """From task to task to task."""
    spaces = [sigma0(world).space, *(task(world).space for _ in range(8))]
    pages = PAGES // 8
    for page in range(pages):
        for place, (source, target) in enumerate(itertools.pairwise(spaces)):
            map_page(world, source, (FIRST if place else 0x200) + page, target, FIRST + page)
    return 8 * pages


def wide(world: World) -> int:
    """One page again and again."""
    target = task(world).space
    for page in range(PAGES):
        map_page(world, sigma0(world).space, 0x300, target, FIRST + page)
    return PAGES


def capabilities(world: World) -> int:
    table = task(world).capability_table
    for slot in range(PAGES):
        assert capability.insert(table, SLOT + slot, world.root, 15, 0, True)
    return PAGES


def all_ports(world: World) -> int:
    first, second = task(world), task(world)
    kernel = world.kernel
    ports.map_range(kernel, sigma0(world), first, 0, PAGES, grant=False)
    ports.map_range(kernel, first, second, 0, PAGES, grant=False)
    return 2 * PAGES


def objects(create: Callable[[World], KernelObject | None]) -> Callable[[World], int]:
    def make(world: World) -> int:
        table = task(world).capability_table
        for slot in range(ENTRIES):
            made = create(world)
            assert made is not None
            assert capability.insert(table, SLOT + slot, made, 15, 0, True)
        return ENTRIES

    return make


SHAPES: dict[str, Callable[[World], int]] = {
    "flat": flat,
    "chain": chain,
    "wide": wide,
    "capabilities": capabilities,
    "ports": all_ports,
    "gates": objects(lambda world: lifecycle.create_gate(world.kernel, world.kernel.root_quota)),
    "irqs": objects(lambda world: lifecycle.create_irq(world.kernel, world.kernel.root_quota)),
    "semaphores": objects(lambda world: lifecycle.create_semaphore(world.kernel, world.kernel.root_quota)),
    "threads": objects(lambda world: lifecycle.create_thread(world.kernel, world.kernel.root_quota)),
    "tasks": objects(task),
}


def held_and_charged(shape: str) -> tuple[int, int, int]:
    """Bytes of the host, bytes charged, how many."""
    world = World(check=False, kernel_bytes=16 << 20)
    charged = world.kernel.root_quota.used_bytes
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        count = SHAPES[shape](world)
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    return held, world.kernel.root_quota.used_bytes - charged, count


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_charged_bounds_what_the_host_holds(shape: str) -> None:
    held, charged, _ = held_and_charged(shape)
    assert held <= HOST_BYTES_PER_KERNEL_BYTE * charged


@pytest.mark.parametrize("shape", ["flat", "chain", "wide"])
def test_a_mapping_is_small(shape: str) -> None:
    held, _, count = held_and_charged(shape)
    assert held <= HOST_BYTES_PER_MAPPING * count


def test_readme_tells_the_ratio() -> None:
    told = re.search(r"(\d+) times `kernel_memory`", (CHECKOUT / "README.md").read_text(encoding="utf-8"))
    assert told is not None
    assert int(told[1]) == HOST_BYTES_PER_KERNEL_BYTE
