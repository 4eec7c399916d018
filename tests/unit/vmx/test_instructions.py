"""VMX instructions executed from memory, in VMX root operation and outside it."""

from typing import Any

import pytest

from tests.unit.vmx.hypervisor import (
    CODE_PAGE,
    DATA_PAGE,
    GUEST_RIP,
    OTHER_REGION,
    VMCS_REGION,
    VMXON_REGION,
    Hypervisor,
)
from vmxemu.cpu.decode import decode
from vmxemu.cpu.flags import read_flags
from vmxemu.cpu.mode import refresh_mode
from vmxemu.isa import errors, exceptions, exits, fields
from vmxemu.outcome import DONE, FAULT, NOT_MINE
from vmxemu.vmx.execute import execute_decoded, execute_root
from vmxemu.vmx.vmcs import NO_VMCS

pytestmark = pytest.mark.jit_off
RAX, RCX, RDX, RBX = 0, 1, 2, 3
CF, ZF = 1, 1 << 6
# All memory operands are [rbx].
VMXON, VMCLEAR, VMPTRLD, VMPTRST = (
    (0xF3, 0x0F, 0xC7, 0x33),
    (0x66, 0x0F, 0xC7, 0x33),
    (0x0F, 0xC7, 0x33),
    (0x0F, 0xC7, 0x3B),
)
VMREAD_REG, VMREAD_MEM = (0x0F, 0x78, 0xC1), (0x0F, 0x78, 0x03)  # vmread rcx, rax; vmread [rbx], rax
VMWRITE_REG, VMWRITE_MEM = (0x0F, 0x79, 0xC1), (0x0F, 0x79, 0x03)
VMCALL, VMLAUNCH, VMRESUME, VMXOFF, VMFUNC = ((0x0F, 0x01, modrm) for modrm in (0xC1, 0xC2, 0xC3, 0xC4, 0xD4))
INVEPT, INVVPID = (0x66, 0x0F, 0x38, 0x80, 0x03), (0x66, 0x0F, 0x38, 0x81, 0x03)
EVERY = {
    "vmclear": VMCLEAR,
    "vmptrld": VMPTRLD,
    "vmptrst": VMPTRST,
    "vmread": VMREAD_REG,
    "vmwrite": VMWRITE_REG,
    "vmcall": VMCALL,
    "vmlaunch": VMLAUNCH,
    "vmresume": VMRESUME,
    "vmxoff": VMXOFF,
    "invept": INVEPT,
    "invvpid": INVVPID,
}
UD = int(FAULT) | int(exceptions.UD) << 8
GP0 = int(FAULT) | int(exceptions.GP) << 8 | 1 << 16


def run(machine: Hypervisor, code: tuple[int, ...], operand: int | None = None, second: int = 0) -> int:
    machine.code(*code)
    machine.m.r.gpr[RBX] = DATA_PAGE
    if operand is not None:
        machine.poke64(DATA_PAGE, operand)
        machine.poke64(DATA_PAGE + 8, second)
    return int(execute_root(machine.m))


def flags(machine: Hypervisor) -> int:
    return int(read_flags(machine.m)) & 0x8D5


def succeeded(machine: Hypervisor, code: tuple[int, ...], outcome: int) -> bool:
    return outcome == int(DONE) and flags(machine) == 0 and int(machine.m.r.rip) == CODE_PAGE + len(code)


def failed_with(machine: Hypervisor, error: Any) -> bool:
    return flags(machine) == ZF and int(machine.v.vm_instruction_error) == int(error)


@pytest.mark.parametrize("code", EVERY.values(), ids=EVERY.keys())
def test_outside_vmx_operation_is_ud(code: tuple[int, ...]) -> None:
    machine = Hypervisor()
    machine.m.vmx.on = 0
    assert run(machine, code, VMCS_REGION) == UD


@pytest.mark.parametrize("code", EVERY.values(), ids=EVERY.keys())
def test_above_cpl_0_is_gp(code: tuple[int, ...]) -> None:
    machine = Hypervisor()
    machine.cpl(3)
    assert run(machine, code, VMCS_REGION) == GP0


@pytest.mark.parametrize("code", [*EVERY.values(), VMXON], ids=[*EVERY.keys(), "vmxon"])
def test_compatibility_mode_is_ud(code: tuple[int, ...]) -> None:
    machine = Hypervisor()
    machine.m.r.seg[1].flags = int(machine.m.r.seg[1].flags) & ~(1 << 21) | 1 << 22
    refresh_mode(machine.m)
    assert run(machine, code, VMCS_REGION) == UD


@pytest.mark.parametrize("code", [VMFUNC])
def test_vmfunc_is_ud_in_root(code: tuple[int, ...]) -> None:
    assert run(Hypervisor(), code) == UD


@pytest.mark.parametrize("code", [(0x0F, 0x0B), (0x66, 0x0F, 0x78, 0xC1), (0xF0, 0x0F, 0xC7, 0x33), (0x0F, 0xC7, 0xF0)])
def test_other_invalid_opcodes_are_not_mine(code: tuple[int, ...]) -> None:
    assert run(Hypervisor(), code) == int(NOT_MINE)


def outside() -> Hypervisor:
    machine = Hypervisor()
    machine.m.vmx.on, machine.m.vmx.current, machine.m.vmx.host_address = 0, 0, 0
    return machine


def test_vmxon_enters_vmx_operation_without_a_current_vmcs() -> None:
    machine = outside()
    assert succeeded(machine, VMXON, run(machine, VMXON, VMXON_REGION))
    vmx = machine.m.vmx
    assert (int(vmx.on), int(vmx.vmxon_pointer), int(vmx.current)) == (1, VMXON_REGION, int(NO_VMCS))


@pytest.mark.parametrize("operand", [VMXON_REGION + 1, 1 << 50, 0x1F000], ids=["unaligned", "too wide", "revision"])
def test_vmxon_with_a_bad_region_is_vmfailinvalid(operand: int) -> None:
    machine = outside()
    assert run(machine, VMXON, operand) == int(DONE)
    assert flags(machine) == CF
    assert int(machine.m.vmx.on) == 0


def test_vmxon_faults() -> None:
    for change, outcome in (
        (lambda m: setattr(m.cpu, "feature_control", 0), GP0),
        (lambda m: setattr(m.cpu, "feature_control", 3), GP0),
        (lambda m: m.r.cr.__setitem__(0, 0x80000011), GP0),
        (lambda m: m.r.cr.__setitem__(4, 0x20), UD),
        (lambda m: m.r.cr.__setitem__(0, 0), UD),
    ):
        machine = outside()
        machine.code(*VMXON)
        machine.m.r.gpr[RBX] = DATA_PAGE
        assert int(decode(machine.m)) == int(DONE)
        change(machine.m)
        assert int(execute_decoded(machine.m, int(exits.VMXON))) == outcome


def test_vmxon_in_root_fails_with_15() -> None:
    machine = Hypervisor()
    run(machine, VMXON, OTHER_REGION)
    assert failed_with(machine, errors.VMXON_IN_VMX_ROOT)
    assert int(machine.m.vmx.vmxon_pointer) == VMXON_REGION


def test_vmfail_without_a_current_vmcs_is_vmfailinvalid() -> None:
    machine = Hypervisor()
    machine.m.vmx.host_address = 0
    run(machine, VMCALL)
    assert flags(machine) == CF


def test_vmclear() -> None:
    machine = Hypervisor()
    machine.v.launch_state = 1
    assert succeeded(machine, VMCLEAR, run(machine, VMCLEAR, VMCS_REGION))
    assert int(machine.v.launch_state) == 0
    assert (int(machine.m.vmx.current), int(machine.m.vmx.host_address)) == (int(NO_VMCS), 0)


@pytest.mark.parametrize(
    ("code", "operand", "error"),
    [
        (VMCLEAR, 0x11001, errors.VMCLEAR_INVALID_ADDRESS),
        (VMCLEAR, 1 << 50, errors.VMCLEAR_INVALID_ADDRESS),
        (VMCLEAR, VMXON_REGION, errors.VMCLEAR_VMXON_POINTER),
        (VMPTRLD, 0x11001, errors.VMPTRLD_INVALID_ADDRESS),
        (VMPTRLD, VMXON_REGION, errors.VMPTRLD_VMXON_POINTER),
        (VMPTRLD, 0x1F000, errors.VMPTRLD_INCORRECT_REVISION_ID),
        (VMPTRLD, 0xFEE00000, errors.VMPTRLD_INCORRECT_REVISION_ID),
    ],
)
def test_bad_pointers(code: tuple[int, ...], operand: int, error: int) -> None:
    machine = Hypervisor()
    assert run(machine, code, operand) == int(DONE)
    assert failed_with(machine, error)
    assert int(machine.m.vmx.current) == VMCS_REGION


def test_a_shadow_vmcs_is_refused() -> None:
    machine = Hypervisor()
    machine.poke(OTHER_REGION + 3, bytes([0xD6]))
    run(machine, VMPTRLD, OTHER_REGION)
    assert failed_with(machine, errors.VMPTRLD_INCORRECT_REVISION_ID)


def test_vmptrld_and_vmptrst() -> None:
    machine = Hypervisor()
    assert succeeded(machine, VMPTRLD, run(machine, VMPTRLD, OTHER_REGION))
    assert int(machine.m.vmx.current) == OTHER_REGION
    assert succeeded(machine, VMPTRST, run(machine, VMPTRST))
    assert machine.peek64(DATA_PAGE) == OTHER_REGION


def test_vmread_to_register_and_memory() -> None:
    machine = Hypervisor()
    machine.m.r.gpr[RAX] = int(fields.GUEST_RIP)
    assert succeeded(machine, VMREAD_REG, run(machine, VMREAD_REG))
    assert int(machine.m.r.gpr[RCX]) == GUEST_RIP
    assert succeeded(machine, VMREAD_MEM, run(machine, VMREAD_MEM))
    assert machine.peek64(DATA_PAGE) == GUEST_RIP


def test_vmwrite_from_register_and_memory() -> None:
    machine = Hypervisor()
    machine.m.r.gpr[RAX], machine.m.r.gpr[RCX] = int(fields.GUEST_ES_SELECTOR), 0x12345
    assert succeeded(machine, VMWRITE_REG, run(machine, VMWRITE_REG))
    assert int(machine.v.guest_es_selector) == 0x2345
    assert succeeded(machine, VMWRITE_MEM, run(machine, VMWRITE_MEM, 0x77))
    assert int(machine.v.guest_es_selector) == 0x77


@pytest.mark.parametrize("code", [VMREAD_REG, VMWRITE_REG])
@pytest.mark.parametrize("encoding", [0xFFFF, 1 << 32 | int(fields.GUEST_RIP), int(fields.SPP_TABLE_POINTER)])
def test_unknown_field(code: tuple[int, ...], encoding: int) -> None:
    machine = Hypervisor()
    machine.m.r.gpr[RAX] = encoding
    run(machine, code)
    assert failed_with(machine, errors.UNSUPPORTED_VMCS_COMPONENT)


def test_vmwrite_to_read_only_field() -> None:
    machine = Hypervisor()
    machine.m.r.gpr[RAX] = int(fields.VM_EXIT_REASON)
    run(machine, VMWRITE_REG)
    assert failed_with(machine, errors.VMWRITE_READ_ONLY_COMPONENT)
    machine.m.cpu.vmx_msr[5] = int(machine.m.cpu.vmx_msr[5]) | 1 << 29
    assert succeeded(machine, VMWRITE_REG, run(machine, VMWRITE_REG))


@pytest.mark.parametrize("code", [VMREAD_REG, VMWRITE_REG, VMLAUNCH, VMRESUME])
def test_no_current_vmcs(code: tuple[int, ...]) -> None:
    machine = Hypervisor()
    machine.m.vmx.host_address = 0
    assert run(machine, code) == int(DONE)
    assert flags(machine) == CF


def test_vmlaunch_and_failures() -> None:
    machine = Hypervisor()
    run(machine, VMRESUME)
    assert failed_with(machine, errors.VMRESUME_NONLAUNCHED_VMCS)
    assert run(machine, VMLAUNCH) == int(DONE)
    assert (int(machine.m.vmx.non_root), int(machine.m.r.rip)) == (1, GUEST_RIP)


def test_vmcall_and_vmxoff() -> None:
    machine = Hypervisor()
    run(machine, VMCALL)
    assert failed_with(machine, errors.VMCALL_IN_VMX_ROOT)
    assert succeeded(machine, VMXOFF, run(machine, VMXOFF))
    assert int(machine.m.vmx.on) == 0


@pytest.mark.parametrize(
    ("code", "kind", "low", "high", "good"),
    [
        (INVEPT, 1, 0x2001E, 0, True),
        (INVEPT, 2, 0, 0, True),
        (INVEPT, 0, 0x2001E, 0, False),
        (INVEPT, 3, 0x2001E, 0, False),
        (INVEPT, 1, 0x20019, 0, False),
        (INVEPT, 1, 0x2001E, 1, False),
        (INVVPID, 0, 1, 0x1000, True),
        (INVVPID, 0, 1, 1 << 48, False),
        (INVVPID, 0, 0, 0x1000, False),
        (INVVPID, 1, 1, 0, True),
        (INVVPID, 1, 0, 0, False),
        (INVVPID, 2, 0, 0, True),
        (INVVPID, 3, 2, 0, True),
        (INVVPID, 4, 1, 0, False),
        (INVVPID, 1, 0x10001, 0, False),
    ],
)
def test_invalidation(code: tuple[int, ...], kind: int, low: int, high: int, good: bool) -> None:
    machine = Hypervisor()
    machine.m.r.gpr[RAX] = kind
    outcome = run(machine, code, low, high)
    if good:
        assert succeeded(machine, code, outcome)
    else:
        assert failed_with(machine, errors.INVALID_OPERAND_TO_INVEPT_INVVPID)


def test_a_fault_of_the_operand_passes_through() -> None:
    machine = Hypervisor()
    machine.code(*VMPTRLD)
    machine.m.r.gpr[RBX] = 0x4000_0000
    outcome = int(execute_root(machine.m))
    assert outcome & 0xFFFF == int(FAULT) | int(exceptions.PF) << 8
    assert int(machine.m.r.rip) == CODE_PAGE
