"""Random words that look as if they meant something: flexpages, items, timeouts, tags.

Uniform noise dies in the first check of any operation. So most words are well-formed and name things
that exist; a few are wrong in one place, and a few are noise.
"""

from __future__ import annotations

from collections.abc import Container
from random import Random
from typing import Final

from l4lab.kernel.fiasco import abi

# Where programs of ours keep what kind of object: (first slot, how many).
THREADS: Final = (0x20, 12)
TASKS: Final = (0x2C, 6)
GATES: Final = (0x32, 10)
IRQS: Final = (0x3C, 6)
SEMAPHORES: Final = (0x42, 4)
FACTORIES: Final = (0x46, 4)
SCRATCH: Final = (0x4A, 6)
END_OF_SLOTS: Final = 0x50
KINDS: Final = (THREADS, TASKS, GATES, IRQS, SEMAPHORES, FACTORIES, SCRATCH)
SIGMA0_TASK: Final = 0x0C  # of the root task

UTCB_AREA: Final = abi.BOOT_UTCB
PAGES: Final = (
    *(0x10, 0x11, 0x12, 0x13, 0x1F, 0x20, 0x400, 0x401, 0x7FF, 0x800, 0x801, 0xC00, 0xFFF),
    *(UTCB_AREA >> 12, (UTCB_AREA >> 12) + 1, 0xBFFFF, 0xC0000, 0xFFFFF, 0),
)
MAPPED: Final = (0x10, 0x20, 0x400, 0x800)  # where the tasks get their first memory
MEMORY_ORDERS: Final = (*(12,) * 10, 13, 13, 14, 16, 17, 22, 22, 22, 23, 24, 30, 32)
OBJECT_ORDERS: Final = (*(0,) * 12, 1, 1, 2, 3, 4, 6, 18, 20)
INTERESTING: Final = (
    *(0, 1, 2, 3, 7, 8, 0xFFF, 0x1000, 0x7FFFFFFF, 0x80000000, 0xBFFFFFFF, 0xC0000000, 0xFFFFFFFF),
)


class Words:
    """The generators; all chance is in `rng`. `occupied`: the capability slots of whose program this is."""

    __slots__ = ("occupied", "rng")

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.occupied: Container[int] = ()

    def any_word(self) -> int:
        """Noise, or one of the values at which things change."""
        rng = self.rng
        return rng.getrandbits(32) if rng.random() < 0.5 else rng.choice(INTERESTING)

    def slot(self, kind: tuple[int, int] | None = None) -> int:
        """A capability index of a kind, rather an occupied one; sometimes one that is fixed, or cannot be."""
        rng = self.rng
        chance = rng.random()
        if chance < 0.05:
            return rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 10))
        if chance < 0.07:
            return rng.choice((0x4F, 0x50, 0xFF, 0x100, 0x3FFFF, 0x40000, 0xFFFFF))
        first, count = rng.choice(KINDS) if kind is None or chance > 0.95 else kind
        index = first + int(rng.random() * count)
        for _ in range(3):
            if index in self.occupied:
                break
            index = first + int(rng.random() * count)
        return index

    def address(self) -> int:
        """A user address, now and then of what is not the user's."""
        rng = self.rng
        return (rng.choice(PAGES) << 12 | rng.getrandbits(12)) & 0xFFFFFFFF

    def flexpage(self, *, narrow: bool = False) -> int:
        """A flexpage of any kind. `narrow`: of objects, seldom more than a few."""
        chance = self.rng.random()
        if chance < 0.45:
            return self.memory_page()
        if chance < 0.5:
            return self.port_page()
        if chance < 0.95:
            return self.object_page(single=narrow and self.rng.random() < 0.97)
        return self.any_word()

    def memory_page(self) -> int:
        """A memory flexpage."""
        rng = self.rng
        order = rng.choice(MEMORY_ORDERS) if rng.random() < 0.97 else rng.getrandbits(6)
        rights = 7 if rng.random() < 0.7 else rng.getrandbits(4)
        return rng.choice(PAGES) << 12 | order << 6 | abi.FPAGE_TYPE_MEMORY << 4 | rights

    def port_page(self) -> int:
        """An I/O flexpage: some ports."""
        rng = self.rng
        order = (
            rng.choice((0, 0, 1, 3, 5)) if rng.random() < 0.95 else rng.choice((16, 12, rng.getrandbits(6)))
        )
        return (
            rng.choice((0x60, 0x61, 0x70, 0x3F8, 0, 0xFFFF)) << 12 | order << 6 | abi.FPAGE_TYPE_IO << 4 | 6
        )

    def object_page(self, kind: tuple[int, int] | None = None, *, single: bool = False) -> int:
        """An object flexpage."""
        rng = self.rng
        order = 0 if single or rng.random() < 0.7 else rng.choice(OBJECT_ORDERS)
        rights = rng.choice((15, 7, 7, 7)) if rng.random() < 0.8 else rng.getrandbits(4)
        return self.slot(kind) << 12 | order << 6 | abi.FPAGE_TYPE_OBJECT << 4 | rights

    def argument(self, kind: tuple[int, int]) -> tuple[int, int]:
        """An item that names an object to an operation."""
        rng = self.rng
        if rng.random() < 0.95:
            return abi.ITEM_MAP, self.object_page(kind, single=True)
        return rng.choice((0, self.any_word())), self.flexpage()

    def item(self) -> tuple[int, int]:
        """An item of a message."""
        rng = self.rng
        page = self.flexpage()
        kind = page >> abi.FPAGE_TYPE_SHIFT & abi.FPAGE_TYPE_MASK
        base = self.slot() if kind == abi.FPAGE_TYPE_OBJECT else rng.choice(PAGES)
        control = base << 12 | abi.ITEM_MAP
        chance = rng.random()
        if chance < 0.15:
            control |= abi.ITEM_GRANT
        elif chance < 0.25:
            control |= abi.ITEM_COMPOUND
        elif chance < 0.5:
            control |= rng.choice((0x10, 0x20, 0xE0, 0x30, 0x50, 0xF0))
        elif chance < 0.53:
            control = 0
        elif chance < 0.55:
            control = self.any_word()
        return control, page

    def timeouts(self) -> int:
        """Send and receive timeout."""
        return self.timeout() << 16 | self.timeout()

    def timeout(self) -> int:
        """One: mostly none or short, so that few threads wait for ever."""
        rng = self.rng
        chance = rng.random()
        if chance < 0.35:
            return abi.TIMEOUT_ZERO
        if chance < 0.85:
            return 4 << abi.TIMEOUT_EXPONENT_SHIFT | 1 + rng.getrandbits(9)
        if chance < 0.93:
            return abi.TIMEOUT_NEVER
        return abi.TIMEOUT_ABSOLUTE | rng.getrandbits(6) if chance < 0.96 else rng.getrandbits(16)

    def buffers(self) -> list[int]:
        """BDR and some buffer registers: what a receiver lets in."""
        rng = self.rng
        registers: list[int] = []
        starts = []
        for kind in ("memory", "io", "object"):
            starts.append(len(registers) if rng.random() < 0.97 else rng.getrandbits(5))
            for _ in range(rng.choice((0, 1, 1, 2))):
                registers += self._buffer(kind)
            registers.append(0)
        if rng.random() < 0.05:
            registers[rng.randrange(len(registers))] = self.any_word()
        flags = abi.BDR_ACCEPT_FPU if rng.random() < 0.3 else 0
        return [starts[0] | starts[1] << 5 | starts[2] << 10 | flags, *registers]

    def _buffer(self, kind: str) -> list[int]:
        rng = self.rng
        forward = abi.BUFFER_FORWARD if rng.random() < 0.1 else 0
        target = [self.slot(TASKS) << 12] if forward else []
        if kind == "object" and rng.random() < 0.7:
            local = abi.BUFFER_LOCAL_ID if rng.random() < 0.4 else 0
            return [self.slot(SCRATCH) << 12 | abi.BUFFER_ITEM | abi.BUFFER_SMALL | local | forward, *target]
        window = self.memory_page() if kind == "memory" else self.object_page()
        if rng.random() < 0.3:
            window = abi.FPAGE_ALL
        return [abi.BUFFER_ITEM | forward, window, *target]
