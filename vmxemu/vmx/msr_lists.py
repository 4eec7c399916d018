"""The MSR-load and MSR-store areas of VM entry and VM exit. SDM Vol. 3C, 'Loading MSRs', 'Saving MSRs'."""

from typing import TYPE_CHECKING

from vmxemu.cpu.msr import read_msr, write_msr
from vmxemu.isa import msrs
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import read64, write64
from vmxemu.outcome import DONE
from vmxemu.vmx.capability import MISC

if TYPE_CHECKING:
    from vmxemu.state import State

X2APIC_PAGE = U(8)  # bits 31:8 of the x2APIC MSRs


@kernel
def _most(m: "State") -> int:
    """Entries that an area may have (beyond it the SDM promises nothing; here the first one more fails)."""
    return 512 * ((m.cpu.vmx_msr[MISC] >> 25 & 7) + 1)


@kernel
def load_list(m: "State", count: int, address: int) -> int:
    """WRMSR of each entry. Returns 0, or the 1-based number of the entry that failed."""
    number = U(0)
    while number < count:
        number = number + 1
        word = read64(m, address)
        if number > _most(m) or word >> 32 != 0 or word >> 8 == X2APIC_PAGE:
            return number
        if word == msrs.IA32_FS_BASE or word == msrs.IA32_GS_BASE or word == msrs.IA32_SMM_MONITOR_CTL:
            return number
        if write_msr(m, word, read64(m, address + 8)) != DONE:
            return number
        address = address + 16
    return U(0)


@kernel
def store_list(m: "State", count: int, address: int) -> int:
    """RDMSR of each entry. Returns 0, or the 1-based number of the entry that failed."""
    number = U(0)
    while number < count:
        number = number + 1
        word = read64(m, address)
        if number > _most(m) or word >> 32 != 0 or word >> 8 == X2APIC_PAGE or word == msrs.IA32_SMBASE:
            return number
        if read_msr(m, word) != DONE:
            return number
        write64(m, address + 8, m.walk.value)
        address = address + 16
    return U(0)
