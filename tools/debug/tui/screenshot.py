"""The picture of the terminal interface in the documentation: a pager at work on a page fault of another core.

`python -m l4lab.tools.debug.tui.screenshot FILE.svg` writes it; the same bytes every time.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import deque
from pathlib import Path
from typing import Final

from l4lab.emulator.debug.catching import CatchKind
from l4lab.emulator.files.manifest import find_image, load_manifest
from l4lab.tools.debug.tui.app import DebugApp
from l4lab.tools.debug.tui.session import DebugSession
from l4lab.tools.debug.tui.settled import settled

IMAGE: Final = "pagefault"
PROGRAM: Final = "hello.1"
"""On core 1; its pager is on core 0."""
STEPS: Final = 3
"""Until the allocator has found a frame."""
SIZE: Final = (160, 50)

_FONT_DOWNLOADS: Final = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


async def picture() -> str:
    """An SVG document that needs nothing from elsewhere: the reader's own fixed-width font will do."""
    printed: deque[bytes] = deque()
    session = DebugSession(load_manifest(find_image(IMAGE)), console=printed.append)
    while session.thread is None or session.thread.name != PROGRAM:
        session.next_event(CatchKind.FAULT)
    for _ in range(STEPS):
        session.next_fault_step()
    app = DebugApp(session, printed)
    async with app.run_test(size=SIZE):
        await settled(app)
        app.simulate_key("1")
        await settled(app)
        svg = app.export_screenshot(title=f"l4lab debug {IMAGE}")
    return _FONT_DOWNLOADS.sub("", svg).replace("Fira Code, ", "")


def main() -> None:
    """Write the picture to the file that is named."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m l4lab.tools.debug.tui.screenshot FILE.svg")
    Path(sys.argv[1]).write_text(asyncio.run(picture()), encoding="utf-8")


if __name__ == "__main__":
    main()
