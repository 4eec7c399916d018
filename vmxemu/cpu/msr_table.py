"""The MSRs of this room as arrays for kernels: which exist, which bits are reserved, what else WRMSR checks.

From isa/msrs.csv.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from vmxemu.cpu.mode import is_canonical
from vmxemu.isa import exceptions, msrs
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, NOT_MINE, fault_with

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
OWN = frozenset(
    """
    IA32_TIME_STAMP_COUNTER IA32_PLATFORM_ID MSR_SMI_COUNT IA32_FEATURE_CONTROL IA32_TSC_ADJUST IA32_SPEC_CTRL
    IA32_PRED_CMD IA32_BIOS_UPDT_TRIG IA32_BIOS_SIGN_ID IA32_SMM_MONITOR_CTL IA32_SMBASE MSR_PLATFORM_INFO
    IA32_MPERF IA32_APERF IA32_MTRRCAP IA32_ARCH_CAPABILITIES IA32_FLUSH_CMD IA32_SYSENTER_CS IA32_SYSENTER_ESP
    IA32_SYSENTER_EIP IA32_MISC_ENABLE IA32_DEBUGCTL IA32_SMRR_PHYSBASE IA32_SMRR_PHYSMASK IA32_PAT
    IA32_MTRR_DEF_TYPE IA32_XSS IA32_EFER IA32_STAR IA32_LSTAR IA32_CSTAR IA32_FMASK IA32_FS_BASE IA32_GS_BASE
    IA32_KERNEL_GS_BASE IA32_TSC_AUX IA32_PERF_STATUS IA32_PERF_CTL IA32_PKRS
    """.split()
)
CANONICAL, PHYSICAL, MEMORY_TYPE, MEMORY_TYPES, PAT_TYPES = (U(1 << bit) for bit in range(5))
CHECKS = {
    "canonical": CANONICAL,
    "physical": PHYSICAL,
    "memory_type": MEMORY_TYPE,
    "memory_types": MEMORY_TYPES,
    "memory_types_pat": PAT_TYPES,
}
READABLE, WRITABLE = U(1), U(2)
NO_ROW = U(0xFFFFFFFF)


def _is_own(name: str) -> bool:
    return name in OWN or name.startswith(("IA32_VMX_", "IA32_MTRR_"))


ROWS = sorted((row for row in msrs.ROWS if _is_own(row.name)), key=lambda row: row.address)
ADDRESSES = np.array([row.address for row in ROWS], np.uint64)
RESERVED = np.array([row.reserved for row in ROWS], np.uint64)
CHECK = np.array([sum(int(CHECKS.get(check, U(0))) for check in row.checks) for row in ROWS], np.uint64)
ACCESS = np.array([row.readable * 1 + row.writable * 2 for row in ROWS], np.uint64)
COUNT = U(len(ROWS))
# Bit n: memory type n exists (UC, WC, WT, WP, WB); the PAT also knows UC-.
MTRR_TYPES, PAT_ALLOWED = U(0x73), U(0xF3)


def hide_absent_msrs(m: Any, names: frozenset[str]) -> None:
    """Make RDMSR and WRMSR fault for MSRs that depend on something outside `names`.

    `names` are the profile's CPUID features, VMX controls and MCG_CAP flags.
    """
    for number, row in enumerate(ROWS):
        exists = all(any(choice in names for choice in part.split("|")) for part in row.exists_if.split("&") if part)
        word, bit = divmod(number, 64)
        m.cpu.msr_absent[word] = int(m.cpu.msr_absent[word]) & ~(1 << bit) | (not exists) << bit


@kernel
def find_row(index: int) -> int:
    """Row of the MSR, NO_ROW if it is not this room's."""
    low = 0
    high = COUNT
    while low < high:
        middle = low + high >> 1
        if ADDRESSES[middle] < index:
            low = middle + 1
        else:
            high = middle
    return low if low < COUNT and ADDRESSES[low] == index else NO_ROW


@kernel
def _types_are_valid(value: int, allowed: int) -> bool:
    """Whether each byte of `value` is a memory type."""
    good = True
    for i in range(8):
        kind = value >> 8 * i & 0xFF
        if kind > 7 or allowed >> kind & 1 == 0:
            good = False
    return good


@kernel
def _value_is_valid(m: "State", row: int, value: int) -> bool:
    check = CHECK[row]
    if value & RESERVED[row] != 0:
        return False
    if check & CANONICAL != 0 and not is_canonical(m, value):
        return False
    if check & PHYSICAL != 0 and value >> m.cpu.physical_bits != 0:
        return False
    if check & MEMORY_TYPE != 0 and not _types_are_valid(value & 0xFF, MTRR_TYPES):
        return False
    if check & MEMORY_TYPES != 0 and not _types_are_valid(value, MTRR_TYPES):
        return False
    return check & PAT_TYPES == 0 or _types_are_valid(value, PAT_ALLOWED)


@kernel
def _exists(m: "State", row: int) -> bool:
    return m.cpu.msr_absent[row >> 6] >> (row & 63) & 1 == 0


@kernel
def may_read(m: "State", index: int) -> int:
    """DONE, #GP(0), or NOT_MINE."""
    row = find_row(index)
    if row == NO_ROW:
        return NOT_MINE
    if ACCESS[row] & READABLE == 0 or not _exists(m, row):
        return fault_with(exceptions.GP, 0)
    return DONE


@kernel
def may_write(m: "State", index: int, value: int) -> int:
    """DONE, #GP(0), or NOT_MINE, before any rule of the single MSR."""
    row = find_row(index)
    if row == NO_ROW:
        return NOT_MINE
    if ACCESS[row] & WRITABLE == 0 or not _exists(m, row) or not _value_is_valid(m, row, value):
        return fault_with(exceptions.GP, 0)
    return DONE
