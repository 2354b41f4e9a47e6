"""Random 32-bit programs that run into everything a vCPU has to count: faults, traps, loops, strings.

A program is straight-line code with forward jumps, bounded backward loops and calls, ending in
`int 0x30`. An item is one instruction, or two where that is said. It touches mapped, read-only, not
yet mapped and never mapped pages. EBX and EBP point into the data page and are not changed.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from support.guest import CODE, DATA, SYSTEM_CALL, word

READ_ONLY_PAGE = DATA + 0x1000
LAZY_PAGES = (DATA + 0x2000, DATA + 0x3000)  # mapped when first touched
NEVER_MAPPED = 0x0090_0000
COUNTERS = DATA + 0x20  # of backward loops, 4 bytes each

EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI = range(8)
FREE = (EAX, ECX, EDX, ESI, EDI)


class Assembler:
    """Instructions as bytes, with branches to instruction numbers resolved at the end."""

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self.branches: dict[int, int] = {}  # index of a branch with rel32 -> index of its target

    def emit(self, data: bytes | str) -> None:
        self.items.append(bytes.fromhex(data) if isinstance(data, str) else data)

    def branch(self, opcode: str, target: int) -> int:
        self.branches[len(self.items)] = target
        self.emit(bytes.fromhex(opcode) + bytes(4))
        return len(self.items) - 1

    def assemble(self) -> bytes:
        starts = [0]
        for item in self.items:
            starts.append(starts[-1] + len(item))
        for index, target in self.branches.items():
            item = self.items[index]
            self.items[index] = item[:-4] + word(starts[target] - starts[index + 1])
        return b"".join(self.items)


class RandomProgram:
    """`code` and the seed it came from."""

    def __init__(self, seed: int, length: int = 40) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.asm = Assembler()
        self.loops = 0
        self.pending: list[tuple[int, int]] = []  # forward branches: (branch, remaining instructions)
        self.calls: list[int] = []
        for _ in range(length):
            self._instruction()
        self._land(force=True)
        self.asm.emit(SYSTEM_CALL)
        self._subroutines()
        self.code = self.asm.assemble()

    # --- pieces -----------------------------------------------------------------------------------

    def _instruction(self) -> None:
        self._land()
        kinds: list[tuple[int, Callable[[], None]]] = [
            (20, self._arithmetic),
            (12, self._memory),
            (6, self._immediate),
            (6, self._odd_integer),
            (4, self._stack),
            (4, self._string),
            (4, self._forward),
            (2, self._backward),
            (2, self._call),
            (3, self._float),
            (2, self._vector),
            (3, self._exception),
            (1, self._system),
        ]
        self.random.choices([k for _, k in kinds], [n for n, _ in kinds])[0]()

    def _land(self, force: bool = False) -> None:
        here = len(self.asm.items)
        waiting = []
        for branch, remaining in self.pending:
            if force or remaining == 0:
                self.asm.branches[branch] = here
            else:
                waiting.append((branch, remaining - 1))
        self.pending = waiting

    def _free(self) -> int:
        return self.random.choice(FREE)

    def _operand(self, reg: int) -> bytes:
        """A ModRM memory operand: mostly the data page, sometimes a page that faults."""
        r = self.random
        form = r.randrange(12)
        if form < 4:
            return bytes([0x43 | reg << 3, r.randrange(0x40)])  # [ebx + disp8]
        if form < 6:
            return bytes([0x45 | reg << 3, r.randrange(0x40)])  # [ebp + disp8]
        if form < 8:
            return bytes([0x84 | reg << 3, 0x23]) + word(r.randrange(0x100, 0x200))  # [ebx + disp32], SIB
        if form == 8:
            page = r.choice(LAZY_PAGES)
            return bytes([0x05 | reg << 3]) + word(page + r.choice((0, 8, 0xFFC, 0xFFE)))
        if form == 9:
            return bytes([0x05 | reg << 3]) + word(READ_ONLY_PAGE + r.randrange(0xFF0))
        if form == 10 and r.random() < 0.2:
            return bytes([0x05 | reg << 3]) + word(NEVER_MAPPED + r.randrange(0xFF0))
        return bytes([0x05 | reg << 3]) + word(DATA + 0x100 + r.randrange(0xE00))

    def _arithmetic(self) -> None:
        opcode = self.random.choice(
            (0x01, 0x03, 0x09, 0x11, 0x13, 0x19, 0x1B, 0x21, 0x29, 0x2B, 0x31, 0x39, 0x85, 0x89)
        )
        self.asm.emit(bytes([opcode, 0xC0 | self._free() << 3 | self._free()]))

    def _memory(self) -> None:
        opcode = self.random.choice(
            (0x01, 0x03, 0x0B, 0x11, 0x29, 0x2B, 0x31, 0x33, 0x39, 0x3B, 0x85, 0x87, 0x88, 0x89, 0x8A, 0x8B)
        )
        self.asm.emit(bytes([opcode]) + self._operand(self._free()))

    def _immediate(self) -> None:
        r = self.random
        choice = r.randrange(5)
        if choice == 0:
            self.asm.emit(bytes([0xB8 | self._free()]) + word(r.getrandbits(32)))
        elif choice == 1:
            self.asm.emit(bytes([0x83, 0xC0 | r.randrange(8) << 3 | self._free(), r.randrange(256)]))
        elif choice == 2:
            self.asm.emit(bytes([0x81]) + self._operand(r.randrange(8)) + word(r.getrandbits(32)))
        elif choice == 3:
            self.asm.emit(
                bytes([0xC1, 0xC0 | r.choice((0, 1, 4, 5, 7)) << 3 | self._free(), r.randrange(32)])
            )
        else:
            self.asm.emit(bytes([0xC7]) + self._operand(0) + word(r.getrandbits(32)))

    def _odd_integer(self) -> None:
        r = self.random
        a, b = self._free(), self._free()
        register = 0xC0 | a << 3 | b
        self.asm.emit(
            r.choice(
                (
                    bytes([0x0F, 0x90 | r.randrange(16), 0xC0 | r.choice((0, 1, 2))]),  # setcc
                    bytes([0x0F, 0x40 | r.randrange(16), register]),  # cmovcc
                    bytes([0x0F, 0xB6]) + self._operand(a),  # movzx
                    bytes([0x0F, 0xAF, register]),  # imul
                    bytes([0x0F, 0xA4, register, r.randrange(32)]),  # shld
                    bytes([0x0F, 0xC1]) + self._operand(a),  # xadd
                    bytes([0x0F, 0xB1]) + self._operand(a),  # cmpxchg
                    bytes([0xF0, 0x01]) + self._operand(a),  # lock add
                    # bts [ebx], imm: leaves flags undefined, so cmp follows
                    bytes([0x0F, 0xBA, 0x2B, r.randrange(32), 0x3B, 0xC3]),
                    bytes([0x0F, 0xC8 | a]),  # bswap
                    bytes([0xF7, 0xE0 | a]),  # mul
                    bytes([0xF7, 0xF0 | a]),  # div: often #DE
                    bytes([0x66, 0x01, register]),
                    bytes([0x99]),
                    bytes([0xF6, 0x1D]) + word(DATA + 0x300),  # neg byte
                    bytes([0xFF]) + self._operand(r.randrange(2)),  # inc, dec
                    bytes([0x8D]) + self._operand(a),  # lea
                )
            )
        )

    def _stack(self) -> None:
        r = self.random
        self.asm.emit(
            r.choice(
                (
                    bytes([0x50 | self._free()]),
                    bytes([0x50 | self._free()]),
                    bytes([0x58 | self._free()]),
                    bytes([0x6A, r.randrange(256)]),
                    bytes([0xFF]) + self._operand(6),  # push [mem]
                )
            )
        )

    def _string(self) -> None:
        r = self.random
        self.asm.emit(bytes([0xB9]) + word(r.choice((0, 1, 2, 3, 7))))
        source = r.choice((DATA + 0x200, DATA + 0x400, READ_ONLY_PAGE - 6, LAZY_PAGES[0] + 0x10))
        self.asm.emit(bytes([0xBE]) + word(source))
        target = r.choice((DATA + 0x600, DATA + 0x700, LAZY_PAGES[1] - 6, READ_ONLY_PAGE - 5))
        self.asm.emit(bytes([0xBF]) + word(target))
        self.asm.emit(r.choice(("fc", "fc", "fc", "fd")))
        prefix = r.choice(("f3", "f3", "f2", ""))
        for _ in range(r.choice((1, 1, 2))):
            self.asm.emit(prefix + r.choice(("a4", "a5", "66a5", "aa", "ab", "ac", "a6", "a7", "ae", "af")))
        self.asm.emit("fc")

    def _forward(self) -> None:
        opcode = "e9" if self.random.random() < 0.2 else f"0f8{self.random.randrange(16):x}"
        self.pending.append((self.asm.branch(opcode, -1), self.random.randrange(6)))

    def _backward(self) -> None:
        if self.loops == 4:
            return
        cell = COUNTERS + 4 * self.loops
        self.loops += 1
        back = max(0, len(self.asm.items) - self.random.randrange(1, 8))
        self.asm.emit(bytes.fromhex("832d") + word(cell) + b"\x01")  # sub dword [cell], 1
        self.asm.branch("0f8f", back)  # jg

    def _call(self) -> None:
        self.calls.append(self.asm.branch("e8", -1))

    def _subroutines(self) -> None:
        for branch in self.calls:
            self.asm.branches[branch] = len(self.asm.items)
            for _ in range(self.random.randrange(4)):
                self.random.choice((self._arithmetic, self._memory, self._odd_integer))()
            self.asm.emit(self.random.choice(("c3", "c3", "c20000")))

    def _float(self) -> None:
        r = self.random
        self.asm.emit(
            r.choice(
                ("d9e8", "d9eb", "d9ee", "dec1", "dee9", "dec9", "d9c0", "d9e0", "d9fa", "ddd8", "dbe3", "9b")
            )
        )
        if r.random() < 0.4:
            self.asm.emit(bytes([r.choice((0xD9, 0xDD, 0xDB))]) + self._operand(r.choice((0, 2, 3))))

    def _vector(self) -> None:
        r = self.random
        self.asm.emit(
            r.choice(
                (
                    bytes.fromhex("0f58c1"),
                    bytes.fromhex("660fefc0"),
                    bytes.fromhex("660ffec8"),
                    bytes.fromhex("0f10") + self._operand(r.randrange(4)),
                    bytes.fromhex("0f11") + self._operand(r.randrange(4)),
                    bytes.fromhex("660f6ec0"),
                )
            )
        )

    def _exception(self) -> None:
        r = self.random
        self.asm.emit(
            r.choice(
                (
                    "0f0b",  # ud2
                    "cc",
                    "cd03",
                    "cd80",
                    "cd0e",
                    "f4",
                    "fa",
                    "ce",
                    "e460",  # in
                    "ee",  # out
                    "0f20c0",  # mov eax, cr0
                    "8ee0",  # mov fs, ax: mostly a bad selector
                    "0f34",
                    "0f05",
                    "6243f0",  # bound eax, [ebx - 16]
                    "0f32",
                    "6c",
                    "0fc7f0",  # rdrand
                    "f1",
                )
            )
        )

    def _system(self) -> None:
        self.asm.emit(self.random.choice(("0f31", "90", "0faee8", "9f")))


__all__ = ["CODE", "LAZY_PAGES", "NEVER_MAPPED", "READ_ONLY_PAGE", "RandomProgram"]
