"""What exits in VMX non-root operation, and what the exit says."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.vmx.hypervisor import CODE_PAGE, DATA_PAGE, IO_A, MSR_BITMAP, Hypervisor
from vmxemu.cpu.decode import decode
from vmxemu.isa import controls, exceptions, exits
from vmxemu.outcome import DONE, FAULT, VM_EXIT
from vmxemu.vmx import event
from vmxemu.vmx.control_registers import execute_guest_mov_cr
from vmxemu.vmx.controls import instruction_exits
from vmxemu.vmx.events import event_exits, external_interrupt_exits, record_interrupt
from vmxemu.vmx.intercepts import program
from vmxemu.vmx.windows import pending_exit

pytestmark = pytest.mark.jit_off
UD = int(FAULT) | int(exceptions.UD) << 8
GP0 = int(FAULT) | int(exceptions.GP) << 8 | 1 << 16


WORD_FIELDS = {
    "pin": "pin_based_vm_exec_control",
    "primary": "cpu_based_vm_exec_control",
    "secondary": "secondary_vm_exec_control",
}


class Guest(Hypervisor):
    """In VMX non-root operation with the processor's own state, so that code and operands translate."""

    def __init__(self) -> None:
        super().__init__()
        self.m.vmx.non_root = 1
        self.m.r.gpr[3] = DATA_PAGE
        self.v.cpu_based_vm_exec_control = int(controls.CPU_SECONDARY)
        self.v.secondary_vm_exec_control = 0
        self.v.pin_based_vm_exec_control = 0

    def set(self, *names: str) -> "Guest":
        for name in names:
            word = {
                "primary": "cpu_based_vm_exec_control",
                "secondary": "secondary_vm_exec_control",
                "pin": "pin_based_vm_exec_control",
            }[controls.BY_NAME[name].word]
            setattr(self.v, word, int(getattr(self.v, word)) | controls.BY_NAME[name].mask)
        return self

    def meets(self, *code: int, trap: int = 0x146) -> int:
        self.code(*code)
        assert int(decode(self.m)) == int(DONE)
        return int(instruction_exits(self.m, trap))


def exits_as(name: str) -> int:
    return int(VM_EXIT) | int(getattr(exits, name)) << 8


UNCONDITIONAL = {
    "CPUID": (0x0F, 0xA2),
    "INVD": (0x0F, 0x08),
    "VMCALL": (0x0F, 0x01, 0xC1),
    "VMLAUNCH": (0x0F, 0x01, 0xC2),
    "VMRESUME": (0x0F, 0x01, 0xC3),
    "VMXOFF": (0x0F, 0x01, 0xC4),
    "VMXON": (0xF3, 0x0F, 0xC7, 0x33),
    "VMCLEAR": (0x66, 0x0F, 0xC7, 0x33),
    "VMPTRLD": (0x0F, 0xC7, 0x33),
    "VMPTRST": (0x0F, 0xC7, 0x3B),
    "VMREAD": (0x0F, 0x78, 0x03),
    "VMWRITE": (0x0F, 0x79, 0x03),
    "INVEPT": (0x66, 0x0F, 0x38, 0x80, 0x03),
    "INVVPID": (0x66, 0x0F, 0x38, 0x81, 0x03),
}
CONDITIONAL = {
    "HLT": ((0xF4,), "CPU_HLT"),
    "INVLPG": ((0x0F, 0x01, 0x3B), "CPU_INVLPG"),
    "RDTSC": ((0x0F, 0x31), "CPU_RDTSC"),
    "RDPMC": ((0x0F, 0x33), "CPU_RDPMC"),
    "PAUSE": ((0xF3, 0x90), "CPU_PAUSE"),
    "MWAIT": ((0x0F, 0x01, 0xC9), "CPU_MWAIT"),
    "MONITOR": ((0x0F, 0x01, 0xC8), "CPU_MONITOR"),
    "WBINVD": ((0x0F, 0x09), "SECONDARY_WBINVD"),
    "RDRAND": ((0x0F, 0xC7, 0xF0), "SECONDARY_RDRAND"),
    "RDSEED": ((0x0F, 0xC7, 0xF8), "SECONDARY_RDSEED"),
    "GDTR_IDTR": ((0x0F, 0x01, 0x13), "SECONDARY_DESCRIPTOR_TABLE"),
    "LDTR_TR": ((0x0F, 0x00, 0xD0), "SECONDARY_DESCRIPTOR_TABLE"),
    "DR_ACCESS": ((0x0F, 0x21, 0xF8), "CPU_MOV_DR"),
    "IO_INSTRUCTION": ((0xE6, 0x80), "CPU_UNCONDITIONAL_IO"),
}


@pytest.mark.parametrize(("name", "code"), UNCONDITIONAL.items(), ids=UNCONDITIONAL.keys())
def test_unconditional_exits(name: str, code: tuple[int, ...]) -> None:
    guest = Guest()
    assert guest.meets(*code) == exits_as(name)
    assert int(guest.m.exit.instruction_length) == len(code)
    assert int(guest.m.r.rip) == CODE_PAGE


@pytest.mark.parametrize(("name", "what"), CONDITIONAL.items(), ids=CONDITIONAL.keys())
def test_conditional_exits(name: str, what: tuple[tuple[int, ...], str]) -> None:
    code, control = what
    assert Guest().meets(*code) == int(DONE)
    assert Guest().set(control).meets(*code) == exits_as(name)


@pytest.mark.parametrize(
    ("code", "control", "outcome"),
    [
        ((0x0F, 0x01, 0xC9), "CPU_MWAIT", UD),
        ((0x66, 0x0F, 0x38, 0x82, 0x03), "SECONDARY_INVPCID", GP0),
        ((0x0F, 0x32), "CPU_HLT", GP0),
        ((0xE6, 0x80), "CPU_UNCONDITIONAL_IO", GP0),
        ((0x0F, 0x22, 0xD8), "CPU_CR3_LOAD", GP0),
    ],
)
def test_privilege_faults_come_first(code: tuple[int, ...], control: str, outcome: int) -> None:
    guest = Guest().set(control)
    guest.cpl(3)
    guest.poke(102, bytes([0xFF, 0xFF]))  # the TSS, at 0, has no I/O permission bitmap
    assert guest.meets(*code) == outcome


def test_instructions_that_a_control_must_enable() -> None:
    assert Guest().meets(0x0F, 0x01, 0xF9) == UD  # RDTSCP
    assert Guest().set("SECONDARY_RDTSCP").meets(0x0F, 0x01, 0xF9) == int(DONE)
    assert Guest().set("SECONDARY_RDTSCP", "CPU_RDTSC").meets(0x0F, 0x01, 0xF9) == exits_as("RDTSCP")
    assert Guest().meets(0x66, 0x0F, 0x38, 0x82, 0x03) == UD  # INVPCID
    assert Guest().set("SECONDARY_INVPCID").meets(0x66, 0x0F, 0x38, 0x82, 0x03) == int(DONE)
    assert Guest().set("SECONDARY_INVPCID", "CPU_INVLPG").meets(0x66, 0x0F, 0x38, 0x82, 0x03) == exits_as("INVPCID")
    assert Guest().meets(0x0F, 0xC7, 0x2B) == UD  # XSAVES
    assert Guest().meets(0x0F, 0x01, 0xD4) == UD  # VMFUNC
    assert Guest().meets(0x0F, 0x01, 0xD1) == UD  # XSETBV without CR4.OSXSAVE
    guest = Guest()
    guest.m.r.cr[4] = int(guest.m.r.cr[4]) | 1 << 18
    assert guest.meets(0x0F, 0x01, 0xD1) == exits_as("XSETBV")


def test_tsd_has_priority_over_rdtsc_exiting() -> None:
    guest = Guest().set("CPU_RDTSC")
    guest.cpl(3)
    guest.m.r.cr[4] = int(guest.m.r.cr[4]) | 4
    assert guest.meets(0x0F, 0x31) == GP0


def test_other_exceptions_are_left_to_event_exits() -> None:
    assert Guest().meets(0x0F, 0xA2, trap=0x14D) == int(DONE)


def bit(guest: Guest, bitmap: int, number: int) -> None:
    guest.poke(bitmap + number // 8, bytes([1 << number % 8]))


@pytest.mark.parametrize("index", [0x10, 0x1FFF, 0xC0000080, 0xC0001FFF])
@pytest.mark.parametrize(("code", "name"), [((0x0F, 0x32), "RDMSR"), ((0x0F, 0x30), "WRMSR")])
def test_msr_bitmap(index: int, code: tuple[int, ...], name: str) -> None:
    guest = Guest().set("CPU_MSR_BITMAPS")
    guest.m.r.gpr[1] = index
    assert guest.meets(*code, trap=0x17C) == int(DONE)
    offset = (2048 if name == "WRMSR" else 0) + (1024 if index >= 0xC0000000 else 0)
    bit(guest, MSR_BITMAP + offset, index & 0x1FFF)
    assert guest.meets(*code, trap=0x17C) == exits_as(name)


@pytest.mark.parametrize("index", [0x2000, 0xBFFFFFFF, 0xC0002000, 0xFFFFFFFF])
def test_msrs_outside_the_bitmaps_exit(index: int) -> None:
    guest = Guest().set("CPU_MSR_BITMAPS")
    guest.m.r.gpr[1] = index
    assert guest.meets(0x0F, 0x32) == exits_as("RDMSR")


def test_without_msr_bitmaps_all_exit() -> None:
    assert Guest().meets(0x0F, 0x32) == exits_as("RDMSR")


def test_io_bitmaps_and_qualification() -> None:
    guest = Guest().set("CPU_IO_BITMAPS")
    guest.m.r.gpr[2] = 0x3F8
    assert guest.meets(0xEE) == int(DONE)
    bit(guest, IO_A, 0x3FA)
    assert guest.meets(0xEE) == int(DONE)
    assert guest.meets(0xEF) == exits_as("IO_INSTRUCTION")
    assert int(guest.m.exit.qualification) == 0x3F8 << 16 | 3
    bit(guest, IO_A, 0x80)
    assert guest.meets(0xE4, 0x80) == exits_as("IO_INSTRUCTION")
    assert int(guest.m.exit.qualification) == 0x80 << 16 | 1 << 3 | 1 << 6


def test_io_that_wraps_round_exits() -> None:
    guest = Guest().set("CPU_IO_BITMAPS")
    guest.m.r.gpr[2] = 0xFFFF
    assert guest.meets(0xEE) == int(DONE)
    assert guest.meets(0x66, 0xEF) == exits_as("IO_INSTRUCTION")


def test_string_io_qualification() -> None:
    guest = Guest().set("CPU_UNCONDITIONAL_IO")
    guest.m.r.gpr[2], guest.m.r.gpr[6], guest.m.r.gpr[7] = 0x60, 0x1234, 0x5678
    assert guest.meets(0xF3, 0x6C) == exits_as("IO_INSTRUCTION")
    assert int(guest.m.exit.qualification) == 0x60 << 16 | 1 << 3 | 1 << 4 | 1 << 5
    assert (int(guest.m.exit.instruction_info), int(guest.m.exit.guest_linear)) == (2 << 7, 0x5678)
    guest.meets(0x6F)
    assert (int(guest.m.exit.instruction_info), int(guest.m.exit.guest_linear)) == (2 << 7 | 3 << 15, 0x1234)


def test_instruction_information_of_vmread() -> None:
    guest = Guest()
    guest.meets(0x42, 0x0F, 0x78, 0x54, 0xCB, 0x10)  # vmread [rbx + r9*8 + 10h], rdx
    assert int(guest.m.exit.instruction_info) == 3 | 2 << 7 | 3 << 15 | 9 << 18 | 3 << 23 | 2 << 28
    assert int(guest.m.exit.qualification) == 0x10
    guest.meets(0x0F, 0x78, 0xD1)  # vmread rcx, rdx
    assert int(guest.m.exit.instruction_info) & 0xF00007F8 == 1 << 3 | 1 << 10 | 2 << 28
    guest.meets(0x0F, 0x78, 0x15, 0xF0, 0xFF, 0xFF, 0xFF)  # vmread [rip - 10h], rdx
    assert int(guest.m.exit.qualification) == CODE_PAGE + 7 - 0x10
    assert int(guest.m.exit.instruction_info) >> 22 & 0x21 == 0x21


def test_table_instruction_information() -> None:
    guest = Guest().set("SECONDARY_DESCRIPTOR_TABLE")
    guest.meets(0x0F, 0x01, 0x5B, 0x08)  # lidt [rbx + 8]
    assert int(guest.m.exit.instruction_info) >> 28 & 3 == 3
    assert int(guest.m.exit.qualification) == 8
    guest.meets(0x0F, 0x00, 0xD9)  # ltr cx
    assert int(guest.m.exit.instruction_info) >> 28 & 3 == 3
    assert int(guest.m.exit.instruction_info) & 0x478 == 1 << 10 | 1 << 3


def test_invlpg_and_dr_qualification() -> None:
    guest = Guest().set("CPU_INVLPG", "CPU_MOV_DR")
    guest.meets(0x0F, 0x01, 0x7B, 0x20)
    assert int(guest.m.exit.qualification) == DATA_PAGE + 0x20
    guest.meets(0x0F, 0x23, 0xF9)  # mov dr7, rcx
    assert int(guest.m.exit.qualification) == 7 | 1 << 8
    guest.meets(0x41, 0x0F, 0x21, 0xF0)  # mov r8, dr6
    assert int(guest.m.exit.qualification) == 6 | 1 << 4 | 8 << 8


def test_mov_to_cr0_compares_with_the_shadow() -> None:
    guest = Guest()
    guest.v.cr0_guest_host_mask, guest.v.cr0_read_shadow = 0x20 | 1 << 3, 1 << 3
    guest.m.r.gpr[1] = 0x80000019
    assert guest.meets(0x0F, 0x22, 0xC1) == int(DONE)
    guest.m.r.gpr[1] = 0x80000031
    assert guest.meets(0x0F, 0x22, 0xC1) == exits_as("CR_ACCESS")
    assert int(guest.m.exit.qualification) == 1 << 8


def test_mov_cr3_targets_and_store() -> None:
    guest = Guest().set("CPU_CR3_LOAD")
    guest.v.cr3_target_count, guest.v.cr3_target_value1 = 2, 0x7000
    guest.m.r.gpr[0] = 0x7000
    assert guest.meets(0x0F, 0x22, 0xD8) == int(DONE)
    guest.v.cr3_target_count = 1
    assert guest.meets(0x0F, 0x22, 0xD8) == exits_as("CR_ACCESS")
    assert int(guest.m.exit.qualification) == 3
    assert guest.meets(0x0F, 0x20, 0xD8) == int(DONE)
    assert guest.set("CPU_CR3_STORE").meets(0x0F, 0x20, 0xD9) == exits_as("CR_ACCESS")
    assert int(guest.m.exit.qualification) == 3 | 1 << 4 | 1 << 8


def test_clts_and_lmsw() -> None:
    guest = Guest()
    guest.v.cr0_guest_host_mask = 8
    assert guest.meets(0x0F, 0x06) == int(DONE)
    guest.v.cr0_read_shadow = 8
    assert guest.meets(0x0F, 0x06) == exits_as("CR_ACCESS")
    assert int(guest.m.exit.qualification) == 2 << 4
    guest.m.r.gpr[1] = 0x1239
    assert guest.meets(0x0F, 0x01, 0xF1) == int(DONE)
    guest.m.r.gpr[1] = 0x1231
    assert guest.meets(0x0F, 0x01, 0xF1) == exits_as("CR_ACCESS")
    assert int(guest.m.exit.qualification) == 3 << 4 | 0x1231 << 16
    guest.poke64(DATA_PAGE, 2)
    guest.meets(0x0F, 0x01, 0x33)
    assert int(guest.m.exit.qualification) == 3 << 4 | 1 << 6 | 2 << 16
    assert int(guest.m.exit.guest_linear) == DATA_PAGE


def test_reads_see_the_shadow_and_writes_spare_masked_bits() -> None:
    guest = Guest()
    m, v = guest.m, guest.v
    v.cr4_guest_host_mask, v.cr4_read_shadow = 0x2000, 0
    guest.meets(0x0F, 0x20, 0xE1)  # mov rcx, cr4
    assert int(execute_guest_mov_cr(m)) == int(DONE)
    assert int(m.r.gpr[1]) == 0x20
    m.r.gpr[1] = 0x620
    assert guest.meets(0x0F, 0x22, 0xE1) == int(DONE)
    assert int(execute_guest_mov_cr(m)) == int(DONE)
    assert int(m.r.cr[4]) == 0x2620
    assert int(m.r.rip) == CODE_PAGE + 3


def test_a_write_that_vmx_forbids_is_gp() -> None:
    guest = Guest()
    guest.m.r.gpr[1] = 0x20
    guest.meets(0x0F, 0x22, 0xE1)
    assert int(execute_guest_mov_cr(guest.m)) == GP0


@pytest.mark.parametrize(
    ("bitmap", "mask", "match", "error", "out"),
    [
        (1 << 14, 0, 0, 7, True),
        (0, 0, 0, 7, False),
        (0, 0, 1, 7, True),
        (1 << 14, 1, 1, 3, True),
        (1 << 14, 1, 1, 2, False),
        (0, 1, 1, 2, True),
    ],
)
def test_page_fault_filter(bitmap: int, mask: int, match: int, error: int, out: bool) -> None:
    guest = Guest()
    v, m = guest.v, guest.m
    v.exception_bitmap, v.page_fault_error_code_mask, v.page_fault_error_code_match = bitmap, mask, match
    m.walk.gla = 0x1234
    outcome = int(event_exits(m, 14, error, int(event.HARDWARE_TYPE)))
    assert outcome == (exits_as("EXCEPTION_NMI") if out else int(DONE))
    if out:
        assert (int(m.exit.qualification), int(m.exit.interruption_info), int(m.exit.interruption_error)) == (
            0x1234,
            0x80000B0E,
            error,
        )


def test_exceptions_nmi_and_triple_fault() -> None:
    guest = Guest()
    m, v = guest.m, guest.v
    v.exception_bitmap = 1 << 6 | 1 << 3 | 1 << 1
    assert int(event_exits(m, 13, 0, 3)) == int(DONE)
    assert int(event_exits(m, 6, 0, 3)) == exits_as("EXCEPTION_NMI")
    assert int(m.exit.interruption_info) == 0x80000306
    m.cpu.insn.length = 1
    assert int(event_exits(m, 3, 0, 6)) == exits_as("EXCEPTION_NMI")
    assert (int(m.exit.interruption_info), int(m.exit.instruction_length)) == (0x80000603, 1)
    m.cpu.pending_debug = 1 << 14
    assert int(event_exits(m, 1, 0, 3)) == exits_as("EXCEPTION_NMI")
    assert int(m.exit.qualification) == 1 << 14
    assert int(event_exits(m, 0x80, 0, 4)) == int(DONE)
    assert int(event_exits(m, 2, 0, 2)) == int(DONE)
    guest.set("PIN_NMI")
    assert int(event_exits(m, 2, 0, 2)) == exits_as("EXCEPTION_NMI")
    assert int(event_exits(m, 0x100, 0, 3)) == exits_as("TRIPLE_FAULT")


def test_external_interrupts() -> None:
    guest = Guest()
    m = guest.m
    guest.v.vm_exit_controls = 0
    assert int(external_interrupt_exits(m)) == int(DONE)
    guest.set("PIN_EXTERNAL_INTERRUPT")
    assert int(external_interrupt_exits(m)) == exits_as("EXTERNAL_INTERRUPT")
    assert int(event_exits(m, 0x30, 0, 0)) == exits_as("EXTERNAL_INTERRUPT")
    assert int(m.exit.interruption_info) == 0
    guest.v.vm_exit_controls = int(controls.EXIT_ACK_INTERRUPT)
    event_exits(m, 0x30, 0, 0)
    assert int(m.exit.interruption_info) == 0x80000030
    record_interrupt(m, 0x31)
    assert int(m.exit.interruption_info) == 0x80000031


Change = Callable[[Any], None]


@pytest.mark.parametrize(
    ("name", "control", "change"),
    [
        ("INTERRUPT_WINDOW", "CPU_INTERRUPT_WINDOW", lambda m: setattr(m.r, "eflags", 0x202)),
        ("NMI_WINDOW", "CPU_NMI_WINDOW", lambda m: setattr(m.cpu, "nmi_blocked", 0)),
        ("PREEMPTION_TIMER", "PIN_PREEMPTION_TIMER", lambda m: setattr(m.clock, "ticks", 500)),
        ("MONITOR_TRAP_FLAG", "CPU_MTF", lambda m: setattr(m.vmx, "mtf_pending", 1)),
    ],
)
def test_windows(name: str, control: str, change: Change) -> None:
    guest = Guest()
    m = guest.m
    m.cpu.nmi_blocked = 1
    m.vmx.preemption_deadline = 500 if control.startswith("PIN") else 0
    guest.set(control)
    assert int(pending_exit(m)) == int(DONE)
    change(m)
    assert int(pending_exit(m)) == exits_as(name)


def test_the_interrupt_shadow_closes_the_window() -> None:
    guest = Guest().set("CPU_INTERRUPT_WINDOW")
    guest.m.r.eflags = 0x202
    guest.m.r.mode = int(guest.m.r.mode) | 8
    assert int(pending_exit(guest.m)) == int(DONE)


def test_intercepts_follow_the_controls() -> None:
    guest = Guest()
    m = guest.m
    program(m)
    base = int(m.r.intercept)
    assert int(m.r.intercept_cr_read) == 1 << 8
    assert int(m.r.intercept_exceptions) == 0xFFFFFFFF
    guest.set("SECONDARY_DESCRIPTOR_TABLE", "CPU_PAUSE", "CPU_CR3_STORE", "CPU_MOV_DR")
    guest.v.cr0_guest_host_mask = guest.v.cr4_guest_host_mask = 1
    m.cpu.nmi_blocked = 1
    program(m)
    assert int(m.r.intercept) & ~base == 0xFF << 6 | 1 << 0x17 | 1 << 0x14
    assert int(m.r.intercept_cr_read) == 1 << 8 | 1 << 4 | 1 << 3 | 1
    assert int(m.r.intercept_dr_read) == 0xFFFF
    m.vmx.non_root, m.cpu.nmi_blocked = 0, 0
    program(m)
    assert int(m.r.intercept) == base
