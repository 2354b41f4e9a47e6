"""Bugs that break no invariant: each is planted by itself, and the test named beside it must fail.

Random programs cannot notice them (`test_planted_bugs.py` has those that they do): the kernel's state is sound, only
an answer is wrong, or somebody sees what is not his.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kernel import (
    test_faults,
    test_handed_over,
    test_items,
    test_map_charges,
    test_names,
    test_reply_slots,
    test_scheduling,
)

from l4lab.kernel import ipc, memory, paging, sched, thread, timeouts, waiting
from l4lab.kernel.errors import KernelBug
from l4lab.kernel.fiasco import abi, fastpath, faults, items, messages, syscalls
from l4lab.kernel.fiasco.protocols import log
from support.planting import Plant

ALL = abi.OBJECT_RIGHTS
NO_S = abi.OBJECT_RIGHTS & ~abi.OBJECT_RIGHT_S
Killer = tuple[Callable[..., None], tuple[object, ...]]

PLANTS: list[tuple[Plant, Killer]] = [
    (  # what somebody else left in his UTCBs
        Plant(
            memory,
            "Memory.add_ku_area",
            'self.words[first_word : first_word + count] = memoryview(bytes(count * 4)).cast("I")',
            "pass",
        ),
        (test_handed_over.test_kernel_user_memory_is_zero_whoever_had_it_before, ()),
    ),
    (
        Plant(paging, "PageTables.add_table", "clear_frame(self._words, table_pfn)", "pass"),
        (test_handed_over.test_page_tables_are_empty_whatever_their_frames_held, ()),
    ),
    (  # x87/SSE state that was not accepted, or sent without the right
        Plant(
            messages,
            "transfer",
            "if tag & abi.TAG_FPU and kernel.words[receiver.utcb + BDR] & abi.BDR_ACCEPT_FPU:",
            "if tag & abi.TAG_FPU:",
        ),
        (
            test_handed_over.test_fpu_state_comes_if_sent_with_the_right_and_accepted,
            (False, ALL, abi.TAG_FPU),
        ),
    ),
    (
        Plant(messages, "transfer_fpu", "if sender.send_rights & abi.OBJECT_RIGHT_S:", "if True:"),
        (
            test_handed_over.test_fpu_state_comes_if_sent_with_the_right_and_accepted,
            (True, NO_S, abi.TAG_FPU),
        ),
    ),
    (
        Plant(messages, "transfer_fpu", "if sender.send_rights & abi.OBJECT_RIGHT_S:", "if True:"),
        (test_handed_over.test_fpu_state_of_an_exceptions_answer, (abi.TAG_FPU, NO_S)),
    ),
    (  # half a map that passes for a whole one
        Plant(memory, "Memory.map_range", "mapped.outcome = MapOutcome.OUT_OF_MEMORY", "pass"),
        (test_handed_over.test_the_code_of_a_map_that_got_half_way, (1,)),
    ),
    (
        Plant(memory, "Memory.map_range", "mapped.outcome = MapOutcome.OUT_OF_MEMORY", "pass"),
        (test_handed_over.test_task_map_tells_of_half_a_map_likewise, (2,)),
    ),
    (  # the kernel's share of RAM
        Plant(memory, "Memory.identity_map_sigma0", "vpn >= self.user_frames or ", ""),
        (test_handed_over.test_sigma0_has_no_page_at_or_above_its_limit, (0,)),
    ),
    (  # a sender whose own receive phase is over before it began
        Plant(ipc, "_take_from_thread", "sender.state = LATE", "pass"),
        (test_handed_over.test_a_sender_that_will_not_wait_gets_its_timeout, ()),
    ),
    (
        Plant(ipc, "_take_from_thread", "sender.partner = sender.receive_from", "pass"),
        (test_handed_over.test_a_sender_that_will_not_wait_takes_what_comes_before_it_runs, (False,)),
    ),
    (
        Plant(paging, "PageTables.take_access_bits", "~(ACCESSED | DIRTY)", "~ACCESSED"),
        (
            test_handed_over.test_unmap_tells_what_was_touched,
            (paging.ACCESSED | paging.DIRTY, False),
        ),
    ),
    (
        Plant(memory, "Memory.unmap_range", "touched |= collected", "touched = collected"),
        (test_handed_over.test_unmap_of_several_pages_tells_of_each, ()),
    ),
    (
        Plant(items, "_map_memory", "mapped.entries * kernel.costs", "mapped.pages * kernel.costs"),
        (test_map_charges.test_a_superpage_is_one_entry, ()),
    ),
    (
        Plant(items, "_map_memory", "for mapping in mapped.sources:", "for mapping in mapped.sources[:1]:"),
        (test_map_charges.test_every_tree_that_is_used_is_waited_for, (7,)),
    ),
    (
        Plant(messages, "transfer", "count * kernel.costs.copy_word", "kernel.costs.copy_word"),
        (test_handed_over.test_a_message_is_charged_for_its_words, ()),
    ),
    (  # a caller that nobody waits for open-endedly gets no reply slot
        Plant(ipc, "deliver", "and receiver.receive == RECEIVE_OPEN", ""),
        (test_reply_slots.test_call_to_a_closed_wait_leaves_it, ()),
    ),
    (
        Plant(thread, "SenderQueue.first", "self._occupied.bit_length() - 1", "min(self._levels)"),
        (test_scheduling.test_senders_queue_by_priority_then_order, ()),
    ),
    (
        Plant(
            sched,
            "outranks_running",
            "thread.priority >= context.priority",
            "thread.priority > context.priority",
        ),
        (test_scheduling.test_equal_runs_at_once, ()),
    ),
    (
        Plant(sched, "outranks_running", "and thread.priority >= current.priority", ""),
        (test_scheduling.test_a_server_on_a_lower_clients_time_is_outranked_by_its_own_priority, ()),
    ),
    (
        Plant(items, "_target_task", " or not cap.rights & abi.OBJECT_RIGHT_W", ""),
        (test_items.test_forwarded_mapping, ()),
    ),
    (
        Plant(faults, "load_state", "word & EFLAGS_USER_MASK | _ALWAYS_SET", "word"),
        (test_faults.test_answer_with_the_state_replaces_the_registers, ()),
    ),
    (
        Plant(log, "_on_object", "known = obj.name_bytes or obj.name.encode()", "known = obj.name.encode()"),
        (test_names.test_a_name_comes_back_as_it_was_given, (b"a\xffb", "a\\xffb")),
    ),
    (
        Plant(timeouts, "WakeUpQueue.pop_expired", "deadline_us > now_us", "deadline_us >= now_us"),
        (test_handed_over.test_a_timeout_ends_with_its_tick, ()),
    ),
    (
        Plant(waiting, "time_out", "kernel.interface.send_failed(kernel, me, TIMED_OUT)", "pass"),
        (test_handed_over.test_a_sender_in_a_queue_gets_its_timeout, ()),
    ),
    (
        Plant(syscalls, "_reply", "me.send_rights = slot.rights", "me.send_rights = 15"),
        (test_reply_slots.test_reply_items_are_masked_with_the_callers_rights, (5, False)),
    ),
]


@pytest.mark.parametrize(("plant", "killer"), PLANTS, ids=[str(plant) for plant, _ in PLANTS])
def test_a_planted_bug_is_found(plant: Plant, killer: Killer, monkeypatch: pytest.MonkeyPatch) -> None:
    test, arguments = killer
    # The fast path is a copy; the bugs are in the original.
    monkeypatch.setattr(fastpath, "system_call", syscalls.system_call)
    test(*arguments)
    plant.put(monkeypatch)
    with pytest.raises((AssertionError, KernelBug, LookupError)):
        test(*arguments)
