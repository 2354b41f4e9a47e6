"""`l4lab why`: why a page fault or an IPC took as long as it did, from a recorded run.

The chain itself is followed in `tools/why/finder.py`, the steps of a page fault are told apart in `tools/why/steps.py`;
here it is put into words.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from l4lab.kernel import events
from l4lab.kernel.traps import TRAP_NAMES
from l4lab.tools.common.report import grouped, print_json, table
from l4lab.tools.debug.faults import NAMES, TOUCH
from l4lab.tools.ledger.accounts import balanced
from l4lab.tools.ledger.books import percentage, wide_console
from l4lab.tools.ledger.timeline import KIND_WORDS, NOWHERE, Operation, Operations, Timeline, is_entry
from l4lab.tools.runs.recording import RunError
from l4lab.tools.runs.replay import ReplayError
from l4lab.tools.runs.rundir import Run, open_run
from l4lab.tools.runs.symbols import Symbols
from l4lab.tools.why.allocation import find_allocation, image_of, is_affordable
from l4lab.tools.why.chain import Chain
from l4lab.tools.why.finder import find_chain
from l4lab.tools.why.steps import Allocated, Line, lines, step_sums, steps_of
from l4lab.tools.why.values import WHY_FORMAT, chain_document, described, operation_document

SLOWEST: Final = 10
_MEANWHILE_SHOWN: Final = 5
_MOST_DIGITS: Final = 18
_DIGITS_SHOWN: Final = 40

_KINDS: Final = {word: kind for kind, word in KIND_WORDS.items()}


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of `l4lab why`.

    `core`: of a moment, only this one. `image`: what the run was booted from, if not a bundled image. `replay`: whether
    to boot it again to tell steps 4 and 5 apart; None: if that is a matter of seconds.
    """

    core: int | None = None
    image: str | None = None
    replay: bool | None = None
    as_json: bool = False


def show_why(what: tuple[str, ...], asked: Asked) -> int:
    """`l4lab why`: `what` is its arguments. Returns the exit code; raises RunError."""
    kind, number, folder = _parsed(what)
    question = _Question(balanced(open_run(folder)), asked)
    if kind is None:
        return question.summary()
    if kind == "cycle":
        return question.cycle(number)
    return question.operation(_KINDS[kind], number)


def _parsed(what: tuple[str, ...]) -> tuple[str | None, int, Path | None]:
    """(kind, number, run) of the arguments; None for what they leave out."""
    if len(what) < 2 and not (what and what[0] in (*_KINDS, "cycle") and not Path(what[0]).exists()):
        return None, 0, Path(what[0]) if what else None
    if len(what) not in (2, 3) or what[0] not in (*_KINDS, "cycle"):
        raise RunError(
            f"why: found {' '.join(what)!r}, expected one of {', '.join((*_KINDS, 'cycle'))} with a number, "
            f"and RUN or nothing; or just RUN"
        )
    digits = what[1].replace("_", "")
    if not (digits.isascii() and digits.isdecimal()):
        raise RunError(f"why {what[0]}: found {what[1]!r}, expected a number")
    if len(digits) > _MOST_DIGITS:
        shown = what[1] if len(what[1]) <= _DIGITS_SHOWN else f"{what[1][:_DIGITS_SHOWN]}..."
        raise RunError(f"why {what[0]}: found {shown}, too large: expected at most {_MOST_DIGITS} digits")
    return what[0], int(digits), Path(what[2]) if len(what) == 3 else None


class _Question:
    """One run, and how to answer."""

    def __init__(self, run: Run, asked: Asked) -> None:
        self._run = run
        self._asked = asked
        self._timeline = Timeline(run)
        self._operations = Operations(self._timeline)
        self._symbols = Symbols(run)
        self._console = wide_console()

    # --- one operation ----------------------------------------------------------------------------

    def operation(self, kind: int, number: int) -> int:
        count = self._operations.count(kind)
        operation = self._operations.get(kind, number)
        if operation is None:
            word = KIND_WORDS[kind]
            raise RunError(f"why {word} {number}: the run has {count} of them, numbered from 1")
        if operation.row == NOWHERE:
            raise RunError(f"why {operation.name}: the run was killed before the kernel was done with it")
        chain = find_chain(self._timeline, self._operations, operation)
        allocated, remark = self._allocated(chain)
        found = lines(self._run, chain, allocated)
        if self._asked.as_json:
            print_json(chain_document(self._run, self._symbols, self._operations, chain, found))
        else:
            self._print_chain(chain, count, found, remark)
        return 0

    def _allocated(self, chain: Chain) -> tuple[Allocated | None, str]:
        """When the pager's allocator had found the frame of a page fault; if that is not known, why not."""
        asked, run = self._asked, self._run
        if chain.operation.kind != events.FAULT or asked.replay is False:
            return None, ""
        manifest = image_of(run, asked.image)
        if len(chain.hops) == 1:
            return None, ""  # no pager had a part in it
        if manifest is None:
            return None, "Steps 4 and 5 are not told apart: that takes the image that was booted (--image)."
        if asked.replay is None and not is_affordable(chain):
            return None, "Steps 4 and 5 are not told apart: that takes booting the image again (--replay)."
        try:
            found = find_allocation(run, chain, manifest)
        except ReplayError:
            return None, "Steps 4 and 5 are not told apart: another l4lab has recorded this run."
        return found, "" if found is not None else "The pager has no allocator that l4lab knows the name of."

    def _print_chain(self, chain: Chain, count: int, found: list[Line], remark: str) -> None:
        run, operation, say = self._run, chain.operation, self._say
        say(f"{operation.name} of {count}: {described(run, self._symbols, operation)}")
        say(_ending(run, chain))
        root = self._operations.of_request(operation.request)
        if root is not None and not operation.root:
            say(f"Its thread worked for {root.name} at that time.")
        say("")
        is_fault = operation.kind == events.FAULT
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in (*["step"] * is_fault, "after", "cycles", "core", "who", "what", "spent on"):
            right = title in ("after", "cycles", "core")
            table.add_column(
                title, justify="right" if right else "left", overflow="fold", no_wrap=right or title == "step"
            )
        for line in found:
            table.add_row(
                *[line.step_name] * is_fault,
                grouped(line.start - operation.cycle),
                grouped(line.cycles),
                str(line.core) if line.core != NOWHERE else "",
                run.thread_name(line.thread),
                line.what,
                _cell(line),
            )
        self._show(table)
        say("")
        if is_fault:
            self._print_steps(chain, found)
            if remark:
                say(f"{remark}\n")
        say(f"by cause: {_listed(chain.by_cause())}; together {grouped(chain.cycles)}")

    def _print_steps(self, chain: Chain, found: list[Line]) -> None:
        table = Table(box=None, pad_edge=False, show_header=False)
        for justify in ("left", "right", "right", "left"):
            table.add_column(justify=justify, no_wrap=True)
        sums = step_sums(found)
        for step, words in steps_of(self._run, chain).items():
            cycles = sums[step]
            share = percentage(cycles, chain.cycles) if step != TOUCH else ""
            table.add_row(f"{step} {NAMES[step - 1]}", grouped(cycles), share, words)
        table.add_row("together", grouped(chain.cycles), "", "cycles: the latency")
        self._show(table)
        self._say("")

    def _show(self, table: Table) -> None:
        """A table, without the blanks that would fill its lines."""
        with self._console.capture() as captured:
            self._console.print(table)
        self._console.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, markup=False)

    # --- a moment ---------------------------------------------------------------------------------

    def cycle(self, cycle: int) -> int:
        """What every core did at a moment, or one, and whom it worked for."""
        run, core = self._run, self._asked.core
        if core is not None and not 0 <= core < run.cores:
            raise RunError(f"why cycle: core {core}: the run has {run.cores}, numbered from 0")
        cores = range(run.cores) if core is None else [core]
        end = max(self._end_of(number) for number in cores)
        if cycle >= end:
            whose = "the run" if core is None else f"core {core}"
            if not end:
                raise RunError(f"why cycle {cycle}: the books have nothing of {whose}")
            raise RunError(f"why cycle: found {cycle}, expected at most {end - 1}, the last of {whose}")
        found = [self._moment(number, cycle) for number in cores]
        if self._asked.as_json:
            print_json({"format": WHY_FORMAT, "cycle": cycle, "cores": found})
            return 0
        for moment in found:
            self._say(f"core {moment['core']}: {moment['doing']}")
        row = self._timeline.row_at(core, cycle) if core is not None else NOWHERE
        if row == NOWHERE:
            return 0
        request = int(
            self._timeline.served[row] if cycle >= self._timeline.entry[row] else self._timeline.request[row]
        )
        root = self._operations.of_request(request)
        if root is not None and root.row != NOWHERE:
            self._say("")
            return self.operation(root.kind, root.number)
        return 0

    def _end_of(self, core: int) -> int:
        """The first cycle that the books do not have of `core`."""
        rows = self._timeline.rows_of_core(core)
        return int(self._timeline.end[rows[-1]]) if len(rows) else 0

    def _moment(self, core: int, cycle: int) -> dict[str, Any]:
        """What `core` does at `cycle`, in words and as values."""
        timeline, run = self._timeline, self._run
        row = timeline.row_at(core, cycle)
        moment: dict[str, Any] = {"core": core, "state": None, "thread": None, "request": None}
        if row == NOWHERE:
            last = self._end_of(core)
            words = f"not in the books, which end at cycle {grouped(last)}" if cycle >= last else "nothing"
            return moment | {"doing": words, "causes": {}}
        thread, entry = int(timeline.thread[row]), int(timeline.entry[row])
        in_kernel = cycle >= entry
        request = int(timeline.served[row] if in_kernel else timeline.request[row])
        root = self._operations.of_request(request)
        moment["thread"] = thread or None
        moment["request"] = root.name if root is not None else None
        purpose = f", for {root.name}" if root is not None else ""
        trap = TRAP_NAMES[timeline.trap[row]] if timeline.trap[row] < len(TRAP_NAMES) else "?"
        if in_kernel:
            span = f"{grouped(entry)} to {grouped(int(timeline.end[row]))}"
            whose = f" of {run.thread_name(thread)}" if thread else ""
            causes = timeline.kernel_causes(row)
            words = f"kernel, {trap}{whose}{purpose}, cycles {span}: {_listed(causes)}"
        else:
            span = f"{grouped(int(timeline.start[row]))} to {grouped(entry)}"
            causes = timeline.user_causes(row)
            doing = f"{run.thread_name(thread)} runs{purpose}" if thread else "idle"
            until = f", until a kernel entry: {trap}" if is_entry(int(timeline.trap[row])) else ""
            words = f"{doing}, cycles {span}{until}"
        moment["state"] = "kernel" if in_kernel else "user" if thread else "idle"
        return moment | {"doing": words, "causes": causes}

    # --- all of them ------------------------------------------------------------------------------

    def summary(self) -> int:
        operations = self._operations
        slowest = [operation for kind in KIND_WORDS for operation in operations.slowest(kind, SLOWEST)]
        if self._asked.as_json:
            document = {
                "format": WHY_FORMAT,
                "operations": {
                    word: {
                        "count": operations.count(kind),
                        "requests": operations.roots(kind),
                        "unfinished": operations.unfinished(kind),
                    }
                    for kind, word in KIND_WORDS.items()
                },
                "slowest": [operation_document(self._run, self._symbols, operation) for operation in slowest],
            }
            print_json(document)
            return 0
        for kind, word in KIND_WORDS.items():
            count, unfinished = operations.count(kind), operations.unfinished(kind)
            nested = count - operations.roots(kind)
            self._say(
                f"{word}: {grouped(count)}"
                + (f", {grouped(nested)} of them in the course of others" if nested else "")
                + (f", {grouped(unfinished)} never answered" if unfinished else "")
            )
        if slowest:
            self._say("")
            self._show(self._slowest_table(slowest))
            self._say(
                f"\nl4lab why {slowest[0].name} {self._run.folder}    tells why the first of them took so long"
            )
        return 0

    def _slowest_table(self, slowest: list[Operation]) -> Table:
        rows = table("slowest", "cycles", "at cycle", "core", whole=True)
        rows.add_column("what", overflow="fold")
        kind = None
        for operation in slowest:
            if kind not in (None, operation.kind):
                rows.add_section()
            kind = operation.kind
            latency = operation.latency_cycles
            rows.add_row(
                operation.name,
                grouped(latency) if latency is not None else "",
                grouped(operation.cycle),
                str(operation.core),
                described(self._run, self._symbols, operation),
            )
        return rows


# --- in words -----------------------------------------------------------------------------------------


def _ending(run: Run, chain: Chain) -> str:
    operation = chain.operation
    time_us = chain.cycles / run.mhz
    span = f"{grouped(chain.cycles)} cycles ({time_us:.2f} us at {run.mhz} MHz)"
    begin = f"From cycle {grouped(operation.cycle)} on core {operation.core}"
    if operation.resumed is not None:
        return f"{begin}, {span} until it could go on."
    if operation.open_ended:
        return f"{begin}, {span} until the message had gone over."
    return f"{begin}, {span} until the last was done for it; its thread never went on."


def _listed(cycles: dict[str, int]) -> str:
    return ", ".join(f"{name} {grouped(number)}" for name, number in cycles.items())


def _cell(line: Line) -> str:
    """What a line was spent on, for a table: numbers without gaps, which could be torn apart."""
    if line.details is line.causes:
        return ", ".join(f"{name} {cycles}" for name, cycles in line.causes.items())
    shown = dict(list(line.details.items())[:_MEANWHILE_SHOWN])
    others = sum(line.details.values()) - sum(shown.values())
    told = [f"{name}: {cycles}" for name, cycles in shown.items()] + [f"others: {others}"] * bool(others)
    return f"meanwhile {', '.join(told)}"
