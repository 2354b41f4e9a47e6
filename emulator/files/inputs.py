"""What every reader of an operator's file shares: opening it, naming it, suggesting a spelling.

A reader takes its own error class along, so that a missing program is an ImageError and a missing
manifest a ManifestError, in the same words. Whatever comes from outside passes `printable` on its
way into a message: one mistake is one line, whatever the file or the key is called.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

from l4lab.emulator.errors import OperatorError

PACKAGE_DIR: Final = Path(__file__).parents[2]
"""The installed package: `images/`, `_native/programs/` lie below it."""

BUNDLED_IMAGES: Final = PACKAGE_DIR / "images"
BUNDLED_PROFILES: Final = BUNDLED_IMAGES / "profiles"
BUNDLED_PROGRAMS: Final = PACKAGE_DIR / "_native" / "programs"

_SHOWN_CHARACTERS: Final = 300
_KINDS: Final = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def printable(text: object) -> str:
    """`str(text)` on one line: control characters and lone surrogates escaped, excess cut off."""
    shown = str(text)
    if len(shown) > _SHOWN_CHARACTERS:
        shown = f"{shown[:_SHOWN_CHARACTERS]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean "cores"?)` if one of `known` is spelt like `word`, else nothing."""
    close = difflib.get_close_matches(word, sorted(known), n=1)
    return f' (did you mean "{close[0]}"?)' if close else ""


def listed(names: Iterable[str]) -> str:
    """The names in order, for the end of a message; says so if there are none."""
    return ", ".join(sorted(names)) or "none"


def bundled_names(folder: Path, suffix: str = "") -> tuple[str, ...]:
    """Names of the files in `folder` that end in `suffix`, without it, sorted; none if it is not there."""
    return tuple(sorted(p.name.removesuffix(suffix) for p in folder.glob(f"*{suffix}") if p.is_file()))


def find_bundled(name_or_path: str, folder: Path, base: Path, what: str, error: type[OperatorError]) -> Path:
    """The TOML file that an operator means: a path, or the name of a bundled one in `folder`.

    A word with a separator or the ending `.toml` is a path, relative to `base`; any other is a
    name. `what` says what the bundled ones are. Raises `error`, which lists them.
    """
    if is_path(name_or_path):
        path = base / name_or_path
        open_regular(path, error)[0].close()  # says what is wrong with it
        return path
    names = bundled_names(folder, ".toml")
    if name_or_path in names:
        return folder / f"{name_or_path}.toml"
    found = f'found no {what} "{printable(name_or_path)}"{did_you_mean(name_or_path, names)}'
    raise error(f"{found}, expected the path of one (as in ./NAME.toml) or a bundled one: {listed(names)}")


def is_path(name_or_path: str) -> bool:
    """Whether an operator's word is a path and cannot be the name of something bundled."""
    return name_or_path.endswith(".toml") or "/" in name_or_path or os.sep in name_or_path


def why_no_file(path: Path) -> str | None:
    """What stands where a regular file should, in words for a message; None if one does."""
    try:
        mode = path.stat().st_mode
    except OSError as problem:
        return _why(problem)
    except ValueError:  # a NUL or a lone surrogate
        return "a name that no file can have"
    if stat.S_ISREG(mode):
        return None
    return next((kind for test, kind in _KINDS if test(mode)), "something else")


def open_regular(path: Path, error: type[OperatorError]) -> tuple[BinaryIO, int]:
    """The file opened for reading, and its size in bytes.

    Looks before it opens: opening a pipe would wait for a writer. Raises `error` for anything
    that is missing, no regular file, or not readable.
    """
    obstacle = why_no_file(path)
    if obstacle is None:
        try:
            stream = path.open("rb")
        except OSError as problem:
            obstacle = _why(problem)
        else:
            return stream, os.fstat(stream.fileno()).st_size
    raise error(f"{printable(path)}: found {obstacle}, expected a readable file")


def read_text(path: Path, limit_bytes: int, error: type[OperatorError]) -> str:
    """The whole file as UTF-8 text; `error` if it is larger than `limit_bytes` or other bytes.

    A byte order mark, which some editors on Windows write, is dropped.
    """
    stream, size_bytes = open_regular(path, error)
    try:
        with stream:
            raw = stream.read(limit_bytes + 1)
    except OSError as problem:
        raise error(f"{printable(path)}: found {_why(problem)}, expected a readable file") from None
    if len(raw) > limit_bytes:
        raise error(f"{printable(path)}: found {size_bytes} bytes, expected at most {limit_bytes}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        found = f"byte 0x{raw[problem.start]:02x} in line {line}"
        raise error(f"{printable(path)}: found {found}, expected UTF-8 text") from None


def _why(problem: OSError) -> str:
    match problem:
        case FileNotFoundError() | NotADirectoryError():
            return "no such file"
        case PermissionError():
            return "a file without permission to read it"
    return (problem.strerror or "an unreadable file").lower()
