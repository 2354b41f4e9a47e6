"""Options that several commands have, and words of ours for what is wrong with one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click

from l4lab.emulator.errors import OperatorError

_SHOWN: Final = 40

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Number(click.IntRange):
    """Whole numbers from `min` on; what else is found is told in our words."""

    def convert(self, value: Any, param: click.Parameter | None, _: click.Context | None) -> int:
        with suppress(ValueError):
            if self.min is not None and (number := int(value)) >= self.min:
                return number
        name = param.opts[0] if param is not None else self.name
        found = repr(value) if len(str(value)) <= _SHOWN else f"{str(value)[:_SHOWN]!r}..."
        raise OperatorError(f"{name}: found {found}, expected a number from {self.min} on")


def json_option(more: str = " instead of the table.") -> Decorator:
    """`--json`; `more`: how the sentence goes on in its help."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print one JSON document{more}")


def folder_option(help_text: str) -> Decorator:
    """`--out DIR`."""
    return click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help=help_text)


def max_cycles_option(help_text: str) -> Decorator:
    """`--max-cycles N`."""
    return click.option("--max-cycles", type=click.IntRange(min=1), metavar="N", help=help_text)


def profile_option() -> Decorator:
    """`--profile`, of a benchmark: by default that of the paper's machine."""
    return click.option(
        "--profile", default="opteron-6174", show_default=True, help="Cycle costs: a name or a path."
    )


def origin_option(name: str = "image", unless: str = "if that is no bundled image") -> Decorator:
    """`--image`: what a recorded run was booted from."""
    return click.option("--image", name, metavar="IMAGE", help=f"What RUN was booted from, {unless}.")


def run_argument() -> Decorator:
    """`[RUN]`: a folder that `boot --out` has written."""
    return click.argument("run", type=click.Path(path_type=Path), required=False)


def checkout(command: str) -> Path:
    """The folder of the checkout that runs. Raises OperatorError in an installed package."""
    from l4lab.tools.native.build import CHECKOUT

    if (CHECKOUT / "userland").is_dir() and (CHECKOUT / "pyproject.toml").is_file():
        return CHECKOUT
    raise OperatorError(
        f"{command}: found an installed package, expected a checkout of l4lab with its sources"
    )
