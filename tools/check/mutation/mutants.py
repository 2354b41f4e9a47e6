"""The mutants: what mutmut with its default operators makes of modules of the kernel, each in one function.

mutmut's own runner takes a copy of a package through which every call goes on to one of the mutants. We take
its mutants only, and put each by itself into the kernel that is already loaded.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import libcst
from libcst.metadata import ParentNodeProvider
from mutmut.mutation.file_mutation import create_mutations, deep_replace


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of `function` (`Class.method` for a method) of a module. `before`, `after`: the lines that differ.

    `key`: stands for the function's text and the change, wherever in the module the function is.
    """

    module: str
    function: str
    before: str
    after: str
    key: str

    def __str__(self) -> str:
        return f"{self.module}.{self.function}: {self.before}  ->  {self.after or 'left out'}"


def mutants_of(module: ModuleType) -> Iterator[tuple[Mutant, Callable[[], str]]]:
    """Every mutant of a module, in the order of the text, with what makes the module's whole text as it has it.

    Only of what is executed within functions, as mutmut has it. Needs the checkout as the current folder.
    """
    name = module.__name__.rpartition(".")[2]
    tree, mutations, _, _ = create_mutations(name, inspect.getsource(module))
    places = _places(tree)
    texts = {function: tree.code_for_node(function) for function in places}
    for mutation in mutations:
        function = mutation.contained_by_top_level_function
        if not isinstance(function, libcst.FunctionDef):
            continue  # executed when the module is loaded
        changed = deep_replace(function, mutation.original_node, mutation.mutated_node)
        assert isinstance(changed, libcst.FunctionDef)
        original_text, changed_text = texts[function], tree.code_for_node(changed)
        before, after = _difference(original_text, changed_text)
        digest = hashlib.sha256(f"{name}\n{original_text}\n{changed_text}".encode()).hexdigest()
        mutant = Mutant(name, places[function], before, after, digest[:16])
        yield mutant, functools.partial(_whole, tree, function, changed)


def _whole(tree: libcst.Module, function: libcst.FunctionDef, changed: libcst.FunctionDef) -> str:
    whole = deep_replace(tree, function, changed)
    assert isinstance(whole, libcst.Module)
    return whole.code


def _places(tree: libcst.Module) -> dict[libcst.CSTNode, str]:
    """Functions and methods of a module -> their qualified names."""
    wrapper = libcst.MetadataWrapper(tree, unsafe_skip_copy=True)
    parents = wrapper.resolve(ParentNodeProvider)
    places: dict[libcst.CSTNode, str] = {}
    for node in parents:
        if isinstance(node, libcst.FunctionDef):
            names = [node.name.value]
            above = parents.get(node)
            while above is not None:
                if isinstance(above, libcst.ClassDef | libcst.FunctionDef):
                    names.insert(0, above.name.value)
                above = parents.get(above)
            places[node] = ".".join(names)
    return places


def _difference(before: str, after: str) -> tuple[str, str]:
    """The lines of either text that the other one has not, each in one line."""
    lines = [*difflib.ndiff(before.splitlines(), after.splitlines())]
    return tuple(" ".join(line[2:].strip() for line in lines if line.startswith(sign)) for sign in "-+")  # type: ignore[return-value]


def put(module: ModuleType, function: str, text: str) -> None:
    """Make a function of a loaded module what it is in another text of the same module; for good.

    The function object stays, so whoever holds it, by whatever name, has the mutant.
    """
    scratch: dict[str, Any] = {"__name__": module.__name__}
    exec(compile(text, str(module.__file__), "exec", dont_inherit=True), scratch)
    mutant = _function(scratch[function.split(".")[0]], function)
    original = _function(getattr(module, function.split(".")[0]), function)
    if mutant.__code__ == original.__code__:  # what differs is a default
        original.__defaults__, original.__kwdefaults__ = mutant.__defaults__, mutant.__kwdefaults__
    original.__code__ = mutant.__code__


def _function(outermost: Any, function: str) -> FunctionType:
    found = outermost
    for name in function.split(".")[1:]:
        found = inspect.getattr_static(found, name)
    found = getattr(found, "__func__", found)
    assert isinstance(found, FunctionType)
    return found
