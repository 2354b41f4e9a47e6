"""The documents name what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    "ARCHITECTURE.md",
    "README.md",
    "DECISIONS.md",
    "CONTRIBUTING.md",
    *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md"))),
)
_FOLDERS = "tools|emulator|kernel|tests|userland|images|docs"
_PATH = re.compile(rf"`((?:{_FOLDERS})/[\w./*-]+)`|`((?:{_FOLDERS})/[\w./*-]+)[: ]")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_that_a_document_names_is_there(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = {first or second for first, second in _PATH.findall(text)}
    assert [path for path in sorted(named) if not any(ROOT.glob(path.rstrip("/")))] == []
