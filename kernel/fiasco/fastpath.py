"""The common case of IPC in one piece: a call to a waiting server, or its answer and next wait.

A copy of what `syscalls`, `ipc.deliver`, `messages`, `waiting` and `dispatch` do together, for the case in which
nothing can go wrong any more: both threads on this core, no items, the receiver waiting without timeout,
nobody else queued, the time slice going along. Everything else goes the ordinary way before anything has
changed. Both ways charge the same cycles, leave the same state and log the same: `tests/kernel/test_fastpath.py`
and the fuzzer hold them against each other.

It is a copy for the host's sake: DECISIONS.md has what the predicate alone in front of `ipc.deliver` would cost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from l4lab.kernel import requests, tracing
from l4lab.kernel.costs import COPY, DECODE, IPC
from l4lab.kernel.fiasco import abi, syscalls
from l4lab.kernel.frame import EAX, ECX, EDX, ESI
from l4lab.kernel.objects import Gate
from l4lab.kernel.thread import READY, RECEIVE_CLOSED, RECEIVE_OPEN, RECEIVING, Thread

if TYPE_CHECKING:
    from l4lab.kernel.fiasco.threadstate import ThreadState
    from l4lab.kernel.sched import Core
    from l4lab.kernel.state import Kernel

# Anything beyond words and label: items, FPU state, SCHEDULE, and what is no input.
_SPECIAL_TAG: Final = abi.TAG_ITEMS_MASK << abi.TAG_ITEMS_SHIFT | 0xF000
_RECEIVE_TIMEOUT: Final = 0xFFFF
_SPECIAL: Final = abi.CAP_INVALID_BIT | abi.CAP_EXPLICIT_REPLY_BIT
_OPERATION: Final = 0xF
_THREAD_LABEL: Final = abi.PROTO_THREAD & 0xFFFF
_KOBJECT_LABEL: Final = abi.PROTO_KOBJECT & 0xFFFF


def system_call(kernel: Kernel, core: Core, me: Thread) -> None:
    """Run the system call of `me`, the ordinary way unless it is the common case."""
    frame = me.frame
    selector, tag = frame[EDX], frame[EAX]
    state: ThreadState = me.interface_state  # type: ignore[assignment]  # asking would cost host time
    if (
        tag & _SPECIAL_TAG
        or frame[ECX] & _RECEIVE_TIMEOUT
        or me.senders
        or state.alien
        or not kernel.fast_path
    ):
        return syscalls.entered(kernel, core, me)
    operation = selector & _OPERATION
    label = frame[ESI]
    partner: Thread | None
    if operation == abi.OP_CALL:
        if selector & _SPECIAL or me.task is None:
            return syscalls.entered(kernel, core, me)
        cap = me.task.capability_table.slots.get(selector >> abi.CAP_SHIFT)
        if cap is None:
            return syscalls.entered(kernel, core, me)
        target = cap.object
        rights = cap.rights
        if type(target) is Gate:
            partner = target.thread
            label = target.label | rights & abi.LABEL_RIGHTS_MASK
            if tag >> abi.TAG_LABEL_SHIFT == _KOBJECT_LABEL:
                return syscalls.entered(kernel, core, me)
        elif type(target) is Thread:
            partner = target
            if tag >> abi.TAG_LABEL_SHIFT == _THREAD_LABEL:
                return syscalls.entered(kernel, core, me)
        else:
            return syscalls.entered(kernel, core, me)
    elif operation == abi.OP_REPLY_AND_WAIT:
        if selector & _SPECIAL == abi.CAP_EXPLICIT_REPLY_BIT or core.context is me:
            return syscalls.entered(kernel, core, me)
        partner = me.reply.caller
        rights = me.reply.rights
    else:
        return syscalls.entered(kernel, core, me)
    if partner is None or partner.state != RECEIVING or partner.core != core.number or partner is me:
        return syscalls.entered(kernel, core, me)
    wanted = partner.partner
    if wanted is not None and wanted is not me:
        return syscalls.entered(kernel, core, me)
    if partner.timeout is not None or partner.kernel_message is not None:
        return syscalls.entered(kernel, core, me)
    if partner.pending_exception is not None:
        return syscalls.entered(kernel, core, me)
    # POINT OF NO RETURN
    costs, bill = kernel.costs, kernel.bill
    bill[DECODE] += costs.syscall_decode
    bill[IPC] += costs.ipc_path + costs.ipc_block
    count = tag & abi.TAG_WORDS_MASK
    if count:
        bill[COPY] += count * costs.copy_word
        source, destination = me.utcb, partner.utcb
        words = kernel.words
        words[destination : destination + count] = words[source : source + count]
    me.system_calls += 1
    me.ipc_count += 1
    me.send_tag = tag
    me.send_label = label
    me.send_rights = rights
    me.receive_timeout = 0
    me.reply_slot_wanted = None
    log = kernel.events
    if operation == abi.OP_CALL:
        me.receive = RECEIVE_CLOSED
        me.receive_from = me.partner = partner
        if log is not None:
            if kernel.trace is not None and type(target) is Gate:
                tracing.gate_invoked(kernel, kernel.trace, me, target)
            requests.begin_ipc(kernel, log, me, partner)
            requests.pass_on(kernel, log, me, partner, tag)
        if wanted is None:
            (partner.reply_slot_wanted or partner.reply).fill(me, rights)
        elif partner.held_by is not None:
            partner.held_by.clear()
    else:
        me.receive = RECEIVE_OPEN
        me.receive_from = me.partner = None
        if log is not None:
            requests.pass_on(kernel, log, me, partner, tag)
            if me.began:
                requests.end(kernel, me)
        me.request = 0
        if wanted is not None and partner.held_by is not None:
            partner.held_by.clear()
    me.state = RECEIVING
    partner_frame = partner.frame
    partner_frame[EAX] = tag
    partner_frame[ESI] = label
    partner.state = READY
    partner.partner = None
    core.current = partner
    return None
