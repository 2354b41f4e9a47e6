"""Threads: what runs, and what a thread that does not run waits for.

Blocking is data. There are no kernel stacks: a thread that waits is described completely by its
`state` and the few fields that go with it, and whoever ends the wait changes them. The legal
transitions are `TRANSITIONS`; `invariants.transitions_checked` holds every change against them.

    DORMANT    never started by ex_regs
    READY      runs, or waits for its core (in a ready queue; off-line if it has no core)
    SENDING    queued at `partner` (a thread, a gate without thread) until its message is taken
    RECEIVING  waits for a message: from `partner`, or from anyone if `partner` is None
    LATE       as RECEIVING, but its timeout is over: it takes what comes before it runs again
    WAITING    queued at `partner`, a semaphore
    REMOTE     its send phase was requested of the core of `partner`, another one than its own; or done
               there (`sent`), and its own core has yet to run the receive phase
    TAKING     a message with items comes from `partner`, a thread of another core, and must not be disturbed
    DEAD       killed; never changes again
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from l4lab.kernel.capability import KernelObject
from l4lab.kernel.quota import Quota

if TYPE_CHECKING:
    from l4lab.kernel.interface import InterfaceState, KernelMessage
    from l4lab.kernel.objects import Task
    from l4lab.kernel.timeouts import Timeout

DORMANT: Final = 0
READY: Final = 1
SENDING: Final = 2
RECEIVING: Final = 3
LATE: Final = 4
WAITING: Final = 5
DEAD: Final = 6
REMOTE: Final = 7
TAKING: Final = 8
STATE_NAMES: Final = (
    "dormant",
    "ready",
    "sending",
    "receiving",
    "late",
    "waiting",
    "dead",
    "remote",
    "taking",
)

TRANSITIONS: Final = {
    DORMANT: (READY, DEAD),
    READY: (SENDING, RECEIVING, LATE, WAITING, REMOTE, DEAD),
    SENDING: (READY, RECEIVING, LATE, DEAD),
    RECEIVING: (READY, TAKING, DEAD),
    LATE: (READY, TAKING, DEAD),
    WAITING: (READY, DEAD),
    REMOTE: (READY, SENDING, RECEIVING, LATE, DEAD),
    TAKING: (READY, RECEIVING, DEAD),
    DEAD: (),
}

RECEIVE_NONE: Final = 0
RECEIVE_CLOSED: Final = 1
RECEIVE_OPEN: Final = 2

NO_CORE: Final = -1


class ReplySlot:
    """Where a server finds the caller it owes an answer: the implicit slot of a thread, or an explicit one.

    `rights`: W and S of the capability that the caller used; they mask the answer's items.
    """

    __slots__ = ("caller", "rights")

    def __init__(self) -> None:
        self.caller: Thread | None = None
        self.rights = 0

    def fill(self, caller: Thread, rights: int) -> None:
        """Remember `caller`; one that was there before is forgotten and waits on (ABI sheet section 5)."""
        self.clear()
        if caller.held_by is not None:
            caller.held_by.clear()
        self.caller = caller
        self.rights = rights
        caller.held_by = self

    def clear(self) -> None:
        """Empty the slot."""
        if self.caller is not None:
            self.caller.held_by = None
            self.caller = None


class SenderQueue:
    """Who waits to send to a thread: by priority, first come first served inside one.

    `_levels`: priority -> senders in order. `_occupied`: bit p set while level p is not empty.
    """

    __slots__ = ("_levels", "_occupied")

    def __init__(self) -> None:
        self._levels: dict[int, OrderedDict[KernelObject, None]] = {}
        self._occupied = 0

    def __bool__(self) -> bool:
        return self._occupied != 0

    def __iter__(self) -> Iterator[KernelObject]:
        for priority in sorted(self._levels, reverse=True):
            yield from self._levels[priority]

    def holds(self, sender: KernelObject, priority: int) -> bool:
        """True if `sender` is queued with that priority."""
        return sender in self._levels.get(priority, ())

    def first(self) -> KernelObject:
        """The sender that an open wait takes; the queue must not be empty."""
        return next(iter(self._levels[self._occupied.bit_length() - 1]))

    def add(self, sender: KernelObject, priority: int) -> None:
        """Queue `sender` behind those of its priority."""
        level = self._levels.get(priority)
        if level is None:
            level = self._levels[priority] = OrderedDict()
        level[sender] = None
        self._occupied |= 1 << priority

    def remove(self, sender: KernelObject, priority: int) -> None:
        """Take `sender` out; `priority` is the one it was added with."""
        level = self._levels[priority]
        del level[sender]
        if not level:
            del self._levels[priority]
            self._occupied &= ~(1 << priority)


class Thread(KernelObject):
    """One thread. Fields in groups; every one is declared here."""

    __slots__ = (
        # Who and where. `utcb`: index into RAM's words of the UTCB, a scratch page while unbound.
        "frame",
        "task",
        "utcb",
        "utcb_address",
        # What it waits for. `queued_priority`: the one it has in `partner`'s queue.
        "state",
        "partner",
        "queued_priority",
        "timeout",
        # The operation in flight: what is sent, and what to receive once it is sent.
        "send_tag",
        "send_label",
        "send_rights",
        "receive",
        "receive_from",
        "receive_timeout",
        "sends",
        # Set while the kernel sends in the thread's name: a page fault or an exception.
        "kernel_message",
        # Rendezvous, server side. `held_by`: the slot that names this thread as its caller.
        "senders",
        "reply",
        "held_by",
        "reply_slot_wanted",
        # IRQ objects and gates bound here, and the IRQ that tells of a gate's end.
        "bound_irqs",
        "bound_gates",
        "delete_irq",
        # Scheduling. `core`: NO_CORE while off-line. `queued`: in its core's ready queue. `in_flight`:
        # ready, but its core has yet to learn it. `operation`: counts what was requested of other cores;
        # `sent`: whether that was done, while REMOTE. `taken_operation`: the sender's, while TAKING.
        "core",
        "in_flight",
        "operation",
        "sent",
        "taken_operation",
        "priority",
        "quantum_cycles",
        "quantum_left_cycles",
        "queued",
        # What the interface keeps besides: handlers, modes.
        "interface_state",
        # An exception to raise before the thread runs again: (trap number, error code, address).
        "pending_exception",
        # Which request it works for, and which one it began with its operation in flight (`requests`).
        # `last_request`: the latest of either, still known when it is over.
        "request",
        "began",
        "last_request",
        # Counters for people.
        "system_calls",
        "page_faults",
        "exceptions",
        "ipc_count",
    )

    kind = "thread"

    def __init__(
        self,
        number: int,
        quota: Quota,
        charged_bytes: int,
        frame: array[int],
        scratch_utcb: int,
        quantum_cycles: int,
        interface_state: InterfaceState,
    ) -> None:
        super().__init__(number, quota, charged_bytes)
        self.frame = frame
        self.task: Task | None = None
        self.utcb = scratch_utcb
        self.utcb_address = 0
        self.state = DORMANT
        self.partner: KernelObject | None = None
        self.queued_priority = 0
        self.timeout: Timeout | None = None
        self.send_tag = 0
        self.send_label = 0
        self.send_rights = 0
        self.receive = RECEIVE_NONE
        self.receive_from: KernelObject | None = None
        self.receive_timeout = 0
        self.sends = True
        self.kernel_message: KernelMessage | None = None
        self.senders = SenderQueue()
        self.reply = ReplySlot()
        self.held_by: ReplySlot | None = None
        self.reply_slot_wanted: ReplySlot | None = None
        self.bound_irqs: dict[KernelObject, None] = {}
        self.bound_gates: dict[KernelObject, None] = {}
        self.delete_irq: KernelObject | None = None
        self.core = NO_CORE
        self.priority = 1
        self.quantum_cycles = quantum_cycles
        self.quantum_left_cycles = quantum_cycles
        self.queued = False
        self.in_flight = False
        self.operation = 0
        self.sent = False
        self.taken_operation = 0
        self.interface_state = interface_state
        self.pending_exception: tuple[int, int, int] | None = None
        self.request = 0
        self.began = 0
        self.last_request = 0
        self.system_calls = 0
        self.page_faults = 0
        self.exceptions = 0
        self.ipc_count = 0

    @property
    def state_name(self) -> str:
        """The state, in words, for people."""
        return STATE_NAMES[self.state]
