"""What a program finds in its memory does not depend on what else was booted, nor where that lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from l4lab.emulator.files.manifest import load_manifest
from l4lab.emulator.machine import Machine
from l4lab.kernel.units import PAGE_BYTES, PAGE_SHIFT

LOOK_EVERY_CYCLES = 2000
CYCLES_AFTER_START = {"hello": (0, 20_000, 60_000, 100_000), "clntsrv": (0, 10_000, 30_000, 50_000)}


def boot(folder: Path, program: str, modules: list[str]) -> Machine:
    path = folder / "image.toml"
    listed = ", ".join(f'"{module}"' for module in [*modules, program])
    path.write_text(
        f'[machine]\nram = "16MiB"\n[boot]\nsigma0 = "sigma0"\n'
        f'roottask = "root --init=rom/{program}"\nmodules = [{listed}]\n',
        encoding="utf-8",
    )
    return Machine(load_manifest(path))


def start(folder: Path, program: str, modules: list[str]) -> tuple[Machine, int]:
    """A machine at the cycle at which the program's task is there, to the cycle."""
    cycle, every_cycles = 0, LOOK_EVERY_CYCLES
    while True:
        machine = boot(folder, program, modules)
        machine.run(cycle)
        while not any(task.name == program for task in machine.kernel.tasks.values()):
            cycle += every_cycles
            machine.run(cycle)
        if every_cycles == 1:
            return machine, cycle
        machine.close()
        cycle, every_cycles = cycle - every_cycles, 1


def memory(machine: Machine, program: str) -> dict[int, bytes]:
    """The pages that the program has, by number."""
    (task,) = (task for task in machine.kernel.tasks.values() if task.name == program)
    found = {}
    for page in sorted({*task.space.pages, *task.space.ku_pages}):
        place = task.space.tables.translate(page << PAGE_SHIFT)
        assert place is not None
        found[page] = bytes(machine.ram.bytes_[place.physical : place.physical + PAGE_BYTES])
    return found


@pytest.mark.parametrize("program", ["hello", "clntsrv"])
@pytest.mark.parametrize(
    "others", [["pma a"], ["pingpong", "pager a long line of arguments"], ["hello", "rogue"]]
)
def test_memory_does_not_depend_on_where_modules_lie(tmp_path: Path, program: str, others: list[str]) -> None:
    """Stack and all: at the start and a while later, what would be there by chance has had its chance."""
    if program in others:
        others = ["sigma0", *others[1:]]
    (alone, first), (beside, second) = (start(tmp_path, program, modules) for modules in ([], others))
    pages = 0
    for later in CYCLES_AFTER_START[program]:
        alone.run(first + later)
        beside.run(second + later)
        found = memory(alone, program)
        assert found == memory(beside, program)
        pages = max(pages, len(found))
    assert pages > 2
