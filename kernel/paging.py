"""x86 two-level page tables in guest RAM: the only writer of page table entries.

Ref: Intel SDM vol. 3, 4.3 (32-bit paging). 4 KiB and 4 MiB pages, no PAE, no NX: what can be read
can be executed. Entries above the user limit are the same in every directory.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from l4lab.kernel.units import ADDRESS_LIMIT, PAGE_BYTES, SUPERPAGE_BYTES

PRESENT: Final = 0x01
WRITABLE: Final = 0x02
USER: Final = 0x04
NO_CACHE: Final = 0x10
ACCESSED: Final = 0x20
DIRTY: Final = 0x40
SUPERPAGE: Final = 0x80
GLOBAL: Final = 0x100
FRAME_MASK: Final = ADDRESS_LIMIT - PAGE_BYTES
SUPERPAGE_FRAME_MASK: Final = ADDRESS_LIMIT - SUPERPAGE_BYTES

ENTRIES: Final = 1024
_WORDS_PER_PAGE: Final = PAGE_BYTES // 4
_BLANK_PAGE: Final = memoryview(bytes(PAGE_BYTES)).cast("I")


class Translation(NamedTuple):
    """Where a linear address is: a byte address in RAM (or beyond it), and the entry that says so.

    The entry's flags have the rights; SUPERPAGE in it says that it maps 4 MiB.
    """

    physical: int
    entry: int


class PageTables:
    """One address space's directory and tables. Frames come from the caller, who pays for them.

    `words`: guest RAM as 32-bit words. `directory_pfn`: the frame of the directory.
    `table_pfns`: directory index -> frame of the page table below it (user part only).
    """

    __slots__ = ("_words", "directory_pfn", "table_pfns")

    def __init__(self, words: memoryview[int], directory_pfn: int) -> None:
        self._words = words
        self.directory_pfn = directory_pfn
        self.table_pfns: dict[int, int] = {}
        clear_frame(words, directory_pfn)

    @property
    def cr3(self) -> int:
        """Physical address of the directory."""
        return self.directory_pfn << 12

    def share_table(self, index: int, table_pfn: int) -> None:
        """Hook a table that belongs to the kernel and is the same in every space."""
        self._words[self.directory_pfn * _WORDS_PER_PAGE + index] = (
            table_pfn << 12 | PRESENT | WRITABLE | USER
        )

    def needs_table(self, vpn: int) -> bool:
        """True if mapping the 4 KiB page `vpn` requires `add_table` first."""
        return vpn >> 10 not in self.table_pfns

    def unused_entries(self, vpn: int) -> int:
        """How many entries from that of `vpn` to the end of its table are zero in a row; 0 at a table's start."""
        index = vpn & 1023
        if not index:
            return 0
        table = self.table_pfns.get(vpn >> 10)
        if table is None:
            return ENTRIES - index
        first = table * _WORDS_PER_PAGE
        for unused, entry in enumerate(self._words[first + index : first + ENTRIES].tolist()):
            if entry:
                return unused
        return ENTRIES - index

    def add_table(self, vpn: int, table_pfn: int) -> None:
        """Hook an empty page table over `vpn`'s 4 MiB."""
        clear_frame(self._words, table_pfn)
        self.table_pfns[vpn >> 10] = table_pfn
        self.share_table(vpn >> 10, table_pfn)

    def set_page(self, vpn: int, pfn: int, writable: bool, cached: bool) -> None:
        """Write the 4 KiB entry of `vpn`; its table must exist. Accessed and dirty start clear."""
        entry = pfn << 12 | PRESENT | USER
        if writable:
            entry |= WRITABLE
        if not cached:
            entry |= NO_CACHE
        self._words[self.table_pfns[vpn >> 10] * _WORDS_PER_PAGE + (vpn & 1023)] = entry

    def set_superpage(self, vpn: int, pfn: int, writable: bool, cached: bool) -> None:
        """Write the 4 MiB entry of `vpn`, over which there must be no page table."""
        entry = pfn << 12 | PRESENT | USER | SUPERPAGE
        if writable:
            entry |= WRITABLE
        if not cached:
            entry |= NO_CACHE
        self._words[self.directory_pfn * _WORDS_PER_PAGE + (vpn >> 10)] = entry

    def entry_position(self, vpn: int, superpage: bool) -> int:
        """Index into RAM's words of the entry that maps `vpn`, which must be mapped at that size."""
        if superpage:
            return self.directory_pfn * _WORDS_PER_PAGE + (vpn >> 10)
        return self.table_pfns[vpn >> 10] * _WORDS_PER_PAGE + (vpn & 1023)

    def clear(self, vpn: int, superpage: bool) -> None:
        """Remove the entry of `vpn`."""
        self._words[self.entry_position(vpn, superpage)] = 0

    def make_read_only(self, vpn: int, superpage: bool) -> None:
        """Take the write right from the entry of `vpn`."""
        self._words[self.entry_position(vpn, superpage)] &= ~WRITABLE & 0xFFFFFFFF

    def make_writable(self, vpn: int, superpage: bool) -> None:
        """Add the write right to the entry of `vpn`."""
        self._words[self.entry_position(vpn, superpage)] |= WRITABLE

    def take_access_bits(self, vpn: int, superpage: bool) -> int:
        """Return and clear the entry's ACCESSED and DIRTY bits."""
        position = self.entry_position(vpn, superpage)
        entry = self._words[position]
        self._words[position] = entry & ~(ACCESSED | DIRTY) & 0xFFFFFFFF
        return entry & (ACCESSED | DIRTY)

    def access_bits(self, vpn: int, superpage: bool) -> int:
        """ACCESSED and DIRTY of the entry that maps `vpn` at that size; 0 if there is none."""
        if not superpage and vpn >> 10 not in self.table_pfns:
            return 0
        return self._words[self.entry_position(vpn, superpage)] & (ACCESSED | DIRTY)

    def add_access_bits(self, vpn: int, superpage: bool, bits: int) -> None:
        """Set ACCESSED and DIRTY bits in the entry of `vpn`."""
        if bits:
            self._words[self.entry_position(vpn, superpage)] |= bits

    def translate(self, address: int) -> Translation | None:
        """What the hardware makes of the linear byte address (0 .. 2**32 - 1); None if that is not mapped.

        The one walk for everybody who looks from outside, debuggers too. Leaves no accessed bit.
        """
        _, entry = self.walk(address)[-1]
        if not entry & PRESENT:
            return None
        base = mapped_from(entry)
        offset_mask = SUPERPAGE_BYTES - 1 if entry & SUPERPAGE else PAGE_BYTES - 1
        return Translation(base | address & offset_mask, entry)

    def walk(self, address: int) -> list[tuple[int, int]]:
        """(index into RAM's words, entry) of each entry that the hardware reads: the directory's, the table's."""
        position = self.directory_pfn * _WORDS_PER_PAGE + (address >> 22)
        pde = self._words[position]
        steps = [(position, pde)]
        if pde & PRESENT and not pde & SUPERPAGE:
            position = (pde >> 12) * _WORDS_PER_PAGE + (address >> 12 & ENTRIES - 1)
            steps.append((position, self._words[position]))
        return steps


def mapped_from(entry: int) -> int:
    """The physical byte address where the page of a present entry begins; not for a table's entry."""
    return entry & (SUPERPAGE_FRAME_MASK if entry & SUPERPAGE else FRAME_MASK)


def clear_frame(words: memoryview[int], pfn: int) -> None:
    """Fill one frame with zeros."""
    first = pfn * _WORDS_PER_PAGE
    words[first : first + _WORDS_PER_PAGE] = _BLANK_PAGE
