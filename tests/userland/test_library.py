"""userland/lib, in small programs that run on the machine."""

from __future__ import annotations

import ctypes
import mmap
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import l4lab
from l4lab.tools.native.build import CHECKOUT
from support.elf_builder import ElfBuilder
from support.programs import compile_program, write_manifest

USERLAND = CHECKOUT / "userland"
WORD = 1 << 32
SEED = 20260621


def run_main(folder: Path, body: str, prelude: str = "") -> list[str]:
    """What a root task with this `main` prints, line by line. It must end with 0."""
    source = f"""
#include <l4/panic.h>
#include <l4/print.h>
#include <l4/program.h>
#include <l4/string.h>
{prelude}
int main(void) {{
{body}
return 0;
}}
"""
    program = compile_program(source, folder / "program")
    result = l4lab.Machine(l4lab.load_manifest(write_manifest(folder / "image.toml", program.name))).run()
    assert result.exit_code == 0, result.console
    return result.console.decode().split("\n")[:-1]


# --- printing ------------------------------------------------------------------------------------

# A format, a C argument, and the same for Python if it is another.
CONVERSIONS: list[tuple[str, str, str, object]] = [
    ("%d", "0", "%d", 0),
    ("%d", "-1", "%d", -1),
    ("%i", "2147483647", "%d", 2147483647),
    ("%d", "(int)0x80000000", "%d", -2147483648),
    ("%u", "4294967295u", "%u", 4294967295),
    ("%x", "0xdeadbeefu", "%x", 0xDEADBEEF),
    ("%X", "0xdeadbeefu", "%X", 0xDEADBEEF),
    ("%lx", "0xfful", "%x", 0xFF),
    ("%zu", "(size_t)77", "%u", 77),
    ("%llu", "18446744073709551615ull", "%u", 2**64 - 1),
    ("%lld", "(long long)0x8000000000000000ull", "%d", -(2**63)),
    ("%llx", "0x123456789abcdef0ull", "%x", 0x123456789ABCDEF0),
    ("%8d|", "42", "%8d|", 42),
    ("%-8d|", "42", "%-8d|", 42),
    ("%08d|", "-42", "%08d|", -42),
    ("%04x", "0xabcdefu", "%04x", 0xABCDEF),
    ("%08x", "0xabcu", "%08x", 0xABC),
    ("%2u|", "12345u", "%2u|", 12345),
    ("%p", "(void *)0x1234", "0x%08x", 0x1234),
    ("%s", '"text"', "%s", "text"),
    ("%10s|", '"text"', "%10s|", "text"),
    ("%-10s|", '"text"', "%-10s|", "text"),
    ("%.2s|", '"text"', "%.2s|", "text"),
    ("%5.3s|", '"text"', "%5.3s|", "text"),
    ("%s", "(char *)0", "%s", "(null)"),
    ("%c", "'x'", "%c", "x"),
    ("%3c|", "'x'", "%3c|", "x"),
]


def test_printf_formats_as_python_does(tmp_path: Path) -> None:
    """Each conversion with width, sign, fill and precision."""
    body = "\n".join(f'printf("{form}\\n", {argument});' for form, argument, _, _ in CONVERSIONS)
    assert run_main(tmp_path, body) == [form % value for _, _, form, value in CONVERSIONS]


def test_printf_writes_what_is_longer_than_a_message(tmp_path: Path) -> None:
    """A line of several messages to the log arrives whole and in order."""
    text = "".join(chr(ord("a") + i % 26) for i in range(1000))
    assert run_main(tmp_path, 'printf("%s%d\\n", text, 5);', f'static const char text[] = "{text}";') == [
        text + "5"
    ]


def test_snprintf_cuts_and_tells_the_whole_length(tmp_path: Path) -> None:
    """The final 0 is within the given size, even if that is 1; with 0 nothing is written."""
    body = """
    char small[6] = "?????";
    size_t length = snprintf(small, sizeof small, "%s", "0123456789");
    printf("%s %zu\\n", small, length);
    length = snprintf(small, 1, "%s", "0123456789");
    printf("[%s] %zu\\n", small, length);
    small[0] = '!';
    length = snprintf(small, 0, "%d", 123);
    printf("%c %zu\\n", small[0], length);
    """
    assert run_main(tmp_path, body) == ["01234 10", "[] 10", "! 3"]


def test_printing_keeps_message_registers_and_error(tmp_path: Path) -> None:
    """It may stand between receiving a message and reading it."""
    body = """
    l4_utcb_t *utcb = l4_utcb();
    for (unsigned i = 0; i < L4_UTCB_MR_WORDS; i++)
        utcb->mr[i] = 0x1000 + i;
    utcb->error = 7;
    printf("%200s\\n", "");
    unsigned same = 0;
    for (unsigned i = 0; i < L4_UTCB_MR_WORDS; i++)
        same += utcb->mr[i] == 0x1000 + i;
    printf("%u %u\\n", same, utcb->error);
    """
    assert run_main(tmp_path, body)[1] == "63 7"


# --- arithmetic and strings ------------------------------------------------------------------------


def test_64_bit_division_agrees_with_python(tmp_path: Path) -> None:
    """Quotient and remainder for random numbers of every length, and the edges."""
    generate = random.Random(SEED)
    edges = [1, 2, 3, WORD - 1, WORD, WORD + 1, 2**63, 2**64 - 1]
    pairs = [(a, b) for a in [0, *edges] for b in edges]
    for _ in range(400):
        pairs.append(
            (generate.getrandbits(generate.randint(1, 64)), generate.getrandbits(generate.randint(1, 64)) | 1)
        )
    table = ",".join(f"{{{a}ull, {b}ull}}" for a, b in pairs)
    prelude = f"static volatile const uint64_t pairs[][2] = {{{table}}};"
    body = """
    for (unsigned i = 0; i < sizeof pairs / sizeof *pairs; i++)
        printf("%llx %llx\\n", pairs[i][0] / pairs[i][1], pairs[i][0] % pairs[i][1]);
    """
    assert run_main(tmp_path, body, prelude) == [f"{a // b:x} {a % b:x}" for a, b in pairs]


def test_memory_functions_at_every_offset_and_length(tmp_path: Path) -> None:
    """memcpy, memset, and memmove in both directions over overlapping bytes, against loops."""
    prelude = """
static unsigned char here[96], there[96];
static void reset(void) {
    for (unsigned i = 0; i < 96; i++) {
        here[i] = (unsigned char)(i * 7 + 1);
        there[i] = here[i];
    }
}
static unsigned differences(void) {
    unsigned count = 0;
    for (unsigned i = 0; i < 96; i++)
        count += here[i] != there[i];
    return count;
}
"""
    body = """
    unsigned wrong = 0;
    volatile unsigned char *model = there;
    for (unsigned from = 0; from < 24; from++)
        for (unsigned to = 0; to < 24; to++)
            for (unsigned length = 0; length < 20; length += 3) {
                unsigned char kept[20];
                reset();
                for (unsigned i = 0; i < length; i++)
                    kept[i] = there[from + i];
                for (unsigned i = 0; i < length; i++)
                    model[to + i] = kept[i];
                wrong += memmove(here + to, here + from, length) != here + to || differences() != 0;
                reset();
                for (unsigned i = 0; i < length; i++)
                    model[48 + to + i] = there[from + i];
                wrong += memcpy(here + 48 + to, here + from, length) != here + 48 + to || differences() != 0;
                reset();
                for (unsigned i = 0; i < length; i++)
                    model[to + i] = (unsigned char)from;
                wrong += memset(here + to, (int)from, length) != here + to || differences() != 0;
                wrong += memcmp(here, there, 96) != 0;
            }
    printf("%u\\n", wrong);
    """
    assert run_main(tmp_path, body, prelude) == ["0"]


def test_string_functions(tmp_path: Path) -> None:
    """Comparison is of unsigned characters; searching finds the end; numbers are whole or not at all."""
    body = r"""
    printf("%d %d %d\n", strcmp("a", "b") < 0, strcmp("\xff", "a") > 0, strcmp("same", "same"));
    printf("%d %d\n", strncmp("abcd", "abce", 3), strncmp("ab", "abc", 5) < 0);
    printf("%s %s\n", strchr("key=value=x", '='), strrchr("key=value=x", '='));
    printf("%d %d\n", strchr("abc", 'x') == NULL, *strchr("abc", 0));
    char copy[8] = "???????";
    strncpy(copy, "ab", 5);
    printf("%d %d %c\n", copy[2], copy[4], copy[5]);
    printf("%lu %lu %lu\n", l4_number("42", 7), l4_number("0x1f", 7), l4_number("", 7));
    printf("%lu %lu\n", l4_number("4x", 7), l4_number("0x", 7));
    printf("%lu %lu %lu\n", l4_number("4294967295", 7), l4_number("4294967296", 7), l4_number("0x100000000", 7));
    printf("%lu %lu\n", l4_number("4294967297", 7), l4_number("42949672960", 7));
    """
    lines = ["1 1 0", "0 1", "=value=x =x", "1 0", "0 0 ?", "42 31 7", "7 7", "4294967295 7 7", "7 7"]
    assert run_main(tmp_path, body) == lines


# --- executables ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], str | None]:
    """l4_elf_problem, built for the host; the file's last byte is the last one that it may touch."""
    library = tmp_path_factory.mktemp("elf") / "elf.so"
    options = ("-std=c11", "-O1", "-shared", "-fPIC", "-fsanitize=undefined", "-fsanitize-trap=undefined")
    command = [sys.executable, "-m", "ziglang", "cc", *options, "-fno-sanitize=alignment"]
    subprocess.run(
        [*command, f"-I{USERLAND}/include", str(USERLAND / "lib/elf.c"), "-o", str(library)], check=True
    )
    function = ctypes.CDLL(str(library)).l4_elf_problem
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    function.restype = ctypes.c_char_p
    libc = ctypes.CDLL(None)

    def problem(image: bytes) -> str | None:
        pages = -(-len(image) // mmap.PAGESIZE) or 1
        memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
        view = ctypes.c_char.from_buffer(memory)
        address = ctypes.addressof(view)
        guard = ctypes.c_void_p(address + pages * mmap.PAGESIZE)
        assert libc.mprotect(guard, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
        # Word-aligned, as a boot module is; the up to three bytes behind it are not looked at by any check.
        start = pages * mmap.PAGESIZE - (len(image) + 3) // 4 * 4
        memory[start : start + len(image)] = image
        answer: bytes | None = function(address + start, len(image))
        libc.mprotect(guard, ctypes.c_size_t(mmap.PAGESIZE), 3)
        del view
        memory.close()
        return None if answer is None else answer.decode()

    return problem


def load_segments(image: bytes) -> list[tuple[int, int, int, int]]:
    """(offset, address, bytes in the file, bytes in memory) of what is loaded."""
    offset, size, count = (
        struct.unpack_from("<I", image, 28)[0],
        struct.unpack_from("<H", image, 42)[0],
        struct.unpack_from("<H", image, 44)[0],
    )
    rows = [struct.unpack_from("<8I", image, offset + i * size) for i in range(count)]
    return [(row[1], row[2], row[4], row[5]) for row in rows if row[0] == 1 and row[5] > 0]


def is_sound(image: bytes) -> bool:
    """What the root task relies on once l4_elf_problem has accepted an executable."""
    page = 0
    for offset, address, in_file, in_memory in load_segments(image):
        if in_file > in_memory or (in_file and offset + in_file > len(image)):
            return False
        if address + in_memory > 0xC0000000:
            return False
        if address // 4096 < page:
            return False
        page = -(-(address + in_memory) // 4096)
    return True


@pytest.fixture(scope="module")
def hello() -> bytes:
    return (CHECKOUT / "src/l4lab/_native/programs/hello").read_bytes()


def test_built_programs_are_accepted(judge: Callable[[bytes], str | None]) -> None:
    """All of them, as boot modules."""
    for path in sorted((CHECKOUT / "src/l4lab/_native/programs").iterdir()):
        assert judge(path.read_bytes()) is None, path.name


@pytest.mark.parametrize(
    ("offset", "value", "problem"),
    [
        (0, b"\x7fELG", "not an ELF file"),
        (4, b"\x02", "not for i386"),
        (18, b"\x3e\x00", "not for i386"),
        (16, b"\x03\x00", "not an executable"),
        (28, b"\xf0\xff\xff\xff", "program headers outside of the file"),
        (44, b"\xff\xff", "program headers outside of the file"),
        (24, b"\x00\x00\x00\x00", "entry point outside of all segments"),
        (52, b"\x03\x00\x00\x00", "dynamically linked"),
        (52 + 4, b"\xff\xff\xff\x7f", "segment outside of the file"),
        (52 + 16, b"\xff\xff\xff\xff", "segment outside of the file"),
        (52 + 8, b"\x00\xf8\xff\xbf", "segment in the kernel's address space"),
        (52 + 32 + 8, b"\x00\x80\x04\x08", "segments that share a page or are not in order"),
    ],
)
def test_each_problem_is_named(
    judge: Callable[[bytes], str | None], hello: bytes, offset: int, value: bytes, problem: str
) -> None:
    """One change to a sound executable, one sentence."""
    assert judge(hello[:offset] + value + hello[offset + len(value) :]) == problem


@pytest.mark.parametrize(
    ("offset", "in_file", "problem"),
    [
        (0, 0, None),
        (0x10000, 0, None),
        (0xFFFFFFFF, 0, None),
        (0x10000, 1, "segment outside of the file"),
        (0xFFFFFFFF, 1, "segment outside of the file"),
        (0, 0x3000, "segment outside of the file"),
        (0, 0x3001, "segment outside of the file"),
    ],
)
def test_a_segment_of_zeros_may_have_its_offset_behind_the_file(
    judge: Callable[[bytes], str | None], offset: int, in_file: int, problem: str | None
) -> None:
    builder = ElfBuilder(e_entry=0x08048000).segment(0x08048000, b"\x90" * 64, flags=5)
    builder.segment(0x09000000, b"", flags=6, memory=0x3000, p_offset=offset, p_filesz=in_file)
    assert judge(builder.build()) == problem


def test_truncated_files_are_refused_at_every_length(
    judge: Callable[[bytes], str | None], hello: bytes
) -> None:
    """Until the last loaded byte is there."""
    needed = max(offset + in_file for offset, _, in_file, _ in load_segments(hello) if in_file)
    for length in [*range(120), *range(120, needed, 97), needed - 1]:
        assert judge(hello[:length]) is not None, length
    assert judge(hello[:needed]) is None


def test_mutated_files_are_sound_or_refused(judge: Callable[[bytes], str | None], hello: bytes) -> None:
    """Nothing outside of the file is read, and what is accepted can be loaded."""
    generate = random.Random(SEED)
    refused = 0
    for _ in range(5000):
        image = bytearray(hello[: generate.choice([len(hello), generate.randrange(len(hello))])])
        for _ in range(generate.randint(1, 6)):
            place = generate.randrange(148)
            if place < len(image):
                image[place] = generate.choice([0, 1, 0x7F, 0x80, 0xFF, generate.randrange(256)])
        if judge(bytes(image)) is None:
            assert is_sound(bytes(image))
        else:
            refused += 1
    assert 1000 < refused < 5000
