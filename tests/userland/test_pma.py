"""The page frame allocators of userland/pager/pma, built for the host, against models of their promises."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from support.host_c import compile_library

SOURCES = ("pma.c", "pma_avl.c", "pma_buddy.c", "pma_slab.c")
KINDS = ("avl", "buddy", "slab")
NONE = 0
SLAB_PAGES = 64


class Pma(ctypes.Structure):
    """pma_t of pma.h."""

    _fields_ = (
        ("kind", ctypes.c_void_p),
        ("records", ctypes.c_void_p),
        ("first", ctypes.c_uint32),
        ("end", ctypes.c_uint32),
        ("pages", ctypes.c_uint32),
        ("used_pages", ctypes.c_uint32),
        ("allocated_pages", ctypes.c_uint64),
        ("released_pages", ctypes.c_uint64),
    )


class Kind(ctypes.Structure):
    """The beginning of pma_kind_t."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("record_bytes", ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_uint32, ctypes.c_uint32)),
    )


class Allocator:
    """One allocator, and the memory of its records, with marks behind it that nobody may touch."""

    MARK = b"\xa5" * 64

    def __init__(self, library: ctypes.CDLL, kind: str, first: int, end: int) -> None:
        self.library = library
        description = library.pma_kind(kind.encode())
        size = Kind.from_address(description).record_bytes(first, end)
        self._memory = ctypes.create_string_buffer(b"\xcc" * size + self.MARK)
        self._size = size
        self.state = Pma()
        address = ctypes.addressof(self._memory)
        library.pma_init(ctypes.byref(self.state), description, first, end, ctypes.c_void_p(address))

    def add(self, first: int, pages: int) -> int:
        return int(self.library.pma_add(ctypes.byref(self.state), first, pages))

    def allocate(self, pages: int) -> int:
        return int(self.library.pma_allocate(ctypes.byref(self.state), pages))

    def free(self, first: int) -> int:
        return int(self.library.pma_free(ctypes.byref(self.state), first))

    def largest_free(self) -> int:
        return int(self.library.pma_largest_free(ctypes.byref(self.state)))

    def problem(self) -> str | None:
        assert self._memory.raw[self._size : self._size + 64] == self.MARK, "written behind the records"
        text = self.library.pma_problem(ctypes.byref(self.state))
        return None if text is None else text.decode()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = compile_library(tmp_path_factory.mktemp("pma"), *(f"pager/pma/{name}" for name in SOURCES))
    library.pma_kind.restype = ctypes.c_void_p
    library.pma_kind.argtypes = [ctypes.c_char_p]
    library.pma_init.argtypes = [
        *(ctypes.c_void_p, ctypes.c_void_p),
        *(ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p),
    ]
    library.pma_init.restype = None
    library.pma_problem.restype = ctypes.c_char_p
    for name in ("pma_add", "pma_allocate", "pma_free", "pma_largest_free"):
        getattr(library, name).restype = ctypes.c_uint32
    return library


# --- models: which pages are free, and what each kind makes of them ---------------------------------------


class Model:
    """`free`: the pages that could be given out. `runs`: first page -> length of what is in use."""

    def __init__(self) -> None:
        self.free: set[int] = set()
        self.runs: dict[int, int] = {}

    def free_runs(self) -> list[tuple[int, int]]:
        runs: list[tuple[int, int]] = []
        for page in sorted(self.free):
            if runs and runs[-1][0] + runs[-1][1] == page:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                runs.append((page, 1))
        return runs

    def taken(self, pages: int) -> int:
        """How many pages an allocation of `pages` really takes."""
        return 1 << (pages - 1).bit_length()

    def possible(self, pages: int) -> set[int]:
        """First pages that an allocation may return; empty: it must fail."""
        raise NotImplementedError

    def usable(self, first: int, pages: int) -> set[int]:
        """Which of the pages given it can use."""
        return set(range(first, first + pages))

    def largest(self) -> int:
        raise NotImplementedError


class AvlModel(Model):
    """First fit, by address."""

    def taken(self, pages: int) -> int:
        return pages

    def possible(self, pages: int) -> set[int]:
        fitting = (first for first, length in self.free_runs() if length >= pages)
        return {first for first in [next(fitting, None)] if first is not None}

    def largest(self) -> int:
        return max((length for _, length in self.free_runs()), default=0)


class BuddyModel(Model):
    """Any aligned block that is free: joining is complete, so none is missed."""

    def possible(self, pages: int) -> set[int]:
        size = self.taken(pages)
        return {
            page
            for page in self.free
            if page % size == 0 and all(other in self.free for other in range(page, page + size))
        }

    def largest(self) -> int:
        return max((1 << order for order in range(12) if self.possible(1 << order)), default=0)


class SlabModel(Model):
    """Aligned objects of a slab that has only objects of that size, or none at all."""

    def sizes(self, slab: int) -> set[int]:
        return {self.runs[first] for first in self.runs if first // SLAB_PAGES == slab}

    def usable(self, first: int, pages: int) -> set[int]:
        start, end = -(-first // SLAB_PAGES) * SLAB_PAGES, (first + pages) // SLAB_PAGES * SLAB_PAGES
        return set(range(start, end))

    def possible(self, pages: int) -> set[int]:
        size = self.taken(pages)
        if size > SLAB_PAGES:
            return set()
        fitting = {
            page for page in self.free if page % size == 0 and self.sizes(page // SLAB_PAGES) <= {size}
        }
        partial = {page for page in fitting if self.sizes(page // SLAB_PAGES)}
        return partial or fitting  # a slab is begun only when no begun one is left

    def largest(self) -> int:
        return max((1 << order for order in range(7) if self.possible(1 << order)), default=0)


MODELS: dict[str, Callable[[], Model]] = {"avl": AvlModel, "buddy": BuddyModel, "slab": SlabModel}


def machine(library: ctypes.CDLL, kind: str) -> type[RuleBasedStateMachine]:
    """A machine of random operations on an allocator of `kind` and on its model."""

    class Machine(RuleBasedStateMachine):
        runs = Bundle("runs")

        @initialize(first=st.integers(1, 200), pieces=st.lists(st.integers(1, 160), min_size=1, max_size=3))
        def start(self, first: int, pieces: list[int]) -> None:
            """Pieces of memory with a page between them that does not belong to it."""
            self.first = first
            self.end = first + sum(pieces) + len(pieces)
            self.allocator = Allocator(library, kind, self.first, self.end)
            self.model = MODELS[kind]()
            at = first
            for pages in pieces:
                usable = self.model.usable(at, pages)
                assert self.allocator.add(at, pages) == len(usable)
                self.model.free |= usable
                at += pages + 1
            self.total = len(self.model.free)

        @rule(target=runs, pages=st.one_of(st.just(1), st.integers(1, 70)))
        def allocate(self, pages: int) -> object:
            possible = self.model.possible(pages)
            first = self.allocator.allocate(pages)
            if not possible:
                assert first == NONE
                return multiple()
            assert first in possible
            taken = self.model.taken(pages)
            self.model.runs[first] = taken
            self.model.free -= set(range(first, first + taken))
            return first

        @rule(first=consumes(runs))
        def free(self, first: int) -> None:
            pages = self.model.runs.pop(first)
            assert self.allocator.free(first) == pages
            self.model.free |= set(range(first, first + pages))

        @rule(page=st.integers(0, 800))
        def free_what_begins_no_run(self, page: int) -> None:
            if page not in self.model.runs:
                assert self.allocator.free(page) == 0

        @invariant()
        def records_are_sound(self) -> None:
            assert self.allocator.problem() is None
            state = self.allocator.state
            assert state.pages == self.total
            assert state.used_pages == sum(self.model.runs.values()) == self.total - len(self.model.free)
            assert state.allocated_pages - state.released_pages == state.used_pages
            assert self.allocator.largest_free() == self.model.largest()

        def teardown(self) -> None:
            """Everything comes back whole: what could be had at the start can be had again."""
            for first in list(self.model.runs):
                self.free(first)
            assert self.allocator.state.used_pages == 0
            assert self.allocator.largest_free() == self.model.largest()

    return Machine


@pytest.mark.parametrize("kind", KINDS)
def test_random_operations_against_the_model(library: ctypes.CDLL, kind: str) -> None:
    """Runs do not overlap, are never outside what was given, and fail exactly when nothing fits."""
    run_state_machine_as_test(
        machine(library, kind), settings=settings(max_examples=60, stateful_step_count=60)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_region_given_out_page_by_page_comes_back_whole(library: ctypes.CDLL, kind: str) -> None:
    """Every page once, then none; freed in any order, the largest run is again what it was."""
    allocator = Allocator(library, kind, 1024, 2048)
    allocator.add(1024, 1024)
    largest = allocator.largest_free()
    pages = [allocator.allocate(1) for _ in range(1024)]
    assert sorted(pages) == list(range(1024, 2048))
    assert allocator.allocate(1) == NONE
    for page in [*pages[::2], *pages[1::2]]:
        assert allocator.free(page) == 1
    assert allocator.problem() is None
    assert allocator.largest_free() == largest


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_page_cannot_be_freed_twice(library: ctypes.CDLL, kind: str) -> None:
    """Nor can a page that was never given, or one outside the window; and nothing changes."""
    allocator = Allocator(library, kind, 64, 256)
    allocator.add(64, 128)
    page = allocator.allocate(1)
    assert allocator.free(page) == 1
    for wrong in (page, 0, 63, 200, 256, 0xFFFFFFFF):
        assert allocator.free(wrong) == 0
    assert allocator.state.released_pages == 1


@pytest.mark.parametrize("kind", KINDS)
def test_pages_outside_of_the_window_are_not_taken_in(library: ctypes.CDLL, kind: str) -> None:
    """Records exist for the window only."""
    allocator = Allocator(library, kind, 64, 256)
    for first, pages in ((0, 64), (192, 65), (256, 1), (64, 0xFFFFFFFF)):
        assert allocator.add(first, pages) == 0
    assert allocator.allocate(1) == NONE


def test_an_unknown_kind_is_none(library: ctypes.CDLL) -> None:
    """The pager tells its operator."""
    assert library.pma_kind(b"avl tree") is None
    assert library.pma_kind(b"") is None


def test_the_avl_tree_stays_low(library: ctypes.CDLL) -> None:
    """A thousand chunks in ascending order, the worst case for a tree that does not balance."""
    allocator = Allocator(library, "avl", 1, 4097)
    allocator.add(1, 4096)
    for count in range(1, 2001):
        allocator.allocate(1)
        if count % 500 == 0:
            assert allocator.problem() is None  # looks at the balance of every node


def test_records_lie_where_the_caller_said(library: ctypes.CDLL) -> None:
    """Two allocators with neighbouring records do not disturb each other."""
    one, two = (Allocator(library, "avl", 100, 200) for _ in range(2))
    one.add(100, 100)
    two.add(100, 50)
    assert one.allocate(60) == 100
    assert two.allocate(60) == NONE
    assert two.allocate(50) == 100
    assert (one.problem(), two.problem()) == (None, None)
