"""Stopping a run from outside, many cores, and what happens when the engine is not what we expect."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import signal
import subprocess
import sys
import textwrap
import threading
from array import array
from pathlib import Path

import pytest

from l4lab.emulator import vcpu as vcpu_module
from l4lab.emulator.costs import CostTable
from l4lab.emulator.cpuid import CpuidLeaf
from l4lab.emulator.debug.debugport import DebugPort, Watch
from l4lab.emulator.ram import Ram
from l4lab.emulator.vcpu import NO_DEADLINE, Engine, EngineError, Vcpu, catch_interrupts, shim_usage
from l4lab.kernel import traps
from l4lab.kernel.fiasco.interface import FIASCO
from l4lab.kernel.frame import CS, EAX, EBX, ECX, EIP, GDT_ENTRIES, UTCB_BASE
from l4lab.kernel.interface import Interface, Selectors
from l4lab.kernel.traps import DEADLINE_REACHED, HOST_STOP, CpuException
from support.guest import ANNOUNCE, CODE, DATA, Guest, as_bytes, instructions
from support.handshake import PATIENCE_SECONDS, spin_until

TESTS = Path(__file__).parents[2]
ENDLESS = "40 ebfd"  # inc eax; jmp back


def test_stop_from_another_thread() -> None:
    guest = Guest()
    guest.put(guest.code_pfn, ANNOUNCE + as_bytes(ENDLESS))
    frame = guest.thread()

    def stop_when_it_runs() -> None:
        spin_until(guest.has_run)
        guest.vcpu.stop()

    other = threading.Thread(target=stop_when_it_runs)
    other.start()
    assert guest.run(frame) is HOST_STOP
    other.join()
    loop = CODE + len(ANNOUNCE)
    assert frame[EIP] in (loop, loop + 1)
    assert instructions(frame) == 1 + 2 * frame[EAX] - (frame[EIP] == loop + 1)


def test_a_stop_asked_for_before_a_run_ends_it_and_only_it() -> None:
    guest = Guest(cores=2)
    guest.put(guest.code_pfn, as_bytes("40 40 ebfc"))
    frame = guest.thread()
    guest.vcpu.stop()
    assert guest.run(frame, 100, core=1) is DEADLINE_REACHED
    assert guest.run(frame, 100) is HOST_STOP
    assert guest.run(frame, 100) is DEADLINE_REACHED


@pytest.mark.parametrize("code", [ENDLESS, "f3aa ebfc", "eb00 eb00 ebfa", "7400 90 ebfb", "e8fbffffff"])
def test_stopping_does_not_change_what_is_counted(code: str) -> None:
    """The same deadline, reached with and without stops on the way."""

    def run(stops: int) -> list[int]:
        guest = Guest()
        guest.put(guest.code_pfn, as_bytes(code))
        frame = guest.thread()
        frame[1], frame[7], frame[4] = 200, 0x0050_0000, 0x0060_1000
        for _ in range(stops):
            guest.vcpu.stop()
            assert guest.run(frame, 500) is HOST_STOP
            guest.run(frame, guest.vcpu.clock_cycles + 3)
        assert guest.run(frame, 500) is DEADLINE_REACHED
        return [*frame[:10], instructions(frame), guest.vcpu.clock_cycles]

    assert run(stops=20) == run(stops=0)


CTRL_C = """
    import signal, sys, threading
    sys.path.insert(0, {tests!r})
    from support.guest import ANNOUNCE, Guest, instructions
    from support.handshake import spin_until
    from l4lab.emulator.vcpu import catch_interrupts
    from l4lab.kernel.traps import HOST_STOP

    guest = Guest()
    guest.put(guest.code_pfn, ANNOUNCE + bytes.fromhex({code!r}))
    frame = guest.thread()

    def tell_when_it_runs():
        spin_until(guest.has_run)
        print("running", flush=True)

    with catch_interrupts() as interrupted:
        assert not interrupted
        threading.Thread(target=tell_when_it_runs).start()
        trap = guest.run(frame)
        print("stopped", trap is HOST_STOP, bool(interrupted), flush=True)
        assert guest.run(frame) is HOST_STOP  # and so do all runs from now on
        print("again" if {again} else "", flush=True)
        while {again}:
            signal.pause()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    counted = instructions(frame)
    guest.run(frame, guest.vcpu.clock_cycles + 100)
    print(counted > 0, instructions(frame) > counted)
"""


def ctrl_c_program(*, code: str = "40ebfd", again: bool = False) -> subprocess.Popen[str]:
    source = textwrap.dedent(CTRL_C).format(tests=str(TESTS), code=code, again=again)
    return subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


# The last one jumps over bytes for whose sake the whole page is stepped.
@pytest.mark.parametrize("code", ["40ebfd", "f3aaebfc", "d9e8ddd8ebfa", "eb04f00fa3c340ebfd"])
def test_ctrl_c_stops_an_endless_loop(code: str) -> None:
    program = ctrl_c_program(code=code)
    assert program.stdout is not None
    assert program.stdout.readline() == "running\n"
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=PATIENCE_SECONDS)
    assert (program.returncode, err) == (0, "")
    assert out.splitlines() == ["stopped True True", "", "True True"]


def test_ctrl_c_twice_does_what_it_did_before() -> None:
    program = ctrl_c_program(again=True)
    assert program.stdout is not None
    assert program.stdout.readline() == "running\n"
    program.send_signal(signal.SIGINT)
    for _ in range(2):
        program.stdout.readline()
    program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=PATIENCE_SECONDS)
    assert "KeyboardInterrupt" in err


def test_interrupts_are_not_caught_outside_the_context() -> None:
    before = signal.getsignal(signal.SIGINT)
    with catch_interrupts() as interrupted:
        assert not interrupted
    assert signal.getsignal(signal.SIGINT) is before


# --- many cores -------------------------------------------------------------------------------------

MANY = """
    import sys
    sys.path.insert(0, {tests!r})
    from support.guest import Guest
    guest = Guest(cores=48, ram_bytes=512 << 20)
    guest.put(guest.code_pfn, bytes.fromhex("b90a00000049 75fd cd30".replace(" ", "")))
    for core in range(48):
        guest.run(guest.thread(), core=core)
    status = open("/proc/self/status").read()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_48_cores_take_little_memory() -> None:
    """A bound with room; the measured figure is that of `l4lab bench engine`."""
    source = textwrap.dedent(MANY).format(tests=str(TESTS))
    out = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout
    assert float(out) < 400


def test_cores_are_made_in_order() -> None:
    engine = Engine(Ram(4 << 20), CostTable.uniform())
    for wrong in (1, -1, 5000):
        with pytest.raises(ValueError, match="expected 0"):
            Vcpu(engine, wrong)
    Vcpu(engine, 0)
    with pytest.raises(ValueError, match="expected 1"):
        Vcpu(engine, 0)


def used(guest: Guest) -> Guest:
    """A guest for which the shim has allocated everything that it ever does."""
    port = DebugPort(guest.engine)
    guest.engine.set_kernel_written(guest.code_pfn, True)
    guest.put(guest.code_pfn, as_bytes("d9e8 cd30"))
    port.activate(True)
    port.set_breakpoints([(CODE + 2, 0)])
    port.set_watches([Watch(guest.data_pfn << 12, 4, write=True, read=True)])
    for core in range(len(guest.vcpus)):
        assert guest.run(guest.thread(), core=core) is HOST_STOP
    return guest


def test_a_closed_machine_gives_back_all_that_the_shim_held_for_it() -> None:
    gc.collect()  # machines of other tests
    before = shim_usage()
    for number in range(1, 20):
        guest = used(Guest(cores=3))
        assert shim_usage().engines == before.engines + 3, number
        assert shim_usage().reserved_bytes > before.reserved_bytes + 3 * (24 << 20)
        guest.engine.close()
        assert shim_usage() == before
        guest.engine.close()
        assert shim_usage() == before


def test_a_machine_that_cannot_be_made_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    before = shim_usage()
    monkeypatch.setattr(
        vcpu_module, "cpuid_leaves", lambda _: [CpuidLeaf(0)] * 65
    )  # more than there is room for
    with pytest.raises(EngineError, match="no memory for the vCPUs' tables"):
        Engine(Ram(4 << 20), CostTable.uniform())
    assert shim_usage() == before


# --- what the interface decides -----------------------------------------------------------------------


def other_interface(vector: int = 0x80, **selectors: int) -> Interface:
    """Another member of the family, as far as the shim is concerned."""

    class Other(type(FIASCO)):
        system_call_vector = vector

    chosen = Selectors(code=0x73, data=0x7B, utcb=0x33, first_thread=0x43, thread_entries=2)
    Other.selectors = dataclasses.replace(chosen, **selectors)
    other: Interface = Other()
    return other


def test_vector_and_selectors_are_the_interfaces() -> None:
    guest = Guest(interface=other_interface())
    guest.put(guest.data_pfn, bytes.fromhex("78563412"), 8)
    code = "8cc9 8cd3 64a108000000 cd80"  # mov ecx, cs; mov ebx, ss; mov eax, fs:[8]; int 0x80
    guest.put(guest.code_pfn, as_bytes(code))
    frame = guest.thread()
    frame[UTCB_BASE] = DATA
    assert guest.run(frame) is traps.SYSTEM_CALL
    assert (frame[EAX], frame[EBX], frame[ECX], frame[CS]) == (0x12345678, 0x7B, 0x73, 0x73)
    assert guest.run_code("cd30")[0] == CpuException(13, 0x30 << 3 | 2)


def test_a_thread_has_as_many_descriptors_as_the_interface_says() -> None:
    guest = Guest(interface=other_interface())
    guest.put(guest.code_pfn, as_bytes("8ee0 cd80"))  # mov fs, eax
    for selector, trap in (
        (0x43, traps.SYSTEM_CALL),
        (0x4B, traps.SYSTEM_CALL),
        (0x53, CpuException(13, 0x50)),
    ):
        frame = guest.thread()
        frame[EAX] = selector
        for entry in range(4):
            frame[GDT_ENTRIES + 2 * entry : GDT_ENTRIES + 2 * entry + 2] = array("I", (0xFFFF, 0xCFF300))
        assert guest.run(frame) == trap


@pytest.mark.parametrize(
    "wrong",
    [
        {"code": 0x18},  # not for ring 3
        {"data": 0x73},  # the code's
        {"data": 0x13},  # the engine's own
        {"utcb": 0x4B},  # the thread's second
        {"first_thread": 0xFB},  # the second is beyond the table
        {"thread_entries": 5},
        {"vector": 0x100},
    ],
)
def test_an_interface_that_has_no_place_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(EngineError, match="the interface's numbers have no place in the processor's tables"):
        Guest(interface=other_interface(**wrong)).vcpu.prepare()


# --- the engine is not what we expect ---------------------------------------------------------------


def test_a_missing_shim_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vcpu_module, "shim_path", lambda: tmp_path / "vcpu.so")
    with pytest.raises(EngineError, match=r"vcpu\.so cannot be loaded") as error:
        vcpu_module._shim.__wrapped__()
    assert "\n" not in str(error.value)


def test_another_version_of_the_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vcpu_module, "ENGINE_VERSION", (2, 7))
    with pytest.raises(EngineError, match=r"unicorn 2\.1: expected 2\.7"):
        vcpu_module._engine_library.__wrapped__()


MISBEHAVING = """
    import ctypes, sys
    sys.path.insert(0, {tests!r})
    from l4lab.emulator import vcpu
    from support.guest import Guest

    shim = vcpu._shim()
    names = vcpu._names(shim.vcpu_function_names)
    library = vcpu._engine_library()
    functions = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in names]
    lie = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 3)(lambda *_: {result})
    functions[names.index({function!r})] = ctypes.cast(lie, ctypes.c_void_p).value
    shim.vcpu_use_engine((ctypes.c_void_p * len(functions))(*functions))
    try:
        Guest().vcpu.prepare()
    except vcpu.EngineError as error:
        print(error)
    print(vcpu.shim_usage().engines, "engines are left")
"""


@pytest.mark.parametrize(
    ("function", "result", "line"),
    [
        ("uc_open", 2, "cannot make an engine: Invalid/unsupported architecture (UC_ERR_ARCH)"),
        ("uc_mem_map_ptr", 11, "cannot map guest memory: Invalid memory mapping (UC_ERR_MAP)"),
        ("uc_emu_start", 0, "the engine does not reach ring 3"),
        ("uc_context_restore", 0, "a bad selector is not vector 13"),
    ],
)
def test_an_engine_that_misbehaves_is_refused_with_one_line(function: str, result: int, line: str) -> None:
    source = textwrap.dedent(MISBEHAVING).format(tests=str(TESTS), function=function, result=result)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout == f"the emulation engine is not usable: {line}\n0 engines are left\n"
    assert done.stderr == ""


def test_calibration_is_done_once_and_ctypes_agrees_on_the_outcome() -> None:
    """The words shared with Python are the first of the struct, in this order."""
    guest = Guest()
    guest.put(guest.code_pfn, as_bytes("40 cd30"))
    frame = guest.thread()
    guest.vcpu.clock_cycles = 12
    assert guest.run(frame, NO_DEADLINE) is traps.SYSTEM_CALL
    address, deadline, clock = guest.vcpu._words
    assert (clock, deadline) == (14, NO_DEADLINE)
    assert ctypes.c_uint32.from_address(address).value == frame[EAX] == 1
