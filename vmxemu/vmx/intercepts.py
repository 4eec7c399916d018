"""Which instructions Unicorn stops before: its SVM intercept words, for the world that runs now.

Some are always caught because the emulator itself carries them out; the others as the current VMCS's controls ask.
Which of them
then become VM exits is decided in vmx.controls.
"""

from typing import TYPE_CHECKING

from vmxemu.isa import controls
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.vmx.checks_controls import secondary_controls
from vmxemu.vmx.vmcs import vmcs_at

if TYPE_CHECKING:
    from vmxemu.state import State


def _bit(code: int) -> int:
    """Bit of the intercept word for an SVM exit code."""
    return U(1 << code - 0x60)


DESCRIPTOR_TABLES = U(0xFF << 6)  # reads and writes of IDTR, GDTR, LDTR, TR: codes 66h..6Dh
RDTSC, RDPMC, PUSHF, POPF, CPUID, RSM, IRET, INT_N, INVD, PAUSE, HLT, INVLPG = (_bit(0x6E + i) for i in range(12))
INVLPGA, MSR, RDTSCP, WBINVD = _bit(0x7A), _bit(0x7C), _bit(0x87), _bit(0x89)
ALWAYS = RDTSC | RDPMC | CPUID | RSM | INT_N | INVD | HLT | INVLPG | INVLPGA | MSR | RDTSCP | WBINVD
SINGLE_STEP = PUSHF | POPF
ALL_EXCEPTIONS = U(0xFFFF_FFFF)
CR_WRITES, DR_WRITES = U(0xFFFF), U(0xFFFF)
CR8_READ, CR4_READ, CR3_READ, CR0_READ = U(1 << 8), U(1 << 4), U(1 << 3), U(1)


@kernel
def _for_guest(m: "State") -> None:
    """Add what the controls of the current VMCS ask for."""
    v = vmcs_at(m.vmx.host_address)
    primary = v.cpu_based_vm_exec_control
    secondary = secondary_controls(v)
    reads = CR8_READ
    if v.cr0_guest_host_mask != 0:
        reads = reads | CR0_READ
    if v.cr4_guest_host_mask != 0:
        reads = reads | CR4_READ
    if primary & controls.CPU_CR3_STORE != 0:
        reads = reads | CR3_READ
    m.r.intercept_cr_read = reads
    if primary & controls.CPU_MOV_DR != 0:
        m.r.intercept_dr_read = DR_WRITES
    word = m.r.intercept
    if primary & controls.CPU_PAUSE != 0 or secondary & controls.SECONDARY_PAUSE_LOOP != 0:
        word = word | PAUSE
    if secondary & controls.SECONDARY_DESCRIPTOR_TABLE != 0:
        word = word | DESCRIPTOR_TABLES
    m.r.intercept = word


@kernel
def program(m: "State") -> None:
    """Fill the intercept words of `m.r`: call after each change of world, of the VMCS in force, of NMI blocking or
    single-stepping."""
    word = ALWAYS
    if m.cpu.nmi_blocked != 0:
        word = word | IRET
    if m.cpu.single_step != 0:
        word = word | SINGLE_STEP
    m.r.intercept = word
    m.r.intercept_cr_read = CR8_READ
    m.r.intercept_cr_write = CR_WRITES
    m.r.intercept_dr_read = 0
    m.r.intercept_dr_write = DR_WRITES
    m.r.intercept_exceptions = ALL_EXCEPTIONS
    if m.vmx.non_root != 0:
        _for_guest(m)
