"""What it takes to start and to stop the engine."""

from __future__ import annotations

import time
from typing import Any, Final

import unicorn
from unicorn import x86_const

_CODE_ADDRESS: Final = 0x1000
_CODE: Final = b"\xcd\x30\xeb\xfc"  # int 0x30; jmp back
_ROUNDS: Final = 3000
_REPEATS: Final = 5


def start_stop_us() -> float:
    """Microseconds of CPU time for one `emu_start` that an `int` hook stops: the best of a few series."""
    engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
    engine.mem_map(_CODE_ADDRESS, 0x1000)
    engine.mem_write(_CODE_ADDRESS, _CODE)

    def stop(uc: Any, _vector: int, _data: object) -> None:
        uc.emu_stop()

    engine.hook_add(unicorn.UC_HOOK_INTR, stop)
    engine.reg_write(x86_const.UC_X86_REG_EIP, _CODE_ADDRESS)
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.process_time()
        for _ in range(_ROUNDS):
            engine.emu_start(_CODE_ADDRESS, 0)
        best = min(best, time.process_time() - start)
    return best / _ROUNDS * 1e6
