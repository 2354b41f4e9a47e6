"""`l4lab boot` with real programs: what is printed where, exit codes, files, Ctrl-C."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from l4lab.emulator.files.manifest import load_manifest
from l4lab.emulator.results import StopReason
from l4lab.tools.runs import boot
from support.command import CLI, call
from support.elf_builder import ElfBuilder, sane
from support.handshake import PATIENCE_SECONDS, read_until
from support.programs import compile_program, write_manifest

ROOT_TASKS = {
    "ends": '#include <l4/print.h>\nint main(void) { printf("seven\\n"); return 7; }',
    "traps": "int main(void) { __builtin_trap(); }",
    "loses its pager": """
        #include <l4/program.h>
        #include <l4/thread.h>
        int main(void)
        {
            l4_thread_control_t control = { .change = L4_CONTROL_SET_PAGER, .pager = l4_cap(0x7000) };
            l4_thread_control(l4_main_thread(), &control);
            return *(volatile int *)0x00900000;
        }""",
    "waits": "#include <l4/thread.h>\nint main(void) { l4_sleep_forever(); }",
    "loops": '#include <l4/print.h>\nint main(void) { printf("looping\\n"); for (;;); }',
    "talks": '#include <l4/print.h>\nint main(void) { for (;;) printf("and on and on\\n"); }',
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest NAME.toml for each of ROOT_TASKS."""
    folder = tmp_path_factory.mktemp("images")
    for name, source in ROOT_TASKS.items():
        file = name.replace(" ", "-")
        compile_program(source, folder / file)
        write_manifest(folder / f"{file}.toml", file)
    return folder


def command(*arguments: object) -> list[str]:
    return [*CLI, *map(str, arguments)]


@pytest.mark.parametrize(
    ("image", "options", "code", "ending", "printed"),
    [
        ("ends", [], 7, "the root task ended with exit code 7", "seven\n"),
        ("traps", [], 125, "every thread waits for what cannot come", ""),
        ("loses-its-pager", [], 126, "the root task was killed", ""),
        ("waits", [], 125, "every thread waits for what cannot come", ""),
        ("loops", ["--max-cycles", "30_000_000"], 124, "stopped at --max-cycles", "looping\n"),
    ],
)
def test_each_ending_is_told_and_has_its_exit_code(
    images: Path, image: str, options: list[str], code: int, ending: str, printed: str
) -> None:
    done = call("boot", f"{image}.toml", *options, cwd=images)
    assert (done.returncode, done.stdout) == (code, printed), done.stderr
    assert re.search(rf"^l4lab: {ending}.*, after [\d ]+ cycles$", done.stderr, re.M)


def test_what_the_kernel_noticed_is_told(images: Path) -> None:
    done = call("boot", "traps.toml", cwd=images)
    assert re.search(r"^l4lab: kernel: .*trap 6.*nobody handles it$", done.stderr, re.M)


def test_every_reason_has_an_ending_and_the_codes_are_distinct() -> None:
    assert boot.ENDINGS.keys() == set(StopReason)
    assert boot.EXIT_CODES.keys() == set(StopReason) - {StopReason.ROOT_ENDED}
    assert len(set(boot.EXIT_CODES.values())) == len(boot.EXIT_CODES)


def test_json_is_one_document_on_stdout_and_the_same_twice(tmp_path: Path) -> None:
    """From two folders, by name and by path."""
    first = call("boot", "hello", "--json", cwd=tmp_path)
    second = call("boot", Path(__file__).resolve().parents[3] / "images/hello.toml", "--json")
    assert first.returncode == second.returncode == 0
    assert first.stdout == second.stdout
    document = json.loads(first.stdout)
    assert list(document) == sorted(document)
    assert document["format"] == 1
    assert document["exit_code"] == 0
    assert document["result"]["reason"] == "root_ended"
    assert document["result"]["console"].startswith("Hello from hello!")
    assert document["versions"].keys() == {"l4lab", "unicorn", "python", "compiler", "programs"}
    assert document["configuration"]["machine"]["ram_bytes"] == 256 << 20
    assert str(tmp_path) not in first.stdout
    for task in document["result"]["tasks"]:
        assert min(task["instructions"], task["tlb_misses"], task["page_faults"]) > 0, task


def test_out_folder_has_the_document_and_the_console(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "results"
    done = call("boot", "ends.toml", "--out", out, "--json", cwd=images)
    assert done.returncode == 7
    assert (out / "run.json").read_text() == done.stdout
    assert (out / "console.txt").read_text() == "seven\n"


def test_out_folder_that_cannot_be_is_the_operators_mistake(images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = call("boot", "ends.toml", "--out", tmp_path / "file", cwd=images)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"l4lab: --out .*/file: .*, expected a folder to write to\n", done.stderr)


@pytest.mark.parametrize(
    ("image", "line"),
    [
        ("helo", 'l4lab: found no image "helo" (did you mean "hello"?)'),
        ("none.toml", "l4lab: none.toml: "),
    ],
)
def test_image_that_is_not_there_gets_one_line(image: str, line: str, tmp_path: Path) -> None:
    done = call("boot", image, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


TEXT = 0x0020_0000
BAD_PROGRAMS = {
    "truncated": sane().build()[:-1],
    "64 bit": ElfBuilder(e_ident=b"\x7fELF\x02\x01\x01" + bytes(9)).segment(TEXT, b"\xf4", flags=5).build(),
    "overlapping": ElfBuilder().segment(TEXT, b"\xf4" * 8, flags=5).segment(TEXT + 4, b"1234").build(),
    "in kernel space": ElfBuilder().segment(0xC000_0000, b"\xf4", flags=5).build(),
    "huge": ElfBuilder().segment(TEXT, b"\xf4", flags=5, memory=0xB000_0000).build(),
    "10 GB in the file": ElfBuilder().segment(TEXT, b"\xf4", flags=5, p_filesz=0xFFFF_F000).build(),
    "empty": b"",
    "text": b"no program\n",
}


@pytest.mark.parametrize("what", BAD_PROGRAMS)
@pytest.mark.parametrize("role", ["sigma0", "roottask"])
def test_bad_program_gets_one_line_and_exit_code_2(what: str, role: str, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(BAD_PROGRAMS[what])
    manifest = write_manifest(tmp_path / "bad.toml", "root")
    manifest.write_text(
        manifest.read_text().replace(f'{role} = "{role.replace("task", "")}"', f'{role} = "bad"')
    )
    done = call("boot", "bad.toml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert re.fullmatch(r"l4lab: \S*bad(\.toml)?: .+\n", done.stderr)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("cores = 1", "core = 1", "core"),
        ("cores = 1", "cores = 4096", "cores"),
        ('ram = "16MiB"', 'ram = "16EiB"', "ram"),
        ('sigma0 = "sigma0"', 'sigma0 = "sigma1"', "sigma0"),
        ("[boot]", "[boot", "line"),
    ],
)
def test_bad_manifest_gets_one_line_naming_file_and_key(
    old: str, new: str, named: str, tmp_path: Path
) -> None:
    manifest = write_manifest(tmp_path / "bad.toml", "root")
    manifest.write_text(manifest.read_text().replace(old, new))
    done = call("boot", "bad.toml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"l4lab: bad\.toml.*\b{named}\b.*\n", done.stderr)


def test_verbose_tells_machine_files_and_costs_on_stderr(images: Path) -> None:
    plain = call("boot", "ends.toml", cwd=images)
    verbose = call("boot", "ends.toml", "-v", cwd=images)
    assert verbose.stdout == plain.stdout
    assert "1 core, 16 MiB RAM, profile opteron-6174" in verbose.stderr
    assert "as 'ends'" in verbose.stderr
    assert re.search(r"^sigma0( +\d[\d ]*){5}$", verbose.stderr, re.M)


def test_progress_of_a_long_run_is_told_and_changes_nothing(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = load_manifest(images / "talks.toml")

    def let_time_pass(_: bytes) -> None:
        signal.raise_signal(signal.SIGALRM)

    watched = boot.run(manifest, 3_000_000, let_time_pass, progress_seconds=PATIENCE_SECONDS)
    told = re.findall(r"^l4lab: at cycle ([\d ]+)$", capsys.readouterr().err, re.M)
    cycles = [int(number.replace(" ", "")) for number in told]
    assert len(cycles) == len(watched.console.splitlines()) > 10
    assert cycles == sorted(set(cycles))
    assert watched == boot.run(manifest, 3_000_000, None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("options", [[], ["--json", "-v"]])
def test_ctrl_c_stops_and_tells_where_everything_was(images: Path, options: list[str]) -> None:
    """In the middle of an endless loop: what has been printed, or told of the way, says that it runs."""
    process = subprocess.Popen(
        command("boot", "loops.toml", *options, "--out", images / "out"),
        cwd=images,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    if options:
        read_until(process.stderr, "at cycle ")
    else:
        assert process.stdout.readline() == "looping\n"
    process.send_signal(signal.SIGINT)
    errors = process.stderr.read()
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert "core 0: cycle " in errors
    assert re.search("root>: ready, core 0, EIP 0x", errors)
    assert "l4lab: interrupted, after " in errors
    assert "Traceback" not in errors
    document = json.loads((images / "out/run.json").read_text())
    assert document["result"]["reason"] == "host_stop"
    assert output == ((images / "out/run.json").read_text() if options else "")


def test_reader_that_leaves_ends_the_run(images: Path) -> None:
    """As in `l4lab boot talks.toml | head -1`."""
    process = subprocess.Popen(
        command("boot", "talks.toml"), cwd=images, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "and on and on\n"
    process.stdout.close()
    assert process.wait(timeout=PATIENCE_SECONDS) == 141
    assert process.stderr.read() == ""
    process.stderr.close()
