"""The tests as judges of mutants: collected once, then a process forked for each mutant that runs them.

What has found the most mutants in its time so far runs first, above all of the same function; a mutant is done
with its first failure. Without one it survives. A mutant that runs several times as long as the kernel that it was
made of is found as well; memory is not limited, since each engine reserves a gigabyte of addresses.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Final, NoReturn

import pytest

from l4lab.tools.check.mutation.mutants import Mutant, put

PATIENCE: Final = 4
PATIENCE_SECONDS: Final = 2.0
"""How many times as long a test may take with a mutant, of the processor, and how much longer."""
SILENT_SECONDS: Final = 900
"""So long without a word from any process, and those at work are ended, without a verdict: they wait for something, or
for a busy host. A test that waits in vain fails before that."""

SURVIVED: Final = "survived"
TOO_LONG: Final = "ran too long"
DIED: Final = "died"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant. `by`: the first test that fails; "" for a survivor."""

    mutant: Mutant
    by: str

    @property
    def killed(self) -> bool:
        """Something saw it."""
        return self.by != SURVIVED


@dataclass(slots=True)
class _Trial:
    """A process at work on a mutant. `words`: what it has said so far."""

    mutant: Mutant
    process: int
    words: bytes = b""


@dataclass(slots=True, eq=False)
class Judge:
    """A pytest plugin, in place of pytest's own loop over tests: judges the mutants, `jobs` at a time.

    `queue` gives mutants with what makes the texts of their modules. `tell` hears each verdict. `flaw`: the test
    that fails without any mutant, after which nothing is judged.
    """

    modules: dict[str, ModuleType]
    queue: Iterator[tuple[Mutant, Callable[[], str]]]
    tell: Callable[[Verdict], None]
    jobs: int
    flaw: str = ""
    _seconds: dict[str, float] = field(default_factory=dict)
    _kills: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    _trials: dict[int, _Trial] = field(default_factory=dict)
    _voice: int = -1

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """All that is to be done, in the session that has collected the tests."""
        if self._baseline(session.items):
            self._judge_all(session.items)
        return True

    def _baseline(self, items: Sequence[pytest.Item]) -> bool:
        """How long each test takes with the kernel as it is. False, with a `flaw`, if one fails."""
        ears, self._voice = os.pipe()
        child = os.fork()
        if not child:
            self._work(items, lambda item, seconds: self._say(f"{seconds} {item.nodeid}\n"))
        os.close(self._voice)
        try:
            with open(ears, encoding="utf-8") as words:
                for line in words:
                    seconds, _, name = line.rstrip("\n").partition(" ")
                    if seconds == "!":
                        self.flaw = name
                    else:
                        self._seconds[name] = float(seconds)
        except KeyboardInterrupt:
            os.kill(child, signal.SIGKILL)
            raise
        finally:
            _, status = os.waitpid(child, 0)
        if status and not self.flaw:
            self.flaw = "the process of the tests died"
        return not self.flaw

    def _judge_all(self, items: Sequence[pytest.Item]) -> None:
        try:
            while True:
                while len(self._trials) < self.jobs and (following := next(self.queue, None)):
                    self._begin(items, *following)
                if not self._trials:
                    return
                ready, _, _ = select.select(list(self._trials), [], [], SILENT_SECONDS)
                for ears in ready or list(self._trials):
                    if not ready:
                        os.kill(self._trials[ears].process, signal.SIGKILL)
                    self._listen(ears)
        finally:
            for ears, trial in self._trials.items():
                os.kill(trial.process, signal.SIGKILL)
                os.waitpid(trial.process, 0)
                os.close(ears)

    def _begin(self, items: Sequence[pytest.Item], mutant: Mutant, text: Callable[[], str]) -> None:
        ears, self._voice = os.pipe()
        here, everywhere = self._kills[f"{mutant.module}.{mutant.function}"], self._kills[""]

        def kills_a_second(item: pytest.Item) -> float:
            name = item.nodeid
            return (0.01 + 0.1 * everywhere[name] + here[name]) / (0.02 + self._seconds[name])

        order = sorted(items, key=kills_a_second, reverse=True)
        child = os.fork()
        if not child:
            for other in self._trials:
                os.close(other)
            try:
                put(self.modules[mutant.module], mutant.function, text())
            except Exception:  # of the mutant's making, whatever it is
                self._say("! its import\n")
                os._exit(0)
            self._work(order, None)
        os.close(self._voice)
        self._trials[ears] = _Trial(mutant, child)

    def _listen(self, ears: int) -> None:
        trial = self._trials[ears]
        said = os.read(ears, 65536)
        if said:
            trial.words += said
            return
        del self._trials[ears]
        os.close(ears)
        _, status = os.waitpid(trial.process, 0)
        by = trial.words.decode().partition(" ")[2].strip()
        if not by and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return  # somebody's decision, which says nothing about the mutant
        if not by and status:
            by = TOO_LONG if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF else DIED
        for function in (f"{trial.mutant.module}.{trial.mutant.function}", ""):
            self._kills[function][by] += 1
        self.tell(Verdict(trial.mutant, by or SURVIVED))

    # --- in a process of its own -----------------------------------------------------------------

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The first failure ends the process that runs the tests."""
        if report.failed and self._voice >= 0:
            self._say(f"! {report.nodeid}\n")
            os._exit(0)

    def _work(
        self, items: Sequence[pytest.Item], told: Callable[[pytest.Item, float], None] | None
    ) -> NoReturn:
        """Run tests in this order until one fails, and end the process. Ctrl-C is for the one that waits for it."""
        os.setpgrp()
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        try:
            for item, following in zip(items, [*items[1:], None], strict=True):
                if told is None:
                    limit = PATIENCE * self._seconds[item.nodeid] + PATIENCE_SECONDS
                    signal.setitimer(signal.ITIMER_PROF, limit)
                start = time.process_time()
                # What tests share is made for each anew where its time is taken: any may be the first that needs it.
                after = following if told is None else None
                item.ihook.pytest_runtest_protocol(item=item, nextitem=after)
                if told is not None:
                    told(item, time.process_time() - start)
        except (
            BaseException
        ):  # of the mutant's making; and this process must not return into the loop of the other
            self._say("! pytest itself\n")
        os._exit(0)

    def _say(self, line: str) -> None:
        os.write(self._voice, line.encode())
