"""TOML files with typed keys: every mistake is one line that names file and key.

A `Table` is one table of the file and knows its full name. A reader first says which keys there
may be (`allow`), so that a misspelt key is reported as that and never as a missing one or not at
all, and then takes each in the form it must have.
"""

from __future__ import annotations

import tomllib
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, NoReturn

from l4lab.emulator.errors import OperatorError
from l4lab.emulator.files.inputs import did_you_mean, listed, printable, read_text

MAX_TOML_BYTES: Final = 1 << 20

_TYPE_WORDS: Final = {
    str: "a string",
    bool: "true or false",
    int: "an integer",
    Decimal: "a decimal number",
    list: "a list",
    dict: "a table",
}


def load_toml(path: Path, error: type[OperatorError]) -> Table:
    """The top of the file. Raises `error` if it cannot be read or is not TOML (with line and column)."""
    text = read_text(path, MAX_TOML_BYTES, error)
    try:
        content = tomllib.loads(text, parse_float=_decimal)
    except RecursionError:
        raise error(f"{printable(path)}: found values nested too deeply, expected plain tables") from None
    except ValueError as problem:  # TOMLDecodeError, and numbers of absurd size
        raise error(f"{printable(path)}: found invalid TOML, {printable(problem)}") from None
    return Table(path, "", content, error)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"a number beyond all bounds: {text}") from None


def shown(value: object) -> str:
    """A value as it may have stood in the file, short enough for a message."""
    if isinstance(value, str):
        return f'"{printable(value)}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 1024:
        return "an enormous integer"  # Python refuses to print it
    if isinstance(value, int | Decimal):
        return printable(value)
    return _TYPE_WORDS.get(type(value), "a date or time")


class Table:
    """One table of a TOML file. `name` is its full name, empty for the file's top."""

    __slots__ = ("_content", "_error", "name", "path")

    def __init__(self, path: Path, name: str, content: dict[str, Any], error: type[OperatorError]) -> None:
        self.path = path
        self.name = name
        self._content = content
        self._error = error

    def __contains__(self, key: str) -> bool:
        return key in self._content

    def keys(self) -> tuple[str, ...]:
        """The keys that the file has, in its order."""
        return tuple(self._content)

    def full_name(self, key: str) -> str:
        """`machine.cores`, in one line whatever the key is."""
        return printable(f"{self.name}.{key}" if self.name else key)

    def refuse(self, key: str, found: str, expected: str) -> NoReturn:
        """Raise the line for a bad value of `key`."""
        raise self._error(
            f"{printable(self.path)}: {self.full_name(key)}: found {found}, expected {expected}"
        )

    def allow(self, *known: str) -> Table:
        """Refuse the first key that is not among `known`; returns the table itself."""
        for key in self._content:
            if key not in known:
                what = f"found unknown key {self.full_name(key)}{did_you_mean(key, known)}"
                raise self._error(f"{printable(self.path)}: {what}, expected one of {listed(known)}")
        return self

    def table(self, key: str, *, required: bool = True) -> Table:
        """The table `key`; an empty one if it is missing and not required."""
        value = self.take(key, dict, "a table", None if required else {})
        return Table(self.path, f"{self.name}.{key}" if self.name else key, value, self._error)

    def string(self, key: str, expected: str, default: str | None = None) -> str:
        """A string of printable characters."""
        value: str = self.take(key, str, expected, default)
        if not value.isprintable():
            self.refuse(key, shown(value), f"{expected}, without control characters")
        return value

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """An integer in `low` .. `high`."""
        expected = f"an integer from {low} to {high}"
        value: int = self.take(key, int, expected, default)
        if not low <= value <= high:
            self.refuse(key, shown(value), expected)
        return value

    def decimal(self, key: str, low: int, high: int, places: int) -> Decimal:
        """An exact number in `low` .. `high` with at most `places` digits behind the point."""
        digits = f" with at most {places} decimal places" if places else ""
        expected = f"a {'' if places else 'whole '}number from {low} to {high}{digits}"
        kind = Decimal if type(self._content.get(key)) is Decimal else int
        value = Decimal(self.take(key, kind, expected))
        # The range comes first: 1e999999999 cannot be rounded in anybody's lifetime.
        if not (value.is_finite() and low <= value <= high and value == round(value, places)):
            self.refuse(key, shown(self._content[key]), expected)
        return value

    def require(self, *keys: str) -> Table:
        """Refuse the table if any of `keys` is missing, all of them in one line; returns the table."""
        missing = [key for key in keys if key not in self._content]
        if missing:
            where = f"{printable(self.path)}: {self.name}" if self.name else printable(self.path)
            raise self._error(f"{where}: found no {listed(missing)}, expected every one of its keys")
        return self

    def take(self, key: str, kind: type, expected: str, default: Any = None) -> Any:
        """The value of `key`, of exactly type `kind`: true is no integer. Required if it has no default."""
        if key not in self._content:
            if default is None:
                self.refuse(key, "nothing", expected)
            return default
        value = self._content[key]
        if type(value) is not kind:
            self.refuse(key, shown(value), expected)
        return value
