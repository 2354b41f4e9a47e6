"""The screen, driven by keys and clicks as a person would, without a terminal."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

from textual.pilot import Pilot
from textual.widgets import DataTable, Input, OptionList, Static

from l4lab.emulator.files.manifest import Manifest, load_manifest
from l4lab.tools.common.report import grouped
from l4lab.tools.debug.tui.app import DebugApp, Pane
from l4lab.tools.debug.tui.keys import BACKWARD, FORWARD, LOWER, OTHERS, shown_key
from l4lab.tools.debug.tui.panes import shortened
from l4lab.tools.debug.tui.screens import Ask, Help, Views, help_text
from l4lab.tools.debug.tui.session import DebugSession
from l4lab.tools.debug.tui.settled import settled
from support.runs import image
from support.sessions import ACROSS, ON_ONE_CORE, to_first_fault

WIDE, SMALL = (160, 50), (80, 24)

Script = Callable[["Watched", Pilot[None]], Awaitable[None]]


def drive(
    script: Script, manifest: Manifest | None = None, *, size: tuple[int, int] = WIDE, fault: str = ""
) -> None:
    """Run the interface on a machine, from its start or a thread's first page fault on, and a script on it."""

    async def main() -> None:
        printed: deque[bytes] = deque()
        session = DebugSession(manifest or image("pagefault"), console=printed.append)
        if fault:
            to_first_fault(session, fault)
        app = Watched(session, printed)
        async with app.run_test(size=size) as pilot:
            await settled(app)
            await script(app, pilot)
            await settled(app)

    asyncio.run(main())


class Watched(DebugApp):
    """Tells when the screen may have changed."""

    def __init__(self, session: DebugSession, printed: deque[bytes]) -> None:
        super().__init__(session, printed)
        self._changed = asyncio.Event()

    def refresh_panes(self) -> None:
        super().refresh_panes()
        self._changed.set()

    def _progress(self) -> None:
        super()._progress()
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """While the machine runs: until the screen shows that."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()


async def press(app: DebugApp, *keys: str) -> None:
    """Each when all that the one before has led to is shown."""
    for key in keys:
        app.simulate_key(key)
        await settled(app)


async def answer(app: DebugApp, key: str, text: str) -> None:
    """Press a key that asks for something, and give it."""
    await press(app, key)
    app.screen.query_one(Input).value = text
    await press(app, "enter")


def shown(app: DebugApp, name: str) -> str:
    """The text of a pane."""
    return app.screen_stack[0].query_one(f"#{name}", Pane).shown.plain


def status(app: DebugApp) -> str:
    return str(app.screen_stack[0].query_one("#status", Static).content)


# --- the seven steps ------------------------------------------------------------------------------------


def test_through_the_seven_steps_and_back() -> None:
    async def script(app: Watched, pilot: Pilot[None]) -> None:
        assert "hello.1: page fault: read from 0x20000000" in status(app)
        assert "▶2 fault" in shown(app, "fault")
        pages = [shown(app, "fault")]
        for step in (3, 4, 5, 6, 7):
            await press(app, "t")
            assert f"▶{step} " in shown(app, "fault")
            assert f"✓{step - 1} " in shown(app, "fault")
            pages.append(shown(app, "fault"))
        await press(app, "t")
        assert re.search(r"^over, \d+ cycles after the touch", shown(app, "fault"), re.M)
        for page in reversed(pages):
            await press(app, "T")
            assert shown(app, "fault") == page

    drive(script, fault=ACROSS, size=SMALL)


def test_while_the_pager_serves_everything_is_shown() -> None:
    async def script(app: Watched, pilot: Pilot[None]) -> None:
        await press(app, "t", "t", "t")
        assert "pma_allocate(pma, 1)" in shown(app, "source")
        assert "client_entry" in shown(app, "instructions").splitlines()[0]
        assert any(line.startswith("▶") and "add" in line for line in shown(app, "instructions").splitlines())
        assert "eax" in shown(app, "instructions")
        calls = shown(app, "calls").splitlines()
        assert calls[0] == "hello.1 ─▶ pager.0  being served: page fault, read from 0x20000000"
        assert "hello.1  faulted at 0x20000000; pager.0 is its pager and has the message" in calls
        assert any("hello/main.c:" in line for line in calls)
        assert "hello.1, 0x20000000: not mapped" in shown(app, "space")
        assert "Hello from hello!" in shown(app, "console")
        cores = app.query_one("#cores", DataTable)
        clock = grouped(app.session.moment.clock)
        assert [str(cell) for cell in cores.get_row_at(0)] == ["0", clock, "user", "pager.0"]
        assert [str(cell) for cell in cores.get_row_at(1)][2] == "idle"

    drive(script, fault=ACROSS)


def test_the_same_keys_show_the_same_screen() -> None:
    """Whatever was done in between and taken back."""

    def screen(*keys: str) -> str:
        found = []

        async def script(app: Watched, pilot: Pilot[None]) -> None:
            await press(app, *keys)
            await settled(app)
            found.append(app.export_screenshot())

        drive(script, fault=ACROSS)
        return found[0]

    assert screen("t") == screen("t", "t", "T")


def test_on_a_small_terminal_the_steps_are_whole() -> None:
    """No text is wider than its pane, and none is cut within a clause."""

    async def script(app: Watched, pilot: Pilot[None]) -> None:
        for _ in range(6):
            await press(app, "t")
        pane = app.query_one("#fault", Pane)
        lines = pane.shown.plain.splitlines()
        assert max(map(len, lines)) <= pane.size.width
        assert "enters the kernel, which makes a message of it" in lines[2]
        assert re.search(r"maps 1 page: 0x[0-9a-f]+ of the pager to 0x20000000$", lines[6])

    drive(script, fault=ACROSS, size=SMALL)


def test_texts_lose_who_acts_before_their_last_clauses() -> None:
    assert shortened("the kernel maps a, b, c", 30) == "the kernel maps a, b, c"
    assert shortened("the kernel maps a, b, c", 15) == "maps a, b, c"
    assert shortened("the kernel maps a, b, c", 9) == "maps a, b"
    assert shortened("indivisible", 3) == "indivisible"


# --- every key, everywhere ------------------------------------------------------------------------------


def test_every_key_at_the_start_and_at_the_end() -> None:
    async def script(app: Watched, pilot: Pilot[None]) -> None:
        await press(app, "n", "S", "I", "T", "C", "s", "home", "c")
        for key, *_ in (*FORWARD, *BACKWARD):
            app.session.go_on()
            await press(app, *((key, "escape") if key in ("g", "b", "v") else (key,)))
            assert app.is_running and app.command is None
        await press(app, "1", "left_square_bracket", "right_square_bracket", "home")

    drive(script, size=SMALL)


def test_what_is_said_covers_nothing_and_goes_with_the_next_command() -> None:
    async def script(app: Watched, pilot: Pilot[None]) -> None:
        for key in "sfc":
            await press(app, "c")
            await press(app, key)
            await settled(app)
            assert "the run is over; capitals go back" in status(app)
        await press(app, "F")
        assert "page fault" in status(app) and "capitals" not in status(app)
        long = "nowhere" * 8
        await answer(app, "b", long)
        await settled(app)
        line = app.query_one("#status")
        assert long in status(app) and line.region.height == 2
        assert app.query_one("#panes").region.y == 2 and not list(app.screen.query("Toast"))
        for _, action, _, _ in (*FORWARD, *BACKWARD, *OTHERS):
            assert app.query_one(f"#do-{action}").region.bottom <= SMALL[1]
        await press(app, "s")
        await settled(app)
        assert line.region.height == 1 and "nowhere" not in status(app)

    drive(script, size=SMALL)


def test_every_button_does_what_its_key_does() -> None:
    async def script(app: Watched, pilot: Pilot[None]) -> None:
        await pilot.click("#do-fault_step")
        await settled(app)
        assert "step 3, message" in status(app)
        await pilot.click("#do-last_fault")
        await settled(app)
        assert "hello.0: page fault" in status(app)
        for _, action, _, _ in (*FORWARD, *BACKWARD, *OTHERS):
            app.query_one(f"#do-{action}")

    drive(script, fault=ON_ONE_CORE)


def test_small_terminal_shows_all_buttons_and_one_lower_pane_at_a_time() -> None:
    async def script(app: Watched, pilot: Pilot[None]) -> None:
        for _, action, _, _ in (*FORWARD, *BACKWARD, *OTHERS):
            button = app.query_one(f"#do-{action}")
            assert button.region.right <= SMALL[0] and button.region.bottom <= SMALL[1]
        for key, name, _, title in LOWER:
            await press(app, key)
            assert [other for _, other, _, _ in LOWER if app.query_one(f"#{other}").region.area] == [name]
            assert title in str(app.query_one(f"#{name}").border_title)
        assert "hello/main.c:12" in shown(app, "instructions")
        await pilot.resize_terminal(*WIDE)
        await settled(app)
        assert all(app.query_one(f"#{name}").region.area for _, name, _, _ in LOWER)

    drive(script, size=SMALL, fault=ACROSS)


# --- choosing and asking --------------------------------------------------------------------------------


def test_choosing_a_thread_shows_it() -> None:
    async def script(app: Watched, pilot: Pilot[None]) -> None:
        threads = app.query_one("#threads", DataTable)
        threads.focus()
        threads.move_cursor(row=0)
        await press(app, "enter")
        assert app.session.thread is not None and app.session.thread.name == "sigma0"
        assert "of sigma0" in shown(app, "instructions")
        cores = app.query_one("#cores", DataTable)
        cores.focus()
        cores.move_cursor(row=1)
        await press(app, "enter")
        assert app.session.core == 1
        assert "of hello.1" in shown(app, "instructions")
        await press(app, "right_square_bracket")
        assert app.session.core == 0

    drive(script, fault=ACROSS, size=SMALL)


def test_goto_and_breakpoints_ask() -> None:
    async def script(app: Watched, pilot: Pilot[None]) -> None:
        await answer(app, "g", "500_000")
        assert "core 0 is at cycle 500 000 or beyond" in status(app)
        await press(app, "g", "escape")
        await answer(app, "b", "pager.0:pma_allocate")
        assert len(app.session.debugger.breakpoints) == 1
        await press(app, "c")
        assert "breakpoint: pager.0 at pma_allocate" in status(app)
        for key, text in (("b", "nowhere"), ("g", "x"), ("g", "9" * 30), ("b", "[red]"), ("g", "")):
            await answer(app, key, text)
            assert not isinstance(app.screen, Ask)
        assert len(app.session.debugger.breakpoints) == 1
        assert "found no function '[red]' in pager.0" in status(app)
        await press(app, "right_square_bracket")
        assert "breakpoint: pager.0 at pma_allocate" in status(app)

    drive(script, size=SMALL)


def test_breakpoint_of_a_task_to_come_can_be_set_at_the_start() -> None:
    async def script(app: Watched, pilot: Pilot[None]) -> None:
        await answer(app, "b", "hello.0:main")
        assert "breakpoint at hello.0:main, pending" in status(app)
        await press(app, "right_square_bracket")
        assert "breakpoint pending: hello.0:main" in status(app)
        await press(app, "c")
        assert "breakpoint: hello.0 at main" in status(app) and "pending" not in status(app)

    drive(script, size=SMALL)


def test_views_show_what_inspect_shows() -> None:
    async def script(app: Watched, pilot: Pilot[None]) -> None:
        await press(app, "v")
        assert isinstance(app.screen, Views)
        table = app.screen.query_one("#table", Static)
        assert "waits for anyone" in str(table.content)
        names = app.screen.query_one("#names", OptionList)
        for number in range(names.option_count):
            names.highlighted = number
            await settled(app)
            assert str(table.content).strip()
        ask = app.screen.query_one(Input)
        for asked, expected in (
            ("mapdb:hello.0:0x20000000", "sigma0"),
            ("caps:nobody", "found no task 'nobody'"),
        ):
            ask.focus()
            ask.value = asked
            await press(app, "enter")
            assert expected in str(table.content)
        await press(app, "escape")
        assert not isinstance(app.screen, Views)

    drive(script, fault=ACROSS, size=SMALL)


def test_help_names_every_key() -> None:
    async def script(app: Watched, pilot: Pilot[None]) -> None:
        await press(app, "question_mark")
        assert isinstance(app.screen, Help)
        await press(app, "escape")
        assert not isinstance(app.screen, Help)

    drive(script, size=SMALL)
    text = help_text().plain
    for key, _, _, meaning in (*FORWARD, *BACKWARD, *OTHERS):
        assert f"  {shown_key(key):<6}{meaning}\n" in text


# --- while it runs --------------------------------------------------------------------------------------


def test_a_run_without_end_is_watched_and_paused(endless: Path) -> None:
    """The screen lives while the machine runs; what guests print controls no terminal."""

    async def script(app: Watched, pilot: Pilot[None]) -> None:
        app.simulate_key("c")
        await app.until(lambda: "p pauses" in status(app) and "loop" in shown(app, "console"))
        assert "before ␛[31m the loop" in shown(app, "console")
        before = status(app)
        for key in "sfgbvC":
            app.simulate_key(key)
        await app.until(lambda: status(app) != before)
        assert app.command == "running" and len(app.screen_stack) == 1
        app.simulate_key("ctrl+c")
        await app.until(lambda: app.command is None)
        assert "interrupted" in status(app)
        assert "main" in shown(app, "instructions")

    drive(script, load_manifest(endless), size=SMALL)


def test_quitting_while_it_runs_stops_it_first(endless: Path) -> None:
    async def script(app: Watched, pilot: Pilot[None]) -> None:
        app.simulate_key("c")
        await app.until(lambda: "p pauses" in status(app))
        app.simulate_key("q")
        await app.until(lambda: app.command is None)
        assert app.session.moment.text == "interrupted"

    drive(script, load_manifest(endless), size=SMALL)
