"""Where gdb can connect: what an address may be, and whose sockets are whose."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from l4lab.tools.debug.gdb.addresses import AddressError, listening, reaches_beyond_this_host


def test_a_socket_that_an_earlier_run_left_is_replaced_and_any_other_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "gdb"
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(path))
    left.close()
    with listening(str(path)) as (_, bound):
        assert bound == str(path)
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(AddressError, match="in use"), listening(str(path)):
        pass
    assert path.read_text() == "precious"


def test_a_socket_that_somebody_listens_at_stays_theirs(tmp_path: Path) -> None:
    path = tmp_path / "gdb"
    with listening(str(path)) as (first, _):
        with pytest.raises(AddressError, match="another program listens there"), listening(str(path)):
            pass
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            first.accept()[0].close()  # the caller that found out
            client.connect(str(path))
            first.accept()[0].close()
    assert not path.exists()


def test_what_somebody_else_has_put_there_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "gdb"
    with listening(str(path)):
        path.unlink()
        path.write_text("somebody else's")
    assert path.read_text() == "somebody else's"


def test_a_link_is_not_followed_to_be_removed(tmp_path: Path) -> None:
    """What it leads to may be a socket of others that is not in use at the moment."""
    target = tmp_path / "theirs"
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(target))
    left.close()
    os.symlink(target, tmp_path / "gdb")
    with pytest.raises(AddressError, match="in use"), listening(str(tmp_path / "gdb")):
        pass
    assert target.is_socket()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("", "expected"),
        ("nonsense", r"expected \[HOST:\]PORT"),
        ("host:", "expected"),
        (":123456", "expected"),
        ("127.0.0.1:99999", "65535"),
        ("[]:1", r"expected \[HOST:\]PORT"),
        ("[:41251", r"expected \[HOST:\]PORT"),
        ("::1]:0", r"expected \[HOST:\]PORT"),
        ("[[::1]]:0", r"expected \[HOST:\]PORT"),
        ("/tmp/a\nshell echo", "expected"),
        ("/nowhere/at/all/gdb", "No such file"),
        ("x" * 50 + "/" + "y" * 200, "too long"),
    ],
)
def test_addresses_that_cannot_be(address: str, why: str) -> None:
    with pytest.raises(AddressError, match=why), listening(address):
        pass


def test_a_port_that_is_taken() -> None:
    with listening("0") as (_, bound), pytest.raises(AddressError, match="in use"), listening(bound):
        pass


def test_ports_alone_are_of_this_host_only(tmp_path: Path) -> None:
    for address in ("0", ":0", "127.0.0.1:0", "localhost:0"):
        with listening(address) as (listener, bound):
            assert bound.startswith("127.0.0.1:")
            assert not reaches_beyond_this_host(listener)
    with listening(str(tmp_path / "gdb")) as (listener, _):
        assert not reaches_beyond_this_host(listener)


def test_an_address_for_all_the_world_is_known_as_such() -> None:
    with listening("0.0.0.0:0") as (listener, bound):
        assert bound.startswith("0.0.0.0:")
        assert reaches_beyond_this_host(listener)
