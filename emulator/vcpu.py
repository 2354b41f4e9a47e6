"""The vCPU, as the machine sees it: `run(thread frame, deadline) -> Trap`.

The work is done by the shim (`emulator/shim`; the map is in its vcpu.h); this module finds it, hands it the
functions of the engine's library, and turns its answers into `kernel.traps`. But for `yardstick` it is the only
importer of Unicorn.
"""

from __future__ import annotations

import ctypes
import functools
import signal
import sys
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from l4lab.emulator.costs import CostTable
from l4lab.emulator.cpuid import OPTERON_6174, CpuIdentity, cpuid_leaves
from l4lab.emulator.errors import OperatorError
from l4lab.emulator.files.inputs import PACKAGE_DIR
from l4lab.emulator.interfaces import INTERFACE
from l4lab.emulator.ram import Ram
from l4lab.emulator.stutter import stutters
from l4lab.kernel.frame import FPU_CORE
from l4lab.kernel.interface import Interface
from l4lab.kernel.traps import (
    DEADLINE_REACHED,
    HOST_STOP,
    SYSTEM_CALL,
    CpuException,
    PageFault,
    Trap,
)

NO_DEADLINE: Final = 2**63 - 1
ENGINE_VERSION: Final = (2, 1)
MAX_CORES: Final = 1024

# `enum outcome` of outcome.h, in bits 0..7 of what vcpu_run returns.
_DEADLINE: Final = 0
_SYSTEM_CALL: Final = 1
_PAGE_FAULT: Final = 2
_EXCEPTION: Final = 3
_HOST_STOP: Final = 4
_DEBUG_STOP: Final = 6

# The first members of `struct vcpu`, seen as 64-bit words.
_FRAME: Final = 0
_DEADLINE_CYCLES: Final = 1
_CLOCK_CYCLES: Final = 2
_SharedWords = ctypes.c_int64 * 3


class EngineError(OperatorError):
    """The shim or the engine's library is missing, of another version, or does not behave."""


def _names(function: ctypes._NamedFuncPointer) -> list[str]:
    """The strings of a null-terminated `char *[]`."""
    function.restype = ctypes.POINTER(ctypes.c_char_p)
    names: list[str] = []
    pointer = function()
    while (name := pointer[len(names)]) is not None:
        names.append(name.decode())
    return names


_POINTER = ctypes.c_void_p
_PROTOTYPES: Final = {
    "vcpu_use_engine": (None, [_POINTER]),
    "vcpu_new_machine": (_POINTER, [_POINTER, ctypes.c_uint64, *[_POINTER] * 3, ctypes.c_uint32]),
    "vcpu_delete_machine": (None, [_POINTER]),
    "vcpu_memory_in_use": (ctypes.c_uint64, []),
    "vcpu_engines_in_use": (ctypes.c_uint32, []),
    "vcpu_new": (_POINTER, [_POINTER]),
    "vcpu_prepare": (ctypes.c_bool, [_POINTER]),
    "vcpu_run": (ctypes.c_uint64, [_POINTER]),
    "vcpu_stop": (None, [_POINTER]),
    "vcpu_shared_words": (_POINTER, [_POINTER]),
    "vcpu_anomalies": (ctypes.c_uint64, [_POINTER]),
    "vcpu_error": (ctypes.c_char_p, [_POINTER]),
    "vcpu_flush_tlb": (None, [_POINTER]),
    "vcpu_invalidate_page": (None, [_POINTER, ctypes.c_uint32]),
    "vcpu_forget_code": (None, [_POINTER, ctypes.c_uint32, ctypes.c_uint32]),
    "vcpu_set_kernel_written": (None, [_POINTER, ctypes.c_uint32, ctypes.c_bool]),
    "vcpu_sync_fpu": (None, [_POINTER, _POINTER]),
    "vcpu_drop_fpu": (None, [_POINTER, _POINTER]),
    "vcpu_catch_interrupts": (ctypes.c_int, [ctypes.c_int]),
    "vcpu_release_interrupts": (None, [ctypes.c_int]),
    "vcpu_interrupted": (ctypes.c_int, []),
}


def shim_path() -> Path:
    """Where `tools.build` puts the shim."""
    suffix = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
    return PACKAGE_DIR / "_native" / f"vcpu{suffix}"


@functools.cache
def _engine_library() -> ctypes.CDLL:
    try:
        from unicorn.unicorn_py3.unicorn import uclib
    except ImportError as error:
        raise EngineError(f"the emulation engine cannot be loaded ({error}): expected unicorn 2.1") from error
    library: ctypes.CDLL = uclib
    version = library.uc_version(None, None)
    found = (version >> 24 & 0xFF, version >> 16 & 0xFF)
    if found != ENGINE_VERSION:
        raise EngineError(
            "the emulation engine is unicorn {}.{}: expected {}.{}".format(*found, *ENGINE_VERSION)
        )
    return library


@functools.cache
def _shim() -> ctypes.CDLL:
    """The shim, connected to the engine's library."""
    path = shim_path()
    try:
        shim = ctypes.CDLL(str(path))
    except OSError as error:
        raise EngineError(f"the vCPU shim {path.name} cannot be loaded ({error}); build it first") from error
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(shim, name, None)
        if function is None:
            raise EngineError(f"the vCPU shim {path.name} is of another version (no {name}); build it again")
        function.restype, function.argtypes = result, arguments
    library = _engine_library()
    functions = [
        ctypes.cast(getattr(library, name), ctypes.c_void_p) for name in _names(shim.vcpu_function_names)
    ]
    shim.vcpu_use_engine((ctypes.c_void_p * len(functions))(*functions))
    return shim


class ShimUsage(NamedTuple):
    """What the shim holds for all machines of the process: address space reserved, engines running."""

    reserved_bytes: int
    engines: int


def shim_usage() -> ShimUsage:
    """Nothing, once every machine is closed."""
    return ShimUsage(_shim().vcpu_memory_in_use(), _shim().vcpu_engines_in_use())


def _decided_by(interface: Interface) -> dict[str, int]:
    """`struct interface` of interface.h: what the shim must know of the L4 interface."""
    selectors = interface.selectors
    return {
        "system_call_vector": interface.system_call_vector,
        "code_selector": selectors.code,
        "data_selector": selectors.data,
        "utcb_selector": selectors.utcb,
        "first_thread_selector": selectors.first_thread,
        "thread_entries": selectors.thread_entries,
    }


class Engine:
    """What the vCPUs of one machine share: RAM, which frames hold executed code, block costs, cpuid."""

    def __init__(
        self,
        ram: Ram,
        costs: CostTable,
        cpuid: CpuIdentity = OPTERON_6174,
        interface: Interface = INTERFACE,
    ) -> None:
        self._handle: int | None = None
        self._shim = _shim()
        self.ram = ram
        table = costs.as_dict()
        in_order = [table[name] for name in _names(self._shim.vcpu_cost_names)]
        decided = _decided_by(interface)
        leaves = cpuid_leaves(cpuid)
        # Not ctypes arrays: each length of one is a class of its own, which only the garbage collector removes.
        interface_words = array("I", [decided[name] for name in _names(self._shim.vcpu_interface_names)])
        cost_words = array("q", in_order)
        leaf_words = array("I", [word for leaf in leaves for word in leaf])
        handle = self._shim.vcpu_new_machine(
            ram.address,
            ram.size_bytes,
            interface_words.buffer_info()[0],
            cost_words.buffer_info()[0],
            leaf_words.buffer_info()[0],
            len(leaves),
        )
        if not handle:
            raise EngineError("no memory for the vCPUs' tables")
        self._handle = handle
        self.vcpu_count = 0

    def close(self) -> None:
        """Gives back everything that the shim holds for this machine. Using a vCPU afterwards is an error."""
        if self._handle is not None:
            self._shim.vcpu_delete_machine(self._handle)
        self._handle = None

    def __del__(self) -> None:
        self.close()

    def forget_code(self, first_pfn: int, count: int) -> None:
        """These frames were written by the host, freed or reused: no vCPU may run what was in them."""
        self._shim.vcpu_forget_code(self._handle, first_pfn, count)

    def set_kernel_written(self, pfn: int, flag: bool) -> None:
        """The kernel writes this frame on its own (a UTCB): code in it is re-read for every run."""
        self._shim.vcpu_set_kernel_written(self._handle, pfn, flag)

    def sync_fpu(self, frame: array[int]) -> None:
        """Copies live x87/SSE state, if a vCPU has it, into the frame's FPU_AREA. It stays live."""
        self._shim.vcpu_sync_fpu(self._handle, frame.buffer_info()[0])

    def drop_fpu(self, frame: array[int]) -> None:
        """Makes the frame's FPU_AREA the only copy, discarding live state: before writing to it."""
        self._shim.vcpu_drop_fpu(self._handle, frame.buffer_info()[0])


class Vcpu:
    """One core's processor. Its engine is made when it first runs.

    A frame's x87/SSE state may stay in the vCPU after a run. A frame that is used for another thread
    must have its FPU_CORE cleared (`kernel.frame.FramePool`, `Engine.drop_fpu`).
    """

    __slots__ = ("_fpu_frame", "_handle", "_run", "_shim", "_words", "core", "debug_outcome", "engine")

    def __init__(self, engine: Engine, core: int) -> None:
        """Cores are made in order: `core` is the number of vCPUs the engine has so far."""
        if core != engine.vcpu_count or core >= MAX_CORES:
            raise ValueError(f"core {core}: expected {engine.vcpu_count}, below {MAX_CORES}")
        self._shim = engine._shim
        self._run = self._shim.vcpu_run
        self._handle = self._shim.vcpu_new(engine._handle)
        if not self._handle:
            raise EngineError(f"no memory for core {core}")
        words = _SharedWords.from_address(self._shim.vcpu_shared_words(self._handle))
        self._words = memoryview(words).cast("B").cast("q")
        self._fpu_frame: array[int] | None = None  # may still be written to: keeps it from being freed
        self.engine = engine
        self.core = core
        self.debug_outcome: int | None = None  # read by `DebugPort.reason`
        engine.vcpu_count += 1

    @stutters(1000)
    def run(self, frame: array[int], deadline_cycles: int) -> Trap:
        """Runs a thread in user mode until something happens.

        DEADLINE_REACHED comes at the first block of code that would start at or after the deadline.
        The frame's registers and counters are exact; EFLAGS and selectors it may not have are
        replaced. Never raises for anything a guest does; EngineError if there is no usable engine.
        """
        words = self._words
        words[_FRAME] = frame.buffer_info()[0]
        words[_DEADLINE_CYCLES] = deadline_cycles
        outcome: int = self._run(self._handle)
        if frame[FPU_CORE]:
            self._fpu_frame = frame
        kind = outcome & 0xFF
        if kind == _SYSTEM_CALL:
            return SYSTEM_CALL
        if kind == _PAGE_FAULT:
            return PageFault(
                outcome >> 32,
                bool(outcome & 0x100),
                bool(outcome & 0x200),
                bool(outcome & 0x400),
            )
        if kind == _DEADLINE:
            return DEADLINE_REACHED
        if kind == _EXCEPTION:
            return CpuException(outcome >> 8 & 0xFF, outcome >> 32)
        if kind == _HOST_STOP:
            return HOST_STOP
        if kind == _DEBUG_STOP:
            self.debug_outcome = outcome
            return HOST_STOP
        raise EngineError(
            f"the emulation engine is not usable: {self._shim.vcpu_error(self._handle).decode()}"
        )

    @property
    def clock_cycles(self) -> int:
        """The core's clock. The fraction of a cycle that user code has left over is kept apart."""
        return self._words[_CLOCK_CYCLES]

    @clock_cycles.setter
    def clock_cycles(self, cycles: int) -> None:
        self._words[_CLOCK_CYCLES] = cycles

    def advance(self, cycles: int) -> None:
        """The core spends cycles without user code."""
        self._words[_CLOCK_CYCLES] += cycles

    @property
    def anomalies(self) -> int:
        """How often the engine did what it should not; zero, unless there is a bug to be found."""
        return int(self._shim.vcpu_anomalies(self._handle))

    def prepare(self) -> None:
        """Makes the engine now instead of at the first run."""
        if not self._shim.vcpu_prepare(self._handle):
            raise EngineError(
                f"the emulation engine is not usable: {self._shim.vcpu_error(self._handle).decode()}"
            )

    def flush_tlb(self) -> None:
        """Forgets all translations but global ones. Without it, and `invalidate_page`, they stay in force."""
        self._shim.vcpu_flush_tlb(self._handle)

    def invalidate_page(self, address: int) -> None:
        """Forgets the translation of the page at `address`, global or not, of either size."""
        self._shim.vcpu_invalidate_page(self._handle, address)

    def stop(self) -> None:
        """A running `run()`, or else the next, returns HOST_STOP at the next block of code."""
        self._shim.vcpu_stop(self._handle)


class InterruptFlag:
    """Whether Ctrl-C was pressed while `catch_interrupts` was active."""

    def __bool__(self) -> bool:
        return bool(_shim().vcpu_interrupted())


@contextmanager
def catch_interrupts() -> Iterator[InterruptFlag]:
    """Ctrl-C makes every `run()` return HOST_STOP, at once and until the context ends, and raises
    nothing: no kernel code is interrupted half-way. Pressed a second time it does what it did before.
    """
    _shim().vcpu_catch_interrupts(signal.SIGINT)
    try:
        yield InterruptFlag()
    finally:
        _shim().vcpu_release_interrupts(signal.SIGINT)
