"""The operating mode, and Unicorn's mode word ("hflags") that must follow every change of what it is made from."""

from typing import TYPE_CHECKING

from vmxemu.cpu import flags
from vmxemu.cpu.layout import (
    CS,
    DS,
    ES,
    HF_ADDSEG,
    HF_CPL,
    HF_CS32,
    HF_CS64,
    HF_EM,
    HF_GUEST,
    HF_INHIBIT_IRQ,
    HF_IOPL,
    HF_LMA,
    HF_MP,
    HF_OSFXSR,
    HF_PE,
    HF_SS32,
    HF_TF,
    HF_TS,
    HF_VM,
    SEG_DB,
    SEG_L,
    SS,
)
from vmxemu.isa.bits import CR0_EM, CR0_MP, CR0_PE, CR0_TS, CR4_LA57, CR4_OSFXSR, EFER_LMA
from vmxemu.jit import kernel
from vmxemu.layout import u64

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
HF_SMM = U(1 << 19)
ALL_ONES = U(0xFFFFFFFFFFFFFFFF)
DPL_SHIFT = U(13)
MODE_FROM_CR0 = HF_MP | HF_EM | HF_TS  # CR0 bits 1 to 3, eight places up
FROM_SEGMENTS = HF_CPL | HF_CS32 | HF_SS32 | HF_CS64 | HF_ADDSEG
FROM_FLAGS = HF_TF | HF_IOPL | HF_VM
KEPT = U(0xFFFFFFFF) & ~(
    FROM_SEGMENTS | FROM_FLAGS | MODE_FROM_CR0 | HF_INHIBIT_IRQ | HF_PE | HF_LMA | HF_OSFXSR | HF_SMM
)


@kernel
def is_long(m: "State") -> bool:
    """IA-32e mode (EFER.LMA)."""
    return m.r.efer & EFER_LMA != 0


@kernel
def is_64bit_code(m: "State") -> bool:
    """64-bit mode: IA-32e mode with CS.L."""
    return m.r.mode & HF_CS64 != 0


@kernel
def is_protected(m: "State") -> bool:
    """CR0.PE, virtual-8086 mode included."""
    return m.r.cr[0] & CR0_PE != 0


@kernel
def is_virtual_8086(m: "State") -> bool:
    """RFLAGS.VM in protected mode."""
    return m.r.eflags & flags.VM != 0 and m.r.cr[0] & CR0_PE != 0


@kernel
def cpl(m: "State") -> int:
    """Current privilege level."""
    return m.r.mode & HF_CPL


@kernel
def _current_privilege(m: "State") -> int:
    if m.r.cr[0] & CR0_PE == 0:
        return 0
    if m.r.eflags & flags.VM != 0:
        return 3
    return m.r.seg[SS].flags >> DPL_SHIFT & 3


@kernel
def _sizes(m: "State") -> int:
    """CS32, SS32, CS64 and ADDSEG."""
    if m.r.efer & EFER_LMA != 0 and m.r.seg[CS].flags & SEG_L != 0:
        return HF_CS32 | HF_SS32 | HF_CS64
    mode = 0
    if m.r.seg[CS].flags & SEG_DB != 0:
        mode = mode | HF_CS32
    if m.r.seg[SS].flags & SEG_DB != 0:
        mode = mode | HF_SS32
    # Flat 32-bit code skips adding segment bases; everything else adds them.
    if m.r.cr[0] & CR0_PE == 0 or m.r.eflags & flags.VM != 0 or mode & HF_CS32 == 0:
        return mode | HF_ADDSEG
    if m.r.seg[DS].base | m.r.seg[ES].base | m.r.seg[SS].base != 0:
        return mode | HF_ADDSEG
    return mode


@kernel
def refresh_mode(m: "State") -> None:
    """Recompute `m.r.mode`; the interrupt shadow that it holds ends (set_interrupt_shadow puts it back).

    TF, IOPL, VM, RF and AC stay 0: Unicorn takes them from `m.r.eflags` and ors them in, so that here they would stick.
    """
    mode = m.r.mode & KEPT | HF_GUEST | _current_privilege(m) | _sizes(m)
    if m.r.cr[0] & CR0_PE != 0:
        mode = mode | HF_PE
    mode = mode | (m.r.cr[0] & (CR0_MP | CR0_EM | CR0_TS)) << 8
    if m.r.efer & EFER_LMA != 0:
        mode = mode | HF_LMA
    if m.r.cr[4] & CR4_OSFXSR != 0:
        mode = mode | HF_OSFXSR
    if m.cpu.in_smm != 0:
        mode = mode | HF_SMM
    m.r.mode = mode


@kernel
def set_interrupt_shadow(m: "State", sti: int, mov_ss: int) -> None:
    """Block interrupts for one instruction, as after STI or MOV SS."""
    m.cpu.sti_shadow = sti
    m.cpu.mov_ss_shadow = mov_ss
    if sti | mov_ss != 0:
        m.r.mode = m.r.mode | HF_INHIBIT_IRQ
    else:
        m.r.mode = m.r.mode & ~HF_INHIBIT_IRQ


@kernel
def end_interrupt_shadow(m: "State") -> None:
    """The instruction that the shadow covered has retired."""
    m.cpu.sti_shadow = 0
    m.cpu.mov_ss_shadow = 0
    m.r.mode = m.r.mode & ~HF_INHIBIT_IRQ


@kernel
def is_canonical(m: "State", address: int) -> bool:
    """Whether `address` is canonical for the processor's linear-address width (48 bits without CR4.LA57)."""
    width = 57 if m.r.cr[4] & CR4_LA57 != 0 else 48
    high = address >> width - 1
    return high == 0 or high == ALL_ONES >> width - 1
