"""A kernel without a CPU: threads are driven by hand, one system call or fault at a time.

`World` boots the real kernel over a small RAM whose sigma0 and root task never execute anything;
the test plays their part. `World.call` is what a program's system call stub would do.
"""

from __future__ import annotations

import mmap
from collections import deque
from dataclasses import dataclass

from l4lab.kernel.costs import KernelCosts
from l4lab.kernel.drq import Drq
from l4lab.kernel.entry import Decision, handle_trap
from l4lab.kernel.fiasco import abi
from l4lab.kernel.fiasco.interface import FIASCO
from l4lab.kernel.frame import EAX, ECX, EDX, ESI
from l4lab.kernel.interface import BootParameters
from l4lab.kernel.invariants import Census, check_all
from l4lab.kernel.objects import Gate, Task
from l4lab.kernel.state import ConsoleOutput, Effect, Ipi
from l4lab.kernel.thread import DEAD, READY, Thread
from l4lab.kernel.traps import DEADLINE_REACHED, SYSTEM_CALL, Interrupt, PageFault, Trap

RAM_BYTES = 32 << 20
KERNEL_BYTES = 8 << 20
MHZ = 1000
FOREVER = 0
NOW = abi.TIMEOUT_ZERO << 16 | abi.TIMEOUT_ZERO


@dataclass(frozen=True)
class Answer:
    """Result registers of a system call that has returned."""

    tag: int
    label: int
    error: int

    @property
    def failed(self) -> bool:
        """The IPC error bit."""
        return bool(self.tag & abi.TAG_ERROR)

    @property
    def value(self) -> int:
        """The tag's signed label."""
        return (self.tag >> 16 & 0xFFFF ^ 0x8000) - 0x8000


class World:
    """A booted kernel; `sigma0` and `root` are its first threads, root is running.

    `interrupts[core]`: DRQs of other cores under way to it. They arrive at once, unless `late`
    is set: then when `deliver` is called.
    """

    def __init__(
        self, cores: int = 1, *, check: bool = True, kernel_bytes: int = KERNEL_BYTES, late: bool = False
    ) -> None:
        self.ram = memoryview(mmap.mmap(-1, RAM_BYTES)).cast("I")  # zero, and not there until it is used
        self.now_cycles = 0
        self.check = check
        self.late = late
        self.interrupts: list[deque[Drq | None]] = [deque() for _ in range(cores)]
        self.console = bytearray()
        self.effects: list[Effect] = []  # all that there ever were
        parameters = BootParameters(
            first_kernel_pfn=RAM_BYTES - kernel_bytes >> 12,
            kernel_frame_count=kernel_bytes >> 12,
            cores=cores,
            mhz=MHZ,
            quantum_us=abi.QUANTUM_DEFAULT_US,
            kip_pfn=1,
            sigma0_entry=0x100000,
            root_entry=0x240000,
        )
        self.kernel = FIASCO.start(self.ram, parameters, KernelCosts())
        self.kernel.line_cycles = [[0] * cores for _ in range(cores)]
        self.decisions = [Decision() for _ in range(cores)]
        self.sigma0, self.root = self.kernel.threads.values()
        self.trap(DEADLINE_REACHED)
        self.call(self.sigma0, abi.CAP_INVALID, abi.OP_WAIT)
        assert self.running() is self.root

    # --- driving ----------------------------------------------------------------------------------

    def running(self, core: int = 0) -> Thread | None:
        """Who runs on `core`."""
        return self.kernel.cores[core].current

    def trap(self, trap: Trap, core: int = 0, cycles: int = 1) -> Decision:
        """The running thread of `core` traps."""
        self.now_cycles += cycles
        decision = self.decisions[core]
        census = Census(self.kernel) if self.check and self.kernel.costs.schedule else None
        handle_trap(self.kernel, core, trap, self.now_cycles, decision)
        if census is not None:
            census.check_charged(self.kernel, decision.bill)
        self.effects += decision.effects
        for effect in decision.effects:
            self.apply(effect)
        if self.check:
            check_all(self.kernel)
        if not self.late:
            for number in range(len(self.interrupts)):
                self.deliver(number)
        return decision

    def apply(self, effect: Effect) -> None:
        """Do what the kernel asked of the machine."""
        if isinstance(effect, Ipi):
            self.interrupts[effect.core].append(effect.drq)
        elif isinstance(effect, ConsoleOutput):
            self.console += effect.data

    def deliver(self, core: int, count: int | None = None) -> None:
        """Interrupts arrive at `core`: all that are under way, or the first `count`."""
        waiting = self.interrupts[core]
        while waiting and count != 0:
            count = None if count is None else count - 1
            self.trap(Interrupt(waiting.popleft()), core)

    def run_for(self, microseconds: int, core: int = 0) -> None:
        """Let time pass, with the ticks that belong to it."""
        for _ in range(-(-microseconds // abi.TICK_US)):
            self.trap(DEADLINE_REACHED, core, abi.TICK_US * MHZ)

    def switch_to(self, thread: Thread) -> None:
        """Make a ready thread the running one of its core, whatever the scheduler thinks of it."""
        core = self.kernel.cores[thread.core]
        if core.current is thread:
            return
        assert thread.state == READY, f"{thread!r} is {thread.state_name}"
        if thread.queued:
            core.ready.remove(thread)
        if core.current is not None and core.current.state == READY:
            core.ready.add(core.current, front=True)
        core.current = core.context = thread

    def call(
        self,
        thread: Thread,
        selector: int,
        operation: int,
        tag: int = 0,
        *words: int,
        timeouts: int = FOREVER,
        label: int = 0,
    ) -> Answer | None:
        """`thread` makes a system call; None if it blocks, or no longer runs when it returns."""
        self.switch_to(thread)
        for index, word in enumerate(words):
            self.ram[thread.utcb + index] = word & 0xFFFFFFFF
        frame = thread.frame
        frame[EAX], frame[EDX], frame[ECX], frame[ESI] = tag, selector | operation, timeouts, label
        self.trap(SYSTEM_CALL, thread.core)
        return self.answer(thread) if thread.state == READY else None

    def answer(self, thread: Thread) -> Answer:
        """The result registers of a thread that is not blocked."""
        return Answer(thread.frame[EAX], thread.frame[ESI], self.ram[thread.utcb + abi.UTCB_ERROR // 4])

    def message(self, thread: Thread, count: int) -> list[int]:
        """The first `count` message registers."""
        return self.ram[thread.utcb : thread.utcb + count].tolist()

    def receive_buffers(self, thread: Thread, *registers: int, bdr: int = 0) -> None:
        """Set the thread's buffer registers."""
        self.ram[thread.utcb + abi.UTCB_BDR // 4] = bdr
        for index, word in enumerate((*registers, 0)):
            self.ram[thread.utcb + abi.UTCB_BR // 4 + index] = word

    def settle(self) -> None:
        """All interrupts arrive, and those that come of them."""
        while any(self.interrupts):
            for number in range(len(self.interrupts)):
                self.deliver(number)

    # --- making things ----------------------------------------------------------------------------

    def create(self, slot: int, kind: int, *arguments: int, factory: int = abi.BOOT_CAP_FACTORY) -> Answer:
        """The root task creates an object into `slot`."""
        self.receive_buffers(self.root, slot << 12 | abi.BUFFER_ITEM | abi.BUFFER_SMALL)
        words = (kind, abi.VARG_UNSIGNED | 4 << 16, *arguments) if arguments else (kind,)
        answer = self.call(self.root, factory << 12, abi.OP_CALL, tag(abi.PROTO_FACTORY, len(words)), *words)
        assert answer is not None
        return answer

    def object(self, slot: int, task: Task | None = None) -> object:
        """What a slot of the root task holds."""
        owner = task or self.root.task
        assert owner is not None
        return owner.capability_table.slots[slot].object

    def new_thread(
        self,
        slot: int,
        task_slot: int = abi.BOOT_CAP_TASK,
        *,
        utcb: int = 0,
        priority: int = 1,
        core: int = 0,
    ) -> Thread:
        """A started thread; its UTCB at `utcb`, default: the next free one of the root task's page."""
        assert self.create(slot, abi.PROTO_THREAD).value == 0
        task = self.object(task_slot)
        assert isinstance(task, Task)
        address = utcb or abi.BOOT_UTCB + abi.UTCB_BYTES * len(task.threads)
        flags = abi.THREAD_CONTROL | abi.CONTROL_BIND_TASK
        answer = self.call(
            self.root,
            slot << 12,
            abi.OP_CALL,
            tag(abi.PROTO_THREAD, 6, 1),
            flags,
            0,
            0,
            0,
            0,
            address,
            *item(task_slot),
        )
        assert answer is not None and answer.value == 0, answer
        thread = self.object(slot)
        assert isinstance(thread, Thread)
        self.call(
            self.root, slot << 12, abi.OP_CALL, tag(abi.PROTO_THREAD, 3), abi.THREAD_EX_REGS, 0x1000, 0x2000
        )
        self.run_thread(slot, priority, core)
        self.switch_to(self.root)
        return thread

    def new_task(
        self, slot: int, utcb_area: int = abi.BOOT_UTCB, *, factory: int = abi.BOOT_CAP_FACTORY
    ) -> Task:
        """A task with one page of kernel-user memory."""
        area = utcb_area | 12 << abi.FPAGE_ORDER_SHIFT | abi.FPAGE_TYPE_MEMORY << abi.FPAGE_TYPE_SHIFT
        assert self.create(slot, abi.PROTO_TASK, area, factory=factory).value == 0
        task = self.object(slot)
        assert isinstance(task, Task)
        return task

    def run_thread(self, slot: int, priority: int, core: int = 0) -> Answer | None:
        """Scheduler.run_thread by the root task."""
        words = (abi.SCHEDULER_RUN_THREAD, core, 1, priority, 0)
        return self.call(
            self.root,
            abi.BOOT_CAP_SCHEDULER << 12,
            abi.OP_CALL,
            tag(abi.PROTO_SCHEDULER, 5, 1),
            *words,
            *item(slot),
        )

    def take_off_line(self, slot: int) -> None:
        """The root task gives a thread a set of cores that do not exist."""
        words = (abi.SCHEDULER_RUN_THREAD, 0, 0, 1, 0)
        got = self.object_call(abi.BOOT_CAP_SCHEDULER, abi.PROTO_SCHEDULER, *words, items=item(slot))
        assert got.tag == 0

    def new_gate(self, slot: int, thread_slot: int | None = None, label: int = 0) -> Gate:
        """An IPC gate, bound at once or not at all."""
        self.receive_buffers(self.root, slot << 12 | abi.BUFFER_ITEM | abi.BUFFER_SMALL)
        items = item(thread_slot) if thread_slot is not None else ()
        made = self.object_call(abi.BOOT_CAP_FACTORY, abi.PROTO_FACTORY, 0, 0, label, items=items)
        assert made.value == 0, made
        gate = self.object(slot)
        assert isinstance(gate, Gate)
        return gate

    def bind_gate(self, slot: int, thread_slot: int, label: int) -> Answer:
        """Bind a gate of the root task to a thread."""
        words = (abi.ENDPOINT_BIND, label)
        return self.object_call(slot, abi.PROTO_KOBJECT, *words, items=item(thread_slot))

    def object_call(self, slot: int, label: int, *words: int, items: tuple[int, ...] = ()) -> Answer:
        """The root task calls a kernel object, which answers at once."""
        sent = tag(label, len(words), len(items) // 2)
        answer = self.call(self.root, slot << 12, abi.OP_CALL, sent, *words, *items)
        return answer if answer is not None else self.answer(self.root)

    def ex_regs(
        self, slot: int, flags: int = 0, ip: int = abi.EX_REGS_KEEP, sp: int = abi.EX_REGS_KEEP
    ) -> Answer:
        """Thread.ex_regs by the root task."""
        return self.object_call(slot, abi.PROTO_THREAD, abi.THREAD_EX_REGS | flags, ip, sp)

    def cancel(self, slot: int) -> None:
        """ex_regs with the cancel flag, else changing nothing."""
        assert self.ex_regs(slot, abi.EX_REGS_CANCEL).value == 0

    def control(
        self, slot: int, *, pager: int | None = None, handler: int | None = None, alien: bool = False
    ) -> None:
        """Set a thread's handlers, as capability indices of its task."""
        flags = abi.THREAD_CONTROL
        flags |= abi.CONTROL_SET_PAGER if pager is not None else 0
        flags |= abi.CONTROL_SET_EXCEPTION_HANDLER if handler is not None else 0
        flags |= abi.CONTROL_ALIEN if alien else 0
        words = (flags, (pager or 0) << 12, (handler or 0) << 12, 0, abi.CONTROL_ALIEN, 0)
        assert self.object_call(slot, abi.PROTO_THREAD, *words).value == 0

    def give(self, task_slot: int, target: int, source: int, rights: int = 7, *, weak: bool = False) -> None:
        """Map one of the root task's capabilities into another task."""
        control = target << 12 | abi.ITEM_OBJECT_RIGHTS_MASK | (abi.ITEM_WEAK if weak else 0)
        words = (abi.TASK_MAP, control, object_page(source, rights))
        assert self.object_call(task_slot, abi.PROTO_TASK, *words, items=item(abi.BOOT_CAP_TASK)).tag == 0

    def give_memory(self, address: int, order: int = 12, rights: int = abi.MEMORY_RIGHTS) -> None:
        """The root task faults at `address`, and sigma0 maps memory there one to one."""
        self.switch_to(self.root)
        self.trap(PageFault(address, write=True, fetch=False, present=False))
        answer = (address | abi.ITEM_MAP, memory_page(address, order, rights))
        self.call(self.sigma0, abi.CAP_INVALID, abi.OP_REPLY_AND_WAIT, tag(0, 0, 1), *answer)
        assert self.root.state == READY

    def unmap(self, task_slot: int, *pages: int, mask: int = abi.UNMAP_SELF) -> Answer:
        """task.unmap by the root task."""
        return self.object_call(task_slot, abi.PROTO_TASK, abi.TASK_UNMAP, mask, *pages)

    def delete(self, slot: int) -> None:
        """The root task ends an object of its own."""
        self.unmap(abi.BOOT_CAP_TASK, object_page(slot), mask=abi.UNMAP_SELF | abi.UNMAP_DELETE)

    def dead(self, thread: Thread) -> bool:
        """True once the thread was killed."""
        return thread.state == DEAD


def cap(slot: int) -> int:
    """The selector of a capability index."""
    return slot << 12


def tag(label: int = 0, words: int = 0, items: int = 0, flags: int = 0) -> int:
    """A message tag."""
    return (label & 0xFFFF) << 16 | flags | items << 6 | words


def object_page(slot: int, rights: int = abi.OBJECT_RIGHTS, order: int = 0) -> int:
    """An object flexpage."""
    return (
        slot << 12 | order << abi.FPAGE_ORDER_SHIFT | abi.FPAGE_TYPE_OBJECT << abi.FPAGE_TYPE_SHIFT | rights
    )


def memory_page(address: int, order: int = 12, rights: int = abi.MEMORY_RIGHTS) -> int:
    """A memory flexpage."""
    return address | order << abi.FPAGE_ORDER_SHIFT | abi.FPAGE_TYPE_MEMORY << abi.FPAGE_TYPE_SHIFT | rights


def item(slot: int, rights: int = abi.OBJECT_RIGHTS) -> tuple[int, int]:
    """A typed item that names a capability."""
    return abi.ITEM_MAP, object_page(slot, rights)
