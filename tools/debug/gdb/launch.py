"""`l4lab boot --gdb`: a machine, a socket, and the command line to connect with."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from l4lab.emulator.debug.stops import StopKind
from l4lab.emulator.files.manifest import find_image, load_manifest
from l4lab.emulator.results import RunResult, StopReason, collect
from l4lab.kernel.errors import KernelBug
from l4lab.tools.common.leaving import leaving_in_order
from l4lab.tools.common.say import say
from l4lab.tools.debug.gdb.addresses import listening, reaches_beyond_this_host
from l4lab.tools.debug.gdb.script import gdb_script, write_auto_load, write_script, write_stand_ins
from l4lab.tools.debug.gdb.server import Server
from l4lab.tools.debug.gdb.target import Target
from l4lab.tools.runs.boot import tell_ending, write_console
from l4lab.tools.runs.programs import Programs
from l4lab.tools.runs.replay import boot_to_debug

if TYPE_CHECKING:
    from l4lab.emulator.files.manifest import Manifest


def boot_under_gdb(image: str, address: str, *, stopped: bool, max_cycles: int | None, verbose: bool) -> int:
    """`l4lab boot IMAGE --gdb ADDR`. Returns the exit code; raises OperatorError and KernelBug."""
    manifest = load_manifest(find_image(image))
    result = run_under_gdb(
        manifest, address, stopped=stopped, max_cycles=max_cycles, console=write_console, say=say
    )
    return tell_ending(result, verbose=verbose)


def run_under_gdb(
    manifest: Manifest,
    address: str,
    *,
    stopped: bool,
    max_cycles: int | None,
    console: Callable[[bytes], None],
    say: Callable[[str], None],
) -> RunResult:
    """Boot and serve gdb at `address` until the run is over. `stopped`: wait before the first instruction.

    Raises AddressError if nobody can listen there, KernelBug for a bug of ours. HOST_STOP: killed by gdb,
    or Ctrl-C.
    """
    with leaving_in_order(), listening(address) as (listener, bound), _temporary_folder() as folder:
        debugger, programs = boot_to_debug(manifest, max_cycles, console), Programs(manifest)
        machine, target = debugger.machine, Target(debugger, programs)
        stand_ins = write_stand_ins(Path(folder))
        auto_load = write_auto_load(Path(folder), programs, stand_ins)
        script = write_script(Path(folder), gdb_script(bound, manifest.path.name, programs, auto_load))
        waiting = "stopped before the first instruction; " if stopped else ""
        say(f"{waiting}gdb can connect at {bound}")
        if reaches_beyond_this_host(listener):
            say("warning: so can other hosts, and who connects can read and write the whole machine")
        say(f"gdb -x {shlex.quote(str(script))}")
        try:
            server = Server(listener, target, say, stand_ins)
            stop = server.serve(stopped=stopped)
        except KeyboardInterrupt:
            stop = None
        if stop is not None and stop.kind is StopKind.BUG:
            raise KernelBug(f"{stop.text}\n{machine.describe()}")
        reason = stop.result if stop is not None and stop.result is not None else StopReason.HOST_STOP
        return collect(machine, reason)


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="l4lab-")
