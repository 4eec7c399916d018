"""The machine-check MSRs."""

from typing import TYPE_CHECKING

from vmxemu.isa import exceptions, mca, msrs
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, NOT_MINE, fault_with
from vmxemu.platform.layout import MCA_BANKS
from vmxemu.platform.mca import bank_count

if TYPE_CHECKING:
    from vmxemu.state import State

GP = exceptions.GP
MCG_CAP, MCG_STATUS, MCG_CTL = msrs.IA32_MCG_CAP, msrs.IA32_MCG_STATUS, msrs.IA32_MCG_CTL
MCG_EXT_CTL = msrs.IA32_MCG_EXT_CTL
FIRST_BANK, FIRST_CTL2 = msrs.IA32_MC0_CTL, msrs.IA32_MC0_CTL2
ROOM = u64(MCA_BANKS)
CONTROL, STATUS, ADDRESS = u64(0), u64(1), u64(2)
MCG_CTL_PRESENT = mca.MCG_CAP_CTL_P
MCG_STATUS_WRITABLE = mca.MCG_STATUS_RIPV | mca.MCG_STATUS_EIPV | mca.MCG_STATUS_MCIP
CTL2_WRITABLE = mca.CTL2_THRESHOLD_LIMIT | mca.CTL2_CMCI_EN


@kernel
def is_mine(index: int) -> int:
    """1 for every MSR of the machine-check architecture, whether this processor has it or not."""
    if MCG_CAP <= index <= MCG_CTL or index == MCG_EXT_CTL:
        return u64(1)
    return u64(1) if FIRST_BANK <= index < FIRST_BANK + 4 * ROOM or FIRST_CTL2 <= index < FIRST_CTL2 + ROOM else u64(0)


@kernel
def read(m: "State", index: int) -> int:
    """RDMSR; the value is in m.walk.value."""
    state = m.platform.mca
    if index == MCG_CAP:
        m.walk.value = state.capabilities
    elif index == MCG_STATUS:
        m.walk.value = state.status
    elif index == MCG_CTL and state.capabilities & MCG_CTL_PRESENT:
        m.walk.value = state.control
    elif FIRST_CTL2 <= index < FIRST_CTL2 + bank_count(m):
        m.walk.value = state.bank[index - FIRST_CTL2].control2
    elif FIRST_BANK <= index < FIRST_BANK + 4 * bank_count(m):
        m.walk.value = _read_bank(m, index - FIRST_BANK)
    else:
        return fault_with(GP, 0) if is_mine(index) != 0 else NOT_MINE
    return DONE


@kernel
def _read_bank(m: "State", offset: int) -> int:
    bank, register = m.platform.mca.bank[offset >> 2], offset & 3
    if register == CONTROL:
        return bank.control
    if register == STATUS:
        return bank.status
    return bank.addr if register == ADDRESS else bank.misc


@kernel
def write(m: "State", index: int, value: int) -> int:
    """WRMSR. STATUS, ADDR and MISC of a bank take only 0; reserved bits give #GP."""
    state = m.platform.mca
    if index == MCG_STATUS and value & ~MCG_STATUS_WRITABLE == 0:
        state.status = value
    elif index == MCG_CTL and state.capabilities & MCG_CTL_PRESENT:
        state.control = value
    elif FIRST_CTL2 <= index < FIRST_CTL2 + bank_count(m) and value & ~CTL2_WRITABLE == 0:
        state.bank[index - FIRST_CTL2].control2 = value
    elif FIRST_BANK <= index < FIRST_BANK + 4 * bank_count(m):
        return _write_bank(m, index - FIRST_BANK, value)
    else:
        return fault_with(GP, 0) if is_mine(index) != 0 else NOT_MINE
    return DONE


@kernel
def _write_bank(m: "State", offset: int, value: int) -> int:
    bank, register = m.platform.mca.bank[offset >> 2], offset & 3
    if register == CONTROL:
        bank.control = value
        return DONE
    if value != 0:
        return fault_with(GP, 0)
    if register == STATUS:
        bank.status = 0
    elif register == ADDRESS:
        bank.addr = 0
    else:
        bank.misc = 0
    return DONE
