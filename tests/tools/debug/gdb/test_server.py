"""Sockets: who may connect where, who is turned away, and what is left of those who go."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from l4lab.emulator.debug.debugged import DebuggedMachine
from l4lab.emulator.debug.debugging import Debugger
from l4lab.emulator.debug.stops import Stop, StopKind
from l4lab.emulator.files.manifest import Manifest, load_manifest
from l4lab.tools.debug.gdb.addresses import listening
from l4lab.tools.debug.gdb.framing import Decoder, Packet, encode
from l4lab.tools.debug.gdb.server import Server
from l4lab.tools.debug.gdb.target import Target
from l4lab.tools.runs.programs import Programs
from support.gdb_client import STAND_INS
from support.handshake import PATIENCE_SECONDS
from support.programs import compile_program, write_manifest
from support.runs import image


class Connection:
    """A client at the other end of a socket."""

    def __init__(self, address: str) -> None:
        if "/" in address:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.settimeout(PATIENCE_SECONDS)
            try:
                self.socket.connect(address)
            except OSError:
                self.socket.close()
                raise
        else:
            host, _, port = address.rpartition(":")
            self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS)
        self._decoder = Decoder()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self) -> str:
        """The next packet; "" once the other side has hung up."""
        while data := self.socket.recv(1 << 16):
            for item in self._decoder.feed(data):
                if isinstance(item, Packet):
                    return item.payload.decode("latin-1")
        return ""

    def ask(self, payload: str) -> str:
        self.send(encode(payload.encode()))
        return self.reply()

    def greet(self) -> Connection:
        assert self.ask("QStartNoAckMode") == "OK"
        assert "multiprocess+" in self.ask("qSupported:multiprocess+;swbreak+;hwbreak+")
        return self


class Served:
    """A machine behind a socket, in a thread of its own."""

    def __init__(self, manifest: Manifest, address: str, *, stopped: bool) -> None:
        self.said: list[str] = []
        self.clients: list[Connection] = []
        self.ended = threading.Event()
        self.stop: Stop | None = None
        self.printed = threading.Event()
        self.machine = DebuggedMachine(manifest, console=lambda _: self.printed.set())
        self.target = Target(Debugger(self.machine), Programs(manifest))
        self.address = ""
        listens = threading.Event()

        def serve() -> None:
            with listening(address) as (listener, self.address):
                listens.set()
                server = Server(listener, self.target, self.said.append, STAND_INS)
                self.stop = server.serve(stopped=stopped)
            self.ended.set()

        threading.Thread(target=serve, daemon=True).start()
        assert listens.wait(PATIENCE_SECONDS)

    def connect(self) -> Connection:
        self.clients.append(Connection(self.address))
        return self.clients[-1]

    def end(self) -> Stop | None:
        """How it ended."""
        assert self.ended.wait(PATIENCE_SECONDS)
        return self.stop


@pytest.fixture(scope="module")
def looping(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A root task that never ends, and says when it begins not to."""
    folder = tmp_path_factory.mktemp("looping")
    source = '#include <l4/print.h>\nint main(void) { printf("looping\\n"); for (;;); }'
    compile_program(source, folder / "looping")
    write_manifest(folder / "looping.toml", "looping")
    return load_manifest(folder / "looping.toml")


Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts one; ends it with the test."""
    running: list[Served] = []

    def start(manifest: Manifest, address: str = "127.0.0.1:0", *, stopped: bool = True) -> Served:
        running.append(Served(manifest, address, stopped=stopped))
        return running[-1]

    yield start
    for served in running:
        for client in served.clients:
            client.socket.close()
        with contextlib.suppress(OSError):  # until nobody listens any more
            while True:  # who is turned away, because the one before has not been missed yet, comes again
                served.connect().ask("k")
        served.end()
        for client in served.clients:
            client.socket.close()


def test_a_client_that_detaches_leaves_the_machine_running_to_its_end(serve: Serve) -> None:
    served = serve(image("pagefault"))
    client = served.connect().greet()
    assert client.ask("D") == "OK"
    stop = served.end()
    assert stop is not None and stop.kind is StopKind.END


def test_a_client_that_kills_ends_it(serve: Serve, looping: Manifest) -> None:
    served = serve(looping)
    assert served.connect().greet().ask("vKill;6") == "OK"


@pytest.mark.parametrize("last_words", [b"", b"$", b"$vCont;", encode(b"vCont;c")[:-1], b"$m1000,4#"])
def test_a_client_that_vanishes_leaves_the_machine_to_the_next(
    serve: Serve, looping: Manifest, last_words: bytes
) -> None:
    served = serve(looping)
    first = served.connect().greet()
    assert first.ask("Z0,1000,1") == "OK"
    first.send(last_words)
    first.socket.close()
    second = served.connect().greet()
    assert second.ask("?").startswith("T05thread:p6.8")
    assert served.said == ["gdb has gone; the machine waits for another one"]
    assert served.target.debugger.breakpoints == ()


def test_a_client_that_vanishes_while_the_machine_runs_stops_it(serve: Serve, looping: Manifest) -> None:
    served = serve(looping)
    first = served.connect().greet()
    first.send(encode(b"vCont;c") * 2)  # the first may stop for a task that is new
    first.socket.close()
    second = served.connect().greet()
    clock = second.ask("qXfer:osdata:read:cores:0,ffff")
    assert second.ask("qXfer:osdata:read:cores:0,ffff") == clock


def test_a_second_client_is_turned_away(serve: Serve, looping: Manifest) -> None:
    served = serve(looping)
    first = served.connect().greet()
    assert served.connect().reply() == ""
    assert first.ask("qC") == "QCp6.8"
    assert served.said == ["another gdb was turned away: one is connected"]


def test_a_second_client_is_turned_away_while_the_machine_runs(serve: Serve, looping: Manifest) -> None:
    served = serve(looping)
    first = served.connect().greet()
    first.send(encode(b"vCont;c"))
    assert served.connect().reply() == ""
    first.send(b"\x03")
    assert first.reply().startswith(("T02", "T05"))
    assert first.ask("qC").startswith("QCp")


def test_ctrl_c_as_often_as_one_likes(serve: Serve, looping: Manifest) -> None:
    client = serve(looping).connect().greet()
    signals = set()
    for _ in range(10):
        client.send(encode(b"vCont;c") + b"\x03")
        signals.add(client.reply()[:3])
        client.send(b"\x03\x03")
    assert "T02" in signals and signals <= {"T02", "T05"}


def test_a_machine_that_was_not_stopped_runs_until_somebody_connects(serve: Serve, looping: Manifest) -> None:
    served = serve(looping, stopped=False)
    assert served.printed.wait(PATIENCE_SECONDS)
    client = served.connect().greet()
    assert client.ask("?").startswith("T02")
    assert ">root<" in client.ask("qXfer:osdata:read:cores:0,ffff")


def test_without_a_client_it_runs_to_its_end(serve: Serve) -> None:
    stop = serve(image("pagefault"), stopped=False).end()
    assert stop is not None and stop.kind is StopKind.END


def test_a_socket_with_a_path_goes_with_the_machine(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "gdb"
    served = serve(image("pagefault"), str(path))
    assert served.address == str(path) and path.is_socket()
    assert served.connect().greet().ask("D") == "OK"
    served.end()
    assert not path.exists()
