"""VM1's own SMM, emulated by VMM1: VMM2 has an SMI handler of its own and never learns that another one exists.

The handler runs in VM1 on VMCS01. If VM2 was running, VM1's state waits in a page of VMM1's meanwhile (on hardware it would wait in
the VMCS12 that VMM2 launched VM2 with).
"""

from typing import TYPE_CHECKING

from vmxemu.isa import bits, exceptions
from vmxemu.jit import copy_bytes, kernel
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import host_address
from vmxemu.outcome import DONE
from vmxemu.outer.guest_view import NO_REASON, as_guest, host_of, make_current, stand_at_door, vmcs01, vmcs02
from vmxemu.smm.entry import load_entry_state
from vmxemu.smm.save_area import SAVE_AREA_OFFSET, save_area_read, save_area_write
from vmxemu.trace import events
from vmxemu.trace.emit import emit
from vmxemu.vmx.guest_state import save_guest_state

if TYPE_CHECKING:
    from vmxemu.state import State

LEVEL_2 = U(2)
VMXE = U(1 << 13)
CR0_NE, CR0_MODE = bits.CR0_NE, bits.CR0_PE | bits.CR0_PG
VMCS_BYTES = U(4096)
INVALID_OPCODE_BIT = U(1) << exceptions.UD


@kernel
def enter(m: "State", command: int) -> None:
    """Virtual SMI: save the state of what runs into VM1's state-save area and start its handler at SMBASE + 8000H."""
    outer = m.outer
    area = host_of(m, outer.smbase + SAVE_AREA_OFFSET)
    first = vmcs01(m)
    running = vmcs02(m) if outer.level == LEVEL_2 else first
    outer.smm_from_level = outer.level
    if outer.level == LEVEL_2:
        copy_bytes(host_address(m, outer.smm_backup), host_address(m, outer.vmcs01), VMCS_BYTES)
    as_guest(m, running)
    real_smbase = m.cpu.smbase
    m.cpu.smbase = outer.smbase
    if outer.level != LEVEL_2:  # as VM1 knows them, for the area and for the read shadow
        m.r.cr[0] = m.r.cr[0] & ~CR0_NE | first.cr0_read_shadow & CR0_NE
        m.r.cr[4] = m.r.cr[4] & ~VMXE | (VMXE if outer.vmxe != 0 else U(0))
    if area != 0:
        save_area_write(m, area)
    load_entry_state(m)
    first.cr0_read_shadow = m.r.cr[0]
    m.r.cr[0] = m.r.cr[0] | CR0_NE
    m.r.cr[4] = m.r.cr[4] | VMXE  # VMX operation fixes it; the read shadow hides it
    save_guest_state(m, first, NO_REASON)
    m.cpu.smbase = real_smbase
    first.cr4_read_shadow = 0
    first.exception_bitmap = first.exception_bitmap | INVALID_OPCODE_BIT  # RSM outside the processor's own SMM
    outer.virtual_smm = 1
    m.platform.smi_command = command
    stand_at_door(m)
    make_current(m, outer.vmcs01, 1)
    emit(m, events.SMM_ENTER, command, outer.smbase, 1, 0, 0)


@kernel
def leave(m: "State") -> bool:
    """RSM by VM1's handler: take the state-save area back and go on with what ran before. False if the area is bad: a shutdown."""
    outer = m.outer
    area = host_of(m, outer.smbase + SAVE_AREA_OFFSET)
    first = vmcs01(m)
    first.exception_bitmap = first.exception_bitmap & ~INVALID_OPCODE_BIT
    from_level = outer.smm_from_level
    if from_level == LEVEL_2:
        copy_bytes(host_address(m, outer.vmcs01), host_address(m, outer.smm_backup), VMCS_BYTES)
    target = vmcs02(m) if from_level == LEVEL_2 else first
    as_guest(m, target)
    real_smbase = m.cpu.smbase
    m.cpu.smbase = outer.smbase
    good = area == 0 or save_area_read(m, area) == DONE
    outer.smbase = m.cpu.smbase
    m.cpu.smbase = real_smbase
    if from_level != LEVEL_2:
        first.cr4_read_shadow = m.r.cr[4] & ~VMXE | (VMXE if outer.vmxe != 0 else U(0))
        fixed = CR0_NE | CR0_MODE if outer.nested.on != 0 else U(0)
        first.cr0_read_shadow = m.r.cr[0] | fixed
        m.r.cr[0] = m.r.cr[0] | fixed
    m.r.cr[0] = m.r.cr[0] | CR0_NE
    m.r.cr[4] = m.r.cr[4] | VMXE
    save_guest_state(m, target, NO_REASON)
    outer.virtual_smm = 0
    stand_at_door(m)
    make_current(m, outer.vmcs02 if from_level == LEVEL_2 else outer.vmcs01, from_level)
    emit(m, events.SMM_LEAVE, 0, outer.smbase, 1, 0, 0)
    return good
