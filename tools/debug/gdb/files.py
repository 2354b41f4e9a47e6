"""The programs' files, for a gdb that asks the target for them: read only, and only these."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from l4lab.tools.debug.gdb.framing import MAX_PACKET_BYTES
from l4lab.tools.debug.gdb.packets import files

_ENOENT: Final = b"F-1,2"
_EBADF: Final = b"F-1,9"
_REGULAR_READABLE: Final = 0o100444
_BLOCK_BYTES: Final = 512
MAX_OPEN: Final = 64


class Files:
    """What can be opened: `known` maps the paths that clients are told to files."""

    def __init__(self, known: dict[str, Path]) -> None:
        self._known = known
        self._open: dict[int, bytes] = {}

    def answer(self, request: files.Request) -> bytes:
        """The reply: `F result`, or `F -1,errno`."""
        if isinstance(request, files.SetFilesystem):
            return b"F0"
        if isinstance(request, files.OpenFile):
            return self._open_file(request)
        data = self._open.get(request.handle)
        if data is None:
            return _EBADF
        if isinstance(request, files.CloseFile):
            del self._open[request.handle]
            return b"F0"
        if isinstance(request, files.StatFile):
            return b"F40;" + _stat(len(data))
        size = min(request.size_bytes, MAX_PACKET_BYTES // 2 - 16)
        piece = data[request.offset : request.offset + size]
        return b"F%x;%s" % (len(piece), piece)

    def _open_file(self, request: files.OpenFile) -> bytes:
        path = self._known.get(request.path)
        if path is None or request.flags or len(self._open) >= MAX_OPEN:
            return _ENOENT
        try:
            data = path.read_bytes()
        except OSError:
            return _ENOENT
        handle = next(number for number in range(MAX_OPEN) if number not in self._open)
        self._open[handle] = data
        return b"F%x" % handle


def _stat(size_bytes: int) -> bytes:
    """The protocol's own `struct stat`, big endian."""
    blocks = -(-size_bytes // _BLOCK_BYTES)
    return struct.pack(
        ">7I3Q3I", 0, 0, _REGULAR_READABLE, 1, 0, 0, 0, size_bytes, _BLOCK_BYTES, blocks, 0, 0, 0
    )
