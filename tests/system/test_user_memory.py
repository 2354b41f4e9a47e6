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


def start(machine: Machine, program: str) -> int:
    """Run until the program's task is there; the cycle."""
    cycle = 0
    while not any(task.name == program for task in machine.kernel.tasks.values()):
        cycle += LOOK_EVERY_CYCLES
        machine.run(cycle)
    return cycle


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
    alone, beside = boot(tmp_path, program, []), boot(tmp_path, program, others)
    starts = [start(machine, program) for machine in (alone, beside)]
    pages = 0
    for later in CYCLES_AFTER_START[program]:
        for machine, begin in zip((alone, beside), starts, strict=True):
            machine.run(begin + later)
        found = memory(alone, program)
        assert found == memory(beside, program)
        pages = max(pages, len(found))
    assert pages > 2
