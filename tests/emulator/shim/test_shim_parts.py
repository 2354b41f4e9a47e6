"""The shim's parts: only its owner touches a struct's members, and a file's includes say what it may touch."""

from __future__ import annotations

import re

import pytest

from support.checkout import ROOT

SOURCES = {
    path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "emulator/shim").glob("*.[ch]"))
}
WHOLE = ("machine", "vcpu")  # embed a struct of every part
OPEN = ("interface",)  # given once, for everybody to read
FILES = {
    "floating": {
        "floating",
        "x87",
        "x87_arithmetic",
        "x87_functions",
        "x87_quick",
        "x87_state",
        "x87_transfer",
        "sse",
        "sse_quick",
        "simd",
    }
}  # of a part that has more than one


def code(name: str) -> str:
    """A source without comments and strings."""
    return re.sub(r'/\*.*?\*/|//[^\n]*|"[^"\n]*"', " ", SOURCES[name], flags=re.DOTALL)


def stem(name: str) -> str:
    return name.rpartition(".")[0]


def embedded() -> dict[str, str]:
    """Member of `struct vcpu` or `struct machine` -> the part that it is the state of."""
    found = {}
    for whole in WHOLE:
        body = re.search(rf"struct {whole} {{(.*?)\n}};", code(f"{whole}.h"), re.DOTALL)
        assert body is not None
        for tag, member in re.findall(r"struct (\w+) (\w+);", body[1]):
            found[member] = tag.removeprefix("machine_")
    return found


def includes(name: str) -> set[str]:
    return set(re.findall(r'^#include "(.+)"', SOURCES[name], re.MULTILINE))


def functions(header: str) -> set[str]:
    return set(re.findall(r"^\w[\w *]*?\b(\w+)\(", code(header), re.MULTILINE))


def names(header: str) -> set[str]:
    """What a header introduces: functions, structs, enumerators and macros."""
    text = code(header)
    found = functions(header) | set(re.findall(r"(?:struct|enum) (\w+) {", text))
    found |= set(re.findall(r"^ *#define (\w+)", text, re.MULTILINE))
    for body in re.findall(r"enum (?:\w+ )?{(.*?)}", text, re.DOTALL):
        found |= set(re.findall(r"\b([A-Z]\w*)\b", body))
    return found


def test_each_part_has_its_struct() -> None:
    parts = embedded()
    assert {"mmu", "books", "watch", "debug", "fpu", "segments", "step", "report", "engine"} <= set(
        parts.values()
    )
    assert all(f"{part}.h" in SOURCES for part in parts.values())
    assert all(member == part for member, part in parts.items())


@pytest.mark.parametrize("name", SOURCES)
def test_nobody_touches_the_members_of_another_part(name: str) -> None:
    text, found = code(name), []
    for part in set(embedded().values()) - set(OPEN):
        if stem(name) in FILES.get(part, {part}):
            continue
        found += re.findall(rf"(?:\.|->){part}(?:\.|->)\w+", text)
        for pointer in re.findall(rf"struct (?:machine_)?{part} \*(?:const )?(\w+)", text):
            found += re.findall(rf"\b{pointer}->\w+", text)
    assert found == []


@pytest.mark.parametrize("name", [name for name in SOURCES if name.endswith(".c")])
def test_a_file_includes_what_it_calls_and_nothing_else(name: str) -> None:
    own = {f"{part}.h" for part in (*WHOLE, stem(name))}
    headers = {header for header in SOURCES if header.endswith(".h")} - own
    included = includes(name) - own
    of_its_header = includes(f"{stem(name)}.h") if f"{stem(name)}.h" in SOURCES else set()
    called = set(re.findall(r"\b(\w+)\(", code(name)))
    assert {header for header in headers if functions(header) & called} - included - of_its_header == set()
    words = set(re.findall(r"\w+", code(name)))
    assert {header for header in included if not names(header) & words} == set()


def test_only_the_engine_calls_the_library() -> None:
    calls = {stem(name) for name in SOURCES if re.search(r"\bunicorn\.uc_", code(name))}
    assert calls == {"engine"}
