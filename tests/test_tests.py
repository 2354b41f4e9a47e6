"""No test passes or fails by how fast the host is: none reads a clock, sleeps, or waits for a time of its own."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CLOCKS = {"sleep", "monotonic", "perf_counter", "process_time", "thread_time", "Timer", "alarm", "setitimer"}
"""Attributes and names of `time`, `asyncio`, `threading`, `signal` and `datetime`; with `_ns` at the end as well."""
PATIENCE = "PATIENCE_SECONDS"
"""Of `support/handshake.py`: bounds a hang, and nothing else may bound a wait."""
IN_TEXT = re.compile(
    r"\b(?:time|asyncio)\.(?:sleep|time|monotonic|perf_counter|process_time)\b|\bimport time\b|\bsleep [0-9.]"
)
"""In programs that a test brings along as text, for Python or a shell."""


def offences(source: str) -> list[str]:
    """`line: what`, in order."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names) if any(alias.name == "time" for alias in names):
                found.append((node.lineno, "import time"))
            case ast.ImportFrom(module="time"):
                found.append((node.lineno, "from time import"))
            case ast.Attribute(attr=name) if name.removesuffix("_ns") in CLOCKS | {"now"}:
                found.append((node.lineno, name))
            case ast.Name(id=name) if name.removesuffix("_ns") in CLOCKS:
                found.append((node.lineno, name))
            case ast.keyword(arg="timeout", value=value) if not _is_patience(value):
                found.append((node.value.lineno, "timeout"))
            case ast.Call(func=ast.Attribute(attr="wait" | "join" | "settimeout" as name), args=[value]) if (
                isinstance(value, ast.Constant) and isinstance(value.value, int | float)
            ):
                found.append((node.lineno, name))
            case ast.Constant(value=str(text)) if match := IN_TEXT.search(text):
                found.append((node.lineno, match[0]))
    return [f"{line}: {what}" for line, what in sorted(found)]


def _is_patience(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id == PATIENCE


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import time", ["1: import time"]),
        ("from time import monotonic", ["1: from time import"]),
        ("import os\nawait asyncio.sleep(0.1)", ["2: sleep"]),
        ("threading.Timer(1, f).start()", ["1: Timer"]),
        ("signal.setitimer(signal.ITIMER_REAL, 1)", ["1: setitimer"]),
        ("t = perf_counter_ns()", ["1: perf_counter_ns"]),
        ("now = datetime.now()", ["1: now"]),
        ("p.communicate(timeout=20)", ["1: timeout"]),
        ("p.communicate(timeout=PATIENCE_SECONDS)", []),
        ("event.wait(0.01)", ["1: wait"]),
        ("event.wait(PATIENCE_SECONDS)", []),
        ("thread.join()\n', '.join(names)", []),
        ("RUN = 'import sys, time\\ntime.sleep(1)'", ["1: time.sleep"]),
        ("['sh', '-c', 'sleep 1; kill $PPID']", ["1: sleep 1"]),
        ("l4_call(timeouts=FOREVER)\nL4 = 'l4_sleep_us(20000);'", []),
    ],
)
def test_a_clock_is_found(source: str, found: list[str]) -> None:
    assert offences(source) == found


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(TESTS.rglob("*.py")) if path != Path(__file__)],
    ids=lambda path: path.relative_to(TESTS).as_posix(),
)
def test_no_test_has_a_clock(path: Path) -> None:
    assert offences(path.read_text(encoding="utf-8")) == []
