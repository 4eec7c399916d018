"""EPT's extensions in VM entries and exits, and what becomes of a walk that EPT has ended. In the whole machine:
tests/unit/machine/test_ept_extensions.py."""

from typing import Any

import pytest

from tests.unit.vmx.hypervisor import GUEST_RIP, Hypervisor
from vmxemu.cpu.nmi import unblock_nmi
from vmxemu.isa import controls, cpus, exceptions, exits
from vmxemu.outcome import DONE, EPT_MISCONFIG, EPT_VIOLATION, FAULT, PML_FULL, SPP_EVENT, VM_EXIT
from vmxemu.smm.entry import enter_smm
from vmxemu.smm.rsm import execute_rsm
from vmxemu.vmx.entry import enter
from vmxemu.vmx.ept_events import ept_event
from vmxemu.vmx.events import event_exits, page_fault_matches
from vmxemu.vmx.exit import leave

pytestmark = pytest.mark.jit_off

AREA, GLA, GPA, QUALIFICATION = 0x1A000, 0x7F00_1234, 0x5678, 0x783
VE = int(FAULT) | int(exceptions.VE) << 8
NMI_UNBLOCKING = 1 << 12
ALL = ("SECONDARY_PML", "SECONDARY_EPT_VE", "SECONDARY_MODE_BASED_EXECUTE", "SECONDARY_SPP")


def hypervisor(*names: str) -> Hypervisor:
    machine = Hypervisor(cpus.load("ideal"))
    v = machine.v
    for name in names:
        v.secondary_vm_exec_control = int(v.secondary_vm_exec_control) | controls.BY_NAME[name].mask
    v.spp_table_pointer, v.pml_address, v.ve_information_address = 0x18000, 0x19000, AREA
    v.guest_pml_index, v.eptp_index = 300, 7
    return machine


def entered(*names: str) -> Hypervisor:
    machine = hypervisor(*names)
    assert int(enter(machine.m, 1)) == int(DONE), int(machine.m.vmx.failed_check)
    return machine


@pytest.mark.parametrize(
    ("name", "extension"),
    [("SECONDARY_MODE_BASED_EXECUTE", 1), ("SECONDARY_SPP", 2), ("SECONDARY_PML", 4), ("SECONDARY_EPT_VE", 8)],
)
def test_each_control_turns_its_extension_on(name: str, extension: int) -> None:
    assert int(entered(name).m.paging.ept_extensions) == extension


def test_entry_loads_and_exit_saves() -> None:
    machine = entered(*ALL)
    paging = machine.m.paging
    assert (int(paging.ept_extensions), int(paging.pml_index), int(paging.eptp_index)) == (15, 300, 7)
    assert (int(paging.spp_table), int(paging.pml_address), int(paging.ve_information)) == (0x18000, 0x19000, AREA)
    paging.pml_index = 0xFFFF
    leave(machine.m, int(exits.PML_FULL))
    assert (int(machine.v.guest_pml_index), int(paging.ept_extensions)) == (0xFFFF, 0)
    assert int(machine.v.guest_rflags) & 1 << 16


def test_without_logging_the_index_stays() -> None:
    machine = entered("SECONDARY_EPT_VE")
    machine.m.paging.pml_index = 5
    leave(machine.m, int(exits.CPUID))
    assert int(machine.v.guest_pml_index) == 300


def test_an_smi_puts_the_extensions_aside() -> None:
    m = entered(*ALL).m
    m.cpu.smbase, m.cpu.cr4_allowed = 0x30000, (1 << 64) - 1
    enter_smm(m, 0)
    assert int(m.paging.ept_extensions) == 0
    assert int(execute_rsm(m)) == int(DONE)
    assert (int(m.paging.ept_extensions), int(m.paging.pml_index)) == (15, 300)


def failed_walk(*names: str) -> Any:
    m = entered(*names).m
    m.walk.gla, m.walk.gpa, m.walk.qualification, m.walk.convertible = GLA, GPA, QUALIFICATION, 1
    return m


@pytest.mark.parametrize(
    ("kind", "reason", "qualification", "gla", "gpa"),
    [
        (EPT_VIOLATION, "EPT_VIOLATION", QUALIFICATION, GLA, GPA),
        (EPT_MISCONFIG, "EPT_MISCONFIG", 0, 0, GPA),
        (PML_FULL, "PML_FULL", 0, 0, 0),
        (SPP_EVENT, "SPP_EVENT", QUALIFICATION, GLA, GPA),
    ],
)
@pytest.mark.parametrize("by_iret", (False, True))
def test_exits(kind: int, reason: str, qualification: int, gla: int, gpa: int, by_iret: bool) -> None:
    m = failed_walk()
    m.exit.instruction_length = m.exit.instruction_info = m.exit.interruption_info = 5
    if by_iret:
        m.cpu.nmi_blocked, m.clock.blocks = 1, 100
        unblock_nmi(m)
        m.clock.blocks = 101  # the IRET's own block
        qualification |= NMI_UNBLOCKING if kind != EPT_MISCONFIG else 0
    assert int(ept_event(m, kind)) == int(VM_EXIT) | int(getattr(exits, reason)) << 8
    what = m.exit
    assert (int(what.qualification), int(what.guest_linear), int(what.guest_physical)) == (qualification, gla, gpa)
    assert int(what.instruction_length) == int(what.instruction_info) == int(what.interruption_info) == 0


def test_an_iret_that_has_run_or_an_event_in_delivery_unblocks_nothing() -> None:
    for blocks, rip, info in ((102, GUEST_RIP, 0), (101, GUEST_RIP + 2, 0), (101, GUEST_RIP, 0x8000_0030)):
        m = failed_walk()
        m.clock.blocks = 100
        unblock_nmi(m)
        m.clock.blocks, m.r.rip, m.cpu.event_info = blocks, rip, info
        ept_event(m, EPT_VIOLATION)
        assert int(m.exit.qualification) == QUALIFICATION


def test_a_fault_of_an_iret_says_so() -> None:
    machine = entered()
    m, machine.v.exception_bitmap = machine.m, 1 << 13
    unblock_nmi(m)
    m.clock.blocks = 1
    assert int(event_exits(m, 13, 0x18, 3)) == int(VM_EXIT)
    assert int(m.exit.interruption_info) == 0x8000_0B0D | NMI_UNBLOCKING


def area(machine_memory: Any) -> list[int]:
    return [machine_memory.peek64(AREA + offset) for offset in (0, 8, 16, 24, 32)]


def test_virtualization_exception() -> None:
    machine = entered("SECONDARY_EPT_VE")
    m = machine.m
    m.walk.gla, m.walk.gpa, m.walk.qualification, m.walk.convertible = GLA, GPA, QUALIFICATION, 1
    assert int(ept_event(m, EPT_VIOLATION)) == VE
    assert area(machine) == [0xFFFFFFFF << 32 | int(exits.EPT_VIOLATION), QUALIFICATION, GLA, GPA, 7]
    assert int(ept_event(m, EPT_VIOLATION)) == int(VM_EXIT) | int(exits.EPT_VIOLATION) << 8, "the area is in use"


@pytest.mark.parametrize("obstacle", ("control", "entry", "real mode", "delivery", "area"))
def test_what_prevents_it(obstacle: str) -> None:
    machine = entered(*(() if obstacle == "control" else ("SECONDARY_EPT_VE",)))
    m = machine.m
    m.walk.convertible = 0 if obstacle == "entry" else 1
    if obstacle == "real mode":
        m.r.cr[0] = int(m.r.cr[0]) & ~1
    if obstacle == "delivery":
        m.cpu.event_info = 0x8000_0020
    if obstacle == "area":
        machine.poke64(AREA, 1 << 63)
    assert int(ept_event(m, EPT_VIOLATION)) == int(VM_EXIT) | int(exits.EPT_VIOLATION) << 8
    assert area(machine)[1:] == [0, 0, 0, 0]


def test_it_is_in_the_class_of_page_faults_and_pushes_no_error_code() -> None:
    assert int(exceptions.PAGE_FAULT_MASK) == 1 << 14 | 1 << 20
    assert int(exceptions.WITH_ERROR_CODE_MASK) >> 20 & 1 == 0


def test_rights_by_key_of_supervisor_pages() -> None:
    machine = hypervisor()
    m, v = machine.m, machine.v
    m.paging.pkrs, v.guest_ia32_pkrs, v.host_ia32_pkrs = 0x11, 0x22, 0x33
    enter(m, 1)
    assert int(m.paging.pkrs) == 0x11, "not without the control"
    m.paging.pkrs = 0x44
    leave(m, int(exits.CPUID))
    assert (int(v.guest_ia32_pkrs), int(m.paging.pkrs)) == (0x44, 0x44), "saved on every exit"
    v.vm_entry_controls = int(v.vm_entry_controls) | int(controls.ENTRY_LOAD_PKRS)
    v.vm_exit_controls = int(v.vm_exit_controls) | int(controls.EXIT_LOAD_PKRS)
    v.guest_ia32_pkrs = 0x55
    enter(m, 0)
    assert int(m.paging.pkrs) == 0x55
    leave(m, int(exits.CPUID))
    assert (int(v.guest_ia32_pkrs), int(m.paging.pkrs)) == (0x55, 0x33)


@pytest.mark.parametrize("bit", (0, 1))
def test_every_page_fault_code_passes_the_filter_as_the_manual_says(bit: int) -> None:
    machine = hypervisor()
    v = machine.v
    v.exception_bitmap = bit << 14
    for mask in (0, 1, 0x10, 0x21, 0x40, 0x7F, 0xFFFF_FFFF):
        for match in (0, 1, 0x10, 0x21, 0x40, 0x67):
            v.page_fault_error_code_mask, v.page_fault_error_code_match = mask, match
            for code in range(0x80):
                assert bool(page_fault_matches(v, code)) == ((code & mask == match) == bool(bit))
