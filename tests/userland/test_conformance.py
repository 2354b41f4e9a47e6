"""The conformance suite on our kernel, and the table of operations and results that it has to fill."""

from __future__ import annotations

import pytest

from l4lab.emulator.errors import OperatorError
from l4lab.tools.check.conformance import Verdict, run_suite, table_of


@pytest.fixture(scope="module")
def verdicts() -> list[Verdict]:
    """One run of the whole suite on two cores."""
    return run_suite()


def test_every_test_passes(verdicts: list[Verdict]) -> None:
    """Two cores, so that none has to be skipped."""
    assert [verdict for verdict in verdicts if verdict.outcome != "PASS"] == []
    assert len(verdicts) > 600


def test_one_core_skips_only_what_needs_two() -> None:
    """The rest does not depend on how many cores there are."""
    verdicts = run_suite(cores=1)
    assert [verdict for verdict in verdicts if verdict.outcome == "FAIL"] == []
    assert {verdict.identifier[:3] for verdict in verdicts if verdict.outcome == "SKIP"} == {"SMP"}


def test_a_single_test_is_run_by_its_identifier() -> None:
    """--only takes the beginning of identifiers and may be given several times."""
    names = [verdict.identifier for verdict in run_suite(("SEM0001", "LOG000"))]
    assert names == [*(f"LOG000{number}" for number in range(1, 10)), "SEM0001"]


def test_an_identifier_that_is_none_is_refused() -> None:
    """One line for a person, not an empty table."""
    with pytest.raises(OperatorError, match="NOSUCH"):
        run_suite(("NOSUCH",))


def test_table_of_operations_and_results_is_full(verdicts: list[Verdict]) -> None:
    """Each cell is covered by a test or excused with a reason, and no test covers a cell outside of it."""
    for operation in table_of(verdicts).values():
        assert operation.empty == [], operation.name
        assert set(operation.tests) == set(operation.needed), operation.name
        assert not set(operation.tests) & set(operation.excused), operation.name


def test_a_kernel_with_a_wrong_error_code_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted bug: "not existent" reported as a timeout."""
    from l4lab.kernel.fiasco import messages

    original = messages.fail_send

    def wrong(kernel: object, thread: object, code: int) -> None:
        original(kernel, thread, 2 if code == 4 else code)  # type: ignore[arg-type]

    monkeypatch.setattr(messages, "fail_send", wrong)
    assert any(verdict.outcome == "FAIL" for verdict in run_suite(("IPC",)))


def test_identifiers_are_unique_and_sentences_are_in_their_group(verdicts: list[Verdict]) -> None:
    """A group's letters and four digits; a sentence that no other test of the group has."""
    names = [verdict.identifier for verdict in verdicts]
    sentences = [(verdict.identifier[:-4], verdict.sentence) for verdict in verdicts]
    assert len(set(names)) == len(names)
    assert len(set(sentences)) == len(sentences)
    assert all(name[:-4].isalpha() and name[-4:].isdigit() for name in names)
