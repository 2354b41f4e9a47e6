"""Every change of a thread's state in these tests is one that `kernel.thread.TRANSITIONS` allows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from l4lab.kernel.invariants import transitions_checked


@pytest.fixture(autouse=True, scope="module")
def _transitions() -> Iterator[None]:
    with transitions_checked():
        yield
