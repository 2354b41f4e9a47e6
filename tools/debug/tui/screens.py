"""The screens besides the main one: a question, help, and the tables of the kernel's objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, ScrollableContainer, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from l4lab.tools.debug.inspect_views import KINDS, Looked, views, visible
from l4lab.tools.debug.named import DebugError
from l4lab.tools.debug.tui.keys import BACKWARD, FORWARD, LOWER, OTHERS, shown_key

if TYPE_CHECKING:
    from l4lab.kernel.inspect import View
    from l4lab.tools.debug.tui.session import DebugSession


class Ask(ModalScreen[str | None]):
    """One line of an answer; None if there is none."""

    BINDINGS: ClassVar[list[Any]] = [Binding("escape", "dismiss(None)", "never mind")]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """A question and a place for its answer."""
        with Vertical():
            yield Static(self._question, markup=False)
            yield Input(compact=True)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """That was it."""
        self.dismiss(event.value)


class Help(ModalScreen[None]):
    """What the keys do."""

    BINDINGS: ClassVar[list[Any]] = [Binding("escape,q,question_mark,enter", "dismiss(None)", "back")]

    def compose(self) -> ComposeResult:
        """One page."""
        with VerticalScroll():
            yield Static(help_text())


def help_text() -> Text:
    """The page of help."""
    text = Text().append("Forwards in time\n", "bold")
    for key, _, _, meaning in FORWARD:
        text.append(f"  {shown_key(key):<6}", "bold yellow").append(f"{meaning}\n")
    text.append("\nBackwards, by snapshots and running again\n", "bold")
    for key, _, _, meaning in BACKWARD:
        text.append(f"  {shown_key(key):<6}", "bold yellow").append(f"{meaning}\n")
    text.append("  Home  ", "bold yellow").append("to the start of the run\n")
    text.append("\nWhat is shown\n", "bold")
    text.append("  [ ]   ", "bold yellow").append("the core before, the core behind\n")
    text.append("  Enter ", "bold yellow").append("in the tables: show that core, or that thread\n")
    text.append("  Tab   ", "bold yellow").append("to the next pane; arrows and the wheel scroll\n")
    for key, _, _, meaning in OTHERS:
        text.append(f"  {shown_key(key):<6}", "bold yellow").append(f"{meaning}\n")
    for key, _, title, _ in LOWER:
        text.append(f"  {key:<6}", "bold yellow").append(f"{title}\n")
    text.append(
        "\nA fault's seven steps: a program touches a page, the processor enters the kernel, the message goes to"
        "\nthe pager, that asks its allocator, a frame is found, the kernel maps it, the instruction is executed"
        "\nonce more. Beside each stand its cycles. Nothing that is done here changes a cycle of the run.\n"
    )
    return text


class Views(Screen[None]):
    """Tables of the kernel's objects, at the present moment."""

    BINDINGS: ClassVar[list[Any]] = [Binding("escape,v,q", "app.pop_screen", "back")]

    def __init__(self, session: DebugSession) -> None:
        super().__init__()
        self._session = session

    def compose(self) -> ComposeResult:
        """Names at the left, a table at the right."""
        yield Static(" the kernel's objects, as `l4lab inspect` shows them; Esc leads back", id="hint")
        with Horizontal():
            yield OptionList(*(Option(name, id=name) for name in KINDS), id="names")
            with Vertical():
                yield Input(placeholder="of one: caps:TASK  ptable:TASK:ADDRESS  bt:THREAD …", compact=True)
                with ScrollableContainer(id="tables"):
                    yield Static(id="table")

    def on_mount(self) -> None:
        """The first one."""
        self.query_one("#names", OptionList).focus()

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Show the view under the cursor."""
        name = str(event.option.id)
        self.query_one(Input).value = name
        self._show(name)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Show the view that was asked for by name."""
        self._show(event.value.strip())

    def _show(self, asked: str) -> None:
        """The tables for one word, or why there are none."""
        looked = Looked(self._session.machine, self._session.programs)
        try:
            text = as_text(views(looked, asked))
        except DebugError as problem:
            text = Text(visible(str(problem)))
        kind = KINDS.get(asked.partition(":")[0])
        tables = self.query_one("#tables", ScrollableContainer)
        tables.border_title = kind.meaning if kind is not None else ""
        tables.scroll_home(animate=False)
        self.query_one("#table", Static).update(Content.from_rich_text(text))


def as_text(found: list[View]) -> Text:
    """Tables one below the other, their titles and headings marked."""
    text = Text(no_wrap=True)
    for view in found:
        title, *lines = view.lines()
        text.append(f"{visible(title)}\n", "bold cyan")
        for number, line in enumerate(lines):
            text.append(f"{visible(line)}\n", "dim" if number == 0 else "")
        text.append("\n")
    return text
