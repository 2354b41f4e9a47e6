"""What `import l4lab` gives a notebook."""

from __future__ import annotations

import subprocess
import sys

import pytest

import l4lab


def test_import_loads_nothing_but_itself() -> None:
    script = "import sys, l4lab; print([m for m in sys.modules if m.startswith('l4lab.') or m == 'unicorn'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", l4lab.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(l4lab, name)
    assert name in dir(l4lab)
    assert isinstance(value, str) or value.__doc__


def test_other_names_are_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'l4lab' has no attribute 'Machin'"):
        _ = l4lab.Machin
