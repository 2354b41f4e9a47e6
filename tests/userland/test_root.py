"""The root task: what it starts, serves and reports, with small programs as its boot modules."""

from __future__ import annotations

from pathlib import Path

import l4lab
from l4lab.emulator.results import RunResult
from support.programs import compile_program, write_manifest

PROGRAM_ADDRESS = 0x0804_8000
HEADERS = """
#include <l4/factory.h>
#include <l4/print.h>
#include <l4/program.h>
#include <l4/string.h>
#include <l4/thread.h>
"""


def program(folder: Path, name: str, main: str) -> str:
    """Compiles a program for the root task to load; returns its name."""
    compile_program(f"{HEADERS}\n{main}", folder / name, PROGRAM_ADDRESS)
    return name


def boot(folder: Path, options: str, *modules: str, cores: int = 1) -> RunResult:
    """Boots the bundled root task with these options and modules."""
    manifest = write_manifest(folder / "image.toml", f"root {options}", *modules, cores=cores)
    return l4lab.Machine(l4lab.load_manifest(manifest)).run()


def lines(result: RunResult) -> list[str]:
    return result.console.decode().splitlines()


EXIT = "int main(int argc, char **argv) { return argc > 1 ? (int)l4_number(argv[1], 99) : 0; }"


def test_exit_code_of_the_program_is_that_of_the_root_task(tmp_path: Path) -> None:
    """The low eight bits of what main returns."""
    name = program(tmp_path, "leave", EXIT)
    assert boot(tmp_path, "--init=rom/leave", f"{name} 7").exit_code == 7
    assert boot(tmp_path, "--init=rom/leave", f"{name} 256").exit_code == 0
    assert boot(tmp_path, "--init=leave", name).exit_code == 0


def test_first_exit_code_that_is_not_zero_wins(tmp_path: Path) -> None:
    """Programs run side by side; the root task ends when all have."""
    leave = program(tmp_path, "leave", EXIT)
    late = program(tmp_path, "late", 'int main(void) { l4_sleep_us(20000); printf("late\\n"); return 5; }')
    result = boot(tmp_path, "--init=rom/late --init=rom/leave", f"{leave} 3", late)
    assert result.exit_code == 3
    assert lines(result) == ["late"]


def test_programs_run_on_the_processors_named_for_them(tmp_path: Path) -> None:
    """--cpu and --priority hold for what follows them."""
    spin = program(
        tmp_path, "spin", "int main(void) { for (volatile int i = 0; i < 2000000; i++) {} return 0; }"
    )
    one = boot(tmp_path, "--init=rom/spin --init=rom/spin", spin, cores=2)
    two = boot(tmp_path, "--init=rom/spin --cpu=1 --priority=5 --init=rom/spin", spin, cores=2)
    assert one.exit_code == two.exit_code == 0
    assert two.cycles < 0.7 * one.cycles


def test_arguments_are_the_words_of_the_command_line(tmp_path: Path) -> None:
    """argv ends with a null pointer, behind which there is no environment."""
    body = """
int main(int argc, char **argv) {
    for (int i = 0; i < argc; i++)
        printf("[%s]", argv[i]);
    printf("%d%d\\n", argv[argc] == NULL, argv[argc + 1] == NULL);
    return 0;
}"""
    name = program(tmp_path, "args", body)
    assert lines(boot(tmp_path, "--init=rom/args", f"{name}  two   words ")) == ["[args][two][words]11"]


def test_command_line_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """It stands on the first page of the stack."""
    name = program(tmp_path, "leave", EXIT)
    result = boot(tmp_path, "--init=rom/leave", f"{name} {'x' * 3000}")
    assert result.exit_code == 2
    assert lines(result) == ["root: rom/leave: its command line is too long"]


def test_memory_is_as_the_executable_says(tmp_path: Path) -> None:
    """Constants, variables with and without values, heap and stack, each page on its first touch."""
    body = """
static const unsigned constants[3000] = { [2999] = 0x1111 };
static unsigned variables[3000] = { [2999] = 0x2222 };
static unsigned zeros[3000];
static unsigned recurse(unsigned depth) {
    volatile char page[4096];
    page[0] = (char)depth;
    return depth == 0 ? 0 : recurse(depth - 1) + (unsigned)page[0];
}
int main(void) {
    volatile unsigned *heap = (unsigned *)L4_HEAP_START, *last = (unsigned *)L4_HEAP_END - 1;
    unsigned sum = 0;
    for (unsigned i = 0; i < 3000; i++)
        sum += zeros[i];
    variables[0] = heap[5] = *last = 3;
    unsigned kept = variables[0] + heap[5] + *last + heap[6];
    printf("%x %x %u %u %u\\n", constants[2999], variables[2999], sum, kept, recurse(100));
    return 0;
}"""
    assert lines(boot(tmp_path, "--init=rom/memory", program(tmp_path, "memory", body))) == [
        "1111 2222 0 9 5050"
    ]


def crash(folder: Path, name: str, statement: str) -> list[str]:
    """What the root task says of a program with this statement; it must end with 1."""
    module = program(folder, name, f"int main(void) {{ {statement}; return 0; }}")
    result = boot(folder, f"--init=rom/{name}", module)
    assert result.exit_code == 1
    return lines(result)


def test_reason_of_a_crash_is_one_line(tmp_path: Path) -> None:
    """A fault that nothing is there for, a write to what is only read, any other exception."""
    read = crash(tmp_path, "reader", "(void)*(volatile int *)0x1234")
    write = crash(tmp_path, "writer", "*(volatile int *)(uintptr_t)main = 0")
    divide = crash(tmp_path, "divider", '__asm__ volatile("xorl %ecx, %ecx; divl %ecx")')
    kernel = crash(tmp_path, "prober", "(void)*(volatile int *)0xd0000000")
    assert len(read) == len(write) == len(divide) == len(kernel) == 1
    assert read[0].startswith(
        "root: rom/reader: page fault: read from 0x00001234 by the instruction at 0x08048"
    )
    assert write[0].startswith("root: rom/writer: page fault: write to 0x08048")
    assert divide[0].startswith(
        "root: rom/divider: exception 0, error code 0x0, by the instruction at 0x08048"
    )
    assert kernel[0].startswith("root: rom/prober: page fault: read from 0xd0000000")


def test_a_crash_leaves_others_alone(tmp_path: Path) -> None:
    """The root task goes on serving, and ends with 1 when the last has ended."""
    bad = program(tmp_path, "bad", "int main(void) { __builtin_trap(); }")
    good = program(tmp_path, "good", 'int main(void) { l4_sleep_us(5000); printf("fine\\n"); return 0; }')
    result = boot(tmp_path, "--init=rom/bad --init=rom/good", bad, good)
    assert result.exit_code == 1
    assert lines(result)[-1] == "fine"


def test_a_program_handles_its_own_exceptions(tmp_path: Path) -> None:
    """It may set another handler: then the root task refuses the fault without a word."""
    body = """
static char stack[4096];
static void faulting(void *gate) { (void)gate; *(volatile int *)0x40 = 1; }
int main(void) {
    l4_cap_t gate = l4_new_cap();
    l4_factory_create_gate(l4_own_factory(), gate, l4_main_thread(), 0x50);
    l4_thread_options_t options = { .entry = faulting, .stack = stack, .stack_bytes = 4096, .handler = gate };
    l4_thread_start(&options, NULL);
    l4_message_t message = l4_wait(l4_forever());
    printf("%d %x\\n", l4_tag_label(message.tag), l4_utcb()->mr[L4_EXC_PFA]);
    return 0;
}"""
    result = boot(tmp_path, "--init=rom/own", program(tmp_path, "own", body))
    assert lines(result) == ["-5 40"]
    assert result.exit_code == 0


def test_verbose_reports_each_end(tmp_path: Path) -> None:
    """Faults and fresh pages of each program, and that everything came back."""
    heap = "for (int i = 0; i < 40; i++) ((volatile char *)L4_HEAP_START)[i * 4096] = 1"
    name = program(tmp_path, "touch", f"int main(void) {{ {heap}; return 0; }}")
    said = lines(boot(tmp_path, "-v --init=rom/touch", name))
    assert len(said) == 2
    words = said[0].split()
    assert said[0].startswith("root: rom/touch ended with 0 after ")
    faults, pages = int(words[words.index("after") + 1]), int(words[words.index("on") + 1])
    assert 40 < pages <= faults < 50
    assert said[1] == "root: 0 pages still in use"


def test_what_cannot_be_started_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    """No such module, no executable, a strange option, nothing to do."""
    (tmp_path / "data.txt").write_text("not a program, but long enough to hold a header of 52 bytes\n")
    for options, said in [
        ("--init=rom/nothing", "root: rom/nothing: there is no boot module of that name"),
        ("--init=rom/data.txt", "root: rom/data.txt: not an ELF file"),
        (
            "--start=x",
            "root: --start=x: not an option; expected -v, --cpu=N, --priority=N or --init=rom/NAME",
        ),
        ("", "root: command line: no --init=rom/NAME"),
    ]:
        result = boot(tmp_path, options, "data.txt")
        assert (lines(result), result.exit_code) == ([said], 2)


def test_server_and_client_of_the_example() -> None:
    """userland/clntsrv: two threads and a gate."""
    result = l4lab.run("clntsrv")
    said = lines(result)
    assert said[0] == "The square of 1 is 1."
    assert said[-2:] == [
        "What the server does not know: error -38.",
        "What nobody serves any more: error -2004.",
    ]
    assert result.exit_code == 0
