"""`l4lab books --longest`: the longest kernel entries of a real run, and from interrupts to their handlers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from tools.ledger.test_books import rows, run_of

from l4lab.kernel import events
from l4lab.tools.ledger.accounts import kernel_cycles
from l4lab.tools.ledger.longest import lengths
from l4lab.tools.runs.rundir import EVENT, Run, open_run
from support.command import call
from support.runs import image, record


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("longest") / "run"
    record(image("hello"), folder)
    return folder


def test_the_longest_are_those_of_the_ledger_and_their_causes_add_up(folder: Path) -> None:
    run = open_run(folder)
    found = lengths(run, 5)
    every = np.sort(kernel_cycles(run.rows))[::-1]
    assert [entry.cycles for entry in found.longest] == every[:5].tolist()
    assert all(sum(entry.causes.values()) == entry.cycles for entry in found.longest)
    assert len(found.entries) == 92


def interrupted(fired_before: int) -> Run:
    """Thread 5 fires an interrupt that thread 7 gets in the entry at cycle 100, and runs at 150."""
    run = run_of(
        rows(
            {"start": 0, "entry": 100, "thread": 5, "ipc": 50},
            {"start": 150, "entry": 400, "thread": 7, "ipc": 10},
        ),
        (410,),
        {},
    )
    event = (100, 0, events.IRQ, 30, 7, 0, fired_before, 0)
    return dataclasses.replace(run, events=np.array([event], EVENT))


@pytest.mark.parametrize("fired_before", [0, 70])
def test_an_answer_is_from_the_firing_to_the_handlers_first_instruction(fired_before: int) -> None:
    assert lengths(interrupted(fired_before), 1).answers.tolist() == [50 + fired_before]


def test_as_json_and_as_a_picture(folder: Path, tmp_path: Path) -> None:
    printed = call("books", folder, "--longest", "2", "--json", "--picture", tmp_path).stdout
    document = json.loads(printed)
    assert len(document["longest"]) == 2
    assert document["kernel_entries"]["max_cycles"] == document["longest"][0]["cycles"]
    assert sum(bar["count"] for bar in document["kernel_entries"]["histogram"]) == 92
    assert document["interrupt_to_handler"]["count"] == 0
    assert (tmp_path / "longest.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_alone_is_refused(folder: Path, tmp_path: Path) -> None:
    assert call("books", folder, "--picture", tmp_path).returncode == 2
