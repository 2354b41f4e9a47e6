"""The mapping tree: who got which frame from whom.

Every page that is mapped anywhere (but kernel-user memory) is a `Mapping`. Its parent is the
mapping it was derived from; the roots belong to sigma0, one for each 4 MiB of RAM, created when
first needed. This module knows the trees alone; `memory` keeps spaces and page tables in step.

A 4 KiB mapping may hang below a 4 MiB one: the part was mapped on by itself. The reverse cannot
occur. Children are indexed by frame, so that taking back one page out of a 4 MiB mapping does not
look at the other 1023.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

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
_SUPERPAGE_CHILDREN: Final = -1


class Mapping:
    """One page in one space.

    `space`: None once removed. `vpn`, `pfn`: first 4 KiB page and frame. `pages`: 1 or 1024.
    `children`: pfn -> the 4 KiB children there; key -1 -> the 4 MiB children. None while childless.
    `last_core`, `locked_until_cycles`: see `contention`; they count for a tree's root.
    """

    __slots__ = (
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
        self.children: dict[int, dict[Mapping, None]] | None = None
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
    if parent.children is None:
        parent.children = {}
    key = _SUPERPAGE_CHILDREN if child.pages != 1 else child.pfn
    group = parent.children.get(key)
    if group is None:
        parent.children[key] = {child: None}
    else:
        group[child] = None


def detach(child: Mapping) -> None:
    """Unhook `child` from its parent. O(1)."""
    parent = child.parent
    if parent is None or parent.children is None:
        return
    key = _SUPERPAGE_CHILDREN if child.pages != 1 else child.pfn
    group = parent.children[key]
    del group[child]
    if not group:
        del parent.children[key]
        if not parent.children:
            parent.children = None


def replace(old: Mapping, new: Mapping) -> None:
    """`new` takes the place of `old` in the tree: a grant. `new.parent` must be `old.parent`.

    O(children of old). `old` is left without relations.
    """
    detach(old)
    attach(new)
    new.children = old.children
    old.children = None
    for group in (new.children or {}).values():
        for child in group:
            child.parent = new


def children_over(mapping: Mapping, first_pfn: int, count: int) -> Iterator[Mapping]:
    """The direct children that hold any of the frames `first_pfn .. first_pfn + count - 1`."""
    groups = mapping.children
    if groups is None:
        return
    if mapping.pages == 1 or count >= mapping.pages:
        for group in groups.values():
            yield from group
        return
    yield from groups.get(_SUPERPAGE_CHILDREN, ())
    if count < len(groups):
        for pfn in range(first_pfn, first_pfn + count):
            yield from groups.get(pfn, ())
    else:
        for pfn, group in groups.items():
            if first_pfn <= pfn < first_pfn + count:
                yield from group


def subtree_over(mapping: Mapping, first_pfn: int, count: int) -> list[Mapping]:
    """All descendants that hold any of the frames, parents before children; not `mapping` itself.

    A 4 MiB child that is touched counts whole, with everything below it (ABI sheet section 7).
    """
    found = list(children_over(mapping, first_pfn, count))
    position = 0
    while position < len(found):
        node = found[position]
        position += 1
        if node.children is not None:
            if node.pages == 1:
                found.extend(node.children[node.pfn])
            else:
                found.extend(children_over(node, node.pfn, node.pages))
    return found


def dump(mapping: Mapping, depth: int = 0) -> list[str]:
    """The tree as indented text, one mapping a line, in the order of creation."""
    lines = ["  " * depth + repr(mapping)]
    for group in (mapping.children or {}).values():
        for child in group:
            lines.extend(dump(child, depth + 1))
    return lines
