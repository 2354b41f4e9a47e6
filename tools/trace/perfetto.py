"""A run as a trace for Perfetto: cores as tracks, messages as arrows, operations on the tracks of their threads.

    cores      for each core what it runs: user code by thread, and kernel entries by what they were for, with
               their causes and the function they came from; the other events as instants; an arrow for each
               message, from the kernel entry with which it was sent (`trace_flows`) to the user code of the
               receiver that it lets run
    tasks      for each thread its page faults, exceptions and IPCs, from the kernel entry until it goes on,
               numbered as `l4lab why` numbers them
    under way  how many page faults and IPCs there are at a time

Timestamps are nanoseconds of the machine's clock; each slice has its first cycle as an argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Any, Final

from l4lab.kernel import events
from l4lab.kernel.costs import CAUSE_NAMES
from l4lab.kernel.events import OBJECT_KINDS, Event
from l4lab.kernel.traps import TRAP_NAMES, SystemCall
from l4lab.tools.ledger.accounts import NOT_ASKED_FOR, USER_CAUSES
from l4lab.tools.ledger.timeline import KIND_WORDS
from l4lab.tools.runs.recording import RunError
from l4lab.tools.runs.rundir import Run
from l4lab.tools.runs.symbols import Symbols
from l4lab.tools.trace.flows import Flows
from l4lab.tools.trace.source import Clock, Stretch
from l4lab.tools.trace.text import Describer, kind_name

_SEQUENCE: Final = 1
_BATCH_PACKETS: Final = 1024
_CORES_TRACK: Final = 1
_CORE_TRACKS: Final = 1 << 32
_TASK_TRACKS: Final = 2 << 32
_THREAD_TRACKS: Final = 3 << 32
_COUNTER_TRACKS: Final = 4 << 32
_NO_TASK: Final = 1 << 30
_PID_MASK: Final = (1 << 31) - 1
_FLAT_KINDS: Final = (
    *(events.MESSAGE, events.SWITCH, events.SCHEDULE, events.ENTER, events.SAMPLE),
    *KIND_WORDS,
)
"""Events that are shown otherwise, or not here: as slices, as arrows, by what follows."""
_COUNTED: Final = {events.FAULT: "page faults under way", events.IPC: "IPCs under way"}


def write_perfetto(run: Run, symbols: Symbols, stretches: Iterable[Stretch], out: IO[bytes]) -> None:
    """The trace of some of `run`, in Perfetto's protocol buffer format, written as it goes."""
    trace = _Trace(run, symbols, out)
    trace.describe()
    for stretch in stretches:
        trace.add(stretch)
    trace.finish()


class Packets:
    """Trace packets on their way to a file, a batch at a time, and the names that they have in common."""

    def __init__(self, out: IO[bytes]) -> None:
        try:
            from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as formats
        except ImportError:
            raise RunError(
                "--perfetto: found no perfetto package, expected one: pip install 'l4lab[trace]'"
            ) from None
        self.formats: Any = formats
        self._out = out
        self._batch: Any = formats.Trace()
        self._names: dict[tuple[str, str], int] = {}
        self._first = True

    def new(self, ns: int | None = None) -> Any:
        """A packet, at the end of the trace so far."""
        if len(self._batch.packet) >= _BATCH_PACKETS:
            self.flush()
        packet = self._batch.packet.add()
        if ns is not None:
            packet.timestamp = ns
        packet.trusted_packet_sequence_id = _SEQUENCE
        if self._first:
            packet.sequence_flags = self.formats.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
            self._first = False
        else:
            packet.sequence_flags = self.formats.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
        return packet

    def name(self, packet: Any, table: str, name: str) -> int:
        """The number of a name in a table of `InternedData`, which `packet` introduces if it is new."""
        number = self._names.get((table, name))
        if number is None:
            number = self._names[table, name] = len(self._names) + 1
            entry = getattr(packet.interned_data, table).add()
            entry.iid, entry.name = number, name
        return number

    def flush(self) -> None:
        """Write what has collected."""
        self._out.write(self._batch.SerializeToString(deterministic=True))
        self._batch = self.formats.Trace()  # clearing the old one would not give back its memory


class _Trace:
    """The trace in the making. `_open`: thread -> (kind, is open-ended) of what it has not come back from."""

    def __init__(self, run: Run, symbols: Symbols, out: IO[bytes]) -> None:
        self._run = run
        self._packets = Packets(out)
        self._event: Any = self._packets.formats.TrackEvent
        self._clock = Clock(run.mhz)
        self._symbols = symbols
        self._describe = Describer(run, symbols)
        self._flows = Flows()
        self._open: dict[int, list[tuple[int, bool]]] = {}
        self._counts = dict.fromkeys(_COUNTED, 0)
        self._threads: set[int] = set()
        self._tasks: set[int] = set()
        self._end_ns = 0

    # --- tracks ---------------------------------------------------------------------------------------

    def describe(self) -> None:
        """All tracks whose names are known before."""
        descriptor = self._packets.new().track_descriptor
        descriptor.uuid, descriptor.name = _CORES_TRACK, "cores"
        descriptor.child_ordering = descriptor.EXPLICIT
        for core in range(self._run.cores):
            descriptor = self._packets.new().track_descriptor
            descriptor.uuid, descriptor.parent_uuid = _CORE_TRACKS + core, _CORES_TRACK
            descriptor.name, descriptor.sibling_order_rank = f"core {core}", core
        for kind, name in _COUNTED.items():
            descriptor = self._packets.new().track_descriptor
            descriptor.uuid, descriptor.name = _COUNTER_TRACKS + kind, name
            descriptor.counter.unit = descriptor.counter.UNIT_COUNT
        for thread in sorted(self._run.homes):
            self._describe_thread(thread)

    def _describe_thread(self, thread: int) -> None:
        """A thread's track, and its task's if that is the first of its threads."""
        if thread in self._threads:
            return
        self._threads.add(thread)
        task = self._run.homes.get(thread, 0)
        pid = task & _PID_MASK or _NO_TASK
        if task not in self._tasks:
            self._tasks.add(task)
            descriptor = self._packets.new().track_descriptor
            descriptor.uuid = _TASK_TRACKS + task
            descriptor.process.pid, descriptor.process.process_name = pid, self._run.task_name(task)
        descriptor = self._packets.new().track_descriptor
        descriptor.uuid, descriptor.parent_uuid = _THREAD_TRACKS + thread, _TASK_TRACKS + task
        descriptor.thread.pid, descriptor.thread.tid = pid, thread & _PID_MASK
        descriptor.thread.thread_name = self._run.thread_name(thread)

    # --- what happens ---------------------------------------------------------------------------------

    def add(self, stretch: Stretch) -> None:
        """Everything about a stretch; its operations stay open."""
        track = _CORE_TRACKS + stretch.core
        start, entry, end = map(self._clock.ns, (stretch.start, stretch.entry, stretch.end))
        self._end_ns = max(self._end_ns, end)
        if stretch.thread:
            self._close(stretch.thread, start)
            arrived = self._flows.arrived(stretch.thread)
            if stretch.entry > stretch.start or arrived:
                self._user(stretch, track, start, entry, arrived)
        if stretch.entered:
            self._kernel(stretch, track, entry, end)
        for event in stretch.events:
            self._happened(event, stretch, entry, end)

    def _user(self, stretch: Stretch, track: int, start: int, entry: int, arrived: list[int]) -> None:
        packet = self._packets.new(start)
        slice_ = self._begin(packet, track, self._run.thread_name(stretch.thread), "user")
        slice_.terminating_flow_ids.extend(arrived)
        self._argue(packet, "cycle", stretch.start)
        self._argue(packet, "thread", stretch.thread)
        if stretch.request:
            self._argue(packet, "request", stretch.request)
        for cause, cycles in zip(USER_CAUSES, stretch.user, strict=True):
            if cycles:
                self._argue(packet, f"{cause} cycles", cycles)
        self._end(track, entry)

    def _kernel(self, stretch: Stretch, track: int, entry: int, end: int) -> None:
        packet = self._packets.new(entry)
        slice_ = self._begin(packet, track, _entry_name(stretch), "kernel")
        leaving = self._flows.leaving(stretch)
        if leaving:
            slice_.flow_ids.append(leaving)
        self._argue(packet, "cycle", stretch.entry)
        if stretch.thread:
            self._argue(packet, "thread", stretch.thread)
        for event in stretch.events:
            if event.kind == events.ENTER and event.thread == stretch.thread:
                self._argue(packet, "function", self._symbols.function(event.thread, event.b or event.a))
        if stretch.served:
            self._argue(packet, "request", stretch.served)
        for cause, cycles in zip(CAUSE_NAMES, stretch.kernel, strict=True):
            if cycles:
                self._argue(packet, f"{cause} cycles", cycles)
        self._end(track, end)

    def _happened(self, event: Event, stretch: Stretch, entry: int, end: int) -> None:
        kind = event.kind
        if kind in KIND_WORDS:
            self._open_operation(event, entry)
        elif kind == events.MESSAGE:
            begun = self._open.get(event.thread)
            if begun and begun[-1] == (events.IPC, True):
                self._close(event.thread, end)
        elif kind == events.DESTROY:
            self._close(event.partner, end)
        sent = self._flows.sent(event)
        if sent or kind not in _FLAT_KINDS:
            packet = self._packets.new(entry)
            instant = packet.track_event
            instant.type, instant.track_uuid = self._event.TYPE_INSTANT, _CORE_TRACKS + stretch.core
            instant.name_iid = self._packets.name(packet, "event_names", kind_name(kind))
            if sent:
                instant.flow_ids.append(sent)
                self._argue(packet, "thread", event.thread)
            self._argue(packet, "cycle", event.cycle)
            self._argue(packet, "what", self._describe(event))

    # --- operations -----------------------------------------------------------------------------------

    def _open_operation(self, event: Event, ns: int) -> None:
        self._describe_thread(event.thread)
        open_ended = event.kind == events.IPC and bool(event.extra & events.OPEN_ENDED)
        self._open.setdefault(event.thread, []).append((event.kind, open_ended))
        packet = self._packets.new(ns)
        track = _THREAD_TRACKS + event.thread
        word = KIND_WORDS[event.kind]
        slice_ = packet.track_event
        slice_.type, slice_.track_uuid = self._event.TYPE_SLICE_BEGIN, track
        slice_.name = f"{word} {event.number}"
        slice_.category_iids.append(self._packets.name(packet, "event_categories", word))
        self._argue(packet, "cycle", event.cycle)
        self._argue(packet, "what", self._describe(event))
        self._argue(packet, "request", event.request)
        self._count(event.kind, 1, ns)

    def _close(self, thread: int, ns: int) -> None:
        """The thread goes on, or never will: what it has begun is over."""
        for kind, _ in reversed(self._open.pop(thread, [])):
            self._end(_THREAD_TRACKS + thread, ns)
            self._count(kind, -1, ns)

    def _count(self, kind: int, by: int, ns: int) -> None:
        if kind in self._counts:
            self._counts[kind] += by
            event = self._packets.new(ns).track_event
            event.type, event.track_uuid = self._event.TYPE_COUNTER, _COUNTER_TRACKS + kind
            event.counter_value = self._counts[kind]

    def finish(self) -> None:
        """What is still open ends with the run."""
        for thread in sorted(self._open):
            self._close(thread, self._end_ns)
        self._packets.flush()

    # --- packets --------------------------------------------------------------------------------------

    def _begin(self, packet: Any, track: int, name: str, category: str) -> Any:
        event = packet.track_event
        event.type, event.track_uuid = self._event.TYPE_SLICE_BEGIN, track
        event.name_iid = self._packets.name(packet, "event_names", name)
        event.category_iids.append(self._packets.name(packet, "event_categories", category))
        return event

    def _end(self, track: int, ns: int) -> None:
        event = self._packets.new(ns).track_event
        event.type, event.track_uuid = self._event.TYPE_SLICE_END, track

    def _argue(self, packet: Any, name: str, value: int | str) -> None:
        """An argument of a slice or an instant."""
        annotation = packet.track_event.debug_annotations.add()
        annotation.name_iid = self._packets.name(packet, "debug_annotation_names", name)
        if isinstance(value, str):
            annotation.string_value = value
        else:
            annotation.uint_value = value


def _entry_name(stretch: Stretch) -> str:
    """What a kernel entry was for: `page fault`, `ipc`, `reply`, `invoke task`, `interrupt`…"""
    trap = stretch.trap
    if trap == SystemCall.number:
        own = {event.kind for event in stretch.events if event.thread == stretch.thread}
        if events.IPC in own:
            return "ipc"
        if events.MESSAGE in own:
            return "reply"
        if own & {events.UNMAP, events.UNMAP_CAPABILITY}:
            return "unmap"
        if own & {events.MAP, events.MAP_CAPABILITY}:
            return "map"
        invoked = [event.extra for event in stretch.events if event.kind == events.INVOKE]
        if invoked and invoked[0] < len(OBJECT_KINDS):
            return f"invoke {OBJECT_KINDS[invoked[0]]}"
    if trap in NOT_ASKED_FOR:
        return TRAP_NAMES[trap]
    return TRAP_NAMES[trap] if trap < len(TRAP_NAMES) else "kernel"
