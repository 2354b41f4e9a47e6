"""i386 programs that do what `tools.fuzz` thinks of: the same random system calls, as real code.

`program` returns the bytes of an ELF file, to be booted as a root task. Its code is a chain of short
pieces: a system call with its message registers, a touch of some address, a bad instruction. Pieces
do not cross pages, so that a thread may start at the beginning of any of them.
"""

from __future__ import annotations

from array import array
from random import Random
from types import SimpleNamespace
from typing import Any

from l4lab.kernel.fiasco import abi
from l4lab.kernel.frame import EAX, ECX, EDX, ESI, FRAME_WORDS
from l4lab.tools.check.fuzz.guests import Call, Guests
from l4lab.tools.check.fuzz.words import PAGES, THREADS, UTCB_AREA
from support.elf_builder import PF_R, PF_W, PF_X, ElfBuilder

CODE = 0x10000
STACKS = 0x80000
PAGE = 0x1000
JUMP = 5  # bytes that a jump takes
_UTCB_WORDS = abi.UTCB_BYTES // 4
_BR = abi.UTCB_BR // 4
_THREADS = 7
_TO_STUB = b"\xb8" + abi.SYSTEM_CALL_PAGE.to_bytes(4, "little")  # mov eax, …
BAD = (
    b"\x0f\x0b", b"\xcc", b"\xf4", b"\xfa", b"\xfb", b"\xcf", b"\xe4\x60", b"\xe6\x60", b"\xec", b"\xee",
    b"\xcd\x80", b"\xcd\x0e", b"\xce", b"\x0f\x01\x10", b"\x0f\x20\xc0", b"\x0f\x30", b"\x0f\x32",
    b"\x31\xc9\xf7\xf1", b"\x8e\xd8", b"\x8e\xe0", b"\xd9\xe8\xde\xf9", b"\x0f\xa2", b"\x0f\x31", b"\x9d",
    b"\x0f\x34", b"\x0f\x05", b"\xf0\x0f\xc7\xc8",
)  # fmt: skip


class _Coder(Guests):
    """Writes into a UTCB and a frame of its own what a system call needs; `code` makes instructions of it."""

    def __init__(self, rng: Random, pages: int) -> None:
        self.me_now: Any = SimpleNamespace(
            utcb=0, number=0, task=None, frame=array("I", bytes(4 * FRAME_WORDS))
        )
        rig: Any = SimpleNamespace(ram=memoryview(array("I", bytes(4 * _UTCB_WORDS))), root=self.me_now)
        super().__init__(rig, rng)
        self.pages = pages
        self.written = [0] * _UTCB_WORDS

    def entry(self) -> tuple[int, int]:
        """The beginning of one of the code's pages."""
        return CODE + self.rng.randrange(self.pages) * PAGE, STACKS + self.rng.randrange(1, 8) * 256

    def code(self) -> bytes:
        """The next system call: `mov ebp, fs:[0]`, what changed in the UTCB, registers, `int 0x30`."""
        rng = self.rng
        if rng.random() < 0.03:
            self.noise(self.me_now)
        else:
            self.call(self.me_now)
        return self._instructions()

    def threads(self, count: int) -> list[bytes]:
        """Calls that make and start some threads, undisturbed by chance but for where they begin."""
        pieces = []
        for number in range(count):
            slot = THREADS[0] + number
            thread = (abi.ITEM_MAP, slot << 12 | abi.FPAGE_TYPE_OBJECT << 4 | 15)
            task = (abi.ITEM_MAP, abi.BOOT_CAP_TASK << 12 | abi.FPAGE_TYPE_OBJECT << 4 | 15)
            self.rig.ram[_BR] = slot << 12 | abi.BUFFER_ITEM | abi.BUFFER_SMALL
            flags = abi.CONTROL_BIND_TASK | abi.CONTROL_SET_PAGER | abi.CONTROL_SET_EXCEPTION_HANDLER
            pager = abi.BOOT_CAP_PAGER << 12
            utcb = UTCB_AREA + (number + 1) % 8 * abi.UTCB_BYTES
            place = (abi.SCHEDULER_RUN_THREAD, number % 4, 0xF, 1 + number % 3, 0)
            for request in (
                Call(abi.BOOT_CAP_FACTORY << 12, abi.OP_CALL, abi.PROTO_FACTORY, (abi.PROTO_THREAD,)),
                Call(slot << 12, abi.OP_CALL, abi.PROTO_THREAD, (flags, pager, pager, 0, 0, utcb), (task,)),
                self._scheduler(place, (thread,)),
                Call(slot << 12, abi.OP_CALL, abi.PROTO_THREAD, (abi.THREAD_EX_REGS, *self.entry())),
            ):
                self._write(self.me_now, request)
                pieces.append(self._instructions(always=True))
        return pieces

    def _instructions(self, *, always: bool = False) -> bytes:
        rng = self.rng
        code = bytearray(b"\x64\x8b\x2d\0\0\0\0")
        for index, word in enumerate(self.rig.ram.tolist()):
            if word != self.written[index] or (index < 8 and (always or rng.random() < 0.9)):
                code += b"\xc7\x85" + (4 * index).to_bytes(4, "little") + word.to_bytes(4, "little")
                self.written[index] = word
        frame = self.me_now.frame
        for opcode, index in ((b"\xb8", EAX), (b"\xb9", ECX), (b"\xba", EDX), (b"\xbe", ESI)):
            code += opcode + frame[index].to_bytes(4, "little")
        frame[EAX] = 0  # as far as it knows, all went well
        if rng.random() < 0.5:
            return bytes(code) + b"\xcd\x30"
        return bytes(code) + b"\xbb" + _TO_STUB[1:] + b"\xff\xd3"  # mov ebx, stub; call ebx


def _piece(coder: _Coder) -> bytes:
    rng = coder.rng
    chance = rng.random()
    address = (rng.choice(PAGES) << 12 | rng.getrandbits(12)) & 0xFFFFFFFF
    if chance < 0.8:
        return coder.code()
    if chance < 0.94:
        opcode = rng.choice((b"\xa1", b"\xa1", b"\xa3", b"\xff\x05"))  # load, load, store, increment
        return opcode + address.to_bytes(4, "little")
    if chance < 0.995:
        return b"\x90\xf3\x90"
    if chance < 0.999:
        return rng.choice(BAD)
    return rng.randbytes(6) + b"\x90" * 15


def program(seed: int, *, pages: int = 24) -> bytes:
    """The ELF file of the program with this seed."""
    rng = Random(seed)
    coder = _Coder(rng, pages)
    code = bytearray()
    start = [b"\xbc" + (STACKS + PAGE - 64).to_bytes(4, "little"), *coder.threads(_THREADS)]  # mov esp, …
    while len(code) < pages * PAGE:
        page = bytearray()
        while True:
            piece = start[0] if start else _piece(coder)
            if len(page) + len(piece) > PAGE - JUMP:
                break
            start = start[1:]
            page += piece
        following = CODE if len(code) + PAGE == pages * PAGE else CODE + len(code) + PAGE
        here = CODE + len(code) + len(page) + JUMP
        page += b"\xe9" + (following - here & 0xFFFFFFFF).to_bytes(4, "little")
        code += page.ljust(PAGE, b"\xcc")
    builder = ElfBuilder(e_entry=CODE).segment(CODE, bytes(code), flags=PF_R | PF_X)
    return builder.segment(STACKS, memory=PAGE, flags=PF_R | PF_W).build()


def noise(seed: int) -> bytes:
    """A program of random bytes."""
    rng = Random(seed)
    code = rng.randbytes(PAGE)
    builder = ElfBuilder(e_entry=CODE).segment(CODE, code, flags=PF_R | PF_W | PF_X)
    return builder.segment(STACKS, memory=PAGE, flags=PF_R | PF_W).build()
