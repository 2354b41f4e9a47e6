"""Planting bugs: a function of the kernel with one piece of its text replaced, in the place of the original."""

from __future__ import annotations

import inspect
import sys
import textwrap
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest


@dataclass(frozen=True)
class Plant:
    """In `function` of `module` (`Class.method` for a method) stands `new` instead of `old`."""

    module: ModuleType
    function: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.module.__name__.rpartition('.')[2]}.{self.function}: {self.new.strip() or 'left out'}"

    def put(self, patch: pytest.MonkeyPatch) -> None:
        """Plant it until the patch is undone. Fails if the text is not there exactly once: the kernel has changed."""
        owner: Any = self.module
        *classes, name = self.function.split(".")
        for each in classes:
            owner = getattr(owner, each)
        original = inspect.getattr_static(owner, name)
        text = textwrap.dedent(inspect.getsource(original))
        assert text.count(self.old) == 1, (
            f"{self}: found {text.count(self.old)} times, expected once: {self.old}"
        )
        made: dict[str, Any] = {}
        code = compile(
            f"from __future__ import annotations\n{text.replace(self.old, self.new)}", str(self), "exec"
        )
        exec(code, vars(self.module), made)
        holders = [owner] if classes else [m for m in _kernel_modules() if vars(m).get(name) is original]
        for holder in holders:  # whoever has imported it by name, too
            patch.setattr(holder, name, made[name])


def _kernel_modules() -> list[ModuleType]:
    return [module for name, module in list(sys.modules.items()) if name.startswith("l4lab.kernel")]
