"""Memory type range registers: kept, without effect. SDM Vol. 3A, 'Memory Type Range Registers'."""

from typing import TYPE_CHECKING

from vmxemu.isa import msrs
from vmxemu.jit import kernel
from vmxemu.layout import u64

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
CAPABILITIES = U(msrs.BY_NAME["IA32_MTRRCAP"].reset or 0)
FIRST, LAST = msrs.IA32_MTRR_PHYSBASE0, msrs.IA32_MTRR_PHYSMASK9


@kernel
def is_mtrr(index: int) -> bool:
    """Whether `index` is an MTRR or IA32_MTRRCAP."""
    if index >= FIRST and index <= LAST:
        return True
    if index >= msrs.IA32_MTRR_FIX64K_00000 and index <= msrs.IA32_MTRR_FIX4K_F8000:
        return True
    return index == msrs.IA32_MTRR_DEF_TYPE or index == msrs.IA32_MTRRCAP


@kernel
def _fixed_number(index: int) -> int:
    """Place of a fixed-range register in `mtrr_fixed`."""
    if index >= msrs.IA32_MTRR_FIX4K_C0000:
        return index - msrs.IA32_MTRR_FIX4K_C0000 + 3
    if index >= msrs.IA32_MTRR_FIX16K_80000:
        return index - msrs.IA32_MTRR_FIX16K_80000 + 1
    return 0


@kernel
def read_mtrr(m: "State", index: int) -> int:
    """Value of the MTRR."""
    if index == msrs.IA32_MTRRCAP:
        return CAPABILITIES
    if index == msrs.IA32_MTRR_DEF_TYPE:
        return m.cpu.mtrr_def_type
    if index > LAST:
        return m.cpu.mtrr_fixed[_fixed_number(index)]
    number = index - FIRST >> 1
    return m.cpu.mtrr_mask[number] if index & 1 != 0 else m.cpu.mtrr_base[number]


@kernel
def write_mtrr(m: "State", index: int, value: int) -> None:
    """Set the MTRR; the value has been checked."""
    if index == msrs.IA32_MTRR_DEF_TYPE:
        m.cpu.mtrr_def_type = value
    elif index > LAST:
        m.cpu.mtrr_fixed[_fixed_number(index)] = value
    elif index & 1 != 0:
        m.cpu.mtrr_mask[index - FIRST >> 1] = value
    else:
        m.cpu.mtrr_base[index - FIRST >> 1] = value
