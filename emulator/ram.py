"""Guest physical memory: one buffer that every vCPU, the kernel and the devices look at."""

from __future__ import annotations

import ctypes
import mmap
from typing import Final

from l4lab.kernel.units import SUPERPAGE_BYTES

MAX_RAM_BYTES: Final = 3 << 30


class Ram:
    """Physical addresses 0 .. size_bytes - 1, zero until written; the host gives pages on first touch.

    `bytes_` and `words` are two views of the same memory. Code that a vCPU may have executed must
    not be changed through them without `Engine.forget_code`. They end with this object, whoever else
    has them: using one afterwards is a ValueError.
    """

    __slots__ = ("_mapping", "address", "bytes_", "size_bytes", "words")

    def __init__(self, size_bytes: int) -> None:
        if size_bytes <= 0 or size_bytes % SUPERPAGE_BYTES or size_bytes > MAX_RAM_BYTES:
            raise ValueError(f"RAM of {size_bytes} bytes: expected a multiple of 4 MiB, at most 3 GiB")
        self.size_bytes = size_bytes
        # Private, so that resident memory is what was touched and a fork gets a copy.
        self._mapping = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.bytes_ = memoryview(self._mapping)
        self.words = self.bytes_.cast("I")
        self.address: int = ctypes.addressof(ctypes.c_char.from_buffer(self._mapping))

    def close(self) -> None:
        """Give the memory back to the host; no engine may use it any more."""
        if hasattr(self, "_mapping"):
            self.words.release()
            self.bytes_.release()
            del (
                self._mapping
            )  # it goes with the last of what was cut out of the views, should somebody have any

    def __del__(self) -> None:
        self.close()
