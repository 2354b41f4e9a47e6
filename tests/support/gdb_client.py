"""gdb's side of the stub, without gdb: packets in, packets out, nothing in between but a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from l4lab.emulator.debug.debugged import DebuggedMachine
from l4lab.emulator.debug.debugging import Debugger
from l4lab.emulator.files.manifest import Manifest
from l4lab.kernel.thread import Thread
from l4lab.tools.debug.gdb.conversation import Conversation
from l4lab.tools.debug.gdb.framing import Decoder, Packet, encode
from l4lab.tools.debug.gdb.monitor import Monitor
from l4lab.tools.debug.gdb.script import StandIns
from l4lab.tools.debug.gdb.target import Target
from l4lab.tools.runs.programs import Programs
from support.runs import image

FEATURES = "multiprocess+;swbreak+;hwbreak+;vContSupported+"
STAND_INS = StandIns(Path("/nowhere/no-program"), Path("/nowhere/kernel-page"))


class Client:
    """A machine, its debugger, and a session that this one is the client of.

    `text`: what the session has said for people since `text` was last emptied.
    """

    def __init__(self, manifest: Manifest | str = "pagefault", *, features: str | None = FEATURES) -> None:
        manifest = image(manifest) if isinstance(manifest, str) else manifest
        self.machine = DebuggedMachine(manifest)
        self.debugger = Debugger(self.machine)
        self.target = Target(self.debugger, Programs(manifest))
        self.monitor = Monitor(self.target, lambda line: self.session.say(line + "\n"))
        self.session = Conversation(self.target, self.monitor, self._receive, STAND_INS, self._report)
        self.debugger.tells_new_tasks = True
        self.text = ""
        self.reports: list[str] = []
        self.takes_errors = False
        """Whether errors of the stub's own are expected; else they fail the test."""
        self.sent = bytearray()
        """Everything that the session has sent, acknowledgements and all."""
        self.meanwhile: Callable[[], bytes | None] = lambda: b""
        """What arrives while the machine runs; None: the client has gone."""
        self._replies: list[bytes] = []
        self._decoder = Decoder()
        if features is not None:
            self.ask("QStartNoAckMode")
            self.ask(f"qSupported:{features}")

    def _report(self, text: str) -> None:
        self.reports.append(text)

    def _receive(self, data: bytes) -> None:
        self.sent += data
        for item in self._decoder.feed(data):
            if not isinstance(item, Packet):
                continue
            if item.payload.startswith(b"O") and item.payload != b"OK":
                self.text += bytes.fromhex(item.payload[1:].decode()).decode()
            else:
                self._replies.append(item.payload)

    def feed(self, data: bytes) -> list[bytes]:
        """Bytes as they come; the payloads of the replies to them."""
        self._replies.clear()
        self.session.receive(data, lambda: self.meanwhile())
        assert self.takes_errors or not self.reports, self.reports[0]
        return list(self._replies)

    def ask(self, payload: str | bytes) -> str:
        """One packet, one reply."""
        data = payload.encode("latin-1") if isinstance(payload, str) else payload
        (reply,) = self.feed(encode(data))
        return reply.decode("latin-1")

    def document(self, name: str, annex: str = "", piece: int = 0x1000) -> str:
        """A whole document, read in pieces."""
        text = ""
        while True:
            reply = self.ask(f"qXfer:{name}:read:{annex}:{len(text.encode()):x},{piece:x}")
            assert reply[:1] in ("l", "m"), reply
            text += reply[1:].encode("latin-1").decode()
            if reply[0] == "l":
                return text

    def command(self, text: str) -> str:
        """A `monitor` command; what it prints. The reply says whether that is an error."""
        self.text = ""
        reply = self.ask(f"qRcmd,{text.encode().hex()}")
        assert reply == ("E16" if self.text.startswith("error: ") else "OK")
        return self.text

    def go_on(self, payload: str = "vCont;c") -> dict[str, str]:
        """Let it run, over stops that only tell of new tasks; the stop reply's fields, and `signal`."""
        while True:
            stop = self.stop(self.ask(payload))
            if "library" not in stop:
                return stop

    @staticmethod
    def stop(reply: str) -> dict[str, str]:
        """A stop reply in parts."""
        assert reply.startswith("T"), reply
        fields = dict(part.split(":", 1) for part in reply[3:].split(";") if part)
        return {"signal": reply[1:3], **fields}

    def process(self, task: str) -> int:
        """The process number of a task of that name."""
        return next(number for number, found in self.machine.kernel.tasks.items() if found.name == task)

    def frame_owner(self, task: str) -> Thread:
        """A task's first thread."""
        return next(iter(self.machine.kernel.tasks[self.process(task)].threads))

    def thread(self, task: str) -> str:
        """The thread id of a task's first thread, as in packets."""
        number = self.process(task)
        thread = self.frame_owner(task)
        return f"p{number:x}.{thread.number:x}"

    def symbol(self, program: str, name: str) -> int:
        """The address of a symbol of a program of the image."""
        found = next(each for each in self.target.programs.all if each.name == program)
        address = found.symbols.address_of(name)
        assert address is not None
        return address
