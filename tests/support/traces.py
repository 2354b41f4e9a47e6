"""Traces of recorded runs, as programs that show them read them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as formats

from l4lab.emulator.files.manifest import load_manifest
from l4lab.tools.bench.pma_image import PmaSetup
from l4lab.tools.runs.rundir import Run, open_run
from l4lab.tools.runs.symbols import Symbols
from l4lab.tools.trace.perfetto import write_perfetto
from l4lab.tools.trace.source import stretches
from l4lab.tools.trace.speedscope import write_speedscope
from support.runs import image, record


def traced_pagefault(folder: Path) -> Run:
    """One pager for two cores: messages within a core and across."""
    record(image("pagefault"), folder, trace=True)
    return open_run(folder)


def traced_single(folder: Path) -> Run:
    """Four processes and one pager, which has a queue."""
    text = PmaSetup(design="single", cores=4, pages=10, tasks=1).manifest()
    (folder / "single.toml").write_text(text, encoding="utf-8")
    record(load_manifest(folder / "single.toml"), folder / "run", trace=True)
    return open_run(folder / "run")


@dataclass
class Slice:
    """A slice as a viewer sees it."""

    track: str
    name: str
    start: int
    end: int = -1
    arguments: dict[str, Any] = field(default_factory=dict)
    category: str = ""
    leaving: list[int] = field(default_factory=list)
    arriving: list[int] = field(default_factory=list)


class Viewer:
    """Reads a trace with Perfetto's own formats, strictly."""

    def __init__(self, data: bytes) -> None:
        self.slices: list[Slice] = []
        self.instants: list[Slice] = []
        self.counts: dict[str, list[tuple[int, int]]] = {}
        self.tracks: dict[int, str] = {}
        self.parents: dict[str, str] = {}
        self._names: dict[tuple[str, int], str] = {}
        self._open: dict[int, list[Slice]] = {}
        self._last: dict[int, int] = {}
        trace = formats.Trace()
        trace.ParseFromString(data)
        assert trace.packet[0].sequence_flags == formats.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
        for packet in trace.packet:
            self._packet(packet)
        assert not any(self._open.values())

    def _packet(self, packet: Any) -> None:
        assert packet.trusted_packet_sequence_id == 1
        for table in ("event_names", "event_categories", "debug_annotation_names"):
            for entry in getattr(packet.interned_data, table):
                assert (table, entry.iid) not in self._names
                self._names[table, entry.iid] = entry.name
        if packet.HasField("track_descriptor"):
            found = packet.track_descriptor
            assert found.uuid not in self.tracks
            self.tracks[found.uuid] = found.name or found.thread.thread_name or found.process.process_name
            if found.parent_uuid:
                self.parents[self.tracks[found.uuid]] = self.tracks[found.parent_uuid]
        if packet.HasField("track_event"):
            self._event(packet.timestamp, packet.track_event)

    def _event(self, ns: int, event: Any) -> None:
        track, kinds = self.tracks[event.track_uuid], formats.TrackEvent
        if event.type == kinds.TYPE_COUNTER:
            self.counts.setdefault(track, []).append((ns, event.counter_value))
            return
        stack = self._open.setdefault(event.track_uuid, [])
        if event.type != kinds.TYPE_INSTANT:
            assert ns >= self._last.get(event.track_uuid, 0)
            self._last[event.track_uuid] = ns
        if event.type == kinds.TYPE_SLICE_END:
            stack.pop().end = ns
            return
        name = event.name or self._names["event_names", event.name_iid]
        found = Slice(track, name, ns, leaving=[*event.flow_ids], arriving=[*event.terminating_flow_ids])
        for annotation in event.debug_annotations:
            key = self._names["debug_annotation_names", annotation.name_iid]
            found.arguments[key] = annotation.string_value or annotation.uint_value
        for number in event.category_iids:
            found.category = self._names["event_categories", number]
        if event.type == kinds.TYPE_INSTANT:
            self.instants.append(found)
        else:
            assert event.type == kinds.TYPE_SLICE_BEGIN
            stack.append(found)
            self.slices.append(found)


def viewed(run: Run) -> Viewer:
    out = BytesIO()
    write_perfetto(run, Symbols(run), stretches(run), out)
    return Viewer(out.getvalue())


def profile_of(run: Run) -> dict[str, Any]:
    out = StringIO()
    write_speedscope(run, Symbols(run), stretches(run), out)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found
