"""RDMSR and WRMSR of the processor's own MSRs."""

import pytest

from tests.unit.cpu.processor import Processor
from vmxemu.cpu.layout import FS
from vmxemu.cpu.msr import msr_operand, read_msr, return_msr, write_msr
from vmxemu.cpu.msr_table import ROWS, hide_absent_msrs
from vmxemu.isa import msrs

pytestmark = pytest.mark.jit_off

GP, NOT_MINE = 1 | 13 << 8 | 1 << 16, 9


def index_of(name: str) -> int:
    return msrs.BY_NAME[name].address


@pytest.mark.parametrize(
    "name, value, outcome",
    [
        ("IA32_LSTAR", 0xFFFF800000000000, 0),
        ("IA32_LSTAR", 1 << 47, GP),
        ("IA32_STAR", 0x23001000000000, 0),
        ("IA32_FMASK", 1 << 32, GP),
        ("IA32_FS_BASE", 0x1234, 0),
        ("IA32_GS_BASE", 1 << 60, GP),
        ("IA32_KERNEL_GS_BASE", 0xFFFFFFFF80000000, 0),
        ("IA32_TSC_AUX", 7, 0),
        ("IA32_PAT", 0x0007040600070406, 0),
        ("IA32_PAT", 2, GP),
        ("IA32_PAT", 8, GP),
        ("IA32_SYSENTER_EIP", 0x1000, 0),
        ("IA32_MTRR_PHYSBASE3", 6, 0),
        ("IA32_MTRR_PHYSBASE3", 7, GP),
        ("IA32_MTRR_PHYSMASK9", 0x800, 0),
        ("IA32_MTRR_FIX4K_F8000", 0x0606060606060606, 0),
        ("IA32_MTRR_FIX16K_80000", 0x0202020202020202, GP),
        ("IA32_MTRR_DEF_TYPE", 0xC06, 0),
        ("IA32_DEBUGCTL", 1, 0),
        ("IA32_MTRRCAP", 0, GP),
        ("IA32_VMX_BASIC", 0, GP),
        ("MSR_SMI_COUNT", 0, GP),
        ("IA32_XSS", 1, GP),
        ("IA32_SMRR_PHYSBASE", 6, GP),  # outside SMM
    ],
)
def test_write(name: str, value: int, outcome: int) -> None:
    m = Processor().long().m
    assert int(write_msr(m, index_of(name), value)) == outcome
    if outcome == 0:
        assert int(read_msr(m, index_of(name))) == 0 and int(m.walk.value) == value


def test_unknown_msrs_belong_to_somebody_else() -> None:
    m = Processor().long().m
    for index in (0x1B, 0x800, 0x400, 0x12345678):
        assert int(read_msr(m, index)) == NOT_MINE and int(write_msr(m, index, 0)) == NOT_MINE


def test_every_own_msr_reads_or_faults() -> None:
    m = Processor().long().m
    for row in ROWS:
        assert int(read_msr(m, row.address)) in (0, GP)


def test_efer() -> None:
    m = Processor().protected().m
    index = index_of("IA32_EFER")
    assert int(write_msr(m, index, 0x501)) == 0 and int(m.r.efer) == 0x101  # LMA is read-only
    assert int(write_msr(m, index, 1 << 12)) == GP
    m = Processor().long().m
    assert int(write_msr(m, index, 0x400)) == GP  # LME with paging on
    assert int(write_msr(m, index, 0xD00)) == 0 and int(m.r.efer) == 0xD00 and int(m.engine.flush) == 1


def test_time_stamp_counter_and_its_adjustment() -> None:
    m = Processor().long().m
    m.clock.ticks = 1000 << 4
    assert int(write_msr(m, index_of("IA32_TIME_STAMP_COUNTER"), 5000)) == 0
    assert int(read_msr(m, index_of("IA32_TSC_ADJUST"))) == 0 and int(m.walk.value) == 4000
    assert int(write_msr(m, index_of("IA32_TSC_ADJUST"), 0)) == 0
    assert int(read_msr(m, index_of("IA32_TIME_STAMP_COUNTER"))) == 0 and int(m.walk.value) == 1000


def test_feature_control_locks() -> None:
    m = Processor().long().m
    index = index_of("IA32_FEATURE_CONTROL")
    assert int(write_msr(m, index, 2)) == GP  # SMX does not exist
    assert int(write_msr(m, index, 4)) == 0 and int(write_msr(m, index, 5)) == 0 and int(write_msr(m, index, 5)) == GP


def test_smbase_is_for_smm_only() -> None:
    m = Processor().long().m
    m.cpu.smbase = 0xA0000
    assert int(read_msr(m, index_of("IA32_SMBASE"))) == GP
    m.cpu.in_smm = 1
    assert int(read_msr(m, index_of("IA32_SMBASE"))) == 0 and int(m.walk.value) == 0xA0000
    assert int(write_msr(m, index_of("IA32_SMRR_PHYSBASE"), 6)) == 0


def test_absent_msrs_fault() -> None:
    m = Processor().long().m
    hide_absent_msrs(m, frozenset({"VMX", "LM", "MTRR"}))
    assert int(read_msr(m, index_of("IA32_SPEC_CTRL"))) == GP and int(read_msr(m, index_of("IA32_VMX_VMFUNC"))) == GP
    assert int(read_msr(m, index_of("IA32_VMX_BASIC"))) == 0 and int(read_msr(m, index_of("IA32_STAR"))) == 0


def test_operands() -> None:
    m = Processor().long().m
    m.r.gpr[0], m.r.gpr[2] = 0xFFFFFFFF00000001, 0xFFFFFFFF00000002
    assert int(msr_operand(m)) == 0x0000000200000001
    return_msr(m, 0x1122334455667788)
    assert (int(m.r.gpr[0]), int(m.r.gpr[2])) == (0x55667788, 0x11223344)


def test_fs_base_is_the_segment_register() -> None:
    m = Processor().long().m
    write_msr(m, index_of("IA32_FS_BASE"), 0x7000)
    assert int(m.r.seg[FS].base) == 0x7000
