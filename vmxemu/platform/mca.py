"""Machine-check architecture (SDM Vol. 3B): banks, logging with its overwrite rules, CMCI threshold, IA32_MCG_STATUS.

Errors of memory controllers and caches come in through `log_error`; it raises the CMCI or #MC that the record needs.
"""

from typing import TYPE_CHECKING

from vmxemu.isa import mca
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, TRIPLE_FAULT
from vmxemu.platform.layout import MCA_BANKS
from vmxemu.platform.management import CAUSE_MCA, raise_caused
from vmxemu.trace.events import CMCI, MC

if TYPE_CHECKING:
    from vmxemu.platform.layout import McaBank
    from vmxemu.state import State

BANKS, ROOM = u64(10), u64(MCA_BANKS)
CAPABILITIES = BANKS | mca.MCG_CAP_CMCI_P | mca.MCG_CAP_TES_P | mca.MCG_CAP_SER_P
DATA_CACHE_BANK, FETCH_BANK, MEMORY_BANK = u64(1), u64(0), u64(7)
PHYSICAL_LINE = u64(2) << mca.MISC_ADDRESS_MODE_SHIFT | u64(6)  # physical address, valid down to bit 6
SIGNALLED = mca.STATUS_UC | mca.STATUS_ADDRV | mca.STATUS_MISCV | mca.STATUS_S
COUNT_ONE = u64(1) << mca.STATUS_CORRECTED_COUNT_SHIFT
CR4_MCE = u64(1 << 6)
VALID, UNCORRECTED, ENABLED, OVERFLOW = mca.STATUS_VAL, mca.STATUS_UC, mca.STATUS_EN, mca.STATUS_OVER
SOFTWARE_RECOVERY, ACTION_REQUIRED, CONTEXT_CORRUPT = mca.STATUS_S, mca.STATUS_AR, mca.STATUS_PCC
COUNT, COUNT_SHIFT = mca.STATUS_CORRECTED_COUNT, mca.STATUS_CORRECTED_COUNT_SHIFT
RESTART_VALID, ERROR_VALID, IN_PROGRESS = mca.MCG_STATUS_RIPV, mca.MCG_STATUS_EIPV, mca.MCG_STATUS_MCIP
THRESHOLD, CMCI_ENABLE = mca.CTL2_THRESHOLD_LIMIT, mca.CTL2_CMCI_EN
DATA_LOAD, INSTRUCTION_FETCH = mca.DATA_LOAD, mca.INSTRUCTION_FETCH


@kernel
def power_on(m: "State") -> None:
    """Empty banks. Reporting is off until software writes the control registers, as after power-up."""
    if m.platform.mca.capabilities == 0:
        m.platform.mca.capabilities = CAPABILITIES
    m.platform.mca.status = 0
    m.platform.mca.control = 0
    for number in range(bank_count(m)):
        bank = m.platform.mca.bank[number]
        bank.control = 0
        bank.control2 = 0
        clear_bank(m, number)


@kernel
def bank_count(m: "State") -> int:
    """Error-reporting banks that exist."""
    return min(m.platform.mca.capabilities & 0xFF, ROOM)


@kernel
def clear_bank(m: "State", number: int) -> None:
    """What software does when it has read a record."""
    bank = m.platform.mca.bank[number]
    bank.status = 0
    bank.addr = 0
    bank.misc = 0


@kernel
def _replaces(old: int, new: int) -> int:
    """1 if a new record overwrites the old one (SDM Vol. 3B, 'Overwrite Rules for Machine Check Overflow', 'UCR Error
    Overwrite Rules').

    An enabled error overwrites a disabled one; a corrected one gives way to any; the first uncorrected error stays, but
    for one that corrupts the processor's context.
    """
    if old & VALID == 0:
        return u64(1)
    if old & ENABLED != new & ENABLED:
        return u64(1) if new & ENABLED else u64(0)
    if old & UNCORRECTED == 0 or new & CONTEXT_CORRUPT & ~old:
        return u64(1)
    return u64(0)


@kernel
def _record(bank: "McaBank", status: int, address: int, misc: int) -> None:
    """Write the record, or note that it was lost; count corrected errors, saturating."""
    old = bank.status
    count = old & COUNT if old & VALID else u64(0)
    if status & UNCORRECTED == 0 and count != COUNT:
        count = count + COUNT_ONE
    # With the corrected-error counter there is no overflow among corrected errors: the count tells.
    lost = OVERFLOW if old & VALID and (old | status) & UNCORRECTED else u64(0)
    lost = lost | old & OVERFLOW & (~u64(0) if old & VALID else u64(0))
    sticky = (old | status) & (SOFTWARE_RECOVERY | ACTION_REQUIRED) if old & VALID else u64(0)
    if _replaces(old, status) != 0:
        bank.status = status & ~(COUNT | OVERFLOW) | count | lost | sticky
        bank.addr = address
        bank.misc = misc
    else:
        bank.status = old & ~COUNT | count | lost | sticky


@kernel
def log_error(m: "State", number: int, status: int, address: int, misc: int) -> int:
    """Log an error in a bank; VAL and EN are added to `status`. Gives the serial of the CMCI or #MC raised, or 0."""
    bank = m.platform.mca.bank[number]
    before = bank.status & COUNT if bank.status & VALID else u64(0)
    status = status | VALID | (ENABLED if bank.control != 0 else u64(0))
    _record(bank, status, address, misc)
    if status & UNCORRECTED and status & (SOFTWARE_RECOVERY | CONTEXT_CORRUPT):
        return _signal(m, number, status, address)
    if bank.control2 & CMCI_ENABLE == 0:
        return u64(0)
    if status & UNCORRECTED == 0:
        threshold = max(bank.control2 & THRESHOLD, u64(1))
        if before >> COUNT_SHIFT >= threshold or (bank.status & COUNT) >> COUNT_SHIFT < threshold:
            return u64(0)
    return raise_caused(m, CMCI, address, number, CAUSE_MCA, 0)


@kernel
def _signal(m: "State", number: int, status: int, address: int) -> int:
    """#MC, if the bank's control register enables reporting. The consumer of bad data cannot go on: it always gets one.

    RIPV and EIPV are as the SDM's tables of SRAO and SRAR errors have them. Consumption is continuable: it stops before
    the access.
    """
    if status & (ENABLED | ACTION_REQUIRED) == 0:
        return u64(0)
    flags = RESTART_VALID
    if status & CONTEXT_CORRUPT:
        flags = u64(0)
    elif status & ACTION_REQUIRED:
        flags = RESTART_VALID | ERROR_VALID
    return raise_caused(m, MC, address, number, CAUSE_MCA, flags)


@kernel
def log_consumption(m: "State", hpa: int) -> int:
    """A load met a poisoned line: SRAR, data load, in the data cache's bank. Gives the #MC's serial, or 0."""
    return log_error(m, DATA_CACHE_BANK, SIGNALLED | ACTION_REQUIRED | DATA_LOAD, hpa, PHYSICAL_LINE)


@kernel
def log_late_consumption(m: "State", hpa: int) -> int:
    """Poisoned data has already gone into the processor's state: context corrupt, not restartable. Gives the #MC's serial."""
    status = SIGNALLED | ACTION_REQUIRED | CONTEXT_CORRUPT | DATA_LOAD
    return log_error(m, DATA_CACHE_BANK, status, hpa, PHYSICAL_LINE)


@kernel
def log_fetch_consumption(m: "State", hpa: int) -> int:
    """An instruction fetch met a poisoned line: SRAR, in the fetch unit's bank. Gives the #MC's serial, or 0."""
    return log_error(m, FETCH_BANK, SIGNALLED | ACTION_REQUIRED | INSTRUCTION_FETCH, hpa, PHYSICAL_LINE)


@kernel
def begin_machine_check(m: "State", flags: int) -> int:
    """The processor takes a #MC with these RIPV and EIPV. TRIPLE_FAULT with one in progress or CR4.MCE clear."""
    if m.platform.mca.status & IN_PROGRESS or m.r.cr[4] & CR4_MCE == 0:
        return TRIPLE_FAULT
    m.platform.mca.status = flags | IN_PROGRESS
    return DONE
