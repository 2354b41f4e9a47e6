"""Threads: `H`, `T`, `qC`, `qfThreadInfo`, `qsThreadInfo`, `qThreadExtraInfo`."""

from __future__ import annotations

from dataclasses import dataclass

from l4lab.tools.debug.gdb.ids import PacketError, ThreadId, parse_thread_id


@dataclass(frozen=True, slots=True)
class SelectThread:
    """`operation` g: for registers and memory; c: for stepping and continuing."""

    operation: str
    thread: ThreadId


@dataclass(frozen=True, slots=True)
class ThreadAlive:
    """Whether it is still there."""

    thread: ThreadId


@dataclass(frozen=True, slots=True)
class CurrentThread:
    """Which one is selected."""


@dataclass(frozen=True, slots=True)
class ListThreads:
    """All of them; or, not `first`, the rest of the list, which is empty."""

    first: bool


@dataclass(frozen=True, slots=True)
class ThreadText:
    """What to print beside its number."""

    thread: ThreadId


Request = SelectThread | ThreadAlive | CurrentThread | ListThreads | ThreadText


def parse_select(payload: bytes) -> Request:
    """`Hg…` and `Hc…`."""
    operation = payload[1:2].decode("latin-1")
    if operation not in ("g", "c"):
        raise PacketError(f"H{operation} is neither Hg nor Hc")
    return SelectThread(operation, parse_thread_id(payload[2:]))


def parse_alive(payload: bytes) -> Request:
    """`T…`."""
    return ThreadAlive(parse_thread_id(payload[1:]))


def parse_extra(payload: bytes) -> Request:
    """`qThreadExtraInfo,…`."""
    return ThreadText(parse_thread_id(payload.partition(b",")[2]))
