"""When the screen shows the machine as it stands: for whoever drives the interface without a person who looks.

Textual's own `Pilot` waits until the process uses no time of the host's processor, which it also does where others
have the processor.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from textual.message_pump import MessagePump
from textual.worker import WorkerError

if TYPE_CHECKING:
    from l4lab.tools.debug.tui.app import DebugApp

_REFRESH_SECONDS: Final = 1 / 60
"""How often Textual refreshes a screen."""
_QUIET_ROUNDS: Final = 2
"""A command's end refreshes panes, which may change their sizes, after which panes are refreshed once more."""


async def settled(app: DebugApp) -> None:
    """Until no command runs and nothing is left to be done: neither messages, nor what is to follow a refresh.

    Returns at once if the app has been left.
    """
    quiet = 0
    while quiet < _QUIET_ROUNDS and app.is_running:
        for worker in list(app.workers):
            with suppress(WorkerError):  # what is wrong is shown
                await worker.wait()
        screen, pumps = app.screen, _pumps(app)
        was_quiet = app.command is None and not any(pump.message_queue_size for pump in pumps)
        waiting: set[MessagePump] = set()
        for pump in pumps:
            if pump.call_later(_drop, waiting, pump):
                waiting.add(pump)
        # One that is closed, or behind another screen now, may never do what it was to do.
        while any(pump.is_running for pump in waiting):
            await asyncio.sleep(0)
        if app.screen is screen and screen.call_after_refresh(_drop, waiting, screen):
            waiting.add(screen)
        while screen in waiting and screen.is_running and app.screen is screen:
            await asyncio.sleep(_REFRESH_SECONDS)
        quiet = quiet + 1 if was_quiet and app.screen is screen else 0


def _pumps(app: DebugApp) -> list[MessagePump]:
    """All that have messages."""
    return [app, *(widget for screen in app.screen_stack for widget in screen.walk_children(with_self=True))]


def _drop(waiting: set[MessagePump], pump: MessagePump) -> None:
    waiting.discard(pump)
