"""Guest programs that tests bring along as C text, compiled as those of userland/ are."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from l4lab.tools.native import build


def compile_program(source: str, output: Path, link_address: int = 0x0018_0000) -> Path:
    """Compile C with the headers and the library of userland/; the default address suits a root task."""
    text = output.with_suffix(".c")
    text.write_text(source, encoding="utf-8")
    userland = build.CHECKOUT / "userland"
    library = sorted(path.relative_to(userland).as_posix() for path in (userland / "lib").glob("*.[cS]"))
    program = build.Program(output.name, link_address, (str(text), *library), ("lib",))
    artefact = build.program_artefact(build.CHECKOUT, program)
    build.compile_artefact(build.CHECKOUT, dataclasses.replace(artefact, output=output))
    return output


def write_manifest(path: Path, roottask: str, *modules: str, cores: int = 1) -> Path:
    """A manifest for the bundled sigma0 and a root task of the test's own."""
    path.write_text(
        f'[machine]\ncores = {cores}\nram = "16MiB"\n'
        f'[boot]\nsigma0 = "sigma0"\nroottask = "{roottask}"\nmodules = {list(modules)!r}\n',
        encoding="utf-8",
    )
    return path
