"""One client's conversation: what each request does to the target, and what is answered.

The machine stands still whenever a request is handled; a request to go on returns when it stands still
again. Meanwhile the server asks `interrupted`, which takes in what arrives: Ctrl-C stops the machine,
anything else waits its turn. The protocol allows nothing else, so nothing that a client sends, and no
client that vanishes, can find the machine in the middle of something.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, assert_never

from l4lab.emulator.debug.debugging import executed
from l4lab.emulator.debug.stops import Stop, StopKind
from l4lab.emulator.errors import OperatorError
from l4lab.kernel.errors import KernelBug
from l4lab.tools.debug.gdb import documents, registers
from l4lab.tools.debug.gdb.files import Files
from l4lab.tools.debug.gdb.framing import (
    MAX_PACKET_BYTES,
    Decoder,
    Interrupt,
    Malformed,
    Packet,
    console_packets,
    encode,
)
from l4lab.tools.debug.gdb.ids import ALL, ANY, PacketError, ThreadId, number
from l4lab.tools.debug.gdb.packets import breakpoints, files, memory, queries, resume, threads
from l4lab.tools.debug.gdb.packets import registers as register_packets
from l4lab.tools.debug.gdb.packets.parsing import Request, parse
from l4lab.tools.debug.gdb.target import (
    NO_SIGNAL,
    SIGABRT,
    SIGINT,
    SIGTRAP,
    GdbThread,
    Target,
    is_alone,
)
from l4lab.tools.debug.named import DebugError

if TYPE_CHECKING:
    from l4lab.tools.debug.gdb.monitor import Monitor
    from l4lab.tools.debug.gdb.script import StandIns

MAX_WAITING: Final = 1000
"""Packets that a client may send without waiting for answers before it is hung up on."""

OK: Final = b"OK"
NOT_KNOWN: Final = b""
E_INVALID: Final = b"E16"  # EINVAL, in hexadecimal as all of them
E_FAULT: Final = b"E0e"
E_NO_THREAD: Final = b"E03"
E_FAILED: Final = b"E05"  # EIO
_SHOWN_BYTES: Final = 100

FEATURES: Final = (
    "QStartNoAckMode+",
    "vContSupported+",
    "swbreak+",
    "hwbreak+",
    "ReverseStep+",
    "ReverseContinue+",
    "qXfer:features:read+",
    "qXfer:threads:read+",
    "qXfer:memory-map:read+",
    "qXfer:osdata:read+",
    "qXfer:exec-file:read+",
    "qXfer:libraries:read+",
)
_SIGNALS: Final = {
    StopKind.INTERRUPTED: SIGINT,
    StopKind.BUG: SIGABRT,
    # gdb calls these "stopped" instead of inventing a signal; `say` tells why.
    StopKind.CATCHPOINT: NO_SIGNAL,
    StopKind.ENTRY: NO_SIGNAL,
    StopKind.PLACE: NO_SIGNAL,
    StopKind.NO_STEP: NO_SIGNAL,
}
_UNTOLD: Final = (StopKind.START, StopKind.INTERRUPTED, StopKind.NEW_TASK)
_ONLY_ALL: Final = (
    "time is one for all, so not while gdb lets one thread go on alone (`set scheduler-locking off`)"
)
_WATCH_WORDS: Final = {(True, False): "watch", (False, True): "rwatch"}


def _interrupts(item: Packet | Interrupt | Malformed) -> bool:
    return isinstance(item, Interrupt) or (isinstance(item, Packet) and item.payload == b"vCtrlC")


class Conversation:
    """A client that is connected. `closed`: there is nothing more to say.

    `report`: gets the trace of an error of ours. It ends no session: the machine stands where it has come to.
    `detached`: it has taken its leave, of some process at least. `killed`: it wants the machine to end.
    """

    def __init__(
        self,
        target: Target,
        monitor: Monitor,
        send: Callable[[bytes], None],
        stand_ins: StandIns,
        report: Callable[[str], None],
    ) -> None:
        self.closed = False
        self.detached = False
        self.killed = False
        self._stand_ins = stand_ins
        self._target = target
        self._monitor = monitor
        self._send = send
        self._report = report
        self._decoder = Decoder()
        self._waiting: deque[Packet | Interrupt | Malformed] = deque()
        self._acknowledges = True
        self._last_reply = b""
        self._client_features: frozenset[str] = frozenset()
        self._more_input: Callable[[], bytes | None] = lambda: None
        self._general: ThreadId | None = None
        self._control: ThreadId | None = None
        self._document: tuple[str, str, bytes] = ("", "", b"")
        paths = [
            stand_ins.no_program,
            stand_ins.kernel_page,
            *(program.path for program in target.programs.all),
        ]
        self._files = Files({str(path): path for path in paths})

    # --- bytes ----------------------------------------------------------------------------------------

    def receive(self, data: bytes, more_input: Callable[[], bytes | None]) -> None:
        """Bytes have come; handle every packet that is whole.

        `more_input`: what has come since, asked while the machine runs; None: the client has gone.
        """
        self._more_input = more_input
        self._take(data)
        while self._waiting and not self.closed:
            item = self._waiting.popleft()
            if isinstance(item, Packet):
                self._handle(item.payload)
            elif isinstance(item, Malformed):
                self._reply(E_INVALID)
            # An interrupt finds a machine that stands still already.

    def _take(self, data: bytes) -> None:
        for item in self._decoder.feed(data):
            if isinstance(item, Packet):
                if self._acknowledges:
                    self._send(b"+")
                self._waiting.append(item)
            elif isinstance(item, Interrupt):
                self._waiting.append(item)
            elif isinstance(item, Malformed):
                if self._acknowledges:
                    self._send(b"-")
                elif item.framed:
                    self._waiting.append(item)
            elif not item.received and self._acknowledges and self._last_reply:
                self._send(self._last_reply)
        if len(self._waiting) > MAX_WAITING:
            self.closed = True

    def interrupted(self) -> bool:
        """While the machine runs: whether the client wants it to stop, or has gone."""
        data = self._more_input()
        if data is None:
            self.closed = True
        elif data:
            self._take(data)
        return self.closed or any(map(_interrupts, self._waiting))

    def _reply(self, payload: bytes) -> None:
        self._last_reply = encode(payload)
        self._send(self._last_reply)

    def say(self, text: str) -> None:
        """Text for the person at gdb; heard while a reply is due, so while the machine runs or a command does."""
        for packet in console_packets(text):
            self._send(packet)

    def _handle(self, payload: bytes) -> None:
        try:
            request = parse(payload)
            answer = NOT_KNOWN if request is None else self._answer(request)
        except PacketError:
            answer = E_INVALID
        except (KernelBug, OperatorError):
            raise
        except Exception as error:  # whoever debugs for hours must not lose the machine to a mistake of ours
            request_text = payload[:_SHOWN_BYTES].decode("ascii", "backslashreplace")
            self._report(f"error in l4lab, at the request {request_text!r} of gdb:\n{traceback.format_exc()}")
            self.say(
                f"error in l4lab: {type(error).__name__}: {error}; the terminal of the run has the trace\n"
            )
            answer = E_FAILED
        if answer is not None:
            self._reply(answer)

    # --- requests -------------------------------------------------------------------------------------

    def _answer(self, request: Request) -> bytes | None:
        """Do it; the reply, or None where there is none."""
        if isinstance(request, files.Request):
            return self._files.answer(request)
        if isinstance(request, register_packets.Request):
            return self._registers(request)
        match request:
            case queries.Supported():
                return self._supported(request)
            case queries.NoAcknowledgements():
                self._reply(OK)
                self._acknowledges = False
                return None
            case queries.Transfer():
                return self._transfer(request)
            case queries.MonitorCommand():
                return self._command(request)
            case queries.Attached():
                return b"1"
            case queries.SymbolsWanted():
                return OK
            case queries.MemoryMode():
                return self._memory_mode(request)
            case queries.QemuSupported():
                return b"PhyMemMode"
            case threads.SelectThread() | threads.ThreadAlive() | threads.CurrentThread():
                return self._thread(request)
            case threads.ListThreads():
                return self._list_threads(request)
            case threads.ThreadText():
                thread = self._target.find(request.thread)
                if thread is None:
                    return E_NO_THREAD
                return f"{thread.name}: {self._target.text(thread)}".encode().hex().encode()
            case memory.ReadMemory():
                return self._read_memory(request)
            case memory.WriteMemory():
                written = not request.data or self._target.write_memory(
                    self._selected(), request.address, request.data
                )
                return OK if written else E_FAULT
            case breakpoints.SetBreakpoint():
                done = self._target.change_breakpoint(
                    self._selected(), request, every_task=not self._processes
                )
                return OK if done else E_INVALID
            case resume.WhichActions():
                return b"vCont;c;C;s;S;r"
            case resume.WhyStopped():
                return self._stop_reply(self._target.debugger.last_stop, [])
            case resume.Resume() | resume.ResumeBack():
                return self._go_on(request)
            case resume.InterruptRequest():
                return OK  # the machine stands still already
            case resume.Detach():
                if request.pid is not None and not self._target.has_process(request.pid):
                    return E_NO_THREAD
                # gdb takes its leave of one process after the other, and then hangs up.
                self.detached = True
                self.closed = request.pid is None
                return OK
            case resume.Kill():
                if request.pid is not None and not self._target.has_process(request.pid):
                    return E_NO_THREAD
                self.killed = True
                self.closed = request.pid is None
                return OK if request.pid is not None else None
            case _:
                assert_never(request)

    @property
    def _processes(self) -> bool:
        """Whether the client speaks of processes."""
        return "multiprocess+" in self._client_features

    def _supported(self, request: queries.Supported) -> bytes:
        self._client_features = frozenset(request.features)
        features = [f"PacketSize={MAX_PACKET_BYTES:x}", *FEATURES]
        if self._processes:
            features.append("multiprocess+")
        return ";".join(features).encode()

    def _command(self, request: queries.MonitorCommand) -> bytes:
        try:
            lines = self._monitor.run(request.text, self._selected())
        except DebugError as error:
            self.say(f"error: {error}\n")
            return E_INVALID  # gdb abandons what else it was about to do
        for line in lines:
            self.say(line + "\n")
        return OK

    def _memory_mode(self, request: queries.MemoryMode) -> bytes:
        if request.physical is None:
            return b"%d" % self._target.physical
        self._target.physical = request.physical
        return OK

    # --- threads --------------------------------------------------------------------------------------

    def _id(self, thread: GdbThread) -> ThreadId:
        return ThreadId(thread.pid if self._processes else None, thread.tid)

    def _selected(self) -> GdbThread:
        """For registers and memory: what `Hg` said, while that thread lives."""
        found = self._target.find(self._general) if self._general is not None else None
        return found if found is not None else self._target.stopped_thread()

    def _to_step(self, request: resume.Resume | resume.ResumeBack) -> GdbThread:
        """For stepping: what `Hc` said, if that is one thread, and counts.

        There is no `vCont` for going back, and `Hg` by then says where gdb has set its last breakpoint: else it is
        whoever the last stop was about.
        """
        found = (
            self._target.find(self._control)
            if self._control is not None and self._is_locked(request)
            else None
        )
        if found is None:
            back = isinstance(request, resume.ResumeBack)
            found = self._target.stopped_thread() if back else self._selected()
        return found

    def _thread(self, request: threads.SelectThread | threads.ThreadAlive | threads.CurrentThread) -> bytes:
        if isinstance(request, threads.CurrentThread):
            return b"QC" + self._id(self._selected()).encode()
        if isinstance(request, threads.ThreadAlive):
            return OK if self._target.find(request.thread) is not None else E_NO_THREAD
        wanted = request.thread
        found = self._target.find(wanted)
        if found is None:
            return E_NO_THREAD
        if request.operation == "c":
            self._control = wanted
        elif wanted.tid in (ALL, ANY) and wanted.pid in (None, ALL, ANY):
            self._general = None
        else:
            self._general = self._id(found)
        return OK

    def _list_threads(self, request: threads.ListThreads) -> bytes:
        if not request.first:
            return b"l"
        names = b",".join(self._id(thread).encode() for thread in self._target.threads())
        return b"m" + names[: MAX_PACKET_BYTES - 8]

    def _registers(self, request: register_packets.Request) -> bytes:
        thread = self._selected()
        match request:
            case register_packets.ReadRegisters():
                return self._target.read_registers(thread)
            case register_packets.WriteRegisters():
                return OK if self._target.write_registers(thread, request.data) else E_INVALID
            case register_packets.ReadRegister():
                return self._target.read_register(thread, request.index) or E_INVALID
            case register_packets.WriteRegister():
                return OK if self._target.write_register(thread, request.index, request.data) else E_INVALID

    def _read_memory(self, request: memory.ReadMemory) -> bytes:
        size = min(request.size_bytes, (MAX_PACKET_BYTES - 8) // 2)
        data = self._target.read_memory(self._selected(), request.address, size)
        return data.hex().encode() if data or not size else E_FAULT

    # --- documents ------------------------------------------------------------------------------------

    def _transfer(self, request: queries.Transfer) -> bytes:
        """A piece of a document. It is made when its beginning is asked for, and stays the same until the next."""
        if request.offset == 0 or self._document[:2] != (request.object_, request.annex):
            text = self._make_document(request.object_, request.annex)
            if text is None:
                return b"E00"
            self._document = (request.object_, request.annex, text.encode())
        data = self._document[2]
        size = min(request.size_bytes, MAX_PACKET_BYTES // 2 - 8)  # every byte may need an escape
        piece = data[request.offset : request.offset + size]
        if request.offset > len(data):
            return b"E01"
        return (b"l" if request.offset + len(piece) >= len(data) else b"m") + piece

    def _make_document(self, name: str, annex: str) -> str | None:
        machine = self._target.debugger.machine
        if name == "features":
            return registers.target_description() if annex == "target.xml" else None
        if name == "threads":
            target = self._target
            return documents.threads((self._id(each), each, target.text(each)) for each in target.threads())
        if name == "memory-map":
            return documents.MEMORY_MAP
        if name == "osdata":
            return documents.osdata(annex, machine)
        if name == "libraries":
            return documents.libraries(self._stand_ins.kernel_page)
        if name == "exec-file":
            pid = number(annex.encode()) if annex else self._selected().pid
            program = self._target.program_of(pid)
            return str(program.path if program is not None else self._stand_ins.no_program)
        return None

    # --- going on -------------------------------------------------------------------------------------

    def _go_on(self, request: resume.Resume | resume.ResumeBack) -> bytes | None:
        if isinstance(request, resume.Resume) and not all(map(self._can_act, request.actions)):
            return E_NO_THREAD
        self.detached = False
        stop = self._move(request)
        if stop is None:
            stop = self._resume(request)
        self._general = None  # unlike `Hc`, which clients do not repeat
        self._waiting = deque(item for item in self._waiting if not _interrupts(item))
        if self.closed:
            return None
        told = stop.kind in _UNTOLD or (stop.kind is StopKind.CATCHPOINT and self._monitor.steps.tell(stop))
        if stop.text.strip() and not told:
            self.say(f"{stop.text.strip()}\n")
        ends = {StopKind.END: ["replaylog:end"], StopKind.START: ["replaylog:begin"]}
        return self._stop_reply(stop, ends.get(stop.kind, []))

    def _can_act(self, action: resume.Action) -> bool:
        """Whether the thread that is to step exists."""
        return action.kind == "c" or action.thread is None or self._target.find(action.thread) is not None

    def _move(self, request: resume.Resume | resume.ResumeBack) -> Stop | None:
        """Do what `goto`, `back` or `forth` have noted down; None if nothing has."""
        monitor = self._monitor
        if not monitor.is_about_to_move:
            return None
        selected = self._to_step(request)
        actions = self._actions(request) if isinstance(request, resume.Resume) else ()
        if is_alone(actions) if actions else self._is_locked(request):
            if not actions or actions[0].kind == "c":
                return self._target.stay(self._target.acting(actions) or selected, monitor.give_up(_ONLY_ALL))
            stop = self._target.step_aside(actions, selected, self.interrupted)
            if stop is not None:
                return monitor.stepped_aside(stop)
        return monitor.move(self.interrupted)

    def _is_locked(self, request: resume.Resume | resume.ResumeBack) -> bool:
        """Whether `Hc` has said that one thread is to go on alone, where that counts: not for `vCont`."""
        if isinstance(request, resume.Resume) and not request.plain:
            return False
        return self._control is not None and self._control.tid not in (ALL, ANY)

    def _actions(self, request: resume.Resume) -> tuple[resume.Action, ...]:
        """What the threads are to do."""
        if not self._is_locked(request):
            return request.actions
        return tuple(replace(action, thread=self._control) for action in request.actions)

    def _resume(self, request: resume.Resume | resume.ResumeBack) -> Stop:
        steps = self._monitor.steps
        if isinstance(request, resume.ResumeBack):
            selected = self._to_step(request)
            if self._is_locked(request) and (
                not request.step or selected.thread is None or not executed(selected.thread)
            ):
                return self._target.stay(selected, f"back: {_ONLY_ALL}")
            steps.forget()
            return self._target.resume_back(request.step, selected, self.interrupted)
        actions = self._actions(request)
        steps.stops = any(action.kind != "c" for action in actions) and not is_alone(actions)
        return self._target.resume(actions, self._to_step(request), self.interrupted)

    def _stop_reply(self, stop: Stop, remarks: list[str]) -> bytes:
        thread = self._target.stopped_thread()
        parts = [f"thread:{self._id(thread).encode().decode()}", f"core:{thread.core:x}"]
        parts += [*remarks, *self._reason(stop)]
        if thread.thread is not None:
            for index in (registers.EIP_NUMBER, registers.ESP_NUMBER, registers.EBP_NUMBER):
                value = self._target.read_register(thread, index)
                assert value is not None
                parts.append(f"{index:02x}:{value.decode()}")
        signal = _SIGNALS.get(stop.kind, SIGTRAP)
        return f"T{signal:02x}{';'.join(parts)};".encode()

    def _reason(self, stop: Stop) -> list[str]:
        if stop.kind is StopKind.NEW_TASK:
            return ["library:"]  # gdb gets to know it, and goes on by itself
        if stop.kind is StopKind.BREAKPOINT:
            word = "hwbreak" if self._target.is_hardware(stop) else "swbreak"
            return [f"{word}:"] if f"{word}+" in self._client_features else []
        if stop.kind is StopKind.WATCHPOINT and stop.watchpoint is not None:
            watch = stop.watchpoint
            return [f"{_WATCH_WORDS.get((watch.write, watch.read), 'awatch')}:{watch.address:x}"]
        return []
