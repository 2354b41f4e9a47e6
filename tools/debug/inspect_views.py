"""The views of a machine that stands still, by the names that `l4lab inspect` and `l4lab debug` know them by.

They are those of `monitor` in gdb and of the real kernel's debugger, whose letters are understood, too. A
view of one object is asked for with a colon: `caps:hello`, `ptable:hello:0x20000000`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from l4lab.emulator.debug.catching import protocol_name
from l4lab.emulator.files.inputs import did_you_mean, printable
from l4lab.emulator.interfaces import INTERFACE
from l4lab.kernel import inspect, inspect_memory
from l4lab.kernel.inspect import Cell, View
from l4lab.kernel.thread import LATE, RECEIVING, REMOTE, SENDING, TAKING, Thread
from l4lab.kernel.traps import VECTOR_PAGE_FAULT
from l4lab.tools.debug import callchain
from l4lab.tools.debug.gdb.documents import JDB_LETTERS
from l4lab.tools.debug.gdb.documents import VIEWS as OF_THE_MACHINE
from l4lab.tools.debug.named import DebugError, number_of, task_of, thread_of

if TYPE_CHECKING:
    from l4lab.emulator.machine import Machine
    from l4lab.kernel.objects import Task
    from l4lab.tools.runs.programs import Programs


@dataclass(frozen=True, slots=True)
class Looked:
    """What can be looked at. `programs`: names and lines of the image's programs."""

    machine: Machine
    programs: Programs


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of view. `arguments`: what follows the name, for people. `get`: the views for these words."""

    meaning: str
    arguments: str
    get: Callable[[Looked, list[str]], list[View]]


def views(looked: Looked, asked: str) -> list[View]:
    """The tables for one word of an operator, as `caps:hello`. Raises DebugError."""
    name, *words = asked.split(":")
    kind = KINDS.get(JDB_LETTERS.get(name, name))
    if kind is None:
        raise DebugError(
            f"found no view '{printable(name)}'{did_you_mean(name, KINDS)}, expected some of {', '.join(KINDS)}"
        )
    try:
        return kind.get(looked, words)
    except DebugError as problem:
        raise DebugError(f"{printable(asked.rstrip(':'))}: {problem}") from None


_CONTROLS: Final = {
    code: 0x2400 + code if code < 0x20 else 0xFFFD for code in (*range(32), *range(0x7F, 0xA0)) if code != 10
}


def visible(text: str) -> str:
    """With signs for control characters, of the same length: what guests name or print controls no terminal."""
    return text.translate(_CONTROLS)


# --- messages -------------------------------------------------------------------------------------------


def messages(machine: Machine) -> View:
    """Messages that wait, are under way, or whose answer is waited for."""
    rows: list[tuple[Cell, ...]] = []
    for thread in machine.kernel.threads.values():
        partner = thread.partner
        if partner is None or partner is thread:
            continue
        if thread.state == TAKING:
            if not (isinstance(partner, Thread) and partner.state == REMOTE):
                sent = content(partner) if isinstance(partner, Thread) else ""
                rows.append((inspect.object_name(partner), inspect.thread_name(thread), sent, "going over"))
            continue
        if thread.held_by is not None and thread.state in (RECEIVING, LATE, REMOTE):
            state = "being served"
        elif thread.state in (SENDING, REMOTE):
            state = "queued" if thread.state == SENDING else "under way to the other core"
        else:
            continue
        rows.append((inspect.thread_name(thread), inspect.object_name(partner), content(thread), state))
    return View(inspect.counted(len(rows), "message"), ("from", "to", "message", "state"), tuple(rows))


def content(thread: Thread) -> str:
    """What a thread sends, or what it has sent and waits for an answer to, in words."""
    if thread.kernel_message is not None:
        number, code, address = thread.kernel_message.fault
        if number != VECTOR_PAGE_FAULT:
            return f"exception {number}, error code {code:#x}"
        return f"page fault, {'write to' if code & 2 else 'read from'} {address:#x}"
    label, words, items = INTERFACE.tag(thread.send_tag)
    parts = [inspect.counted(words, "word")] if words or not items else []
    parts += [inspect.counted(items, "item")] if items else []
    return f"{protocol_name(label)}, {', '.join(parts)}"


# --- one object -----------------------------------------------------------------------------------------


def find_thread(machine: Machine, word: str) -> Thread:
    """The thread of that number or name. Raises DebugError."""
    found = thread_of(machine.kernel, word)
    if found is None:
        raise _not_there("thread", word, map(inspect.thread_name, machine.kernel.threads.values()))
    return found


def find_task(machine: Machine, word: str) -> Task:
    """The task of that number or name. Raises DebugError."""
    found = task_of(machine.kernel, word)
    if found is None:
        raise _not_there("task", word, map(inspect.task_name, machine.kernel.tasks.values()))
    return found


def _not_there(what: str, word: str, known: Iterable[str]) -> DebugError:
    hint = did_you_mean(word, list(known))
    return DebugError(f"found no {what} '{printable(word)}'{hint}, `{what}s` lists them")


def _number(word: str) -> int:
    value = number_of(word)
    if value is None:
        raise DebugError(f"found '{printable(word)}', expected a number below 2**32, as in 0x1000")
    return value


def _at_most(words: list[str], most: int, expected: str) -> None:
    if len(words) > most:
        raise DebugError(f"found '{printable(':'.join(words[most:]))}' too much, expected {expected}")


def _of_the_machine(get: Callable[[Machine], View]) -> Callable[[Looked, list[str]], list[View]]:
    def show(looked: Looked, words: list[str]) -> list[View]:
        _at_most(words, 0, "nothing behind the name")
        return [get(looked.machine)]

    return show


def _objects(looked: Looked, words: list[str]) -> list[View]:
    _at_most(words, 1, "one kind of object")
    kind = words[0] if words else ""
    if kind and kind not in inspect.KINDS:
        raise DebugError(f"found '{printable(kind)}', expected one of {', '.join(inspect.KINDS)}")
    return [inspect.objects(looked.machine.kernel, kind)]


def _of_threads(get: Callable[[Looked, Thread], View]) -> Callable[[Looked, list[str]], list[View]]:
    def show(looked: Looked, words: list[str]) -> list[View]:
        _at_most(words, 1, "one thread")
        machine = looked.machine
        chosen = [find_thread(machine, words[0])] if words else list(machine.kernel.threads.values())
        return [get(looked, thread) for thread in chosen]

    return show


def backtrace(looked: Looked, thread: Thread) -> View:
    """The calls on a thread's stack, and on through messages to whoever waits for it."""
    rows: list[tuple[Cell, ...]] = []
    for link in callchain.call_chain(looked.machine, looked.programs, thread):
        rows.append((inspect.thread_name(link.thread), "", "", link.why))
        for frame in link.frames:
            place = str(frame.place) if frame.place is not None else ""
            rows.append(("", f"{frame.address:#010x}", frame.function, place))
    return View(f"backtrace of {inspect.thread_name(thread)}", ("thread", "address", "in", "at"), tuple(rows))


def _capabilities(looked: Looked, words: list[str]) -> list[View]:
    _at_most(words, 1, "one task")
    machine = looked.machine
    chosen = [find_task(machine, words[0])] if words else list(machine.kernel.tasks.values())
    return [inspect.capabilities(machine.kernel, task) for task in chosen]


def _page_tables(looked: Looked, words: list[str]) -> list[View]:
    _at_most(words, 2, "a task and an address")
    machine = looked.machine
    chosen = [find_task(machine, words[0])] if words else list(machine.kernel.tasks.values())
    address = _number(words[1]) if len(words) > 1 else None
    return [inspect_memory.page_table(machine.kernel, task, address) for task in chosen]


def _mapping_trees(looked: Looked, words: list[str]) -> list[View]:
    _at_most(words, 2, "a frame's number, or a task and an address")
    kernel = looked.machine.kernel
    if not words:
        return [inspect_memory.mapping_ways(kernel)]
    if len(words) == 1:
        return [inspect_memory.mapping_tree(kernel, _number(words[0]))]
    task, address = find_task(looked.machine, words[0]), _number(words[1])
    found = task.space.tables.translate(address)
    if found is None:
        raise DebugError(f"{address:#x} is not mapped in {inspect.task_name(task)}")
    return [inspect_memory.mapping_tree(kernel, found.physical >> 12)]


def _kinds() -> Mapping[str, Kind]:
    machine_wide = {
        name: Kind(meaning[0].lower() + meaning[1:], "", _of_the_machine(get))
        for name, (meaning, get) in OF_THE_MACHINE.items()
    }
    return {
        **machine_wide,
        "messages": Kind("messages that wait, are under way or being served", "", _of_the_machine(messages)),
        "objects": Kind("kernel objects, or those of a kind", "[:KIND]", _objects),
        "thread": Kind(
            "everything about a thread",
            "[:THREAD]",
            _of_threads(lambda looked, thread: inspect.thread_details(looked.machine.kernel, thread)),
        ),
        "message": Kind(
            "what a thread sends or has got",
            "[:THREAD]",
            _of_threads(lambda looked, thread: inspect.message(looked.machine.kernel, thread)),
        ),
        "bt": Kind("calls on the stack, and on through messages", "[:THREAD]", _of_threads(backtrace)),
        "caps": Kind("capability tables", "[:TASK]", _capabilities),
        "ptable": Kind("page tables, or the way to one address", "[:TASK[:ADDRESS]]", _page_tables),
        "mapdb": Kind(
            "mapping trees: all in short, or one frame's", "[:FRAME|:TASK:ADDRESS]", _mapping_trees
        ),
    }


KINDS: Final = _kinds()
"""Name -> view."""
