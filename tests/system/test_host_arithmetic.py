"""The host's C library and its processor's features reach no guest: consoles and x87 results are the same without.

Each run is a process of its own, in which transcendental functions return garbage (LD_PRELOAD) or the C library
believes that the processor has no FMA and no AVX.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from l4lab.tools.native.build import CHECKOUT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD and GLIBC_TUNABLES are Linux's"),
]

FUNCTIONS = (
    *("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh"),
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "cbrt"),
)
OF_TWO = ("atan2", "pow", "fmod", "remainder", "hypot")
PRECISIONS = (("f", "float"), ("", "double"), ("l", "long double"))

OBSERVED = """
    import ctypes, hashlib, sys
    sys.path.insert(0, {tests!r})
    from l4lab.emulator.files.manifest import find_image, load_manifest
    from l4lab.tools.runs.execute import execute
    from support.guest import DATA, SYSTEM_CALL, Guest, set_registers

    sine = ctypes.CDLL(None).sin  # as the shim would find it
    sine.argtypes, sine.restype = [ctypes.c_double], ctypes.c_double
    print("host", sine(1.0), file=sys.stderr)
    for image in {images!r}:
        print(image, hashlib.sha256(execute(load_manifest(find_image(image))).console).hexdigest())
    # fld of two; then fsin, fcos, fsincos, fptan, fpatan, f2xm1, fyl2x, fyl2xp1, fprem, fprem1, fsqrt, fscale
    opcodes = "d9fe d9ff d9fb d9f2 d9f3 d9f0 d9f1 d9f9 d9f8 d9f5 d9fa d9fd".split()
    guest = Guest()
    for opcode in opcodes:
        guest.put(guest.code_pfn, bytes.fromhex("dbe3 dd4308 dd03" + opcode + "dbbb00010000") + SYSTEM_CALL)
        for bits in (0x3FE0000000000000, 0x3FB999999999999A, 0x400921FB54442D18, 0xC1D0000000100000):
            guest.put(guest.data_pfn, bits.to_bytes(8, "little") + (0x3FF4000000000000).to_bytes(8, "little"))
            frame = guest.thread()
            set_registers(frame, ebx=DATA)
            guest.run(frame)
            print(opcode, guest.get(guest.data_pfn, 10, 0x100).hex())
"""
IMAGES = ("hello", "clntsrv", "pagefault", "pingpong", "pma", "conformance", "random")


def observed(**variables: str) -> tuple[str, str]:
    """What a process in this environment prints of guests, and what it prints of its host."""
    script = textwrap.dedent(OBSERVED).format(tests=str(CHECKOUT / "tests"), images=IMAGES)
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout, run.stderr


@pytest.fixture(scope="module")
def undisturbed() -> tuple[str, str]:
    """What there is to see on this host as it is."""
    return observed()


def test_the_c_library_is_not_asked(undisturbed: tuple[str, str], tmp_path: Path) -> None:
    """SDM vol. 1, 8.3.8 to 8.3.11: what these instructions give is the shim's own work."""
    source = tmp_path / "garbage.c"
    lines = []
    for suffix, kind in PRECISIONS:
        lines += [f"{kind} {name}{suffix}({kind} x) {{ (void)x; return 12345; }}" for name in FUNCTIONS]
        lines += [
            f"{kind} {name}{suffix}({kind} x, {kind} y) {{ (void)x, (void)y; return 54321; }}"
            for name in OF_TWO
        ]
    source.write_text("\n".join(lines), encoding="utf-8")
    library = tmp_path / "garbage.so"
    command = [
        "-m",
        "ziglang",
        "cc",
        "-O0",
        "-fno-builtin",
        "-shared",
        "-fPIC",
        str(source),
        "-o",
        str(library),
    ]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    guests, host = observed(LD_PRELOAD=str(library))
    assert host == "host 12345.0\n", "the garbage is not in place"
    assert guests == undisturbed[0]


def test_features_of_the_processor_do_not_matter(undisturbed: tuple[str, str]) -> None:
    """The C library takes other code for the same functions where there is no FMA."""
    hidden = "glibc.cpu.hwcaps=-FMA,-FMA4,-AVX2,-AVX,-AVX512F,-AVX512VL"
    assert observed(GLIBC_TUNABLES=hidden)[0] == undisturbed[0]
