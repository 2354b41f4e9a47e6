"""What is told to the person at the terminal, beside the output."""

from __future__ import annotations

import click


def say(line: str) -> None:
    """One line, to stderr."""
    click.echo(f"l4lab: {line}", err=True)
