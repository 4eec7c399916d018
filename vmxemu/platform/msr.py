"""MSRs whose state is a device's: APIC base, x2APIC registers, TSC deadline, machine check."""

from typing import TYPE_CHECKING

from vmxemu.isa import exceptions, msrs
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, fault_with
from vmxemu.platform import lapic, lapic_registers, lapic_timer, mca_msrs

if TYPE_CHECKING:
    from vmxemu.state import State

GP = exceptions.GP
APIC_BASE, TSC_DEADLINE = msrs.IA32_APIC_BASE, msrs.IA32_TSC_DEADLINE
FIRST_X2APIC, X2APIC_COUNT = u64(0x800), u64(0x100)
FLAGS = lapic.GLOBAL_ENABLE | lapic.X2APIC_ENABLE | lapic.BOOTSTRAP
PAGE_OFFSET = u64(0xFFF)
EIGHT_BITS = u64(1 << lapic_registers.TPR)
LOW_32 = u64(0xFFFF_FFFF)


@kernel
def read_msr(m: "State", index: int) -> int:
    """RDMSR; the value is in m.walk.value. NOT_MINE if no device has this MSR."""
    if index == APIC_BASE:
        m.walk.value = m.cpu.apic_base
        return DONE
    if index == TSC_DEADLINE:
        m.walk.value = m.cpu.tsc_deadline
        return DONE
    if FIRST_X2APIC <= index < FIRST_X2APIC + X2APIC_COUNT:
        register = index - FIRST_X2APIC
        if lapic.is_x2apic(m) == 0 or lapic_registers.is_readable(m, register) == 0:
            return fault_with(GP, 0)
        m.walk.value = lapic_registers.read(m, register)
        return DONE
    return mca_msrs.read(m, index)


@kernel
def write_msr(m: "State", index: int, value: int) -> int:
    """WRMSR. NOT_MINE if no device has this MSR."""
    if index == APIC_BASE:
        return _write_apic_base(m, value)
    if index == TSC_DEADLINE:
        lapic_timer.set_deadline(m, value)
        return DONE
    if FIRST_X2APIC <= index < FIRST_X2APIC + X2APIC_COUNT:
        return _write_x2apic(m, index - FIRST_X2APIC, value)
    return mca_msrs.write(m, index, value)


@kernel
def _write_x2apic(m: "State", register: int, value: int) -> int:
    """Reserved bits and read-only registers give #GP (SDM Vol. 3A, 'x2APIC Register Address Space')."""
    if lapic.is_x2apic(m) == 0 or lapic_registers.is_writable(m, register) == 0:
        return fault_with(GP, 0)
    allowed = allowed_bits(register)
    if value & ~allowed:
        return fault_with(GP, 0)
    lapic_registers.write(m, register, value)
    return DONE


@kernel
def allowed_bits(register: int) -> int:
    """Bits that WRMSR may set in an x2APIC register."""
    if register == lapic_registers.EOI or register == lapic_registers.ERROR:
        return u64(0)
    if register == lapic_registers.TPR or register == lapic_registers.SELF_IPI:
        return u64(0xFF)
    if register == lapic_registers.SPURIOUS:
        return lapic_registers.SPURIOUS_WRITABLE
    if register == lapic_registers.ICR:
        return LOW_32 << 32 | lapic_registers.ICR_WRITABLE
    if register == lapic_registers.DIVIDE:
        return u64(0xB)
    if register == lapic_registers.INITIAL_COUNT:
        return LOW_32
    # Delivery status and remote IRR are read-only and ignored when written.
    return lapic_registers.lvt_writable(lapic_registers.lvt_of(register)) | 0x5000


@kernel
def _write_apic_base(m: "State", value: int) -> int:
    """Mode changes as SDM Vol. 3A, 'x2APIC State Transitions', allows them; disabling loses the local APIC's state."""
    if value & PAGE_OFFSET & ~FLAGS or value >> m.cpu.physical_bits:
        return fault_with(GP, 0)
    old_mode, new_mode = m.cpu.apic_base >> 10 & 3, value >> 10 & 3  # 0 disabled, 2 xAPIC, 3 x2APIC
    if new_mode == 1 or (old_mode == 3 and new_mode == 2) or (old_mode == 0 and new_mode == 3):
        return fault_with(GP, 0)
    m.cpu.apic_base = value & ~lapic.BOOTSTRAP | m.cpu.apic_base & lapic.BOOTSTRAP
    if new_mode == 0 and old_mode != 0:
        number = m.platform.lapic.id
        lapic.power_on(m)
        m.platform.lapic.id = number
    m.engine.flush = 1
    m.clock.attention = 1
    return DONE
