"""What random programs do: one system call after the other, mostly sensible, never harmless.

`Guests.call` writes the next system call of a thread into its registers and UTCB. Operations are
methods: each fills in message registers and returns what goes into the registers. A last step spoils
some of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

from l4lab.kernel.fiasco import abi
from l4lab.kernel.frame import EAX, ECX, EDX, ESI
from l4lab.tools.check.fuzz.words import (
    FACTORIES,
    GATES,
    IRQS,
    SEMAPHORES,
    TASKS,
    THREADS,
    UTCB_AREA,
    Words,
)

if TYPE_CHECKING:
    from l4lab.kernel.thread import Thread
    from l4lab.tools.check.fuzz.rig import Rig

_MR: Final = abi.UTCB_MR // 4
_BDR: Final = abi.UTCB_BDR // 4
_SELF: Final = abi.CAP_INVALID


class Call(NamedTuple):
    """A system call: selector (without operation), operation, label, message words, items, timeouts."""

    selector: int
    operation: int
    label: int
    words: tuple[int, ...] = ()
    items: tuple[tuple[int, int], ...] = ()
    timeouts: int | None = None


Operation = Callable[["Guests"], Call]


class Guests:
    """Random programs over the threads of a `Rig`.

    `me`: who acts. `plans`: thread number -> system calls it has in mind. `talkative`: most of what they do is what the
    kernel's fast path is for.
    """

    def __init__(self, rig: Rig, rng: Random, *, talkative: bool = False) -> None:
        self.talkative = talkative
        self.rig = rig
        self.me = rig.root
        self.rng = rng
        self.words = Words(rng)
        self.plans: dict[int, deque[Call]] = {}

    def call(self, thread: Thread) -> str:
        """Prepare the next system call of `thread`; returns the operation's name."""
        rng = self.rng
        self.me = thread
        if thread.task is not None:
            self.words.occupied = thread.task.capability_table.slots
        if rng.random() < 0.15:
            self._set_buffers(thread)
        plan = self.plans.get(thread.number)
        if plan and not (thread.frame[EAX] & abi.TAG_ERROR and rng.random() < 0.8):
            request, name = plan.popleft(), "plan"
        else:
            self.plans.pop(thread.number, None)
            common = self.talkative and rng.random() < 0.9
            operation = rng.choices(_OPERATIONS, cum_weights=_WEIGHTS)[0]
            if common:  # every second thread of a task serves the others
                serves = thread.utcb_address & abi.UTCB_BYTES
                operation = Guests.serve_commonly if serves else Guests.call_server
            request, name = operation(self), operation.__name__
        self._write(thread, request)
        if rng.random() < 0.06:
            self._spoil(thread)
        return name

    def noise(self, thread: Thread) -> str:
        """Anything in registers and UTCB."""
        rng, ram = self.rng, self.rig.ram
        for position in range(thread.utcb, thread.utcb + abi.UTCB_BYTES // 4):
            if rng.random() < 0.2:
                ram[position] = rng.getrandbits(32)
        for index in (EAX, ECX, EDX, ESI):
            thread.frame[index] = rng.getrandbits(32)
        if rng.random() < 0.8:  # else hardly any of it reaches an object
            thread.frame[EDX] = self.words.slot() << 12 | rng.getrandbits(4)
        return "noise"

    def _write(self, thread: Thread, request: Call) -> None:
        ram, utcb = self.rig.ram, thread.utcb
        message = [*request.words, *(word for item in request.items for word in item)][: abi.UTCB_MR_WORDS]
        for index, word in enumerate(message):
            ram[utcb + _MR + index] = word & 0xFFFFFFFF
        frame = thread.frame
        frame[EAX] = (request.label & 0xFFFF) << 16 | len(request.items) << 6 | len(request.words)
        frame[EDX] = request.selector | request.operation
        frame[ECX] = self.words.timeouts() if request.timeouts is None else request.timeouts
        frame[ESI] = self.rng.getrandbits(32)

    def _set_buffers(self, thread: Thread) -> None:
        ram, first = self.rig.ram, thread.utcb + _BDR
        for index, word in enumerate(self.words.buffers()[:59]):
            ram[first + index] = word & 0xFFFFFFFF

    def _spoil(self, thread: Thread) -> None:
        """One thing is wrong."""
        rng = self.rng
        chance = rng.random()
        if chance < 0.5:
            position = thread.utcb + rng.randrange(8 if rng.random() < 0.7 else abi.UTCB_MR_WORDS)
            self.rig.ram[position] = self.words.any_word()
        elif chance < 0.8:
            thread.frame[EAX] ^= 1 << rng.randrange(32)
        else:
            thread.frame[EDX] ^= 1 << rng.randrange(13)

    # --- messages ---------------------------------------------------------------------------------

    def message(self) -> tuple[int, tuple[int, ...], tuple[tuple[int, int], ...]]:
        """Label, words and items of a message to another thread."""
        rng = self.rng
        count = rng.choice((0, 0, 1, 2, 3, 19, 63))
        words = tuple(rng.getrandbits(32) for _ in range(min(count, 4)))
        words += (0,) * (count - len(words))
        items = tuple(self.words.item() for _ in range(rng.choice((0, 0, 1, 1, 1, 2, 4))))
        label = rng.choice((0, 0, 1, -1, -2, -5, -10, -12, 0x4000))
        return label, words, items

    def partner(self) -> int:
        """The selector of something that takes messages."""
        chance = self.rng.random()
        if chance < 0.05:
            return _SELF
        return self.words.slot(THREADS if chance < 0.4 else GATES) << 12

    def plain(self, plain: bool) -> tuple[int, tuple[int, ...], tuple[tuple[int, int], ...]]:
        """Label, words and items; only words if `plain`: the kernel's common case."""
        return (0, (1, 2), ()) if plain else self.message()

    def ipc_call(self) -> Call:
        return Call(self.partner(), abi.OP_CALL, *self.message())

    def common_call(self) -> Call:
        """Words only, without timeouts."""
        return Call(self.partner(), abi.OP_CALL, *self.plain(True), timeouts=abi.TIMEOUT_NEVER)

    def call_server(self) -> Call:
        """`common_call` to a thread that does `serve_commonly`."""
        gate = GATES[0] + 1 + 2 * self.rng.randrange(GATES[1] // 2)
        return Call(gate << 12, abi.OP_CALL, *self.plain(True), timeouts=abi.TIMEOUT_NEVER)

    def ipc_send(self) -> Call:
        return Call(self.partner(), abi.OP_SEND, *self.message())

    def send_and_wait(self) -> Call:
        return Call(self.partner(), abi.OP_SEND_AND_WAIT, *self.message())

    def serve(self) -> Call:
        """Wait, and answer whoever comes, a few times over."""
        rng, long = self.rng, 4 << abi.TIMEOUT_EXPONENT_SHIFT | 200 + self.rng.getrandbits(8)
        if rng.random() < 0.3:
            long = abi.TIMEOUT_NEVER
        selector = self._reply_selector()
        timeouts = abi.TIMEOUT_ZERO << 16 | long
        plain = rng.random() < 0.4
        answers = [
            Call(selector, abi.OP_REPLY_AND_WAIT, *self.plain(plain), timeouts=timeouts)
            for _ in range(rng.randint(2, 8))
        ]
        self.plans[self.me.number] = deque(answers)
        return Call(selector, abi.OP_WAIT, 0, timeouts=long)

    def serve_commonly(self) -> Call:
        """`serve` with words only, without timeouts."""
        answer = Call(_SELF, abi.OP_REPLY_AND_WAIT, *self.plain(True), timeouts=abi.TIMEOUT_NEVER)
        self.plans[self.me.number] = deque([answer] * self.rng.randint(4, 12))
        return Call(_SELF, abi.OP_WAIT, 0, timeouts=abi.TIMEOUT_NEVER)

    def wait(self) -> Call:
        return Call(self._reply_selector(), abi.OP_WAIT, 0)

    def receive(self) -> Call:
        return Call(self.words.slot(self.rng.choice((THREADS, IRQS, GATES))) << 12, abi.OP_RECV, 0)

    def reply_and_wait(self) -> Call:
        return Call(self._reply_selector(), abi.OP_REPLY_AND_WAIT, *self.message())

    def reply(self) -> Call:
        operation = self.rng.choice((abi.OP_REPLY | abi.OP_SEND, abi.OP_REPLY_AND_RECV))
        return Call(self._reply_selector(), operation, *self.message())

    def _reply_selector(self) -> int:
        if self.rng.random() < 0.85:
            return _SELF
        return self.rng.choice((0, 1, 2, 3, 0x3FF, 0x400, 0xFFFFF)) << 12 | abi.CAP_EXPLICIT_REPLY_BIT

    def sleep(self) -> Call:
        return Call(_SELF, abi.OP_RECV, 0)

    # --- factory, task ----------------------------------------------------------------------------

    def create(self) -> Call:
        """An object, into whatever the buffer registers say; `plan`s set those right."""
        return self._create(self.rng.choice(tuple(_CREATED)))

    def _create(self, kind: int, *items: tuple[int, int]) -> Call:
        rng = self.rng
        header = abi.VARG_UNSIGNED | 4 << 16
        words: tuple[int, ...] = (kind,)
        if kind == abi.PROTO_NONE:
            words = (kind, header, rng.getrandbits(30) << 2)
            items = items or ((self.words.argument(THREADS),) if rng.random() < 0.8 else ())
        elif kind == abi.PROTO_TASK:
            order = rng.choice((12, 12, 12, 13, 14))
            words = (kind, header, rng.choice((0, UTCB_AREA | order << 6 | 1 << 4, self.words.memory_page())))
        elif kind == abi.PROTO_FACTORY:
            words = (kind, header, rng.choice((0x2000, 0x8000, 0x20000, 0x7FFFFFFE, self.words.any_word())))
        return Call(self._factory(), abi.OP_CALL, abi.PROTO_FACTORY, words, items)

    def _factory(self) -> int:
        return (abi.BOOT_CAP_FACTORY if self.rng.random() < 0.7 else self.words.slot(FACTORIES)) << 12

    def _own_task(self) -> int:
        return (abi.BOOT_CAP_TASK if self.rng.random() < 0.6 else self.words.slot(TASKS)) << 12

    def task_map(self) -> Call:
        control, page = self.words.item()
        source = self.words.argument(TASKS)
        if self.rng.random() < 0.5:
            source = (abi.ITEM_MAP, abi.BOOT_CAP_TASK << 12 | abi.FPAGE_TYPE_OBJECT << 4 | 15)
        return Call(self._own_task(), abi.OP_CALL, abi.PROTO_TASK, (abi.TASK_MAP, control, page), (source,))

    def task_unmap(self) -> Call:
        rng = self.rng
        mask = rng.choice((0, abi.UNMAP_SELF, abi.UNMAP_SELF, abi.UNMAP_SELF | abi.UNMAP_DELETE))
        pages = tuple(self.words.flexpage(narrow=True) for _ in range(rng.choice((1, 1, 1, 2, 5))))
        if rng.random() < 0.003:
            pages = (abi.FPAGE_ALL | 0xF,)
        return Call(self._own_task(), abi.OP_CALL, abi.PROTO_TASK, (abi.TASK_UNMAP, mask, *pages))

    def cap_info(self) -> Call:
        slots = tuple(self.words.slot() << 12 for _ in range(self.rng.choice((1, 2))))
        return Call(self._own_task(), abi.OP_CALL, abi.PROTO_TASK, (abi.TASK_CAP_INFO, *slots))

    def add_ku_mem(self) -> Call:
        pages = tuple(self.words.memory_page() for _ in range(self.rng.choice((1, 1, 2))))
        return Call(self._own_task(), abi.OP_CALL, abi.PROTO_TASK, (abi.TASK_ADD_KU_MEM, *pages))

    # --- threads ----------------------------------------------------------------------------------

    def _thread(self) -> int:
        return _SELF if self.rng.random() < 0.25 else self.words.slot(THREADS) << 12

    def _thread_call(self, *words: int, items: tuple[tuple[int, int], ...] = ()) -> Call:
        return Call(self._thread(), abi.OP_CALL, abi.PROTO_THREAD, words, items)

    def control(self) -> Call:
        rng = self.rng
        set_both = abi.CONTROL_SET_PAGER | abi.CONTROL_SET_EXCEPTION_HANDLER
        flags = rng.choice((0, abi.CONTROL_SET_PAGER, set_both)) | rng.choice((0, abi.CONTROL_BIND_TASK))
        alien = abi.CONTROL_ALIEN if rng.random() < 0.05 else 0
        words = (flags | alien, *self.handlers(), 0)
        items = (self.words.argument(TASKS),) if flags & abi.CONTROL_BIND_TASK else ()
        return self._thread_call(*words, rng.choice((0, abi.CONTROL_ALIEN)), self.utcb_address(), items=items)

    def handlers(self) -> tuple[int, int]:
        """Pager and exception handler: mostly sigma0, which always answers."""
        rng = self.rng
        sigma0, gate = abi.BOOT_CAP_PAGER << 12, self.words.slot(GATES) << 12
        return (sigma0 if rng.random() < 0.8 else gate, sigma0 if rng.random() < 0.7 else gate)

    def utcb_address(self) -> int:
        """Where a UTCB could be: in the first pages of the usual area, sometimes off by something."""
        rng = self.rng
        return UTCB_AREA + (rng.randrange(8) * abi.UTCB_BYTES if rng.random() < 0.9 else rng.getrandbits(13))

    def ex_regs(self) -> Call:
        rng = self.rng
        flags = rng.choice((0, 0, abi.EX_REGS_CANCEL, abi.EX_REGS_CANCEL | abi.EX_REGS_TRIGGER_EXCEPTION))
        flags |= abi.EX_REGS_TRIGGER_EXCEPTION if rng.random() < 0.1 else 0
        return self._thread_call(abi.THREAD_EX_REGS | flags, self.words.address(), self.words.address())

    def switch(self) -> Call:
        return self._thread_call(abi.THREAD_SWITCH)

    def thread_misc(self) -> Call:
        rng = self.rng
        known = (abi.THREAD_STATS, abi.THREAD_GDT, abi.THREAD_VCPU_CONTROL)
        operation = rng.choice((*known, rng.getrandbits(6)))
        return self._thread_call(operation, *(self.words.any_word() for _ in range(rng.randrange(6))))

    def register_delete_irq(self) -> Call:
        notifier = self.words.argument(IRQS if self.rng.random() < 0.7 else SEMAPHORES)
        return self._thread_call(abi.THREAD_REGISTER_DELETE_IRQ, items=(notifier,))

    def modify_senders(self) -> Call:
        rng = self.rng
        words = (rng.choice((0, 3)), rng.choice((0, 3)), self.words.any_word(), self.words.any_word())
        return self._thread_call(abi.THREAD_MODIFY_SENDERS, *words * rng.choice((1, 2)))

    def trampoline(self) -> Call:
        operation = abi.THREAD_PF_TRAMP_CONTROL | self.rng.randrange(6) << 16
        words = (self.utcb_address(),) if operation >> 16 == 0 else ()
        return self._thread_call(operation, *words)

    def run_thread(self) -> Call:
        rng = self.rng
        cores = rng.choice((1, 1, 3, 15, 0, rng.getrandbits(32)))
        offset = rng.choice((0, 0, 1, 2, 3, 0xFF000000, rng.getrandbits(32)))
        priority = rng.choice((1, 2, 2, 3, 3, 5, 200, 254, self.words.any_word()))
        words = (abi.SCHEDULER_RUN_THREAD, offset, cores, priority, rng.choice((0, 0, 1000, 3000, 50000)))
        return self._scheduler(words, (self.words.argument(THREADS),))

    def scheduler_misc(self) -> Call:
        operation = self.rng.choice((abi.SCHEDULER_INFO, abi.SCHEDULER_IDLE_TIME, 7))
        return self._scheduler((operation, self.words.any_word(), self.words.any_word()), ())

    def _scheduler(self, words: tuple[int, ...], items: tuple[tuple[int, int], ...]) -> Call:
        return Call(abi.BOOT_CAP_SCHEDULER << 12, abi.OP_CALL, abi.PROTO_SCHEDULER, words, items)

    # --- gates, IRQ objects, semaphores and the rest ------------------------------------------------

    def gate_bind(self) -> Call:
        words = (abi.ENDPOINT_BIND, self.rng.getrandbits(30) << 2)
        thread = self.words.argument(THREADS)
        return Call(self.words.slot(GATES) << 12, abi.OP_CALL, abi.PROTO_KOBJECT, words, (thread,))

    def gate_misc(self) -> Call:
        operation = self.rng.choice((abi.GATE_GET_INFO, abi.KOBJECT_DEC_REFCNT))
        words = (operation, self.rng.choice((1, 1, 2, -1, 1 << 31)))
        return Call(self.words.slot(GATES) << 12, abi.OP_CALL, abi.PROTO_KOBJECT, words)

    def irq_bind(self) -> Call:
        words = (abi.ENDPOINT_BIND, self.rng.getrandbits(32))
        thread = self.words.argument(THREADS)
        return Call(self.words.slot(IRQS) << 12, abi.OP_CALL, abi.PROTO_KOBJECT, words, (thread,))

    def irq_detach(self) -> Call:
        detach = (abi.IRQ_SENDER_DETACH,)
        return Call(self.words.slot(IRQS) << 12, abi.OP_CALL, abi.PROTO_IRQ_SENDER, detach)

    def trigger(self) -> Call:
        rng = self.rng
        kind = IRQS if rng.random() < 0.7 else SEMAPHORES
        words = rng.choice(((), (abi.IRQ_TRIGGER,), (abi.IRQ_UNMASK,)))
        return Call(self.words.slot(kind) << 12, rng.choice((1, 1, 3, 7)), abi.PROTO_IRQ, words)

    def down(self) -> Call:
        return Call(
            self.words.slot(SEMAPHORES) << 12, abi.OP_CALL, abi.PROTO_SEMAPHORE, (abi.SEMAPHORE_DOWN,)
        )

    def icu(self) -> Call:
        rng = self.rng
        words = (rng.randrange(8), rng.choice((0, 0, 1, 2, 30)), 0)
        target = self.words.argument(IRQS if rng.random() < 0.7 else SEMAPHORES)
        slot = rng.choice((abi.BOOT_CAP_ICU, abi.BOOT_CAP_LOG, abi.BOOT_CAP_SCHEDULER))
        return Call(slot << 12, abi.OP_CALL, abi.PROTO_IRQ, words, (target,))

    def console(self) -> Call:
        rng = self.rng
        slot, label = rng.choice(
            ((abi.BOOT_CAP_LOG, abi.PROTO_LOG), (abi.BOOT_CAP_DEBUGGER, abi.PROTO_DEBUGGER))
        )
        operation = rng.choice((0, 1, 2, 3, 8, 0x100, 0x101, 0x107, 0x108, rng.getrandbits(10)))
        words = (operation, rng.choice((1, 5, 244, 245, rng.getrandbits(32))), 0x41424344)
        return Call(slot << 12, rng.choice((1, 3)), label, words, (self.words.argument(THREADS),))

    # --- plans ------------------------------------------------------------------------------------

    def spawn(self) -> Call:
        """A thread of one's own, made and started in four calls."""
        rng = self.rng
        slot = THREADS[0] + rng.randrange(THREADS[1])
        task = rng.choice((abi.BOOT_CAP_TASK, abi.BOOT_CAP_TASK, TASKS[0] + rng.randrange(TASKS[1])))
        thread = (abi.ITEM_MAP, slot << 12 | abi.FPAGE_TYPE_OBJECT << 4 | 15)
        owner = (abi.ITEM_MAP, task << 12 | abi.FPAGE_TYPE_OBJECT << 4 | 15)
        flags = abi.CONTROL_BIND_TASK | abi.CONTROL_SET_PAGER | abi.CONTROL_SET_EXCEPTION_HANDLER
        handlers = self.handlers()
        control = (abi.THREAD_CONTROL | flags, *handlers, 0, 0, self.utcb_address())
        place = (abi.SCHEDULER_RUN_THREAD, rng.randrange(4), 15, rng.choice((1, 2, 2, 3)), 0)
        start = (abi.THREAD_EX_REGS, *self.entry())
        return self._plan(
            slot,
            Call(abi.BOOT_CAP_FACTORY << 12, abi.OP_CALL, abi.PROTO_FACTORY, (abi.PROTO_THREAD,)),
            Call(slot << 12, abi.OP_CALL, abi.PROTO_THREAD, control, (owner,)),
            self._scheduler(place, (thread,)),
            Call(slot << 12, abi.OP_CALL, abi.PROTO_THREAD, start),
        )

    def entry(self) -> tuple[int, int]:
        """Where new threads begin: EIP and ESP."""
        return 0x10000, 0x20000

    def make(self) -> Call:
        """An object of some kind, where programs keep that kind."""
        kind = self.rng.choice(tuple(_CREATED))
        first, count = _CREATED[kind]
        return self._plan(first + self.rng.randrange(count), self._create(kind))

    def _plan(self, slot: int, *requests: Call) -> Call:
        """Set the buffers for a creation in `slot`, and note what follows; the first call is sent now."""
        ram, me = self.rig.ram, self.me
        ram[me.utcb + _BDR] = 0
        ram[me.utcb + _BDR + 1] = slot << 12 | abi.BUFFER_ITEM | abi.BUFFER_SMALL
        self.plans[me.number] = deque(requests[1:])
        return requests[0]


_CREATED: Final = {
    abi.PROTO_NONE: GATES,
    abi.PROTO_TASK: TASKS,
    abi.PROTO_THREAD: THREADS,
    abi.PROTO_FACTORY: FACTORIES,
    abi.PROTO_IRQ_SENDER: IRQS,
    abi.PROTO_SEMAPHORE: SEMAPHORES,
}
_MIX: Final[dict[Operation, int]] = {
    Guests.ipc_call: 18,
    Guests.common_call: 12,
    Guests.ipc_send: 14,
    Guests.send_and_wait: 6,
    Guests.serve: 30,
    Guests.wait: 6,
    Guests.receive: 6,
    Guests.reply_and_wait: 8,
    Guests.reply: 8,
    Guests.sleep: 4,
    Guests.create: 4,
    Guests.make: 16,
    Guests.spawn: 8,
    Guests.task_map: 22,
    Guests.task_unmap: 12,
    Guests.cap_info: 3,
    Guests.add_ku_mem: 2,
    Guests.control: 6,
    Guests.ex_regs: 8,
    Guests.switch: 3,
    Guests.thread_misc: 2,
    Guests.register_delete_irq: 3,
    Guests.modify_senders: 3,
    Guests.trampoline: 4,
    Guests.run_thread: 8,
    Guests.scheduler_misc: 1,
    Guests.gate_bind: 5,
    Guests.gate_misc: 3,
    Guests.irq_bind: 5,
    Guests.irq_detach: 2,
    Guests.trigger: 10,
    Guests.down: 6,
    Guests.icu: 4,
    Guests.console: 2,
}
_OPERATIONS: Final = tuple(_MIX)
_WEIGHTS: Final = tuple(sum(list(_MIX.values())[: n + 1]) for n in range(len(_MIX)))
