"""Going on, forwards and backwards, and leaving: `vCont`, `c`, `s`, `bc`, `bs`, `?`, `D`, `k`, `vKill`, `vCtrlC`."""

from __future__ import annotations

from dataclasses import dataclass

from l4lab.tools.debug.gdb.ids import PacketError, ThreadId, number, numbers, parse_thread_id


@dataclass(frozen=True, slots=True)
class Action:
    """What a thread is to do: `kind` c, s, or r: step until out of `first` .. `end` - 1.

    `thread` None: every thread without an action of its own.
    """

    kind: str
    thread: ThreadId | None
    first: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class WhichActions:
    """`vCont?`."""


@dataclass(frozen=True, slots=True)
class Resume:
    """The first action that fits a thread is its own. `plain`: `c` or `s`; `Hc` has said who goes on."""

    actions: tuple[Action, ...]
    plain: bool = False


@dataclass(frozen=True, slots=True)
class ResumeBack:
    """One instruction (`step`), or to whatever stops before."""

    step: bool


@dataclass(frozen=True, slots=True)
class WhyStopped:
    """`?`."""


@dataclass(frozen=True, slots=True)
class Detach:
    """From one process, or from all."""

    pid: int | None


@dataclass(frozen=True, slots=True)
class Kill:
    """End the machine. `pid`: the process that the client means; None: it waits for no reply."""

    pid: int | None


@dataclass(frozen=True, slots=True)
class InterruptRequest:
    """`vCtrlC`: as byte 3."""


Request = WhichActions | Resume | ResumeBack | WhyStopped | Detach | Kill | InterruptRequest


def parse_vcont(payload: bytes) -> Request:
    """`vCont;action[:thread]…`."""
    return Resume(tuple(_action(part) for part in payload[len(b"vCont;") :].split(b";")))


def _action(part: bytes) -> Action:
    what, colon, thread = part.partition(b":")
    letter, argument = what[:1], what[1:]
    who = parse_thread_id(thread) if colon else None
    if letter in (b"c", b"s") and not argument:
        return Action(letter.decode(), who)
    if letter in (b"C", b"S"):  # with a signal, which there is nobody to deliver to
        number(argument)
        return Action(letter.decode().lower(), who)
    if letter == b"r":
        first, end = numbers(argument, b",", 2)
        return Action("r", who, first, end)
    raise PacketError(f"action {part!r}")


def parse_plain(payload: bytes) -> Request | None:
    """`c`, `s`, `C sig`, `S sig`. Going on at another address is gdb's to do with `P`."""
    letter, argument = payload[:1].decode(), payload[1:]
    if letter.islower():
        if argument:
            raise PacketError("an address to go on at; set the register instead")
    else:
        number(argument.partition(b";")[0])
    return Resume((Action(letter.lower(), None),), plain=True)


def parse_detach(payload: bytes) -> Request:
    """`D;pid`."""
    return Detach(number(payload[len(b"D;") :]))


def parse_kill(payload: bytes) -> Request:
    """`vKill;pid`."""
    return Kill(number(payload[len(b"vKill;") :]))
