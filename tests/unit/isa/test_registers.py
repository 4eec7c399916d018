"""Laws of the MSR, SMM and machine-check tables."""

from itertools import pairwise

import pytest

from vmxemu.isa import mca, msrs, smm_map

CHECKS = {"canonical", "physical", "memory_type", "memory_types", "memory_types_pat", "zero_only"}


@pytest.mark.parametrize("msr", msrs.ROWS, ids=lambda msr: msr.name)
def test_an_msr_row_is_consistent(msr: msrs.Msr) -> None:
    assert 0 <= msr.address < 1 << 32
    assert msr.access in ("rw", "ro", "wo")
    assert set(msr.checks) <= CHECKS
    assert 0 <= msr.reserved < 1 << 64
    if msr.reset is not None and msr.writable and msr.readable:
        assert msr.reset & msr.reserved == 0, "the reset value must be writable"
    if not msr.writable:
        assert msr.reserved == 0, "no write, no reserved bit"


def test_the_emulators_own_msrs_stand_apart() -> None:
    own = [msr for msr in msrs.ROWS if msr.name.startswith("VMXEMU_")]
    assert [msr.address for msr in own] == list(range(0x4B564D60, 0x4B564D60 + len(own)))
    assert all(msr.sdm == "vmxemu" for msr in own)
    assert all(msr.sdm != "vmxemu" for msr in msrs.ROWS if msr not in own)


def test_machine_check_banks_are_complete() -> None:
    for bank in range(20):
        base = 0x400 + 4 * bank
        assert [msrs.BY_ADDRESS[base + part].name for part in range(4)] == [
            f"IA32_MC{bank}_{part}" for part in ("CTL", "STATUS", "ADDR", "MISC")
        ]
        assert msrs.BY_ADDRESS[0x280 + bank].name == f"IA32_MC{bank}_CTL2"


def test_saved_fields_neither_overlap_nor_leave_the_area() -> None:
    ordered = sorted(smm_map.ROWS, key=lambda field: field.offset)
    assert ordered[0].offset >= smm_map.FIRST_OFFSET
    assert ordered[-1].offset + ordered[-1].bytes == 0x8000
    for lower, upper in pairwise(ordered):
        assert lower.offset + lower.bytes <= upper.offset, (lower, upper)


def test_own_saved_fields_lie_in_the_reserved_area() -> None:
    own = [field for field in smm_map.ROWS if field.sdm.startswith("vmxemu")]
    assert own
    assert all(field.offset + field.bytes <= 0x7DD0 and not field.writable for field in own)


def test_status_fields_tile_the_register() -> None:
    fields = [field for field in mca.FIELDS if field.register == "IA32_MCi_STATUS"]
    status = sorted(fields, key=lambda field: field.low_bit)
    assert status[0].low_bit == 0
    assert status[-1].high_bit == 63
    assert all(lower.high_bit + 1 == upper.low_bit for lower, upper in pairwise(status))


def test_code_patterns_hold_no_bit_outside_their_mask() -> None:
    assert all(code.value & ~code.mask == 0 for code in mca.CODES)
