"""The sentence that says why, and the entry that it names."""

from dataclasses import replace

import pytest

from tests.unit.presentation import handmade
from vmxemu import outcome as outcomes
from vmxemu.isa import bits, paging
from vmxemu.presentation.walk_reason import access_name, reason
from vmxemu.presentation.walk_story import tell
from vmxemu.translation.account import SPP, Account, Reference
from vmxemu.translation.layout import EPT_MODE_BASED_EXECUTE

READ, WRITE, FETCH, IMPLICIT, SHADOW = 0, 1, 2, 4, 8
FAULT, VIOLATION, MISCONFIGURATION = (int(kind) for kind in (outcomes.FAULT, outcomes.EPT_VIOLATION, outcomes.EPT_MISCONFIG))
SMEP, SMAP, PKE = (int(bit) for bit in (bits.CR4_SMEP, bits.CR4_SMAP, bits.CR4_PKE))


def native(entries: dict[int, int], access: int = READ, code: int | None = None, **changes: object) -> Account:
    """A walk without EPT, some entries of which (by level) are others; it ends at an entry that is not present."""
    references = [
        replace(row, entry=entries.get(row.level, row.entry)) for row in handmade.walk(4, 0).references
    ]
    gone = next((at for at, row in enumerate(references) if not row.entry & 1), 3)
    gone = 4 - min(entries) if code is not None and code & 8 else gone
    outcome = 0 if code is None else FAULT | 14 << 8 | 1 << 16 | code << 32
    processor = handmade.processor(4, 0, **changes)
    references = references[: gone + 1]
    return Account(handmade.GLA, access, processor, tuple(references), outcome, count=len(references))


def ept(entries: dict[int, int], kind: int, qualification: int = 0, access: int = READ, **changes: object) -> Account:
    """A 4x4 walk, some entries of which (by number) are others, that ends in the EPT walk of the last of them."""
    made = handmade.walk(access=access)
    references = [replace(row, entry=entries.get(at + 1, row.entry)) for at, row in enumerate(made.references)]
    last = max(entries)
    return replace(
        made, references=tuple(references[:last]), outcome=kind, qualification=qualification,
        gpa=references[last - 1].gpa, count=last, processor=handmade.processor(**changes),
    )  # fmt: skip


CASES = [
    (native({2: 0x10_3026}, code=4), "ends at the guest PDE (reference 3): it is not present", 3),
    (native({3: 0x10_2027 | 1 << 50}, code=13), "guest PDPTE (reference 2) reserved bit 50 is 1 (this processor has 46", 2),
    (native({1: 0x67 | 1 << 63}, code=13, efer=0x400), "XD is 1, which is reserved while EFER.NXE = 0", 4),
    (native({4: 0xA7}, code=13), "reserved bit 7 is 1.", 1),
    (native({2: 0x10_3025}, WRITE, code=7), "guest PDE (reference 3) has R/W = 0: no write is allowed through it.", 3),
    (native({2: 0x10_3025}, WRITE, code=3, cpl=0), "CR0.WP = 1 makes that hold for supervisor mode too", 3),
    (native({3: 0x10_2023}, code=5), "guest PDPTE (reference 2) has U/S = 0", 2),
    (native({1: 0x67 | 1 << 63}, FETCH, code=21), "guest PTE (reference 4) has XD = 1", 4),
    (native({}, FETCH, code=17, cpl=0, cr4=0x20 | SMEP), "SMEP lets no supervisor fetch", 4),
    (native({}, READ, code=1, cpl=0, cr4=0x20 | SMAP), "which SMAP keeps from supervisor data accesses (RFLAGS.AC = 0)", 4),
    (native({}, IMPLICIT, code=1, cr4=0x20 | SMAP), "(implicit supervisor accesses never may)", 4),
    (native({1: 0x67 | 5 << 59}, WRITE, code=39, cr4=0x20 | PKE, pkru=1 << 11), "PKRU.WD5 = 1: no write is allowed", 4),
    (native({1: 0x63 | 5 << 59}, code=33, cpl=0, pkrs=1 << 10), "IA32_PKRS.AD5 = 1: no data access is allowed", 4),
    (native({}, SHADOW, code=69), "maps no shadow-stack page: such a page has R/W = 0 and D = 1, this one R/W = 1, D = 1", 4),
    (native({3: 0x10_2025}, SHADOW, code=69), "has R/W = 0: above a shadow-stack page R/W must be 1", 2),
    (native({1: 0x65}, SHADOW, code=65, cpl=0), "a supervisor shadow stack must be on a supervisor page", 4),
    (ept({23: 0}, VIOLATION, 0x181), "ends at the EPT PDE for the page (reference 23): it is not present", 23),
    (ept({23: 0x200_3005, 24: 0x90_0035}, VIOLATION, 0x1AA, WRITE), "EPT PDE for the page (reference 23) has W = 0", 23),
    (ept({24: 0x90_0033}, VIOLATION, 0x19C, FETCH), "has X = 0: no instruction may be fetched through it.", 24),
    (ept({24: 0x90_0037}, VIOLATION, 0x1BC, FETCH, ept_extensions=int(EPT_MODE_BASED_EXECUTE)), "through it in user mode", 21),
    (ept({19: 0x100_3035}, VIOLATION, 0xAB, eptp=0x200_005E), "every use of a guest's table counts as a write", 19),
    (ept({19: 0x100_3035}, VIOLATION, 0xAB), "had to set an accessed or dirty flag in the guest's table", 19),
    (ept({24: 0x90_0032}, MISCONFIGURATION), "(reference 24) allows writes but no reads", 24),
    (ept({24: 0x90_0034}, MISCONFIGURATION, ept_capabilities=0), "is execute-only, which this processor does not support", 24),
    (ept({24: 0x90_0037 | 1 << 50}, MISCONFIGURATION), "reserved bit 50 is 1 (this processor has 46 physical-address bits)", 24),
    (ept({24: 0x90_0017}, MISCONFIGURATION), "has the reserved memory type 2", 24),
    (ept({22: 0xB7}, MISCONFIGURATION), "maps a page of a size that this processor does not support", 22),
]


@pytest.mark.parametrize(("account", "words", "number"), CASES, ids=[words[:40] for _, words, _ in CASES])
def test_the_sentence_names_the_entry_that_decided(account: Account, words: str, number: int) -> None:
    why = reason(tell(account))
    assert words in why.sentence
    assert why.sentence.endswith(".") and why.sentence[0].isupper()
    assert why.row is not None and why.row.number == number


def test_what_no_entry_decided() -> None:
    done = handmade.walk()
    assert reason(tell(done)).sentence == "Every entry on the way permits this user read."
    general = replace(done, outcome=FAULT | 13 << 8 | 1 << 16, references=(), count=0)
    assert "not canonical: bits 63:47 are not all equal" in reason(tell(general)).sentence
    register = replace(
        done, gla=0xC000_0000, outcome=FAULT | 14 << 8 | 1 << 16, references=(), processor=handmade.processor(efer=0)
    )
    assert "PDPTE register 3 is not present" in reason(tell(register)).sentence
    beyond = replace(done, outcome=VIOLATION, gpa=1 << 48, references=done.references[:20])
    assert "has bits above the 48 that this EPT translates" in reason(tell(beyond)).sentence
    off = replace(done, references=(), count=0, processor=handmade.processor(0, 0))
    assert "the address is physical" in reason(tell(off)).sentence
    for kind, words in ((outcomes.RETIRED_FRAME, "has been retired"), (outcomes.POISON, "is poisoned")):
        assert words in reason(tell(replace(done, outcome=int(kind)))).sentence
    assert "log has no room" in reason(tell(replace(done, outcome=int(outcomes.PML_FULL)))).sentence


def test_sub_pages() -> None:
    done = handmade.walk(access=WRITE)
    vector = Reference(SPP, 1, 0, gpa=done.gpa, entry=1 << 42)
    event = replace(done, outcome=int(outcomes.SPP_EVENT), references=(*done.references, replace(vector, level=2, entry=0)))
    assert "is not valid (SPPT miss)" in reason(tell(event)).sentence
    wrong = replace(event, references=(*done.references, replace(vector, entry=3)))
    assert "SPPT misconfiguration" in reason(tell(wrong)).sentence
    denied = replace(done, outcome=VIOLATION, qualification=0x18A, references=(*done.references, replace(vector, entry=0)))
    assert "Sub-page 21 of the page" in reason(tell(denied)).sentence
    granted = replace(done, references=(*done.references, vector))
    assert "permits them to sub-page 21" in reason(tell(granted)).sentence


def test_supervisor_shadow_stacks() -> None:
    sss = 0x200_001E | paging.bits_of("EPTP", "SSS")
    account = ept({24: 0x90_0031}, VIOLATION, 0x2182, WRITE | SHADOW, cpl=0, eptp=sss)
    assert "bit 60 = 0: its page is no supervisor shadow stack" in reason(tell(account)).sentence
    above = ept({23: 0x200_3005, 24: 0x1000_0000_0090_0031}, VIOLATION, 0x2182, WRITE | SHADOW, cpl=0, eptp=sss)
    why = reason(tell(above))
    assert why.row is not None and why.row.number == 23


@pytest.mark.parametrize(
    ("access", "cpl", "name"),
    [
        (READ, 3, "user read"), (WRITE, 0, "supervisor write"), (FETCH, 0, "supervisor fetch"),
        (READ | IMPLICIT, 3, "implicit supervisor read"), (WRITE | SHADOW, 3, "user shadow-stack write"),
    ],
)  # fmt: skip
def test_names_of_accesses(access: int, cpl: int, name: str) -> None:
    assert access_name(Account(0, access, handmade.processor(cpl=cpl), ())) == name
