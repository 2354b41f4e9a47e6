"""Address spaces: map, grant and unmap, keeping trees and page tables in step.

This is the one place that changes a `Space`. Every function leaves three things in agreement: the
mapping tree (`mapdb`), the space's index of its mappings, and the page tables in guest RAM
(`paging`); `invariants.check_memory` says so or names the first disagreement.

Source: ABI sheet section 7; the model behind it is σ: V → R ∪ {∅} of
002_50211d24b7aa1a78.txt, see `tests/support/specification.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from l4lab.kernel import mapdb
from l4lab.kernel.errors import KernelBug
from l4lab.kernel.mapdb import IMPLIED, PAGES_PER_SUPERPAGE, READ, WRITE, Mapping
from l4lab.kernel.outcomes import MapOutcome
from l4lab.kernel.paging import ACCESSED, DIRTY, PageTables
from l4lab.kernel.quota import MAPPING_BYTES, Quota
from l4lab.kernel.units import PAGE_BYTES

if TYPE_CHECKING:
    from l4lab.kernel.pageframes import KernelFrames

EVERY_PAGE: Final = -1
FRAMES: Final = 1 << 20
"""Page frames that physical addresses can name; most have no RAM behind them."""

_SUPER_MASK: Final = PAGES_PER_SUPERPAGE - 1


@dataclass(slots=True, eq=False)
class KuArea:
    """Kernel-user memory: pages that the kernel reads and writes as the user does (UTCBs)."""

    vpn: int
    pages: int
    first_pfn: int


class Space:
    """One address space.

    `pages`: vpn -> its 4 KiB mapping. `superpages`: vpn >> 10 -> its 4 MiB mapping; the two never
    cover the same page. `ku_pages`: vpn -> pfn of kernel-user memory, outside all trees.
    `live_cores`: bit i is set while core i has this space's directory loaded.
    """

    __slots__ = ("ku_areas", "ku_pages", "live_cores", "name", "pages", "quota", "superpages", "tables")

    def __init__(self, name: str, tables: PageTables, quota: Quota) -> None:
        self.name = name
        self.tables = tables
        self.quota = quota
        self.pages: dict[int, Mapping] = {}
        self.superpages: dict[int, Mapping] = {}
        self.ku_areas: list[KuArea] = []
        self.ku_pages: dict[int, int] = {}
        self.live_cores = 0


class Mapped:
    """What one `map_range` has done.

    `pages`: mapped or upgraded. `entries`: page table entries written for them; a superpage has one.
    `outcome`: what the receiver learns. `sources`: the mappings that were mapped from, by address.
    `runs`: (page in the source, page in the target, pages) of each stretch without a hole.
    """

    __slots__ = ("entries", "outcome", "pages", "runs", "sources")

    def __init__(self) -> None:
        self.pages = 0
        self.entries = 0
        self.outcome = MapOutcome.LACKED
        self.sources: list[Mapping] = []
        self.runs: list[tuple[int, int, int]] = []

    def add(self, source: Mapping, source_vpn: int, vpn: int, pages: int) -> None:
        """One entry more, behind all others."""
        self.pages += pages
        self.entries += 1
        if not self.sources or self.sources[-1] is not source:
            self.sources.append(source)
        if self.runs:
            first, at, before = self.runs[-1]
            if first + before == source_vpn and at + before == vpn:
                self.runs[-1] = (first, at, before + pages)
                return
        self.runs.append((source_vpn, vpn, pages))


class Memory:
    """All address spaces of a machine, over one guest RAM.

    `user_frames`: frames below this number belong to sigma0 at boot; those above are the kernel's, up to
    `ram_frames`, the end of RAM.
    `stale`: (bit mask of cores, vpn) of what was taken away from a space that is live on those cores,
    in this kernel entry; EVERY_PAGE for a whole space. Not billed yet (`charges`): `removals`, mappings removed
    or restricted; `cleared_pages`, kernel frames filled with zeros; `range_steps`, empty places of ranges looked at.
    """

    __slots__ = (
        "cleared_pages",
        "frames",
        "ram_frames",
        "range_steps",
        "removals",
        "roots",
        "shared_tables",
        "sigma0",
        "stale",
        "user_frames",
        "user_pages",
        "words",
    )

    def __init__(self, words: memoryview[int], frames: KernelFrames, user_limit: int) -> None:
        self.words = words
        self.frames = frames
        self.user_frames = frames.first_pfn & ~_SUPER_MASK
        self.user_pages = user_limit >> 12
        self.ram_frames = len(words) >> 10
        self.shared_tables: dict[int, int] = {}
        self.roots: dict[int, Mapping] = {}
        self.sigma0: Space | None = None
        self.stale: list[tuple[int, int]] = []
        self.removals = 0
        self.cleared_pages = 0
        self.range_steps = 0

    # --- spaces ---------------------------------------------------------------------------------

    def create_space(self, name: str, quota: Quota) -> Space | None:
        """An empty space; None if `quota` or the kernel's frames are exhausted."""
        directory = self._take_frame(quota)
        if directory is None:
            return None
        tables = PageTables(self.words, directory)
        for index, table_pfn in self.shared_tables.items():
            tables.share_table(index, table_pfn)
        return Space(name, tables, quota)

    def destroy_space(self, space: Space) -> None:
        """Remove every mapping, with all that was derived from it, and return the space's frames.

        Kernel-user memory is not mapped any more, but stays until `release_ku_areas`: threads that
        outlive the space still have their UTCBs there.
        """
        for mapping in [*space.pages.values(), *space.superpages.values()]:
            if mapping.space is not None:
                self._remove_tree(mapping)
        if space is self.sigma0:
            for root in self.roots.values():
                for mapping in reversed(mapdb.subtree_over(root, root.pfn, root.pages)):
                    self.removals += 1
                    self._remove(mapping)
            self.roots.clear()
            self.sigma0 = None
        space.ku_pages.clear()
        for table_pfn in space.tables.table_pfns.values():
            self._give_back_frame(table_pfn, space.quota)
        space.tables.table_pfns.clear()
        self._give_back_frame(space.tables.directory_pfn, space.quota)
        self.stale.append((space.live_cores, EVERY_PAGE))

    def release_ku_areas(self, space: Space) -> list[KuArea]:
        """The last thread has left a destroyed space: return its kernel-user memory, and say what it was."""
        areas, space.ku_areas = space.ku_areas, []
        for area in areas:
            self.frames.give_back(area.first_pfn, area.pages)
            space.quota.refund(area.pages * PAGE_BYTES)
        return areas

    def lookup(self, space: Space, vpn: int) -> Mapping | None:
        """The mapping that covers page `vpn`, or None. For sigma0: its root, created on first use."""
        found = space.pages.get(vpn) or space.superpages.get(vpn >> 10)
        if found is None and space is self.sigma0 and self.is_sigma0s(vpn):
            return self._root(vpn >> 10)
        return found

    def is_sigma0s(self, pfn: int) -> bool:
        """Whether sigma0 had the frame at boot: all but the kernel's share, and what lies beyond RAM."""
        return pfn < self.user_frames or self.ram_frames <= pfn < FRAMES

    def identity_map_sigma0(self, vpn: int) -> bool:
        """Resolve a fault of sigma0: 4 MiB one to one (ABI sheet section 7). False outside its RAM."""
        if self.sigma0 is None or vpn >= self.user_frames or vpn in self.sigma0.ku_pages:
            return False
        first = vpn & ~_SUPER_MASK
        if self.sigma0.tables.needs_table(first):
            self.sigma0.tables.set_superpage(first, first, writable=True, cached=True)
            return True
        return False

    # --- kernel-user memory -----------------------------------------------------------------------

    def add_ku_area(self, space: Space, vpn: int, pages: int) -> KuArea | str:
        """Back `pages` pages from `vpn` on with fresh kernel frames, writable by user and kernel.

        Refusals, nothing changed: "exists" (something is mapped there), "memory".
        """
        wanted = range(vpn, vpn + pages)
        if not space.quota.charge(pages * PAGE_BYTES):
            return "memory"
        if any(
            page in space.pages or page in space.ku_pages or page >> 10 in space.superpages for page in wanted
        ):
            space.quota.refund(pages * PAGE_BYTES)
            return "exists"
        first_pfn = self.frames.take_run(pages)
        if first_pfn is None or not all(self._ensure_table(space, page) for page in wanted):
            if first_pfn is not None:
                self.frames.give_back(first_pfn, pages)
            space.quota.refund(pages * PAGE_BYTES)
            return "memory"
        # POINT OF NO RETURN
        area = KuArea(vpn, pages, first_pfn)
        space.ku_areas.append(area)
        first_word = first_pfn * (PAGE_BYTES // 4)
        count = pages * (PAGE_BYTES // 4)
        self.words[first_word : first_word + count] = memoryview(bytes(count * 4)).cast("I")
        self.cleared_pages += pages
        for offset, page in enumerate(wanted):
            space.ku_pages[page] = first_pfn + offset
            space.tables.set_page(page, first_pfn + offset, writable=True, cached=True)
        return area

    def ku_word(self, space: Space, address: int, size_bytes: int) -> int | None:
        """Index into RAM's words of `address`, if `size_bytes` bytes lie inside one kernel-user area."""
        for area in space.ku_areas:
            start = area.vpn << 12
            if start <= address and address + size_bytes <= start + area.pages * PAGE_BYTES:
                return (area.first_pfn << 10) + ((address - start) >> 2)
        return None

    # --- map, grant -------------------------------------------------------------------------------

    def map_range(
        self,
        source: Space,
        source_vpn: int,
        target: Space,
        target_vpn: int,
        pages: int,
        rights: int,
        *,
        grant: bool = False,
        cached: bool = True,
    ) -> Mapped:
        """Map (or grant) `pages` pages of `source` into `target`; what `source` lacks is skipped.

        `rights`: READ | WRITE | EXECUTE; those that the source mapping lacks are dropped. Uses
        4 MiB pages where both sides have them aligned; from the first that is mapped in part, the rest of a
        grant is mapped, too. What stood at the target before and is not the same frame from the same parent
        is removed first, with all derived from it: the source itself, if it was its own target.
        If memory runs out, the pages before that point stay mapped.
        """
        mapped = Mapped()
        offset = 0
        both_aligned = (source_vpn ^ target_vpn) & _SUPER_MASK == 0
        while offset < pages:
            vpn = source_vpn + offset
            at = target_vpn + offset
            if at >= self.user_pages or vpn >= (FRAMES if source is self.sigma0 else self.user_pages):
                break
            whole = both_aligned and vpn & _SUPER_MASK == 0 and pages - offset >= PAGES_PER_SUPERPAGE
            parent = self.lookup(source, vpn)
            if parent is None:
                if vpn in source.ku_pages or source is self.sigma0:
                    mapped.outcome = MapOutcome.DONE  # it is there, and not for passing on
                offset = self._skip_empty(source, vpn, offset)
                continue
            whole = whole and parent.is_superpage and self._can_be_superpage(target, at)
            size = PAGES_PER_SUPERPAGE if whole else 1
            grant = grant and size == parent.pages
            if rights & (parent.rights | IMPLIED):
                mapped.outcome = MapOutcome.DONE
                done = self._map_one(parent, vpn - parent.vpn, target, at, size, rights, grant, cached)
                if done is None:
                    mapped.outcome = MapOutcome.OUT_OF_MEMORY
                    break
                if done:
                    mapped.add(parent, vpn, at, done)
            offset += size
        return mapped

    def _skip_empty(self, source: Space, vpn: int, offset: int) -> int:
        """Where to go on after the unmapped page `vpn`: at the next entry in use, or past these 4 MiB."""
        self.range_steps += 1
        if source is self.sigma0:
            return offset + max(self.ram_frames - vpn, 1)  # past the kernel's share
        unused = source.tables.unused_entries(vpn + 1)
        if not source.tables.needs_table(vpn):
            self.range_steps += unused
        return offset + unused + 1

    def _can_be_superpage(self, target: Space, vpn: int) -> bool:
        """False where there is a page table already, even an empty one (as on the real kernel)."""
        return target.tables.needs_table(vpn)  # which kernel-user memory does not, either

    def _map_one(
        self,
        parent: Mapping,
        skip_pages: int,
        target: Space,
        vpn: int,
        pages: int,
        rights: int,
        grant: bool,
        cached: bool,
    ) -> int | None:
        """Map one page or superpage. Returns pages mapped (0: nothing to do), None: out of memory."""
        rights &= parent.rights | IMPLIED
        if vpn in target.ku_pages or target is self.sigma0:
            return 0
        pfn = parent.pfn + skip_pages
        grant = grant and parent.parent is not None
        old = target.pages.get(vpn) or target.superpages.get(vpn >> 10)
        if old is not None and old.parent is parent and old.pages == pages and old.pfn == pfn and not grant:
            return self._upgrade(old, rights, self._own_access_bits(parent))
        self._clear_target(target, vpn, pages)
        if parent.space is None:  # the target held the source or an ancestor of it
            return 0
        if not target.quota.charge(MAPPING_BYTES):
            return None
        if pages == 1 and not self._ensure_table(target, vpn):
            target.quota.refund(MAPPING_BYTES)
            return None
        # POINT OF NO RETURN
        inherited = self._own_access_bits(parent)
        child = Mapping(target, vpn, pfn, pages, rights | READ, parent.parent if grant else parent)
        if grant:
            mapdb.replace(parent, child)
            self._forget(parent)
        else:
            mapdb.attach(child)
        writable = bool(rights & WRITE)
        if pages == 1:
            target.pages[vpn] = child
            target.tables.set_page(vpn, pfn, writable, cached)
        else:
            target.superpages[vpn >> 10] = child
            target.tables.set_superpage(vpn, pfn, writable, cached)
        target.tables.add_access_bits(vpn, child.is_superpage, inherited)
        return pages

    def _own_access_bits(self, mapping: Mapping) -> int:
        """What a new child of `mapping` inherits; sigma0's accesses say nothing about one page."""
        if mapping.parent is None or mapping.space is None:
            return 0
        return mapping.space.tables.access_bits(mapping.vpn, mapping.is_superpage)

    def _upgrade(self, mapping: Mapping, rights: int, inherited: int) -> int:
        """The same frame from the same parent again: adds rights; the entry's marks are the parent's then."""
        if mapping.space is not None:
            tables = mapping.space.tables
            if rights & WRITE and not mapping.rights & WRITE:
                tables.make_writable(mapping.vpn, mapping.is_superpage)
            tables.take_access_bits(mapping.vpn, mapping.is_superpage)
            tables.add_access_bits(mapping.vpn, mapping.is_superpage, inherited)
        mapping.rights |= rights
        return mapping.pages

    def _clear_target(self, target: Space, vpn: int, pages: int) -> None:
        """Make room: remove every mapping of `target` that overlaps the pages."""
        whole = target.superpages.get(vpn >> 10)
        if whole is not None:
            self._remove_tree(whole)
        if pages == 1:
            single = target.pages.get(vpn)
            if single is not None:
                self._remove_tree(single)
        elif not target.tables.needs_table(vpn):
            for page in range(vpn, vpn + pages):
                single = target.pages.get(page)
                if single is not None:
                    self._remove_tree(single)

    # --- unmap ------------------------------------------------------------------------------------

    def unmap_range(self, space: Space, vpn: int, pages: int, rights: int, *, also_self: bool) -> int:
        """Take `rights` from everything derived from these pages; `also_self`: from the pages too.

        Taking READ removes the mapping. A 4 MiB mapping that is hit by a smaller range loses the
        whole of it. Kernel-user memory is left alone. Returns ACCESSED | DIRTY as far as any
        page looked at was touched since the last time; those marks move to this space's own entries, if they
        are still there. A new mapping starts with the marks of the one it comes from.
        """
        touched = 0
        found = self.mappings_in(space, vpn, pages)
        self.range_steps += self._empty_places(space, vpn, pages, found)
        for mapping in found:
            if mapping.space is None:
                continue
            first = max(vpn, mapping.vpn)
            count = min(vpn + pages, mapping.vpn + mapping.pages) - first
            derived = mapdb.subtree_over(mapping, mapping.pfn + first - mapping.vpn, count)
            if also_self and mapping.parent is not None:
                if mapping.pages > count:
                    derived = mapdb.subtree_over(mapping, mapping.pfn, mapping.pages)
                derived.insert(0, mapping)
            collected = 0
            for node in reversed(derived):
                collected |= self._take_rights(node, rights)
            if collected and mapping.parent is not None and mapping.space is not None:
                space.tables.add_access_bits(mapping.vpn, mapping.is_superpage, collected)
            touched |= collected
        return touched & (ACCESSED | DIRTY)

    def mappings_in(self, space: Space, vpn: int, pages: int) -> list[Mapping]:
        """The mappings of `space` that overlap the range of user pages, by address. O(min(range, mappings))."""
        found: list[Mapping] = []
        pages = min(pages, self.user_pages - vpn)
        if space is self.sigma0:
            last = min(vpn + pages, FRAMES)
            supers = range(vpn >> 10, (last + _SUPER_MASK) >> 10)
            return [self.roots[number] for number in supers if number in self.roots]
        if pages <= len(space.pages):
            found += [space.pages[page] for page in range(vpn, vpn + pages) if page in space.pages]
        else:
            found += [mapping for page, mapping in sorted(space.pages.items()) if vpn <= page < vpn + pages]
        if space.superpages:
            numbers = range(vpn >> 10, (vpn + pages + _SUPER_MASK) >> 10)
            if len(numbers) <= len(space.superpages):
                found += [space.superpages[number] for number in numbers if number in space.superpages]
            else:
                found += [
                    mapping for number, mapping in sorted(space.superpages.items()) if number in numbers
                ]
        return found

    def _empty_places(self, space: Space, vpn: int, pages: int, found: list[Mapping]) -> int:
        """Entries without a mapping that a walk over the range sees: of the directory, and of page tables."""
        end = min(vpn + pages, self.user_pages if space is not self.sigma0 else FRAMES)
        if end <= vpn:
            return 0
        directory_entries = ((end + _SUPER_MASK) >> 10) - (vpn >> 10)
        tables = space.tables.table_pfns if space is not self.sigma0 else {}
        covered = [index for index in tables if vpn >> 10 <= index < (end + _SUPER_MASK) >> 10]
        in_tables = sum(min(end, (index + 1) << 10) - max(vpn, index << 10) for index in covered)
        return directory_entries - len(covered) + in_tables - len(found)

    def _take_rights(self, mapping: Mapping, rights: int) -> int:
        """Remove `rights` from one mapping; returns the ACCESSED and DIRTY bits it had."""
        space = mapping.space
        if space is None:
            raise KernelBug(f"{mapping!r} is in a tree but removed")
        self.removals += 1
        bits = space.tables.take_access_bits(mapping.vpn, mapping.is_superpage)
        if rights & READ:
            self._remove(mapping)
        elif rights & WRITE and mapping.rights & WRITE:
            mapping.rights &= ~WRITE
            space.tables.make_read_only(mapping.vpn, mapping.is_superpage)
        self.stale.append((space.live_cores, mapping.vpn))
        return bits

    # --- parts ------------------------------------------------------------------------------------

    def _remove_tree(self, mapping: Mapping) -> None:
        derived = mapdb.subtree_over(mapping, mapping.pfn, mapping.pages)
        self.removals += len(derived) + 1
        for node in reversed(derived):
            self._remove(node)
        self._remove(mapping)

    def _remove(self, mapping: Mapping) -> None:
        """Take one childless mapping out of tree, index and page table."""
        mapdb.detach(mapping)
        space = mapping.space
        if space is None:
            raise KernelBug(f"{mapping!r} removed twice")
        space.tables.clear(mapping.vpn, mapping.is_superpage)
        self._forget_index(space, mapping)

    def _forget(self, mapping: Mapping) -> None:
        """A granted mapping leaves its space; the tree has it no more."""
        if mapping.space is None:
            raise KernelBug(f"{mapping!r} granted after removal")
        self.removals += 1
        mapping.space.tables.clear(mapping.vpn, mapping.is_superpage)
        self._forget_index(mapping.space, mapping)

    def _forget_index(self, space: Space, mapping: Mapping) -> None:
        if mapping.pages == 1:
            del space.pages[mapping.vpn]
        else:
            del space.superpages[mapping.vpn >> 10]
        space.quota.refund(MAPPING_BYTES)
        self.stale.append((space.live_cores, mapping.vpn))
        mapping.space = None

    def _root(self, number: int) -> Mapping:
        """sigma0's own mapping of the `number`-th 4 MiB of RAM."""
        root = self.roots.get(number)
        if root is None:
            if self.sigma0 is None:
                raise KernelBug("a root mapping without sigma0")
            first = number << 10
            root = Mapping(self.sigma0, first, first, PAGES_PER_SUPERPAGE, mapdb.ALL_RIGHTS, None)
            self.roots[number] = root
        return root

    def _ensure_table(self, space: Space, vpn: int) -> bool:
        if not space.tables.needs_table(vpn):
            return True
        table = self._take_frame(space.quota)
        if table is None:
            return False
        space.tables.add_table(vpn, table)
        return True

    def _take_frame(self, quota: Quota) -> int | None:
        if not quota.charge(PAGE_BYTES):
            return None
        pfn = self.frames.take()
        if pfn is None:
            quota.refund(PAGE_BYTES)
        else:
            self.cleared_pages += 1  # a directory or a page table, which starts empty
        return pfn

    def _give_back_frame(self, pfn: int, quota: Quota) -> None:
        self.frames.give_back(pfn)
        quota.refund(PAGE_BYTES)
