"""What each packet does to a machine with real programs in it, and what is answered."""

from __future__ import annotations

import gc
import weakref
import xml.etree.ElementTree as ET

import pytest

from l4lab.emulator.debug.debugged import DebuggedMachine
from l4lab.emulator.debug.debugging import Debugger
from l4lab.emulator.machine import Machine
from l4lab.kernel.fiasco.abi import SYSTEM_CALL_PAGE
from l4lab.kernel.frame import CS, EIP, UTCB_BASE
from l4lab.tools.debug.gdb.conversation import FEATURES, MAX_WAITING, Conversation
from l4lab.tools.debug.gdb.framing import MAX_PACKET_BYTES, encode
from l4lab.tools.debug.gdb.monitor import Monitor
from l4lab.tools.debug.gdb.registers import COMMON, REGISTERS
from l4lab.tools.debug.gdb.target import Target
from l4lab.tools.runs.programs import Programs
from support.gdb_client import STAND_INS, Client
from support.runs import image

GENERAL = [*("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip", "eflags")]
GENERAL += ["cs", "ss", "ds", "es", "fs", "gs"]
HEAP = 0x2000_0000
"""Where `hello` touches fresh pages."""


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def in_hello(client: Client) -> Client:
    """Stopped at the first instruction of `main` of the first `hello`."""
    stop_in(client, "hello.0", "hello", "main")
    return client


def stop_in(client: Client, task: str, program: str, function: str) -> dict[str, str]:
    """Let it run until the first instruction of a function of a task."""
    address = client.symbol(program, function)
    while not any(
        found.name == task and found.number in client.debugger.known_tasks
        for found in client.machine.kernel.tasks.values()
    ):
        assert "library" in client.stop(client.ask("vCont;c"))
    number = client.process(task)
    client.ask(f"Hg{client.thread(task)}")
    assert client.ask(f"Z0,{address:x},1") == "OK"
    stop = client.go_on()
    assert client.ask(f"Hgp{number:x}.0") == "OK"
    assert client.ask(f"z0,{address:x},1") == "OK"
    assert stop["thread"] == client.thread(task)
    return stop


def register(client: Client, name: str) -> int:
    """The value of a register of the selected thread."""
    number = [known.name for known in REGISTERS].index(name)
    return int.from_bytes(bytes.fromhex(client.ask(f"p{number:x}")), "little")


def undebugged(name: str) -> tuple[list[int], bytes, object]:
    """Clocks, output and results of a run that nobody looks at."""
    machine = Machine(image(name))
    result = machine.run()
    return [core.clock_cycles for core in machine.cores], bytes(machine.output), result.as_dict()


# --- what is there --------------------------------------------------------------------------------------

# A packet for each feature, which only a stub that has it answers, and how the answer begins.
ASKED_FOR = {
    "PacketSize": (f"qXfer:features:read:target.xml:0,{MAX_PACKET_BYTES - 4:x}", ("l", "m")),
    "QStartNoAckMode+": ("QStartNoAckMode", "OK"),
    "vContSupported+": ("vCont?", "vCont;c;C;s;S;r"),
    "swbreak+": ("Z0,1000,1", "OK"),
    "hwbreak+": ("Z1,1000,1", "OK"),
    "ReverseStep+": ("bs", "T05"),
    "ReverseContinue+": ("bc", "T05"),
    "qXfer:features:read+": ("qXfer:features:read:target.xml:0,10", ("l", "m")),
    "qXfer:threads:read+": ("qXfer:threads:read::0,10", ("l", "m")),
    "qXfer:memory-map:read+": ("qXfer:memory-map:read::0,10", ("l", "m")),
    "qXfer:osdata:read+": ("qXfer:osdata:read::0,10", ("l", "m")),
    "qXfer:exec-file:read+": ("qXfer:exec-file:read:6:0,1000", "l/"),
    "qXfer:libraries:read+": ("qXfer:libraries:read::0,10", ("l", "m")),
    "multiprocess+": ("Hgp6.8", "OK"),
}


def test_what_is_advertised_is_there(client: Client) -> None:
    advertised = client.ask("qSupported:multiprocess+;swbreak+;hwbreak+").split(";")
    assert advertised == [f"PacketSize={MAX_PACKET_BYTES:x}", *FEATURES, "multiprocess+"]
    assert {name.partition("=")[0] for name in advertised} == set(ASKED_FOR)
    for packet, begins in ASKED_FOR.values():
        assert client.ask(packet).startswith(begins), packet


@pytest.mark.parametrize(
    "packet",
    ["vRun;61", "qXfer:auxv:read::0,10", "qXfer:siginfo:read::0,10", "QNonStop:1", "qCRC:0,10", "R00"],
)
def test_what_is_not_there_is_not_advertised_and_has_the_empty_answer(client: Client, packet: str) -> None:
    assert client.ask(packet) in ("", "E00")
    name = packet.partition(";")[0].partition("::")[0].removesuffix(":1")
    assert not any(name in feature for feature in FEATURES)


def test_processes_are_only_for_those_who_know_them() -> None:
    client = Client(features="swbreak+")
    assert "multiprocess" not in client.ask("qSupported:swbreak+")
    assert client.ask("?").startswith("T05thread:8;")
    assert client.ask("qfThreadInfo") == "m8,9,3b9aca00,3b9aca01"


# --- registers ------------------------------------------------------------------------------------------


def test_the_description_names_the_registers_in_the_order_of_their_numbers(client: Client) -> None:
    root = ET.fromstring(client.document("features", "target.xml"))
    assert root.findtext("architecture") == "i386"
    named = [(reg.get("name"), int(reg.get("bitsize", ""))) for reg in root.iter("reg")]
    assert named == [(known.name, known.bits) for known in REGISTERS]
    features = {feature.get("name"): [reg.get("name") for reg in feature.iter("reg")] for feature in root}
    core = features["org.gnu.gdb.i386.core"]
    assert core[:16] == GENERAL
    assert core[16:24] == [f"st{i}" for i in range(8)]
    assert features["org.gnu.gdb.i386.sse"] == [*(f"xmm{i}" for i in range(8)), "mxcsr"]
    assert {"fs_base", "gs_base"} < set(features["org.l4lab.segments"])
    known_types = {node.get("id") for node in root.iter() if node.get("id")}
    known_types |= {"int", "int32", "uint64", "uint128", "code_ptr", "data_ptr", "i387_ext"}
    assert {reg.get("type") for reg in root.iter("reg")} <= known_types


def test_all_registers_at_once_and_one_by_one_are_the_same(in_hello: Client) -> None:
    at_once = in_hello.ask("g")
    one_by_one = "".join(in_hello.ask(f"p{number:x}") for number in range(len(COMMON)))
    assert at_once == one_by_one
    assert len(at_once) == 2 * sum(known.size_bytes for known in COMMON)


def test_registers_are_those_of_the_selected_thread(in_hello: Client) -> None:
    for task in ("hello.0", "pager.0"):
        assert in_hello.ask(f"Hg{in_hello.thread(task)}") == "OK"
        frame = in_hello.frame_owner(task).frame
        assert register(in_hello, "eip") == frame[EIP]
        assert register(in_hello, "fs_base") == register(in_hello, "gs_base") == frame[UTCB_BASE]
        assert register(in_hello, "ds_base") == 0
        assert register(in_hello, "cs") == frame[CS]


def test_an_idle_core_has_a_clock_and_no_registers(client: Client) -> None:
    assert client.ask("Hgp1.3b9aca01") == "OK"
    assert client.ask("p8") == "xxxxxxxx"
    assert register(client, "cycles") == 0
    assert client.ask("P8=00000000") == "E16"
    assert client.ask("m1000,4") == "E0e"


@pytest.mark.parametrize(
    ("name", "value"),
    [("eax", "78563412"), ("xmm3", "000102030405060708090a0b0c0d0e0f"), ("st2", "112233445566778899aa")],
)
def test_a_register_keeps_what_is_written_to_it_while_others_run(
    in_hello: Client, name: str, value: str
) -> None:
    number = [known.name for known in REGISTERS].index(name)
    assert in_hello.ask(f"P{number:x}={value}") == "OK"
    in_hello.ask(f"vCont;s:{in_hello.thread('hello.0')}")
    assert in_hello.ask(f"p{number:x}") == value


@pytest.mark.parametrize("packet", ["Pa=2b000000", "P1000=00", "P8=0000", "Pffffffffffff=00", "G00"])
def test_registers_that_cannot_be_written_are_refused(in_hello: Client, packet: str) -> None:
    before = in_hello.ask("g")
    assert in_hello.ask(packet) == "E16"
    assert in_hello.ask("g") == before


def test_what_cannot_be_written_can_be_written_back(in_hello: Client) -> None:
    """gdb does so after a call of a function by hand; counters have gone on meanwhile."""
    numbers = {known.name: number for number, known in enumerate(REGISTERS)}
    fixed = {name: in_hello.ask(f"p{numbers[name]:x}") for name in ("cs", "cs_base", "fs_base", "cr3")}
    counters = {name: in_hello.ask(f"p{numbers[name]:x}") for name in ("cycles", "instructions")}
    in_hello.ask(f"vCont;s:{in_hello.thread('hello.0')}")
    for name, value in {**fixed, **counters}.items():
        assert in_hello.ask(f"P{numbers[name]:x}={value}") == "OK"
    for name in counters:
        assert in_hello.ask(f"P{numbers[name]:x}=0123456789abcdef") == "E16"
        assert in_hello.ask(f"p{numbers[name]:x}") != counters[name]


def test_tags_of_x87_registers_come_back(in_hello: Client) -> None:
    """Two bits in gdb, one in the state; what a tag says besides `empty` follows from the register."""
    numbers = {known.name: number for number, known in enumerate(REGISTERS)}
    for tags in ("ffff0000", "5555", "fd570000", "00000000", "ffff0000"):
        wanted = int.from_bytes(bytes.fromhex(tags.ljust(8, "0")), "little")
        assert in_hello.ask(f"P{numbers['ftag']:x}={tags.ljust(8, '0')}") == "OK"
        found = int.from_bytes(bytes.fromhex(in_hello.ask(f"p{numbers['ftag']:x}")), "little")
        assert [found >> 2 * i & 3 == 3 for i in range(8)] == [wanted >> 2 * i & 3 == 3 for i in range(8)]


def test_flags_of_the_kernel_cannot_be_written(in_hello: Client) -> None:
    assert in_hello.ask("P9=ffffffff") == "OK"
    assert register(in_hello, "eflags") & 0x001A_3200 == 0x200  # no IOPL, VM, VIF, VIP; IF stays


def test_writing_all_registers_back_changes_nothing(in_hello: Client) -> None:
    before = in_hello.ask("g")
    assert in_hello.ask(f"G{before}") == "OK"
    assert in_hello.ask("g") == before
    assert in_hello.debugger._edits == []


# --- memory ---------------------------------------------------------------------------------------------


def test_each_thread_has_the_memory_of_its_task(in_hello: Client) -> None:
    """Where one has its code, another has nothing."""
    main = in_hello.symbol("hello", "main")
    program = next(each for each in in_hello.target.programs.all if each.name == "hello")
    _, expected = program.code_on(main & ~0xFFF) or (0, b"")
    assert bytes.fromhex(in_hello.ask(f"m{main & ~0xFFF:x},20")) == expected[:32]
    assert in_hello.ask(f"Hg{in_hello.thread('pager.0')}") == "OK"
    assert in_hello.ask(f"m{main:x},20") == "E0e"


def end_of_mapping(client: Client, address: int) -> int:
    """The first address behind it, in the first `hello`, at which nothing is mapped."""
    tables = client.machine.kernel.tasks[client.process("hello.0")].space.tables
    return next(page for page in range(address >> 12, 1 << 20) if tables.translate(page << 12) is None) << 12


def test_reading_ends_where_nothing_is_mapped(in_hello: Client) -> None:
    stack = register(in_hello, "esp")
    end = end_of_mapping(in_hello, stack)
    assert len(in_hello.ask(f"m{end - 8:x},10")) == 16
    assert in_hello.ask(f"m{end:x},1") == "E0e"
    assert in_hello.ask(f"m{stack:x},0") == ""
    assert in_hello.ask("mffffffff,10") == "E0e"
    assert in_hello.ask("mffffffffffffffff,10") == "E0e"
    assert len(in_hello.ask(f"m{stack & ~0xFFF:x},ffffffffffff")) <= MAX_PACKET_BYTES


def test_writing_needs_all_of_it_mapped(in_hello: Client) -> None:
    end = end_of_mapping(in_hello, register(in_hello, "esp"))
    before = in_hello.ask(f"m{end - 4:x},4")
    assert in_hello.ask(f"M{end - 2:x},4:01020304") == "E0e"
    assert in_hello.ask(f"m{end - 4:x},4") == before
    assert in_hello.ask(f"X{end - 4:x},4:\x01\x02\x03\x04") == "OK"
    assert in_hello.ask(f"m{end - 4:x},4") == "01020304"
    assert in_hello.ask("X0,0:") == "OK"


def test_the_page_of_the_system_call_cannot_be_written(in_hello: Client) -> None:
    """It is in every address space: not by either packet, nor together with what comes before it."""
    before = in_hello.ask(f"m{SYSTEM_CALL_PAGE:x},8")
    assert in_hello.ask(f"M{SYSTEM_CALL_PAGE:x},1:cc") == "E0e"
    assert in_hello.ask(f"X{SYSTEM_CALL_PAGE + 4:x},2:ab") == "E0e"
    assert in_hello.ask(f"m{SYSTEM_CALL_PAGE:x},8") == before


def test_kernel_user_memory_can_be_written(in_hello: Client) -> None:
    """A message that a program has not sent yet, say."""
    space = in_hello.machine.kernel.tasks[in_hello.process("hello.0")].space
    address = space.ku_areas[0].vpn << 12
    assert in_hello.ask(f"M{address:x},2:beef") == "OK"
    assert in_hello.ask(f"m{address:x},2") == "beef"


def test_physical_memory_as_qemu_shows_it(in_hello: Client) -> None:
    main = in_hello.symbol("hello", "main")
    code = in_hello.ask(f"m{main:x},10")
    tables = in_hello.machine.kernel.tasks[in_hello.process("hello.0")].space.tables
    found = tables.translate(main)
    assert found is not None
    physical = found.physical
    assert "PhyMemMode" in in_hello.ask("qqemu.Supported")
    assert in_hello.ask("qqemu.PhyMemMode") == "0"
    assert in_hello.ask("Qqemu.PhyMemMode:1") == "OK"
    assert in_hello.ask("qqemu.PhyMemMode") == "1"
    assert in_hello.ask(f"m{physical:x},10") == code
    size = in_hello.machine.ram.size_bytes
    assert in_hello.ask(f"m{size:x},4") == "E0e"
    kernels = (
        in_hello.machine.kernel.memory.user_frames << 12
    )  # the kernel's image and its info page begin here
    assert (in_hello.ask(f"M{kernels:x},1:00"), in_hello.ask(f"M{kernels - 1:x},1:00")) == ("E0e", "OK")
    directory = in_hello.ask(f"m{register(in_hello, 'cr3'):x},4")
    assert in_hello.ask(f"M{register(in_hello, 'cr3'):x},4:00000000") == "E0e"
    assert in_hello.ask(f"m{register(in_hello, 'cr3'):x},4") == directory
    assert in_hello.ask("Qqemu.PhyMemMode:0") == "OK"
    assert in_hello.ask(f"m{main:x},10") == code


def test_the_memory_map_is_all_of_an_address_space(client: Client) -> None:
    root = ET.fromstring(client.document("memory-map"))
    assert [memory.attrib for memory in root] == [{"type": "ram", "start": "0x0", "length": "0x100000000"}]


def test_code_that_is_changed_runs_changed(in_hello: Client) -> None:
    """`main` becomes an endless loop: the other program ends, this one does not."""
    main = in_hello.symbol("hello", "main")
    assert in_hello.ask(f"M{main:x},2:ebfe") == "OK"
    turns = 0

    def interrupt() -> bytes:
        nonlocal turns
        turns += 1
        return b"\x03" if turns > 20 else b""

    in_hello.meanwhile = interrupt
    assert in_hello.go_on()["signal"] == "02"
    assert in_hello.ask(f"Hg{in_hello.thread('hello.0')}") == "OK"
    assert register(in_hello, "eip") == main


# --- threads and documents ------------------------------------------------------------------------------


def threads_of(client: Client) -> dict[str, tuple[str, str, str]]:
    root = ET.fromstring(client.document("threads"))
    return {
        each.get("name", ""): (each.get("id", ""), each.get("core", ""), each.text or "") for each in root
    }


def test_threads_have_task_number_core_and_state(in_hello: Client) -> None:
    listed = threads_of(in_hello)
    assert listed["hello.0"] == (in_hello.thread("hello.0"), "0", "core 0, running")
    assert listed["pager.0"] == (in_hello.thread("pager.0"), "0", "core 0, waits for anyone")
    assert listed["core 0"] == ("p1.3b9aca00", "0", "runs hello.0")
    assert listed["core 1"][2].startswith("idle since cycle ")
    ids = in_hello.ask("qfThreadInfo")[1:].split(",")
    assert ids == [number for number, _, _ in listed.values()]
    assert in_hello.ask("qsThreadInfo") == "l"
    for name, (number, _, text) in listed.items():
        assert in_hello.ask(f"T{number}") == "OK"
        shown = bytes.fromhex(in_hello.ask(f"qThreadExtraInfo,{number}")).decode()
        assert shown == f"{name}: {text}"


def test_a_task_is_told_of_before_it_is_listed(client: Client) -> None:
    seen: set[str] = set(threads_of(client))
    told = set()
    while "library" in (stop := client.stop(client.ask("vCont;c"))):
        assert client.ask("Hg" + stop["thread"]) == "OK"
        (name,) = set(threads_of(client)) - seen
        seen.add(name)
        told.add(name)
        assert client.ask("vCont?") != ""
    assert told == {"pager.0", "hello.0", "hello.1"}
    assert "replaylog" in stop


def test_threads_that_have_ended_stay_and_have_no_registers(client: Client) -> None:
    client.go_on()
    listed = threads_of(client)
    assert listed["hello.0"][2] == "ended"
    assert client.ask(f"Hg{listed['hello.0'][0]}") == "OK"
    assert client.ask("p8") == "xxxxxxxx"
    assert client.ask("bc").startswith("T05")
    assert threads_of(client)["hello.0"][2] == "not made yet"


@pytest.mark.parametrize("packet", ["Tp6.63", "Hgp63.1", "Hgp6.63", "qThreadExtraInfo,p6.9", "vCont;s:p6.63"])
def test_threads_that_are_not_there_are_errors(client: Client, packet: str) -> None:
    assert client.ask(packet) == "E03"


def test_kernel_objects_as_operating_system_data(in_hello: Client) -> None:
    types = ET.fromstring(in_hello.document("osdata"))
    names = [item.findtext("column[@name='Type']") or "" for item in types]
    assert {"threads", "tasks", "objects", "ready", "ipis", "memory", "cores"} <= set(names)
    for name in names:
        table = ET.fromstring(in_hello.document("osdata", name))
        assert table.get("type") == name
        assert len({tuple(column.get("name") for column in item) for item in table}) <= 1
    tasks = ET.fromstring(in_hello.document("osdata", "tasks"))
    assert "hello.0" in {column.text for item in tasks for column in item}
    assert in_hello.ask("qXfer:osdata:read:nothing:0,100") == "E00"


def test_documents_come_in_pieces_and_end(in_hello: Client) -> None:
    whole = in_hello.document("features", "target.xml")
    assert in_hello.document("features", "target.xml", piece=0x33) == whole
    assert in_hello.ask(f"qXfer:features:read:target.xml:{len(whole):x},10") == "l"
    assert in_hello.ask(f"qXfer:features:read:target.xml:{len(whole) + 1:x},10") == "E01"
    assert in_hello.ask("qXfer:features:read:other.xml:0,10") == "E00"
    assert in_hello.ask("qXfer:nothing:read::0,10") == "E00"
    assert len(in_hello.ask("qXfer:features:read:target.xml:0,ffffffffffff")) <= MAX_PACKET_BYTES // 2


# --- files ----------------------------------------------------------------------------------------------


def test_the_program_of_a_process_can_be_fetched_and_nothing_else(in_hello: Client) -> None:
    path = in_hello.document("exec-file", f"{in_hello.process('hello.0'):x}")
    program = next(each for each in in_hello.target.programs.all if each.name == "hello")
    assert path == str(program.path)
    assert in_hello.ask("vFile:setfs:0") == "F0"
    handle = int(in_hello.ask(f"vFile:open:{path.encode().hex()},0,0")[1:], 16)
    size = int.from_bytes(in_hello.ask(f"vFile:fstat:{handle:x}").encode("latin-1")[4:][28:36], "big")
    data = b""
    while True:
        reply = in_hello.ask(f"vFile:pread:{handle:x},1000,{len(data):x}").encode("latin-1")
        count, _, piece = reply[1:].partition(b";")
        assert int(count, 16) == len(piece)
        if not piece:
            break
        data += piece
    assert data == program.path.read_bytes() and len(data) == size
    assert in_hello.ask(f"vFile:close:{handle:x}") == "F0"
    assert in_hello.ask(f"vFile:pread:{handle:x},1,0") == "F-1,9"
    for forbidden in ("/etc/passwd", f"{path}/../hello"):
        assert in_hello.ask(f"vFile:open:{forbidden.encode().hex()},0,0") == "F-1,2"
    assert in_hello.ask(f"vFile:open:{path.encode().hex()},1,1ff") == "F-1,2"
    assert in_hello.ask(f"vFile:unlink:{path.encode().hex()}") == ""


def test_the_kernels_page_is_a_library_of_every_process(client: Client) -> None:
    (library,) = ET.fromstring(client.document("libraries"))
    assert library.get("name") == str(STAND_INS.kernel_page)
    (segment,) = library
    assert int(segment.get("address", ""), 16) == SYSTEM_CALL_PAGE


def test_the_cores_have_a_program_without_code(client: Client) -> None:
    assert client.document("exec-file", "1") == str(STAND_INS.no_program)


# --- breakpoints ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "word"), [(0, "swbreak"), (1, "hwbreak")])
def test_a_breakpoint_leaves_memory_and_result_alone(in_hello: Client, kind: int, word: str) -> None:
    place = in_hello.symbol("hello", "printf")
    code = in_hello.ask(f"m{place:x},4")
    assert in_hello.ask(f"Z{kind},{place:x},1") == "OK"
    assert in_hello.ask(f"Z{kind},{place:x},1") == "OK"
    assert in_hello.ask(f"m{place:x},4") == code
    hits = 0
    while "replaylog" not in (stop := in_hello.go_on()):
        assert word in stop and stop["thread"] == in_hello.thread("hello.0")
        assert in_hello.ask(f"m{place:x},4") == code
        hits += 1
    assert hits == 2
    clocks, output, _ = undebugged("pagefault")
    assert [core.clock_cycles for core in in_hello.machine.cores] == clocks
    assert in_hello.machine.output == output


def test_a_breakpoint_belongs_to_the_process_that_was_selected(in_hello: Client) -> None:
    place = in_hello.symbol("hello", "printf")
    for task in ("hello.0", "hello.1"):
        stop_in(in_hello, task, "hello", "main") if task == "hello.1" else None
    in_hello.ask(f"Hg{in_hello.thread('hello.1')}")
    in_hello.ask(f"Z0,{place:x},1")
    while "replaylog" not in (stop := in_hello.go_on()):
        assert stop["thread"] == in_hello.thread("hello.1")


def test_a_breakpoint_of_the_cores_is_one_of_all_tasks_and_stops_the_core(client: Client) -> None:
    place = client.symbol("hello", "printf")
    assert client.ask("Hgp1.3b9aca00") == "OK"
    assert client.ask(f"Z0,{place:x},1") == "OK"
    threads = set()
    while "replaylog" not in (stop := client.go_on()):
        threads.add(stop["thread"])
    assert threads == {"p1.3b9aca00", "p1.3b9aca01"}


def test_whoever_has_a_breakpoint_of_its_own_there_is_who_stops(in_hello: Client) -> None:
    place, own = in_hello.symbol("hello", "printf"), in_hello.thread("hello.0")
    for thread in ("p1.3b9aca00", own):
        in_hello.ask(f"Hg{thread}")
        assert in_hello.ask(f"Z1,{place:x},1") == "OK"
    threads = set()
    while "replaylog" not in (stop := in_hello.go_on()):
        assert "hwbreak" in stop
        threads.add(stop["thread"])
    assert threads == {own, "p1.3b9aca01"}


@pytest.mark.parametrize(
    "packet",
    [
        "Z2,20000000,0",
        "Z2,20000000,401",
        "Z3,20000000,ffffffffffffffff",
        "Z0,100000000,1",
        "Z4,ffffffffffff,4",
    ],
)
def test_breakpoints_that_cannot_be_are_refused(in_hello: Client, packet: str) -> None:
    assert in_hello.ask(packet) == "E16"
    assert in_hello.go_on()["replaylog"] == "end"


def test_only_so_many_watchpoints(in_hello: Client) -> None:
    answers = [in_hello.ask(f"Z2,{HEAP + 64 * i:x},4") for i in range(17)]
    assert answers == ["OK"] * 16 + ["E16"]
    assert in_hello.ask(f"z2,{HEAP:x},4") == "OK"
    assert in_hello.ask(f"Z2,{HEAP + 64 * 16:x},4") == "OK"


@pytest.mark.parametrize(("kind", "word"), [(2, "watch"), (3, "rwatch"), (4, "awatch")])
def test_watchpoints_stop_at_their_kind_of_access(in_hello: Client, kind: int, word: str) -> None:
    """`hello` reads a word to see that it is 0, writes it, and reads it again; word 1 becomes 1."""
    word_1 = HEAP + 4
    assert in_hello.ask(f"Z{kind},{word_1:x},4") == "OK"
    values = []
    while "replaylog" not in (stop := in_hello.go_on()):
        assert stop[word] == f"{word_1:x}"
        assert stop["thread"] == in_hello.thread("hello.0")
        values.append(in_hello.ask(f"m{word_1:x},4"))
    one, zero = "01000000", "00000000"
    assert values == {"watch": [one], "rwatch": [zero, one, one], "awatch": [zero, one, one]}[word]


# --- going on and back ----------------------------------------------------------------------------------


def test_a_step_is_one_instruction_and_a_step_back_is_the_same_again(in_hello: Client) -> None:
    thread = in_hello.thread("hello.0")
    states = [in_hello.ask("g")]
    first = register(in_hello, "instructions")
    for count in range(1, 31):
        stop = in_hello.stop(in_hello.ask(f"vCont;s:{thread};c"))
        assert (stop["signal"], stop["thread"]) == ("05", thread)
        in_hello.ask(f"Hg{thread}")
        states.append(in_hello.ask("g"))
        assert register(in_hello, "instructions") == first + count
    for state in states[-2::-1]:
        in_hello.ask(f"Hc{thread}")
        in_hello.ask(f"Hg{thread}")
        assert in_hello.ask("bs").startswith("T05")
        in_hello.ask(f"Hg{thread}")
        assert in_hello.ask("g") == state


def test_a_step_back_is_of_the_thread_that_has_stopped_whatever_was_selected_since(in_hello: Client) -> None:
    """gdb selects others to set breakpoints in their processes, and then says that any thread may step."""
    thread = in_hello.thread("hello.0")
    in_hello.ask(f"vCont;s:{thread};c")
    in_hello.ask(f"Hg{thread}")
    count = register(in_hello, "instructions")
    assert in_hello.ask(f"Hg{in_hello.thread('pager.0')}") == "OK"
    assert in_hello.ask("Z0,1000,1") == in_hello.ask("Hc0") == "OK"
    assert in_hello.stop(in_hello.ask("bs"))["thread"] == thread
    in_hello.ask(f"Hg{thread}")
    assert register(in_hello, "instructions") == count - 1


def test_stepping_out_of_a_range_is_one_stop(in_hello: Client) -> None:
    """All of `main`'s first line at once, with the calls it makes outside the range."""
    main = in_hello.symbol("hello", "main")
    thread = in_hello.thread("hello.0")
    executed = register(in_hello, "instructions")
    stop = in_hello.stop(in_hello.ask(f"vCont;r{main:x},{main + 8:x}:{thread};c"))
    assert stop["thread"] == thread
    in_hello.ask(f"Hg{thread}")
    assert not main <= register(in_hello, "eip") < main + 8
    assert register(in_hello, "instructions") > executed + 1


def test_back_to_breakpoints_and_to_the_start(in_hello: Client) -> None:
    place = in_hello.symbol("hello", "printf")
    in_hello.ask(f"Z0,{place:x},1")
    clocks = []
    while "replaylog" not in (stop := in_hello.go_on()):
        clocks.append([core.clock_cycles for core in in_hello.machine.cores])
    back = []
    while "replaylog" not in (stop := in_hello.stop(in_hello.ask("bc"))):
        assert "swbreak" in stop
        back.append([core.clock_cycles for core in in_hello.machine.cores])
    assert back == clocks[::-1]
    assert stop["replaylog"] == "begin"
    assert [core.clock_cycles for core in in_hello.machine.cores] == [0, 0]


def test_backwards_a_watchpoint_stops_before_the_access(in_hello: Client) -> None:
    word_1 = HEAP + 4
    in_hello.ask(f"Z2,{word_1:x},4")
    in_hello.go_on()
    behind = in_hello.ask("g")
    in_hello.go_on()
    stop = in_hello.stop(in_hello.ask("bc"))
    assert stop["watch"] == f"{word_1:x}"
    assert in_hello.ask(f"m{word_1:x},4") == "00000000"
    in_hello.ask(f"vCont;s:{stop['thread']}")
    assert in_hello.ask("g") == behind


def test_what_a_person_changes_is_part_of_the_run_from_then_on(in_hello: Client) -> None:
    """Going back before it undoes it; going on makes it again."""
    thread = in_hello.thread("hello.0")
    in_hello.ask("P3=efbeadde")
    in_hello.ask(f"vCont;s:{thread}")
    assert register(in_hello, "ebx") == 0xDEADBEEF
    in_hello.ask("bs")
    in_hello.ask("bs")
    assert register(in_hello, "ebx") != 0xDEADBEEF
    in_hello.ask(f"vCont;s:{thread}")
    in_hello.ask(f"vCont;s:{thread}")
    assert register(in_hello, "ebx") == 0xDEADBEEF


# --- those who do not wait, and those who leave ---------------------------------------------------------


@pytest.mark.parametrize("interrupt", [b"\x03", encode(b"vCtrlC")])
def test_ctrl_c_right_behind_a_request_to_go_on_is_not_lost(in_hello: Client, interrupt: bytes) -> None:
    main = in_hello.symbol("hello", "main")
    in_hello.ask(f"M{main:x},2:ebfe")
    (reply,) = in_hello.feed(encode(b"vCont;c") + interrupt)
    assert reply.startswith((b"T02", b"T05"))


def test_ctrl_c_while_the_machine_stands_still_does_not_stop_it_later(in_hello: Client) -> None:
    assert in_hello.feed(b"\x03") == []
    assert in_hello.ask("vCtrlC") == "OK"
    assert "replaylog" in in_hello.go_on()


def test_packets_that_come_while_the_machine_runs_are_answered_afterwards(in_hello: Client) -> None:
    main = in_hello.symbol("hello", "main")
    in_hello.ask(f"M{main:x},2:ebfe")
    pieces = iter([encode(b"?"), encode(b"qC")[:3], encode(b"qC")[3:], b"\x03"])
    in_hello.meanwhile = lambda: next(pieces, b"")
    replies = in_hello.feed(encode(b"vCont;c"))
    while len(replies) == 1:
        replies = in_hello.feed(encode(b"vCont;c"))
    assert [reply[:3] for reply in replies] == [b"T02", b"T02", b"QCp"]


def test_a_client_that_vanishes_while_the_machine_runs_leaves_it_standing(in_hello: Client) -> None:
    in_hello.meanwhile = lambda: None
    main = in_hello.symbol("hello", "main")
    in_hello.ask(f"M{main:x},2:ebfe")
    replies = in_hello.feed(encode(b"vCont;c"))
    while not in_hello.session.closed:
        assert replies[0].startswith(b"T05")
        replies = in_hello.feed(encode(b"vCont;c"))
    assert replies == []


def test_whoever_says_more_than_can_be_answered_is_hung_up_on(in_hello: Client) -> None:
    main = in_hello.symbol("hello", "main")
    in_hello.ask(f"M{main:x},2:ebfe")
    in_hello.meanwhile = lambda: encode(b"?") * MAX_WAITING
    for _ in range(3):
        in_hello.feed(encode(b"vCont;c"))
    assert in_hello.session.closed


def test_detaching_and_killing(client: Client) -> None:
    assert client.ask("D;6") == "OK"
    assert client.session.detached and not client.session.closed
    assert client.ask("vKill;6") == "OK"
    assert client.session.killed
    assert client.feed(encode(b"k")) == []
    assert client.session.closed


def test_processes_that_do_not_exist_cannot_be_left_or_killed(client: Client) -> None:
    for packet in ("D;ffff", "D;0", "vKill;99", "vKill;0"):
        assert client.ask(packet) == "E03"
    assert not (client.session.detached or client.session.killed or client.session.closed)
    assert client.ask("D;1") == "OK"  # the cores


def test_detaching_from_all_ends_the_conversation(client: Client) -> None:
    assert client.ask("D") == "OK"
    assert client.session.closed and client.session.detached and not client.session.killed


# --- errors of ours -------------------------------------------------------------------------------------


def test_an_error_of_ours_does_not_end_the_session(in_hello: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> bytes:
        raise ZeroDivisionError("as if")

    in_hello.takes_errors = True
    place, cycles = in_hello.machine.position, register(in_hello, "cycles")
    with monkeypatch.context() as patched:
        patched.setattr(in_hello.target, "read_memory", fails)
        patched.setattr(in_hello.target, "resume", fails)
        in_hello.text = ""
        assert in_hello.ask("m1000,4") == "E05"
        assert in_hello.ask("vCont;c") == "E05"
    assert in_hello.text.count("error in l4lab: ZeroDivisionError: as if") == 2
    assert len(in_hello.reports) == 2 and "Traceback" in in_hello.reports[0]
    assert "'m1000,4'" in in_hello.reports[0]
    assert in_hello.machine.position == place and register(in_hello, "cycles") == cycles
    assert not in_hello.session.closed
    assert in_hello.go_on()["replaylog"] == "end"


@pytest.mark.parametrize("kind", [2, 3, 4])
def test_watchpoints_set_and_changed_at_a_caught_fault(kind: int) -> None:
    """The machine stands before a kernel entry there, for which nobody has looked at the new bytes yet."""
    client = Client()
    client.command(f"catch fault task=hello.0 {HEAP + 0x1000:#x}")
    client.go_on()
    clocks = undebugged("pagefault")[0]
    client.ask(f"Hg{client.thread('hello.0')}")
    used = register(client, "esp") // 8 * 8 - 16  # the next function that is called writes there, and returns
    for packet in (f"Z{kind},{HEAP:x},4", f"Z{kind},{used:x},8", f"z{kind},{HEAP:x},4"):
        assert client.ask(packet) == "OK"
    word = {2: "watch", 3: "rwatch", 4: "awatch"}[kind]
    assert client.go_on()[word] == f"{used:x}"
    client.ask(f"Hg{client.thread('hello.0')}")
    assert client.ask(f"z{kind},{used:x},8") == "OK"
    client.command("delete")
    assert client.go_on()["replaylog"] == "end"
    assert [core.clock_cycles for core in client.machine.cores] == clocks


# --- malformed ------------------------------------------------------------------------------------------


def test_with_acknowledgements_what_is_damaged_is_asked_for_again() -> None:
    client = Client(features=None)
    client.feed(b"$g#00")
    assert client.sent == b"-"
    client.sent.clear()
    client.feed(encode(b"qC"))
    assert client.sent == b"+" + encode(b"QCp6.8".replace(b"p6.", b""))
    client.sent.clear()
    client.feed(b"-")
    assert client.sent == encode(b"QC8")
    client.sent.clear()
    client.feed(b"+x")
    assert client.sent == b"-"


def test_without_acknowledgements_what_is_damaged_is_an_error(client: Client) -> None:
    assert client.feed(b"$g#00") == [b"E16"]
    assert client.feed(b"xyz+-") == []
    assert client.feed(b"$" + b"g" * (MAX_PACKET_BYTES + 10) + b"#00")[:1] == [b"E16"]
    assert client.ask("qC") == "QCp6.8"


def test_what_is_wrong_inside_is_an_error(client: Client) -> None:
    assert client.ask("m12") == "E16"
    assert client.ask("Zq,1,1") == "E16"
    assert client.ask("") == ""
    assert client.ask(b"\xff\xfe") == ""


def test_a_machine_goes_with_its_last_reference_when_gdb_has_left() -> None:
    """It was stopped, looked at, and its faults were told; the garbage collector need not come by."""
    sent: list[bytes] = []

    def debugged() -> weakref.ref[DebuggedMachine]:
        manifest = image("pagefault")
        machine = DebuggedMachine(manifest)
        target = Target(Debugger(machine), Programs(manifest))
        monitor = Monitor(target, lambda line: sent.append(line.encode()))
        session = Conversation(target, monitor, sent.append, STAND_INS, lambda _: None)
        for payload in (
            b"QStartNoAckMode",
            b"qSupported",
            b"qRcmd," + b"steps on".hex().encode(),
            b"vCont;c",
        ):
            session.receive(encode(payload), lambda: b"")
        monitor.steps.follow(False)  # as the server does when a client has gone
        return weakref.ref(machine)

    gc.collect()
    gc.disable()
    try:
        assert debugged()() is None
    finally:
        gc.enable()
    assert any(b"page fault of" in data for data in sent)
