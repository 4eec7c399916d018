"""Power-on state of the processor. SDM Vol. 3A, 'Processor Management and Initialization', table of register states after reset."""

from typing import Any

from vmxemu.cpu.layout import CS, GDTR, IDTR, LDTR, RDX, TR
from vmxemu.cpu.mode import refresh_mode
from vmxemu.cpu.msr_table import hide_absent_msrs
from vmxemu.isa import bits, msrs
from vmxemu.isa.cpus import CpuProfile
from vmxemu.layout import Record
from vmxemu.timing import costs
from vmxemu.vmx.intercepts import program
from vmxemu.vmx.vmcs import NO_VMCS

DATA_FLAGS, CODE_FLAGS, LDT_FLAGS, TSS_FLAGS = 0x9300, 0x9B00, 0x8200, 0x8B00
SUBLEAF_LEAVES = frozenset((4, 7, 0xB, 0xD, 0xF, 0x10, 0x12, 0x14, 0x17, 0x18, 0x1F))  # ECX selects among their rows
PAT_RESET = 0x0007_0406_0007_0406
MISC_ENABLE_MONITOR = 1 << 18


def describe_platform(m: Record, profile: CpuProfile, frequency: int | None) -> None:
    """What platform.reset builds on."""
    m.platform.tsc_hz = frequency or profile.identity.tsc_hz
    m.platform.lapic_hz = profile.identity.crystal_hz
    m.platform.mca.capabilities = profile.msr_values[int(msrs.IA32_MCG_CAP)]


def reset_processor(m: Any, profile: CpuProfile, seed: int = 0, smbase: int = 0x30000) -> None:
    """Bring registers and processor state to their reset values; the profile gives what differs between processors."""
    registers = m.r
    for number in range(16):
        registers.gpr[number] = 0
    registers.gpr[RDX] = profile.identity.signature
    registers.rip, registers.eflags, registers.cc_op, registers.cc_src, registers.df = 0xFFF0, 2, 1, 0, 1
    for number in range(10):
        segment = registers.seg[number]
        segment.selector, segment.base, segment.limit, segment.flags = 0, 0, 0xFFFF, DATA_FLAGS
    registers.seg[CS].selector, registers.seg[CS].base, registers.seg[CS].flags = 0xF000, 0xFFFF0000, CODE_FLAGS
    registers.seg[LDTR].flags, registers.seg[TR].flags = LDT_FLAGS, TSS_FLAGS
    registers.seg[GDTR].flags = registers.seg[IDTR].flags = 0
    for number, value in ((0, 0x6000_0010), (2, 0), (3, 0), (4, 0)):
        registers.cr[number] = value
    registers.efer, registers.pat, registers.tsc_aux = 0, PAT_RESET, 0
    registers.dr[6], registers.dr[7] = 0xFFFF_0FF0, 0x400
    registers.mode = 1 << 21  # interception on, as always
    _processor(m, profile, smbase)
    m.cpu.random = seed
    refresh_mode(m)
    program(m)


def _processor(m: Any, profile: CpuProfile, smbase: int) -> None:
    cpu = m.cpu
    cpu.apic_base, cpu.smbase = 0xFEE0_0900, smbase
    cpu.physical_bits, cpu.linear_bits = profile.identity.physical_bits, profile.identity.linear_bits
    cpu.cr4_allowed = bits.supported("CR4", profile.features)
    cpu.efer_allowed = bits.supported("EFER", profile.features)
    values = profile.reset_values()
    cpu.misc_enable = values[int(msrs.IA32_MISC_ENABLE)]
    if "MONITOR" not in profile.features:
        cpu.misc_enable = int(cpu.misc_enable) & ~MISC_ENABLE_MONITOR
    cpu.platform_info = values[int(msrs.MSR_PLATFORM_INFO)]
    cpu.arch_capabilities = values.get(int(msrs.IA32_ARCH_CAPABILITIES), 0)
    cpu.microcode_revision = profile.identity.microcode_revision
    cpu.xcr0 = cpu.xcr0_allowed = 1  # x87 only: no profile has XSAVE
    hide_absent_msrs(m, profile.features | profile.vmx.control_names | frozenset(profile.mca.capabilities))
    m.paging.no_1g_pages = int("PAGE1GB" not in profile.features)
    for index in range(20):
        cpu.vmx_msr[index] = values.get(int(msrs.IA32_VMX_BASIC) + index, 0)
    cpu.cpuid_count = len(profile.cpuid)
    subleafs: dict[int, int] = {}
    for leaf, *_ in profile.cpuid:
        subleafs[leaf] = subleafs.get(leaf, 0) + 1
    for number, (leaf, subleaf, *values4) in enumerate(profile.cpuid):
        row = cpu.cpuid[number]
        row.leaf, row.subleaf = leaf, subleaf
        row.any_subleaf = int(leaf not in SUBLEAF_LEAVES)
        row.eax, row.ebx, row.ecx, row.edx = values4
    m.vmx.current = m.vmx.vmxon_pointer = int(NO_VMCS)
    m.clock.limit = (1 << 64) - 1
    for number, name in enumerate(costs.ROWS.values()):
        m.clock.cost[number] = profile.costs[name]
