"""Random programs on the whole machine: real code, real page walks, real interrupts between cores.

What they do is what `l4lab fuzz` does without a processor. After every slice of the run the kernel's
invariants hold, the engine has not done what it should not, and no Python exception ever leaves the machine.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from l4lab.emulator.files.manifest import load_manifest
from l4lab.emulator.machine import Machine
from l4lab.emulator.results import RunResult, StopReason
from l4lab.kernel.invariants import check_all
from support import random_guest

SLICE_CYCLES = 150_000
MANIFEST = """
[machine]
cores = {cores}
ram = "32MiB"

[boot]
sigma0 = "sigma0"
roottask = "guest.elf"
"""


def machine(folder: Path, elf: bytes, cores: int) -> Machine:
    """A machine with the bundled sigma0 and this root task."""
    (folder / "guest.elf").write_bytes(elf)
    path = folder / "guest.toml"
    path.write_text(MANIFEST.format(cores=cores), encoding="utf-8")
    return Machine(load_manifest(path))


def run_checked(guest: Machine, slices: int) -> RunResult:
    """Run slice by slice, looking at everything in between."""
    for number in range(1, slices + 1):
        result = guest.run(max_cycles=number * SLICE_CYCLES)
        check_all(guest.kernel)
        assert all(core.vcpu.anomalies == 0 for core in guest.cores)
        if result.reason is not StopReason.MAX_CYCLES:
            break
    return result


@pytest.mark.parametrize("seed", range(6))
def test_programs_of_random_system_calls(seed: int, tmp_path: Path) -> None:
    """Threads, tasks, memory and messages, on one to four cores."""
    guest = machine(tmp_path, random_guest.program(seed), cores=1 + seed % 4)
    result = run_checked(guest, 12)
    assert sum(task.system_calls for task in result.tasks) > 20


@pytest.mark.parametrize("seed", range(12))
def test_programs_of_random_bytes(seed: int, tmp_path: Path) -> None:
    """Most end soon, in a fault that nobody handles; none hurts the machine."""
    run_checked(machine(tmp_path, random_guest.noise(seed), cores=1), 2)


def test_a_random_program_runs_the_same_twice(tmp_path: Path) -> None:
    """To the cycle."""
    results = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        results.append(run_checked(machine(folder, random_guest.program(3), cores=4), 5).as_dict())
    assert results[0] == results[1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 140))
def test_more_programs_of_random_system_calls(seed: int, tmp_path: Path) -> None:
    """The same, for longer."""
    run_checked(machine(tmp_path, random_guest.program(seed, pages=48), cores=1 + seed % 4), 60)
