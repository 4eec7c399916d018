"""VMX instructions from fetch to retirement: fetch_operand, apply, finish_vmx. The processor's own go through
execute_root; VMM1
emulates VMM2's with the same steps on `m.outer.nested`."""

from typing import TYPE_CHECKING

from vmxemu.cpu.decode import decode
from vmxemu.isa import capabilities, exceptions, exits
from vmxemu.jit import kernel
from vmxemu.memory.physical import host_address
from vmxemu.outcome import DONE, NOT_MINE, VMFAIL, fault, kind_of, vmfail
from vmxemu.timing import costs
from vmxemu.timing.clock import charge_event
from vmxemu.vmx.capability import EPT_VPID_CAP, is_page
from vmxemu.vmx.entry import enter
from vmxemu.vmx.instructions import (
    finish_vmx,
    invept,
    invvpid,
    permitted,
    vmcall_in_root,
    vmclear,
    vmptrld,
    vmread,
    vmwrite,
    vmxoff,
    vmxon,
    vmxon_permitted,
)
from vmxemu.vmx.opcodes import NOT_VMX, vmx_reason
from vmxemu.vmx.operands import read_descriptor, read_pointer, read_register, read_rm, write_pointer, write_rm

if TYPE_CHECKING:
    from vmxemu.state import State
    from vmxemu.vmx.layout import Vmx


@kernel
def takes_pointer(reason: int) -> bool:
    """Whether the instruction's operand is the physical address of a VMX region."""
    return reason == exits.VMXON or reason == exits.VMCLEAR or reason == exits.VMPTRLD


@kernel
def fetch_operand(m: "State", vmx: "Vmx", reason: int) -> int:
    """Read the memory operand (or VMWRITE's source) into `vmx.operand_low`/`operand_high`."""
    if takes_pointer(reason):
        outcome = read_pointer(m)
    elif reason == exits.INVEPT or reason == exits.INVVPID:
        return read_descriptor(m, vmx)
    elif reason == exits.VMWRITE:
        if vmx.host_address == 0:
            return vmfail(0)
        outcome = read_rm(m)
    else:
        return DONE
    vmx.operand_low = m.walk.value
    return outcome


@kernel
def _vmread(m: "State", vmx: "Vmx") -> int:
    outcome = vmread(m, vmx, read_register(m, m.cpu.insn.register))
    return write_rm(m, m.walk.value) if outcome == DONE else outcome


@kernel
def apply(m: "State", vmx: "Vmx", reason: int, host: int) -> int:
    """Carry out the instruction on `vmx`, its operand fetched; `host` is the host address of the region that a
    pointer names.

    VMLAUNCH and VMRESUME are not here: what they load differs (vmx.entry, outer).
    """
    if reason == exits.VMREAD:
        return _vmread(m, vmx)
    if reason == exits.VMWRITE:
        return vmwrite(m, vmx, read_register(m, m.cpu.insn.register), vmx.operand_low)
    if reason == exits.VMPTRLD:
        return vmptrld(m, vmx, vmx.operand_low, host)
    if reason == exits.VMCLEAR:
        return vmclear(m, vmx, vmx.operand_low, host)
    if reason == exits.VMPTRST:
        return write_pointer(m, vmx.current)
    if reason == exits.VMXON:
        return vmxon(m, vmx, vmx.operand_low, host)
    if reason == exits.VMXOFF:
        return vmxoff(m, vmx)
    if reason == exits.VMCALL:
        return vmcall_in_root(m, vmx)
    if reason == exits.INVEPT:
        return invept(m, vmx, read_register(m, m.cpu.insn.register))
    if reason == exits.INVVPID:
        return invvpid(m, vmx, read_register(m, m.cpu.insn.register))
    return fault(exceptions.UD)


@kernel
def exists(m: "State", reason: int) -> bool:
    """Whether this processor has the instruction. VMFUNC is an invalid opcode outside VMX non-root operation."""
    able = m.cpu.vmx_msr[EPT_VPID_CAP]
    if reason == exits.INVEPT:
        return able & capabilities.EPT_INVEPT != 0
    if reason == exits.INVVPID:
        return able & capabilities.VPID_INVVPID != 0
    return reason != exits.VMFUNC


@kernel
def _charge(m: "State", reason: int) -> None:
    if reason == exits.VMREAD:
        charge_event(m, costs.VMREAD)
    elif reason == exits.VMWRITE:
        charge_event(m, costs.VMWRITE)
    elif reason == exits.INVEPT:
        charge_event(m, costs.INVEPT)
    elif reason == exits.INVVPID:
        charge_event(m, costs.INVVPID)
    elif reason != exits.VMLAUNCH and reason != exits.VMRESUME:
        charge_event(m, costs.VMX_INSTRUCTION)


@kernel
def may_execute(m: "State", vmx: "Vmx", reason: int, cr0: int, cr4: int) -> int:
    """The checks that come before the operand: DONE, #UD, #GP(0), vmfail. `cr0` and `cr4` as this software knows
    them."""
    if not exists(m, reason):
        return fault(exceptions.UD)
    return vmxon_permitted(m, vmx, cr0, cr4) if reason == exits.VMXON else permitted(m, vmx)


@kernel
def execute_decoded(m: "State", reason: int) -> int:
    """The decoded VMX instruction `reason`, for the processor itself, in VMX root operation or outside VMX
    operation."""
    outcome = may_execute(m, m.vmx, reason, m.r.cr[0], m.r.cr[4])
    if outcome == DONE:
        _charge(m, reason)
        if reason == exits.VMLAUNCH or reason == exits.VMRESUME:
            outcome = enter(m, 1 if reason == exits.VMLAUNCH else 0)
            return finish_vmx(m, m.vmx, outcome) if kind_of(outcome) == VMFAIL else outcome
        outcome = fetch_operand(m, m.vmx, reason)
    if outcome == DONE:
        host = 0
        if takes_pointer(reason) and is_page(m, m.vmx.operand_low):
            host = host_address(m, m.vmx.operand_low)
        outcome = apply(m, m.vmx, reason, host)
    return finish_vmx(m, m.vmx, outcome)


@kernel
def execute_root(m: "State") -> int:
    """Decode the instruction at RIP, which stopped as an invalid opcode, and execute it; NOT_MINE if it is no VMX
    instruction."""
    outcome = decode(m)
    if outcome != DONE:
        return outcome
    reason = vmx_reason(m)
    return NOT_MINE if reason == NOT_VMX else execute_decoded(m, reason)
