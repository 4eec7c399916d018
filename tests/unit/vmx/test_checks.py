"""Each entry check: one field of a good VMCS broken, and the check that must notice."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.vmx.hypervisor import MSR_BITMAP, OTHER_REGION, VMCS_REGION, Hypervisor
from vmxemu.isa import controls, cpus, errors, exits
from vmxemu.outcome import DONE, VMFAIL
from vmxemu.vmx import reasons
from vmxemu.vmx.checks_controls import check_controls
from vmxemu.vmx.checks_guest import check_guest
from vmxemu.vmx.checks_host import check_host
from vmxemu.vmx.entry import enter

pytestmark = pytest.mark.jit_off
Break = dict[str, Any]
NONCANONICAL = 1 << 48
BEYOND = 1 << 50


def flip(mask: int) -> Callable[[int], int]:
    return lambda value: value ^ int(mask)


def also(mask: int) -> Callable[[int], int]:
    return lambda value: value | int(mask)


def without(mask: int) -> Callable[[int], int]:
    return lambda value: value & ~int(mask)


VMFUNC = {"secondary_vm_exec_control": also(controls.SECONDARY_VMFUNC), "vm_function_control": 1}
CONTROLS: list[tuple[str, Break]] = [
    ("PIN_RESERVED", {"pin_based_vm_exec_control": without(2)}),
    ("PIN_RESERVED", {"pin_based_vm_exec_control": also(1 << 31)}),
    ("CPU_RESERVED", {"cpu_based_vm_exec_control": without(2)}),
    ("CPU_RESERVED", {"cpu_based_vm_exec_control": also(controls.CPU_TERTIARY)}),
    ("SECONDARY_RESERVED", {"secondary_vm_exec_control": also(controls.SECONDARY_SPP)}),
    ("CR3_TARGET_COUNT", {"cr3_target_count": 5}),
    ("IO_BITMAP_ADDRESS", {"io_bitmap_a": 0x14001}),
    ("IO_BITMAP_ADDRESS", {"io_bitmap_b": BEYOND}),
    ("MSR_BITMAP_ADDRESS", {"msr_bitmap": MSR_BITMAP + 8}),
    ("VIRTUAL_NMI_WITHOUT_NMI_EXITING", {"pin_based_vm_exec_control": without(controls.PIN_NMI)}),
    (
        "NMI_WINDOW_WITHOUT_VIRTUAL_NMI",
        {
            "pin_based_vm_exec_control": without(controls.PIN_VIRTUAL_NMI),
            "cpu_based_vm_exec_control": also(controls.CPU_NMI_WINDOW),
        },
    ),
    ("VPID_ZERO", {"virtual_processor_id": 0}),
    ("EPT_POINTER", {"ept_pointer": 0x20019}),
    ("EPT_POINTER", {"ept_pointer": 0x20016}),
    ("EPT_POINTER", {"ept_pointer": 0x2009E}),
    ("EPT_POINTER", {"ept_pointer": BEYOND | 0x1E}),
    ("EPT_POINTER", {"ept_pointer": 0x20026}),  # five levels
    ("NEEDS_EPT", {"secondary_vm_exec_control": int(controls.SECONDARY_UNRESTRICTED_GUEST)}),
    ("NEEDS_EPT", {"secondary_vm_exec_control": int(controls.SECONDARY_MODE_BASED_EXECUTE)}),
    ("PML", {"secondary_vm_exec_control": int(controls.SECONDARY_PML)}),
    ("PML", {"secondary_vm_exec_control": also(controls.SECONDARY_PML), "pml_address": 0x2100}),
    ("PML", {"secondary_vm_exec_control": also(controls.SECONDARY_PML), "pml_address": BEYOND}),
    ("VE_ADDRESS", {"secondary_vm_exec_control": also(controls.SECONDARY_EPT_VE), "ve_information_address": 0x2010}),
    ("VE_ADDRESS", {"secondary_vm_exec_control": also(controls.SECONDARY_EPT_VE), "ve_information_address": BEYOND}),
    ("VM_FUNCTIONS", {**VMFUNC, "vm_function_control": 2}),
    ("VM_FUNCTIONS", {**VMFUNC, "eptp_list_address": 0x2008}),
    ("VM_FUNCTIONS", {**VMFUNC, "eptp_list_address": BEYOND}),
    ("VM_FUNCTIONS", {**VMFUNC, "secondary_vm_exec_control": int(controls.SECONDARY_VMFUNC)}),
    ("EXIT_RESERVED", {"vm_exit_controls": also(1 << 28)}),
    ("SAVE_TIMER_WITHOUT_TIMER", {"pin_based_vm_exec_control": without(controls.PIN_PREEMPTION_TIMER)}),
    ("EXIT_STORE_LIST", {"vm_exit_msr_store_count": 1, "vm_exit_msr_store_addr": 8}),
    ("EXIT_LOAD_LIST", {"vm_exit_msr_load_count": 1, "vm_exit_msr_load_addr": BEYOND}),
    ("ENTRY_RESERVED", {"vm_entry_controls": also(1 << 31)}),
    ("ENTRY_RESERVED", {"vm_entry_controls": also(controls.ENTRY_SMM)}),
    ("INJECTION_TYPE", {"vm_entry_intr_info_field": 0x80000100}),
    ("INJECTION_VECTOR", {"vm_entry_intr_info_field": 0x80000203}),
    ("INJECTION_VECTOR", {"vm_entry_intr_info_field": 0x80000320}),
    ("INJECTION_TYPE", {"vm_entry_intr_info_field": 0x80000700}),  # a pending MTF VM exit: no profile has the flag
    ("INJECTION_ERROR_CODE_BIT", {"vm_entry_intr_info_field": 0x8000030D}),
    ("INJECTION_ERROR_CODE_BIT", {"vm_entry_intr_info_field": 0x80000B06}),
    ("INJECTION_RESERVED", {"vm_entry_intr_info_field": 0x80001030}),
    ("INJECTION_ERROR_CODE", {"vm_entry_intr_info_field": 0x80000B0D, "vm_entry_exception_error_code": 1 << 16}),
    ("INJECTION_LENGTH", {"vm_entry_intr_info_field": 0x80000480, "vm_entry_instruction_len": 16}),
    ("INJECTION_LENGTH", {"vm_entry_intr_info_field": 0x80000603, "vm_entry_instruction_len": 0}),
    ("ENTRY_LOAD_LIST", {"vm_entry_msr_load_count": 1, "vm_entry_msr_load_addr": 4}),
]

HOST: list[tuple[str, Break]] = [
    ("HOST_CR0", {"host_cr0": without(1)}),
    ("HOST_CR0", {"host_cr0": also(1 << 32)}),
    ("HOST_CR4", {"host_cr4": without(0x2000)}),
    ("HOST_CR3", {"host_cr3": BEYOND}),
    ("HOST_SYSENTER", {"host_ia32_sysenter_esp": NONCANONICAL}),
    ("HOST_SYSENTER", {"host_ia32_sysenter_eip": NONCANONICAL}),
    ("HOST_PAT", {"host_ia32_pat": 0x02}),
    ("HOST_PAT", {"host_ia32_pat": 0x0800}),
    ("HOST_EFER", {"host_ia32_efer": 0x800}),
    ("HOST_EFER", {"host_ia32_efer": 0xD02}),
    *[("HOST_SELECTOR_BITS", {f"host_{name}_selector": 0x13}) for name in ("es", "cs", "ss", "ds", "fs", "gs", "tr")],
    ("HOST_SELECTOR_BITS", {"host_gs_selector": 0x14}),
    ("HOST_NULL_CS", {"host_cs_selector": 0}),
    ("HOST_NULL_TR", {"host_tr_selector": 0}),
    *[("HOST_BASE", {f"host_{name}_base": NONCANONICAL}) for name in ("fs", "gs", "tr", "gdtr", "idtr")],
    (
        "HOST_IA32E_NOW_64",
        {"vm_exit_controls": without(controls.EXIT_HOST_64 | controls.EXIT_LOAD_EFER)},
    ),
    ("HOST_64_PAE", {"host_cr4": 0x2000}),
    ("HOST_64_RIP", {"host_rip": NONCANONICAL}),
]

EXTERNAL = {"vm_entry_intr_info_field": 0x80000020}
UNRESTRICTED = {"secondary_vm_exec_control": also(controls.SECONDARY_UNRESTRICTED_GUEST)}
NOT_LONG = {"vm_entry_controls": without(controls.ENTRY_IA32E_GUEST), "guest_ia32_efer": 0, "guest_cs_ar_bytes": 0xC09B}

GUEST: list[tuple[str, Break]] = [
    ("GUEST_CR0", {"guest_cr0": without(0x20)}),
    ("GUEST_CR0", {"guest_cr0": without(1)}),
    ("GUEST_PAGING_WITHOUT_PROTECTION", {**UNRESTRICTED, "guest_cr0": without(1)}),
    ("GUEST_CR4", {"guest_cr4": without(0x2000)}),
    ("GUEST_CR4", {"guest_cr4": also(1 << 40)}),
    ("GUEST_DEBUGCTL", {"guest_ia32_debugctl": 4}),
    ("GUEST_IA32E_NEEDS_PAGING", {"guest_cr4": without(0x20)}),
    ("GUEST_PCIDE", {**NOT_LONG, "guest_cr4": also(1 << 17)}),
    ("GUEST_CR3", {"guest_cr3": BEYOND}),
    ("GUEST_DR7", {"guest_dr7": 1 << 32}),
    ("GUEST_SYSENTER", {"guest_sysenter_esp": NONCANONICAL}),
    ("GUEST_SYSENTER", {"guest_sysenter_eip": NONCANONICAL}),
    ("GUEST_PAT", {"guest_ia32_pat": 3 << 56}),
    ("GUEST_EFER", {"guest_ia32_efer": 0x900}),
    ("GUEST_EFER", {"guest_ia32_efer": 0xC00}),
    ("GUEST_EFER", {"guest_ia32_efer": 0xD00 | 1 << 20}),
    ("GUEST_TR_SELECTOR", {"guest_tr_selector": 0x1C}),
    ("GUEST_LDTR_SELECTOR", {"guest_ldtr_selector": 4, "guest_ldtr_ar_bytes": 0x82}),
    ("GUEST_SS_RPL", {"guest_ss_selector": 0x13}),
    *[("GUEST_SEGMENT_BASE", {f"guest_{name}_base": NONCANONICAL}) for name in ("fs", "gs", "tr")],
    *[("GUEST_SEGMENT_BASE", {f"guest_{name}_base": 1 << 32}) for name in ("cs", "ss", "ds", "es")],
    ("GUEST_SEGMENT_BASE", {"guest_ldtr_ar_bytes": 0x82, "guest_ldtr_base": NONCANONICAL}),
    ("GUEST_CS_TYPE", {"guest_cs_ar_bytes": 0xA09A}),
    ("GUEST_CS_TYPE", {"guest_cs_ar_bytes": 0xA093}),
    ("GUEST_CS_DPL", {"guest_cs_ar_bytes": 0xA0FB}),
    ("GUEST_CS_DPL", {"guest_cs_ar_bytes": 0xA0FF}),
    ("GUEST_CS_DB", {"guest_cs_ar_bytes": 0xE09B}),
    ("GUEST_SS_TYPE", {"guest_ss_ar_bytes": 0xC091}),
    ("GUEST_SS_DPL", {"guest_ss_ar_bytes": 0xC0F3, "guest_cs_ar_bytes": 0xA0FB}),
    ("GUEST_DATA_TYPE", {"guest_ds_ar_bytes": 0xC092}),
    ("GUEST_DATA_TYPE", {"guest_es_ar_bytes": 0xC099}),
    ("GUEST_DATA_DPL", {"guest_fs_selector": 0x13}),
    ("GUEST_SEGMENT_S", {"guest_cs_ar_bytes": 0xA08B}),
    ("GUEST_SEGMENT_S", {"guest_gs_ar_bytes": 0xC083}),
    ("GUEST_SEGMENT_PRESENT", {"guest_cs_ar_bytes": 0xA01B}),
    ("GUEST_SEGMENT_PRESENT", {"guest_ds_ar_bytes": 0xC013}),
    ("GUEST_SEGMENT_RESERVED", {"guest_ss_ar_bytes": 0xC193}),
    ("GUEST_SEGMENT_GRANULARITY", {"guest_cs_limit": 0xFFFFF000}),
    ("GUEST_SEGMENT_GRANULARITY", {"guest_es_ar_bytes": 0x4093}),
    ("GUEST_TR_RIGHTS", {"guest_tr_ar_bytes": 0x89}),
    ("GUEST_TR_RIGHTS", {"guest_tr_ar_bytes": 0x83}),
    ("GUEST_TR_RIGHTS", {"guest_tr_ar_bytes": 0x1008B}),
    ("GUEST_TR_RIGHTS", {"guest_tr_ar_bytes": 0x0B}),
    ("GUEST_LDTR_RIGHTS", {"guest_ldtr_ar_bytes": 0x83}),
    ("GUEST_LDTR_RIGHTS", {"guest_ldtr_ar_bytes": 0x92}),
    ("GUEST_TABLE_BASE", {"guest_gdtr_base": NONCANONICAL}),
    ("GUEST_TABLE_BASE", {"guest_idtr_base": NONCANONICAL}),
    ("GUEST_TABLE_LIMIT", {"guest_gdtr_limit": 0x10000}),
    ("GUEST_TABLE_LIMIT", {"guest_idtr_limit": 0x10000}),
    ("GUEST_RIP", {"guest_rip": 1 << 48}),
    ("GUEST_RIP", {**NOT_LONG, "guest_rip": 1 << 32}),
    ("GUEST_RFLAGS", {"guest_rflags": 0x200}),
    ("GUEST_RFLAGS", {"guest_rflags": 0x8202}),
    ("GUEST_VM86_SEGMENT", {"guest_rflags": 0x20202}),
    ("GUEST_RFLAGS_IF", {**EXTERNAL, "guest_rflags": 2}),
    ("GUEST_ACTIVITY", {"guest_activity_state": 2}),
    ("GUEST_ACTIVITY", {"guest_activity_state": 4}),
    (
        "GUEST_HALTED_DPL",
        {
            "guest_activity_state": 1,
            "guest_cs_selector": 0x2B,
            "guest_cs_ar_bytes": 0xA0FB,
            "guest_ss_selector": 0x33,
            "guest_ss_ar_bytes": 0xC0F3,
        },
    ),
    (
        "GUEST_RFLAGS_VM",
        {
            "guest_rflags": 0x20202,
            **{f"guest_{name}_ar_bytes": 0xF3 for name in ("cs", "es", "ss", "ds", "fs", "gs")},
            **{f"guest_{name}_limit": 0xFFFF for name in ("cs", "es", "ss", "ds", "fs", "gs")},
            **{f"guest_{name}_base": 0x100 for name in ("es", "ss", "ds", "fs", "gs")},
            "guest_cs_base": 0x80,
        },
    ),
    ("GUEST_ACTIVITY_BLOCKING", {"guest_activity_state": 1, "guest_interruptibility_info": 1}),
    ("GUEST_ACTIVITY_EVENT", {"guest_activity_state": 1, "vm_entry_intr_info_field": 0x80000B0E}),
    ("GUEST_BLOCKING_RESERVED", {"guest_interruptibility_info": 0x20}),
    ("GUEST_BLOCKING_BOTH", {"guest_interruptibility_info": 3}),
    ("GUEST_BLOCKING_STI", {"guest_interruptibility_info": 1, "guest_rflags": 2}),
    ("GUEST_BLOCKING_INTERRUPT", {**EXTERNAL, "guest_interruptibility_info": 1}),
    ("GUEST_BLOCKING_NMI", {"vm_entry_intr_info_field": 0x80000202, "guest_interruptibility_info": 2}),
    ("GUEST_BLOCKING_SMI", {"guest_interruptibility_info": 4}),
    ("GUEST_BLOCKING_VIRTUAL_NMI", {"vm_entry_intr_info_field": 0x80000202, "guest_interruptibility_info": 8}),
    ("GUEST_PENDING_RESERVED", {"guest_pending_dbg_exceptions": 0x10}),
    ("GUEST_PENDING_STEP", {"guest_interruptibility_info": 2, "guest_rflags": 0x302}),
    ("GUEST_PENDING_STEP", {"guest_interruptibility_info": 2, "guest_pending_dbg_exceptions": 1 << 14}),
    ("GUEST_LINK_POINTER", {"vmcs_link_pointer": 0x1001}),
    ("GUEST_LINK_REVISION", {"vmcs_link_pointer": 0x1E000}),
    ("GUEST_LINK_CURRENT", {"vmcs_link_pointer": VMCS_REGION}),
    ("GUEST_PDPTE", {**NOT_LONG, "guest_pdpte2": 3}),
]


def broken(changes: Break, profile: str = "skylake-sp") -> Hypervisor:
    machine = Hypervisor(cpus.load(profile))
    for name, change in changes.items():
        setattr(machine.v, name, change(int(getattr(machine.v, name))) if callable(change) else change)
    return machine


def name_of(number: int) -> str:
    return reasons.NAMES[int(number)]


def ids(cases: list[tuple[str, Break]]) -> list[str]:
    return [f"{number}-{name}" for number, (name, _) in enumerate(cases)]


def test_a_good_vmcs_passes_all() -> None:
    machine = Hypervisor()
    assert name_of(check_controls(machine.m, machine.m.vmx, machine.v)) == "PASSED"
    assert name_of(check_host(machine.m, machine.v)) == "PASSED"
    assert name_of(check_guest(machine.m, machine.v)) == "PASSED"


@pytest.mark.parametrize(("name", "changes"), CONTROLS, ids=ids(CONTROLS))
def test_control_fields(name: str, changes: Break) -> None:
    machine = broken(changes)
    assert name_of(check_controls(machine.m, machine.m.vmx, machine.v)) == name
    assert int(enter(machine.m, 1)) == int(VMFAIL) | int(errors.ENTRY_INVALID_CONTROL_FIELDS) << 32
    assert int(machine.m.vmx.non_root) == 0


@pytest.mark.parametrize(("name", "changes"), HOST, ids=ids(HOST))
def test_host_state(name: str, changes: Break) -> None:
    machine = broken(changes)
    assert name_of(check_host(machine.m, machine.v)) == name
    assert int(enter(machine.m, 1)) == int(VMFAIL) | int(errors.ENTRY_INVALID_HOST_STATE_FIELDS) << 32


@pytest.mark.parametrize(("name", "changes"), GUEST, ids=ids(GUEST))
def test_guest_state(name: str, changes: Break) -> None:
    machine = broken(changes)
    assert name_of(check_guest(machine.m, machine.v)) == name
    assert int(enter(machine.m, 1)) == int(DONE)
    assert int(machine.v.vm_exit_reason) == 1 << 31 | int(exits.ENTRY_FAIL_GUEST_STATE)
    wanted = {"GUEST_PDPTE": 2, "GUEST_LINK_POINTER": 4, "GUEST_LINK_REVISION": 4, "GUEST_LINK_CURRENT": 4}
    assert int(machine.v.exit_qualification) == wanted.get(name, 0)


def test_a_32_bit_host_is_refused_from_long_mode_and_a_64_bit_guest_from_32_bit_mode() -> None:
    machine = Hypervisor()
    machine.m.r.efer = 0
    assert name_of(check_host(machine.m, machine.v)) == "HOST_IA32E_NOW_32"


def test_a_real_mode_guest_needs_unrestricted_guest() -> None:
    machine = Hypervisor()
    v = machine.v
    v.secondary_vm_exec_control = int(v.secondary_vm_exec_control) | int(controls.SECONDARY_UNRESTRICTED_GUEST)
    v.vm_entry_controls = int(v.vm_entry_controls) & ~int(controls.ENTRY_IA32E_GUEST)
    v.guest_cr0, v.guest_cr4, v.guest_ia32_efer, v.guest_rip = 0x20, 0x2000, 0, 0xFFF0
    v.guest_cs_ar_bytes, v.guest_cs_limit, v.guest_cs_base = 0x9B, 0xFFFF, 0xF0000
    for name in ("es", "ss", "ds", "fs", "gs"):
        setattr(v, f"guest_{name}_ar_bytes", 0x93)
        setattr(v, f"guest_{name}_limit", 0xFFFF)
        setattr(v, f"guest_{name}_base", 0)
    assert name_of(check_guest(machine.m, v)) == "PASSED"
    assert int(enter(machine.m, 1)) == int(DONE)
    assert (int(machine.m.vmx.non_root), int(machine.m.cpu.unrestricted)) == (1, 1)
    assert int(machine.m.r.cr[0]) & 0x80000001 == 0


def test_a_link_pointer_to_another_vmcs_is_good() -> None:
    machine = Hypervisor()
    machine.v.vmcs_link_pointer = OTHER_REGION
    assert name_of(check_guest(machine.m, machine.v)) == "PASSED"


SPP = {"secondary_vm_exec_control": also(controls.SECONDARY_SPP)}
IDEAL: list[tuple[str, Break]] = [
    ("PASSED", {**SPP, "spp_table_pointer": 0x2000}),
    ("SPP_TABLE", {**SPP, "spp_table_pointer": 0x2800}),
    ("SPP_TABLE", {**SPP, "spp_table_pointer": BEYOND}),
    ("SPP_TABLE", {"secondary_vm_exec_control": int(controls.SECONDARY_SPP)}),
    ("PASSED", {"ept_pointer": 0x20026}),
    ("EPT_POINTER", {"ept_pointer": 0x2002E}),
    ("EPT_POINTER", {"ept_pointer": 0x2009E}),  # rights of supervisor shadow-stack pages: no profile has them
    ("HOST_PKRS", {"vm_exit_controls": also(controls.EXIT_LOAD_PKRS), "host_ia32_pkrs": 1 << 32}),
    ("GUEST_PKRS", {"vm_entry_controls": also(controls.ENTRY_LOAD_PKRS), "guest_ia32_pkrs": 1 << 32}),
]


@pytest.mark.parametrize(("name", "changes"), IDEAL, ids=ids(IDEAL))
def test_what_only_some_processors_have(name: str, changes: Break) -> None:
    machine = broken(changes, "ideal")
    failed = check_controls(machine.m, machine.m.vmx, machine.v) or check_host(machine.m, machine.v)
    assert name_of(failed or check_guest(machine.m, machine.v)) == name


def test_what_a_virtual_processor_withholds_is_reserved_there() -> None:
    machine = broken({"secondary_vm_exec_control": also(controls.SECONDARY_PML), "pml_address": 0x2000})
    assert name_of(check_controls(machine.m, machine.m.vmx, machine.v)) == "PASSED"
    machine.m.outer.nested.withheld[11] = int(controls.SECONDARY_PML) << 32
    assert name_of(check_controls(machine.m, machine.m.outer.nested, machine.v)) == "SECONDARY_RESERVED"
