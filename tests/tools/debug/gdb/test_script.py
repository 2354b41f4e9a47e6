"""The gdb script: what a file is called must not become a command in somebody's gdb."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from l4lab.emulator.files.manifest import load_manifest
from l4lab.tools.debug.gdb import script
from l4lab.tools.debug.gdb.script import gdb_script
from l4lab.tools.runs.programs import Programs
from support.programs import compile_program, write_manifest


def test_names_of_files_are_no_commands(tmp_path: Path) -> None:
    """Neither the manifest's nor a program's: a comment ends with its line."""
    folder = tmp_path / "a\nshell touch stolen"
    folder.mkdir()
    compile_program("int main(void) { return 0; }", tmp_path / "program")
    shutil.copy(tmp_path / "program", folder / "program")
    write_manifest(folder / "x.toml", "program")
    text = gdb_script("127.0.0.1:1", "x\nshell touch stolen", Programs(load_manifest(folder / "x.toml")))
    assert not [line for line in text.splitlines() if line.startswith("shell")]
    assert text.count("shell touch stolen") == 2 and "\\nshell touch stolen" in text


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("plain", 'directory "{}/plain/userland"'),
        ('q"uo\\te', 'directory "{}/q\\"uo\\\\te/userland"'),
        ("two\nlines", None),
    ],
)
def test_the_folder_of_sources_is_one_word(
    name: str, line: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name / "userland").mkdir(parents=True)
    compile_program("int main(void) { return 0; }", tmp_path / "program")
    write_manifest(tmp_path / "x.toml", "program")
    monkeypatch.setattr(script, "CHECKOUT", tmp_path / name)
    text = gdb_script("127.0.0.1:1", "x", Programs(load_manifest(tmp_path / "x.toml")))
    found = [each for each in text.splitlines() if each.startswith("directory")]
    assert found == ([] if line is None else [line.format(tmp_path)])
