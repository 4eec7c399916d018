"""CR0, CR3, CR4 and CR8: what software may write and what follows.

SDM Vol. 2B, 'MOV - Move to/from Control Registers'; Vol. 3A, 'Control Registers'.
"""

from typing import TYPE_CHECKING

from vmxemu.cpu.layout import CS, HF_CS64, SEG_L, TR
from vmxemu.cpu.mode import refresh_mode
from vmxemu.isa import bits, exceptions
from vmxemu.isa.bits import (
    CR0_CD,
    CR0_EM,
    CR0_ET,
    CR0_MP,
    CR0_NW,
    CR0_PE,
    CR0_PG,
    CR0_TS,
    CR0_WP,
    CR4_LA57,
    CR4_PAE,
    CR4_PCIDE,
    CR4_PGE,
    CR4_PKE,
    CR4_PKS,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    CR4_VMXE,
    EFER_LMA,
    EFER_LME,
)
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, fault, fault_with
from vmxemu.translation.invalidate import on_cr3_write, on_paging_change, on_rights_change, on_smep_set
from vmxemu.translation.pdpte import load_pdptes

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
CR0_EXISTS = U(bits.supported("CR0", frozenset()))  # other bits of the low half are ignored when written
LMSW_CLEARS = CR0_MP | CR0_EM | CR0_TS
LOW_HALF = U(0xFFFFFFFF)
NO_FLUSH = U(1 << 63)
PCID_MASK = U(0xFFF)
CR4_RELOADS_PDPTES = CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP
CR4_FLUSHES = CR4_PAE | CR4_PGE | CR4_PSE
CR4_RIGHTS = CR4_SMAP | CR4_SMEP | CR4_PKE | CR4_PKS | CR4_LA57
FIXED0_CR0, FIXED1_CR0, FIXED0_CR4, FIXED1_CR4 = U(6), U(7), U(8), U(9)  # in m.cpu.vmx_msr
TYPE_MASK = U(0xD00)  # of a TSS, the busy bit left out
TSS_16 = U(0x100)


@kernel
def protection_fault() -> int:
    """#GP(0)."""
    return fault_with(exceptions.GP, 0)


@kernel
def read_cr(m: "State", n: int) -> int:
    """CR0, CR2, CR3, CR4 or CR8."""
    return m.cpu.tpr >> 4 if n == 8 else m.r.cr[n]


@kernel
def above_physical(m: "State", value: int) -> bool:
    """Whether `value` has bits that no physical address has."""
    return value >> m.cpu.physical_bits != 0


@kernel
def _violates_fixed_bits(m: "State", value: int, fixed0: int, fixed1: int) -> bool:
    """VMX operation fixes some bits. SDM Vol. 3C, 'Restrictions on VMX Operation'."""
    if m.vmx.on == 0:
        return False
    ones = m.cpu.vmx_msr[fixed0]
    if fixed0 == FIXED0_CR0 and m.vmx.non_root != 0 and m.cpu.unrestricted != 0:
        ones = ones & ~(CR0_PE | CR0_PG)
    return ones & ~value != 0 or value & ~m.cpu.vmx_msr[fixed1] != 0


@kernel
def _refuses_cr0(m: "State", value: int) -> bool:
    """Whether MOV to CR0 of `value` is a #GP(0)."""
    if (
        value > LOW_HALF
        or (value & CR0_PG != 0 and value & CR0_PE == 0)
        or (value & CR0_NW != 0 and value & CR0_CD == 0)
    ):
        return True
    if _violates_fixed_bits(m, value, FIXED0_CR0, FIXED1_CR0):
        return True
    if value & CR0_PG == 0:
        return m.r.cr[4] & CR4_PCIDE != 0 or (m.r.cr[0] & CR0_PG != 0 and m.r.mode & HF_CS64 != 0)
    if m.r.cr[0] & CR0_PG == 0 and m.r.efer & EFER_LME != 0:  # IA-32e mode would begin
        return m.r.cr[4] & CR4_PAE == 0 or m.r.seg[CS].flags & SEG_L != 0 or m.r.seg[TR].flags & TYPE_MASK == TSS_16
    return False


@kernel
def write_cr0(m: "State", value: int) -> int:
    """MOV to CR0."""
    if _refuses_cr0(m, value):
        return protection_fault()
    value = value & CR0_EXISTS | CR0_ET
    changed = value ^ m.r.cr[0]
    efer = m.r.efer & ~EFER_LMA
    if value & CR0_PG != 0 and efer & EFER_LME != 0:
        efer = efer | EFER_LMA
    pae = value & CR0_PG != 0 and m.r.cr[4] & CR4_PAE != 0 and efer & EFER_LMA == 0
    if pae and changed & (CR0_PG | CR0_CD | CR0_NW) != 0:
        outcome = load_pdptes(m, m.r.cr[3])
        if outcome != DONE:
            return outcome
    m.r.cr[0] = value
    m.r.efer = efer
    refresh_mode(m)
    if changed & (CR0_PG | CR0_PE) != 0:
        on_paging_change(m)
    elif changed & CR0_WP != 0:
        on_rights_change(m)
    return DONE


@kernel
def write_cr3(m: "State", value: int) -> int:
    """MOV to CR3. Bit 63 keeps the cached translations of the new PCID where CR4.PCIDE is set."""
    target = value
    if m.r.cr[4] & CR4_PCIDE != 0:
        target = value & ~NO_FLUSH
    if m.r.efer & EFER_LMA == 0:
        target = target & LOW_HALF
        if m.r.cr[0] & CR0_PG != 0 and m.r.cr[4] & CR4_PAE != 0:
            outcome = load_pdptes(m, target)
            if outcome != DONE:
                return outcome
    elif above_physical(m, target):
        return protection_fault()
    old = m.r.cr[3]
    m.r.cr[3] = target
    on_cr3_write(m, old, value)
    return DONE


@kernel
def _refuses_cr4(m: "State", value: int) -> bool:
    """Whether MOV to CR4 of `value` is a #GP(0)."""
    if value & ~m.cpu.cr4_allowed != 0 or _violates_fixed_bits(m, value, FIXED0_CR4, FIXED1_CR4):
        return True
    if (
        m.cpu.in_smm != 0 and value & CR4_VMXE != 0
    ):  # a reserved bit there. SDM Vol. 3C, 'Protection of CR4.VMXE in SMM'
        return True
    changed = value ^ m.r.cr[4]
    if m.r.efer & EFER_LMA != 0 and (value & CR4_PAE == 0 or changed & CR4_LA57 != 0):
        return True
    if changed & value & CR4_PCIDE != 0:
        return m.r.efer & EFER_LMA == 0 or m.r.cr[3] & PCID_MASK != 0
    return False


@kernel
def write_cr4(m: "State", value: int) -> int:
    """MOV to CR4."""
    if _refuses_cr4(m, value):
        return protection_fault()
    changed = value ^ m.r.cr[4]
    pae = m.r.cr[0] & CR0_PG != 0 and value & CR4_PAE != 0 and m.r.efer & EFER_LMA == 0
    if pae and changed & CR4_RELOADS_PDPTES != 0:
        outcome = load_pdptes(m, m.r.cr[3])
        if outcome != DONE:
            return outcome
    m.r.cr[4] = value
    refresh_mode(m)
    if changed & CR4_FLUSHES != 0 or changed & ~value & CR4_PCIDE != 0:
        on_paging_change(m)
    elif changed & value & CR4_SMEP != 0:
        on_smep_set(m)
    elif changed & CR4_RIGHTS != 0:
        on_rights_change(m)
    return DONE


@kernel
def write_cr8(m: "State", value: int) -> int:
    """MOV to CR8."""
    if value > 15:
        return protection_fault()
    m.cpu.tpr = value << 4
    return DONE


@kernel
def write_cr(m: "State", n: int, value: int) -> int:
    """MOV to CRn; RIP does not move. Outcomes: DONE, #GP(0), #UD, or what loading the PDPTEs met."""
    if n == 0:
        return write_cr0(m, value)
    if n == 2:
        m.r.cr[2] = value
        return DONE
    if n == 3:
        return write_cr3(m, value)
    if n == 4:
        return write_cr4(m, value)
    if n == 8:
        return write_cr8(m, value)
    return fault(exceptions.UD)


@kernel
def merge_lmsw(m: "State", source: int) -> int:
    """The CR0 that LMSW makes of a 16-bit source: PE can be set and not cleared."""
    return m.r.cr[0] & ~LMSW_CLEARS | source & 0xF
