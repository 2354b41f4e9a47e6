"""The state of Python objects at one moment, and the way back to it.

A `Memento` notes the contents of every mutable object that can be reached from some roots, and later
puts those contents back *into the same objects*: whoever holds a thread, a task or a list still holds
the right one afterwards. Objects made since are forgotten; those that had gone come back.

Only the kernel's and the machine's own classes are looked into. What belongs to the host (RAM, the
engine, files) or never changes is named as opaque; meeting any other class is a KernelBug, so that
nothing new escapes unnoticed. No recursion: chains of objects are as long as guests make them.
"""

from __future__ import annotations

import types
from array import array
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import is_dataclass
from enum import Enum
from typing import Any, Final

from l4lab.kernel.errors import KernelBug

_ATOMS: Final = (
    type(None),
    bool,
    int,
    float,
    str,
    bytes,
    range,
    type,
    memoryview,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
)
_OWN_MODULES: Final = ("l4lab.kernel.", "l4lab.emulator.machine.", "l4lab.emulator.debug.debugged.")
_MISSING: Final = object()


class _Layout:
    """Names of the attributes of a class: those in slots, and whether there is a `__dict__`.

    `frozen`: attributes never change; what they name may.
    """

    __slots__ = ("frozen", "has_dict", "names")

    def __init__(self, kind: type) -> None:
        names: list[str] = []
        for base in reversed(kind.__mro__):
            slots = base.__dict__.get("__slots__", ())
            names += (slots,) if isinstance(slots, str) else slots
        self.names = tuple(name for name in names if name not in ("__dict__", "__weakref__"))
        self.has_dict = hasattr(kind, "__dict__") and kind.__dictoffset__ != 0
        parameters = getattr(kind, "__dataclass_params__", None) if is_dataclass(kind) else None
        self.frozen = parameters is not None and parameters.frozen


class Memento:
    """The contents of everything mutable that the roots lead to."""

    __slots__ = ("_contents", "_opaque")

    def __init__(self, roots: Iterable[object], opaque: tuple[type, ...]) -> None:
        """Note the contents now. `opaque`: classes not to look into, nor to restore. O(objects)."""
        self._opaque = opaque
        self._contents: list[tuple[Any, Any]] = []
        self._capture(roots)

    def __len__(self) -> int:
        """How many objects there are."""
        return len(self._contents)

    def _capture(self, roots: Iterable[object]) -> None:
        seen: set[int] = set()
        waiting: list[Any] = list(roots)
        contents = self._contents
        layouts: dict[type, _Layout] = {}
        plain = {*_ATOMS, *self._opaque}
        while waiting:
            thing = waiting.pop()
            kind = type(thing)
            if kind in plain or id(thing) in seen:
                continue
            seen.add(id(thing))
            if kind is tuple or kind is frozenset or issubclass(kind, tuple):
                contents.append((thing, None))  # keeps its id from being used again
                waiting += thing
            elif kind is list or kind is deque:
                contents.append((thing, list(thing)))
                waiting += thing
            elif kind is dict or kind is OrderedDict:
                contents.append((thing, thing.copy()))
                waiting += thing
                waiting += thing.values()
            elif kind is set:
                contents.append((thing, thing.copy()))
                waiting += thing
            elif kind is bytearray:
                contents.append((thing, bytes(thing)))
            elif kind is array:
                contents.append((thing, thing.tobytes()))
            else:
                layout = layouts.get(kind)
                if layout is None:
                    if self._is_plain(kind):
                        plain.add(kind)
                        continue
                    layout = layouts[kind] = _Layout(kind)
                waiting += self._attributes(thing, layout)

    def _is_plain(self, kind: type) -> bool:
        """False for a class to look into. KernelBug for one that nobody has thought of."""
        if issubclass(kind, (Enum, BaseException, *self._opaque)):
            return True
        if not f"{kind.__module__}.".startswith(_OWN_MODULES):
            raise KernelBug(
                f"a snapshot meets a {kind.__module__}.{kind.__qualname__}, which it does not know"
            )
        return False

    def _attributes(self, thing: Any, layout: _Layout) -> list[Any]:
        values = [getattr(thing, name, _MISSING) for name in layout.names]
        others = dict(vars(thing)) if layout.has_dict else None
        self._contents.append((thing, None if layout.frozen else (layout.names, values, others)))
        if others is not None:
            values = [*values, *others.values()]
        return [value for value in values if value is not _MISSING]

    def restore(self) -> None:
        """Every object has its contents of then again. May be done any number of times."""
        for thing, content in self._contents:
            if content is None:
                continue
            kind = type(thing)
            if kind is list:
                thing[:] = content
            elif kind is dict or kind is OrderedDict or kind is set or kind is deque:
                thing.clear()
                thing.extend(content) if kind is deque else thing.update(content)
            elif kind is bytearray:
                thing[:] = content
            elif kind is array:
                _restore_array(thing, content)
            else:
                _restore_attributes(thing, content)


def _restore_array(thing: array[Any], content: bytes) -> None:
    """In place: the shim holds the address of a thread's frame."""
    if len(thing) * thing.itemsize == len(content):
        memoryview(thing).cast("B")[:] = content
    else:
        del thing[:]
        thing.frombytes(content)


def _restore_attributes(
    thing: Any, content: tuple[tuple[str, ...], list[Any], dict[str, Any] | None]
) -> None:
    names, values, others = content
    for name, value in zip(names, values, strict=True):
        if value is not _MISSING:
            setattr(thing, name, value)
        elif hasattr(thing, name):
            delattr(thing, name)
    if others is not None:
        attributes = vars(thing)
        attributes.clear()
        attributes.update(others)
