"""What a processor's VMX can do: the capability MSRs 480H..493H. SDM Vol. 3D, App. A.

The real processor's are in `m.cpu.vmx_msr`. The virtual one that VMM1 shows to VMM2 has the same, less what its `withheld` says;
for the real one that is nothing.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from vmxemu.isa import capabilities, controls, fields, msrs
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.vmx.vmcs import NO_SLOT, slot_of

if TYPE_CHECKING:
    from vmxemu.layout import Array
    from vmxemu.state import State
    from vmxemu.vmx.layout import Vmx

FIRST = int(msrs.IA32_VMX_BASIC)
(
    BASIC,
    PIN_CTLS,
    CPU_CTLS,
    EXIT_CTLS,
    ENTRY_CTLS,
    MISC,
    CR0_FIXED0,
    CR0_FIXED1,
    CR4_FIXED0,
    CR4_FIXED1,
    VMCS_ENUM,
    CPU_CTLS2,
    EPT_VPID_CAP,
    TRUE_PIN_CTLS,
    TRUE_CPU_CTLS,
    TRUE_EXIT_CTLS,
    TRUE_ENTRY_CTLS,
    VMFUNC_CTLS,
    CPU_CTLS3,
    EXIT_CTLS2,
) = (U(i) for i in range(20))

REVISION_MASK = U(0x7FFF_FFFF)  # of IA32_VMX_BASIC
TIMER_RATE_MASK = U(0x1F)  # of IA32_VMX_MISC
ALL_ONES = U(0xFFFF_FFFF_FFFF_FFFF)
# EPTP: memory type, page-walk length less 1, flags
UC, WB, WALK_4, WALK_5 = U(0), U(6), U(3), U(4)
EPTP_ACCESSED_DIRTY, EPTP_SUPERVISOR_SHADOW_STACK, EPTP_RESERVED = U(1 << 6), U(1 << 7), U(0xF00)
_TRUE_DISTANCE = TRUE_PIN_CTLS - PIN_CTLS


def _conditions() -> tuple[Any, Any]:
    """For each slot, up to two (MSR index, mask of that MSR) of which one must be set for the field to exist."""
    where = {
        "pin": (PIN_CTLS, 32),
        "primary": (CPU_CTLS, 32),
        "secondary": (CPU_CTLS2, 32),
        "tertiary": (CPU_CTLS3, 0),
        "exit": (EXIT_CTLS, 32),
        "entry": (ENTRY_CTLS, 32),
        "exit2": (EXIT_CTLS2, 0),
        "vmfunc": (VMFUNC_CTLS, 0),
    }
    index, mask = np.zeros(2 * len(fields.ROWS), np.uint64), np.zeros(2 * len(fields.ROWS), np.uint64)
    for slot, row in enumerate(fields.ROWS):
        if not row.exists_if:
            mask[2 * slot] = 1 << 32 | 0x7FFF_FFFF  # some bit of IA32_VMX_BASIC is always set
        for k, name in enumerate(row.exists_if):
            if name in controls.BY_NAME:
                word, shift = where[controls.BY_NAME[name].word]
                index[2 * slot + k], mask[2 * slot + k] = word, controls.BY_NAME[name].mask << shift
    return index, mask


CONDITION_MSR: "Array[int]"
CONDITION_MASK: "Array[int]"
CONDITION_MSR, CONDITION_MASK = _conditions()


@kernel
def able(m: "State", vmx: "Vmx", which: int) -> int:
    """Capability MSR 480H + `which` of the processor whose VMX state is `vmx`."""
    return m.cpu.vmx_msr[which] & ~vmx.withheld[which]


@kernel
def fits(m: "State", vmx: "Vmx", which: int, value: int) -> bool:
    """Whether a control word keeps to the allowed 0- and 1-settings of MSR 480H + `which` (the TRUE one if there is
    one)."""
    if PIN_CTLS <= which <= ENTRY_CTLS and m.cpu.vmx_msr[BASIC] & capabilities.BASIC_TRUE_CONTROLS != 0:
        which = which + _TRUE_DISTANCE
    allowed = able(m, vmx, which)
    return value & (allowed & 0xFFFF_FFFF) == allowed & 0xFFFF_FFFF and value & ~(allowed >> 32) == 0


@kernel
def field_exists(m: "State", vmx: "Vmx", encoding: int) -> bool:
    """Whether VMREAD and VMWRITE know the field on this processor. SDM Vol. 3D, App. B: some fields depend on a
    control's support."""
    slot = slot_of(encoding)
    if slot == NO_SLOT:
        return False
    first = able(m, vmx, CONDITION_MSR[slot << 1]) & CONDITION_MASK[slot << 1]
    second = able(m, vmx, CONDITION_MSR[slot << 1 | 1]) & CONDITION_MASK[slot << 1 | 1]
    return first | second != 0


@kernel
def is_physical(m: "State", address: int) -> bool:
    """Whether the address fits in the processor's physical-address width (in 32 bits where VMX structures must)."""
    if m.cpu.vmx_msr[BASIC] & capabilities.BASIC_PHYSICAL_32_BIT != 0:
        return address >> 32 == 0
    return address >> m.cpu.physical_bits == 0


@kernel
def is_page(m: "State", address: int) -> bool:
    """Whether the address may be that of a 4-KiB VMX structure."""
    return address & 0xFFF == 0 and is_physical(m, address)


@kernel
def is_canonical(m: "State", address: int) -> bool:
    """Whether bits 63:N-1 of a linear address are all equal."""
    top = address >> (m.cpu.linear_bits - 1)
    return top == 0 or top == ALL_ONES >> (m.cpu.linear_bits - 1)


@kernel
def cr0_fits(capability: "Array[int]", value: int, ignored: int) -> bool:
    """Whether CR0 has the values that VMX operation fixes; `ignored` are bits left free (PE and PG of an unrestricted
    guest)."""
    return ~value & capability[CR0_FIXED0] & ~ignored == 0 and value & ~capability[CR0_FIXED1] == 0


@kernel
def cr4_fits(capability: "Array[int]", value: int) -> bool:
    """Whether CR4 has the values that VMX operation fixes."""
    return ~value & capability[CR4_FIXED0] == 0 and value & ~capability[CR4_FIXED1] == 0


@kernel
def eptp_fits(m: "State", vmx: "Vmx", eptp: int) -> bool:
    """Whether VM entry accepts this EPT pointer. SDM Vol. 3C, 'VM-Execution Control Fields' (checks)."""
    has = able(m, vmx, EPT_VPID_CAP)
    memory_type = eptp & 7
    length = eptp >> 3 & 7
    if memory_type != WB and memory_type != UC or length != WALK_4 and length != WALK_5:
        return False
    needed = capabilities.EPT_MEMORY_TYPE_WB if memory_type == WB else capabilities.EPT_MEMORY_TYPE_UC
    needed = needed | (capabilities.EPT_WALK_4 if length == WALK_4 else capabilities.EPT_WALK_5)
    if eptp & EPTP_ACCESSED_DIRTY != 0:
        needed = needed | capabilities.EPT_ACCESSED_DIRTY
    if eptp & EPTP_SUPERVISOR_SHADOW_STACK != 0:
        needed = needed | capabilities.EPT_SUPERVISOR_SHADOW_STACK
    return needed & ~has == 0 and eptp & EPTP_RESERVED == 0 and is_physical(m, eptp)
