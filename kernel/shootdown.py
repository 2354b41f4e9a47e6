"""TLB consistency: what unmap owes to the cores that may remember what it took.

The translations are gone from every TLB before the operation returns to user mode; a core on which
the space is live is interrupted for it, and the operation waits for its answer. Which TLBs are
touched, and how much of them, is `TlbPolicy`.
Source: 000_1be4d2f6ae8bebbc.txt, section 3.2, "TLB issue".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from l4lab.kernel import tracing
from l4lab.kernel.costs import IPI, SHOOTDOWN
from l4lab.kernel.memory import EVERY_PAGE
from l4lab.kernel.state import FlushTlb, TlbPolicy

if TYPE_CHECKING:
    from l4lab.kernel.drq import FlushDrq
    from l4lab.kernel.state import Kernel

PAGES_BEFORE_FULL_FLUSH: Final = 32
"""More pages than this are flushed all at once: 32 invalidations cost as much as many refills."""


def settle(kernel: Kernel) -> None:
    """At the end of a kernel entry: have everything flushed that was taken away in it."""
    stale, kernel.memory.stale = kernel.memory.stale, []
    here = 1 << kernel.here
    cores = 0
    for live, _ in stale:
        cores |= live
    pages = None
    if kernel.tlb_policy is TlbPolicy.PAGE:
        pages = _few_pages(stale)
    elif kernel.tlb_policy is TlbPolicy.FULL:
        cores |= here
    if not cores:
        return
    others = cores & ~here
    if cores & here:
        kernel.bill[SHOOTDOWN] += _flush_cycles(kernel, len(pages) if pages is not None else 0)
    kernel.bill[IPI] += others.bit_count() * kernel.costs.ipi_send
    flush = FlushTlb(cores, pages, others)
    if kernel.trace is not None:
        tracing.flushed(kernel, kernel.trace, flush)
    kernel.effects.append(flush)


def _few_pages(stale: list[tuple[int, int]]) -> tuple[int, ...] | None:
    """The pages that some core may remember, each once; None if that is not worth while."""
    pages = dict.fromkeys(vpn for live, vpn in stale if live)
    if EVERY_PAGE in pages or len(pages) > PAGES_BEFORE_FULL_FLUSH:
        return None
    return tuple(pages)


def serve(kernel: Kernel, drq: FlushDrq) -> None:
    """Another core wants translations forgotten here; the machine has done it, this is its price."""
    kernel.bill[SHOOTDOWN] += _flush_cycles(kernel, drq.pages)


def _flush_cycles(kernel: Kernel, pages: int) -> int:
    return pages * kernel.costs.invalidate_page if pages else kernel.costs.cr3_load
