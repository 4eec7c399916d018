"""RDMSR and WRMSR of the processor's own MSRs; APIC, machine check and configuration are the platform's. SDM Vol. 4."""

from typing import TYPE_CHECKING

from vmxemu.cpu.layout import FS, GS, RAX, RCX, RDX
from vmxemu.cpu.msr_table import may_read, may_write
from vmxemu.cpu.mtrr import is_mtrr, read_mtrr, write_mtrr
from vmxemu.cpu.protection_keys import write_pkrs
from vmxemu.isa import exceptions, msrs
from vmxemu.isa.bits import CR0_PG, EFER_LMA, EFER_LME, EFER_NXE
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, fault_with
from vmxemu.timing.clock import now_cycles, read_tsc
from vmxemu.translation.invalidate import on_paging_change, on_rights_change

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
LOCKED = U(1)
LOW_HALF = U(0xFFFFFFFF)


@kernel
def msr_index(m: "State") -> int:
    """ECX."""
    return m.r.gpr[RCX] & LOW_HALF


@kernel
def msr_operand(m: "State") -> int:
    """EDX:EAX, what WRMSR writes."""
    return m.r.gpr[RDX] << 32 | m.r.gpr[RAX] & LOW_HALF


@kernel
def return_msr(m: "State", value: int) -> None:
    """EDX:EAX := value, as RDMSR does."""
    m.r.gpr[RAX] = value & LOW_HALF
    m.r.gpr[RDX] = value >> 32


@kernel
def _refused() -> int:
    return fault_with(exceptions.GP, 0)


@kernel
def _read_register_file(m: "State", index: int) -> int:
    """MSRs that live in Unicorn's state."""
    if index == msrs.IA32_EFER:
        return m.r.efer
    if index == msrs.IA32_STAR:
        return m.r.star
    if index == msrs.IA32_LSTAR:
        return m.r.lstar
    if index == msrs.IA32_CSTAR:
        return m.r.cstar
    if index == msrs.IA32_FMASK:
        return m.r.fmask
    if index == msrs.IA32_FS_BASE:
        return m.r.seg[FS].base
    if index == msrs.IA32_GS_BASE:
        return m.r.seg[GS].base
    if index == msrs.IA32_KERNEL_GS_BASE:
        return m.r.kernel_gs_base
    if index == msrs.IA32_TSC_AUX:
        return m.r.tsc_aux & LOW_HALF
    if index == msrs.IA32_SYSENTER_CS:
        return m.r.sysenter_cs & LOW_HALF
    if index == msrs.IA32_SYSENTER_ESP:
        return m.r.sysenter_esp
    if index == msrs.IA32_SYSENTER_EIP:
        return m.r.sysenter_eip
    return m.r.pat  # IA32_PAT


@kernel
def _in_register_file(index: int) -> bool:
    if index >= msrs.IA32_EFER and index <= msrs.IA32_TSC_AUX:
        return True
    return index == msrs.IA32_PAT or (index >= msrs.IA32_SYSENTER_CS and index <= msrs.IA32_SYSENTER_EIP)


@kernel
def is_vmx_capability(index: int) -> bool:
    """Whether the MSR is one of the VMX capability MSRs."""
    return index >= msrs.IA32_VMX_BASIC and index <= msrs.IA32_VMX_EXIT_CTLS2


@kernel
def _read_other(m: "State", index: int) -> int:
    """MSRs that live in `m.cpu`."""
    cpu = m.cpu
    if index == msrs.IA32_TIME_STAMP_COUNTER:
        return read_tsc(m)
    if index == msrs.IA32_TSC_ADJUST:
        return cpu.tsc_adjust
    if index == msrs.IA32_MPERF or index == msrs.IA32_APERF:
        return now_cycles(m)
    if index == msrs.IA32_FEATURE_CONTROL:
        return cpu.feature_control
    if index == msrs.IA32_MISC_ENABLE:
        return cpu.misc_enable
    if index == msrs.IA32_DEBUGCTL:
        return cpu.debugctl
    if index == msrs.IA32_SPEC_CTRL:
        return cpu.spec_ctrl
    if index == msrs.IA32_BIOS_SIGN_ID:
        return cpu.microcode_revision << 32
    if index == msrs.IA32_SMBASE:
        return cpu.smbase
    if index == msrs.IA32_SMM_MONITOR_CTL:
        return cpu.smm_monitor_ctl
    if index == msrs.IA32_SMRR_PHYSBASE:
        return cpu.smrr_base
    if index == msrs.IA32_SMRR_PHYSMASK:
        return cpu.smrr_mask
    if index == msrs.MSR_SMI_COUNT:
        return cpu.smi_count
    if index == msrs.MSR_PLATFORM_INFO:
        return cpu.platform_info
    if index == msrs.IA32_ARCH_CAPABILITIES:
        return cpu.arch_capabilities
    if index == msrs.IA32_PKRS:
        return m.paging.pkrs
    return cpu.xss if index == msrs.IA32_XSS else 0


@kernel
def read_msr(m: "State", index: int) -> int:
    """Value in m.walk.value. Outcomes: DONE, #GP(0), NOT_MINE."""
    outcome = may_read(m, index)
    if outcome != DONE:
        return outcome
    if _in_register_file(index):
        m.walk.value = _read_register_file(m, index)
    elif is_mtrr(index):
        m.walk.value = read_mtrr(m, index)
    elif is_vmx_capability(index):
        m.walk.value = m.cpu.vmx_msr[index - msrs.IA32_VMX_BASIC]
    elif index == msrs.IA32_SMBASE and m.cpu.in_smm == 0:  # readable only in SMM
        return _refused()
    else:
        m.walk.value = _read_other(m, index)
    return DONE


@kernel
def write_efer(m: "State", value: int) -> int:
    """WRMSR to IA32_EFER: LMA is read-only, LME is fixed while paging is on."""
    if value & ~(m.cpu.efer_allowed | EFER_LMA) != 0:
        return _refused()
    changed = value ^ m.r.efer
    if changed & EFER_LME != 0 and m.r.cr[0] & CR0_PG != 0:
        return _refused()
    m.r.efer = value & ~EFER_LMA | m.r.efer & EFER_LMA
    if changed & EFER_NXE != 0:
        on_rights_change(m)
    return DONE


@kernel
def _write_register_file(m: "State", index: int, value: int) -> int:
    if index == msrs.IA32_EFER:
        return write_efer(m, value)
    if index == msrs.IA32_STAR:
        m.r.star = value
    elif index == msrs.IA32_LSTAR:
        m.r.lstar = value
    elif index == msrs.IA32_CSTAR:
        m.r.cstar = value
    elif index == msrs.IA32_FMASK:
        m.r.fmask = value
    elif index == msrs.IA32_FS_BASE:
        m.r.seg[FS].base = value
    elif index == msrs.IA32_GS_BASE:
        m.r.seg[GS].base = value
    elif index == msrs.IA32_KERNEL_GS_BASE:
        m.r.kernel_gs_base = value
    elif index == msrs.IA32_TSC_AUX:
        m.r.tsc_aux = value
    elif index == msrs.IA32_SYSENTER_CS:
        m.r.sysenter_cs = value & LOW_HALF
    elif index == msrs.IA32_SYSENTER_ESP:
        m.r.sysenter_esp = value
    elif index == msrs.IA32_SYSENTER_EIP:
        m.r.sysenter_eip = value
    else:
        m.r.pat = value
    return DONE


@kernel
def _write_locked(m: "State", index: int, value: int) -> int:
    """MSRs that firmware locks, or that only SMM may write."""
    cpu = m.cpu
    if index == msrs.IA32_FEATURE_CONTROL:
        if cpu.feature_control & LOCKED != 0:
            return _refused()
        cpu.feature_control = value
        return DONE
    if cpu.in_smm == 0:
        return _refused()
    if index == msrs.IA32_SMM_MONITOR_CTL:
        cpu.smm_monitor_ctl = value
    elif index == msrs.IA32_SMRR_PHYSBASE:
        cpu.smrr_base = value
    else:
        cpu.smrr_mask = value
    return DONE


@kernel
def _write_other(m: "State", index: int, value: int) -> int:
    cpu = m.cpu
    if index == msrs.IA32_TIME_STAMP_COUNTER:
        offset = value - now_cycles(m)
        cpu.tsc_adjust = cpu.tsc_adjust + (offset - cpu.tsc_offset)
        cpu.tsc_offset = offset
    elif index == msrs.IA32_TSC_ADJUST:
        cpu.tsc_offset = cpu.tsc_offset + (value - cpu.tsc_adjust)
        cpu.tsc_adjust = value
    elif index == msrs.IA32_MISC_ENABLE:
        cpu.misc_enable = value
    elif index == msrs.IA32_DEBUGCTL:
        cpu.debugctl = value
    elif index == msrs.IA32_SPEC_CTRL:
        cpu.spec_ctrl = value
    elif index == msrs.IA32_PKRS:
        write_pkrs(m, value)
    elif index == msrs.IA32_XSS and value != 0:  # no supervisor state component exists here
        return _refused()
    # The rest have no effect here: PRED_CMD, FLUSH_CMD, BIOS_UPDT_TRIG, BIOS_SIGN_ID, PERF_CTL, MPERF, APERF.
    return DONE


@kernel
def write_msr(m: "State", index: int, value: int) -> int:
    """Outcomes: DONE, #GP(0), NOT_MINE."""
    outcome = may_write(m, index, value)
    if outcome != DONE:
        return outcome
    if _in_register_file(index):
        return _write_register_file(m, index, value)
    if is_mtrr(index):
        write_mtrr(m, index, value)
        on_paging_change(m)
        return DONE
    if index == msrs.IA32_FEATURE_CONTROL or index == msrs.IA32_SMM_MONITOR_CTL:
        return _write_locked(m, index, value)
    if index == msrs.IA32_SMRR_PHYSBASE or index == msrs.IA32_SMRR_PHYSMASK:
        return _write_locked(m, index, value)
    return _write_other(m, index, value)
