"""One life of a system: booted, filled with tasks, left to random programs, torn down, looked at.

The root task is the only one that behaves. It has the highest priority of core 0, makes the tasks, sleeps
while they run, and takes everything away in the end; then nothing of them may be left.
sigma0 behaves too, as a pager that sometimes refuses.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final

from l4lab.kernel import capspace
from l4lab.kernel.errors import KernelBug
from l4lab.kernel.fiasco import abi
from l4lab.kernel.frame import EAX, ECX, EDX, EIP, ESI
from l4lab.kernel.invariants import check_all, check_rendezvous
from l4lab.kernel.objects import Task
from l4lab.kernel.state import TlbPolicy
from l4lab.kernel.thread import DEAD, READY, Thread
from l4lab.kernel.traps import SYSTEM_CALL, CpuException, PageFault
from l4lab.tools.check.fuzz.guests import Guests
from l4lab.tools.check.fuzz.rig import Logging, Rig
from l4lab.tools.check.fuzz.words import (
    END_OF_SLOTS,
    FACTORIES,
    GATES,
    IRQS,
    MAPPED,
    PAGES,
    SIGMA0_TASK,
    TASKS,
    THREADS,
    UTCB_AREA,
)

if TYPE_CHECKING:
    from l4lab.kernel.state import Kernel

_RAM_BYTES: Final = 16 << 20
_TICKS_UNTIL_OVER: Final = 200  # all cores idle for so long: nobody will do anything any more
_MR: Final = abi.UTCB_MR // 4
_ROOT_PRIORITY: Final = 255
CHECK_EVERY: Final = 400  # kernel entries
_FEW_CAPABILITIES: Final = 30
_IDLE_CALLS: Final = 8  # fewer in 50 ms: hardly anybody can do anything


@dataclass(slots=True)
class Tally:
    """What happened. `outcomes`: (operation, "ok", "refused" or "waits") -> how often."""

    calls: int = 0
    entries: int = 0
    faults: int = 0
    exceptions: int = 0
    ticks: int = 0
    interrupts: int = 0
    checks: int = 0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Sum up."""
        for name in self.__slots__:
            if name == "outcomes":
                self.outcomes.update(other.outcomes)
            else:
                setattr(self, name, getattr(self, name) + getattr(other, name))


class Epoch:
    """The life with this seed. `last`: what was done last, for the report of a violation.

    `check_from`: from this kernel entry on everything is checked after each. `log`: of a twin, whose programs send
    short messages most of the time; None: no twin.
    """

    def __init__(
        self, seed: str, *, check_from: int | None = None, log: Logging | None = None, fast_path: bool = True
    ) -> None:
        self.rng = rng = Random(seed)
        self.check_from = check_from
        self.tally = Tally()
        self.last = "boot"
        cores = rng.choice((1, 1, 2, 3, 4))
        kernel_bytes = rng.choice((1, 1, 2, 4)) << 20
        policy = rng.choice(tuple(TlbPolicy))
        chosen = Logging.TRACE if rng.random() < 0.3 else Logging.NONE
        self.rig = Rig(
            rng,
            cores=cores if log is None else min(cores, 2),
            ram_bytes=_RAM_BYTES,
            kernel_bytes=kernel_bytes,
            policy=policy,
            log=chosen if log is None else log,
        )
        self.rig.kernel.fast_path = fast_path
        self.guests = Guests(self.rig, rng, talkative=log is not None)
        self.baseline = (0, 0)
        self.tasks = 0
        self.calls_before_sleep = 0

    def run(self, calls: int) -> Tally:
        """Make `calls` system calls, or fewer if nobody can make any. Raises what the kernel raises."""
        self._set_up()
        idle_ticks = 0
        while self.tally.calls < calls and idle_ticks < _TICKS_UNTIL_OVER:
            idle_ticks = 0 if self._step() else idle_ticks + 1
            if self.rig.entries % CHECK_EVERY == 0 or self._is_suspect():
                self._check()
        self._tear_down()
        self.tally.entries = self.rig.entries
        return self.tally

    def _is_suspect(self) -> bool:
        return self.check_from is not None and self.rig.entries >= self.check_from

    def _check(self) -> None:
        self.tally.checks += 1
        check_all(self.rig.kernel)
        if not any(self.rig.interrupts):
            check_rendezvous(self.rig.kernel)

    # --- what happens next ------------------------------------------------------------------------

    def _step(self) -> bool:
        """Some core does something; False if all it was is time passing."""
        rng, rig, tally = self.rng, self.rig, self.tally
        core = self._next_core()
        if rig.interrupts[core] and rng.random() < 0.5:
            self.last = f"core {core}: {rig.interrupts[core][0]}"
            tally.interrupts += 1
            rig.deliver(core)
            return True
        thread = rig.running(core)
        chance = rng.random()
        if thread is None or chance < 0.04:
            self.last = f"core {core}: tick"
            tally.ticks += 1
            rig.tick(core)
            return thread is not None
        if thread is rig.root:
            self._rule(thread)
        elif thread is rig.sigma0:
            self._serve_as_sigma0(core, thread)
        elif chance < 0.12 or thread.frame is rig.kernel.frame_pool.blank:
            self._fault(core, thread)  # the second: killed by another core, there is no code any more
        else:
            name = self.guests.noise(thread) if chance < 0.15 else self.guests.call(thread)
            self._system_call(core, thread, name)
        return True

    def _next_core(self) -> int:
        """Any core, rather one that has something to do."""
        rig, cores = self.rig, len(self.rig.tlbs)
        core = int(self.rng.random() * cores)
        for _ in range(cores):
            if rig.running(core) is not None or rig.interrupts[core]:
                break
            core = (core + 1) % cores
        return core

    def _system_call(self, core: int, thread: Thread, name: str) -> None:
        frame = thread.frame
        self.last = (
            f"core {core}: {thread!r} {name}: EAX {frame[EAX]:#x} EDX {frame[EDX]:#x} ECX {frame[ECX]:#x}"
            f" MR {[hex(word) for word in self.rig.ram[thread.utcb : thread.utcb + 10]]}"
        )
        frame[EIP] = frame[EIP] + 2 & 0xFFFFFFFF
        self.tally.calls += 1
        self.rig.trap(core, SYSTEM_CALL)
        if thread.state != READY:
            outcome = "waits"
        else:
            refused = thread.frame[EAX] & (0x80000000 | abi.TAG_ERROR)
            outcome = "refused" if refused else "ok"
        self.tally.outcomes[name, outcome] += 1

    def _fault(self, core: int, thread: Thread) -> None:
        """Something but a system call: mostly a page fault."""
        rng, tally = self.rng, self.tally
        if rng.random() < 0.8:
            address = rng.choice(PAGES) << 12 | rng.getrandbits(12)
            trap = PageFault(address, rng.random() < 0.5, rng.random() < 0.2, rng.random() < 0.2)
            tally.faults += 1
            self.last = f"core {core}: {thread!r} {trap}"
            self.rig.trap(core, trap)
        else:
            vector = rng.choice((0, 1, 3, 4, 5, 6, 12, 13, 13, 16, 17, 19))
            tally.exceptions += 1
            self.last = f"core {core}: {thread!r} exception {vector}"
            self.rig.trap(core, CpuException(vector, rng.getrandbits(16)))

    def _rule(self, root: Thread) -> None:
        """The root task lets the others run for 50 ms; if they had become idle, it makes new ones first."""
        if self.tally.calls - self.calls_before_sleep < _IDLE_CALLS:
            self._revive()
        self._prepare(root, abi.CAP_INVALID | abi.OP_RECV, 0, timeouts=12 << 10 | 12)
        self._system_call(0, root, "root sleeps")
        self.calls_before_sleep = self.tally.calls

    def _revive(self) -> None:
        """Wake some threads from what they wait in; or make two for one of the tasks, with all they need."""
        if self.rng.random() < 0.6:
            flags = abi.THREAD_EX_REGS | abi.EX_REGS_CANCEL
            for _ in range(3):
                slot = THREADS[0] + self.rng.randrange(2 * self.tasks)
                self._root_call(slot, abi.PROTO_THREAD, flags, abi.EX_REGS_KEEP, abi.EX_REGS_KEEP)
            return
        number = self.rng.randrange(self.tasks)
        root = self.rig.root.task
        task = root.capability_table.slots.get(TASKS[0] + number) if root is not None else None
        if task is None or self.rng.random() < 0.1:
            self._make_task(number)
            return
        assert isinstance(task.object, Task)
        if len(task.object.capability_table.slots) < _FEW_CAPABILITIES:
            self._furnish(number)
        for part in range(2):
            self._make_thread(number, part)

    def _serve_as_sigma0(self, core: int, sigma0: Thread) -> None:
        """Answer whoever asked with some memory, or refuse, and wait for the next."""
        rng, words = self.rng, self.guests.words
        if sigma0.frame[EAX] & abi.TAG_ERROR:
            self._prepare(sigma0, abi.CAP_INVALID | abi.OP_WAIT, 0)
        elif rng.random() < 0.1:
            self._prepare(sigma0, abi.CAP_INVALID | abi.OP_REPLY_AND_WAIT, 0xFFFF0000)
        else:
            page = words.memory_page() if rng.random() < 0.9 else words.port_page()
            item = (rng.choice(PAGES) << 12 | abi.ITEM_MAP, page)
            self._prepare(sigma0, abi.CAP_INVALID | abi.OP_REPLY_AND_WAIT, 0x40, *item)
        self._system_call(core, sigma0, "sigma0 serves")

    def _prepare(self, thread: Thread, edx: int, eax: int, *words: int, timeouts: int = 0) -> None:
        for index, word in enumerate(words):
            self.rig.ram[thread.utcb + _MR + index] = word & 0xFFFFFFFF
        frame = thread.frame
        frame[EDX], frame[EAX], frame[ECX], frame[ESI] = edx, eax, timeouts, 0

    # --- the root task at work --------------------------------------------------------------------

    def _root_call(self, slot: int, label: int, *words: int, items: int = 0) -> int:
        """The root task calls a kernel object; `words` with the items at the end. The answer's label."""
        root = self.rig.root
        self._until_root_runs()
        tag = (label & 0xFFFF) << 16 | items << 6 | len(words) - 2 * items
        self._prepare(root, slot << 12 | abi.OP_CALL, tag, *words)
        self._system_call(0, root, "root")
        self._until_root_runs()
        return (root.frame[EAX] >> 16 ^ 0x8000) - 0x8000 if not root.frame[EAX] & abi.TAG_ERROR else -1

    def _until_root_runs(self) -> None:
        """Let time pass until the root task has core 0; who has it instead goes to sleep for good."""
        rig = self.rig
        for _ in range(100_000):
            thread = rig.running(0)
            if thread is rig.root and not rig.interrupts[0]:
                return
            if rig.interrupts[0]:
                rig.deliver(0)
            elif thread is None or self.rng.random() < 0.1:
                rig.tick(0)
            else:
                self._prepare(thread, abi.CAP_INVALID | abi.OP_RECV, 0)
                self._system_call(0, thread, "sleeps for good")
        raise KernelBug("the root task, of the highest priority, never got its core")

    def _create(self, slot: int, kind: int, *arguments: int, items: tuple[int, ...] = ()) -> None:
        root, ram = self.rig.root, self.rig.ram
        self._until_root_runs()
        ram[root.utcb + abi.UTCB_BDR // 4] = 0
        ram[root.utcb + abi.UTCB_BR // 4] = slot << 12 | abi.BUFFER_ITEM | abi.BUFFER_SMALL
        header = (abi.VARG_UNSIGNED | 4 << 16,) if arguments else ()
        factory = abi.BOOT_CAP_FACTORY
        self._root_call(factory, abi.PROTO_FACTORY, kind, *header, *arguments, *items, items=len(items) // 2)

    def _give(self, task: int, target: int, source: int, rights: int = 7) -> None:
        """Map one of root's capabilities into slot `target` of a task."""
        control = target << 12 | 0xE0
        page = source << 12 | abi.FPAGE_TYPE_OBJECT << 4 | rights
        words = (abi.TASK_MAP, control, page, *_named(abi.BOOT_CAP_TASK))
        self._root_call(task, abi.PROTO_TASK, *words, items=1)

    def _set_up(self) -> None:
        """Tasks with two threads each, that know of each other and may do whatever they can."""
        rng = self.rng
        self._get_sigma0()
        words = (abi.SCHEDULER_RUN_THREAD, 0, 1, _ROOT_PRIORITY, 0, *_named(abi.BOOT_CAP_THREAD))
        self._root_call(abi.BOOT_CAP_SCHEDULER, abi.PROTO_SCHEDULER, *words, items=1)
        self.baseline = self._kernel_memory()
        self.tasks = rng.randint(2, 4)
        for number in range(self.tasks):
            self._create(FACTORIES[0] + number, abi.PROTO_FACTORY, rng.choice((0x8000, 0x20000, 0x100000)))
            self._create(IRQS[0] + number, abi.PROTO_IRQ_SENDER)
            self._make_task(number)
        for number in range(self.tasks):
            self._furnish(number)
        self._check()

    def _make_task(self, number: int) -> None:
        self._create(TASKS[0] + number, abi.PROTO_TASK, UTCB_AREA | 12 << 6 | 1 << 4)
        for part in range(2):
            self._make_thread(number, part)
        self._furnish(number)

    def _make_thread(self, task: int, part: int) -> None:
        """Thread `part` of a task, with a gate; it runs once the root task sleeps."""
        number = 2 * task + part
        slot = THREADS[0] + number
        self._create(slot, abi.PROTO_THREAD)
        self._create(GATES[0] + number, abi.PROTO_NONE, 0x100 * (number + 1), items=_named(slot))
        flags = abi.CONTROL_BIND_TASK | abi.CONTROL_SET_PAGER | abi.CONTROL_SET_EXCEPTION_HANDLER
        handlers = self.guests.handlers()
        utcb = UTCB_AREA + part * abi.UTCB_BYTES
        words = (abi.THREAD_CONTROL | flags, *handlers, 0, 0, utcb)
        self._root_call(slot, abi.PROTO_THREAD, *words, *_named(TASKS[0] + task), items=1)
        core = self.rng.randrange(len(self.rig.tlbs))
        place = (abi.SCHEDULER_RUN_THREAD, core, 1, self.rng.choice((1, 2, 2, 3)), 0)
        self._root_call(abi.BOOT_CAP_SCHEDULER, abi.PROTO_SCHEDULER, *place, *_named(slot), items=1)
        self._root_call(slot, abi.PROTO_THREAD, abi.THREAD_EX_REGS, 0x10000, 0x20000)

    def _furnish(self, number: int) -> None:
        """A task's capabilities. Few come with the right to delete, or everything would soon be gone."""
        rng, tasks = self.rng, self.tasks
        task = TASKS[0] + number
        factory = FACTORIES[0] + number if rng.random() < 0.7 else abi.BOOT_CAP_FACTORY
        fixed = {
            abi.BOOT_CAP_TASK: task,
            abi.BOOT_CAP_FACTORY: factory,
            **{slot: slot for slot in (abi.BOOT_CAP_PAGER, abi.BOOT_CAP_LOG, abi.BOOT_CAP_ICU)},
            **{slot: slot for slot in (abi.BOOT_CAP_SCHEDULER, abi.BOOT_CAP_DEBUGGER)},
        }
        for target, source in fixed.items():
            self._give(task, target, source)
        page = rng.choice(MAPPED) << 12 | rng.choice((12, 14, 16, 22)) << 6 | abi.FPAGE_TYPE_MEMORY << 4 | 7
        words = (abi.TASK_MAP, rng.choice(MAPPED) << 12, page)
        self._root_call(task, abi.PROTO_TASK, *words, *_named(SIGMA0_TASK), items=1)
        for number in range(tasks):
            self._give(task, TASKS[0] + number, TASKS[0] + number, rng.choice((7, 7, 5, 15)))
            self._give(task, IRQS[0] + number, IRQS[0] + number)
        for number in range(2 * tasks):
            self._give(task, THREADS[0] + number, THREADS[0] + number, rng.choice((7, 7, 7, 15)))
            self._give(task, GATES[0] + number, GATES[0] + number, rng.choice((7, 7, 5, 15)))

    def _get_sigma0(self) -> None:
        """Ask sigma0 for its task capability, then leave it waiting for faults."""
        rig = self.rig
        root, sigma0, ram = rig.root, rig.sigma0, rig.ram
        self._until_sigma0_waits()
        ram[root.utcb + abi.UTCB_BR // 4] = SIGMA0_TASK << 12 | abi.BUFFER_ITEM | abi.BUFFER_SMALL
        self._prepare(root, abi.BOOT_CAP_PAGER << 12 | abi.OP_CALL, 0x10000)
        self._system_call(0, root, "root asks sigma0")
        if rig.running(0) is not sigma0:
            raise KernelBug("sigma0 did not get the root task's call")
        page = abi.BOOT_CAP_TASK << 12 | abi.FPAGE_TYPE_OBJECT << 4 | 7
        self._prepare(sigma0, abi.CAP_INVALID | abi.OP_REPLY_AND_WAIT, 0x40, abi.ITEM_MAP, page)
        self._system_call(0, sigma0, "sigma0 answers root")
        self._until_root_runs()

    def _until_sigma0_waits(self) -> None:
        """At boot sigma0 runs first, until it waits."""
        rig = self.rig
        while rig.running(0) is not rig.root:
            thread = rig.running(0)
            if thread is None:
                rig.tick(0)
            else:
                self._prepare(thread, abi.CAP_INVALID | abi.OP_WAIT, 0)
                self._system_call(0, thread, "sigma0 waits")

    # --- the end ----------------------------------------------------------------------------------

    def _kernel_memory(self) -> tuple[int, int]:
        kernel = self.rig.kernel
        return kernel.root_quota.used_bytes, kernel.frames.taken_count

    def _tear_down(self) -> None:
        """The root task deletes all it made, and with it all that made in turn. What is left is a leak."""
        rig, kernel = self.rig, self.rig.kernel
        self.last = "tear down"
        mask = abi.UNMAP_SELF | abi.UNMAP_DELETE
        for slot in range(THREADS[0], END_OF_SLOTS):
            page = slot << 12 | abi.FPAGE_TYPE_OBJECT << 4 | 15
            self._root_call(abi.BOOT_CAP_TASK, abi.PROTO_TASK, abi.TASK_UNMAP, mask, page)
        for core, waiting in enumerate(rig.interrupts):
            while waiting:
                rig.deliver(core)
        self._free_circles(kernel)
        self.last = "torn down"
        self._check()
        self._look_for_remains(kernel)

    def _free_circles(self, kernel: Kernel) -> None:
        """End tasks that nobody can name but tasks like them: a capability to a task, in its own table.

        Nothing ends those on the real kernel either. All they hold must come back with them.
        """
        well_behaved = (self.rig.root.task, self.rig.sigma0.task)
        circle = [task for task in kernel.tasks.values() if task not in well_behaved]
        tables = {task.capability_table for task in circle}
        for task in circle:
            if not all(cap.table in tables for cap in task.capabilities):
                raise KernelBug(f"left over: {task!r}, named by {list(task.capabilities)}")
            capspace.kill_object(kernel, task)
        if circle:
            self._until_root_runs()
            self.rig.tick(0)

    def _look_for_remains(self, kernel: Kernel) -> None:
        rig = self.rig
        well_behaved = (rig.root, rig.sigma0)
        left = [*kernel.threads.values(), *kernel.tasks.values()]
        left = [obj for obj in left if obj not in (*well_behaved, rig.root.task, rig.sigma0.task)]
        if left:
            raise KernelBug(f"left over: {left}")
        now = self._kernel_memory()
        if now != self.baseline:
            raise KernelBug(f"kernel memory (bytes, frames) is {now}, was {self.baseline} before the tasks")
        mapped = [root for root in kernel.memory.roots.values() if root.children or root.by_frame]
        if mapped or kernel.port_roots:
            raise KernelBug(f"still mapped from: {mapped}, ports {list(kernel.port_roots)}")
        for core in kernel.cores:
            if [thread for thread in core.ready.threads() if thread not in well_behaved] or len(
                core.wake_ups
            ):
                raise KernelBug(f"a queue of core {core.number} still holds a thread")
        if DEAD in (rig.sigma0.state, rig.root.state):
            raise KernelBug("a well-behaved thread was killed")


def _named(slot: int) -> tuple[int, int]:
    """An item that names one of root's capabilities."""
    return abi.ITEM_MAP, slot << 12 | abi.FPAGE_TYPE_OBJECT << 4 | 15
