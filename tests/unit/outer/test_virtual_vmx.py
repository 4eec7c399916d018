"""What VM1 reads of the VMX capability MSRs: no more than VMM1 can carry through."""

import pytest

from tests.unit.outer.room import Room
from vmxemu.cpu.msr_table import hide_absent_msrs
from vmxemu.isa import capabilities, controls, cpus, msrs
from vmxemu.outcome import DONE, FAULT, kind_of
from vmxemu.outer.level1 import read_msr
from vmxemu.outer.virtual_vmx import WITHHELD_CONTROLS, withhold


@pytest.fixture(scope="module")
def m():
    room = Room().reset()
    profile = cpus.load("ideal")
    for index in range(20):
        room.m.cpu.vmx_msr[index] = profile.reset_values().get(0x480 + index, 0)
    hide_absent_msrs(room.m, profile.features | profile.vmx.control_names)
    withhold(room.m)
    yield room.m


def read(m, index):
    assert int(read_msr(m, int(index))) == int(DONE)
    return int(m.walk.value)


def test_controls_that_ept02_cannot_honour_are_withheld(m):
    own = int(m.cpu.vmx_msr[11])
    assert own >> 32 & int(WITHHELD_CONTROLS) == int(WITHHELD_CONTROLS)
    assert read(m, msrs.IA32_VMX_PROCBASED_CTLS2) == own & ~(int(WITHHELD_CONTROLS) << 32)
    assert int(kind_of(read_msr(m, int(msrs.IA32_VMX_VMFUNC)))) == int(FAULT)


def test_ept_of_vmm2_has_four_levels(m):
    shown = read(m, msrs.IA32_VMX_EPT_VPID_CAP)
    assert shown == int(m.cpu.vmx_msr[12]) & ~int(capabilities.EPT_WALK_5)
    assert shown & int(capabilities.EPT_WALK_4)


def test_everything_else_is_the_processors_own(m):
    for index in (*range(0x480, 0x48B), *range(0x48D, 0x491)):
        assert read(m, index) == int(m.cpu.vmx_msr[index - 0x480])
    assert int(m.cpu.vmx_msr[4]) >> 32 & int(controls.ENTRY_LOAD_PKRS)
