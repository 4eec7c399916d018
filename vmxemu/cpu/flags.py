"""RFLAGS in place: Unicorn keeps the arithmetic flags lazily, as the last operation and its operands."""

from typing import TYPE_CHECKING

from vmxemu.isa import bits
from vmxemu.jit import kernel
from vmxemu.layout import u64

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
CF, PF, AF, ZF, SF, DF, OF = (
    bits.RFLAGS_CF,
    bits.RFLAGS_PF,
    bits.RFLAGS_AF,
    bits.RFLAGS_ZF,
    bits.RFLAGS_SF,
    bits.RFLAGS_DF,
    bits.RFLAGS_OF,
)
TF, IF, NT, RF, VM, AC = bits.RFLAGS_TF, bits.RFLAGS_IF, bits.RFLAGS_NT, bits.RFLAGS_RF, bits.RFLAGS_VM, bits.RFLAGS_AC
VIF, VIP, ID = bits.RFLAGS_VIF, bits.RFLAGS_VIP, bits.RFLAGS_ID
IOPL, IOPL_SHIFT = U(3 << 12), U(12)
ARITHMETIC = CF | PF | AF | ZF | SF | OF
LAZY = ARITHMETIC | DF
FIXED = bits.RFLAGS_FIXED
WRITABLE = LAZY | TF | IF | IOPL | NT | RF | VM | AC | VIF | VIP | ID

# What `cc_op` says, in steps of four widths from MUL on (byte, word, doubleword, quadword)
CC_EFLAGS, CC_MUL, CC_ADCX, CC_ADOX, CC_ADCOX, CC_CLR, CC_POPCNT = U(1), U(2), U(46), U(47), U(48), U(49), U(50)
MUL, ADD, ADC, SUB, SBB, LOGIC, INC, DEC, SHL, SAR, BMILG = (U(i) for i in range(11))


@kernel
def _parity(value: int) -> int:
    """PF of the result's low byte."""
    value = value ^ value >> 4
    value = value ^ value >> 2
    value = value ^ value >> 1
    return 0 if value & 1 != 0 else PF


@kernel
def _carry(family: int, result: int, source: int, carry_in: int, mask: int, sign: int) -> int:
    """CF of the operation; all values already have its width."""
    if family == ADD:
        return 1 if result < source else 0
    if family == ADC:
        return 1 if result < source or (carry_in != 0 and result == source) else 0
    if family == SUB:
        return 1 if (result + source & mask) < source else 0
    if family == SBB:
        first = result + source + carry_in & mask
        return 1 if first < source or (carry_in != 0 and first == source) else 0
    if family == SHL:
        return 1 if source & sign != 0 else 0
    if family == MUL:
        return 1 if source != 0 else 0
    if family == BMILG:
        return 1 if source == 0 else 0
    if family == INC or family == DEC or family == SAR:
        return source & 1
    return 0


@kernel
def _adjust_and_overflow(family: int, result: int, source: int, carry_in: int, mask: int, sign: int) -> int:
    """AF and OF of the operation."""
    other = 0
    overflow = 0
    if family == ADD or family == ADC:
        if family == ADC:
            other = result - source - carry_in & mask
        else:
            other = result - source & mask
        overflow = ~(source ^ other) & (source ^ result)
    elif family == SUB or family == SBB:
        if family == SBB:
            other = result + source + carry_in & mask
        else:
            other = result + source & mask
        overflow = (source ^ other) & (other ^ result)
    elif family == INC:
        source = 1
        other = result - 1 & mask
        overflow = sign if result == sign else 0
    elif family == DEC:
        source = 1
        other = result + 1 & mask
        overflow = sign if other == sign else 0
    elif family == SHL or family == SAR:
        return OF if (source ^ result) & sign != 0 else 0
    elif family == MUL:
        return OF if source != 0 else 0
    else:
        return 0
    return (OF if overflow & sign != 0 else 0) | (result ^ source ^ other) & AF


@kernel
def arithmetic_flags(m: "State") -> int:
    """CF PF AF ZF SF OF as the latest operation left them."""
    operation = m.r.cc_op
    if operation < CC_MUL:
        return m.r.cc_src & ARITHMETIC
    if operation >= CC_ADCX:
        if operation == CC_CLR:
            return ZF | PF
        if operation == CC_POPCNT:
            return 0 if m.r.cc_src != 0 else ZF
        flags = m.r.cc_src & ARITHMETIC
        if operation != CC_ADOX:
            flags = flags & ~CF | m.r.cc_dst & 1
        if operation != CC_ADCX:
            flags = flags & ~OF | (OF if m.r.cc_src2 & 1 != 0 else 0)
        return flags
    family = operation - CC_MUL >> 2
    sign = 1 << (8 << (operation - CC_MUL & 3)) - 1
    mask = sign - 1 | sign
    result = m.r.cc_dst & mask
    source = m.r.cc_src
    if family != MUL:  # there it is the difference between the product and its truncation, not of the operation's width
        source = source & mask
    carry_in = m.r.cc_src2 & mask
    flags = _parity(result) | (SF if result & sign != 0 else 0) | (ZF if result == 0 else 0)
    flags = flags | _carry(family, result, source, carry_in, mask, sign)
    return flags | _adjust_and_overflow(family, result, source, carry_in, mask, sign)


@kernel
def read_flags(m: "State") -> int:
    """The whole of RFLAGS."""
    return m.r.eflags & ~LAZY | FIXED | arithmetic_flags(m) | (DF if m.r.df < 0 else 0)


@kernel
def write_flags(m: "State", value: int) -> None:
    """Set RFLAGS. Follow with cpu.mode.refresh_mode where TF, IOPL, VM or AC change."""
    m.r.eflags = value & ~LAZY & WRITABLE | FIXED
    m.r.cc_op = CC_EFLAGS
    m.r.cc_src = value & ARITHMETIC
    if value & DF != 0:
        m.r.df = -1
    else:
        m.r.df = 1


@kernel
def change_flags(m: "State", clear: int, put: int) -> None:
    """Clear and then set flags that are not lazy (IF, TF, RF, AC, ...)."""
    m.r.eflags = m.r.eflags & ~clear | put


@kernel
def interrupts_enabled(m: "State") -> bool:
    """RFLAGS.IF."""
    return m.r.eflags & IF != 0
