"""The look of the screen, in Textual's CSS."""

from __future__ import annotations

from typing import Final

CSS: Final = """
Screen { layout: vertical; }
#status { height: 1; background: $panel; text-wrap: nowrap; text-overflow: ellipsis; }
#status.said { height: auto; max-height: 3; text-wrap: wrap; }
.pane { border: round $primary 50%; border-title-color: $text-muted; padding: 0 1 0 0; scrollbar-size: 1 1; }
.pane:focus { border: round $accent; }
DataTable > .datatable--header { background: $surface; color: $text-muted; text-style: none; }
DataTable { overflow-x: hidden; }
DataTable:focus { background-tint: $foreground 0%; }
#panes { height: 1fr; }
Pane Static { text-wrap: nowrap; text-overflow: ellipsis; width: auto; min-width: 100%; }
#console Static { text-wrap: wrap; width: 100%; }

#buttons { height: 2; background: $panel; }
#buttons .row { height: 1; }
#buttons .sign { width: 2; color: $text-muted; }
#buttons Button { min-width: 3; background: $panel; margin: 0 2 0 0; }
.-narrow #buttons Button { margin: 0; }
#buttons Button:hover { background: $primary; }
#buttons.running Button { opacity: 40%; }
#buttons.running #do-pause, #buttons.running #do-quit { opacity: 100%; text-style: bold; }

/* Much room: everything at once. */
.-wide #panes { layout: grid; grid-size: 3 3; grid-columns: 44 1fr 1fr; grid-rows: 5fr 11 5fr; }
.-wide #left { row-span: 2; }
.-wide #code { column-span: 2; layout: horizontal; }
.-wide #fault { column-span: 2; }
.-wide #console { height: 100%; }
.-wide #cores { height: auto; max-height: 50%; }
.-wide #threads { height: 1fr; }
.-wide #source, .-wide #instructions { width: 1fr; height: 100%; }

/* Little: code above, and below one pane of four. */
.-narrow #panes { layout: grid; grid-size: 2 2; grid-columns: 35 1fr; grid-rows: 1fr 10; }
.-narrow .pane { border: none; border-top: solid $primary 50%; padding: 0; }
.-narrow .pane:focus { border-top: solid $accent; }
.-narrow #left { height: 100%; margin-right: 1; }
.-narrow #cores { height: auto; max-height: 50%; }
.-narrow #threads { height: 1fr; }
.-narrow #source, .-narrow #fault, .-narrow #calls, .-narrow #space, .-narrow #console { display: none; }
.-narrow #fault.front, .-narrow #calls.front, .-narrow #space.front, .-narrow #console.front {
    display: block; column-span: 2;
}

Ask { align: center middle; background: $background 50%; }
Ask Vertical { width: 70; max-width: 96%; height: auto; border: round $accent; padding: 0 1; background: $surface; }
Help { align: center middle; background: $background 50%; }
Help VerticalScroll { width: 90; max-width: 96%; height: 94%; border: round $accent; padding: 0 1; }
Help VerticalScroll { background: $surface; }
Views #names { width: 14; height: 100%; border: round $primary 50%; scrollbar-size: 1 1; }
Views #tables { border: round $primary 50%; border-title-color: $text-muted; scrollbar-size: 1 1; }
Views #table { width: auto; min-width: 100%; text-wrap: nowrap; }
Views Input { margin: 0 1; }
Views #hint { height: 1; background: $panel; }
"""
