"""What address spaces and capability tables *are*, as short as it can be said and still be run.

Address spaces are the lecture's: a space is a partial function from pages to frames.

    σ : V → R ∪ {∅}
    σ₀(v) = v                                  the first space is physical memory
    map     σ_j(v') = σ_i(v)                   the receiver's page is derived from the sender's
    grant   σ_j(v') = σ_i(v),  σ_i(v) = ∅      the receiver's page takes the sender's place
    demap   σ_j(v') = ∅  for all (j, v') derived from σ_i(v), directly or not

Three things are added that the lecture leaves out: rights, which a derivation can only lose; blocks,
sets of pages that were mapped in one piece (4 MiB) and go in one piece; and pages that no operation
touches, because the kernel itself lives in them (`fixed`).

Capability tables are simpler: a map copies, and an object dies with its last counted capability, with
its last of all, or when a capability with the delete right has to make room.

Nothing here knows the kernel. `test_specification.py` runs both with the same random histories.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

R, W, X = 4, 2, 1  # rights to a page
BLOCK = 1024  # pages that can be mapped in one piece


# --- address spaces -----------------------------------------------------------------------------


@dataclass(eq=False)
class Page:
    """σ(v) = frame. `origin`: the page it was derived from. `block`: what was mapped together with it."""

    space: Space
    v: int
    frame: int
    rights: int
    origin: Page | None
    block: list[Page]
    derived: set[Page] = field(default_factory=set)

    @property
    def is_large(self) -> bool:
        return len(self.block) == BLOCK


@dataclass(eq=False)
class Space:
    """σ, where it is defined. `fixed`: pages that hold kernel memory: not mapped here, and never from here.

    `split`: where single pages have ever been; no whole block is mapped there again.
    """

    fixed: set[int] = field(default_factory=set)
    sigma: dict[int, Page] = field(default_factory=dict)
    split: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.split.update(v // BLOCK for v in self.fixed)

    def __call__(self, v: int) -> Page | None:
        return self.sigma.get(v)


class Sigma0(Space):
    """σ₀(v) = v, in blocks, with all rights. It always keeps what it has."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        for first in range(0, frames, BLOCK):
            block: list[Page] = []
            block += [Page(self, v, v, R | W | X, None, block) for v in range(first, first + BLOCK)]
            self.sigma.update((page.v, page) for page in block)


def map_pages(
    source: Space, v: int, target: Space, v2: int, count: int, rights: int, *, grant: bool = False
) -> None:
    """Derive `count` pages of `target` from those of `source`, in order; pages the source lacks are skipped.

    Whole blocks where both sides have them aligned and all of it is wanted, else page by page. Once part of a
    block has been passed on, the rest of a grant is mapped.
    """
    offset = 0
    while offset < count:
        page = source(v + offset)
        aligned = (v + offset) % BLOCK == 0 and (v2 + offset) % BLOCK == 0 and count - offset >= BLOCK
        whole = page is not None and page.is_large and aligned and (v2 + offset) // BLOCK not in target.split
        if page is not None:
            piece = page.block if whole else [page]
            grant = grant and len(piece) == len(page.block)
            _derive(piece, target, v2 + offset, rights, grant)
        offset += BLOCK if whole else 1


def place(send: int, send_log2: int, window: int, window_log2: int, hot_spot: int) -> tuple[int, int, int]:
    """(source page, target page, count): of two aligned pieces, the smaller moves inside the larger.

    The hot spot says where: an address in the larger one, taken modulo its size, in steps of the smaller.
    """
    small, large = 1 << min(send_log2, window_log2), 1 << max(send_log2, window_log2)
    offset = hot_spot % large // small * small
    return (send, window + offset, small) if window_log2 >= send_log2 else (send + offset, window, small)


def _derive(piece: list[Page], target: Space, v: int, rights: int, grant: bool) -> None:
    first = piece[0]
    rights &= first.rights | R | X  # what is there can be read and, as processors are, executed
    old = target(v)
    if not rights or v in target.fixed or isinstance(target, Sigma0):
        return
    grant = grant and first.origin is not None
    if old and old.origin is first and len(old.block) == len(piece) and not grant:
        for page in old.block:  # the same again: rights are added
            page.rights |= rights
        return
    for offset in range(len(piece)):
        present = target(v + offset)
        if present is not None:
            _remove(present)
    if first.space(first.v) is not first:  # it or its own origin was in the way and went, and it with it
        return
    if len(piece) == 1:
        target.split.add(v // BLOCK)
    block: list[Page] = []
    for offset, page in enumerate(piece):
        origin = page.origin if grant else page
        new = Page(target, v + offset, page.frame, rights | R, origin, block)
        assert origin is not None
        origin.derived.add(new)
        if grant:
            new.derived, page.derived = page.derived, set()
            for child in new.derived:
                child.origin = new
            origin.derived.discard(page)
            del page.space.sigma[page.v]
        target.sigma[new.v] = new
        block.append(new)


def unmap_pages(space: Space, v: int, count: int, rights: int, *, also_self: bool) -> None:
    """Demap: take `rights` from all that was derived from these pages; `also_self`: from the pages too.

    R takes the pages themselves, W only the right to write.
    """
    pages = [space.sigma[i] for i in range(v, v + count) if i in space.sigma]
    hit: list[Page] = []
    for page in pages:
        hit += [page] if also_self and page.origin is not None else page.derived
    for page in _closure(hit):
        if rights & R:
            _delete(page)
        else:
            page.rights &= ~(rights & W)


def _remove(page: Page) -> None:
    for each in _closure([page]):
        _delete(each)


def _delete(page: Page) -> None:
    assert page.origin is not None
    page.origin.derived.discard(page)
    del page.space.sigma[page.v]


def _closure(pages: Iterable[Page]) -> list[Page]:
    """The pages, the rest of their blocks, and all derived from them."""
    found: dict[Page, None] = {}
    for page in pages:
        if page not in found:
            found.update(dict.fromkeys(page.block))
    queue = list(found)
    for each in queue:
        for child in each.derived:
            if child not in found:
                found.update(dict.fromkeys(child.block))
                queue += child.block
    return queue


# --- capability tables --------------------------------------------------------------------------

CAP_R, CAP_W, CAP_S, CAP_D = 4, 1, 2, 8
ALL_CAP_RIGHTS = 15
ALL_EXTRA = 0xE0
GATE_SERVER = 0x20


@dataclass(eq=False)
class Object:
    """What a capability names. `count`: counted capabilities, less what was deducted. A task owns a table."""

    count: int = 0
    alive: bool = True
    is_gate: bool = False
    table: Table | None = None


@dataclass(eq=False)
class Cap:
    """`extra`: rights of the object's own making. `counted`: it keeps the object alive."""

    object: Object
    rights: int
    extra: int
    counted: bool


@dataclass(eq=False)
class Table:
    """A partial function too: index → capability."""

    world: Tables
    slots: dict[int, Cap] = field(default_factory=dict)


@dataclass(eq=False)
class Tables:
    """All tables that exist. `ended`: tasks that died in the present operation; their tables go after it."""

    tables: list[Table] = field(default_factory=list)
    ended: list[Object] = field(default_factory=list)

    def new_table(self) -> Table:
        self.tables.append(Table(self))
        return self.tables[-1]


def create(table: Table, index: int, obj: Object) -> None:
    """A new object's first capability: counted, with all rights. What the slot held goes first."""
    _displace(table, index)
    obj.count = 1
    table.slots[index] = Cap(obj, ALL_CAP_RIGHTS, ALL_EXTRA, True)
    _finish(table.world)


def map_caps(
    source: Table, i: int, target: Table, j: int, count: int, rights: int, *,
    extra: int = 0, weak: bool = False, grant: bool = False,
) -> None:  # fmt: skip
    """Copy capabilities, in order. What a target slot held goes first, even if that is the source."""
    if not rights & CAP_R:
        return
    for index in [i + offset for offset in range(count) if i + offset in source.slots]:
        at = j + index - i
        _displace(target, at)
        cap = source.slots.get(index)
        if cap is None:
            continue
        counted = cap.counted and not weak
        target.slots[at] = Cap(cap.object, cap.rights & rights, cap.extra & extra, counted)
        cap.object.count += counted
        if grant:
            _remove_cap(source, index)
    _finish(source.world)


def unmap_caps(table: Table, i: int, count: int, rights: int, *, delete: bool = False) -> None:
    """R takes capabilities away, W and S only those rights. `delete`: the object of one with D ends with it."""
    for index in [i + offset for offset in range(count) if i + offset in table.slots]:
        cap = table.slots.get(index)
        if cap is None:  # went with an object that just died
            continue
        if rights & CAP_R:
            _displace(table, index) if delete else _remove_cap(table, index)
        else:
            cap.rights &= ~(rights & (CAP_W | CAP_S))
    _finish(table.world)


def _displace(table: Table, index: int) -> None:
    """Make room, or end a table: as if by unmap with `delete`."""
    cap = table.slots.get(index)
    if cap is not None and cap.rights & CAP_D:
        _destroy(table.world, cap.object)
    else:
        _remove_cap(table, index)


def _remove_cap(table: Table, index: int) -> None:
    """Empty a slot; the object dies if no count is left, or no capability."""
    cap = table.slots.pop(index, None)
    if cap is None:
        return
    cap.object.count -= cap.counted
    named = any(cap.object is other.object for each in table.world.tables for other in each.slots.values())
    if not named or (cap.counted and cap.object.count <= 0):
        _destroy(table.world, cap.object)


def _destroy(world: Tables, obj: Object) -> None:
    """All capabilities to it vanish, counted or not."""
    if not obj.alive:
        return
    obj.alive = False
    for table in world.tables:
        for index in [index for index, cap in table.slots.items() if cap.object is obj]:
            del table.slots[index]
    if obj.table is not None:
        world.ended.append(obj)


def _finish(world: Tables) -> None:
    """A task that ended lets go of all that its table held; more may end with it."""
    for task in world.ended:
        assert task.table is not None
        for index in list(task.table.slots):
            _displace(task.table, index)
        world.tables.remove(task.table)
    world.ended.clear()


def deduct(obj: Object, difference: int) -> None:
    """Lower the count or, by a negative difference, raise it. Nothing dies of it now."""
    obj.count -= difference


def equal(table: Table, i: int, j: int) -> bool:
    """Both empty, or the same object with the same W and S and, of a gate, the same view."""
    a, b = table.slots.get(i), table.slots.get(j)
    if a is None or b is None or a.object is not b.object:
        return a is b
    view = GATE_SERVER if a.object.is_gate else 0
    return (a.rights ^ b.rights) & (CAP_W | CAP_S) == 0 == (a.extra ^ b.extra) & view
