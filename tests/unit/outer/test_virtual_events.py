"""When VMM2 gets what is its own: at once, later, as an exit of VM2, or never because the processor would have shut down."""

import pytest

from tests.unit.outer.room import EPT01, POOL_VMCS02, REGION, VMCS01, VMCS12, Room, words
from vmxemu import report
from vmxemu.isa import controls, mca
from vmxemu.layout import u64
from vmxemu.outcome import DONE, STOPPED
from vmxemu.outer import level1, virtual_events
from vmxemu.outer.ept_tables import HOLE_HPA
from vmxemu.trace import events

NMI_INFO, MC_INFO = 0x80000202, 0x80000312
WINDOW, PINS = int(controls.CPU_NMI_WINDOW), int(controls.PIN_NMI | controls.PIN_VIRTUAL_NMI)
SHARED = Room()


@pytest.fixture
def room():
    room = SHARED.reset()
    for hpa in (VMCS01, POOL_VMCS02, VMCS12):
        vmcs = room.vmcs(hpa)
        vmcs.guest_cr4 = 0x2040
        vmcs.host_cr4 = 0x2060
    room.m.outer.mca.status = 0
    return room


def queue(room, kind, flags=0):
    assert virtual_events.queue(room.m, *words(int(kind), 77, 0, 7, flags))


def deliver(room):
    return virtual_events.deliver_waiting(room.m)


@pytest.mark.parametrize("level", (1, 2))
@pytest.mark.parametrize("blocking", (0, 1, 2, 8))
def test_an_nmi_waits_for_its_window(room, level, blocking):
    m = room.m
    m.outer.level = level
    v = room.vmcs(VMCS01 if level == 1 else POOL_VMCS02)
    v.guest_interruptibility_info, v.guest_activity_state = blocking, 1
    queue(room, events.NMI)
    assert deliver(room) == DONE
    waits = blocking in (2, 8)
    assert m.outer.waiting_count == waits
    assert v.vm_entry_intr_info_field == (0 if waits else NMI_INFO)
    assert v.cpu_based_vm_exec_control & WINDOW == (WINDOW if waits else 0)
    assert v.pin_based_vm_exec_control & PINS == (PINS if waits else 0)
    assert v.guest_activity_state == waits, "delivery ends HLT, waiting does not"
    if waits:
        v.guest_interruptibility_info = 0
        assert deliver(room) == DONE
        assert m.outer.waiting_count == 0 and v.vm_entry_intr_info_field == NMI_INFO
        assert v.cpu_based_vm_exec_control & WINDOW == 0 and v.pin_based_vm_exec_control & PINS == 0
    assert len(room.events(events.DELIVERY)) == 1


def test_an_nmi_that_vmm2_asked_for_is_an_exit_of_vm2(room):
    m = room.m
    m.outer.level = 2
    v12 = room.vmcs(VMCS12)
    v12.pin_based_vm_exec_control = PINS
    room.vmcs(POOL_VMCS02).guest_interruptibility_info = 8
    queue(room, events.NMI)
    assert deliver(room) == DONE
    assert m.outer.level == 1 and (v12.vm_exit_reason, v12.vm_exit_intr_info) == (0, NMI_INFO)
    assert room.vmcs(VMCS01).guest_interruptibility_info == 8, "VMM2 finds NMIs blocked"


def test_the_second_waits_for_the_first(room):
    queue(room, events.NMI)
    queue(room, events.MC)
    assert deliver(room) == DONE
    v = room.vmcs(VMCS01)
    assert v.vm_entry_intr_info_field == NMI_INFO and room.m.outer.waiting_count == 1
    v.vm_entry_intr_info_field, v.guest_interruptibility_info = 0, 8
    assert deliver(room) == DONE
    assert v.vm_entry_intr_info_field == MC_INFO and room.m.outer.waiting_count == 0


def test_a_machine_check_during_another(room):
    m = room.m
    queue(room, events.MC, int(mca.MCG_STATUS_RIPV))
    assert deliver(room) == DONE
    assert m.outer.mca.status == mca.MCG_STATUS_RIPV | mca.MCG_STATUS_MCIP
    room.vmcs(VMCS01).vm_entry_intr_info_field = 0
    queue(room, events.MC, int(mca.MCG_STATUS_RIPV))
    assert deliver(room) == DONE and m.outer.waiting_count == 1, "one that can wait does"
    queue(room, events.MC, int(mca.MCG_STATUS_RIPV | mca.MCG_STATUS_EIPV))
    assert deliver(room) == STOPPED, "the consumer cannot go on"
    assert m.report.feature == report.MACHINE_CHECK_SHUTDOWN


def test_without_mce_the_processor_shuts_down(room):
    room.vmcs(VMCS01).guest_cr4 = 0x2000
    queue(room, events.MC)
    assert deliver(room) == STOPPED and room.m.report.reason == report.TRIPLE_FAULT


def test_a_full_line_is_not_silent(room):
    for _ in range(int(virtual_events.CAPACITY)):
        queue(room, events.NMI)
    assert not virtual_events.queue(room.m, *words(int(events.NMI), 1, 0, 0, 0))


@pytest.mark.parametrize("gpa", (REGION + 0x5000, REGION, 0xFD001000, 0x4_0000_0000))
def test_what_vm1_does_not_have_stays_absent(room, gpa):
    """A load of a sequestered address finds nothing there, and a fetch after it does not either (law 5)."""
    m = room.m
    for _ in range(3):
        m.walk.gpa = gpa
        assert level1.memory_fault(m, room.vmcs(VMCS01)) == DONE
        found = room.translation(EPT01, gpa)
        assert found == (int(HOLE_HPA) if gpa < 16 << 20 else gpa)


def test_a_store_to_a_page_without_write_right_keeps_its_frame(room):
    m = room.m
    entry = (EPT01 + 0x2000) >> 3
    room.word[entry + 1] = 0x400000 | 0xB5
    m.walk.gpa = 0x345000
    assert level1.memory_fault(m, room.vmcs(VMCS01)) == DONE
    assert room.word[entry + 1] == u64(0x400000 | 0xB7)
