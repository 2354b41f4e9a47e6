"""The edge of the program: however a command ends, it becomes an exit code and at most one line for people.

Exit codes: 0 to 255 of the guest where it ended by itself, else
    2 operator's mistake   70 our own mistake   124 --max-cycles reached   125 every thread waits forever
    126 the root task was killed   130 Ctrl-C   141 whoever read our output has left, as with `| head`
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import Any, Final

import click

from l4lab.emulator.errors import OperatorError
from l4lab.kernel.errors import KernelBug
from l4lab.tools.common.say import say

EXIT_OPERATOR: Final = 2
EXIT_KERNEL_BUG: Final = 70
EXIT_INTERRUPTED: Final = 130
EXIT_CLOSED_PIPE: Final = 141

_SHORTAGES: Final = {
    errno.ENOSPC: "cannot write: No space left on device",
    errno.EDQUOT: "cannot write: Disk quota exceeded",
    errno.ENOMEM: "found no memory left on this host, expected more: give the machine less RAM, or raise `ulimit -v`",
    errno.EMFILE: "found too many files open in this process, expected room for more: raise `ulimit -n`",
    errno.ENFILE: "found too many files open on this host, expected room for more",
}
"""What the host can run out of anywhere, in words for its operator."""


def guarded(command: Callable[[], Any]) -> int:
    """Run `command`; every way in which it can fail becomes a line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may have bytes that are no text
    if sys.stdout is None:
        say("stdout: found it closed, expected it open; to drop the output, redirect it to /dev/null")
        return EXIT_OPERATOR
    try:
        code = command()
    except click.exceptions.Exit as exit_request:
        return exit_request.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_OPERATOR
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        hint = f"; see {context.command_path} --help" if context else ""
        say(f"{error.format_message().rstrip('.')}{hint}")
        return EXIT_OPERATOR
    except OperatorError as error:
        say(str(error))
        return EXIT_OPERATOR
    except KernelBug as bug:
        say(f"bug in l4lab's kernel: {bug}")
        return EXIT_KERNEL_BUG
    except SystemExit as left:  # with 1, so do click and rich leave when they find the pipe closed
        return left.code if isinstance(left.code, int) and left.code > 1 else EXIT_CLOSED_PIPE
    except (KeyboardInterrupt, click.Abort):
        say("interrupted")
        return EXIT_INTERRUPTED
    except MemoryError:
        say(_SHORTAGES[errno.ENOMEM])
        return EXIT_OPERATOR
    except Exception as error:
        shortage = _SHORTAGES.get(error.errno or 0) if isinstance(error, OSError) else None
        if shortage is not None:
            say(shortage)
            return EXIT_OPERATOR
        import traceback  # seldom needed, and dear to import

        traceback.print_exc()
        say("bug in l4lab: the lines above say where")
        return EXIT_KERNEL_BUG
    return code if isinstance(code, int) else 0


def flushed(code: int) -> int:
    """Write out what stdout still holds; the exit code: `code`, if that was possible."""
    try:
        if sys.stdout is not None and not sys.stdout.closed:  # by whoever could not write to it
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return EXIT_CLOSED_PIPE
        if not code:
            say(f"cannot write: {error.strerror}")
            return EXIT_OPERATOR
    return code
