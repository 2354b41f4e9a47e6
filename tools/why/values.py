"""Operations of a run and their chains as plain values, for programs, and in a few words."""

from __future__ import annotations

from typing import Any, Final

from l4lab.emulator.debug.catching import PROTOCOLS, protocol_name
from l4lab.emulator.interfaces import INTERFACE
from l4lab.kernel import events
from l4lab.kernel.inspect import counted
from l4lab.tools.debug.faults import NAMES
from l4lab.tools.ledger.timeline import NOWHERE, Operation, Operations
from l4lab.tools.runs.rundir import Run
from l4lab.tools.runs.symbols import Symbols
from l4lab.tools.why.chain import Chain
from l4lab.tools.why.steps import Line, step_sums, steps_of

WHY_FORMAT: Final = 1
"""Version of the JSON documents; raised when a key goes or changes its meaning."""


def described(run: Run, symbols: Symbols, operation: Operation) -> str:
    """What an operation is, without its number: `hello #23 wrote to 0x40001000, at 0x401234 in main`."""
    who = run.thread_name(operation.thread)
    function = symbols.function(operation.thread, operation.eip)
    at = f"at {operation.eip:#x}" + (f" in {function}" if not function.startswith("0x") else "")
    if operation.kind == events.FAULT:
        code = operation.extra
        verb = "wrote to" if code & 2 else "fetched from" if code & 16 else "read"
        present = ", which it may not" if code & 1 else ""
        return f"{who} {verb} {operation.address:#x}{present}, {at}"
    if operation.kind == events.EXCEPTION:
        return f"{who} raised trap {operation.address}, {at}"
    label, words, items = INTERFACE.tag(operation.address)
    size = counted(words, "word") + (f", {counted(items, 'item')}" if items else "")
    what = protocol_name(label) if label in PROTOCOLS.values() and label else f"label {label}"
    return f"{who} sent {run.receiver_name(operation.partner)} a message, {what}, {size}"


def operation_document(run: Run, symbols: Symbols, operation: Operation) -> dict[str, Any]:
    """An operation as plain values."""
    return {
        "name": operation.name,
        "thread": operation.thread,
        "thread_name": run.thread_name(operation.thread),
        "core": operation.core,
        "cycle": operation.cycle,
        "resumed": operation.resumed,
        "latency_cycles": operation.latency_cycles,
        "what": described(run, symbols, operation),
    }


def chain_document(
    run: Run, symbols: Symbols, operations: Operations, chain: Chain, found: list[Line]
) -> dict[str, Any]:
    """A chain and its lines as plain values; the lines add up to `cycles`."""
    root = operations.of_request(chain.operation.request)
    is_fault = chain.operation.kind == events.FAULT
    return {
        "format": WHY_FORMAT,
        "operation": operation_document(run, symbols, chain.operation),
        "in_the_course_of": root.name if root is not None and not chain.operation.root else None,
        "cycles": chain.cycles,
        "causes": chain.by_cause(),
        "steps": _steps_document(run, chain, found) if is_fault else None,
        "hops": [
            {
                "holder": run.thread_name(hop.holder),
                "to": run.thread_name(hop.to) if hop.to else None,
                "cycles": hop.cycles,
            }
            for hop in chain.hops
        ],
        "lines": [
            {
                "step": line.step or None,
                "start": line.start,
                "cycles": line.cycles,
                "core": line.core if line.core != NOWHERE else None,
                "kind": line.kind,
                "thread": run.thread_name(line.thread),
                "what": line.what,
                "causes": line.causes,
                "meanwhile": line.details if line.details is not line.causes else {},
            }
            for line in found
        ],
    }


def _steps_document(run: Run, chain: Chain, found: list[Line]) -> list[dict[str, Any]]:
    sums = step_sums(found)
    return [
        {"step": step, "name": NAMES[step - 1], "what": words, "cycles": sums[step]}
        for step, words in steps_of(run, chain).items()
    ]
