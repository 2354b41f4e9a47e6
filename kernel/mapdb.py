"""The mapping tree: who got which frame from whom.

Every page that is mapped anywhere (but kernel-user memory) is a `Mapping`. Its parent is the
mapping it was derived from; the roots belong to sigma0, one for each 4 MiB of RAM, created when
first needed. This module knows the trees alone; `memory` keeps spaces and page tables in step.

A 4 KiB mapping may hang below a 4 MiB one: the part was mapped on by itself. The reverse cannot
occur. The 4 KiB children of a 4 MiB mapping are indexed by frame, so that taking back one page does not look at
the other 1023.

There may be a mapping for every 32 bytes of the kernel's memory, so the host's bytes for one count: most have one
child or none, for which there is no container.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, Union

from l4lab.kernel.errors import KernelBug

if TYPE_CHECKING:
    from l4lab.kernel.memory import Space

# Rights to a page; the interface has bits of its own for them.
READ: Final = 1
WRITE: Final = 2
EXECUTE: Final = 4
ALL_RIGHTS: Final = READ | WRITE | EXECUTE
IMPLIED: Final = READ | EXECUTE
"""What every mapping has: the processor knows no page that cannot be read or, without NX, executed."""

PAGES_PER_SUPERPAGE: Final = 1024


Group = Union["Mapping", "dict[Mapping, None]"]
"""Children of one frame, in the order of creation: one mapping alone, or several."""


class Mapping:
    """One page in one space.

    `space`: None once removed. `vpn`, `pfn`: first 4 KiB page and frame. `pages`: 1 or 1024.
    `children`: those of a 4 KiB mapping; the 4 MiB children of a 4 MiB mapping. `by_frame`: the 4 KiB children of a
    4 MiB mapping by pfn. None while there are none.
    `last_core`, `locked_until_cycles`: see `contention`.
    """

    __slots__ = (
        "by_frame",
        "children",
        "last_core",
        "locked_until_cycles",
        "parent",
        "pages",
        "pfn",
        "rights",
        "space",
        "vpn",
    )

    def __init__(
        self, space: Space, vpn: int, pfn: int, pages: int, rights: int, parent: Mapping | None
    ) -> None:
        self.space: Space | None = space
        self.vpn = vpn
        self.pfn = pfn
        self.pages = pages
        self.rights = rights
        self.parent = parent
        self.children: Group | None = None
        self.by_frame: dict[int, Group] | None = None
        self.last_core = -1
        self.locked_until_cycles = 0

    @property
    def is_superpage(self) -> bool:
        """True for a 4 MiB mapping."""
        return self.pages != 1

    def __repr__(self) -> str:
        where = "removed" if self.space is None else self.space.name
        kind = "4M" if self.is_superpage else "4K"
        return f"<{kind} {where} va={self.vpn << 12:#x} pa={self.pfn << 12:#x} rights={self.rights}>"


def attach(child: Mapping) -> None:
    """Hook `child` below its parent. O(1)."""
    parent = child.parent
    if parent is None:
        return
    if parent.pages == child.pages:
        parent.children = _with(parent.children, child)
        return
    if parent.by_frame is None:
        parent.by_frame = {}
    parent.by_frame[child.pfn] = _with(parent.by_frame.get(child.pfn), child)


def detach(child: Mapping) -> None:
    """Unhook `child` from its parent. O(1)."""
    parent = child.parent
    if parent is None:
        return
    if parent.pages == child.pages:
        parent.children = _without(parent.children, child)
        return
    groups = parent.by_frame or {}
    left = _without(groups.get(child.pfn), child)
    if left is not None:
        groups[child.pfn] = left
        return
    del groups[child.pfn]
    if not groups:
        parent.by_frame = None


def _with(group: Group | None, child: Mapping) -> Group:
    if group is None:
        return child
    if isinstance(group, Mapping):
        return {group: None, child: None}
    group[child] = None
    return group


def _without(group: Group | None, child: Mapping) -> Group | None:
    """What is left. KernelBug if `child` is not there."""
    if group is child:
        return None
    if not isinstance(group, dict) or child not in group:
        raise KernelBug(f"{child!r} is not below {child.parent!r}")
    del group[child]
    return group if len(group) > 1 else next(iter(group))


def members(group: Group | None) -> Iterable[Mapping]:
    """The mappings of a group, in the order of creation."""
    if group is None:
        return ()
    return (group,) if isinstance(group, Mapping) else group


def replace(old: Mapping, new: Mapping) -> None:
    """`new` takes the place of `old` in the tree: a grant. `new.parent` must be `old.parent`.

    O(children of old). `old` is left without relations.
    """
    detach(old)
    attach(new)
    new.children, new.by_frame = old.children, old.by_frame
    old.children = old.by_frame = None
    for child in children_over(new, new.pfn, new.pages):
        child.parent = new


def children_over(mapping: Mapping, first_pfn: int, count: int) -> Iterator[Mapping]:
    """The direct children that hold any of the frames `first_pfn .. first_pfn + count - 1`."""
    yield from members(mapping.children)
    groups = mapping.by_frame
    if groups is None:
        return
    if count < len(groups):
        for pfn in range(first_pfn, first_pfn + count):
            yield from members(groups.get(pfn))
    else:
        for pfn, group in groups.items():
            if first_pfn <= pfn < first_pfn + count:
                yield from members(group)


def subtree_over(mapping: Mapping, first_pfn: int, count: int) -> list[Mapping]:
    """All descendants that hold any of the frames, parents before children; not `mapping` itself.

    A 4 MiB child that is touched counts whole, with everything below it (ABI sheet section 7).
    """
    found = list(children_over(mapping, first_pfn, count))
    position = 0
    while position < len(found):
        node = found[position]
        position += 1
        if node.by_frame is not None:
            found.extend(children_over(node, node.pfn, node.pages))
        elif node.children is not None:
            found.extend(members(node.children))
    return found
