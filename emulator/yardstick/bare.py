"""How fast the engine alone executes code."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import unicorn
from unicorn import x86_const

PAGE_BYTES: Final = 0x1000
_REGISTERS: Final = {
    name: getattr(x86_const, f"UC_X86_REG_{name.upper()}")
    for name in ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
}


class BareEngine:
    """One page of code and one of data, paging off, ring 0: the engine, counting nothing.

    `fill_tlb`: the engine does not translate by itself but asks for each page once, and code cannot be
    written nor data executed, as under an operating system. It then trusts stores to data not to change
    code, and is several times as fast at them.
    """

    def __init__(self, code: bytes, code_address: int, data_address: int, *, fill_tlb: bool = False) -> None:
        self._uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
        self._start, self._end = code_address, code_address + len(code)
        self._data_address = data_address
        for address in (code_address, data_address):
            self._uc.mem_map(address, PAGE_BYTES)
        self._uc.mem_write(code_address, code)
        if fill_tlb:
            self._uc.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
            self._uc.hook_add(unicorn.UC_HOOK_TLB_FILL, self._fill)

    def _fill(self, _uc: Any, address: int, _access: int, entry: Any, _data: object) -> bool:
        entry.paddr = address
        is_code = self._start <= address < self._end
        entry.perms = unicorn.UC_PROT_READ | (unicorn.UC_PROT_EXEC if is_code else unicorn.UC_PROT_WRITE)
        return True

    def run_seconds(self, registers: Mapping[str, int]) -> float:
        """Process time of a run from the first byte of the code to behind the last."""
        for name, value in registers.items():
            self._uc.reg_write(_REGISTERS[name], value)
        start = time.process_time()
        self._uc.emu_start(self._start, self._end)
        return time.process_time() - start

    def state(self) -> tuple[list[int], bytes]:
        """The eight general registers in the order in which x86 numbers them, and the page of data."""
        registers = [self._uc.reg_read(number) for number in _REGISTERS.values()]
        return registers, bytes(self._uc.mem_read(self._data_address, PAGE_BYTES))
