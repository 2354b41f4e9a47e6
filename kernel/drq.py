"""Deferred requests: what one core can ask of another; an inter-processor interrupt brings them.

Only the data and `post`: what is done on arrival is in `crosscore`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from l4lab.kernel import contention
from l4lab.kernel.costs import IPI
from l4lab.kernel.state import Ipi

if TYPE_CHECKING:
    from l4lab.kernel.state import Kernel
    from l4lab.kernel.thread import Thread


@dataclass(frozen=True, slots=True)
class SendDrq:
    """Run the send phase of `sender` with `partner`; void if the sender has gone on (`operation`)."""

    sender: Thread
    partner: Thread
    operation: int


@dataclass(frozen=True, slots=True)
class WakeDrq:
    """`thread` is ready and belongs to the receiving core. `preempt`: by the wake-up rule."""

    thread: Thread
    preempt: bool


@dataclass(frozen=True, slots=True)
class ReceiveDrq:
    """Somebody is queued at `thread`, which may be waiting for just that."""

    thread: Thread


@dataclass(frozen=True, slots=True)
class PlaceDrq:
    """Scheduler.run_thread for a thread of the receiving core."""

    thread: Thread
    core: int
    priority: int
    quantum_cycles: int


@dataclass(frozen=True, slots=True)
class AnswerDrq:
    """The send phase that `thread` had requested was done, or it waits in a queue now: it goes on at home."""

    thread: Thread
    operation: int


@dataclass(frozen=True, slots=True)
class TransferDrq:
    """`partner` is TAKING the message of `sender`, whose own core moves it over; void as SendDrq is."""

    sender: Thread
    partner: Thread
    operation: int


@dataclass(frozen=True, slots=True)
class ReleaseDrq:
    """The message that `thread` is TAKING will not come (`operation` of its sender was given up)."""

    thread: Thread
    operation: int


@dataclass(frozen=True, slots=True)
class FlushDrq:
    """Forget translations; the sender waits for it. `pages`: how many, 0: all."""

    pages: int


Drq = SendDrq | WakeDrq | ReceiveDrq | PlaceDrq | FlushDrq | AnswerDrq | TransferDrq | ReleaseDrq


def post(kernel: Kernel, target: int, drq: Drq) -> None:
    """Put `drq` into the queue of core `target` and send it an interrupt."""
    contention.use(kernel, kernel.cores[target], contention.DRQ_LINES)
    kernel.bill[IPI] += kernel.costs.ipi_send
    kernel.effects.append(Ipi(target, drq))
