"""The seal of a finished folder: what its files were when they were written.

A flipped bit in a record is another number, and nothing else would tell. The seal is a file beside the others,
written last, with the SHA-256 of each; a folder that was left unfinished has none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from l4lab.emulator.errors import OperatorError
from l4lab.emulator.files.inputs import open_regular, printable, read_text

SEAL_FILE: Final = "seal.json"
SEAL_FORMAT: Final = 1
_LIMIT_BYTES: Final = 1 << 16
_CHUNK_BYTES: Final = 1 << 20


def write_seal(folder: Path, names: Iterable[str], error: type[OperatorError]) -> None:
    """Seal those of the files that are there. Reads each once. Raises `error`."""
    files = {name: _digest(folder / name, error) for name in sorted(names) if (folder / name).exists()}
    text = json.dumps({"format": SEAL_FORMAT, "sha256": files}, indent=1, sort_keys=True) + "\n"
    path = folder / SEAL_FILE
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise error(f"cannot write {printable(path)}: {problem.strerror}") from None


def check_seal(folder: Path, error: type[OperatorError]) -> None:
    """Raises `error` if a sealed file is not what it was; reads each once. A folder without seal is not checked."""
    path = folder / SEAL_FILE
    if not path.exists():
        return
    try:
        found = json.loads(read_text(path, _LIMIT_BYTES, error))
        files = dict(found["sha256"]) if found["format"] == SEAL_FORMAT else {}
    except (ValueError, RecursionError, KeyError, TypeError):
        files = {}
    if not files:
        raise error(
            f"{printable(path)}: found another text than was written, expected the seal of its folder"
        )
    for name, digest in sorted(files.items()):
        if Path(name).name != name or _digest(folder / name, error) != digest:
            raise error(
                f"{printable(folder / name)}: found another content than was written, expected that of {SEAL_FILE}"
            )


def _digest(path: Path, error: type[OperatorError]) -> str:
    stream, _ = open_regular(path, error)
    try:
        with stream:
            digest = hashlib.sha256()
            while data := stream.read(_CHUNK_BYTES):
                digest.update(data)
            return digest.hexdigest()
    except OSError as problem:
        raise error(f"{printable(path)}: {problem.strerror}, expected a readable file") from None
