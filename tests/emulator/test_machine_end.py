"""A machine that nobody refers to any more is gone at once, all of it, without Python's garbage collector."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Iterator

import pytest

import l4lab
from l4lab.emulator import vcpu
from l4lab.emulator.machine import Machine
from l4lab.emulator.vcpu import Engine
from support.runs import image

LOOP = """
import gc, l4lab
gc.disable()
def kib():
    lines = [line.split() for line in open("/proc/self/status") if line.startswith(("VmRSS", "VmSize"))]
    return [int(line[1]) for line in lines]
for run in range(1, {runs} + 1):
    l4lab.run("hello")
    if run == {first}:
        before = kib()
print(*[after - before for after, before in zip(kib(), before)])
"""


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Only what the last reference takes along goes."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def living(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many machines and vCPUs the shim has; vCPUs and their engines go with their machine."""
    living: Counter[str] = Counter()
    shim = vcpu._shim()
    new_machine, new_vcpu, delete_machine = shim.vcpu_new_machine, shim.vcpu_new, shim.vcpu_delete_machine
    vcpus: Counter[int] = Counter()

    def made_machine(*arguments: object) -> int:
        living["machines"] += 1
        return int(new_machine(*arguments))

    def made_vcpu(machine: int) -> int:
        living["vcpus"] += 1
        vcpus[machine] += 1
        return int(new_vcpu(machine))

    def deleted(machine: int) -> None:
        living["machines"] -= 1
        living["vcpus"] -= vcpus.pop(machine, 0)
        delete_machine(machine)

    monkeypatch.setattr(shim, "vcpu_new_machine", made_machine)
    monkeypatch.setattr(shim, "vcpu_new", made_vcpu)
    monkeypatch.setattr(shim, "vcpu_delete_machine", deleted)
    return living


@pytest.mark.parametrize("max_cycles", [0, 100_000, 700_000, None])
@pytest.mark.usefixtures("no_collector")
def test_the_last_reference_takes_engine_ram_and_shim_along(
    living: Counter[str], max_cycles: int | None
) -> None:
    machine = Machine(image("pagefault"))
    parts = [weakref.ref(machine), weakref.ref(machine.engine)]
    words = machine.ram.words
    machine.run(max_cycles)
    assert living == {"machines": 1, "vcpus": 2}
    del machine
    assert [part() for part in parts] == [None, None]
    assert living == {"machines": 0, "vcpus": 0}
    with pytest.raises(ValueError, match="released"):
        words[0]


@pytest.mark.parametrize(
    ("name", "max_cycles"),
    [
        ("hello", None),
        ("pagefault", 700_000),
        ("pma", 3_000_000),
        ("clntsrv", None),
        ("conformance", 60_000_000),
    ],
)
@pytest.mark.usefixtures("no_collector")
def test_a_closed_machine_leaves_nothing_for_the_collector(name: str, max_cycles: int | None) -> None:
    with Machine(image(name)) as machine:
        machine.run(max_cycles)
    del machine
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        left = Counter(
            type(thing).__name__ for thing in gc.garbage if type(thing).__module__.startswith("l4lab.")
        )
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert not left


def test_a_closed_machine_runs_no_more() -> None:
    machine = Machine(image("hello"))
    machine.run()
    machine.close()
    machine.close()
    with pytest.raises(ValueError, match="closed"):
        machine.run()


def test_what_a_machine_did_outlives_it() -> None:
    with Machine(image("hello")) as machine:
        result = machine.run()
    assert result == l4lab.run("hello")


def test_an_engine_of_its_own_goes_with_its_vcpus(living: Counter[str]) -> None:
    machine = Machine(image("hello"))
    core = machine.cores[0].vcpu
    engine: weakref.ref[Engine] = weakref.ref(machine.engine)
    del machine
    assert engine() is core.engine and living["machines"] == 1
    del core
    assert engine() is None and living["machines"] == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(("first", "runs"), [(10, 30), pytest.param(100, 1000, marks=pytest.mark.slow)])
def test_many_runs_take_no_more_memory_than_some(first: int, runs: int) -> None:
    loop = LOOP.format(first=first, runs=runs)
    done = subprocess.run([sys.executable, "-c", loop], check=True, capture_output=True)
    grown_kib = [int(word) for word in done.stdout.split()]
    assert len(grown_kib) == 2 and max(grown_kib) < 5 << 10
