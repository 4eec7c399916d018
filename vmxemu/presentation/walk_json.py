"""What `vmxemu walk --json` prints: all that the tables for people say, as plain values."""

from collections.abc import Sequence
from typing import Any

from vmxemu import outcome as outcomes
from vmxemu.isa import paging
from vmxemu.presentation.walk_grid import outcome_name
from vmxemu.presentation.walk_reason import access_name, reason
from vmxemu.presentation.walk_result import rights
from vmxemu.presentation.walk_story import FLAG_STORE, LEVEL_NAMES, Row, Story
from vmxemu.translation.account import EPT, GUEST, KIND_NAMES, PAGE, SPP, Processor

WORD_OF = {int(outcomes.EPT_VIOLATION): "EPT_VIOLATION", int(outcomes.SPP_EVENT): "SPP_EVENT"}
FOR_NAMES = {PAGE: "page", FLAG_STORE: "flags", **LEVEL_NAMES}


def as_json(stories: Sequence[Story], description: str) -> dict[str, Any]:
    """Addresses and entries are numbers; rights, flags and names are text."""
    return {
        "description": description,
        "processor": _processor(stories[0].account.processor),
        "walks": [_walk(story) for story in stories],
    }


def _processor(processor: Processor) -> dict[str, Any]:
    return {
        "mode": processor.mode,
        "cpl": processor.cpl,
        "ac": processor.ac,
        **{name: getattr(processor, name) for name in ("cr0", "cr3", "cr4", "efer", "eptp", "pat", "pkru", "pkrs")},
        "pdptes": list(processor.pdptes),
        "ept_levels": processor.ept_levels,
        "ept_extensions": processor.ept_extensions,
        "physical_bits": processor.physical_bits,
        "walk_caches": processor.walk_caches,
    }


def _walk(story: Story) -> dict[str, Any]:
    account, why = story.account, reason(story)
    done = account.kind == int(outcomes.DONE)
    return {
        "address": account.gla,
        "access": access_name(account),
        "outcome": outcome_name(story),
        "gpa": account.gpa if done or account.kind in WORD_OF or account.kind == int(outcomes.EPT_MISCONFIG) else None,
        "hpa": account.hpa if done else None,
        "page_bytes": account.page_bytes if done else None,
        "rights": rights(story) if done else None,
        "error_code": account.error_code if account.kind == int(outcomes.FAULT) else None,
        "qualification": account.qualification if account.kind in WORD_OF else None,
        "decoded": _decoded(story),
        "convertible_to_ve": account.convertible,
        "references": account.count,
        "cycles": account.cycles,
        "why": why.sentence,
        "decided_by": why.row.number if why.row else None,
        "steps": [_step(row, row is why.row) for row in story.rows],
    }


def _decoded(story: Story) -> dict[str, int]:
    """The error code or qualification by the names of its bits."""
    account = story.account
    if account.is_page_fault:
        return paging.decode("PAGE_FAULT", account.error_code)
    name = WORD_OF.get(account.kind)
    return paging.decode(name, account.qualification) if name else {}


def _step(row: Row, decided: bool) -> dict[str, Any]:
    reference = row.reference
    is_entry = row.kind in (GUEST, EPT, SPP)
    return {
        "number": row.number,
        "kind": KIND_NAMES.get(row.kind, str(row.kind)),
        "structure": row.structure or None,
        "level": reference.level,
        "name": row.title,
        "for": FOR_NAMES.get(row.target, str(row.target)) if row.kind != GUEST else None,
        "gpa": reference.gpa,
        "hpa": reference.hpa,
        "entry": reference.entry,
        "present": row.present if is_entry else None,
        "flags": row.flags,
        "fields": paging.decode(row.structure, reference.entry) if is_entry else {},
        "permissions_so_far": row.so_far.strip() or None,
        "cycles": reference.cycles,
        "decided": decided,
    }
