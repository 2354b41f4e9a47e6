"""The wheel's build hook: build what is native and put it into the package.

The wheel holds the shim and the user programs but no C source, and is tagged for the platform, not for a
Python version: the shim is loaded with ctypes and knows nothing of Python.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LINKED_FOLDERS = ("emulator", "images", "kernel", "tools")


class NativeBuildHook(BuildHookInterface[Any]):
    """Runs for wheels and editable installs; a source distribution holds sources only."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        native = _load(root / "tools/native/build.py")
        try:
            result = native.build(root, report=self.app.display_info)
        except native.BuildError as error:
            self.app.abort(f"{error.output}{error}")
        if version == "editable":
            _link_folders(root)
            return
        changed = native.differing(native.read_hashes(root / "userland/HASHES"), result.hashes)
        if changed:
            self.app.abort(
                f"userland/HASHES: other bytes recorded for {', '.join(changed)}; "
                "after a change of userland/ run ./l4lab build --update-hashes"
            )
        host = native.Host.detect()
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{host.wheel_platform}"
        package = root / "src/l4lab/_native"
        for path in (
            package / host.shim_name,
            package / "build.json",
            *sorted((package / "programs").iterdir()),
        ):
            build_data["force_include"][str(path)] = f"l4lab/_native/{path.relative_to(package).as_posix()}"


def _load(path: Path) -> Any:
    """Import a file that belongs to no installed package."""
    spec = importlib.util.spec_from_file_location("l4lab_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _link_folders(root: Path) -> None:
    """A source distribution carries no links; a development install of one needs them."""
    for name in LINKED_FOLDERS:
        link = root / "src/l4lab" / name
        if not link.is_symlink() and not link.exists():
            link.symlink_to(Path("../..") / name, target_is_directory=True)
