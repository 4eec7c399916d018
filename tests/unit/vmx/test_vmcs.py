"""The VMCS region: encodings, widths, access."""

import pickle

import pytest

from tests.unit.vmx.hypervisor import Hypervisor
from vmxemu.isa import controls, fields
from vmxemu.vmx.capability import field_exists
from vmxemu.vmx.vmcs import NO_SLOT, Vmcs, is_read_only, slot_of, vmread_field, vmwrite_field

pytestmark = pytest.mark.jit_off


def test_each_encoding_has_its_own_slot_in_the_region() -> None:
    slots = [int(slot_of(row.encoding)) for row in fields.ROWS]
    assert slots == list(range(len(fields.ROWS)))
    assert Vmcs.SIZE <= 4096
    assert Vmcs.FIELDS["guest_rip"].offset == 64 + 8 * int(slot_of(int(fields.GUEST_RIP)))


@pytest.mark.parametrize(
    "encoding", [0x681F, 0x7800, 0x1000, 0x8800, 1 << 32 | 0x681E, 0x68FE, 0x4801, 0x0C0E, 0xFFFFFFFF]
)
def test_no_field_has_these_encodings(encoding: int) -> None:
    assert int(slot_of(encoding)) == int(NO_SLOT)


def test_high_access_reaches_the_upper_half_of_64_bit_fields_only() -> None:
    machine = Hypervisor()
    host = machine.base + 0x11000
    vmwrite_field(host, int(fields.MSR_BITMAP), 0x1122334455667788)
    assert int(vmread_field(host, int(fields.MSR_BITMAP) | 1)) == 0x11223344
    vmwrite_field(host, int(fields.MSR_BITMAP) | 1, 0xFFFFFFFF_AAAAAAAA)
    assert int(vmread_field(host, int(fields.MSR_BITMAP))) == 0xAAAAAAAA55667788


@pytest.mark.parametrize("row", fields.ROWS, ids=lambda row: row.name)
def test_values_are_truncated_to_the_width(row: fields.VmcsField) -> None:
    machine = Hypervisor()
    host = machine.base + 0x11000
    vmwrite_field(host, row.encoding, (1 << 64) - 1)
    assert int(vmread_field(host, row.encoding)) == (1 << row.bits) - 1
    assert int(getattr(machine.v, row.name.lower())) == (1 << row.bits) - 1
    assert bool(is_read_only(row.encoding)) == (row.type == "read-only")


def test_fields_of_unsupported_controls_do_not_exist() -> None:
    machine = Hypervisor()
    assert field_exists(machine.m, machine.m.vmx, int(fields.EPT_POINTER))
    assert field_exists(machine.m, machine.m.vmx, int(fields.GUEST_RIP))
    assert not field_exists(machine.m, machine.m.vmx, int(fields.TPR_THRESHOLD))
    assert field_exists(machine.m, machine.m.vmx, int(fields.PML_ADDRESS))
    assert not field_exists(machine.m, machine.m.vmx, int(fields.SPP_TABLE_POINTER))
    assert not field_exists(machine.m, machine.m.vmx, int(fields.SHARED_EPT_POINTER))
    machine.m.outer.nested.withheld[11] = int(controls.SECONDARY_PML) << 32
    assert not field_exists(machine.m, machine.m.outer.nested, int(fields.PML_ADDRESS))
    machine.m.cpu.vmx_msr[11] = 0
    assert not field_exists(machine.m, machine.m.vmx, int(fields.EPT_POINTER))


def test_the_layout_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(Vmcs)) is Vmcs
