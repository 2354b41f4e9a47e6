"""Who works for whom: a backtrace that goes on through messages.

A server that has received a call owes its caller an answer, and a pager owes one to whoever faulted. From
a server the chain leads to the caller that waits for it, from there to *its* caller, and so on; each
with the function calls on its stack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from l4lab.emulator.debug.catching import protocol_name
from l4lab.emulator.interfaces import INTERFACE
from l4lab.kernel.frame import EBP, EIP, ESP
from l4lab.kernel.inspect import state_text, thread_name
from l4lab.kernel.traps import VECTOR_PAGE_FAULT

if TYPE_CHECKING:
    from l4lab.emulator.machine import Machine
    from l4lab.kernel.thread import Thread
    from l4lab.tools.runs.programs import Frame, Programs


@dataclass(frozen=True, slots=True)
class Link:
    """One thread of a chain. `why`: how it came there, from the link before."""

    thread: Thread
    why: str
    frames: tuple[Frame, ...]


def call_chain(machine: Machine, programs: Programs, thread: Thread) -> list[Link]:
    """The thread, whom it works for, whom that one works for, …; each thread once."""
    links: list[Link] = []
    why = state_text(machine.kernel, thread)
    seen: set[int] = set()
    current: Thread | None = thread
    while current is not None and current.number not in seen:
        seen.add(current.number)
        links.append(Link(current, why, tuple(_frames(machine, programs, current))))
        following = client_of(current)
        if following is not None:
            why = _reason(current, following)
        current = following
    return links


def client_of(thread: Thread) -> Thread | None:
    """Whom the thread owes an answer: the caller in its reply slot, else in one of its task's."""
    if thread.reply.caller is not None:
        return thread.reply.caller
    if thread.task is None:
        return None
    for _, slot in sorted(thread.task.reply_slots.items()):
        caller = slot.caller
        if caller is not None and caller.partner is thread:
            return caller
    return None


def _frames(machine: Machine, programs: Programs, thread: Thread) -> list[Frame]:
    task = thread.task
    if task is None:
        return []
    frame = thread.frame
    return programs.backtrace(machine, task, frame[EIP], frame[ESP], frame[EBP])


def _reason(server: Thread, client: Thread) -> str:
    name = thread_name(server)
    if client.kernel_message is not None:
        number, _, address = client.kernel_message.fault
        if number == VECTOR_PAGE_FAULT:
            return f"faulted at {address:#x}; {name} is its pager and has the message"
        return f"raised exception {number}; {name} handles it"
    label = INTERFACE.tag(client.send_tag).label
    return f"called {name}: {protocol_name(label)}, label {client.send_label:#x}"


def lines(links: list[Link]) -> list[str]:
    """As text, in the manner of gdb's `backtrace`, numbered through."""
    text: list[str] = []
    number = 0
    for link in links:
        text.append(f"{thread_name(link.thread)} (thread {link.thread.number}): {link.why}")
        for frame in link.frames:
            place = f" at {frame.place}" if frame.place is not None else ""
            text.append(f"#{number:<2} {frame.address:#010x} in {frame.function}{place}")
            number += 1
    return text
