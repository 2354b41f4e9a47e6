"""Sockets, and who runs when: the machine while nobody is connected or gdb lets it, else the conversation.

One client at a time; a second one is turned away. A client that detaches leaves the machine running, one
that vanishes leaves it as it stands, for the next one.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from l4lab.emulator.debug.debugging import executed
from l4lab.emulator.debug.stops import Stop, StopKind
from l4lab.emulator.stutter import stutters
from l4lab.tools.debug.gdb.conversation import Conversation
from l4lab.tools.debug.gdb.framing import console_packets
from l4lab.tools.debug.gdb.monitor import Monitor

if TYPE_CHECKING:
    from l4lab.tools.debug.gdb.script import StandIns
    from l4lab.tools.debug.gdb.target import Target

SEND_SECONDS: Final = 10
_CHUNK_BYTES: Final = 1 << 16


class Server:
    """Serves one machine at one address until it has ended and nobody looks at it any more.

    `say`: lines for the person at the terminal.
    """

    def __init__(
        self, listener: socket.socket, target: Target, say: Callable[[str], None], stand_ins: StandIns
    ) -> None:
        self._stand_ins = stand_ins
        self._listener = listener
        self._target = target
        self._say = say
        self._client: socket.socket | None = None
        self._gone = False

    def serve(self, *, stopped: bool) -> Stop | None:
        """Run the machine, first of all if not `stopped`, and talk to whoever connects.

        Returns how it ended; None if a client killed it.
        """
        debugger = self._target.debugger
        waits = stopped
        while True:
            if not waits:
                stop = debugger.resume(poll=self._somebody_there)
                if stop.kind in (StopKind.END, StopKind.BUG):
                    return stop
            client = self._accept()
            session = self._talk(client)
            if session.killed:
                return None
            waits = not session.detached
            if waits:
                self._say("gdb has gone; the machine waits for another one")

    @stutters(20)
    def _somebody_there(self) -> bool:
        return bool(select.select([self._listener], [], [], 0)[0])

    @stutters()
    def _accept(self) -> socket.socket:
        client, _ = self._listener.accept()
        client.settimeout(SEND_SECONDS)
        with contextlib.suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    @stutters()
    def _turn_away(self) -> None:
        """Somebody else wants to connect, and the client has nothing to say, not even that it goes."""
        other, _ = self._listener.accept()
        other.close()
        self._say("another gdb was turned away: one is connected")

    def _talk(self, client: socket.socket) -> Conversation:
        """One client, until it leaves."""
        self._client, self._gone = client, False
        monitor = Monitor(self._target, self._tell)
        session = Conversation(self._target, monitor, self._send, self._stand_ins, self._say)
        self._meet_tasks()
        try:
            while not session.closed:
                readable, _, _ = select.select([client, self._listener], [], [])
                if client not in readable:
                    self._turn_away()
                    continue
                data = self._read()
                if data is None:
                    break
                session.receive(data, self._read_if_any)
        finally:
            client.close()
            self._client = None
            self._target.debugger.tells_new_tasks = False
            self._target.clear_breakpoints()
            self._target.debugger.set_catches(())
            self._target.physical = False
            monitor.steps.follow(False)
        return session

    @stutters()
    def _meet_tasks(self) -> None:
        """From now on gdb is told of tasks that begin to run; it sees those that have begun already."""
        debugger = self._target.debugger
        threads = [thread for thread in debugger.machine.kernel.threads.values() if thread.task is not None]
        begun = [thread for thread in threads if executed(thread)] or threads[:1]  # gdb needs somebody
        debugger.known_tasks = {thread.task.number for thread in begun if thread.task is not None}
        debugger.tells_new_tasks = True

    @stutters()
    def _read(self) -> bytes | None:
        """What the client has sent; None: it has gone."""
        assert self._client is not None
        try:
            data = self._client.recv(_CHUNK_BYTES)
        except OSError:
            data = b""
        if not data:
            self._gone = True
        return data or None

    @stutters(20)
    def _read_if_any(self) -> bytes | None:
        assert self._client is not None
        if self._gone:
            return None
        readable, _, _ = select.select([self._client, self._listener], [], [], 0)
        if self._client in readable:
            return self._read()
        if readable:
            self._turn_away()
        return b""

    def _tell(self, line: str) -> None:
        for packet in console_packets(line + "\n"):
            self._send(packet)

    @stutters(10)
    def _send(self, data: bytes) -> None:
        if self._client is None or self._gone:
            return
        try:
            self._client.sendall(data)
        except OSError:
            self._gone = True
