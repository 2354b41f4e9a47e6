"""Registers: their order and description for gdb, and where they stand in a thread's frame.

Ref: "Debugging with GDB", G.5.7 "i386 Features"; Intel SDM vol. 1, 10.5.1 (FXSAVE area).
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from l4lab.emulator.debug.stops import RegisterEdit
from l4lab.emulator.interfaces import INTERFACE
from l4lab.kernel import frame as f

if TYPE_CHECKING:
    from l4lab.kernel.thread import Thread

_SEGMENTS: Final = {"cs": f.CS, "ss": f.SS, "ds": f.DS, "es": f.ES, "fs": f.FS, "gs": f.GS}
_GENERAL: Final = {
    **{name: i for i, name in enumerate(("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"))},
    "eip": f.EIP,
    "eflags": f.EFLAGS,
    **_SEGMENTS,
}
_ALWAYS_SET: Final = 0x202
_INITIAL_FPU: Final = struct.pack(
    "<HHBBHIHHIHHII", 0x37F, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x1F80, 0xFFFF
).ljust(f.FPU_AREA_WORDS * 4, b"\0")
_ST: Final = 32
_XMM: Final = 160
_MXCSR: Final = 24
# name -> (offset in the FXSAVE area, bytes) of what is stored there as gdb wants it.
_CONTROL: Final = {
    "fctrl": (0, 2),
    "fstat": (2, 2),
    "ftag": (4, 1),
    "fiseg": (12, 2),
    "fioff": (8, 4),
    "foseg": (20, 2),
    "fooff": (16, 4),
    "fop": (6, 2),
}


@dataclass(frozen=True, slots=True)
class Register:
    """One register as gdb knows it. `type`: of the target description."""

    name: str
    bits: int
    type: str
    feature: str
    group: str = ""

    @property
    def size_bytes(self) -> int:
        """Bytes in a `g` packet."""
        return self.bits // 8


def _registers() -> tuple[Register, ...]:
    core, sse = "org.gnu.gdb.i386.core", "org.gnu.gdb.i386.sse"
    types = {"esp": "data_ptr", "ebp": "data_ptr", "eip": "code_ptr", "eflags": "i386_eflags"}
    general = [Register(name, 32, types.get(name, "int32"), core) for name in _GENERAL]
    stack = [Register(f"st{i}", 80, "i387_ext", core) for i in range(8)]
    control = [Register(name, 32, "int", core, "float") for name in _CONTROL]
    vectors = [Register(f"xmm{i}", 128, "vec128", sse) for i in range(8)]
    bases = [Register(f"{name}_base", 32, "data_ptr", "org.l4lab.segments", "system") for name in _SEGMENTS]
    system = [
        Register("cr3", 32, "data_ptr", "org.l4lab.machine", "system"),
        Register("cycles", 64, "uint64", "org.l4lab.machine", "system"),
        Register("instructions", 64, "uint64", "org.l4lab.machine", "system"),
    ]
    mxcsr = Register("mxcsr", 32, "i386_mxcsr", sse, "vector")
    return (*general, *stack, *control, *vectors, mxcsr, *bases, *system)


REGISTERS: Final = _registers()
COMMON: Final = tuple(register for register in REGISTERS if register.feature.startswith("org.gnu.gdb.i386."))
"""Those that gdb knows even without a description. They come first."""
COUNTERS: Final = ("cycles", "instructions")
"""Those that go on by themselves while a thread runs."""
EIP_NUMBER: Final = [register.name for register in REGISTERS].index("eip")
ESP_NUMBER: Final = [register.name for register in REGISTERS].index("esp")
EBP_NUMBER: Final = [register.name for register in REGISTERS].index("ebp")

_EFLAGS_FIELDS: Final = (
    ("CF", 0),
    ("", 1),
    ("PF", 2),
    ("AF", 4),
    ("ZF", 6),
    ("SF", 7),
    ("TF", 8),
    ("IF", 9),
    ("DF", 10),
    ("OF", 11),
    ("NT", 14),
    ("RF", 16),
    ("AC", 18),
    ("ID", 21),
)
_MXCSR_NAMES: Final = ("IE", "DE", "ZE", "OE", "UE", "PE", "DAZ", "IM", "DM", "ZM", "OM", "UM", "PM")
_MXCSR_FIELDS: Final = (*((name, bit) for bit, name in enumerate(_MXCSR_NAMES)), ("FZ", 15))


def _flags(name: str, fields: tuple[tuple[str, int], ...]) -> str:
    lines = [f'    <field name="{field}" start="{bit}" end="{bit}"/>' for field, bit in fields]
    return "\n".join((f'  <flags id="{name}" size="4">', *lines, "  </flags>"))


_VECTOR_TYPES: Final = """\
  <vector id="v4f" type="ieee_single" count="4"/>
  <vector id="v2d" type="ieee_double" count="2"/>
  <vector id="v16i8" type="int8" count="16"/>
  <vector id="v8i16" type="int16" count="8"/>
  <vector id="v4i32" type="int32" count="4"/>
  <vector id="v2i64" type="int64" count="2"/>
  <union id="vec128">
    <field name="v4_float" type="v4f"/>
    <field name="v2_double" type="v2d"/>
    <field name="v16_int8" type="v16i8"/>
    <field name="v8_int16" type="v8i16"/>
    <field name="v4_int32" type="v4i32"/>
    <field name="v2_int64" type="v2i64"/>
    <field name="uint128" type="uint128"/>
  </union>"""


def target_description() -> str:
    """`target.xml`: which registers there are, in the order of their numbers."""
    features: dict[str, list[str]] = {}
    for register in REGISTERS:
        group = f' group="{register.group}"' if register.group else ""
        line = f'  <reg name="{register.name}" bitsize="{register.bits}" type="{register.type}"{group}/>'
        features.setdefault(register.feature, []).append(line)
    types = {
        "org.gnu.gdb.i386.core": _flags("i386_eflags", _EFLAGS_FIELDS),
        "org.gnu.gdb.i386.sse": f"{_VECTOR_TYPES}\n{_flags('i386_mxcsr', _MXCSR_FIELDS)}",
    }
    body = "\n".join(
        "\n".join(
            (f' <feature name="{name}">', *([types[name]] if name in types else []), *lines, " </feature>")
        )
        for name, lines in features.items()
    )
    return (
        '<?xml version="1.0"?>\n<!DOCTYPE target SYSTEM "gdb-target.dtd">\n<target version="1.0">\n'
        f" <architecture>i386</architecture>\n{body}\n</target>\n"
    )


# --- values -------------------------------------------------------------------------------------------


def read(frame: array[int], clock_cycles: int, name: str) -> bytes:
    """The value of a register, as it stands in a packet. x87/SSE state must be in the frame."""
    if name in _GENERAL:
        return frame[_GENERAL[name]].to_bytes(4, "little")
    if name.endswith("_base"):
        return segment_base(frame, frame[_SEGMENTS[name[:2]]]).to_bytes(4, "little")
    if name == "cr3":
        return frame[f.CR3].to_bytes(4, "little")
    if name == "cycles":
        return clock_cycles.to_bytes(8, "little")
    if name == "instructions":
        return f.read_counter(frame, f.INSTRUCTIONS).to_bytes(8, "little")
    area = _fpu_area(frame)
    if name == "ftag":
        return _full_tags(area).to_bytes(4, "little")
    offset, size = _place(name)
    return area[offset : offset + size].ljust(10 if name.startswith("st") else 4, b"\0")


def segment_base(frame: array[int], selector: int) -> int:
    """The linear address at which a segment begins; 0 for the flat ones and for null."""
    index = selector >> 3
    if selector & ~3 == INTERFACE.selectors.utcb & ~3:
        return frame[f.UTCB_BASE]
    first = INTERFACE.selectors.first_thread >> 3
    if not first <= index < first + INTERFACE.selectors.thread_entries:
        return 0
    low, high = frame[f.GDT_ENTRIES + 2 * (index - first)], frame[f.GDT_ENTRIES + 2 * (index - first) + 1]
    return low >> 16 | (high & 0xFF) << 16 | high & 0xFF000000


def write(thread: Thread, name: str, value: bytes) -> RegisterEdit | None:
    """The edit that gives a register this value; None for a register that nobody may change."""
    word = int.from_bytes(value[:4], "little")
    if name in _SEGMENTS:
        return None if name == "cs" else RegisterEdit(thread.number, _SEGMENTS[name], (word & 0xFFFF,))
    if name == "eflags":
        return RegisterEdit(thread.number, f.EFLAGS, (word & f.EFLAGS_USER_MASK | _ALWAYS_SET,))
    if name in _GENERAL:
        return RegisterEdit(thread.number, _GENERAL[name], (word,))
    if name not in _FPU_NAMES:
        return None
    area = bytearray(_fpu_area(thread.frame))
    offset, size = _place(name)
    area[offset : offset + size] = bytes((_short_tags(word),)) if name == "ftag" else value[:size]
    return RegisterEdit(thread.number, f.FPU_AREA, struct.unpack(f"<{f.FPU_AREA_WORDS}I", area))


def _place(name: str) -> tuple[int, int]:
    """Offset and size in the FXSAVE area."""
    if name.startswith("st"):
        return _ST + 16 * int(name[2:]), 10
    if name.startswith("xmm"):
        return _XMM + 16 * int(name[3:]), 16
    return (_MXCSR, 4) if name == "mxcsr" else _CONTROL[name]


def _fpu_area(frame: array[int]) -> bytes:
    if not frame[f.FPU_VALID]:
        return _INITIAL_FPU
    return frame[f.FPU_AREA : f.FPU_AREA + f.FPU_AREA_WORDS].tobytes()


def _full_tags(area: bytes) -> int:
    """Two bits for each x87 register instead of one: 0 valid, 1 zero, 2 special, 3 empty."""
    top = area[3] >> 3 & 7
    tags = 0
    for physical in range(8):
        if not area[4] >> physical & 1:
            tag = 3
        else:
            at = _ST + 16 * ((physical - top) & 7)
            significand = int.from_bytes(area[at : at + 8], "little")
            exponent = int.from_bytes(area[at + 8 : at + 10], "little") & 0x7FFF
            if exponent == 0 and significand == 0:
                tag = 1
            else:
                tag = 0 if exponent != 0x7FFF and significand >> 63 else 2
        tags |= tag << 2 * physical
    return tags


def _short_tags(tags: int) -> int:
    """One bit for each x87 register, as in the FXSAVE area: set if it is not empty."""
    return sum((tags >> 2 * physical & 3 != 3) << physical for physical in range(8))


_FPU_NAMES: Final = frozenset(
    register.name
    for register in REGISTERS
    if register.name.startswith(("st", "xmm")) or register.name in _CONTROL or register.name == "mxcsr"
)
