"""What each part of the screen shows, as styled text, from a session whose machine stands still."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.text import Text

from l4lab.emulator.debug.debugged import AFTER_ENTRY, BEFORE_ENTRY
from l4lab.kernel import inspect_memory
from l4lab.kernel.frame import EAX, EBP, EBX, ECX, EDI, EDX, EFLAGS, EIP, ESI, ESP
from l4lab.kernel.inspect import message, state_text, task_name, thread_name
from l4lab.tools.common.report import grouped
from l4lab.tools.debug.callchain import call_chain
from l4lab.tools.debug.faults import NAMES
from l4lab.tools.debug.inspect_views import messages
from l4lab.tools.debug.tui.code import disassemble, source_lines

if TYPE_CHECKING:
    from l4lab.kernel.thread import Thread
    from l4lab.tools.debug.tui.session import DebugSession

HERE: Final = "bold reverse"
DIM: Final = "dim"
NAME: Final = "bold cyan"
NUMBER: Final = "green"
ALARM: Final = "bold yellow"

_REGISTERS: Final = (
    ("eax", EAX),
    ("ebx", EBX),
    ("ecx", ECX),
    ("edx", EDX),
    ("esi", ESI),
    ("edi", EDI),
    ("ebp", EBP),
    ("esp", ESP),
    ("eip", EIP),
    ("efl", EFLAGS),
)
_REGISTER_COLUMNS: Final = 14
_ROOM_FOR_REGISTERS: Final = 15
_EXPLANATIONS: Final = (
    "a program uses an address that is not mapped",
    "the processor enters the kernel",
    "the message goes to the pager",
    "the pager asks its allocator",
    "a frame is found; the pager answers",
    "the kernel fills in the page table",
    "back to the instruction",
)
_BEFORE_STEP_TEXT: Final = 21
"""Columns: a mark, the number, the name and the cycles."""
_SUBJECTS: Final = ("the processor ", "the kernel ")
MAX_THREADS: Final = 300
_MESSAGE_WORDS: Final = 8
_EVERY_RANGE: Final = 200


# --- cores and threads ----------------------------------------------------------------------------------


def core_rows(session: DebugSession) -> list[tuple[str, str, str, str]]:
    """(core, cycle, state, thread) of every core."""
    rows = []
    for core in session.machine.cores:
        running = session.running(core.number)
        who = thread_name(running) if running is not None else ""
        rows.append((str(core.number), grouped(core.clock_cycles), _core_state(session, core.number), who))
    return rows


def _core_state(session: DebugSession, number: int) -> str:
    machine = session.machine
    core = machine.cores[number]
    if number == session.moment.core and core is machine.core and not session.moment.ended:
        if machine.phase == BEFORE_ENTRY:
            return "traps"
        if machine.phase == AFTER_ENTRY and machine.entries:
            return "kernel" if core.decision.thread is not None else "idle"
    if core.decision.thread is None:
        return "idle"
    return "traps" if core.trap is not None else "user"


def thread_rows(session: DebugSession) -> list[tuple[int, str, str, str]]:
    """(number, name, core, state) of threads; of very many, the first and the shown one."""
    kernel = session.machine.kernel
    threads = session.threads()
    if len(threads) > MAX_THREADS:
        shown = session.thread
        threads = threads[:MAX_THREADS]
        if shown is not None and shown not in threads:
            threads.append(shown)
    return [
        (t.number, thread_name(t), str(t.core) if t.core >= 0 else "-", state_text(kernel, t))
        for t in threads
    ]


# --- code -----------------------------------------------------------------------------------------------


def source(session: DebugSession, height: int) -> Text:
    """The source around the shown thread's instruction."""
    thread, task = session.thread, session.task
    if thread is None or task is None:
        return Text(_no_thread(session), DIM)
    frame = thread.frame
    calls = session.programs.backtrace(session.machine, task, frame[EIP], frame[ESP], frame[EBP])
    found = next((call for call in calls if call.place is not None), None)
    if found is None or found.place is None:
        return Text("no source is known for this instruction", DIM)
    place = found.place
    before = max((height - 2) // 2, 1)
    lines = source_lines(place, session.manifest.path.parent, before, max(height - 2 - before, 1))
    text = Text().append(f"{calls[0].function} called from " if found is not calls[0] else "", DIM)
    text.append(str(place), NAME)
    if not lines:
        return text.append("\n(the file is not here)", DIM)
    for number, line in lines:
        here = number == place.line
        text.append("\n")
        text.append(f"{'▶' if here else ' '}{number:>4} ", ALARM if here else DIM)
        text.append(line or " ", HERE if here else "")
    return text


def instructions(session: DebugSession, height: int, width: int) -> Text:
    """The instructions around the shown thread's; its registers, or where there is little room its source line."""
    thread, task = session.thread, session.task
    if thread is None or task is None:
        return Text(_no_thread(session), DIM)
    eip = thread.frame[EIP]
    text = Text().append(session.programs.function_at(session.machine, task, eip), NAME)
    text.append(f" of {task_name(task)}")
    below = _registers(thread, width) if height >= _ROOM_FOR_REGISTERS else _source_line(session, eip)
    rows = max(height - 1 - len(below.plain.splitlines()), 3)
    before = rows // 3
    found = disassemble(session.machine, session.programs, task, eip, before, rows - before - 1)
    if not found:
        text.append(f"\n▶{eip:#010x}  not mapped", ALARM)
    for instruction in found:
        here = instruction.address == eip
        mark = "▶" if here else "●" if session.breakpoints.holds(task, instruction.address) else " "
        text.append(f"\n{mark}", ALARM)
        text.append(f"{instruction.address:08x} ", "" if here else DIM)
        text.append(f"{instruction.mnemonic:<6} {instruction.operands}".rstrip(), HERE if here else "")
    return text.append_text(below)


def _registers(thread: Thread, width: int) -> Text:
    text = Text("\n")
    in_row = max((width + 2) // _REGISTER_COLUMNS, 1)
    for index, (name, register) in enumerate(_REGISTERS):
        text.append("\n" if index % in_row == 0 else "  ")
        text.append(f"{name} ", DIM).append(f"{thread.frame[register]:08x}", NUMBER)
    return text


def _source_line(session: DebugSession, eip: int) -> Text:
    program = session.programs.of_task(session.machine, session.task)
    place = program.place_at(eip) if program is not None else None
    if place is None:
        return Text()
    lines = source_lines(place, session.manifest.path.parent, 0, 0)
    return Text().append(f"\n{place}\n", NAME).append(lines[0][1].strip() if lines else "(not here)")


def _no_thread(session: DebugSession) -> str:
    if session.moment.ended:
        return f"{session.moment.text}"
    return f"core {session.core} is idle"


# --- the fault ------------------------------------------------------------------------------------------


def fault_steps(session: DebugSession, width: int = 0) -> Text:
    """The seven steps of the page fault under way, with the cycles of each. `width`: in columns; 0: no matter."""
    fault = session.fault
    if fault is None:
        return Text("No page fault is followed here.\nf goes to the next, F to the last.", DIM)
    text = Text()
    text.append(fault.name, NAME)
    text.append(f" at {fault.address:#x}, from cycle {grouped(fault.cycle)} on core {fault.core}")
    known = {step.number: step for step in fault.shown()}
    for number, name in enumerate(NAMES, 1):
        here, step = number == fault.current, known.get(number)
        cycles = "" if step is None or step.cycles is None else grouped(step.cycles)
        text.append("\n")
        text.append(f"{'▶' if here else '✓' if step is not None else ' '}{number} ", ALARM if here else DIM)
        text.append(f"{name:<8}", HERE if here else NAME if step is not None else DIM)
        text.append(f"{cycles:>8}  ", NUMBER)
        said = step.text if step is not None else _EXPLANATIONS[number - 1]
        room = width - _BEFORE_STEP_TEXT
        text.append(shortened(said, room) if width else said, "" if step is not None else DIM)
    text.append("\n")
    if fault.outcome:
        text.append(fault.outcome, ALARM)
    else:
        text.append(f"so far {grouped(fault.cycles)} cycles", DIM)
    return text


def shortened(text: str, room: int) -> str:
    """A step's text in at most `room` columns, if it can be: without who acts, then without the last clauses."""
    if len(text) > room:
        subject = next((words for words in _SUBJECTS if text.startswith(words)), "")
        text = text[len(subject) :]
    while len(text) > room and ", " in text:
        text = text.rpartition(", ")[0]
    return text


# --- messages and calls ---------------------------------------------------------------------------------


def calls(session: DebugSession) -> Text:
    """The messages in flight; then whom the shown thread works for, with the calls of each."""
    text = Text()
    view = messages(session.machine)
    for sender, receiver, what, state in view.rows:
        text.append(f"{sender}", NAME).append(" ─▶ ", ALARM).append(f"{receiver}", NAME)
        text.append(f"  {state}: ", DIM).append(f"{what}\n")
    if not view.rows:
        text.append("no message is in flight\n", DIM)
    thread = session.thread
    if thread is None:
        return text
    if thread.kernel_message is not None or thread.partner is not None:
        _append_words(session, text, thread)
    number = 0
    for link in call_chain(session.machine, session.programs, thread):
        text.append("\n").append(thread_name(link.thread), NAME).append(f"  {link.why}")
        for frame in link.frames:
            text.append(f"\n #{number:<2}", DIM).append(f"{frame.address:08x} ", DIM).append(frame.function)
            if frame.place is not None:
                text.append(f"  {frame.place}", DIM)
            number += 1
    return text


def _append_words(session: DebugSession, text: Text, thread: Thread) -> None:
    """The words of the message that a waiting thread has sent."""
    view = message(session.machine.kernel, thread)
    if view.rows:
        words = " ".join(str(word) for _, word in view.rows[:_MESSAGE_WORDS])
        more = " …" if len(view.rows) > _MESSAGE_WORDS else ""
        text.append(f"{thread_name(thread)} sent: ", DIM).append(f"{words}{more}\n", NUMBER)


# --- address space --------------------------------------------------------------------------------------


def address_space(session: DebugSession) -> Text:
    """What the shown task's page tables map, where its registers point, and the way to a faulting address."""
    task, thread = session.task, session.thread
    if task is None or thread is None:
        return Text(_no_thread(session), DIM)
    kernel = session.machine.kernel
    fault = session.fault
    marks = {"eip": thread.frame[EIP], "esp": thread.frame[ESP]}
    text = Text()
    text.append(task_name(task), NAME).append(f", page directory at {task.space.tables.cr3:#x}")
    if fault is not None:
        victim = kernel.threads.get(fault.victim)
        if victim is not None and victim.task is not None:
            walk = inspect_memory.page_table(kernel, victim.task, fault.address)
            text.append(f"\n{walk.title}", ALARM)
            for level, at, entry, flags in walk.rows:
                text.append(f"\n  {level} entry at {at}: ", DIM).append(f"{entry} {flags}")
    found = inspect_memory.ranges(kernel, task.space)
    for part in found[:_EVERY_RANGE]:
        here = [name for name, address in marks.items() if part.start <= address < part.end]
        text.append(f"\n{part.start:08x}-{part.end - 1:08x} ", ALARM if here else "")
        text.append(f"{part.end - part.start >> 12:>5} ", NUMBER)
        text.append(f"▶{part.physical:08x} ", DIM).append(part.rights)
        text.append(f" {part.what}" if part.what else "", DIM)
        text.append(f" {' '.join(here)}" if here else "", ALARM)
    if len(found) > _EVERY_RANGE:
        text.append(f"\n… {len(found) - _EVERY_RANGE} more: v ptable", DIM)
    return text


def console(session: DebugSession) -> Text:
    """What guests have printed so far."""
    printed = bytes(session.machine.output).decode("utf-8", "replace")
    return Text(printed.rstrip("\n") or "nothing was printed yet", "" if printed else DIM)
