"""What the tests of the terminal interface share."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.programs import compile_program, write_manifest


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a machine that runs for ever, and has printed something odd before."""
    folder = tmp_path_factory.mktemp("endless")
    source = r"""
#include <l4/print.h>

int main(void)
{
    printf("before \x1b[31m the loop\n");
    for (volatile int turn = 0;; turn++)
        ;
}
"""
    compile_program(source, folder / "endless")
    return write_manifest(folder / "endless.toml", "endless")
