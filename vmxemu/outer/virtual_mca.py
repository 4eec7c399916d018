"""The machine-check banks that VMM2 sees: only the errors that are its own, with guest-physical addresses."""

from typing import TYPE_CHECKING

from vmxemu.isa import exceptions, mca, msrs
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.outcome import DONE, NOT_MINE, fault_with
from vmxemu.platform.mca_msrs import CTL2_WRITABLE, MCG_STATUS_WRITABLE, is_mine

if TYPE_CHECKING:
    from vmxemu.state import State

BANK_REGISTERS = U(4)
STATUS_VALID, STATUS_OVERFLOW, STATUS_UNCORRECTED = U(1 << 63), U(1 << 62), U(1 << 61)
BANKS_MASK = U(0xFF)


@kernel
def power_on(m: "State") -> None:
    """The same capabilities as the processor's, empty banks."""
    virtual = m.outer.mca
    virtual.capabilities = m.platform.mca.capabilities
    virtual.status = 0
    virtual.control = 0


@kernel
def bank_count(m: "State") -> int:
    """Banks that VMM2 sees."""
    return m.outer.mca.capabilities & BANKS_MASK


@kernel
def read(m: "State", index: int) -> int:
    """RDMSR by VM1; the value in m.walk.value. As platform.mca_msrs for the processor's own banks."""
    virtual = m.outer.mca
    count = bank_count(m)
    if index == msrs.IA32_MCG_CAP:
        m.walk.value = virtual.capabilities
    elif index == msrs.IA32_MCG_STATUS:
        m.walk.value = virtual.status
    elif index == msrs.IA32_MCG_CTL and virtual.capabilities & mca.MCG_CAP_CTL_P != 0:
        m.walk.value = virtual.control
    elif index - msrs.IA32_MC0_CTL2 < count:
        m.walk.value = virtual.bank[index - msrs.IA32_MC0_CTL2].control2
    elif index - msrs.IA32_MC0_CTL < count * BANK_REGISTERS:
        bank = virtual.bank[(index - msrs.IA32_MC0_CTL) >> 2]
        register = index & 3
        if register == 0:
            m.walk.value = bank.control
        elif register == 1:
            m.walk.value = bank.status
        elif register == 2:
            m.walk.value = bank.addr
        else:
            m.walk.value = bank.misc
    else:
        return fault_with(exceptions.GP, 0) if is_mine(index) != 0 else NOT_MINE
    return DONE


@kernel
def write(m: "State", index: int, value: int) -> int:
    """WRMSR by VM1: control registers take values, the records only 0."""
    virtual = m.outer.mca
    count = bank_count(m)
    if index == msrs.IA32_MCG_STATUS and value & ~MCG_STATUS_WRITABLE == 0:
        virtual.status = value
    elif index == msrs.IA32_MCG_CTL and virtual.capabilities & mca.MCG_CAP_CTL_P != 0:
        virtual.control = value
    elif index - msrs.IA32_MC0_CTL2 < count and value & ~CTL2_WRITABLE == 0:
        virtual.bank[index - msrs.IA32_MC0_CTL2].control2 = value
    elif index - msrs.IA32_MC0_CTL < count * BANK_REGISTERS:
        bank = virtual.bank[(index - msrs.IA32_MC0_CTL) >> 2]
        register = index & 3
        if register == 0:
            bank.control = value
            return DONE
        if value != 0:
            return fault_with(exceptions.GP, 0)
        if register == 1:
            bank.status = 0
        elif register == 2:
            bank.addr = 0
        else:
            bank.misc = 0
    else:
        return fault_with(exceptions.GP, 0) if is_mine(index) != 0 else NOT_MINE
    return DONE


@kernel
def log(m: "State", number: int, status: int, gpa1: int, misc: int) -> None:
    """Put a record into a virtual bank; an uncorrected one stays (SDM Vol. 3B, 'Machine-Check Overwrite Rules')."""
    bank = m.outer.mca.bank[number]
    if bank.status & STATUS_VALID != 0:
        if bank.status & STATUS_UNCORRECTED != 0 or status & STATUS_UNCORRECTED == 0:
            bank.status = bank.status | STATUS_OVERFLOW
            return
        status = status | STATUS_OVERFLOW
    bank.status = status
    bank.addr = gpa1
    bank.misc = misc
