"""Every VMCS field is accounted for: where VMCS02 gets it when VM2 starts, and where it goes when VM2's exit is VMM2's.

A field that isa/ gains fails here until somebody says what becomes of it.
"""

import random

import pytest

from tests.unit.outer.room import BITMAPS, EPT01, LISTS, POOL_VMCS02, VMCS01, VMCS12, Room
from vmxemu.isa import controls, cpus, fields
from vmxemu.outer.merge import enter_vm2
from vmxemu.outer.reflect import reflect
from vmxemu.outer.virtual_vmx import WITHHELD_CONTROLS

# Controls of VMCS02 that are VMCS12's as they are
COPIED = """
PIN_BASED_VM_EXEC_CONTROL PAGE_FAULT_ERROR_CODE_MASK PAGE_FAULT_ERROR_CODE_MATCH
CR3_TARGET_COUNT CR3_TARGET_VALUE0 CR3_TARGET_VALUE1
CR3_TARGET_VALUE2 CR3_TARGET_VALUE3
CR0_GUEST_HOST_MASK CR4_GUEST_HOST_MASK CR0_READ_SHADOW CR4_READ_SHADOW PLE_GAP PLE_WINDOW
VM_ENTRY_INTR_INFO_FIELD VM_ENTRY_EXCEPTION_ERROR_CODE VM_ENTRY_INSTRUCTION_LEN
""".split()
# Computed from both, or VMM1's own
COMPUTED = """
CPU_BASED_VM_EXEC_CONTROL SECONDARY_VM_EXEC_CONTROL EXCEPTION_BITMAP VM_EXIT_CONTROLS VM_ENTRY_CONTROLS TSC_OFFSET IO_BITMAP_A
IO_BITMAP_B MSR_BITMAP EPT_POINTER VIRTUAL_PROCESSOR_ID VM_ENTRY_MSR_LOAD_ADDR VM_ENTRY_MSR_LOAD_COUNT VM_EXIT_MSR_STORE_ADDR
VM_EXIT_MSR_STORE_COUNT VM_EXIT_MSR_LOAD_COUNT
""".split()
# VMM1 has no area to load at its own exits, and no dual-monitor treatment: these do nothing in VMCS02
WITHOUT_EFFECT = ["VM_EXIT_MSR_LOAD_ADDR", "EXECUTIVE_VMCS_POINTER"]
# Belong to controls that no processor profile of ours has, or that VMM1 withholds (checked below); VMCS02 leaves them 0
NOT_MODELLED = """
POSTED_INTR_NV EPTP_INDEX HLAT_PREFIX_SIZE LAST_PID_POINTER_INDEX PML_ADDRESS VIRTUAL_APIC_PAGE_ADDR APIC_ACCESS_ADDR
POSTED_INTR_DESC_ADDR VM_FUNCTION_CONTROL EOI_EXIT_BITMAP0 EOI_EXIT_BITMAP1 EOI_EXIT_BITMAP2 EOI_EXIT_BITMAP3 EPTP_LIST_ADDRESS
VMREAD_BITMAP VMWRITE_BITMAP VE_INFORMATION_ADDRESS XSS_EXIT_BITMAP ENCLS_EXITING_BITMAP SPP_TABLE_POINTER TSC_MULTIPLIER
TERTIARY_VM_EXEC_CONTROL ENCLV_EXITING_BITMAP LOW_PASID_DIRECTORY_ADDRESS HIGH_PASID_DIRECTORY_ADDRESS SHARED_EPT_POINTER
PCONFIG_EXITING_BITMAP HLAT_POINTER PID_POINTER_TABLE_ADDRESS SECONDARY_VM_EXIT_CONTROLS SPEC_CTRL_MASK SPEC_CTRL_SHADOW
INJECTED_EVENT_DATA TPR_THRESHOLD INSTRUCTION_TIMEOUT_CONTROL
""".split()
# Guest fields of VMCS02 that may differ from VMCS12's
INHERITED = ["VMCS_LINK_POINTER", "GUEST_IA32_PAT", "GUEST_IA32_EFER", "GUEST_DR7", "GUEST_IA32_DEBUGCTL"]
# VMCS12's host state: in VM1's guest state afterwards, under the name with GUEST, but for
HOST_CHANGED = ["HOST_CR4", "HOST_IA32_PAT", "HOST_IA32_EFER", "HOST_IA32_PKRS"]


def of_type(kind):
    return [row.name for row in fields.ROWS if row.type == kind]


def modelled(name):
    """Whether VMM2 finds the field on some profile."""
    condition = fields.BY_NAME[name].exists_if
    shown = set().union(*(cpus.load(profile).vmx.control_names for profile in cpus.names()))
    shown -= {*controls.names("secondary", int(WITHHELD_CONTROLS)), "VMFUNC_EPTP_SWITCHING"}
    return not condition or bool(shown & set(condition))


def scramble(vmcs, seed):
    chance = random.Random(seed)
    for row in fields.ROWS:
        setattr(vmcs, row.name.lower(), chance.getrandbits(row.bits))


@pytest.fixture
def room():
    room = SHARED.reset()
    first, second, third = room.vmcs(VMCS01), room.vmcs(POOL_VMCS02), room.vmcs(VMCS12)
    for seed, vmcs in enumerate((first, second, third)):
        scramble(vmcs, seed)
    third.vm_entry_msr_load_count = third.vm_exit_msr_store_count = third.vm_exit_msr_load_count = 0
    third.ept_pointer = 0x4000 | 0x5E
    third.cpu_based_vm_exec_control = int(controls.CPU_SECONDARY | controls.CPU_TSC_OFFSETTING | controls.CPU_IO_BITMAPS)
    third.secondary_vm_exec_control = int(controls.SECONDARY_EPT | controls.SECONDARY_VPID)
    third.io_bitmap_a, third.io_bitmap_b = 0x50000, 0xFFFFF000
    first.cpu_based_vm_exec_control = 0
    return room


SHARED = Room()


def test_every_control_has_its_place():
    places = [COPIED, COMPUTED, WITHOUT_EFFECT, NOT_MODELLED]
    assert sorted(sum(places, [])) == sorted(of_type("control"))
    assert [name for name in NOT_MODELLED if modelled(name)] == []


def test_controls_and_host_state_of_vmcs02(room):
    m = room.m
    enter_vm2(m)
    v01, v02, v12 = room.vmcs(VMCS01), room.vmcs(POOL_VMCS02), room.vmcs(VMCS12)
    for name in COPIED:
        assert getattr(v02, name.lower()) == getattr(v12, name.lower()), name
    for name in of_type("host"):
        assert getattr(v02, name.lower()) == getattr(v01, name.lower()), name
    assert v02.exception_bitmap == int(v12.exception_bitmap) | 1 << 18
    assert v02.tsc_offset == v12.tsc_offset
    assert v02.io_bitmap_a == 0x50000 and v02.io_bitmap_b == 0xFD000000, "no memory there: all ones"
    assert v02.msr_bitmap == BITMAPS + 0x1000 and v02.virtual_processor_id == 2
    assert int(v02.ept_pointer) & 0xFFF == 0x5E and v02.ept_pointer != v12.ept_pointer
    assert v02.vm_entry_msr_load_addr == LISTS and v02.vm_exit_msr_load_count == 0
    wanted = controls.CPU_MSR_BITMAPS | controls.CPU_SECONDARY | controls.CPU_TSC_OFFSETTING | controls.CPU_IO_BITMAPS
    assert v02.cpu_based_vm_exec_control == int(wanted)
    assert v02.vm_exit_controls & controls.EXIT_HOST_64 == v01.vm_exit_controls & controls.EXIT_HOST_64
    assert m.outer.level == 2


@pytest.mark.parametrize("load", (False, True))
def test_guest_state_of_vmcs02(room, load):
    own = int(controls.ENTRY_LOAD_PAT | controls.ENTRY_LOAD_EFER | controls.ENTRY_LOAD_DEBUG)
    v01, v02, v12 = room.vmcs(VMCS01), room.vmcs(POOL_VMCS02), room.vmcs(VMCS12)
    v12.vm_entry_controls = int(v12.vm_entry_controls) | own if load else int(v12.vm_entry_controls) & ~own
    enter_vm2(room.m)
    for name in of_type("guest"):
        if name not in INHERITED:
            assert getattr(v02, name.lower()) == getattr(v12, name.lower()), name
    assert v02.vmcs_link_pointer == (1 << 64) - 1
    source = v12 if load else v01
    assert (v02.guest_ia32_pat, v02.guest_dr7) == (source.guest_ia32_pat, source.guest_dr7)
    assert v02.guest_ia32_debugctl == source.guest_ia32_debugctl
    assert int(v02.guest_ia32_efer) & ~0x500 == int(source.guest_ia32_efer) & ~0x500


@pytest.mark.parametrize("save", (False, True))
def test_where_a_reflected_exit_puts_things(room, save):
    v01, v02, v12 = room.vmcs(VMCS01), room.vmcs(POOL_VMCS02), room.vmcs(VMCS12)
    own = int(controls.EXIT_SAVE_PAT | controls.EXIT_SAVE_EFER | controls.EXIT_SAVE_DEBUG | controls.EXIT_SAVE_PREEMPTION_TIMER)
    loads = int(controls.EXIT_LOAD_PAT | controls.EXIT_LOAD_EFER | controls.EXIT_LOAD_PKRS | controls.EXIT_HOST_64)
    v12.vm_exit_controls = loads | own if save else loads
    v02.vm_exit_msr_store_count = 0
    kept = {row.name: int(getattr(v12, row.name.lower())) for row in fields.ROWS}
    left = {row.name: int(getattr(v02, row.name.lower())) for row in fields.ROWS}
    room.m.outer.level = 2
    reflect(room.m)
    conditional = ["GUEST_IA32_PAT", "GUEST_IA32_EFER", "GUEST_DR7", "GUEST_IA32_DEBUGCTL", "VMX_PREEMPTION_TIMER_VALUE"]
    for name in of_type("guest"):
        stays = name == "VMCS_LINK_POINTER" or (name in conditional and not save)
        assert getattr(v12, name.lower()) == (kept if stays else left)[name], name
    for name in of_type("read-only"):
        assert getattr(v12, name.lower()) == (kept if name == "VM_INSTRUCTION_ERROR" else left)[name], name
    changed = {"VM_ENTRY_CONTROLS", "VM_ENTRY_INTR_INFO_FIELD"}
    for name in [*of_type("control"), *of_type("host")]:
        if name not in changed:
            assert getattr(v12, name.lower()) == kept[name], f"{name} is VMM2's"
    assert int(v12.vm_entry_intr_info_field) == kept["VM_ENTRY_INTR_INFO_FIELD"] & ~(1 << 31)
    for name in filter(modelled, of_type("host")):
        if name not in HOST_CHANGED:
            assert getattr(v01, name.replace("HOST_IA32", "GUEST").replace("HOST", "GUEST").lower()) == kept[name], name
    assert room.m.paging.pkrs == kept["HOST_IA32_PKRS"], "VM1 has it in the processor"
    assert v01.guest_cr4 == kept["HOST_CR4"] | 1 << 13 | 1 << 5
    assert (v01.guest_ia32_pat, v01.guest_ia32_efer) == (kept["HOST_IA32_PAT"], kept["HOST_IA32_EFER"])
    assert (v01.guest_rflags, v01.guest_dr7, v01.guest_activity_state, v01.guest_ia32_debugctl) == (2, 0x400, 0, 0)
    assert room.m.outer.level == 1 and room.m.vmx.current == VMCS01


def test_nothing_of_the_machine_is_in_vmcs12(room):
    """Law 6: no address of the sequestered region gets into VMM2's VMCS."""
    v12 = room.vmcs(VMCS12)
    for row in fields.ROWS:
        setattr(v12, row.name.lower(), int(getattr(v12, row.name.lower())) & 0xFFFF if row.bits > 16 else 0)
    v12.cpu_based_vm_exec_control = int(controls.CPU_SECONDARY)
    v12.secondary_vm_exec_control = int(controls.SECONDARY_EPT)
    v12.ept_pointer, v12.vm_entry_msr_load_count, v12.vm_exit_msr_store_count, v12.vm_exit_msr_load_count = 0x401E, 0, 0, 0
    enter_vm2(room.m)
    v02 = room.vmcs(POOL_VMCS02)
    for row in fields.ROWS:
        if row.type == "read-only":
            setattr(v02, row.name.lower(), 0)
    reflect(room.m)
    region = range(EPT01, EPT01 + (6 << 20))
    assert [row.name for row in fields.ROWS if int(getattr(v12, row.name.lower())) in region] == []
