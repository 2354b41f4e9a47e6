"""`monitor` commands: kernel objects, catchpoints, backtraces through messages, travel in time.

A command only ever shows something or notes something down: gdb does not expect the machine to move
under it. Commands that move it (`goto`, `back`, `forth`) take effect when gdb next lets it go on, by
`continue` or any other command; `define`s in the generated script put the two together.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from l4lab.emulator.debug.catching import PROTOCOLS, Catch, CatchKind
from l4lab.emulator.debug.stops import Goal, GoalKind, Stop, StopKind
from l4lab.kernel import inspect, inspect_memory
from l4lab.kernel.units import PAGE_BYTES
from l4lab.tools.debug import callchain
from l4lab.tools.debug.gdb.documents import JDB_LETTERS, VIEWS
from l4lab.tools.debug.gdb.steps import FaultSteps
from l4lab.tools.debug.named import DebugError, task_of, thread_of

if TYPE_CHECKING:
    from l4lab.emulator.debug.debugged import Position
    from l4lab.emulator.debug.debugging import Poll
    from l4lab.kernel.objects import Task
    from l4lab.kernel.state import Kernel
    from l4lab.kernel.thread import Thread
    from l4lab.tools.debug.gdb.target import GdbThread, Target

_ADDRESSES: Final = re.compile(r"(0x[0-9a-fA-F]+|[0-9]+)(?:-(0x[0-9a-fA-F]+|[0-9]+))?")


@dataclass(frozen=True, slots=True)
class _Command:
    """One command. `usage`: its arguments. `meaning`: a sentence."""

    run: Callable[[Monitor, list[str]], list[str]]
    usage: str
    meaning: str


@dataclass(frozen=True, slots=True)
class _Move:
    """What a command has noted down: in words, how to do it, and where the machine stood when it was given.

    `misses`: observers have not seen all that lies before that.
    """

    text: str
    make: Callable[[Poll], Stop]
    begins: Position
    misses: bool


class Monitor:
    """The commands of one session. `say`: text while the machine runs."""

    def __init__(self, target: Target, say: Callable[[str], None]) -> None:
        self._target = target
        self._selected: GdbThread | None = None
        self._move: _Move | None = None
        self._next_catch = 1
        self.steps = FaultSteps(target.debugger, target.programs, say)

    def run(self, text: str, selected: GdbThread) -> list[str]:
        """The lines that a command answers. Raises DebugError, and has done nothing then.

        With `quietly` before it, a command that moves says nothing: the script's own commands go on at once.
        """
        self._selected = selected
        try:
            words = shlex.split(text)
            if words[:1] == ["quietly"]:
                self.run(shlex.join(words[1:]), selected)
                return []
            if not words:
                return self._help([])
            name = JDB_LETTERS.get(words[0], words[0])
            command = _COMMANDS.get(name)
            if command is None:
                raise DebugError(f"{words[0]!r} is no command; `monitor help` lists them")
            return command.run(self, words[1:])
        except ValueError as error:
            raise DebugError(str(error)) from None

    @property
    def is_about_to_move(self) -> bool:
        """Whether `goto`, `back` or `forth` have been given since the machine went on last."""
        return self._move is not None

    def give_up(self, why: str) -> str:
        """It will not be made; what to tell a person, and the machine is where it was when the command was given."""
        assert self._move is not None
        move, self._move = self._move, None
        if self._target.debugger.machine.position != move.begins:
            self._target.debugger.come_back(move.begins)
        return f"{move.text}: not from here: {why}"

    def stepped_aside(self, stop: Stop) -> Stop:
        """gdb has made a step over its breakpoint, of a thread that stands there; the move is still to come.

        If that thread does not leave its instruction, there will be none: gdb would not go on.
        """
        if stop.kind is StopKind.STEP:
            return stop
        name = inspect.thread_name(stop.thread) if stop.thread is not None else "the thread"
        text = self.give_up(f"{name} does not leave the instruction at its breakpoint; `disable` it first")
        here = self._target.debugger.last_stop
        if stop.kind is StopKind.INTERRUPTED:
            return replace(here, kind=stop.kind)
        return replace(here, kind=StopKind.NO_STEP, text=text)

    def move(self, poll: Poll) -> Stop:
        """Do it, from where the machine was when the command was given."""
        move, self._move = self._move, None
        assert move is not None
        debugger = self._target.debugger
        if move.misses:
            self.steps.forget()
        debugger.forget_waiting()
        self.steps.stops = False
        self._target.arm()
        if debugger.machine.position != move.begins:
            debugger.go_to(move.begins)
        stop = move.make(poll)
        if stop.kind is StopKind.NEW_TASK:
            # gdb gets to know the task and goes on by itself; so does the move.
            self._move = replace(move, begins=debugger.machine.position, misses=False)
            return stop
        if stop.kind is StopKind.CATCHPOINT and not stop.text:
            return stop  # one of the steps, told already
        return replace(stop, text=f"{move.text}: {stop.text or stop.kind.value}")

    # --- finding --------------------------------------------------------------------------------------

    @property
    def _kernel(self) -> Kernel:
        return self._target.debugger.machine.kernel

    def _thread(self, words: list[str]) -> Thread:
        """The thread that is named, or else selected."""
        selected = self._selected.thread if self._selected is not None else None
        thread = thread_of(self._kernel, words[0]) if words else selected
        if thread is None and not words:
            raise DebugError("no thread is selected; expected its number or name")
        if thread is None:
            raise DebugError(f"there is no thread {words[0]!r}; `monitor threads` lists them")
        return thread

    def _task(self, words: list[str]) -> Task:
        """The task that is named, or else that of the selected thread."""
        selected = self._target.task_of(self._selected) if self._selected is not None else None
        task = task_of(self._kernel, words[0]) if words else selected
        if task is None and not words:
            raise DebugError("no task is selected; expected its number or name")
        if task is None:
            raise DebugError(f"there is no task {words[0]!r}; `monitor tasks` lists them")
        return task

    # --- looking --------------------------------------------------------------------------------------

    def _help(self, _: list[str]) -> list[str]:
        lines = [f"{name} {command.usage}".ljust(28) + command.meaning for name, command in _COMMANDS.items()]
        letters = ", ".join(f"{letter}={name}" for letter, name in JDB_LETTERS.items())
        return [
            *lines,
            "",
            "KIND of event:",
            *(f"  {kind.value:<10}{kind.meaning}" for kind in CatchKind),
            "FILTER: task=, thread=, address=A or address=A-B, protocol= (a name or a number)",
            f"As in Fiasco's debugger: {letters}",
        ]

    def _info(self, words: list[str]) -> list[str]:
        if words[:1] == ["mem"]:
            return self._info_mem(words[1:])
        if not words:
            return [f"{name:<10}{what}" for name, (what, _) in VIEWS.items()]
        name = JDB_LETTERS.get(words[0], words[0])
        command = _COMMANDS.get(name)
        if command is None or name in ("goto", "back", "forth", "catch", "delete", "steps", "info"):
            raise DebugError(
                f"there is nothing to tell about {words[0]!r}; `monitor help` lists what there is"
            )
        return command.run(self, words[1:])

    def _info_mem(self, words: list[str]) -> list[str]:
        """`start-end size urw`, as QEMU has it: what debuggers' plug-ins read."""
        found = inspect_memory.ranges(self._kernel, self._task(words).space, contiguous=False)
        joined: list[tuple[int, int, str]] = []
        for r in found:
            rights = f"{r.rights[2]}{r.rights[:2]}"
            if joined and joined[-1][1] == r.start and joined[-1][2] == rights:
                joined[-1] = (joined[-1][0], r.end, rights)
            else:
                joined.append((r.start, r.end, rights))
        return [f"{start:016x}-{end:016x} {end - start:016x} {rights}" for start, end, rights in joined]

    def _objects(self, words: list[str]) -> list[str]:
        kind = words.pop(0) if words else ""
        _no_more(words)
        if kind and kind not in inspect.KINDS:
            raise DebugError(f"{kind!r} is no kind of object, expected one of {', '.join(inspect.KINDS)}")
        return inspect.objects(self._kernel, kind).lines()

    def _page_table(self, words: list[str]) -> list[str]:
        address = None
        if words and (len(words) > 1 or words[0].startswith("0x")):
            address = _address(words.pop())
        return inspect_memory.page_table(self._kernel, self._task(words), address).lines()

    def _mapping_tree(self, words: list[str]) -> list[str]:
        if len(words) != 1:
            raise DebugError("expected one address of the selected task, or `frame=N`")
        if words[0].startswith("frame="):
            return inspect_memory.mapping_tree(self._kernel, _address(words[0][len("frame=") :])).lines()
        task, address = self._task([]), _address(words[0])
        found = task.space.tables.translate(address)
        if found is None:
            raise DebugError(f"{address:#x} is not mapped in {inspect.task_name(task)}")
        return inspect_memory.mapping_tree(self._kernel, found.physical >> 12).lines()

    def _backtrace(self, words: list[str]) -> list[str]:
        machine = self._target.debugger.machine
        return callchain.lines(callchain.call_chain(machine, self._target.programs, self._thread(words)))

    def _where(self, words: list[str]) -> list[str]:
        _no_more(words)
        debugger = self._target.debugger
        clocks = ", ".join(str(core.clock_cycles) for core in debugger.machine.cores)
        stop = debugger.last_stop
        return [
            f"cycles of the cores: {clocks}",
            f"stopped: {stop.kind.value}{': ' + stop.text.strip() if stop.text else ''}",
            f"position {debugger.machine.position}, {len(debugger.history.snapshots)} snapshots",
        ]

    # --- catching -------------------------------------------------------------------------------------

    def _catch(self, words: list[str]) -> list[str]:
        debugger = self._target.debugger
        if not words:
            return [f"{catch.number}: {catch}" for catch in debugger.catches] or ["no catchpoints"]
        catch = _parse_catch(words, self._next_catch)
        self._next_catch += 1
        debugger.set_catches((*debugger.catches, catch))
        self._follow_faults()
        return [f"catchpoint {catch.number}: {catch} ({catch.kind.meaning}){self._not_there_yet(catch)}"]

    def _not_there_yet(self, catch: Catch) -> str:
        """Whom it waits for that may come to be, or may be misspelt."""
        missing = ""
        named = (("task", catch.task, self._task), ("thread", catch.thread, self._thread))
        for what, name, find in named:
            if name is not None:
                try:
                    find([name])
                except DebugError:
                    missing += f"; no such {what} yet: {name}"
        return missing

    def _delete(self, words: list[str]) -> list[str]:
        debugger = self._target.debugger
        kept = tuple(catch for catch in debugger.catches if words and str(catch.number) not in words)
        unknown = [word for word in words if word not in {str(catch.number) for catch in debugger.catches}]
        if unknown:
            raise DebugError(f"there is no catchpoint {unknown[0]}")
        debugger.set_catches(kept)
        self._follow_faults()
        return [f"{len(kept)} catchpoints left"]

    def _steps(self, words: list[str]) -> list[str]:
        if words not in ([], ["on"], ["off"]):
            raise DebugError(f"found {words[0]!r}, expected on or off")
        if words:
            self.steps.everybody = words == ["on"]
            self._follow_faults()
        which = "of every page fault" if self.steps.everybody else "of page faults that a catchpoint stops at"
        return [f"the seven steps {which} are told"]

    def _follow_faults(self) -> None:
        self.steps.follow(self._catches_faults() or self.steps.everybody)

    def _catches_faults(self) -> bool:
        return any(catch.kind is CatchKind.FAULT for catch in self._target.debugger.catches)

    # --- moving ---------------------------------------------------------------------------------------

    def _note(self, text: str, move: Callable[[Poll], Stop]) -> list[str]:
        debugger = self._target.debugger
        self._move = _Move(text, move, debugger.machine.position, debugger.has_waiting)
        return [f"{text}: when the machine next goes on (`continue`)"]

    def _goto(self, words: list[str]) -> list[str]:
        if not 1 <= len(words) <= 2:
            raise DebugError("expected a cycle, and perhaps a core")
        debugger = self._target.debugger
        cycle = _address(words[0].replace("_", ""))
        selected = self._selected.core if self._selected is not None else 0
        core = _address(words[1]) if len(words) == 2 else selected
        if core >= len(debugger.machine.cores):
            raise DebugError(f"there is no core {core}, expected 0 to {len(debugger.machine.cores) - 1}")

        def move(poll: Poll) -> Stop:
            self.steps.forget()
            return debugger.go_to_clock(core, cycle, poll)

        return self._note(f"goto {cycle} core {core}", move)

    def _back(self, words: list[str]) -> list[str]:
        catch = _parse_catch(words, 0)
        debugger = self._target.debugger

        def move(poll: Poll) -> Stop:
            self.steps.forget()
            return self._followed(self._with_only(catch, lambda: debugger.continue_back(poll)))

        return self._note(f"back {catch}", move)

    def _forth(self, words: list[str]) -> list[str]:
        debugger = self._target.debugger
        if words == ["entry"]:
            return self._note("forth entry", lambda poll: debugger.resume(Goal(GoalKind.ENTRY), poll))
        if words == ["step"]:
            return self._note("forth step", self._next_step())
        catch = _parse_catch(words, 0)

        def move(poll: Poll) -> Stop:
            return self._followed(self._with_only(catch, lambda: debugger.resume(poll=poll)))

        return self._note(f"forth {catch}", move)

    def _followed(self, stop: Stop) -> Stop:
        """Where that is a page fault, `forth step` leads on from there."""
        happening = stop.happening
        if happening is not None and happening.kind is CatchKind.FAULT and not self.steps.tell(stop):
            self.steps.begin_at(stop)
        return stop

    def _next_step(self) -> Callable[[Poll], Stop]:
        if not (self._catches_faults() or self.steps.everybody or self.steps.under_way):
            raise DebugError(
                "no page faults are followed; expected `monitor catch fault`, `steps on`, or `forth fault` before"
            )

        def move(poll: Poll) -> Stop:
            self.steps.stops = True
            return self._target.debugger.resume(poll=poll)

        return move

    def _with_only(self, catch: Catch, move: Callable[[], Stop]) -> Stop:
        """Let nothing but `catch` stop the machine."""
        debugger = self._target.debugger
        before = debugger.catches, debugger.breakpoints, debugger.watchpoints
        debugger.set_catches((catch,))
        debugger.set_breakpoints(())
        debugger.set_watchpoints(())
        try:
            return move()
        finally:
            debugger.set_catches(before[0])
            debugger.set_breakpoints(before[1])
            debugger.set_watchpoints(before[2])


def _no_more(words: list[str]) -> None:
    if words:
        raise DebugError(f"found {words[0]!r}, expected nothing more")


def _address(word: str) -> int:
    try:
        value = int(word, 0)
    except ValueError:
        raise DebugError(f"{word!r} is no number") from None
    if not 0 <= value < 1 << 64:
        raise DebugError(f"{word} is out of range")
    return value


def _parse_catch(words: list[str], number: int) -> Catch:
    """`KIND`, and then `filter=value`; an address alone stands for its page."""
    if not words:
        raise DebugError("expected what to catch: " + ", ".join(kind.value for kind in CatchKind))
    try:
        kind = CatchKind(words[0])
    except ValueError:
        known = ", ".join(kind.value for kind in CatchKind)
        raise DebugError(f"{words[0]!r} cannot be caught, expected one of {known}") from None
    catch = Catch(number, kind)
    given = set()
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not equals and _ADDRESSES.fullmatch(word):
            name, value = "address", word
        if name in given:
            raise DebugError(f"{word!r}: found {name} twice, expected it once")
        given.add(name)
        if name == "task":
            catch = replace(catch, task=value)
        elif name == "thread":
            catch = replace(catch, thread=value)
        elif name == "address":
            first, last = _range(value)
            catch = replace(catch, first=first, last=last)
        elif name == "protocol":
            catch = replace(catch, protocol=_protocol(value))
        else:
            raise DebugError(f"{word!r} is no filter, expected task=, thread=, address= or protocol=")
    return catch


def _range(text: str) -> tuple[int, int]:
    match = _ADDRESSES.fullmatch(text)
    if match is None:
        raise DebugError(f"{text!r} is no address, expected A or A-B")
    first = int(match[1], 0)
    if match[2] is not None:
        return first, int(match[2], 0)
    return first // PAGE_BYTES * PAGE_BYTES, first // PAGE_BYTES * PAGE_BYTES + PAGE_BYTES - 1


def _protocol(text: str) -> int:
    if text in PROTOCOLS:
        return PROTOCOLS[text]
    try:
        return int(text, 0)
    except ValueError:
        known = ", ".join(PROTOCOLS)
        raise DebugError(f"{text!r} is no protocol, expected a number or one of {known}") from None


def _view(name: str) -> Callable[[Monitor, list[str]], list[str]]:
    def show(monitor: Monitor, words: list[str]) -> list[str]:
        _no_more(words)
        return VIEWS[name][1](monitor._target.debugger.machine).lines()

    return show


_COMMANDS: Final[dict[str, _Command]] = {
    "help": _Command(Monitor._help, "", "this list"),
    "info": _Command(
        Monitor._info, "VIEW [...]", "as VIEW alone; `info mem`: the address space, as QEMU shows it"
    ),
    **{
        name: _Command(_view(name), "", what.lower() if not what.startswith("RAM") else what)
        for name, (what, _) in VIEWS.items()
    },
    "objects": _Command(Monitor._objects, "[KIND]", "kernel objects"),
    "thread": _Command(
        lambda monitor, words: inspect.thread_details(monitor._kernel, monitor._thread(words)).lines(),
        "[THREAD]",
        "everything about a thread",
    ),
    "message": _Command(
        lambda monitor, words: inspect.message(monitor._kernel, monitor._thread(words)).lines(),
        "[THREAD]",
        "the message that a thread sends or has got",
    ),
    "caps": _Command(
        lambda monitor, words: inspect.capabilities(monitor._kernel, monitor._task(words)).lines(),
        "[TASK]",
        "a task's capability table",
    ),
    "ptable": _Command(Monitor._page_table, "[TASK] [ADDRESS]", "page tables, or the way to one address"),
    "mapdb": _Command(Monitor._mapping_tree, "ADDRESS|frame=N", "who has a page from whom"),
    "bt": _Command(
        Monitor._backtrace, "[THREAD]", "calls on the stack, and on through messages to who waits for it"
    ),
    "catch": _Command(Monitor._catch, "[KIND] [FILTER=...]", "stop at events; alone: the list"),
    "delete": _Command(Monitor._delete, "[NUMBER]", "remove a catchpoint, or all"),
    "steps": _Command(Monitor._steps, "[on|off]", "name the seven steps of every page fault as they pass"),
    "goto": _Command(Monitor._goto, "CYCLE [CORE]", "the first moment at which a core reaches a cycle"),
    "back": _Command(Monitor._back, "KIND [FILTER=...]", "to the last such event before now; see catch"),
    "forth": _Command(
        Monitor._forth,
        "KIND [FILTER=...]",
        "to the next such event, or `entry` into the kernel, or `step` of the fault that is followed",
    ),
    "where": _Command(Monitor._where, "", "cycle, position in the run, snapshots"),
}
