"""What a person can see of the kernel's memory: mapping trees, page tables, who has how much.

As `inspect`: nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from l4lab.kernel import mapdb, paging
from l4lab.kernel.inspect import Cell, View, counted, task_name

if TYPE_CHECKING:
    from l4lab.kernel.mapdb import Mapping
    from l4lab.kernel.memory import Space
    from l4lab.kernel.objects import Task
    from l4lab.kernel.state import Kernel


def _page_rights(rights: int) -> str:
    letters = (("r", mapdb.READ), ("w", mapdb.WRITE), ("x", mapdb.EXECUTE))
    return "".join(letter if rights & bit else "-" for letter, bit in letters)


def mapping_tree(kernel: Kernel, pfn: int) -> View:
    """Who has a frame of RAM from whom (JDB: m). The root is sigma0's 4 MiB page around it."""
    root = kernel.memory.roots.get(pfn >> 10)
    rows: list[tuple[Cell, ...]] = []
    for depth, mapping in _over(root, pfn, 0) if root is not None else ():
        space = mapping.space
        rows.append(
            (
                "  " * depth + (space.name if space is not None else "removed"),
                f"{mapping.vpn << 12:#010x}",
                f"{mapping.pfn << 12:#010x}",
                "4M" if mapping.is_superpage else "4K",
                _page_rights(mapping.rights),
            )
        )
    columns = ("space", "virtual", "physical", "size", "rights")
    return View(
        f"frame {pfn:#x} (physical {pfn << 12:#x}): {counted(len(rows), 'mapping')}", columns, tuple(rows)
    )


def _over(mapping: Mapping, pfn: int, depth: int) -> Iterator[tuple[int, Mapping]]:
    """The tree from `mapping` on, as far as it holds the frame; parents first."""
    waiting = [(depth, mapping)]
    while waiting:
        level, node = waiting.pop()
        yield level, node
        waiting += [(level + 1, child) for child in reversed([*mapdb.children_over(node, pfn, 1)])]


def mapping_ways(kernel: Kernel) -> View:
    """All trees in short: through whose hands frames of RAM went, frames with the same ways together.

    Frames that only sigma0 has are left out. O(mappings).
    """
    rows: list[tuple[Cell, ...]] = []
    first = end = -1
    known: tuple[str, ...] = ()
    for pfn, count, ways in (*_ways(kernel), (-1, 0, ())):
        if ways == known and pfn == end:
            end += count
            continue
        for number, way in enumerate(known):
            place = (f"{first << 12:#010x}", f"{end << 12:#010x}", str(end - first))
            rows.append((*(place if not number else ("", "", "")), way))
        first, end, known = pfn, pfn + count, ways
    return View("who has which frames, and from whom", ("from", "to", "frames", "mapped to"), tuple(rows))


def _ways(kernel: Kernel) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """(first frame, how many, the ways down their tree in words) of all that others than sigma0 have."""
    for number, root in sorted(kernel.memory.roots.items()):
        single = sorted(_mapped_singly(root))
        at = number << 10
        for pfn in (*single, number + 1 << 10):
            if at < pfn and (ways := _ways_of(root, at)):
                yield at, pfn - at, ways
            if pfn < number + 1 << 10 and (ways := _ways_of(root, pfn)):
                yield pfn, 1, ways
            at = pfn + 1


def _mapped_singly(root: Mapping) -> set[int]:
    """Frames that somebody has by a 4 KiB mapping; the others of the tree are all alike."""
    found: set[int] = set()
    waiting = [root]
    while waiting:
        mapping = waiting.pop()
        for child in mapdb.children_over(mapping, mapping.pfn, mapping.pages):
            if child.is_superpage:
                waiting.append(child)
            else:
                found.add(child.pfn)
    return found


def _ways_of(root: Mapping, pfn: int) -> tuple[str, ...]:
    """From the root to each end of the frame's tree; none if only the root has it."""
    nodes = list(_over(root, pfn, 0))
    ways: list[str] = []
    names: list[str] = []
    for place, (depth, mapping) in enumerate(nodes):
        space = mapping.space
        names[depth:] = [space.name if space is not None else "removed"]
        following = nodes[place + 1][0] if place + 1 < len(nodes) else 0
        if following <= depth and depth:
            ways.append(f"{' > '.join(names)} {_page_rights(mapping.rights)}")
    return tuple(ways)


@dataclass(frozen=True, slots=True)
class Range:
    """Pages of an address space that lie together and are alike. `rights`: r, w, u as in `rwu`."""

    start: int
    end: int
    physical: int
    rights: str
    what: str


def ranges(kernel: Kernel, space: Space, *, contiguous: bool = True) -> list[Range]:
    """What the page tables map, user part and kernel's pages, by address, neighbours put together.

    `contiguous`: only if their frames are neighbours, too.
    """
    found: list[Range] = []
    for start, size, entry in _entries(kernel.words, space):
        vpn = start >> 12
        what = "kernel-user" if vpn in space.ku_pages else "superpage" if entry & paging.SUPERPAGE else ""
        physical = paging.mapped_from(entry)
        rights = f"r{'w' if entry & paging.WRITABLE else '-'}{'u' if entry & paging.USER else '-'}"
        last = found[-1] if found else None
        if (
            last is not None
            and last.end == start
            and (last.rights, last.what) == (rights, what)
            and (not contiguous or last.physical + last.end - last.start == physical)
        ):
            found[-1] = Range(last.start, start + size, last.physical, rights, what)
        else:
            found.append(Range(start, start + size, physical, rights, what))
    return found


def _entries(words: memoryview[int], space: Space) -> Iterator[tuple[int, int, int]]:
    """(address, size, entry) of everything present, in order."""
    directory = space.tables.directory_pfn << 10
    for index, pde in enumerate(words[directory : directory + paging.ENTRIES].tolist()):
        if not pde & paging.PRESENT:
            continue
        if pde & paging.SUPERPAGE:
            yield index << 22, 1 << 22, pde
            continue
        first = pde >> 12 << 10
        for offset, pte in enumerate(words[first : first + paging.ENTRIES].tolist()):
            if pte & paging.PRESENT:
                yield index << 22 | offset << 12, 1 << 12, pte


def page_table(kernel: Kernel, task: Task, address: int | None = None) -> View:
    """What a task's page tables say (JDB: p), as ranges; or the way to one address, entry by entry."""
    if address is not None:
        return _walk(task, address)
    rows = [
        (f"{r.start:#010x}", f"{r.end:#010x}", r.end - r.start >> 12, f"{r.physical:#010x}", r.rights, r.what)
        for r in ranges(kernel, task.space)
    ]
    columns = ("from", "to", "pages", "physical", "rights", "what")
    return View(f"{task_name(task)}: page directory at {task.space.tables.cr3:#x}", columns, tuple(rows))


def _walk(task: Task, address: int) -> View:
    tables = task.space.tables
    rows = [
        (level, f"{position << 2:#010x}", f"{entry:#010x}", _flags(entry))
        for level, (position, entry) in zip(("directory", "table"), tables.walk(address), strict=False)
    ]
    found = tables.translate(address)
    result = f"physical {found.physical:#x}" if found is not None else "not mapped"
    columns = ("level", "entry at", "entry", "flags")
    return View(f"{task_name(task)}, {address:#x}: {result}", columns, tuple(rows))


def _flags(entry: int) -> str:
    names = (
        ("present", paging.PRESENT),
        ("writable", paging.WRITABLE),
        ("user", paging.USER),
        ("uncached", paging.NO_CACHE),
        ("accessed", paging.ACCESSED),
        ("dirty", paging.DIRTY),
        ("4M", paging.SUPERPAGE),
        ("global", paging.GLOBAL),
    )
    return " ".join(name for name, bit in names if entry & bit) or "not present"


def memory(kernel: Kernel) -> View:
    """RAM by owner: pages that each task can use, frames and bytes that the kernel spends on it.

    A page that several tasks can use counts for each.
    """
    rows: list[tuple[Cell, ...]] = []
    for task in kernel.tasks.values():
        space = task.space
        pages = len(space.pages) + 1024 * len(space.superpages)
        if space is kernel.memory.sigma0:
            pages = kernel.memory.user_frames
        tables = len(space.tables.table_pfns) + 1
        rows.append((task_name(task), pages, tables, len(space.ku_pages), task.quota.used_bytes))
    frames = kernel.frames
    total = frames.end_pfn - frames.first_pfn
    rows.append(("kernel, boot", 0, kernel.fixed_frames, 0, kernel.fixed_frames * 4096))
    rows.append(("kernel, free", 0, total - frames.taken_count, 0, (total - frames.taken_count) * 4096))
    columns = ("owner", "pages", "kernel frames", "UTCB frames", "bytes charged to its factory")
    title = (
        f"{kernel.memory.user_frames} frames for programs, {total} for the kernel, {frames.taken_count} taken"
    )
    return View(title, columns, tuple(rows))
