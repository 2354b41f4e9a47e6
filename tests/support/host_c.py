"""C code of userland/ compiled for the host, to be called from tests."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

from l4lab.tools.native.build import CHECKOUT, COMMON_FLAGS

USERLAND = CHECKOUT / "userland"


def compile_library(folder: Path, *sources: str) -> ctypes.CDLL:
    """The files `sources` of userland/ as a shared library, built in `folder`; undefined behaviour traps."""
    output = folder / "library.so"
    include = sorted({str((USERLAND / source).parent) for source in sources})
    command = [
        *(sys.executable, "-m", "ziglang", "cc", "-std=c11", "-O1", "-shared", "-fPIC", *COMMON_FLAGS),
        *("-fsanitize=undefined", "-fsanitize-trap=undefined"),
        *(f"-I{path}" for path in include),
        *(str(USERLAND / source) for source in sources),
        *("-o", str(output)),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return ctypes.CDLL(str(output))
