"""The thread frame: one thread's registers and counters, shared between kernel and vCPU.

A frame is an `array('I')` of FRAME_WORDS words. The vCPU shim reads and writes it in place
(`emulator/shim/thread_frame.h`; a test compares the offsets), so the kernel sees every
register as a plain list element and nothing is copied through a binding.

Frames are never returned to the allocator while a machine lives: a vCPU may still hold the
x87/SSE state of a frame's last owner. `FramePool` recycles them.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from l4lab.kernel.interface import Selectors

# Word indices. Order of the general registers: as the x86 encodes them.
EAX: Final = 0
ECX: Final = 1
EDX: Final = 2
EBX: Final = 3
ESP: Final = 4
EBP: Final = 5
ESI: Final = 6
EDI: Final = 7
EIP: Final = 8
EFLAGS: Final = 9
CS: Final = 10
SS: Final = 11
DS: Final = 12
ES: Final = 13
FS: Final = 14
GS: Final = 15
UTCB_BASE: Final = 16
"""Base of the segment that `Selectors.utcb` names; where in the UTCB that is, the interface says."""
CR3: Final = 17
"""Physical address of the page directory; a run with another value than the last is a CR3 load."""
GDT_ENTRIES: Final = 18
"""Eight words: low and high half of the thread's own descriptors, from `Selectors.first_thread` on."""
FPU_CORE: Final = 26
"""1 + number of the core whose x87/SSE registers hold this thread's state; 0: the frame has it."""
FPU_VALID: Final = 27
"""0: the thread has no x87/SSE state yet and starts with the initial one."""

# 64-bit counters, low word first, only ever added to by the vCPU.
INSTRUCTIONS: Final = 32
USER_CYCLES: Final = 34
TLB_MISSES: Final = 36
FPU_SWITCHES: Final = 38

FPU_AREA: Final = 64
"""128 words: x87 and SSE state, in the layout of FXSAVE."""
FPU_AREA_WORDS: Final = 128
FRAME_WORDS: Final = FPU_AREA + FPU_AREA_WORDS

EFLAGS_START: Final = 0x202  # IF and the bit that is always one
EFLAGS_INTERRUPT: Final = 0x200  # IF
EFLAGS_USER_MASK: Final = 0x250DD5  # CF PF AF ZF SF TF DF OF RF AC ID: what user code may set

_BLANK: Final = bytes(FRAME_WORDS * 4)


def read_counter(frame: array[int], index: int) -> int:
    """The 64-bit counter that starts at word `index`."""
    return frame[index] | frame[index + 1] << 32


class FramePool:
    """Hands out blank frames and takes them back; see the module's header for why."""

    __slots__ = ("_free", "_selectors", "blank")

    def __init__(self, selectors: Selectors) -> None:
        self._selectors = selectors
        self._free: list[array[int]] = []
        self.blank = array("I", _BLANK)  # stands in for the frame of a thread that is gone; never runs

    def take(self) -> array[int]:
        """A frame with every word zero but the selectors and EFLAGS of a new thread."""
        frame = self._free.pop() if self._free else array("I", _BLANK)
        frame[EFLAGS] = EFLAGS_START
        selectors = self._selectors
        frame[CS] = selectors.code
        frame[SS] = frame[DS] = frame[ES] = selectors.data
        frame[FS] = frame[GS] = selectors.utcb
        return frame

    def give_back(self, frame: array[int]) -> None:
        """The thread is gone. Clearing FPU_CORE tells a vCPU not to save into this frame."""
        memoryview(frame).cast("B")[:] = _BLANK
        self._free.append(frame)
