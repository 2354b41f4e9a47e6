"""The machine as gdb sees it: processes are tasks, threads are L4 threads, and there are the cores.

A client that knows of processes gets a task as a process of the task's number, so that each has symbols
and memory of its own; thread numbers are those of the kernel's objects. The cores are threads of one
more process, CORES: they show what runs on them, or that they idle.

A task is shown from its first instruction on, which the client is told of by a stop of its own: gdb makes
room for a new process at a stop that is about that, and forgets what it has stopped for at any other.
From then on it is shown for good, as time may be turned back to when there was one.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from l4lab.emulator.debug.debugging import Poll, read_memory
from l4lab.emulator.debug.debugport import MAX_WATCHED_BYTES, MAX_WATCHPOINTS
from l4lab.emulator.debug.stops import (
    TO_THE_END,
    Breakpoint,
    Goal,
    GoalKind,
    MemoryEdit,
    Stop,
    StopKind,
    Watchpoint,
    step,
)
from l4lab.kernel.frame import FPU_CORE
from l4lab.kernel.inspect import state_text, task_name, thread_name
from l4lab.kernel.thread import DEAD, DORMANT
from l4lab.kernel.units import PAGE_BYTES
from l4lab.tools.debug.gdb import registers
from l4lab.tools.debug.gdb.ids import ALL, ANY, ThreadId
from l4lab.tools.debug.gdb.packets import breakpoints as z
from l4lab.tools.debug.gdb.packets.resume import Action

if TYPE_CHECKING:
    from l4lab.emulator.debug.debugging import Debugger
    from l4lab.emulator.machine import CoreState
    from l4lab.kernel.objects import Task
    from l4lab.kernel.thread import Thread
    from l4lab.tools.runs.programs import Program, Programs

CORES: Final = 1
"""The process of the cores. Task numbers are higher: the kernel's own objects come first."""
FIRST_CORE: Final = 1_000_000_000
"""Thread number of core 0, beyond those of all threads."""

_EVERY_TASK: Final = 0

NO_SIGNAL: Final = 0
SIGINT: Final = 2
SIGTRAP: Final = 5
SIGABRT: Final = 6

_NOT_THERE: Final = b"x"
_REMEMBERED_COUNTERS: Final = 64
"""As many calls of functions may be under way, one inside the other."""

_REPEAT_PREFIXES: Final = b"\xf2\xf3"
_PREFIXES: Final = _REPEAT_PREFIXES + b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0"
"""Ref: Intel SDM vol. 2, 2.1.1."""
_MOST_PREFIXES: Final = 14
"""Instructions have at most 15 bytes."""


@dataclass(frozen=True, slots=True)
class GdbThread:
    """One thread as gdb sees it.

    `thread`: the L4 thread, or whoever runs on the core; None: an idle core, or all of the task that is left.
    """

    pid: int
    tid: int
    core: int
    name: str
    thread: Thread | None


class Target:
    """One machine under a debugger, in gdb's terms. `physical`: addresses are those of RAM."""

    def __init__(self, debugger: Debugger, programs: Programs) -> None:
        self.debugger = debugger
        self.programs = programs
        self.physical = False
        self._breakpoints: dict[tuple[int, int, int], Breakpoint] = {}
        self._watchpoints: dict[tuple[int, int, int, int], Watchpoint] = {}
        self._resumed_with: tuple[Breakpoint, ...] = ()
        self._last_reported = 0
        self._alone: GdbThread | None = None  # who has made a step alone since all went on last
        self._told_counters: dict[tuple[int, str], deque[bytes]] = {}  # by thread and register
        self._shown: dict[int, tuple[int, str]] = {}  # task -> number and name of its first thread
        self._processes: list[int] = []  # in the order in which clients were told of them

    # --- threads --------------------------------------------------------------------------------------

    def threads(self) -> list[GdbThread]:
        """All of them by process: those that have been started and are not dead, and the cores.

        Processes come in the order in which they came first, so that each gdb numbers its inferiors alike.
        """
        return sorted(self._threads(), key=lambda thread: self._processes.index(thread.pid))

    def _threads(self) -> Iterator[GdbThread]:
        kernel = self.debugger.machine.kernel
        for task in kernel.tasks.values():
            if self._is_shown(task.number):
                for thread in task.threads:
                    if thread.state not in (DEAD, DORMANT):
                        yield self.gdb_thread(thread)
        ended = self._ended_alone()
        if ended is not None:
            yield ended
        for pid in self._shown:
            gone = self._gone(pid)
            if gone is not None and (ended is None or gone.tid != ended.tid):
                yield gone
        for core in self.debugger.machine.cores:
            yield self.gdb_core(core)

    def _is_shown(self, task: int) -> bool:
        return not self.debugger.tells_new_tasks or task in self.debugger.known_tasks

    def _gone(self, pid: int) -> GdbThread | None:
        """What stands for a process that has no thread now; None if it has one."""
        task = self.debugger.machine.kernel.tasks.get(pid)
        if task is not None and any(thread.state not in (DEAD, DORMANT) for thread in task.threads):
            return None
        tid, name = self._shown[pid]
        return GdbThread(pid, tid, 0, name, None)

    def _ended_alone(self) -> GdbThread | None:
        """A thread that has ended in a step that it made alone: a client can be told of that one only."""
        alone = self._alone
        if alone is None or alone.pid == CORES:
            return None
        thread = self.debugger.machine.kernel.threads.get(
            alone.tid
        )  # another object once time was turned back
        return alone if thread is None or thread.state == DEAD else None

    def _has_ended(self, thread: GdbThread) -> bool:
        """Whether it is no thread of the present. Cores are always there."""
        return thread.pid != CORES and (thread.thread is None or thread.thread.state == DEAD)

    def gdb_thread(self, thread: Thread) -> GdbThread:
        """An L4 thread."""
        pid, name = (thread.task.number if thread.task is not None else CORES), thread_name(thread)
        self._shown.setdefault(pid, (thread.number, name))
        self._note_process(pid)
        return GdbThread(pid, thread.number, max(thread.core, 0), name, thread)

    def gdb_core(self, core: CoreState) -> GdbThread:
        """A core."""
        number = core.number
        self._note_process(CORES)
        return GdbThread(CORES, FIRST_CORE + number, number, f"core {number}", core.decision.thread)

    def _note_process(self, pid: int) -> None:
        if pid not in self._processes:
            self._processes.append(pid)

    def text(self, thread: GdbThread) -> str:
        """What it does, or waits for."""
        kernel = self.debugger.machine.kernel
        if thread.pid == CORES and thread.tid >= FIRST_CORE:
            if thread.thread is not None:
                return f"runs {thread_name(thread.thread)}"
            return f"idle since cycle {self.debugger.machine.cores[thread.core].clock_cycles}"
        if thread.thread is not None and thread.thread.state == DEAD:
            return "ended"
        if thread.thread is None:
            return "ended" if thread.tid < kernel.next_number else "not made yet"
        text = f"core {thread.core}, {state_text(kernel, thread.thread)}"
        task = thread.thread.task
        if task is not None and thread.thread.name and thread.thread.name != task_name(task):
            text = f"task {task_name(task)}, {text}"
        return text

    def find(self, wanted: ThreadId) -> GdbThread | None:
        """The thread of that id, or the first that fits -1 or 0."""
        if wanted.tid not in (ALL, ANY):
            found = self._numbered(wanted.tid)
            return found if found is not None and wanted.pid in (None, ALL, ANY, found.pid) else None
        if wanted.pid in (None, ALL, ANY):
            return self.stopped_thread()
        return next((thread for thread in self.threads() if thread.pid == wanted.pid), None)

    def _numbered(self, tid: int) -> GdbThread | None:
        if FIRST_CORE <= tid < FIRST_CORE + len(self.debugger.machine.cores):
            return self.gdb_core(self.debugger.machine.cores[tid - FIRST_CORE])
        ended = self._ended_alone()
        if ended is not None and ended.tid == tid:
            return ended
        thread = self.debugger.machine.kernel.threads.get(tid)
        if thread is not None and thread.state not in (DEAD, DORMANT):
            shown = thread.task is not None and self._is_shown(thread.task.number)
            return self.gdb_thread(thread) if shown else None
        pid = next((pid for pid, (first, _) in self._shown.items() if first == tid), None)
        return self._gone(pid) if pid is not None else None

    def stopped_thread(self) -> GdbThread:
        """Whom the last stop concerns; on an idle core it is whoever was concerned before.

        gdb cannot do without a program counter, so a core it is only when there is no thread left, or when it was
        stepped alone.
        """
        found_alone = self._numbered(self._alone.tid) if self._alone is not None else None
        if found_alone is not None:
            return found_alone
        kernel = self.debugger.machine.kernel
        stop = self.debugger.last_stop
        thread = stop.thread
        if self._hits_core(stop):
            return self.gdb_core(self.debugger.machine.cores[stop.core])
        for number in (thread.number if thread is not None else 0, self._last_reported):
            found = kernel.threads.get(number)
            if found is not None and found.task is not None and found.state != DEAD:
                self._last_reported = number
                self.debugger.known_tasks.add(found.task.number)
                return self.gdb_thread(found)
        return self.threads()[0]

    def _hits_core(self, stop: Stop) -> bool:
        """Whether it is for a breakpoint that only the process of the cores has: then no other thread hits it."""
        if stop.kind is not StopKind.BREAKPOINT or stop.thread is None or stop.thread.task is None:
            return False
        address, own = stop.thread.frame[registers.EIP_NUMBER], stop.thread.task.number
        pids = {pid for _, pid, place in self._breakpoints if place == address}
        return CORES in pids and not pids & {own, _EVERY_TASK}

    def task_of(self, thread: GdbThread) -> Task | None:
        """Whose address space the thread has."""
        return thread.thread.task if thread.thread is not None else None

    def processes(self) -> list[int]:
        """All process numbers."""
        return [*self.debugger.machine.kernel.tasks, CORES]

    def has_process(self, pid: int) -> bool:
        """Whether there is such a process, or a client has been told of one that is gone now."""
        return pid in self.processes() or pid in self._shown

    def program_of(self, pid: int) -> Program | None:
        """What a process executes, or is going to."""
        machine = self.debugger.machine
        task = machine.kernel.tasks.get(pid)
        return self.programs.expected_of(machine, task) if task is not None else None

    # --- registers ------------------------------------------------------------------------------------

    def read_registers(self, thread: GdbThread) -> bytes:
        """Those that every gdb knows, as hexadecimal digits.

        gdb fetches the description of the others for its first process only, and takes a `g` reply that
        is longer than it knows for an error; a shorter one makes it ask for the rest one by one.
        """
        return b"".join(self._register(thread, register) for register in registers.COMMON)

    def read_register(self, thread: GdbThread, index: int) -> bytes | None:
        """One, as hexadecimal digits; None: there is none of that number."""
        if index >= len(registers.REGISTERS):
            return None
        register = registers.REGISTERS[index]
        value = self._register(thread, register)
        if register.name in registers.COUNTERS and thread.thread is not None:
            key = (thread.thread.number, register.name)
            self._told_counters.setdefault(key, deque(maxlen=_REMEMBERED_COUNTERS)).append(value)
        return value

    def _register(self, thread: GdbThread, register: registers.Register) -> bytes:
        clock = self.debugger.machine.cores[thread.core].vcpu.clock_cycles
        if thread.thread is not None:
            self._settle_fpu(thread.thread)
            ended = thread.thread.state == DEAD
            frame = self.debugger.frame_of_lone if ended else thread.thread.frame
            return registers.read(frame, clock, register.name).hex().encode()
        if register.name == "cycles":
            return clock.to_bytes(8, "little").hex().encode()
        return _NOT_THERE * (2 * register.size_bytes)

    def _settle_fpu(self, thread: Thread) -> None:
        if thread.frame[FPU_CORE]:
            self.debugger.machine.engine.sync_fpu(thread.frame)

    def write_register(self, thread: GdbThread, index: int, value: bytes) -> bool:
        """Give one a value; False if that is not possible."""
        if index >= len(registers.REGISTERS) or thread.thread is None or thread.thread.state == DEAD:
            return False
        register = registers.REGISTERS[index]
        if len(value) != register.size_bytes:
            return False
        told = self._told_counters.get((thread.thread.number, register.name), ())
        if value.hex().encode() in (self._register(thread, register), *told):
            return True  # also of a register that nobody may change: gdb puts back all after a function call
        edit = registers.write(thread.thread, register.name, value)
        if edit is None:
            return False
        self.debugger.edit(edit)
        return True

    def write_registers(self, thread: GdbThread, data: bytes) -> bool:
        """Give those of `read_registers` their values; False, and nothing done, if the size is wrong."""
        if thread.thread is None or len(data) != sum(register.size_bytes for register in registers.COMMON):
            return False
        at = 0
        for index, register in enumerate(registers.COMMON):
            value = data[at : at + register.size_bytes]
            at += register.size_bytes
            self.write_register(thread, index, value)
        return True

    # --- memory ---------------------------------------------------------------------------------------

    def read_memory(self, thread: GdbThread, address: int, size_bytes: int) -> bytes:
        """As many bytes as there are from `address` on."""
        machine = self.debugger.machine
        if self.physical:
            return bytes(machine.ram.bytes_[address : address + size_bytes])
        task = self.task_of(thread)
        return read_memory(machine, task, address, size_bytes) if task is not None else b""

    def write_memory(self, thread: GdbThread, address: int, data: bytes) -> bool:
        """All of it; False, and nothing written, if a part is not there."""
        edits = []
        at = address
        while at < address + len(data):
            size = min(address + len(data), (at // PAGE_BYTES + 1) * PAGE_BYTES) - at
            physical = self._physical(thread, at)
            if physical is None:
                return False
            edits.append(MemoryEdit(physical, data[at - address : at - address + size]))
            at += size
        for edit in edits:
            self.debugger.edit(edit)
        return True

    def _physical(self, thread: GdbThread, address: int) -> int | None:
        """Where a byte may be written; None: nowhere.

        In programs' memory and in what the kernel shares with them for messages. The kernel's own frames, the
        page of the system call and the info page among them, cannot be: every program would come to harm.
        """
        machine = self.debugger.machine
        programs_bytes = machine.kernel.memory.user_frames * PAGE_BYTES
        if self.physical:
            return address if address < programs_bytes else None
        task = self.task_of(thread)
        found = task.space.tables.translate(address) if task is not None and address < 1 << 32 else None
        if task is None or found is None:
            return None
        is_shared = address // PAGE_BYTES in task.space.ku_pages
        return found.physical if is_shared or found.physical < programs_bytes else None

    # --- breakpoints ----------------------------------------------------------------------------------

    def change_breakpoint(self, thread: GdbThread, request: z.SetBreakpoint, *, every_task: bool) -> bool:
        """Insert or remove; in the thread's task, or in every one. False if that is not possible.

        Inserting what is there and removing what is not are no errors, as the protocol demands.
        """
        if request.address >= 1 << 32:
            return False
        if request.type in (z.SOFTWARE, z.HARDWARE):
            # In the process of the cores, which has no memory of its own, it counts for whoever runs on them.
            task = None if every_task or thread.pid == CORES else thread.pid
            key = (request.type, _EVERY_TASK if every_task else thread.pid, request.address)
            if request.insert:
                self._breakpoints[key] = Breakpoint(request.address, task)
            else:
                self._breakpoints.pop(key, None)
            return True
        return self._change_watchpoint(thread.pid, request)

    def _change_watchpoint(self, task: int, request: z.SetBreakpoint) -> bool:
        if task == CORES or not 1 <= request.kind <= MAX_WATCHPOINTS * MAX_WATCHED_BYTES:
            return False
        key = (request.type, task, request.address, request.kind)
        before = dict(self._watchpoints)
        if request.insert:
            writes, reads = request.type != z.READ_WATCH, request.type != z.WRITE_WATCH
            self._watchpoints[key] = Watchpoint(request.address, request.kind, task, writes, reads)
        else:
            self._watchpoints.pop(key, None)
        try:
            self.debugger.set_watchpoints(self._watchpoints.values())
        except ValueError:
            self._watchpoints = before
            return False
        return True

    def clear_breakpoints(self) -> None:
        """Remove what a client has left behind."""
        self._breakpoints.clear()
        self._watchpoints.clear()
        self._resumed_with = ()
        self._alone = None
        self.debugger.forget_waiting()
        self.debugger.set_breakpoints(())
        self.debugger.set_watchpoints(())

    # --- going on -------------------------------------------------------------------------------------

    def resume(self, actions: tuple[Action, ...], selected: GdbThread, poll: Poll) -> Stop:
        """Do what `vCont` asks for. Time is one for all: threads without action run when their time comes."""
        actor = self.acting(actions)
        if actor is not None and is_alone(actions) and self._has_ended(actor):
            return self.stay(actor, self.text(actor))
        goal, alone = self._goal(actions, selected)
        before = self._resumed_with
        self.arm()
        if alone is None or alone.thread is None:
            return self.debugger.go_to_waiting(poll) or self.debugger.resume(goal, poll)
        taken_out: list[Breakpoint] = []
        if goal.kind is GoalKind.STEP:
            # gdb steps one thread over a breakpoint that it has taken out for that; others must not pass.
            taken_out = [each for each in before if each not in self._resumed_with]
            self._resumed_with = before
            self.debugger.set_breakpoints((*self.debugger.breakpoints, *taken_out))
        self._alone = alone
        return self.debugger.go_alone(alone.thread.number, goal, taken_out, poll)

    def acting(self, actions: tuple[Action, ...]) -> GdbThread | None:
        """The thread that goes on alone by these actions, if it does."""
        return self.find(actions[0].thread) if actions and actions[0].thread is not None else None

    def stay(self, selected: GdbThread, text: str) -> Stop:
        """Refuse to let the thread go on alone, for the reason `text`."""
        self._alone = selected
        return replace(self.debugger.last_stop, kind=StopKind.NO_STEP, thread=selected.thread, text=text)

    def step_aside(self, actions: tuple[Action, ...], selected: GdbThread, poll: Poll) -> Stop | None:
        """Let gdb have its step over a breakpoint, from where the machine is about to be moved; None: it wants none."""
        goal, alone = self._goal(actions, selected)
        if alone is None or alone.thread is None:
            return None
        self._alone = alone
        eip = alone.thread.frame[registers.EIP_NUMBER]
        if _repeats(self.read_memory(alone, eip, _MOST_PREFIXES)):
            goal = replace(goal, first=eip, size_bytes=1)
        return self.debugger.step_aside(goal, poll)

    def arm(self) -> None:
        """Let the breakpoints that there are now stop the machine."""
        self._alone = None
        self._resumed_with = tuple(self._breakpoints.values())
        self.debugger.set_breakpoints(self._resumed_with)

    def _goal(self, actions: tuple[Action, ...], selected: GdbThread) -> tuple[Goal, GdbThread | None]:
        """What to run for, and who is to go on alone; None: all are."""
        for action in actions:
            if action.kind == "c":
                if action.thread is None or action.thread.tid == ALL:
                    break
                if is_alone(actions):
                    return TO_THE_END, self.find(action.thread)
                continue
            thread = selected
            if action.thread is not None and action.thread.tid != ALL:
                found = self.find(action.thread)
                if found is None:
                    continue
                thread = found
            if thread.thread is None or thread.thread.state == DEAD:
                return Goal(GoalKind.ENTRY), None
            size = max(action.end - action.first, 0) if action.kind == "r" else 0
            alone = thread if is_alone(actions) else None
            return step(thread.thread.number, action.first, size), alone
        return TO_THE_END, None

    def resume_back(self, single: bool, selected: GdbThread, poll: Poll) -> Stop:
        """One instruction of the thread back, or to whatever would have stopped the machine before."""
        self._alone = None
        if single and selected.thread is not None:
            return self.debugger.step_back(selected.thread.number, poll)
        self.arm()
        return self.debugger.continue_back(poll)

    def is_hardware(self, stop: Stop) -> bool:
        """Whether the breakpoint that stopped was asked for as one of the hardware."""
        thread = stop.thread
        if thread is None:
            return False
        address = thread.frame[registers.EIP_NUMBER]
        pid = thread.task.number if thread.task is not None else CORES
        return any((z.HARDWARE, number, address) in self._breakpoints for number in (pid, CORES, _EVERY_TASK))


def _repeats(code: bytes) -> bool:
    """Whether the instruction is under `rep`, each round of which is one of the thread's instructions."""
    prefixes = itertools.takewhile(_PREFIXES.__contains__, code)
    return any(prefix in _REPEAT_PREFIXES for prefix in prefixes)


def is_alone(actions: tuple[Action, ...]) -> bool:
    """Whether one thread is to go on, and nobody else."""
    (action, *others) = actions
    return not others and action.thread is not None and action.thread.tid != ALL
