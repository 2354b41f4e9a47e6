"""The gdb script that a run writes: connects, and sets what gdb cannot know by itself."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from l4lab.emulator.files.inputs import printable
from l4lab.kernel.units import PAGE_BYTES
from l4lab.tools.native.build import CHECKOUT

if TYPE_CHECKING:
    from l4lab.tools.runs.programs import Programs

_MOST_WORDS: Final = 6
"""One more than any command takes: KIND and four filters."""


def _command(name: str, text: str) -> str:
    """A command of gdb's that is one of `monitor`'s, and then goes on; not if that is refused: an error ends it."""
    lines = [f"define {name}"]
    for count in range(_MOST_WORDS + 1):  # gdb replaces `$arg0`, ..., but has no name for all of them
        words = "".join(f" $arg{index}" for index in range(count))
        compared = "==" if count < _MOST_WORDS else ">="
        lines += [f"  if $argc {compared} {count}", f"    monitor quietly {name}{words}", "  end"]
    return "\n".join((*lines, "  continue", "end", f"document {name}", text, "end", ""))


_COMMANDS: Final = "".join(
    (
        _command(
            "goto",
            "goto CYCLE [CORE]: the first moment at which a core, that of the selected thread, reaches that\n"
            "cycle, before now or after.",
        ),
        _command(
            "back",
            "back KIND [FILTER=...]: to the last such event before now: fault, ipc, map, unmap, ...\n"
            "See `monitor help`.",
        ),
        _command(
            "forth",
            "forth KIND [FILTER=...]: to the next such event; `forth entry`: to the next kernel entry of any core;\n"
            "`forth step`: to the next of the seven steps of the page fault that is followed. See `monitor help`.",
        ),
    )
)


# gdb asks for the description of registers when it connects, for that one inferior only. Asking anew gets it for the
# one that has stopped, and makes gdb forget all registers: when one thread steps alone it keeps those of others, whose
# time has gone on.
_FRESH_REGISTERS: Final = """\
define hook-stop
  unset tdesc filename
end
"""


# When gdb connects again, inferiors that are left over get other tasks, and would keep their programs; libraries are
# looked for in the selected one only.
_COMING_BACK: Final = """\
define hook-disconnect
  thread apply all -q -s exec-file
end
define hookpost-disconnect
  inferior 1
end
define target hookpost-remote
  thread apply all -q -s sharedlibrary
end
"""


def gdb_script(address: str, image: str, programs: Programs, auto_load: Path | None = None) -> str:
    """The script's text. Symbols come by themselves: gdb asks which program each task runs.

    `auto_load`: the folder of `write_auto_load`.
    """
    listed = "\n".join(f"#   {printable(p.name):<16}{printable(p.path)}" for p in programs.all)
    sources = CHECKOUT / "userland"
    folder = f"directory {_quoted(sources)}\n" if sources.is_dir() and str(sources).isprintable() else ""
    loading = ""
    if auto_load is not None and _is_plain(auto_load):
        loading = f"add-auto-load-scripts-directory {auto_load}\nadd-auto-load-safe-path {auto_load}\n"
    return (
        f"# Written by l4lab for {printable(image)}. Start it with: gdb -x THIS-FILE\n"
        "#\n"
        "# Each task is an inferior; gdb asks for its program and loads its symbols when it first runs:\n"
        f"{listed}\n"
        "set architecture i386\n"
        "# gdb on Linux would look for a dynamic linker instead of asking for libraries.\n"
        "set osabi none\n"
        "# Programs lie on this machine, not behind the stub.\n"
        "set sysroot\n"
        f"{folder}"
        "# Time is one for all: going on means all tasks.\n"
        "set schedule-multiple on\n"
        "# Names of programs that have not been started yet.\n"
        "set breakpoint pending on\n"
        "set print symbol-loading off\n"
        "set print thread-events off\n"
        "set print inferior-events off\n"
        f"{_COMMANDS}{_FRESH_REGISTERS}{_COMING_BACK}{loading}"
        f"target remote {address}\n"
    )


def _quoted(path: Path) -> str:
    """A file's name as one word of gdb's."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _is_plain(path: Path) -> bool:
    """Whether gdb takes it for one folder: it splits lists at colons, and knows no quotes there."""
    text = str(path)
    return text.isprintable() and not any(character in text for character in ":; $\\\"'")


def write_script(folder: Path, text: str) -> Path:
    """The script in `folder`; the name is the same for the same folder."""
    path = folder / "l4lab.gdb"
    path.write_text(text, encoding="utf-8")
    return path


@dataclass(frozen=True, slots=True)
class StandIns:
    """Files that gdb gets for what has none.

    `no_program`: for the cores, and for tasks of unknown programs. `kernel_page`: a library with one symbol,
    `system_call`, for the page that the kernel maps into every address space.
    """

    no_program: Path
    kernel_page: Path


def write_stand_ins(folder: Path) -> StandIns:
    """Both, in `folder`."""
    return StandIns(_write_no_program(folder), _write_kernel_page(folder))


def write_auto_load(folder: Path, programs: Programs, stand_ins: StandIns) -> Path:
    """A folder in `folder` with a script for each program, which gdb runs when it loads that for a new inferior.

    Then registers have names in the inferior from its beginning, also in conditions of breakpoints that were pending.
    """
    auto_load = folder / "auto-load"
    for path in (stand_ins.no_program, *(program.path for program in programs.all)):
        real = path.resolve()
        script = auto_load / real.relative_to(real.anchor).parent / f"{real.name}-gdb.gdb"
        with contextlib.suppress(OSError):  # a name that is too long with this
            script.parent.mkdir(parents=True, exist_ok=True)
            script.write_text("unset tdesc filename\n", encoding="utf-8")
    return auto_load


def _write_kernel_page(folder: Path) -> Path:
    path = folder / "kernel-page"
    names = b"\0.text\0.symtab\0.strtab\0system_call\0"
    symbols = bytes(16) + struct.pack("<3I2BH", names.index(b"system_call"), 0, PAGE_BYTES, 0x12, 0, 1)
    first = 52 + 32  # behind the headers
    at_names, at_sections = first + len(symbols), first + len(symbols) + len(names)
    ident = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    header = struct.pack("<16s2H5I6H", ident, 3, 3, 1, 0, 52, at_sections, 0, 52, 32, 1, 40, 4, 3)
    load = struct.pack("<8I", 1, 0, 0, 0, 0, PAGE_BYTES, 5, PAGE_BYTES)
    sections = (
        (0,) * 10,
        (names.index(b".text"), 8, 6, 0, 0, PAGE_BYTES, 0, 0, 16, 0),
        (names.index(b".symtab"), 2, 0, 0, first, len(symbols), 3, 1, 4, 16),
        (names.index(b".strtab"), 3, 0, 0, at_names, len(names), 0, 0, 1, 0),
    )
    table = b"".join(struct.pack("<10I", *section) for section in sections)
    path.write_bytes(header + load + symbols + names + table)
    return path


def _write_no_program(folder: Path) -> Path:
    """An i386 program without code."""
    path = folder / "no-program"
    ident = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    path.write_bytes(struct.pack("<16s2H5I6H", ident, 2, 3, 1, 0, 52, 0, 0, 52, 32, 0, 40, 0, 0))
    return path
