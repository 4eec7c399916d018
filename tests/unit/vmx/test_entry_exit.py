"""VM entry and VM exit as a pair."""

import pytest

from tests.unit.vmx.hypervisor import (
    ENTRY_LIST,
    GUEST_RIP,
    HOST_RIP,
    LOAD_LIST,
    REVISION,
    STORE_LIST,
    VMCS_REGION,
    Hypervisor,
)
from vmxemu.cpu.layout import CS, FS, RSP, SS, TR
from vmxemu.isa import controls, errors, exits
from vmxemu.outcome import DONE, UNMODELLED, VMFAIL
from vmxemu.report import VMX_ABORT
from vmxemu.vmx.entry import enter
from vmxemu.vmx.exit import leave

pytestmark = pytest.mark.jit_off


def test_a_good_vmcs_enters() -> None:
    machine = Hypervisor()
    m = machine.m
    assert int(enter(m, 1)) == int(DONE), int(m.vmx.failed_check)
    assert int(m.vmx.non_root) == 1
    assert int(machine.v.launch_state) == 1
    assert (int(m.r.rip), int(m.r.gpr[RSP])) == (GUEST_RIP, 0x500000)
    assert int(m.r.cr[3]) == 0x5000
    assert int(m.paging.ept_pointer) == 0x2001E
    assert int(m.vmx.tsc_offset) == 0x1234


def test_entry_then_exit_keeps_the_guest_state() -> None:
    machine = Hypervisor()
    before = machine.snapshot()
    assert int(enter(machine.m, 1)) == int(DONE)
    machine.m.exit.qualification = 0x77
    assert int(leave(machine.m, int(exits.CPUID))) == int(DONE)
    after = machine.snapshot()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"vm_exit_reason", "exit_qualification"}
    assert after["vm_exit_reason"] == int(exits.CPUID)


def test_exit_loads_the_host_state() -> None:
    machine = Hypervisor()
    m = machine.m
    enter(m, 1)
    leave(m, int(exits.HLT))
    assert (int(m.r.rip), int(m.r.gpr[RSP]), int(m.r.eflags)) == (HOST_RIP, 0xFFFF800000009000, 2)
    assert (int(m.r.seg[CS].selector), int(m.r.seg[SS].selector)) == (8, 0x10)
    assert int(m.vmx.non_root) == 0
    assert int(m.paging.ept_pointer) == 0
    assert int(m.r.dr[7]) == 0x400
    assert int(m.report.level_exits[96 + int(exits.HLT)]) == 1


def test_launch_state_errors() -> None:
    machine = Hypervisor()
    m = machine.m
    assert int(enter(m, 0)) == int(VMFAIL) | int(errors.VMRESUME_NONLAUNCHED_VMCS) << 32
    enter(m, 1)
    leave(m, int(exits.HLT))
    assert int(enter(m, 1)) == int(VMFAIL) | int(errors.VMLAUNCH_NONCLEAR_VMCS) << 32
    assert int(enter(m, 0)) == int(DONE)


def test_no_current_vmcs_is_vmfailinvalid() -> None:
    machine = Hypervisor()
    machine.m.vmx.host_address = 0
    assert int(enter(machine.m, 1)) == int(VMFAIL)


def test_mov_ss_blocks_entry() -> None:
    machine = Hypervisor()
    machine.m.r.mode |= 8
    machine.m.cpu.mov_ss_shadow = 1
    assert int(enter(machine.m, 1)) == int(VMFAIL) | int(errors.ENTRY_EVENTS_BLOCKED_BY_MOV_SS) << 32


def test_failed_guest_check_loads_host_state_only() -> None:
    machine = Hypervisor()
    m = machine.m
    machine.v.guest_rflags = 0
    assert int(enter(m, 1)) == int(DONE)
    assert int(machine.v.vm_exit_reason) == 1 << 31 | int(exits.ENTRY_FAIL_GUEST_STATE)
    assert int(m.r.rip) == HOST_RIP
    assert int(m.vmx.non_root) == 0
    assert int(machine.v.launch_state) == 0
    assert int(machine.v.guest_rip) == GUEST_RIP
    assert (REVISION, VMCS_REGION) == (int(machine.v.revision), int(m.vmx.current))


def test_injection_becomes_the_pending_event() -> None:
    machine = Hypervisor()
    machine.v.vm_entry_intr_info_field = 0x80000B0E
    machine.v.vm_entry_exception_error_code = 5
    enter(machine.m, 1)
    cpu = machine.m.cpu
    assert (int(cpu.event_info), int(cpu.event_vector), int(cpu.event_error)) == (0x80000B0E, 14, 5)
    leave(machine.m, int(exits.EPT_VIOLATION))
    assert int(machine.v.idt_vectoring_info_field) == 0x80000B0E
    assert int(machine.v.idt_vectoring_error_code) == 5
    assert int(machine.v.vm_entry_intr_info_field) == 0x0B0E


def test_a_virtual_nmi_blocks_virtual_nmis_and_exit_forgets_it() -> None:
    machine = Hypervisor()
    machine.v.vm_entry_intr_info_field = 0x80000202
    enter(machine.m, 1)
    assert int(machine.m.cpu.nmi_blocked) == 1
    leave(machine.m, int(exits.HLT))
    assert int(machine.v.guest_interruptibility_info) == 8
    assert int(machine.m.cpu.nmi_blocked) == 0
    assert int(machine.v.vm_exit_controls) & int(controls.EXIT_HOST_64)


def entry_of(machine: Hypervisor, at: int, *entries: tuple[int, int]) -> None:
    for number, (index, value) in enumerate(entries):
        machine.poke64(at + 16 * number, index)
        machine.poke64(at + 16 * number + 8, value)


def test_msr_lists_load_and_store() -> None:
    machine = Hypervisor()
    m, v = machine.m, machine.v
    entry_of(machine, ENTRY_LIST, (0xC0000082, 0x1111), (0x174, 0x23))
    entry_of(machine, STORE_LIST, (0xC0000082, 0))
    entry_of(machine, LOAD_LIST, (0xC0000082, 0x2222))
    v.vm_entry_msr_load_count, v.vm_entry_msr_load_addr = 2, ENTRY_LIST
    v.vm_exit_msr_store_count, v.vm_exit_msr_store_addr = 1, STORE_LIST
    v.vm_exit_msr_load_count, v.vm_exit_msr_load_addr = 1, LOAD_LIST
    enter(m, 1)
    assert (int(m.r.lstar), int(m.r.sysenter_cs)) == (0x1111, 0x23)
    m.r.lstar = 0x3333
    leave(m, int(exits.CPUID))
    assert machine.peek64(STORE_LIST + 8) == 0x3333
    assert int(m.r.lstar) == 0x2222


@pytest.mark.parametrize("index", [0xC0000100, 0xC0000101, 0x808, 0x9B, 0xDEAD, 1 << 32 | 0xC0000082])
def test_an_msr_that_cannot_be_loaded_fails_the_entry(index: int) -> None:
    machine = Hypervisor()
    entry_of(machine, ENTRY_LIST, (0xC0000082, 0x1111), (index, 0))
    machine.v.vm_entry_msr_load_count, machine.v.vm_entry_msr_load_addr = 2, ENTRY_LIST
    assert int(enter(machine.m, 1)) == int(DONE)
    assert int(machine.v.vm_exit_reason) == 1 << 31 | int(exits.ENTRY_FAIL_MSR_LOADING)
    assert int(machine.v.exit_qualification) == 2
    assert (int(machine.m.r.rip), int(machine.m.vmx.non_root)) == (HOST_RIP, 0)


def test_a_list_longer_than_the_processor_takes_ends() -> None:
    machine = Hypervisor()
    machine.v.vm_entry_msr_load_count, machine.v.vm_entry_msr_load_addr = 0xFFFFFFFF, 0xFEE00000
    enter(machine.m, 1)
    assert int(machine.v.vm_exit_reason) == 1 << 31 | int(exits.ENTRY_FAIL_MSR_LOADING)


@pytest.mark.parametrize(("kind", "indicator"), [("store", 1), ("load", 4)])
def test_a_bad_list_at_exit_is_a_vmx_abort(kind: str, indicator: int) -> None:
    machine = Hypervisor()
    entry_of(machine, STORE_LIST, (0x808, 0))
    setattr(machine.v, f"vm_exit_msr_{kind}_count", 1)
    setattr(machine.v, f"vm_exit_msr_{kind}_addr", STORE_LIST)
    enter(machine.m, 1)
    assert int(leave(machine.m, int(exits.CPUID))) == int(UNMODELLED)
    assert int(machine.v.abort_indicator) == indicator
    assert int(machine.m.report.feature) == int(VMX_ABORT)


def test_the_preemption_timer_counts_and_is_saved() -> None:
    machine = Hypervisor()
    m = machine.m
    m.clock.ticks = 16 * 32 * 10
    enter(m, 1)
    assert int(m.vmx.preemption_deadline) == 16 * 32 * 1010
    assert int(m.clock.deadline) == 16 * 32 * 1010
    m.clock.ticks = 16 * 32 * 910 + 5
    leave(m, int(exits.CPUID))
    assert int(machine.v.vmx_preemption_timer_value) == 100
    assert int(m.vmx.preemption_deadline) == 0


def test_without_the_control_the_timer_is_off() -> None:
    machine = Hypervisor()
    v = machine.v
    v.pin_based_vm_exec_control = int(v.pin_based_vm_exec_control) & ~int(controls.PIN_PREEMPTION_TIMER)
    v.vm_exit_controls = int(v.vm_exit_controls) & ~int(controls.EXIT_SAVE_PREEMPTION_TIMER)
    enter(machine.m, 1)
    assert int(machine.m.vmx.preemption_deadline) == 0


def test_a_triple_fault_has_no_vectoring_information() -> None:
    machine = Hypervisor()
    machine.v.vm_entry_intr_info_field = 0x80000B0E
    enter(machine.m, 1)
    leave(machine.m, int(exits.TRIPLE_FAULT))
    assert int(machine.v.idt_vectoring_info_field) == 0


def test_software_event_keeps_its_length_in_the_exit() -> None:
    machine = Hypervisor()
    machine.v.vm_entry_intr_info_field, machine.v.vm_entry_instruction_len = 0x80000480, 2
    enter(machine.m, 1)
    assert int(machine.m.cpu.event_length) == 2
    leave(machine.m, int(exits.EPT_VIOLATION))
    assert int(machine.v.vm_exit_instruction_len) == 2
    assert int(machine.v.guest_rflags) & 1 << 16 == 0


def test_an_ept_violation_saves_rf() -> None:
    machine = Hypervisor()
    enter(machine.m, 1)
    leave(machine.m, int(exits.EPT_VIOLATION))
    assert int(machine.v.guest_rflags) == 0x10202


def test_an_injected_mtf_waits_as_an_exit() -> None:
    machine = Hypervisor()
    able = machine.m.cpu.vmx_msr
    able[2] = int(able[2]) | int(controls.CPU_MTF) << 32  # no profile offers it
    machine.v.vm_entry_intr_info_field = 0x80000700
    enter(machine.m, 1)
    assert (int(machine.m.vmx.mtf_pending), int(machine.m.cpu.event_info)) == (1, 0)


def test_segments_that_the_guest_loaded_itself_pass_the_next_entry() -> None:
    machine = Hypervisor()
    m = machine.m
    enter(m, 1)
    m.r.seg[FS].selector, m.r.seg[FS].flags = 0, 0  # a null selector, as Unicorn loads it
    m.r.seg[CS].flags = int(m.r.seg[CS].flags) & ~0x100  # not accessed, as Unicorn leaves it
    m.r.seg[TR].flags = int(m.r.seg[TR].flags) & ~0x200  # not busy
    leave(m, int(exits.CPUID))
    v = machine.v
    assert int(v.guest_fs_ar_bytes) == 0x10000
    assert (int(v.guest_cs_ar_bytes), int(v.guest_tr_ar_bytes)) == (0xA09B, 0x8B)
    assert int(enter(m, 0)) == int(DONE)
    assert int(m.vmx.non_root) == 1


def test_a_user_mode_guest_keeps_its_cpl() -> None:
    machine = Hypervisor()
    v = machine.v
    v.guest_cs_selector, v.guest_cs_ar_bytes = 0x2B, 0xA0FB
    v.guest_ss_selector, v.guest_ss_ar_bytes = 0x33, 0xC0F3
    assert int(enter(machine.m, 1)) == int(DONE)
    assert int(machine.m.r.mode) & 3 == 3
    before = machine.snapshot()
    leave(machine.m, int(exits.CPUID))
    assert int(machine.m.r.mode) & 3 == 0
    assert machine.snapshot()["guest_ss_ar_bytes"] == before["guest_ss_ar_bytes"]


def test_the_interrupt_shadow_survives_entry_and_exit() -> None:
    for blocking in (1, 2):
        machine = Hypervisor()
        machine.v.guest_interruptibility_info = blocking
        enter(machine.m, 1)
        assert int(machine.m.r.mode) & 8
        leave(machine.m, int(exits.CPUID))
        assert int(machine.v.guest_interruptibility_info) == blocking
        assert int(machine.m.r.mode) & 8 == 0


def test_a_halted_guest_stays_halted_unless_an_event_is_injected() -> None:
    machine = Hypervisor()
    machine.v.guest_activity_state = 1
    enter(machine.m, 1)
    assert int(machine.m.cpu.activity) == 1
    leave(machine.m, int(exits.EXTERNAL_INTERRUPT))
    assert (int(machine.v.guest_activity_state), int(machine.m.cpu.activity)) == (1, 0)
    machine.v.vm_entry_intr_info_field = 0x80000030
    enter(machine.m, 0)
    assert int(machine.m.cpu.activity) == 0


def test_exit_without_load_efer_follows_the_host_size() -> None:
    machine = Hypervisor()
    v = machine.v
    v.vm_exit_controls = int(v.vm_exit_controls) & ~int(controls.EXIT_LOAD_EFER)
    enter(machine.m, 1)
    leave(machine.m, int(exits.CPUID))
    assert int(machine.m.r.efer) & 0x500 == 0x500


def test_an_nmi_exit_blocks_nmis_in_the_host() -> None:
    machine = Hypervisor()
    enter(machine.m, 1)
    machine.m.exit.interruption_info = 0x80000202
    leave(machine.m, int(exits.EXCEPTION_NMI))
    assert int(machine.m.cpu.nmi_blocked) == 1
    assert int(machine.m.r.intercept) >> 0x14 & 1 == 1
    assert int(machine.v.guest_interruptibility_info) == 0
