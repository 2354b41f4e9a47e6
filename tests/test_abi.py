"""The C side of the interface: the generated header, and the structures laid over it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from l4lab.kernel.fiasco import abi
from l4lab.tools.native import abigen

INCLUDE = abigen.HEADER.parents[1]
HEADERS = sorted(path.name for path in abigen.HEADER.parent.glob("*.h"))
TARGET = ("-target", "x86-freestanding-none", "-mcpu=i486", "-ffreestanding", "-std=c11")


def compile_c(folder: Path, text: str, *, name: str = "check") -> subprocess.CompletedProcess[str]:
    """Compiles a C file against the headers, warnings being errors."""
    source = folder / f"{name}.c"
    source.write_text(text, encoding="utf-8")
    options = (
        "-Wall",
        "-Wextra",
        "-Werror",
        f"-I{INCLUDE}",
        "-c",
        str(source),
        "-o",
        str(folder / f"{name}.o"),
    )
    command = [sys.executable, "-m", "ziglang", "cc", *TARGET, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_header_is_what_the_generator_writes() -> None:
    """abi.h is committed, and regenerating it gives the same bytes."""
    expected = abigen.header_text(abigen.SOURCE.read_text(encoding="utf-8"), vars(abi))
    assert abigen.HEADER.read_bytes() == expected.encode()


def test_every_number_of_the_module_is_in_the_header(tmp_path: Path) -> None:
    """Each integer constant has the same 32 bits on both sides, as the C compiler sees them."""
    numbers = {name: value for name, value in vars(abi).items() if name.isupper() and isinstance(value, int)}
    assert len(numbers) > 250
    checks = "".join(
        f'_Static_assert((unsigned)L4_{name} == {value & 0xFFFFFFFF:#x}u, "{name}");\n'
        for name, value in numbers.items()
    )
    done = compile_c(tmp_path, f"#include <l4/abi.h>\n{checks}")
    assert done.returncode == 0, done.stderr


def test_structures_match_the_numbers(tmp_path: Path) -> None:
    """All headers compile together, and with that the static assertions on sizes and offsets in them."""
    text = "".join(f"#include <l4/{name}>\n" for name in HEADERS)
    done = compile_c(tmp_path, text)
    assert done.returncode == 0, done.stderr
    for name, least in (("utcb.h", 8), ("kip.h", 13), ("bootinfo.h", 8)):
        assert (INCLUDE / "l4" / name).read_text(encoding="utf-8").count("_Static_assert") >= least, name


def test_assertions_can_fail(tmp_path: Path) -> None:
    """A structure that is laid out otherwise does not compile: the check above is one."""
    text = "#include <l4/types.h>\n#undef L4_UTCB_BDR\n#define L4_UTCB_BDR 0x104\n#include <l4/utcb.h>\n"
    done = compile_c(tmp_path, text)
    assert done.returncode != 0
    assert "buffer descriptor" in done.stderr


def test_headers_need_no_other_before_them(tmp_path: Path) -> None:
    """Each header compiles as the first one of a file."""
    for name in HEADERS:
        done = compile_c(tmp_path, f"#include <l4/{name}>\n", name=name)
        assert done.returncode == 0, done.stderr


def test_generator_keeps_radix_comments_and_order() -> None:
    """What a reader of the module sees is what a reader of the header sees."""
    source = (
        "# --- 1: heading ---\n"
        "HEX: Final = 0x0FF  # why\n"
        "# A note.\n"
        "SHIFTED: Final = 1 << 4\n"
        "NEGATIVE: Final = -3\n"
        'NAMES: Final = ("a", "b")\n'
    )
    values = {"HEX": 0xFF, "SHIFTED": 16, "NEGATIVE": -3, "NAMES": ("a", "b")}
    lines = abigen.header_text(source, values).split("#define L4_ABI_H\n", 1)[1].strip().splitlines()
    assert lines == [
        "/* --- 1: heading --- */",
        "#define L4_HEX 0x0FF /* why */",
        "/* A note. */",
        "#define L4_SHIFTED 0x10",
        "#define L4_NEGATIVE (-3)",
        '#define L4_NAMES { "a", "b" }',
        "",
        "#endif",
    ]


def test_generator_refuses_what_c_cannot_say() -> None:
    """A value of another type is an error, not a missing line."""
    with pytest.raises(TypeError, match="no C form"):
        abigen.header_text("BAD: Final = 1.5\n", {"BAD": 1.5})
