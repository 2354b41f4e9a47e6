"""Run directories: what is in them, what a run that ends early leaves, and what is said about bad ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4lab.emulator.ledger import BATCH_ROWS
from l4lab.emulator.machine import Machine
from l4lab.kernel import events
from l4lab.kernel.errors import KernelBug
from l4lab.tools.ledger.accounts import accounts, imbalance
from l4lab.tools.ledger.timeline import NOWHERE, Operations, Timeline
from l4lab.tools.runs.programs import Program, named_after
from l4lab.tools.runs.recording import Recording, RunError
from l4lab.tools.runs.rundir import EVENT, ROW, kinds_of, open_run
from l4lab.tools.runs.symbols import Symbols
from l4lab.tools.trace.perfetto import write_perfetto
from l4lab.tools.trace.source import checked, stretches
from l4lab.tools.trace.speedscope import write_speedscope
from l4lab.tools.trace.text import text_lines
from l4lab.tools.why.finder import find_chain
from l4lab.tools.why.steps import lines
from support.command import CLI, call
from support.handshake import PATIENCE_SECONDS
from support.programs import compile_program, write_manifest
from support.runs import image, record

ENOUGH_ROWS = 1000
OLD_RUN = Path(__file__).parent / "recorded_before_seals"


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded run of `hello`."""
    folder = tmp_path_factory.mktemp("runs") / "hello"
    record(image("hello"), folder)
    return folder


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with all events."""
    folder = tmp_path_factory.mktemp("runs") / "traced"
    record(image("hello"), folder, trace=True)
    return folder


@pytest.fixture
def copy(hello: Path, tmp_path: Path) -> Path:
    """The same, to be spoilt."""
    return Path(shutil.copytree(hello, tmp_path / "run"))


# --- what is in them ----------------------------------------------------------------------------------


def test_names_tell_who_was_who(hello: Path) -> None:
    run = open_run(hello)
    tasks = {run.task_name(task) for task in run.homes.values()}
    assert tasks == {"sigma0", "root", "hello"}
    assert {run.thread_name(thread).split(" #")[0] for thread in run.homes} == tasks
    assert run.thread_name(12345) == "thread #12345"
    assert run.task_name(12345) == "task #12345"


def test_header_describes_the_binary_files(hello: Path) -> None:
    header = json.loads((hello / "ledger.json").read_text())
    assert header["rows"]["bytes"] * header["rows"]["count"] == (hello / "ledger.bin").stat().st_size
    assert header["events"]["bytes"] * header["events"]["count"] == (hello / "events.bin").stat().st_size
    assert sum(column["bits"] for column in header["rows"]["columns"]) == 8 * ROW.itemsize
    assert sum(column["bits"] for column in header["events"]["columns"]) == 8 * EVENT.itemsize
    assert [kind["name"] for kind in header["events"]["kinds"]] == list(events.KIND_NAMES)
    assert header["clocks"] == [
        core["clock_cycles"] for core in json.loads((hello / "run.json").read_text())["result"]["cores"]
    ]


def test_events_come_in_the_order_of_kernel_entries(hello: Path) -> None:
    found = np.concatenate(list(open_run(hello).event_chunks()))
    cycles = found["cycle"].tolist()
    assert cycles == sorted(cycles)
    kinds = set(kinds_of(found).tolist())
    assert {events.FAULT, events.IPC, events.MESSAGE, events.BOUND} <= kinds
    assert max(kinds) < events.FIRST_OF_TRACE  # the others only with --trace


@pytest.mark.parametrize("piece", [1, 7, 1 << 17])
def test_messages_are_the_same_whether_they_have_records_or_not(
    piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trace has a record of every message; without, the ledger's rows stand for most of them."""
    monkeypatch.setattr("l4lab.tools.runs.rundir.CHUNK_RECORDS", piece)
    found = []
    for trace in (True, False):
        record(image("clntsrv"), tmp_path / str(trace), trace=trace)
        run = open_run(tmp_path / str(trace))
        table = np.concatenate(list(run.event_chunks()))
        kinds = kinds_of(table)
        causal = table[kinds < events.FIRST_OF_TRACE]
        causal["b"][(causal["kind"] == events.MESSAGE) | (causal["kind"] == events.IPC)] = 0
        found.append(causal)
    assert np.array_equal(found[0], found[1])
    assert len(open_run(tmp_path / "False").events) < len(found[1]) - 20


def test_without_ledger_there_is_none(tmp_path: Path) -> None:
    for options, files in (
        (
            ["--ledger"],
            {
                "run.json",
                "console.txt",
                "ledger.json",
                "ledger.bin",
                "events.bin",
                "symbols.json",
                "seal.json",
            },
        ),
        (["--no-ledger"], {"run.json", "console.txt", "seal.json"}),
    ):
        assert call("boot", "hello", "--out", tmp_path / "out", *options).returncode == 0
        assert {path.name for path in (tmp_path / "out").iterdir()} == files
    with pytest.raises(RunError, match=r"ledger\.json: found no such file, expected a run with --ledger"):
        open_run(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--ledger"], "expected --out DIR"),
        (["--trace"], "expected --out DIR"),
        (["--trace", "--no-ledger", "--out", "x"], "--trace needs the ledger"),
    ],
)
def test_a_ledger_needs_a_place(options: list[str], line: str, tmp_path: Path) -> None:
    done = call("boot", "hello", *options, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert line in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


# --- runs that end early ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_interrupted_or_killed_can_be_read(number: int, tmp_path: Path) -> None:
    program = '#include <l4/print.h>\nint main(void) { for (;;) printf("and on and on\\n"); }'
    compile_program(program, tmp_path / "talks")
    write_manifest(tmp_path / "talks.toml", "talks")
    process = subprocess.Popen(
        [*CLI, "boot", "talks.toml", "--out", "run"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    for _ in range(
        ENOUGH_ROWS + BATCH_ROWS
    ):  # a row of the ledger each, and more; so many are written together
        assert process.stdout.readline() == b"and on and on\n"
    process.send_signal(number)
    process.communicate(timeout=PATIENCE_SECONDS)
    run = open_run(tmp_path / "run")
    assert imbalance(run.row_chunks(), run.cores, run.clocks) is None
    assert len(run.rows) >= ENOUGH_ROWS
    assert (run.clocks is None) == (number == signal.SIGKILL)
    assert (run.document["result"] is None) == (number == signal.SIGKILL)
    assert run.homes  # from the events, where there was nobody to write them down
    assert (tmp_path / "run/console.txt").read_text().startswith("and on and on\nand on")
    done = call("books", tmp_path / "run")
    assert done.returncode == 0
    assert ("a run came that did not end" in done.stdout) == (number == signal.SIGKILL)


def test_our_own_mistake_leaves_a_readable_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row of the kernel entry that failed is left out; names and clocks are there."""
    from l4lab.kernel.fiasco import syscalls

    calls = 0
    real = syscalls.system_call

    def fails(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 20:
            raise KernelBug("for the test")
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(syscalls, "system_call", fails)
    manifest = image("hello")
    with Recording(tmp_path, manifest, "{}") as recording:
        machine = Machine(manifest, ledger=recording.ledger)
        recording.watch(machine)
        with pytest.raises(KernelBug):
            machine.run()
    run = open_run(tmp_path)
    assert imbalance(run.row_chunks(), run.cores, run.clocks) is None
    assert run.clocks is not None and run.clocks[0] > 0
    assert "root" in run.names.values()


@pytest.mark.parametrize(
    ("task", "program", "expected"),
    [
        ("pma.3", "pma", True),
        ("größe", "größe", True),
        ("gr\\xf6\\xdfe", "größe", False),
        ("pm", "pma", False),
        ("a-program-with-a", "a-program-with-a-long-name", False),
        ("a-program-with-", "a-program-with-a-long-name", True),
        ("ö" * 7 + "\\xc3", "ö" * 10, True),
        ("x", "x.elf", False),
        ("a\\x01b", "a\x01b", True),
    ],
)
def test_a_task_is_known_by_the_name_of_its_program(task: str, program: str, expected: bool) -> None:
    assert named_after(task, program) == expected


def test_names_may_be_of_any_letters_and_of_any_bytes(tmp_path: Path) -> None:
    """The program is found by its task's name, and a run is written whatever its manifest is called."""
    program = '#include <l4/print.h>\nint main(void) { printf("there\\n"); return 0; }'
    compile_program(program, tmp_path / "größe")
    write_manifest(tmp_path / "x.toml", "root --init=rom/größe", "./größe")
    odd = os.fsencode(tmp_path) + b"/x\xff.toml"
    os.rename(tmp_path / "x.toml", odd)
    command = [*map(os.fsencode, CLI), b"boot", odd, b"--out", os.fsencode(tmp_path / "run")]
    subprocess.run(command, check=True, capture_output=True)
    run = open_run(tmp_path / "run")
    task = next(
        number for number, name in run.names.items() if name == "größe" and number in run.homes.values()
    )
    thread = next(thread for thread, home in run.homes.items() if home == task)
    entry = Program(tmp_path / "größe", "größe").entry
    assert Symbols(run).function(thread, entry) == "_start"
    for arguments in (["books"], ["inspect"], ["why"]):
        done = call(*arguments, tmp_path / "run")
        assert done.returncode == 0, done.stderr


# --- bad ones -----------------------------------------------------------------------------------------


def edited(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return spoil


def header(**changes: object) -> Callable[[Path], None]:
    return edited("ledger.json", lambda old: json.dumps({**json.loads(old), **changes}).encode())


BAD = {
    "nothing": (shutil.rmtree, "found nothing, expected a folder"),
    "empty": (lambda folder: [path.unlink() for path in folder.iterdir()], "run.json: found no such file"),
    "no JSON": (edited("run.json", lambda _: b"\0\xff{"), "run.json: not JSON"),
    "a list": (edited("ledger.json", lambda _: b"[]"), "ledger.json: found a list, expected a table"),
    "deep": (edited("ledger.json", lambda _: b"[" * 100_000), "ledger.json: not JSON"),
    "format": (header(format=99), "ledger.json: format: found 99, expected 1"),
    "columns": (header(rows={"columns": []}), "rows.columns: found others"),
    "no clocks": (header(clocks=[]), "clocks: found 0 clocks, expected one for each of 4 cores"),
    "wild clocks": (header(clocks=[1 << 70]), "clocks: found"),
    "cores": (header(cores=0), "cores: found 0"),
    "many cores": (header(cores=1 << 40), "cores: found"),
    "names": (header(names={"x": "y"}), "names: found 'x', expected numbers of objects"),
    "long names": (header(names={"1" * 5000: "y"}), "names: found '111"),
    "homes": (header(homes={"1": "y"}), "homes.1: found 'y', expected a value of type int"),
    "wild homes": (header(homes={"1": -1}), "homes: found other numbers"),
    "truncated rows": (edited("ledger.bin", lambda old: old[:-1]), "ledger.bin: found .* bytes, expected"),
    "missing rows": (edited("ledger.bin", lambda _: b""), "ledger.bin: found 0 bytes, expected"),
    "more events": (edited("events.bin", lambda old: old + b"x"), "events.bin: found"),
}


@pytest.mark.parametrize(
    "name", ["run.json", "console.txt", "ledger.json", "ledger.bin", "events.bin", "symbols.json"]
)
def test_every_flipped_bit_is_noticed(name: str, copy: Path) -> None:
    """Also one that leaves a file well formed: a cycle more, a name with another letter."""
    data = (copy / name).read_bytes()
    for place in {0, len(data) // 3, len(data) // 2, len(data) - 1}:
        for bit in (0, 4):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            (copy / name).write_bytes(changed)
            with pytest.raises(RunError) as caught:
                open_run(copy)
            assert name in str(caught.value) and "\n" not in str(caught.value)
    (copy / name).write_bytes(data)
    open_run(copy)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 1, "sha256": {}}', '{"format": 2}'])
def test_a_spoilt_seal_is_no_seal(text: str, copy: Path) -> None:
    (copy / "seal.json").write_text(text)
    with pytest.raises(RunError, match=r"seal\.json: found another text"):
        open_run(copy)


def test_a_seal_names_files_of_its_own_folder_only(copy: Path, tmp_path: Path) -> None:
    (copy / "seal.json").write_text('{"format": 1, "sha256": {"../other": "00"}}')
    with pytest.raises(RunError, match="found another content"):
        open_run(copy)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["books"], "the books balance: 622 021 cycles on 4 cores, 92 kernel entries\n"),
        (["why", "ipc", "3"], "ipc 3 of 3: hello #12 sent root #9 a message, label 16386, 2 words\n"),
        (["trace", "--text=-"], "pfa=0x100000 ip=0x100000 _start (fetch, not mapped)"),
    ],
)
def test_a_run_recorded_before_there_were_seals_is_read(command: list[str], told: str) -> None:
    """`hello`, as a version before this one has left it; numbers are those of then, whatever `hello` costs now."""
    done = call(*command, OLD_RUN)
    assert (done.returncode, done.stderr) == (0, "")
    assert told in done.stdout


@pytest.mark.parametrize(
    "name", ["run.json", "ledger.json", "ledger.bin", "events.bin", "symbols.json", "seal.json"]
)
def test_a_pipe_in_place_of_a_file_is_one_line(name: str, copy: Path) -> None:
    """Nobody waits for a writer that never comes."""
    (copy / name).unlink()
    os.mkfifo(copy / name)
    done = call("books", copy)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"{name}: found a pipe" in done.stderr


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    """The second is refused and leaves the first its files; when that has ended, there is room again."""
    manifest = image("hello")
    with Recording(tmp_path / "run", manifest, "{}") as first:
        with pytest.raises(RunError, match="found a run that is being recorded there"):
            Recording(tmp_path / "run", manifest, "[]")
        first.finish('{"first": 1}')
    assert (tmp_path / "run/run.json").read_text() == '{"first": 1}'
    with Recording(tmp_path / "run", manifest, "{}"):
        pass


@pytest.mark.parametrize("what", BAD)
def test_a_bad_folder_gets_one_line(what: str, copy: Path) -> None:
    spoil, line = BAD[what]
    spoil(copy)
    with pytest.raises(RunError, match=line) as caught:
        open_run(copy)
    assert "\n" not in str(caught.value)


def test_a_bad_folder_ends_a_command_with_code_2(copy: Path) -> None:
    (copy / "ledger.bin").write_bytes(b"x")
    done = call("books", copy)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


@given(data=st.data())
def test_no_file_content_brings_the_reader_down(data: st.DataObject, hello: Path, traced: Path) -> None:
    """Whatever bytes have changed: an error line, an imbalance, or numbers; never anything else."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        run_folder = Path(folder) / "run"
        original = data.draw(st.sampled_from([hello, traced]))
        shutil.copytree(original, run_folder)
        name = data.draw(st.sampled_from([path.name for path in sorted(original.iterdir())]))
        content = bytearray((run_folder / name).read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        (run_folder / name).write_bytes(content)
        try:
            run = open_run(run_folder)
        except RunError:
            return
        if imbalance(run.row_chunks(), run.cores, run.clocks) is None:
            accounts(run)
            timeline = Timeline(run)
            operations = Operations(timeline)
            place = data.draw(st.integers(0, len(operations)))
            operation = operations.at(place) if place < len(operations) else None
            if operation is not None and operation.row != NOWHERE:
                chain = find_chain(timeline, operations, operation)
                assert sum(line.cycles for line in lines(run, chain)) == chain.cycles
        list(run.event_chunks())
        try:
            symbols = Symbols(checked(run))
        except RunError:
            return
        for _ in text_lines(run, symbols, stretches(run)):
            pass
        write_perfetto(run, symbols, stretches(run), BytesIO())
        write_speedscope(run, symbols, stretches(run), StringIO())
