"""Boot manifests: what they say, what they leave to defaults, and every way to get them wrong."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest

from l4lab.emulator.errors import ManifestError
from l4lab.emulator.files import manifest as module_under_test
from l4lab.emulator.files import tomlfile
from l4lab.emulator.files.inputs import BUNDLED_IMAGES
from l4lab.emulator.files.manifest import Idle, Manifest, find_image, load_manifest
from l4lab.kernel.state import TlbPolicy

BOOT = '[boot]\nsigma0 = "sigma0"\nroottask = "root --init=rom/hello"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with programs, beside which a manifest is written; `prog-*` are the bundled ones."""
    for name in ("sigma0", "root", "hello", "data.txt"):
        (tmp_path / name).write_bytes(f"contents of {name}".encode())
    programs = tmp_path / "bundled"
    programs.mkdir()
    (programs / "prog-one").write_bytes(b"one")
    (programs / "prog-two.bin").write_bytes(b"two")
    monkeypatch.setattr(module_under_test, "BUNDLED_PROGRAMS", programs)
    return tmp_path


def read(folder: Path, text: str | bytes) -> Manifest:
    path = folder / "test.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_manifest(path)


def refusal(folder: Path, text: str | bytes) -> str:
    """The line with which `text` is refused, without the file's name."""
    with pytest.raises(ManifestError) as caught:
        read(folder, text)
    return check_line(caught.value, folder)


def check_line(error: ManifestError, folder: Path) -> str:
    line = str(error)
    assert line.isprintable()
    assert line.startswith(f"{folder / 'test.toml'}: ")
    assert "expected" in line or "invalid TOML" in line
    return line.removeprefix(f"{folder / 'test.toml'}: ")


# --- what a manifest says -----------------------------------------------------------------------


def test_everything_given(folder: Path) -> None:
    manifest = read(
        folder,
        """
        [machine]
        cores = 4
        ram = "1GiB"
        profile = "opteron-6174"
        quantum_us = 5000
        kernel_memory = "10%"

        [boot]
        sigma0 = "sigma0"
        roottask = "root --init=rom/hello"
        modules = ["hello some arguments", "data.txt"]
        """,
    )
    assert manifest.path == folder / "test.toml"
    assert (manifest.cores, manifest.ram_bytes, manifest.profile) == (4, 1 << 30, "opteron-6174")
    assert (manifest.quantum_us, manifest.kernel_memory) == (5000, "10%")
    assert manifest.kernel_memory_bytes == (1 << 30) // 10 // 4096 * 4096
    assert (manifest.sigma0.path, manifest.sigma0.command_line) == (folder / "sigma0", "sigma0")
    assert manifest.roottask.path == folder / "root"
    assert manifest.roottask.command_line == "root --init=rom/hello"
    assert [m.path for m in manifest.modules] == [folder / "hello", folder / "data.txt"]
    assert [m.command_line for m in manifest.modules] == ["hello some arguments", "data.txt"]
    assert [m.name for m in manifest.modules] == ["hello", "data.txt"]


def test_defaults(folder: Path) -> None:
    manifest = read(folder, BOOT)
    assert (manifest.cores, manifest.ram_bytes, manifest.profile) == (1, 256 << 20, "opteron-6174")
    assert (manifest.quantum_us, manifest.modules) == (10000, ())
    assert manifest.kernel_memory_bytes == (256 << 20) * 8 // 100 // 4096 * 4096


def test_an_empty_machine_table_is_all_defaults(folder: Path) -> None:
    assert read(folder, "[machine]\n" + BOOT) == read(folder, BOOT)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("16MiB", 16 << 20), ("20 MiB", 20 << 20), ("3GiB", 3 << 30), ("3072MiB", 3 << 30)],
)
def test_sizes_of_ram(folder: Path, text: str, size_bytes: int) -> None:
    assert read(folder, f'[machine]\nram = "{text}"\n{BOOT}').ram_bytes == size_bytes


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("1MiB", 1 << 20), ("1030KiB", 1028 << 10), ("32MiB", 32 << 20), ("50%", 32 << 20), ("8 %", 5242 << 10)],
)
def test_shares_of_the_kernel_are_whole_pages(folder: Path, text: str, size_bytes: int) -> None:
    manifest = read(folder, f'[machine]\nram = "64MiB"\nkernel_memory = "{text}"\n{BOOT}')
    assert manifest.kernel_memory_bytes == size_bytes // 4096 * 4096


@pytest.mark.parametrize("cores", [1, 2, 48, 64])
def test_numbers_of_cores(folder: Path, cores: int) -> None:
    assert read(folder, f"[machine]\ncores = {cores}\n{BOOT}").cores == cores


def test_a_byte_order_mark_is_no_mistake(folder: Path) -> None:
    assert read(folder, b"\xef\xbb\xbf" + BOOT.encode()).cores == 1


# --- where files are looked up ------------------------------------------------------------------


def boot(sigma0: str) -> str:
    return f"[boot]\nsigma0 = {json.dumps(sigma0)}\nroottask = 'root'\n"


def test_a_path_is_relative_to_the_manifest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "hello").write_bytes(b"other")
    monkeypatch.chdir("/")
    assert read(folder, boot("sub/hello")).sigma0.path == folder / "sub/hello"
    assert read(folder, boot("./hello")).sigma0.path == folder / "hello"
    assert (
        read(folder / "sub", boot("../hello").replace("'root'", "'../root'")).sigma0.path
        == folder / "sub/../hello"
    )


def test_an_absolute_path_is_taken_as_it_is(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "program"
    elsewhere.write_bytes(b"x")
    assert read(folder, boot(f"{elsewhere} an argument")).sigma0.path == elsewhere


def test_a_bare_name_may_be_bundled(folder: Path) -> None:
    assert read(folder, boot("prog-one")).sigma0.path == folder / "bundled/prog-one"


def test_a_file_beside_the_manifest_wins_over_a_bundled_one(folder: Path) -> None:
    (folder / "prog-one").write_bytes(b"mine")
    assert read(folder, boot("prog-one")).sigma0.path == folder / "prog-one"


def test_a_folder_beside_the_manifest_does_not_hide_a_bundled_program(folder: Path) -> None:
    """Sources of a program often lie in a folder of its name."""
    (folder / "prog-one").mkdir()
    assert read(folder, boot("prog-one")).sigma0.path == folder / "bundled/prog-one"


@pytest.mark.parametrize("line", ["'my files/a b' c", '"my files/a b" c', "my\\ files/a\\ b c"])
def test_quotes_work_as_in_a_shell(folder: Path, line: str) -> None:
    (folder / "my files").mkdir()
    (folder / "my files/a b").write_bytes(b"x")
    sigma0 = read(folder, boot(line)).sigma0
    assert (sigma0.path, sigma0.name, sigma0.command_line) == (folder / "my files/a b", "a b", line)


def test_a_profile_may_be_a_path_relative_to_the_manifest(folder: Path) -> None:
    (folder / "mine.toml").write_bytes(b"")
    manifest = read(folder, f'[machine]\nprofile = "mine.toml"\n{BOOT}')
    assert manifest.profile == "mine.toml"
    assert manifest.profile_path() == folder / "mine.toml"


@pytest.mark.parametrize("policy", TlbPolicy)
def test_what_unmap_does_to_tlbs(folder: Path, policy: TlbPolicy) -> None:
    assert read(folder, f'[machine]\ntlb = "{policy.value}"\n{BOOT}').tlb is policy
    assert read(folder, BOOT).tlb is TlbPolicy.FULL


@pytest.mark.parametrize("idle", Idle)
def test_what_idle_cores_do(folder: Path, idle: Idle) -> None:
    assert read(folder, f'[machine]\nidle = "{idle.value}"\n{BOOT}').idle is idle
    assert read(folder, BOOT).idle is Idle.HALT


# --- the resolved configuration -----------------------------------------------------------------


def test_resolved_has_every_default_and_the_contents_of_every_file(folder: Path) -> None:
    text = '[boot]\nsigma0 = "sigma0"\nroottask = "./root -v"\nmodules = ["data.txt x"]\n'
    manifest = read(folder, text)

    def sha256(content: bytes) -> str:
        return hashlib.sha256(content).hexdigest()

    assert manifest.resolved() == {
        "manifest": {"name": "test.toml", "sha256": sha256(text.encode())},
        "machine": {
            "cores": 1,
            "ram_bytes": 256 << 20,
            "profile": "opteron-6174",
            "profile_sha256": sha256((BUNDLED_IMAGES / "profiles/opteron-6174.toml").read_bytes()),
            "quantum_us": 10000,
            "kernel_memory": "8%",
            "kernel_memory_bytes": 5242 * 4096,
            "tlb": "full",
            "idle": "halt",
        },
        "boot": {
            "sigma0": {
                "path": "sigma0",
                "command_line": "sigma0",
                "size_bytes": 18,
                "sha256": sha256(b"contents of sigma0"),
            },
            "roottask": {
                "path": "./root",
                "command_line": "./root -v",
                "size_bytes": 16,
                "sha256": sha256(b"contents of root"),
            },
            "modules": [
                {
                    "path": "data.txt",
                    "command_line": "data.txt x",
                    "size_bytes": 20,
                    "sha256": sha256(b"contents of data.txt"),
                }
            ],
        },
    }


def test_resolved_is_the_same_in_another_folder(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    for name in ("sigma0", "root"):
        (other / name).write_bytes((folder / name).read_bytes())
    assert json.dumps(read(folder, BOOT).resolved()) == json.dumps(read(other, BOOT).resolved())


def test_a_file_that_goes_before_it_is_hashed(folder: Path) -> None:
    manifest = read(folder, BOOT)
    (folder / "root").unlink()
    with pytest.raises(ManifestError, match="root: found no such file, expected a readable file"):
        manifest.resolved()


# --- mistakes: the file -------------------------------------------------------------------------


def test_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"absent\.toml: found no such file, expected"):
        load_manifest(tmp_path / "absent.toml")


def test_manifest_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="found a directory, expected"):
        load_manifest(tmp_path)


def test_invalid_toml_has_line_and_column(folder: Path) -> None:
    assert "at line 2, column 9" in refusal(folder, "[machine]\ncores = \n")


def test_a_duplicate_key_is_invalid_toml(folder: Path) -> None:
    assert "invalid TOML" in refusal(folder, "[machine]\ncores = 1\ncores = 2\n")


def test_other_encodings(folder: Path) -> None:
    assert refusal(folder, BOOT.encode() + b"# caf\xe9\n") == "found byte 0xe9 in line 4, expected UTF-8 text"
    assert "expected UTF-8 text" in refusal(folder, BOOT.encode("utf-16"))


def test_a_file_that_cannot_be_a_manifest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(folder, b"\x7fELF\x01\x01\x01\x00\x00") != ""
    monkeypatch.setattr(tomlfile, "MAX_TOML_BYTES", 10)
    assert "expected at most 10" in refusal(folder, BOOT)


def test_absurd_toml(folder: Path) -> None:
    assert "found values nested too deeply" in refusal(folder, "a = " + "[" * 5000)
    assert "invalid TOML" in refusal(folder, "a = " + "9" * 5000)


# --- mistakes: keys and values ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "boot: found nothing, expected a table"),
        ("boot = 3", "boot: found 3, expected a table"),
        ("[[boot]]", "boot: found a list, expected a table"),
        (
            "[machine]\n[bott]\n",
            'found unknown key bott (did you mean "boot"?), expected one of boot, machine',
        ),
        ("machine = true\n" + BOOT, "machine: found true, expected a table"),
        ("[devices]\n" + BOOT, "found unknown key devices, expected one of boot, machine"),
        (
            "[machine]\ncoers = 4\n" + BOOT,
            'found unknown key machine.coers (did you mean "cores"?), '
            "expected one of cores, idle, kernel_memory, profile, quantum_us, ram, tlb",
        ),
        ("[machine]\n'a\\u000ab' = 4\n" + BOOT, "found unknown key machine.a\\u000ab, expected one of"),
        ('[machine]\n"a\\nb" = 4\n' + BOOT, "found unknown key machine.a\\nb, expected one of"),
        (BOOT + "module = []", 'found unknown key boot.module (did you mean "modules"?), expected one of'),
        ("[boot]\nsigma0 = 'sigma0'", "boot.roottask: found nothing, expected a command line"),
        ("[boot]\nroottask = 'root'", "boot.sigma0: found nothing, expected a command line"),
        ("[machine]\ncores = 0\n" + BOOT, "machine.cores: found 0, expected an integer from 1 to 64"),
        ("[machine]\ncores = 65\n" + BOOT, "machine.cores: found 65, expected an integer from 1 to 64"),
        ("[machine]\ncores = -1\n" + BOOT, "machine.cores: found -1, expected an integer from 1 to 64"),
        ("[machine]\ncores = 4.0\n" + BOOT, "machine.cores: found 4.0, expected an integer from 1 to 64"),
        ("[machine]\ncores = true\n" + BOOT, "machine.cores: found true, expected an integer from 1 to 64"),
        ("[machine]\ncores = '4'\n" + BOOT, 'machine.cores: found "4", expected an integer from 1 to 64'),
        ("[machine]\ncores = []\n" + BOOT, "machine.cores: found a list, expected an integer"),
        (
            "[machine]\ncores = 2001-01-01\n" + BOOT,
            "machine.cores: found a date or time, expected an integer",
        ),
        (
            "[machine]\ncores = 0x" + "f" * 5000 + "\n" + BOOT,
            "machine.cores: found an enormous integer, expected",
        ),
        (
            "[machine]\nquantum_us = 0\n" + BOOT,
            "machine.quantum_us: found 0, expected an integer from 1 to 10000000",
        ),
        ("[machine]\nram = 256\n" + BOOT, 'machine.ram: found 256, expected a size from "16MiB" to "3GiB"'),
        ("[machine]\nram = '256'\n" + BOOT, 'machine.ram: found "256", expected a size'),
        ("[machine]\nram = '256MB'\n" + BOOT, 'as in "256MiB"'),
        ("[machine]\nram = '256mib'\n" + BOOT, 'as in "256MiB"'),
        ("[machine]\nram = '-16MiB'\n" + BOOT, 'as in "256MiB"'),
        ("[machine]\nram = '1.5GiB'\n" + BOOT, 'as in "256MiB"'),
        ("[machine]\nram = ''\n" + BOOT, 'machine.ram: found ""'),
        ("[machine]\nram = '\u0661\u0666MiB'\n" + BOOT, 'as in "256MiB"'),
        ("[machine]\nram = '12MiB'\n" + BOOT, 'machine.ram: found "12MiB", expected a size from "16MiB"'),
        (
            "[machine]\nram = '4GiB'\n" + BOOT,
            'machine.ram: found "4GiB", expected a size from "16MiB" to "3GiB"',
        ),
        ("[machine]\nram = '3076MiB'\n" + BOOT, 'machine.ram: found "3076MiB", expected'),
        ("[machine]\nram = '18MiB'\n" + BOOT, "that is a multiple of 4 MiB"),
        ("[machine]\nram = '10000000000GiB'\n" + BOOT, "machine.ram: found"),
        (
            "[machine]\nkernel_memory = 8\n" + BOOT,
            'machine.kernel_memory: found 8, expected a share as in "8%"',
        ),
        (
            "[machine]\ntlb = 'some'\n" + BOOT,
            'machine.tlb: found "some", expected one of "full", "page", "switch"',
        ),
        (
            "[machine]\nidle = 'spin'\n" + BOOT,
            'machine.idle: found "spin", expected one of "halt", "poll"',
        ),
        ("[machine]\ntlb = 1\n" + BOOT, 'machine.tlb: found 1, expected one of "full", "page", "switch"'),
        ("[machine]\nkernel_memory = '8'\n" + BOOT, 'machine.kernel_memory: found "8", expected a share'),
        ("[machine]\nkernel_memory = '0%'\n" + BOOT, "from 1 MiB to 50% of RAM"),
        ("[machine]\nkernel_memory = '51%'\n" + BOOT, "from 1 MiB to 50% of RAM"),
        ("[machine]\nkernel_memory = '512KiB'\n" + BOOT, "from 1 MiB to 50% of RAM"),
        ("[machine]\nkernel_memory = '129MiB'\n" + BOOT, "from 1 MiB to 50% of RAM"),
        (
            "[machine]\nprofile = 3\n" + BOOT,
            "machine.profile: found 3, expected the name or path of a cost profile",
        ),
        (
            "[machine]\nprofile = 'opteron-6147'\n" + BOOT,
            'machine.profile: found no profile "opteron-6147" (did you mean "opteron-6174"?), expected',
        ),
        ("[machine]\nprofile = 'absent.toml'\n" + BOOT, "absent.toml: found no such file"),
        ("[boot]\nsigma0 = 7\nroottask = 'root'", "boot.sigma0: found 7, expected a command line"),
        (
            "[boot]\nsigma0 = ''\nroottask = 'root'",
            'boot.sigma0: found "", expected a command line that begins',
        ),
        ("[boot]\nsigma0 = '  '\nroottask = 'root'", "expected a command line that begins with a file"),
        ("[boot]\nsigma0 = '\"\" x'\nroottask = 'root'", "expected a command line that begins with a file"),
        ('[boot]\nsigma0 = "a\\nb"\nroottask = "root"', "without control characters"),
        ('[boot]\nsigma0 = "a\\u0000"\nroottask = "root"', "without control characters"),
        (
            "[boot]\nsigma0 = 'sigma0 \"x'\nroottask = 'root'",
            'boot.sigma0: found "sigma0 "x" (No closing quotation), expected a command line with',
        ),
        ("[boot]\nsigma0 = 'sigma0\\'\nroottask = 'root'", "(No escaped character), expected"),
        (
            "[boot]\nsigma0 = 'sub/absent'\nroottask = 'root'",
            'boot.sigma0: found no such file at "sub/absent"',
        ),
        ("[boot]\nsigma0 = '/absent/x'\nroottask = 'root'", 'boot.sigma0: found no such file at "/absent/x"'),
        ("[boot]\nsigma0 = '.'\nroottask = 'root'", 'boot.sigma0: found a directory at "."'),
        (
            "[boot]\nsigma0 = '..'\nroottask = 'root'",
            'boot.sigma0: found a directory ".." beside the manifest',
        ),
        ("[boot]\nsigma0 = 'sigma0/x'\nroottask = 'root'", 'boot.sigma0: found no such file at "sigma0/x"'),
        (
            "[boot]\nsigma0 = 'prog-on'\nroottask = 'root'",
            'boot.sigma0: found no such file "prog-on" beside the manifest and no such program '
            '(did you mean "prog-one"?), expected a file or a bundled program: prog-one, prog-two.bin',
        ),
        (BOOT + "modules = 'hello'", 'boot.modules: found "hello", expected a list of command lines'),
        (BOOT + "modules = {}", "boot.modules: found a table, expected a list of command lines"),
        (BOOT + "modules = ['hello', 3]", "boot.modules[1]: found 3, expected a command line"),
        (BOOT + "modules = ['hello', ['x']]", "boot.modules[1]: found a list, expected a command line"),
        (BOOT + 'modules = ["hello\\t"]', "boot.modules[0]: found"),
        (BOOT + "modules = ['data.txt', 'absent']", 'boot.modules[1]: found no such file "absent"'),
        (
            BOOT + "modules = ['hello a', 'data.txt', './hello b']",
            'boot.modules[2]: found a second "hello" after boot.modules[0], expected names that differ',
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_key(folder: Path, text: str, line: str) -> None:
    assert line in refusal(folder, text)


def test_too_many_modules(folder: Path) -> None:
    assert "found 1001 modules, expected at most 1000" in refusal(folder, BOOT + f"modules = {['x'] * 1001}")


def test_a_long_value_is_cut_off(folder: Path) -> None:
    assert len(refusal(folder, f"[machine]\nram = '{'x' * 100000}'\n{BOOT}")) < 600


def test_mutated_manifests_load_or_are_refused_in_one_line(folder: Path) -> None:
    random_ = random.Random("manifest mutants")
    machine = "[machine]\ncores = 4\nram = '64MiB'\nkernel_memory = '9%'\n"
    text = machine + BOOT + "modules = ['hello a \"b\"', 'data.txt']\n"
    bits = (
        b"=",
        b"\n",
        b"[",
        b"]",
        b"9",
        b"0x",
        b"'",
        b'"',
        b"\\",
        b"..",
        b"/",
        b" ",
        b"\0",
        b"\xff",
        "é".encode(),
    )
    loaded = refused = 0
    for _ in range(600):
        spoilt = bytearray(text.encode())
        for _ in range(random_.randint(1, 3)):
            at = random_.randrange(len(spoilt))
            if random_.random() < 0.5:
                del spoilt[at : at + random_.randint(1, 9)]
            else:
                spoilt[at:at] = random_.choice(bits)
        (folder / "test.toml").write_bytes(bytes(spoilt))
        try:
            manifest = load_manifest(folder / "test.toml")
            assert 1 <= manifest.cores <= 64
            assert manifest.kernel_memory_bytes <= manifest.ram_bytes // 2
            json.dumps(manifest.resolved())
            loaded += 1
        except ManifestError as error:
            check_line(error, folder)
            refused += 1
    assert min(loaded, refused) > 20


# --- images by name -----------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("hello.toml", "pingpong.toml", "notes.txt"):
        (folder / name).write_text("")
    monkeypatch.setattr(module_under_test, "BUNDLED_IMAGES", folder)
    monkeypatch.chdir(tmp_path)
    return folder


def test_an_image_by_name_or_path(images: Path) -> None:
    assert find_image("hello") == images / "hello.toml"
    assert find_image("images/hello.toml") == Path("images/hello.toml")
    assert find_image(str(images / "notes.txt")) == images / "notes.txt"


def test_a_file_of_the_same_name_does_not_hide_an_image(images: Path) -> None:
    Path("hello").write_text("")
    assert find_image("hello") == images / "hello.toml"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "helo",
            'found no image "helo" (did you mean "hello"?), expected the path of one (as in ./NAME.toml)',
        ),
        (
            "xyzzy",
            'found no image "xyzzy", expected the path of one (as in ./NAME.toml) '
            "or a bundled one: hello, pingpong",
        ),
        ("", 'found no image "", expected'),
        ("a\nb", 'found no image "a\\nb", expected'),
        ("..", 'found no image "..", expected'),
        ("absent.toml", "absent.toml: found no such file, expected a readable file"),
        ("./hello", "hello: found no such file, expected a readable file"),
        ("images/", "images: found a directory, expected a readable file"),
        ("a\0/b", "a\\x00/b: found a name that no file can have, expected a readable file"),
    ],
)
def test_no_such_image(images: Path, name: str, line: str) -> None:
    with pytest.raises(ManifestError) as caught:
        find_image(name)
    assert line in str(caught.value)
    assert str(caught.value).isprintable()
