"""L4LAB_STUTTER slows the host at random, changes no result, and is nothing where it is not set."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from l4lab.emulator.stutter import LONGEST_SECONDS, VARIABLE, stutters
from support.command import CLI


def waits(seed: str, calls: int, one_in: int) -> list[float]:
    slept: list[float] = []

    @stutters(one_in, seed=seed, sleep=slept.append)
    def double(number: int) -> int:
        return 2 * number

    assert [double(number) for number in range(calls)] == [2 * number for number in range(calls)]
    return slept


def test_without_a_seed_a_function_is_itself() -> None:
    assert stutters(1, seed=None)(waits) is waits


def test_waits_are_as_many_as_asked_for_none_is_long_and_the_seed_decides() -> None:
    assert len(waits("1", 100, 1)) == 200
    some = waits("1", 1000, 10)
    assert 100 < len(some) < 300
    assert all(0 <= seconds <= LONGEST_SECONDS for seconds in some)
    assert some == waits("1", 1000, 10) != waits("2", 1000, 10)


def test_what_is_raised_comes_through() -> None:
    slept: list[float] = []

    @stutters(1, seed="1", sleep=slept.append)
    def fail() -> None:
        raise KeyError(1)

    with pytest.raises(KeyError):
        fail()
    assert len(slept) == 2


@pytest.mark.parametrize("seed", ["1", "2"])
def test_a_run_of_a_stuttering_host_has_the_same_bytes(seed: str, tmp_path: Path) -> None:
    files = []
    for name, environment in (("plain", {}), ("stuttering", {VARIABLE: seed})):
        subprocess.run(
            [*CLI, "boot", "hello", "--out", name],
            cwd=tmp_path,
            env={**{key: value for key, value in os.environ.items() if key != VARIABLE}, **environment},
            capture_output=True,
            check=True,
        )
        folder = tmp_path / name
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert len(files[0]) >= 6
    assert files[0] == files[1]


def test_no_benchmark_measures_a_stuttering_host() -> None:
    done = subprocess.run(
        [*CLI, "bench", "engine"],
        env={**os.environ, VARIABLE: "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "l4lab: L4LAB_STUTTER: found '1', expected it unset for what measures the host: it slows it down\n"
    )
