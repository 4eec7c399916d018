"""VMX instructions, one kernel each. SDM Vol. 3C, 'VMX Instruction Reference'.

Each takes `vmx`, the VMX state that it acts on: `m.vmx` for the processor itself, `m.outer.nested` for what VMM1
shows to VMM2.
Operands come in as the software knows them (`pointer`) together with the host address of the memory they name
(`host`, 0 where
there is no memory). Each returns DONE, a fault or vmfail(error); finish_vmx turns that into flags and retires the
instruction.
"""

from typing import TYPE_CHECKING

from vmxemu.cpu.decode import advance
from vmxemu.cpu.flags import read_flags, write_flags
from vmxemu.cpu.layout import HF_CPL, HF_CS64, HF_LMA
from vmxemu.cpu.mode import is_virtual_8086
from vmxemu.isa import bits, capabilities, errors, exceptions
from vmxemu.jit import kernel, load32
from vmxemu.layout import u64 as U
from vmxemu.outcome import DONE, VMFAIL, detail_of, fault, fault_with, kind_of, vmfail
from vmxemu.translation.invalidate import invept as invalidate_ept
from vmxemu.translation.invalidate import invvpid as invalidate_vpid
from vmxemu.vmx.capability import (
    BASIC,
    EPT_VPID_CAP,
    MISC,
    REVISION_MASK,
    cr0_fits,
    cr4_fits,
    eptp_fits,
    field_exists,
    is_canonical,
    is_page,
)
from vmxemu.vmx.vmcs import CLEAR, NO_VMCS, is_read_only, vmcs_at, vmread_field, vmwrite_field

if TYPE_CHECKING:
    from vmxemu.state import State
    from vmxemu.vmx.layout import Vmx

ARITHMETIC_FLAGS = U(0x8D5)  # CF PF AF ZF SF OF, which every VMX instruction writes
CF, ZF = U(1), U(1 << 6)
FEATURE_LOCK, FEATURE_VMX_IN_SMX, FEATURE_VMX_OUTSIDE_SMX = U(1), U(2), U(4)  # IA32_FEATURE_CONTROL
NO_POINTER_ERROR = U(0)  # VMfailInvalid
SINGLE_CONTEXT, ALL_CONTEXTS = U(1), U(2)  # INVEPT types
VPID_ADDRESS, VPID_SINGLE, VPID_ALL, VPID_SINGLE_NOT_GLOBAL = U(0), U(1), U(2), U(3)


@kernel
def wrong_mode(m: "State") -> bool:
    """Real-address, virtual-8086 or compatibility mode: VMX instructions are invalid opcodes there."""
    if m.r.cr[0] & bits.CR0_PE == 0 or is_virtual_8086(m):
        return True
    return m.r.mode & HF_LMA != 0 and m.r.mode & HF_CS64 == 0


@kernel
def permitted(m: "State", vmx: "Vmx") -> int:
    """What every instruction but VMXON checks first: #UD outside VMX operation or in a wrong mode, #GP(0) above CPL
    0."""
    if vmx.on == 0 or wrong_mode(m):
        return fault(exceptions.UD)
    return fault_with(exceptions.GP, 0) if m.r.mode & HF_CPL != 0 else DONE


@kernel
def vmxon_permitted(m: "State", vmx: "Vmx", cr0: int, cr4: int) -> int:
    """VMXON's checks before it reads its operand. `cr0` and `cr4` are the registers as this software knows them."""
    if wrong_mode(m) or cr4 & bits.CR4_VMXE == 0:
        return fault(exceptions.UD)
    if m.r.mode & HF_CPL != 0:
        return fault_with(exceptions.GP, 0)
    if vmx.on != 0:
        return vmfail(errors.VMXON_IN_VMX_ROOT)
    capability = m.cpu.vmx_msr
    allowed = FEATURE_VMX_IN_SMX if vmx.smx != 0 else FEATURE_VMX_OUTSIDE_SMX
    if m.cpu.feature_control & FEATURE_LOCK == 0 or m.cpu.feature_control & allowed == 0:
        return fault_with(exceptions.GP, 0)
    if not cr0_fits(capability, cr0, 0) or not cr4_fits(capability, cr4):
        return fault_with(exceptions.GP, 0)
    return DONE


@kernel
def revision_at(host: int) -> int:
    """The first doubleword of a region; all ones where there is no memory."""
    return load32(host) if host != 0 else 0xFFFF_FFFF


@kernel
def vmxon(m: "State", vmx: "Vmx", pointer: int, host: int) -> int:
    """Enter VMX operation; vmxon_permitted has passed."""
    if not is_page(m, pointer) or revision_at(host) != m.cpu.vmx_msr[BASIC] & REVISION_MASK:
        return vmfail(NO_POINTER_ERROR)
    vmx.on = 1
    vmx.non_root = 0
    vmx.vmxon_pointer = pointer
    vmx.current = NO_VMCS
    vmx.host_address = 0
    return DONE


@kernel
def vmxoff(m: "State", vmx: "Vmx") -> int:
    """Leave VMX operation."""
    if vmx.in_smm_transfer != 0:
        return vmfail(errors.VMXOFF_DUAL_MONITOR)
    vmx.on = 0
    vmx.current = NO_VMCS
    vmx.host_address = 0
    return DONE


@kernel
def vmclear(m: "State", vmx: "Vmx", pointer: int, host: int) -> int:
    """Make the VMCS inactive, not current and clear."""
    if not is_page(m, pointer):
        return vmfail(errors.VMCLEAR_INVALID_ADDRESS)
    if pointer == vmx.vmxon_pointer:
        return vmfail(errors.VMCLEAR_VMXON_POINTER)
    if host != 0:
        vmcs_at(host).launch_state = CLEAR
    if pointer == vmx.current:
        vmx.current = NO_VMCS
        vmx.host_address = 0
    return DONE


@kernel
def vmptrld(m: "State", vmx: "Vmx", pointer: int, host: int) -> int:
    """Make the VMCS active and current."""
    if not is_page(m, pointer):
        return vmfail(errors.VMPTRLD_INVALID_ADDRESS)
    if pointer == vmx.vmxon_pointer:
        return vmfail(errors.VMPTRLD_VMXON_POINTER)
    # A set bit 31 (shadow VMCS) is refused too: no profile has VMCS shadowing.
    if revision_at(host) != m.cpu.vmx_msr[BASIC] & REVISION_MASK:
        return vmfail(errors.VMPTRLD_INCORRECT_REVISION_ID)
    vmx.current = pointer
    vmx.host_address = host
    return DONE


@kernel
def field_readable(m: "State", vmx: "Vmx", encoding: int) -> int:
    """Whether VMREAD may read the field: DONE or vmfail."""
    if vmx.host_address == 0:
        return vmfail(NO_POINTER_ERROR)
    return DONE if field_exists(m, vmx, encoding) else vmfail(errors.UNSUPPORTED_VMCS_COMPONENT)


@kernel
def vmread(m: "State", vmx: "Vmx", encoding: int) -> int:
    """Read a field into `m.walk.value`."""
    outcome = field_readable(m, vmx, encoding)
    if outcome == DONE:
        m.walk.value = vmread_field(vmx.host_address, encoding)
    return outcome


@kernel
def vmwrite(m: "State", vmx: "Vmx", encoding: int, value: int) -> int:
    """Write a field."""
    outcome = field_readable(m, vmx, encoding)
    if outcome != DONE:
        return outcome
    if is_read_only(encoding) and m.cpu.vmx_msr[MISC] & capabilities.MISC_VMWRITE_ALL_FIELDS == 0:
        return vmfail(errors.VMWRITE_READ_ONLY_COMPONENT)
    vmwrite_field(vmx.host_address, encoding, value)
    return DONE


@kernel
def vmcall_in_root(m: "State", vmx: "Vmx") -> int:
    """VMCALL in VMX root operation: always fails, since the dual-monitor treatment is not modelled."""
    return vmfail(errors.VMCALL_IN_VMX_ROOT)


@kernel
def invept_allowed(m: "State", vmx: "Vmx", kind: int) -> int:
    """INVEPT's checks on its type and on the descriptor in `vmx.operand_*`."""
    able = m.cpu.vmx_msr[EPT_VPID_CAP]
    single = kind == SINGLE_CONTEXT and able & capabilities.EPT_INVEPT_SINGLE_CONTEXT != 0
    everything = kind == ALL_CONTEXTS and able & capabilities.EPT_INVEPT_ALL_CONTEXT != 0
    if not single and not everything or vmx.operand_high != 0:
        return vmfail(errors.INVALID_OPERAND_TO_INVEPT_INVVPID)
    if single and not eptp_fits(m, vmx, vmx.operand_low):
        return vmfail(errors.INVALID_OPERAND_TO_INVEPT_INVVPID)
    return DONE


@kernel
def invvpid_allowed(m: "State", vmx: "Vmx", kind: int) -> int:
    """INVVPID's checks on its type and on the descriptor in `vmx.operand_*`: VPID, 48 reserved bits, linear address."""
    able = m.cpu.vmx_msr[EPT_VPID_CAP]
    if kind > 3 or able & capabilities.VPID_INVVPID_ADDRESS << kind == 0 or vmx.operand_low >> 16 != 0:
        return vmfail(errors.INVALID_OPERAND_TO_INVEPT_INVVPID)
    if kind != VPID_ALL and vmx.operand_low == 0:
        return vmfail(errors.INVALID_OPERAND_TO_INVEPT_INVVPID)
    if kind == VPID_ADDRESS and not is_canonical(m, vmx.operand_high):
        return vmfail(errors.INVALID_OPERAND_TO_INVEPT_INVVPID)
    return DONE


@kernel
def invept(m: "State", vmx: "Vmx", kind: int) -> int:
    """Invalidate mappings derived from EPT."""
    outcome = invept_allowed(m, vmx, kind)
    if outcome == DONE:
        invalidate_ept(m, kind, vmx.operand_low)
    return outcome


@kernel
def invvpid(m: "State", vmx: "Vmx", kind: int) -> int:
    """Invalidate mappings tagged with a VPID."""
    outcome = invvpid_allowed(m, vmx, kind)
    if outcome == DONE:
        invalidate_vpid(m, kind, vmx.operand_low, vmx.operand_high)
    return outcome


@kernel
def finish_vmx(m: "State", vmx: "Vmx", outcome: int) -> int:
    """VMsucceed, VMfailInvalid or VMfailValid by `outcome`, and retire the instruction; a fault passes through."""
    flags = read_flags(m) & ~ARITHMETIC_FLAGS
    if kind_of(outcome) == VMFAIL:
        error = detail_of(outcome)
        if error == NO_POINTER_ERROR or vmx.host_address == 0:
            flags = flags | CF
        else:
            flags = flags | ZF
            vmcs_at(vmx.host_address).vm_instruction_error = error
    elif outcome != DONE:
        return outcome
    write_flags(m, flags)
    advance(m)
    return DONE
