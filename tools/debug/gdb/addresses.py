"""Where gdb can connect: `--gdb [HOST:]PORT` or `--gdb PATH`, and the socket that listens there."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from l4lab.emulator.errors import OperatorError
from l4lab.emulator.files.inputs import printable

DEFAULT_HOST: Final = "127.0.0.1"
MAX_PORT: Final = 65535
_TCP: Final = re.compile(r"(?:(?P<host>\[[^][/]+\]|[^][/]*):)?(?P<port>[0-9]{1,9})")


class AddressError(OperatorError):
    """An address that cannot be listened at."""


@contextlib.contextmanager
def listening(address: str) -> Iterator[tuple[socket.socket, str]]:
    """A socket that listens at `[HOST:]PORT` or at a path, and the address as gdb's `target remote` wants it.

    A host that is an IPv6 address may stand in brackets. A socket at the path that nobody listens at any
    more is replaced; what this call has made there is removed in the end, and nothing else.
    Raises AddressError.
    """
    match = _TCP.fullmatch(address)
    if (match is None and "/" not in address) or not address.isprintable():
        raise AddressError(
            f"--gdb: found {printable(address)!r}, expected [HOST:]PORT or the path of a socket"
        )
    if match and int(match["port"]) > MAX_PORT:
        raise AddressError(
            f"--gdb {printable(address)}: found port {match['port']}, expected 0 to {MAX_PORT}"
        )
    try:
        if match is not None:
            with _listen_tcp(match["host"] or DEFAULT_HOST, int(match["port"])) as listener:
                yield listener, _bound(listener)
        else:
            with _listen_unix(Path(address)) as listener:
                yield listener, str(Path(address).absolute())
    except _CannotListen as error:
        raise AddressError(f"--gdb {printable(address)}: {error}") from None


def reaches_beyond_this_host(listener: socket.socket) -> bool:
    """Whether others than this host's own programs may connect."""
    if listener.family == socket.AF_UNIX:
        return False
    return not ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


class _CannotListen(Exception):
    """Why not, in words; kept apart from what happens while the socket is in use."""


def _listen_tcp(host: str, port: int) -> socket.socket:
    plain = host.strip("[]")
    family = socket.AF_INET6 if ":" in plain else socket.AF_INET
    return _listen(family, (plain, port))


def _listen(family: socket.AddressFamily, place: tuple[str, int] | str) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(1)
    except (OSError, OverflowError, UnicodeError) as error:
        listener.close()
        raise _CannotListen(getattr(error, "strerror", None) or str(error)) from None
    return listener


def _bound(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"{f'[{host}]' if listener.family == socket.AF_INET6 else host}:{port}"


@contextlib.contextmanager
def _listen_unix(path: Path) -> Iterator[socket.socket]:
    _remove_if_deserted(path)
    with _listen(socket.AF_UNIX, str(path)) as listener:
        ours = os.lstat(path)
        try:
            yield listener
        finally:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.lstat(path), ours):
                    path.unlink()


def _remove_if_deserted(path: Path) -> None:
    """A socket of an earlier run may go; a file of any other kind makes `bind` refuse."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.connect(str(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    except (OSError, UnicodeError) as error:
        raise _CannotListen(getattr(error, "strerror", None) or str(error)) from None
    else:
        raise _CannotListen("another program listens there; expected a path of one's own")
