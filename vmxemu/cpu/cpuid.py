"""CPUID: the profile's table, and the bits that follow the processor's state. SDM Vol. 2A, 'CPUID'."""

from typing import TYPE_CHECKING

from vmxemu.cpu.layout import HF_CS64, RAX, RBX, RCX, RDX
from vmxemu.isa import cpuid
from vmxemu.isa.bits import CR4_OSXSAVE, CR4_PKE
from vmxemu.jit import kernel
from vmxemu.layout import u64

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
NO_ROW = U(0xFFFFFFFF)
EXTENDED = U(0x80000000)
HYPERVISOR_FIRST, HYPERVISOR_LAST = U(0x40000000), U(0x4FFFFFFF)
LOW_HALF = U(0xFFFFFFFF)
APIC_ENABLED, MONITOR_ENABLED = U(1 << 11), U(1 << 18)  # in IA32_APIC_BASE, in IA32_MISC_ENABLE
BIT = {feature.name: U(1 << feature.bit) for feature in cpuid.FEATURES}
OSXSAVE, OSPKE = U(1 << 27), U(1 << 4)
APIC, MONITOR, SYSCALL = BIT["APIC"], BIT["MONITOR"], BIT["SYSCALL"]


@kernel
def find_leaf(m: "State", leaf: int, subleaf: int) -> int:
    """Row of the table, NO_ROW if there is none."""
    for i in range(m.cpu.cpuid_count):
        row = m.cpu.cpuid[i]
        if row.leaf == leaf and (row.any_subleaf != 0 or row.subleaf == subleaf):
            return U(i)
    return NO_ROW


@kernel
def _effective_leaf(m: "State", leaf: int) -> int:
    """Leaves beyond the highest one give the highest basic leaf's data."""
    basic = find_leaf(m, 0, 0)
    if basic == NO_ROW:
        return leaf
    highest = m.cpu.cpuid[basic].eax
    if leaf >= EXTENDED:
        extended = find_leaf(m, EXTENDED, 0)
        if extended != NO_ROW and leaf <= m.cpu.cpuid[extended].eax:
            return leaf
        return highest
    return highest if leaf > highest else leaf


@kernel
def _set_dynamic_bits(m: "State", leaf: int, subleaf: int) -> None:
    """Bits that mirror control registers and MSRs."""
    ecx = m.r.gpr[RCX]
    edx = m.r.gpr[RDX]
    if leaf == 1:
        ecx = ecx & ~OSXSAVE
        if m.r.cr[4] & CR4_OSXSAVE != 0:
            ecx = ecx | OSXSAVE
        if m.cpu.misc_enable & MONITOR_ENABLED == 0:
            ecx = ecx & ~MONITOR
        if m.cpu.apic_base & APIC_ENABLED == 0:
            edx = edx & ~APIC
    elif leaf == 7 and subleaf == 0:
        ecx = ecx & ~OSPKE
        if m.r.cr[4] & CR4_PKE != 0:
            ecx = ecx | OSPKE
    elif leaf == EXTENDED | 1 and m.r.mode & HF_CS64 == 0:
        edx = edx & ~SYSCALL
    m.r.gpr[RCX] = ecx
    m.r.gpr[RDX] = edx


@kernel
def execute_cpuid(m: "State") -> None:
    """EAX to EDX for the leaf in EAX and the subleaf in ECX; RIP does not move."""
    leaf = _effective_leaf(m, m.r.gpr[RAX] & LOW_HALF)
    subleaf = m.r.gpr[RCX] & LOW_HALF
    found = find_leaf(m, leaf, subleaf)
    if found == NO_ROW:
        m.r.gpr[RAX] = 0
        m.r.gpr[RBX] = 0
        m.r.gpr[RCX] = 0
        m.r.gpr[RDX] = 0
        return
    row = m.cpu.cpuid[found]
    m.r.gpr[RAX] = row.eax
    m.r.gpr[RBX] = row.ebx
    m.r.gpr[RCX] = row.ecx
    m.r.gpr[RDX] = row.edx
    _set_dynamic_bits(m, leaf, subleaf)


@kernel
def has_feature_ecx(m: "State", leaf: int, subleaf: int, bit: int) -> bool:
    """Whether the profile has a feature flag that CPUID reports in ECX."""
    row = find_leaf(m, leaf, subleaf)
    return row != NO_ROW and m.cpu.cpuid[row].ecx & bit != 0


@kernel
def has_feature_ebx(m: "State", leaf: int, subleaf: int, bit: int) -> bool:
    """Whether the profile has a feature flag that CPUID reports in EBX."""
    row = find_leaf(m, leaf, subleaf)
    return row != NO_ROW and m.cpu.cpuid[row].ebx & bit != 0


@kernel
def has_feature_edx(m: "State", leaf: int, subleaf: int, bit: int) -> bool:
    """Whether the profile has a feature flag that CPUID reports in EDX."""
    row = find_leaf(m, leaf, subleaf)
    return row != NO_ROW and m.cpu.cpuid[row].edx & bit != 0
