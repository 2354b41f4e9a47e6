"""Pagers, loader and memory benchmark on the machine: what they do, also to clients that misbehave."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from l4lab.emulator.errors import ManifestError
from l4lab.emulator.files.manifest import load_manifest
from l4lab.emulator.machine import Machine
from l4lab.emulator.results import RunResult, StopReason
from l4lab.kernel.invariants import check_all
from l4lab.tools.bench.pma_image import ALLOCATORS, BUNDLED, DESIGNS, PmaSetup
from l4lab.tools.bench.pma_run import BenchmarkError, PmaResult, books_balance, run_pma
from l4lab.tools.ledger.books import show_books
from l4lab.tools.native.build import CHECKOUT
from support.programs import compile_program

IDLE = 1_000_000_000_000
"""Cycles of some minutes, which nobody must work through."""
SMALL = PmaSetup(cores=2, pages=20, tasks=2, ram="64MiB")


def boot(
    folder: Path, loader: str, *modules: str, cores: int = 2, max_cycles: int = 2_000_000_000
) -> RunResult:
    """The loader with these arguments; afterwards the kernel must be sound and the books must balance."""
    path = folder / "image.toml"
    path.write_text(
        f'[machine]\ncores = {cores}\nram = "64MiB"\n[boot]\nsigma0 = "sigma0"\n'
        f'roottask = "loader {loader}"\nmodules = {list(modules)!r}\n',
        encoding="utf-8",
    )
    machine = Machine(load_manifest(path))
    result = machine.run(max_cycles=max_cycles)
    check_all(machine.kernel)
    assert books_balance(result)
    return result


CLIENT_START = """
#include <l4/dataspace.h>
#include <l4/pager.h>
#include <l4/panic.h>
#include <l4/print.h>
#include <l4/program.h>
#include <l4/task.h>

#define SERVER l4_cap(L4_PAGER_SLOT)
#define AT(page) (*(volatile char *)(L4_PAGER_HEAP_START + (page) * L4_PAGE_BYTES))

"""


def boot_client(
    folder: Path, design: str, main: str, *, cores: int = 1, max_cycles: int = 2_000_000_000
) -> RunResult:
    """The loader with a client on each core whose function main has the body `main`."""
    client = compile_program(f"{CLIENT_START}int main(void) {{ {main} }}\n", folder / "client", 0x0804_8000)
    server = "dataspaces" if design == "l4re" else "pager"
    return boot(
        folder,
        f"--design={design} --each=rom/client",
        server,
        str(client),
        cores=cores,
        max_cycles=max_cycles,
    )


def every_frame_is_back(result: RunResult) -> bool:
    """As the servers count them, after their clients are gone."""
    servers = records(result, "server")
    return bool(servers) and all(
        (server["in_use"], server["allocated"]) == ("0", server["released"]) for server in servers
    )


def records(result: RunResult, kind: str) -> list[dict[str, str]]:
    """The lines of that kind, as fields by name."""
    lines = result.console.decode().splitlines()
    return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines if line.startswith(kind + " ")]


# --- clients that misbehave ---------------------------------------------------------------------------


@pytest.mark.parametrize("allocator", ALLOCATORS)
@pytest.mark.parametrize("design", ["percore", "single"])
def test_a_pager_answers_clients_that_misbehave(tmp_path: Path, design: str, allocator: str) -> None:
    """Freed twice, never owned, garbage, unwanted memory: an error code each; and every frame comes back."""
    result = boot(tmp_path, f"--design={design} --each=rom/rogue", f"pager --pma={allocator}", "rogue")
    assert (result.reason, result.exit_code) == (StopReason.ROOT_ENDED, 0), result.console.decode()
    assert [record["left"] for record in records(result, "client")] == ["3", "3"]
    for record in records(result, "server"):
        assert (record["in_use"], record["in_tables"]) == ("0", "0")
        assert record["allocated"] == record["released"]


def test_a_dataspace_server_answers_clients_that_misbehave(tmp_path: Path) -> None:
    """The same for dataspaces: released twice, out of range, garbage; and every frame comes back."""
    result = boot(tmp_path, "--design=l4re --each=rom/rogue-l4re", "dataspaces", "rogue-l4re")
    assert (result.reason, result.exit_code) == (StopReason.ROOT_ENDED, 0), result.console.decode()
    assert [record["left"] for record in records(result, "client")] == ["1", "1"]
    (server,) = records(result, "server")
    assert (server["in_use"], server["in_tables"]) == ("0", "0")
    assert server["allocated"] == server["released"]


@pytest.mark.parametrize(("design", "program"), [("single", "rogue"), ("l4re", "rogue-l4re")])
def test_the_last_of_64_clients_is_one_like_the_others(tmp_path: Path, design: str, program: str) -> None:
    """Numbers go from 1 to 64, as 0 is the master's."""
    server = "dataspaces" if design == "l4re" else "pager"
    result = boot(tmp_path, f"--design={design} --each=rom/{program}", server, program, cores=64)
    assert (result.reason, result.exit_code) == (StopReason.ROOT_ENDED, 0), result.console.decode()
    assert [record["left"] for record in records(result, "client")] == ["1" if design == "l4re" else "3"] * 64


def test_a_pager_clears_frames_if_told_to(tmp_path: Path) -> None:
    """Clients read what others have written before, unless the pager zeroes it."""
    loader = "--design=single --each=rom/rogue"
    assert boot(tmp_path, loader, "pager --clear", "rogue clear").exit_code == 0
    assert boot(tmp_path, loader, "pager", "rogue clear").exit_code == 1


def test_a_client_that_gets_no_memory_ends_and_the_frames_come_back(tmp_path: Path) -> None:
    """The pager says why; the loader says who; of the 40 pages that the region has, none is lost."""
    result = boot(
        tmp_path,
        "--design=percore --region=41 --each=rom/pma --coordinator=rom/coordinator",
        *("pager", "pma pages=100 tasks=1", "coordinator 2"),
    )
    text = result.console.decode()
    assert (result.reason, result.exit_code) == (StopReason.ROOT_ENDED, 1)
    assert "pager: out of memory: all 40 pages are in use; client 1, which has 39, wants one more at" in text
    assert re.search(r"loader: pma\.\d: page fault: write to 0x", text)
    assert all(record["in_use"] == "0" for record in records(result, "server"))
    assert sum(int(record["left"]) for record in records(result, "client")) == 2 * 39


@pytest.mark.parametrize("design", ["percore", "single"])
def test_a_client_that_the_kernel_has_no_page_tables_for_ends(tmp_path: Path, design: str) -> None:
    """A page table for each page touched: the fault is refused, not tried again for ever."""
    touch = "for (int i = 0; i < 512; i++) AT(1024 * i) = 1; return 0;"
    result = boot_client(tmp_path, design, touch, cores=8)
    text = result.console.decode()
    assert (result.reason, result.exit_code) == (StopReason.ROOT_ENDED, 1)
    assert re.search(
        r"pager: the kernel has no memory to map a page: client \d, which has 2\d\d, wants", text
    )
    assert re.search(r"loader: client\.\d: page fault: write to 0x5[0-9a-f]{2}00000", text)
    assert every_frame_is_back(result)


def test_a_dataspace_page_that_the_kernel_cannot_map_is_not_kept(tmp_path: Path) -> None:
    """The client learns it from its own call, and has nothing to give back for it."""
    result = boot_client(
        tmp_path,
        "l4re",
        """
        l4_cap_t dataspace = l4_new_cap();
        int error = l4_dataspace_create(SERVER, dataspace, 512), page = 0;
        for (; page < 512 && error == 0; page++)
            error = l4_dataspace_map(dataspace, page, (l4_word_t)&AT(1024 * page));
        if (error != -(L4_IPC_ERROR_BASE + L4_IPC_RECEIVE_MAP_FAILED))
            return 1;
        printf("got=%d\\n", page - 1);
        l4_sleep_us(100000); /* until all have failed */
        return 0;
        """,
        cores=8,
    )
    text = result.console.decode()
    assert (result.reason, result.exit_code) == (StopReason.ROOT_ENDED, 0), text
    got = [int(pages) for pages in re.findall(r"^got=(\d+)$", text, re.MULTILINE)]
    assert sorted(int(record["left"]) for record in records(result, "client")) == sorted(got)
    assert "dataspaces: the kernel has no memory to map a page that client 1 wants\n" in text
    assert every_frame_is_back(result)


def test_a_dataspace_page_in_use_is_kept_when_another_mapping_of_it_fails(tmp_path: Path) -> None:
    """It holds what its client wrote."""
    result = boot_client(
        tmp_path,
        "l4re",
        """
        l4_cap_t dataspace = l4_new_cap();
        int error = l4_dataspace_create(SERVER, dataspace, 1);
        for (int at = 0; at < 512 && error == 0; at++) {
            error = l4_dataspace_map(dataspace, 0, (l4_word_t)&AT(1024 * at));
            if (at == 0)
                AT(0) = 77;
        }
        l4_sleep_us(100000); /* until it has failed for all */
        return error == -(L4_IPC_ERROR_BASE + L4_IPC_RECEIVE_MAP_FAILED) && AT(0) == 77 ? 0 : 1;
        """,
        cores=8,
    )
    assert (result.reason, result.exit_code) == (StopReason.ROOT_ENDED, 0), result.console.decode()
    assert every_frame_is_back(result)


def test_a_dataspace_that_its_client_does_not_take_is_not_kept(tmp_path: Path) -> None:
    """More of them than the server could keep."""
    result = boot_client(
        tmp_path,
        "l4re",
        """
        for (int i = 0; i < 9000; i++) {
            l4_accept_nothing();
            int error = l4_dataspace_request(SERVER, L4_DATASPACE_CREATE, 1);
            if (error != -(L4_IPC_ERROR_BASE + L4_IPC_RECEIVE_OVERFLOW))
                l4_panic("dataspace %d: %d", i, error);
        }
        return 0;
        """,
    )
    assert (result.reason, result.exit_code) == (StopReason.ROOT_ENDED, 0), result.console.decode()
    assert every_frame_is_back(result)


def test_who_makes_up_faults_is_told_about_a_few_times(tmp_path: Path) -> None:
    """There are fewer than 12,300 pages."""
    result = boot_client(
        tmp_path,
        "single",
        """
        for (unsigned i = 0; i < 12500; i++) {
            l4_utcb()->mr[0] = (l4_word_t)&AT(i);
            l4_accept_nothing();
            l4_request(SERVER, l4_tag(L4_PROTO_PAGE_FAULT, 2, 0));
        }
        return 0;
        """,
    )
    lines = [line for line in result.console.decode().splitlines() if line.startswith("pager: ")]
    assert [line.startswith("pager: out of memory: all ") for line in lines] == [True] * 4 + [False]
    assert lines[4] == "pager: more of the same from client 1, and no more lines about it"
    assert int(records(result, "server")[0]["refusals"]) > 200
    assert every_frame_is_back(result)


@pytest.mark.parametrize("design", ["percore", "single"])
def test_a_client_without_its_pager_s_gate_does_not_hold_up_the_end(tmp_path: Path, design: str) -> None:
    """The kernel kills its thread at the next fault, and tells nobody."""
    result = boot_client(
        tmp_path,
        design,
        """
        AT(0) = 1;
        l4_task_release(l4_own_task(), SERVER);
        AT(1) = 1;
        return 0;
        """,
        cores=2,
        max_cycles=IDLE,
    )
    assert (result.reason, result.exit_code) == (StopReason.ROOT_ENDED, 1)
    text = result.console.decode()
    assert [f"loader: client.{core}: the kernel has killed its thread\n" in text for core in (0, 1)] == [
        True
    ] * 2
    assert [record["left"] for record in records(result, "client")] == ["1", "1"]
    assert every_frame_is_back(result)


def test_clients_that_wait_for_ever_do_not_hold_up_the_end(tmp_path: Path) -> None:
    """Who only takes its time is waited for."""
    result = boot_client(tmp_path, "single", "AT(0) = 1; l4_sleep_forever();", cores=2, max_cycles=IDLE)
    assert (result.reason, result.exit_code) == (StopReason.ROOT_ENDED, 1)
    assert "loader: 2 programs wait for something that does not come\n" in result.console.decode()
    assert every_frame_is_back(result)
    patient = (
        "for (int i = 0; i < 40000; i++) { AT(0)++; if (i % 10000 == 0) l4_sleep_us(50000000); } return 0;"
    )
    assert boot_client(tmp_path, "single", patient, max_cycles=IDLE).exit_code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (3, "loader: client.0: a made-up exception message, of 3 words\n"),
        (
            19,
            "loader: client.0: its main thread is in no exception; another is, or what follows is made up\n",
        ),
    ],
)
def test_a_made_up_exception_is_told_from_a_real_one(tmp_path: Path, words: int, told: str) -> None:
    """The gate to the handler is the client's to use, too."""
    fake = f"""
        for (int i = 0; i < {words}; i++)
            l4_utcb()->mr[i] = 14;
        return l4_request(l4_parent(), l4_tag(L4_PROTO_EXCEPTION, {words}, 0));
        """
    result = boot_client(tmp_path, "single", fake)
    assert (result.reason, result.exit_code) == (StopReason.ROOT_ENDED, 1)
    assert told in result.console.decode()
    real = boot_client(tmp_path, "single", "*(volatile char *)0x1000 = 1; return 0;").console.decode()
    assert "\nloader: client.0: page fault: write to 0x00001000 by the instruction at" in real
    assert "made up" not in real


@pytest.mark.parametrize(
    ("loader", "line"),
    [
        ("--design=both --each=rom/pma", "--design=both: expected --design=percore, single or l4re"),
        ("--design=percore", "command line: expected --design=DESIGN and --each=rom/PROGRAM"),
        ("--design=percore --each=rom/none", "rom/none: there is no boot module of that name"),
        ("--design=l4re --each=rom/pma", "dataspaces: there is no boot module of that name"),
        (
            "--design=percore --each=rom/pma --cores=3",
            "--cores=3: expected a number of processors that the machine has",
        ),
        ("--design=percore --each=rom/pma --fast", "--fast: not an option"),
        (
            "--design=percore --each=rom/pma --region=4294967297",
            "--region=4294967297: expected a number of pages",
        ),
    ],
)
def test_the_loader_refuses_what_cannot_be(tmp_path: Path, loader: str, line: str) -> None:
    """One line that names the option, and exit code 2."""
    result = boot(tmp_path, loader, "pager", "pma")
    assert (result.reason, result.exit_code) == (StopReason.ROOT_ENDED, 2)
    assert result.console.decode() == f"loader: {line}\n"


def test_the_loader_fails_where_the_machine_is_too_small(tmp_path: Path) -> None:
    """Exit code 1: the command line is right."""
    result = boot(tmp_path, "--design=percore --each=rom/pma --region=1", "pager", "pma")
    assert (result.reason, result.exit_code) == (StopReason.ROOT_ENDED, 1)
    assert result.console.decode() == "loader: pager.0: its memory is too small for its own records\n"


# --- the benchmark ------------------------------------------------------------------------------------


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("cores", [1, 3])
def test_a_run_is_in_order(design: str, cores: int) -> None:
    """Kernel, servers and processes agree on every page; nothing is leaked; the books balance."""
    result = run_pma(dataclasses.replace(SMALL, design=design, cores=cores))
    assert result.problems == ()
    assert result.page_faults == cores * 40
    assert result.frames_leaked == 0
    assert result.books_balance
    begins = [p.begin for p in result.processes]
    assert max(begins) - min(begins) < 200, "all processes start at the same time"


@pytest.mark.slow
@pytest.mark.parametrize("design", DESIGNS)
def test_64_processes_start_together(design: str) -> None:
    """As many as there can be; one that starts late would be a problem."""
    result = run_pma(PmaSetup(design=design, cores=64, pages=2, tasks=1))
    assert result.problems == ()


def per_page(design: str, cores: int) -> PmaResult:
    return run_pma(dataclasses.replace(SMALL, design=design, cores=cores))


def test_on_one_core_the_two_designs_are_one() -> None:
    """The same programs in the same place: not a cycle differs."""
    (percore,), (single,) = per_page("percore", 1).processes, per_page("single", 1).processes
    assert percore.end - percore.begin == single.end - single.begin
    assert (percore.allocation, percore.touch, percore.free) == (
        single.allocation,
        single.touch,
        single.free,
    )


def test_one_pager_does_not_scale_and_pagers_on_each_core_do() -> None:
    """What the paper is about, in small."""
    one, six = per_page("percore", 1), per_page("percore", 6)
    assert abs(six.total_cycles / one.total_cycles - 1) < 0.05
    single = per_page("single", 6)
    assert single.alloc_cycles > 5 * one.alloc_cycles
    assert single.free_cycles > 5 * one.free_cycles


@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_every_allocator_serves_the_benchmark(allocator: str) -> None:
    """They differ in cycles only."""
    assert run_pma(dataclasses.replace(SMALL, allocator=allocator)).problems == ()


def test_the_flush_that_the_paper_leaves_out_can_be_left_out() -> None:
    """Section 3.2, "TLB issue": with pager and process on one core the switch flushes anyway; only frees change."""
    full, switch = (run_pma(dataclasses.replace(SMALL, tlb=tlb)) for tlb in ("full", "switch"))
    assert switch.problems == ()
    assert switch.free_cycles < full.free_cycles
    assert switch.mean("touch") == full.mean("touch")


def test_a_run_can_be_repeated_to_the_cycle() -> None:
    """The same setup gives the same document, byte for byte."""
    one, two = (json.dumps(run_pma(SMALL).as_dict()) for _ in range(2))
    assert one == two


def test_more_cores_than_ram_is_one_line() -> None:
    """A machine too small for its pagers says so."""
    with pytest.raises(BenchmarkError, match=r"loader: memory: less than 4 MiB for each server; .* more RAM"):
        run_pma(dataclasses.replace(SMALL, cores=24, ram="64MiB"))
    with pytest.raises(ManifestError, match=r'bench pma: machine.ram: found "4GiB"'):
        run_pma(dataclasses.replace(SMALL, ram="4GiB"))


def test_more_pages_than_memory_is_one_line() -> None:
    """In the words of the pager."""
    with pytest.raises(BenchmarkError, match=r"pager: out of memory: all \d+ pages are in use; client 1"):
        run_pma(dataclasses.replace(SMALL, region_pages=15))
    with pytest.raises(BenchmarkError, match=r"dataspaces: out of memory: \d+ of \d+ pages are in use"):
        run_pma(dataclasses.replace(SMALL, design="l4re", region_pages=15))


@pytest.mark.slow
def test_limits_are_named() -> None:
    """Not taken for a lack of memory."""
    many = dataclasses.replace(SMALL, design="l4re", chunk_pages=1, cores=1, tasks=1)
    problem = "pma-l4re: pages=5000 must be a multiple of chunk=1, 4096 times at most"
    with pytest.raises(BenchmarkError, match=problem):
        run_pma(dataclasses.replace(many, pages=5000))
    problem = "dataspaces: all 8192 dataspaces that there can be are there; client [123] wants one more"
    with pytest.raises(BenchmarkError, match=problem):
        run_pma(dataclasses.replace(many, pages=3000, cores=3, ram="256MiB"))


def test_a_run_leaves_a_directory_with_balanced_books(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`l4lab books` and the others can be asked about it."""
    run_pma(SMALL, out=tmp_path / "run")
    assert show_books(tmp_path / "run", as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["balanced"] is True


def test_the_bundled_image_comes_from_the_description() -> None:
    """`images/pma.toml` is generated, too."""
    text = (CHECKOUT / "images/pma.toml").read_text(encoding="utf-8")
    assert text == BUNDLED.manifest()
