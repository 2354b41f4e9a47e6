"""What the shim offers a debugger: where user code stops, and what a vCPU remembers.

The C side is `shim/debug.c` and `watch.c` (stopping), `state.c` and `coherence.c` (saving). Everything
here is called between runs.
"""

from __future__ import annotations

import ctypes
import enum
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from l4lab.emulator.vcpu import Engine, Vcpu

MAX_WATCHPOINTS: Final = 16
MAX_WATCHED_BYTES: Final = 64
EVERY_SPACE: Final = 0
"""As page directory of a breakpoint: it counts in every address space."""

_NEVER: Final = 2**63 - 1
_STATE_BYTES: Final = 1 << 14

_POINTER = ctypes.c_void_p
_PROTOTYPES: Final = {
    "debug_activate": (None, [_POINTER, ctypes.c_bool]),
    "debug_set_breakpoints": (ctypes.c_bool, [_POINTER, _POINTER, ctypes.c_uint32]),
    "debug_set_watchpoints": (ctypes.c_bool, [_POINTER, _POINTER, ctypes.c_uint32]),
    "debug_count": (None, [_POINTER, _POINTER, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32]),
    "debug_clock": (None, [_POINTER, ctypes.c_uint32, ctypes.c_int64]),
    "debug_pass": (None, [_POINTER, _POINTER, ctypes.c_uint64]),
    "state_save": (ctypes.c_uint32, [_POINTER, _POINTER, ctypes.c_uint32]),
    "state_load": (None, [_POINTER, _POINTER]),
    "state_take_dirty": (None, [_POINTER, _POINTER]),
    "state_kernel_written": (None, [_POINTER, _POINTER]),
}


class Reason(enum.Enum):
    """Why a run stopped; `enum debug_reason` of outcome.h."""

    COUNT = 0
    CLOCK = 1
    BREAKPOINT = 2
    WATCHPOINT = 3


class Watch(NamedTuple):
    """Bytes of RAM to watch, all in one frame. `write`: stop when they change; `read`: at any access."""

    physical: int
    size_bytes: int
    write: bool
    read: bool


class DebugPort:
    """The debugger's side of one machine's engine. `watches`: those that are set."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._shim = engine._shim
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(self._shim, name)
            function.restype, function.argtypes = result, arguments
        self._breakpoints: tuple[tuple[int, int], ...] = ()
        self.watches: tuple[Watch, ...] = ()

    # --- stopping ---------------------------------------------------------------------------------

    def activate(self, active: bool) -> None:
        """Without this nothing stops."""
        self._shim.debug_activate(self._engine._handle, active)

    def set_breakpoints(self, places: Iterable[tuple[int, int]]) -> None:
        """Stop before the instruction at (address, physical address of the page directory).

        Replaces those set before. Cheap if they are the same.
        """
        wanted = tuple(sorted(places))
        if wanted == self._breakpoints:
            return
        words = array("I", [word for place in wanted for word in place])
        if not self._shim.debug_set_breakpoints(
            self._engine._handle, words.buffer_info()[0] if words else None, len(wanted)
        ):
            raise MemoryError("no memory for breakpoints")
        self._breakpoints = wanted

    def set_watches(self, watches: Iterable[Watch]) -> None:
        """Replaces those set before. ValueError for more than MAX_WATCHPOINTS, or one that crosses frames."""
        wanted = tuple(watches)
        if wanted == self.watches:
            return
        words = array("I")
        for watch in wanted:
            words.extend((watch.physical, watch.size_bytes, watch.write | watch.read << 1))
        if not self._shim.debug_set_watchpoints(
            self._engine._handle, words.buffer_info()[0] if words else None, len(wanted)
        ):
            raise ValueError(f"{len(wanted)} watchpoints: not possible")
        self.watches = wanted

    def stop_at_count(
        self, frame: array[int] | None, instructions: int = 0, first: int = 0, size_bytes: int = 0
    ) -> None:
        """Stop the thread once it has executed that many instructions in its life. None: do not.

        Not while it is among the `size_bytes` bytes of code at `first`.
        """
        address = None if frame is None else frame.buffer_info()[0]
        self._shim.debug_count(self._engine._handle, address, instructions, first, size_bytes)

    def stop_at_clock(self, core: int, clock_cycles: int | None) -> None:
        """Stop the core at its first instruction at or after that cycle. None: do not."""
        clock = _NEVER if clock_cycles is None else min(clock_cycles, _NEVER)
        self._shim.debug_clock(self._engine._handle, core, clock)

    def pass_breakpoint(self, frame: array[int] | None, instructions: int = 0) -> None:
        """The thread's instruction of that number does not stop at a breakpoint. None: every one does."""
        address = None if frame is None else frame.buffer_info()[0]
        self._shim.debug_pass(self._engine._handle, address, instructions)

    def reason(self, vcpu: Vcpu) -> tuple[Reason, int] | None:
        """Why the last run of `vcpu` stopped, and which watchpoint it was; forgets it. None: not for us."""
        outcome, vcpu.debug_outcome = vcpu.debug_outcome, None
        return None if outcome is None else (Reason(outcome >> 8 & 0xFF), outcome >> 32)

    def counted(self, vcpu: Vcpu) -> bool:
        """Whether the last run of `vcpu` stopped at its count; forgets it if so."""
        outcome = vcpu.debug_outcome
        found = outcome is not None and outcome >> 8 & 0xFF == Reason.COUNT.value
        if found:
            vcpu.debug_outcome = None
        return found

    # --- saving -----------------------------------------------------------------------------------

    def save_vcpu(self, vcpu: Vcpu) -> bytes:
        """Clock, modelled TLB and the like. x87/SSE state must be in the frames: `Engine.sync_fpu`."""
        size = _STATE_BYTES
        while True:
            buffer = bytearray(size)
            needed = self._shim.state_save(vcpu._handle, _address_of(buffer), size)
            if needed <= size:
                return bytes(buffer[:needed])
            size = needed

    def load_vcpu(self, vcpu: Vcpu, state: bytes) -> None:
        """Back to what was saved; frames must have their contents of then already."""
        self._shim.state_load(vcpu._handle, state)
        vcpu.debug_outcome = None

    def take_dirty(self) -> bytearray:
        """A byte per frame: not 0 if user code may have written it since the last call."""
        dirty = bytearray(self._engine.ram.size_bytes >> 12)
        self._shim.state_take_dirty(self._engine._handle, _address_of(dirty))
        return dirty

    def kernel_written(self) -> bytearray:
        """A byte per frame: not 0 if it was declared to be written by the kernel."""
        flags = bytearray(self._engine.ram.size_bytes >> 12)
        self._shim.state_kernel_written(self._engine._handle, _address_of(flags))
        return flags


def _address_of(buffer: bytearray) -> int:
    """While it is neither resized nor given up."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
