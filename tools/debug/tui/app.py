"""The screen of `l4lab debug`: panes, keys and buttons over a `DebugSession`.

While a command lets the machine run, it runs on a worker thread and the screen reads nothing of it but the
cores' clocks; keys do nothing then but pause and quit. So the screen stays alive, and who looks at it cannot
change what is computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Container, Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, DataTable, Static
from textual.worker import Worker, WorkerState

from l4lab.emulator.debug.catching import CatchKind
from l4lab.emulator.errors import OperatorError
from l4lab.emulator.stutter import stutters
from l4lab.tools.common.report import grouped
from l4lab.tools.debug.inspect_views import visible
from l4lab.tools.debug.tui import panes
from l4lab.tools.debug.tui.keys import BACKWARD, FORWARD, LOWER, OTHERS, shown_key
from l4lab.tools.debug.tui.screens import Ask, Help, Views
from l4lab.tools.debug.tui.style import CSS

if TYPE_CHECKING:
    from l4lab.emulator.debug.stops import Stop
    from l4lab.tools.debug.tui.session import DebugSession

_W = TypeVar("_W", bound=Widget)

PROGRESS_SECONDS: Final = 0.1
WIDE_COLUMNS: Final = 120
OVER: Final = "the run is over; capitals go back"

COLUMNS: Final = {"cores": ("core", "cycle", "state", "thread"), "threads": ("thread", "core", "state")}
"""The tables, and the titles of their columns."""


class Pane(VerticalScroll):
    """A part of the screen with a title, whose text is replaced as a whole."""

    def __init__(self, title: str, name: str) -> None:
        super().__init__(id=name, classes="pane")
        self.border_title = title
        self.shown = Text()

    def compose(self) -> ComposeResult:
        """One text."""
        yield Static(id=f"{self.id}-text")

    def show(self, text: Text) -> None:
        """Replace the text; what guests have named or printed controls no terminal."""
        text.plain = visible(text.plain)
        if text == self.shown:
            return
        self.shown = text
        self.query_one(Static).update(Content.from_rich_text(text))


def _starting(name: str, move: Callable[[DebugSession], Stop]) -> Callable[[DebugApp], None]:
    """An action: start a command of the session, which is called `name` while it is under way."""

    def action(app: DebugApp) -> None:
        app.start(name, lambda: move(app.session))

    return action


class DebugApp(App[None]):
    """The terminal interface. `command`: name of the command that is under way; None: the machine stands still."""

    CSS = CSS
    TITLE = "l4lab debug"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE_COLUMNS, "-wide")]  # noqa: RUF012  as the base class has it
    BINDINGS: ClassVar[list[Any]] = [
        *(
            Binding(key, action, label, show=False)
            for key, action, label, _ in (*FORWARD, *BACKWARD, *OTHERS)
        ),
        *(Binding(key, f"front('{name}')", title, show=False) for key, name, title, _ in LOWER),
        Binding("ctrl+c", "pause", "pause", show=False, priority=True),
        Binding("home", "restart", "to the start", show=False),
        Binding("left_square_bracket", "core(-1)", "core before", show=False),
        Binding("right_square_bracket", "core(1)", "core behind", show=False),
    ]

    def __init__(self, session: DebugSession, printed: deque[bytes]) -> None:
        """`printed`: to which the session's machine appends what guests print, on another thread."""
        super().__init__()
        self.session = session
        self.command: str | None = None
        self._printed = printed
        self._worker: Worker[Stop] | None = None
        self._leaving = False
        self._was_over = False
        self._said = ""
        self._front = LOWER[0][1]
        self._filled: dict[str, tuple[Sequence[tuple[str, ...]], int | None]] = {}

    # --- layout -----------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Status on top, buttons at the bottom, panes between."""
        yield Static(id="status")
        with Container(id="panes"):
            with Vertical(id="left"):
                for name in COLUMNS:
                    yield _table(name)
            with Vertical(id="code"):
                yield Pane("source", "source")
                yield Pane("instructions", "instructions")
            for _, name, title, _ in LOWER:
                yield Pane(title, name)
        with Vertical(id="buttons"):
            yield _buttons("▶", (*FORWARD, *OTHERS))
            yield _buttons("◀", BACKWARD)

    def on_mount(self) -> None:
        """Show the machine at its start."""
        self.set_interval(PROGRESS_SECONDS, self._progress)
        self._place_lower()
        self._find("threads", DataTable).focus()
        self.refresh_panes()

    def on_resize(self) -> None:
        """What fits has changed."""
        self.call_after_refresh(self._place_lower)
        self.call_after_refresh(self.refresh_panes)

    @stutters()
    def refresh_panes(self) -> None:
        """Show the machine as it stands."""
        if self.command is not None or not self.is_running:
            return
        session = self.session
        self._status(self._standing())
        self._fill("cores", panes.core_rows(session), session.core)
        rows = panes.thread_rows(session)
        chosen = next((index for index, row in enumerate(rows) if row[0] == session.selected), None)
        self._fill("threads", [row[1:] for row in rows], chosen)
        source, instructions = (self._find(name, Pane) for name in ("source", "instructions"))
        source.show(panes.source(session, max(source.size.height, 4)))
        instructions.show(
            panes.instructions(session, max(instructions.size.height, 4), instructions.size.width)
        )
        for name, show in (
            ("calls", panes.calls),
            ("space", panes.address_space),
            ("console", panes.console),
        ):
            self._find(name, Pane).show(show(session))
        fault = self._find("fault", Pane)
        fault.show(panes.fault_steps(session, fault.size.width))
        self._find("console", Pane).scroll_end(animate=False)

    def _standing(self) -> Text:
        """The line on top while the machine stands still: what was last said, else where it is and why."""
        moment = self.session.moment
        status = Text().append(f" {self.session.manifest.path.name} ", "reverse")
        if self._said:
            return status.append(f" {self._said}", "bold yellow")
        status.append(f" core {moment.core} at cycle {grouped(moment.clock)}: ", "bold").append(moment.text)
        pending = self.session.breakpoints.pending()
        if pending:
            status.append(f"  breakpoint pending: {', '.join(pending)}", "yellow")
        return status

    def _say(self, text: str) -> None:
        """Put a message into the line on top, where it covers nothing; it stays until the next command."""
        self._said = text
        self._find("status", Static).set_class(bool(text), "said")
        self.refresh_panes()
        self.call_after_refresh(self.refresh_panes)  # a long one needs two lines, which the panes give

    def _find(self, name: str, kind: type[_W]) -> _W:
        """A part of the main screen, whatever lies over it."""
        return self.screen_stack[0].query_one(f"#{name}", kind)

    def _status(self, text: Text) -> None:
        text.plain = visible(text.plain)
        self._find("status", Static).update(Content.from_rich_text(text))

    def _fill(self, name: str, rows: Sequence[tuple[str, ...]], chosen: int | None) -> None:
        """Put rows into a table, the chosen one under its cursor."""
        table: DataTable[Text] = self._find(name, DataTable)
        if self._filled.get(name) == (rows, chosen):
            return
        self._filled[name] = (rows, chosen)
        table.clear(columns=True)  # else columns only ever grow
        table.add_columns(*COLUMNS[name])
        for row in rows:
            table.add_row(*(Text(visible(cell)) for cell in row))
        table.show_cursor = chosen is not None
        if chosen is not None:
            table.move_cursor(row=chosen, animate=False)

    # --- commands ---------------------------------------------------------------------------------------

    @stutters()
    def start(self, name: str, move: Callable[[], Stop]) -> None:
        """Let a command of the session run on a thread of its own; one at a time."""
        if self.command is not None:
            return
        self._say("")
        self.command = name
        self._was_over = self.session.moment.ended
        self._printed.clear()
        self._worker = self.run_worker(stutters()(move), thread=True, exit_on_error=False)

    @stutters()
    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """A command is over."""
        if event.worker is not self._worker or event.state in (WorkerState.PENDING, WorkerState.RUNNING):
            return
        self.command = self._worker = None
        self._find("buttons", Vertical).set_class(False, "running")
        error = event.worker.error
        if self._leaving:
            self.exit()
        elif isinstance(error, OperatorError):
            self._say(str(error))
        elif error is not None:
            raise error
        elif self._was_over and self.session.moment.ended:
            self._say(OVER)
        self.refresh_panes()

    @stutters()
    def _progress(self) -> None:
        """While a command runs: how far it is, and what was printed. Looks at the clocks, no more."""
        if self.command is None:
            return
        self._find("buttons", Vertical).set_class(True, "running")
        clocks = [core.vcpu.clock_cycles for core in self.session.machine.cores]
        text = (
            Text()
            .append(f" {self.session.manifest.path.name} ", "reverse")
            .append(f" {self.command} … ", "bold")
        )
        self._status(text.append(f"cycle {grouped(max(clocks, default=0))}   p pauses"))
        pane = self._find("console", Pane)
        fresh = b"".join(self._printed.popleft() for _ in range(len(self._printed)))
        if fresh:
            pane.show(pane.shown.copy().append(fresh.decode("utf-8", "replace")))
            pane.scroll_end(animate=False)

    action_step = _starting("step", lambda session: session.step())
    action_line = _starting("line", lambda session: session.step_line())
    action_entry = _starting("to the next kernel entry", lambda session: session.next_entry())
    action_ipc = _starting("to the next message", lambda session: session.next_event(CatchKind.IPC))
    action_fault = _starting("to the next page fault", lambda session: session.next_event(CatchKind.FAULT))
    action_fault_step = _starting("to the next step of the fault", lambda session: session.next_fault_step())
    action_go_on = _starting("running", lambda session: session.go_on())
    action_step_back = _starting("one instruction back", lambda session: session.step_back())
    action_last_ipc = _starting("back to the last message", lambda session: session.last_event(CatchKind.IPC))
    action_last_fault = _starting(
        "back to the last page fault", lambda session: session.last_event(CatchKind.FAULT)
    )
    action_last_fault_step = _starting(
        "back to the last step of the fault", lambda session: session.last_fault_step()
    )
    action_go_back = _starting("running backwards", lambda session: session.go_back())
    action_restart = _starting("to the start", lambda session: session.restart())

    @stutters()
    def action_pause(self) -> None:
        """Interrupt what runs."""
        if self.command is not None:
            self.session.pause()
        else:
            self._say("the machine stands still; q leaves")

    async def action_quit(self) -> None:
        """Leave, as soon as the machine stands still."""
        if self.command is None:
            self.exit()
        else:
            self._leaving = True
            self.session.pause()

    # --- choosing and asking ----------------------------------------------------------------------------

    def action_go_to(self) -> None:
        """Ask for a cycle."""

        def go(answer: str | None) -> None:
            if not answer:
                return
            digits = answer.replace("_", "").replace(" ", "")
            if digits.isascii() and digits.isdecimal():
                self.start(
                    f"to cycle {grouped(int(digits[:20]))}", lambda: self.session.go_to(int(digits[:20]))
                )
            else:
                self._say(f"found {answer!r}, expected a cycle as in 700_000")

        if self.command is None:
            self.push_screen(Ask(f"to which cycle of core {self.session.core}?"), go)

    def action_breakpoint(self) -> None:
        """Ask for a place."""

        def toggle(answer: str | None) -> None:
            if answer:
                try:
                    self._say(self.session.toggle_breakpoint(answer))
                except OperatorError as problem:
                    self._say(str(problem))

        if self.command is None:
            self.push_screen(Ask("breakpoint at FUNCTION, 0xADDRESS, TASK:FUNCTION?"), toggle)

    def action_views(self) -> None:
        """The kernel's objects."""
        if self.command is None:
            self.push_screen(Views(self.session))

    def action_help(self) -> None:
        """What the keys do."""
        self.push_screen(Help())

    def action_front(self, name: str) -> None:
        """Show one of the lower panes where there is room for one; everywhere, focus it."""
        self._front = name
        self._place_lower()
        self._find(name, Pane).focus()

    def _place_lower(self) -> None:
        """Which of the lower panes is shown where there is room for one, and their titles."""
        narrow = self.screen_stack[0].has_class("-narrow")
        for key, name, title, _ in LOWER:
            pane = self._find(name, Pane)
            pane.set_class(name == self._front, "front")
            pane.border_title = self._titles() if narrow else f"{key} {title}"

    def _titles(self) -> str:
        """Of all lower panes, for where only one is shown."""
        marked = (
            f"[bold reverse] {key} {title} [/]" if name == self._front else f" {key} {title} "
            for key, name, _, title in LOWER
        )
        return "".join(marked)

    def action_core(self, difference: int) -> None:
        """Show the core before or behind."""
        if self.command is None:
            self._say("")
            self.session.select_core((self.session.core + difference) % len(self.session.machine.cores))
            self.refresh_panes()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Enter or a click on a core or a thread: show that one."""
        if self.command is not None:
            return
        self._say("")
        if event.data_table.id == "cores":
            self.session.select_core(event.cursor_row)
        elif event.data_table.id == "threads":
            rows = panes.thread_rows(self.session)
            if event.cursor_row < len(rows):
                self.session.select_thread(rows[event.cursor_row][0])
        self.refresh_panes()


def _table(name: str) -> DataTable[Text]:
    table: DataTable[Text] = DataTable(id=name, cursor_type="row", classes="pane", cell_padding=1)
    table.border_title = name
    return table


def _buttons(sign: str, commands: tuple[tuple[str, str, str, str], ...]) -> Horizontal:
    """A row of buttons, each with its key."""
    row: list[Button | Static] = [Static(sign, classes="sign")]
    for key, action, label, meaning in commands:
        text = Text().append(shown_key(key), "bold yellow").append(f" {label}")
        button = Button(text, compact=True, action=f"app.{action}", tooltip=meaning, id=f"do-{action}")
        button.can_focus = False
        button.styles.line_pad = 0
        button.styles.width = len(text) + 1
        row.append(button)
    return Horizontal(*row, classes="row")
