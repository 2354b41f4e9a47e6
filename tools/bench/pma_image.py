"""The image of the memory benchmark, for any design, number of cores and size: one description, no copies.

`images/pma.toml` is what comes out for `BUNDLED`; every other one is made when it is needed. Who runs
what is in `userland/loader/main.c`, what is measured in `userland/bench/pma/main.c`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DESIGNS: Final = {
    "percore": "a pager with an allocator of its own on each core",
    "single": "one such pager on core 0, for all cores",
    "l4re": "one dataspace server on core 0, a region map in each process",
}
ALLOCATORS: Final = ("avl", "buddy", "slab")
MAX_PAGES: Final = 16384
MAX_TASKS: Final = 1_000_000
MAX_CORES: Final = 64
MAX_REGION_PAGES: Final = 1 << 20
"""More than any machine has."""


@dataclass(frozen=True, slots=True)
class PmaSetup:
    """One run of the benchmark: a process on each core, `tasks` times `pages` pages each.

    `chunk_pages`: pages in one allocation; None: 1, or for the design `l4re` all of a task's.
    `region_pages`: what each server gets; None: its even share of RAM. `clear`: servers zero frames before
    they give them out. `tlb`: what unmap does to TLBs, `idle`: what idle cores do, as in a manifest. The
    defaults, which are those of `l4lab bench pma`, too, are the paper's.
    """

    design: str = "percore"
    cores: int = 48
    pages: int = 100
    tasks: int = 100
    allocator: str = "avl"
    clear: bool = False
    chunk_pages: int | None = None
    region_pages: int | None = None
    ram: str = "1GiB"
    profile: str = "opteron-6174"
    tlb: str = "full"
    idle: str = "halt"

    @property
    def program(self) -> str:
        """The benchmark's process."""
        return "pma-l4re" if self.design == "l4re" else "pma"

    @property
    def server(self) -> str:
        """What serves it."""
        return "dataspaces" if self.design == "l4re" else "pager"

    @property
    def servers(self) -> int:
        """How many of them there are."""
        return self.cores if self.design == "percore" else 1

    @property
    def pages_per_process(self) -> int:
        """All tasks together."""
        return self.pages * self.tasks

    def manifest(self) -> str:
        """The text of the manifest."""
        loader = ["loader", f"--design={self.design}", f"--cores={self.cores}"]
        if self.region_pages is not None:
            loader.append(f"--region={self.region_pages}")
        loader += [f"--each=rom/{self.program}", "--coordinator=rom/coordinator"]
        server = [self.server, f"--pma={self.allocator}", *(["--clear"] if self.clear else [])]
        process = [self.program, f"pages={self.pages}", f"tasks={self.tasks}"]
        if self.chunk_pages is not None:
            process.append(f"chunk={self.chunk_pages}")
        return _TEMPLATE.format(
            what=DESIGNS[self.design],
            cores=self.cores,
            ram=self.ram,
            profile=self.profile,
            tlb=self.tlb,
            idle=self.idle,
            loader=" ".join(loader),
            server=" ".join(server),
            process=" ".join(process),
        )


BUNDLED: Final = PmaSetup(cores=4, tasks=10)
"""A run of a second or two: the image `pma`."""

_TEMPLATE: Final = """\
# The memory benchmark of 000_1be4d2f6ae8bebbc.txt, section 5: {what}.
# Written by tools/bench/pma_image.py; `l4lab bench pma --manifest` writes others.
[machine]
cores = {cores}
ram = "{ram}"
profile = "{profile}"
tlb = "{tlb}"
idle = "{idle}"

[boot]
sigma0 = "sigma0"
roottask = "{loader}"
modules = [
    "{server}",
    "{process}",
    "coordinator {cores}",
]
"""
