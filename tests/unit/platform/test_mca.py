"""Machine-check banks: overwrite rules against the reference, CMCI threshold, signalling, MSR rules."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.platform_mca import Bank, Error
from tests.unit.platform.board import Board
from vmxemu.isa import exceptions, msrs
from vmxemu.isa import mca as codes
from vmxemu.layout import u64
from vmxemu.outcome import DONE, TRIPLE_FAULT, fault_with
from vmxemu.platform import management, mca
from vmxemu.trace.events import CMCI, MC

board = Board()
GP = int(fault_with(exceptions.GP, u64(0)))
BANK = 7
CTL, STATUS, ADDR, MISC = (int(msrs.IA32_MC0_CTL) + 4 * BANK + i for i in range(4))
CTL2 = int(msrs.IA32_MC0_CTL2) + BANK
UC, S, AR, EN, VAL, OVER, PCC = (
    int(getattr(codes, f"STATUS_{name}")) for name in ("UC", "S", "AR", "EN", "VAL", "OVER", "PCC")
)
COUNT_SHIFT = int(codes.STATUS_CORRECTED_COUNT_SHIFT)


@pytest.fixture(autouse=True)
def power_on() -> None:
    board.power_on()


def log(status: int, address: int = 0x1000) -> int:
    return int(mca.log_error(board.m, u64(BANK), u64(status), u64(address), mca.PHYSICAL_LINE))


BITS = {"CE": 0, "UCNA": UC, "SRAO": UC | S, "SRAR": UC | S | AR, "UC": UC | PCC}
ERRORS = st.builds(Error, st.sampled_from(list(BITS)), st.booleans(), st.integers(0, (1 << 46) - 1))


@pytest.mark.jit_off
@given(st.lists(ERRORS, max_size=12))
@settings(max_examples=300, deadline=None)
def test_bank_equals_reference(errors: list[Error]) -> None:
    board.power_on()
    reference = Bank()
    for error in errors:
        board.wrmsr(CTL, 1 if error.enabled else 0)
        log(BITS[error.kind] | 0x9F, error.address)
        reference.log(error)
        held = reference.holds
        status = board.rdmsr(STATUS)
        assert held is not None
        assert status & (VAL | OVER) == VAL | (OVER if reference.overflow else 0)
        assert bool(status & UC) == held.uncorrected and bool(status & EN) == held.enabled
        assert bool(status & PCC) == (held.kind == "UC")
        assert (bool(status & S), bool(status & AR)) == (reference.signalled, reference.action_required)
        assert board.rdmsr(ADDR) == held.address
        assert status >> COUNT_SHIFT & 0x7FFF == reference.corrected
    board.wrmsr(STATUS, 0)
    log(0x9F)
    assert board.rdmsr(STATUS) >> COUNT_SHIFT & 0x7FFF == 1


@pytest.mark.parametrize(("threshold", "at"), [(0, 1), (1, 1), (5, 5)])
def test_cmci_comes_once_when_the_threshold_is_reached(threshold: int, at: int) -> None:
    board.wrmsr(CTL2, 1 << 30 | threshold)
    raised = [bool(log(0x9F)) for _ in range(10)]
    assert raised == [number == at for number in range(1, 11)]
    assert management.take_management(board.m, CMCI)
    assert (board.m.platform.management.taken.detail, board.m.platform.management.taken.hpa) == (BANK, 0x1000)
    board.wrmsr(STATUS, 0)
    assert [bool(log(0x9F)) for _ in range(at)][-1]


def test_no_cmci_unless_enabled() -> None:
    board.wrmsr(CTL2, 1)
    assert log(0x9F) == 0
    assert management.pending_management(board.m) == 0


def test_count_saturates() -> None:
    log(0x9F)
    board.m.platform.mca.bank[BANK].status = board.rdmsr(STATUS) | 0x7FFF << COUNT_SHIFT
    log(0x9F)
    assert board.rdmsr(STATUS) >> COUNT_SHIFT & 0x7FFF == 0x7FFF
    assert board.rdmsr(STATUS) & OVER == 0


def test_uncorrected_without_signal_comes_as_cmci() -> None:
    board.wrmsr(CTL2, 1 << 30 | 100)
    assert log(UC | 0x9F)
    assert management.pending_management(board.m) == CMCI


@pytest.mark.parametrize(("bits", "flags"), [(S, 1), (S | AR, 3), (PCC, 0)])
def test_signalled_error_is_a_machine_check(bits: int, flags: int) -> None:
    assert (log(UC | bits | 0x134) != 0) == bool(bits & AR)  # reporting is off: only a consumer is told
    board.power_on()
    board.wrmsr(CTL, (1 << 64) - 1)
    assert log(UC | bits | 0x134)
    assert management.pending_management(board.m) == MC
    assert board.m.cpu.mce_pending == 1
    management.take_management(board.m, MC)
    assert board.m.platform.management.taken.flags == flags


def test_consumption_is_logged_where_the_processor_has_it() -> None:
    assert mca.log_consumption(board.m, u64(0x12340))
    assert board.rdmsr(0x405) & 0xFFFF == 0x134
    assert board.rdmsr(0x405) & (UC | S | AR) == UC | S | AR
    assert board.rdmsr(0x406) == 0x12340
    assert board.rdmsr(0x407) == 0x86
    assert mca.log_fetch_consumption(board.m, u64(0x40))
    assert board.rdmsr(0x401) & 0xFFFF == 0x150


def test_second_machine_check_shuts_down() -> None:
    m = board.m
    m.r.cr[4] = 0
    assert mca.begin_machine_check(m, u64(1)) == TRIPLE_FAULT
    m.r.cr[4] = 1 << 6
    assert mca.begin_machine_check(m, u64(3)) == DONE
    assert board.rdmsr(int(msrs.IA32_MCG_STATUS)) == 7
    assert mca.begin_machine_check(m, u64(3)) == TRIPLE_FAULT
    board.wrmsr(int(msrs.IA32_MCG_STATUS), 0)
    assert mca.begin_machine_check(m, u64(1)) == DONE


@pytest.mark.jit_off
def test_msr_rules() -> None:
    assert board.rdmsr(int(msrs.IA32_MCG_CAP)) == 0x01000C0A
    log(0x9F)
    for index, bad in ((STATUS, 1), (ADDR, 1), (MISC, 1 << 63), (CTL2, 1 << 15), (int(msrs.IA32_MCG_STATUS), 8)):
        assert board.wrmsr(index, bad) == GP
    assert board.rdmsr(STATUS) & VAL
    for index in (STATUS, ADDR, MISC):
        assert board.wrmsr(index, 0) == DONE
        assert board.rdmsr(index) == 0
    assert board.wrmsr(CTL2, 1 << 30 | 0x7FFF) == DONE
    assert board.rdmsr(CTL2) == 1 << 30 | 0x7FFF
    for absent in (0x400 + 4 * 10, 0x280 + 10, int(msrs.IA32_MCG_CTL), int(msrs.IA32_MCG_EXT_CTL)):
        assert board.wrmsr(absent, 0) == GP
    assert board.wrmsr(int(msrs.IA32_MCG_CAP), 0) == GP
