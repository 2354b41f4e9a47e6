"""What one core can ask of another; the message that an inter-processor interrupt brings.

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
class SendRequest:
    """Run the send phase of `sender` with `partner`; void if the sender has gone on (`operation`)."""

    sender: Thread
    partner: Thread
    operation: int


@dataclass(frozen=True, slots=True)
class WakeRequest:
    """`thread` is ready and belongs to the receiving core. `preempt`: by the wake-up rule."""

    thread: Thread
    preempt: bool


@dataclass(frozen=True, slots=True)
class ReceiveRequest:
    """Somebody is queued at `thread`, which may be waiting for just that."""

    thread: Thread


@dataclass(frozen=True, slots=True)
class PlaceRequest:
    """Scheduler.run_thread for a thread of the receiving core."""

    thread: Thread
    core: int
    priority: int
    quantum_cycles: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The send phase that `thread` had requested was done, or it waits in a queue now: it goes on at home."""

    thread: Thread
    operation: int


@dataclass(frozen=True, slots=True)
class TransferRequest:
    """`partner` is TAKING the message of `sender`, whose own core moves it over; void as SendRequest is."""

    sender: Thread
    partner: Thread
    operation: int


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """The message that `thread` is TAKING will not come (`operation` of its sender was given up)."""

    thread: Thread
    operation: int


@dataclass(frozen=True, slots=True)
class FlushRequest:
    """Forget translations; the sender waits for it. `pages`: how many, 0: all."""

    pages: int


Request = (
    SendRequest
    | WakeRequest
    | ReceiveRequest
    | PlaceRequest
    | FlushRequest
    | Answer
    | TransferRequest
    | ReleaseRequest
)


def post(kernel: Kernel, target: int, request: Request) -> None:
    """Put `request` into the queue of core `target` and send it an interrupt."""
    contention.use(kernel, kernel.cores[target], contention.REQUEST_LINES)
    kernel.bill[IPI] += kernel.costs.ipi_send
    kernel.effects.append(Ipi(target, request))
