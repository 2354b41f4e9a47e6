"""The kernel's beginning: its state over a machine's RAM, and the first objects.

Ref: ABI sheet section 13. Who is loaded where is the boot loader's business
(`emulator/boot.py`); here everything is in RAM already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from l4lab.kernel import capability, capspace, lifecycle, paging
from l4lab.kernel.capability import KernelObject
from l4lab.kernel.errors import KernelBug
from l4lab.kernel.fiasco import abi
from l4lab.kernel.fiasco.threadstate import state_of
from l4lab.kernel.frame import CR3, ECX, EIP, FramePool
from l4lab.kernel.memory import Memory
from l4lab.kernel.objects import Debugger, Factory, Icu, Log, Scheduler, Task
from l4lab.kernel.pageframes import KernelFrames
from l4lab.kernel.quota import UNLIMITED, Quota
from l4lab.kernel.sched import Core
from l4lab.kernel.state import Kernel, KernelWritten
from l4lab.kernel.thread import READY, Thread
from l4lab.kernel.units import PAGE_BYTES

if TYPE_CHECKING:
    from l4lab.kernel.costs import KernelCosts
    from l4lab.kernel.interface import BootParameters, Interface

T = TypeVar("T")
ICU_PINS = 24
_SHARED_INDEX = abi.SYSTEM_CALL_PAGE >> 22


def start(
    interface: Interface, words: memoryview[int], parameters: BootParameters, costs: KernelCosts
) -> Kernel:
    """`Interface.start`: sigma0 and the root task are ready to run."""
    kernel = _empty_kernel(interface, words, parameters, costs)
    common = _permanent_objects(kernel)
    sigma0 = _boot_task(kernel, "sigma0", common)
    kernel.memory.sigma0 = sigma0.space
    root = _boot_task(kernel, "root", common)
    kernel.root_task = root
    sigma0_thread = _boot_thread(kernel, sigma0, parameters.sigma0_entry)
    sigma0_thread.frame[ECX] = parameters.kip_pfn << 12
    root_thread = _boot_thread(kernel, root, parameters.root_entry)
    gate = _needed(lifecycle.create_gate(kernel, kernel.root_quota))
    gate.label = abi.ROOT_SIGMA0_LABEL
    gate.thread = sigma0_thread
    sigma0_thread.bound_gates[gate] = None
    # A client's view: all rights, but not the server's (section 13).
    table = root.capability_table
    _must(capability.insert(table, abi.BOOT_CAP_PAGER, gate, abi.OBJECT_RIGHTS, 0, counted=True))
    state = state_of(root_thread)
    state.pager = abi.BOOT_CAP_PAGER
    state.exception_handler = 0
    kernel.effects.append(KernelWritten(parameters.kip_pfn, 1, active=True))
    for thread in (sigma0_thread, root_thread):  # in this order: sigma0 runs first
        thread.core = 0
        thread.state = READY
        kernel.cores[0].ready.add(thread, front=False)
    return kernel


def _empty_kernel(
    interface: Interface, words: memoryview[int], parameters: BootParameters, costs: KernelCosts
) -> Kernel:
    frames = KernelFrames(parameters.first_kernel_pfn, parameters.kernel_frame_count)
    memory = Memory(words, frames, interface.user_limit)
    root_quota = Quota(parameters.kernel_frame_count * PAGE_BYTES)
    shared_table = _kernel_frame(frames, root_quota, words)
    stub = _kernel_frame(frames, root_quota, words)
    scratch = _kernel_frame(frames, root_quota, words)
    blank_directory = _kernel_frame(frames, root_quota, words)
    stub_bytes = words.cast("B")
    stub_bytes[stub << 12 : (stub << 12) + len(abi.SYSTEM_CALL_STUB)] = abi.SYSTEM_CALL_STUB
    entry = stub << 12 | paging.PRESENT | paging.USER | (paging.GLOBAL if parameters.global_pages else 0)
    words[(shared_table << 10) + (abi.SYSTEM_CALL_PAGE >> 12 & 1023)] = entry
    memory.shared_tables[_SHARED_INDEX] = shared_table
    paging.PageTables(words, blank_directory).share_table(_SHARED_INDEX, shared_table)
    kernel = Kernel(
        interface=interface,
        words=words,
        memory=memory,
        frames=frames,
        root_quota=root_quota,
        costs=costs,
        mhz=parameters.mhz,
        cores=[Core(number) for number in range(parameters.cores)],
        scratch_utcb=scratch << 10,
        kip_word=parameters.kip_pfn << 10,
        blank_directory_pfn=blank_directory,
        quantum_cycles=parameters.quantum_us * parameters.mhz,
        frame_pool=FramePool(interface.selectors),
        fixed_frames=frames.taken_count,
    )
    # Another core may run a thread that is gone, until the interrupt that tells it arrives.
    kernel.frame_pool.blank[CR3] = blank_directory << 12
    return kernel


def _kernel_frame(frames: KernelFrames, quota: Quota, words: memoryview[int]) -> int:
    pfn = frames.take()
    _must(pfn is not None and quota.charge(PAGE_BYTES))
    assert pfn is not None
    paging.clear_frame(words, pfn)
    return pfn


def _permanent_objects(kernel: Kernel) -> dict[int, KernelObject]:
    """Slot -> object, for the slots that sigma0 and the root task have in common."""
    quota = kernel.root_quota
    log = Log(kernel.new_number(), quota)
    log.attributes = abi.LOG_INITIAL_ATTR
    objects: dict[int, KernelObject] = {
        abi.BOOT_CAP_FACTORY: Factory(kernel.new_number(), quota, 0, Quota(UNLIMITED, quota)),
        abi.BOOT_CAP_LOG: log,
        abi.BOOT_CAP_ICU: Icu(kernel.new_number(), quota, ICU_PINS),
        abi.BOOT_CAP_SCHEDULER: Scheduler(kernel.new_number(), quota),
        abi.BOOT_CAP_DEBUGGER: Debugger(kernel.new_number(), quota, 0),
    }
    for obj in objects.values():
        obj.name = obj.kind
        obj.permanent = True
    return objects


def _boot_task(kernel: Kernel, name: str, common: dict[int, KernelObject]) -> Task:
    task = _needed(lifecycle.create_task(kernel, kernel.root_quota, name))
    refusal = lifecycle.add_ku_memory(kernel, task, abi.BOOT_UTCB >> 12, 1)
    _must(not refusal)
    for index, obj in {abi.BOOT_CAP_TASK: task, **common}.items():
        _must(capspace.insert_new(kernel, task, index, obj))
    return task


def _boot_thread(kernel: Kernel, task: Task, entry: int) -> Thread:
    thread = _needed(lifecycle.create_thread(kernel, kernel.root_quota))
    thread.name = task.name
    _must(lifecycle.bind_thread(kernel, thread, task, abi.BOOT_UTCB))
    _must(capspace.insert_new(kernel, task, abi.BOOT_CAP_THREAD, thread))
    thread.frame[EIP] = entry
    return thread


def _needed(made: T | None) -> T:
    if made is None:
        raise KernelBug("the kernel's share of RAM is too small to boot")
    return made


def _must(condition: bool) -> None:
    if not condition:
        raise KernelBug("the kernel's share of RAM is too small to boot")
