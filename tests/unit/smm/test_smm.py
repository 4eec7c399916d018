"""SMI entry, the state-save area, RSM."""

import random

import pytest

from tests.unit.cpu.processor import Processor
from vmxemu.cpu.flags import read_flags, write_flags
from vmxemu.cpu.layout import CS, DS, GDTR, HALTED, SS
from vmxemu.cpu.mode import refresh_mode, set_interrupt_shadow
from vmxemu.isa import smm_map
from vmxemu.smm.entry import enter_smm
from vmxemu.smm.io_smi import note_io_smi
from vmxemu.smm.rsm import execute_rsm

UNUSABLE_MARK = 1  # bit 0 of a segment's flags, which no descriptor has; RSM sets it where nothing was loaded
pytestmark = pytest.mark.jit_off

UD, TRIPLE_FAULT, SMBASE = 1 | 6 << 8, 4, 0x30000
FIXED = {6: 0x80000021, 7: 0xFFFFFFFF, 8: 0x2000, 9: 0x3767FF}


def field(processor: Processor, name: str, smbase: int = SMBASE) -> int:
    row = smm_map.BY_NAME[name]
    return processor.peek(smbase + 0x8000 + row.offset, row.bytes)


def put(processor: Processor, name: str, value: int) -> None:
    row = smm_map.BY_NAME[name]
    processor.poke(SMBASE + 0x8000 + row.offset, value.to_bytes(row.bytes, "little"))


def interrupted(seed: int, mode: str) -> Processor:
    generator = random.Random(seed)
    processor = getattr(Processor(), mode)()
    m = processor.m
    m.cpu.smbase = SMBASE
    for i in range(16):
        m.r.gpr[i] = generator.getrandbits(64)
    m.r.rip, m.r.cr[2] = generator.getrandbits(40), generator.getrandbits(48)
    m.r.dr[6], m.r.dr[7] = 0xFFFF0FF0, 0x400
    m.r.seg[GDTR].base, m.r.seg[GDTR].limit = 0xFFFF800000001000, 0x7F
    m.r.seg[DS].base = generator.getrandbits(40)
    write_flags(m, generator.getrandbits(22) & 0x254DD5 | 2)
    refresh_mode(m)
    return processor


def everything(processor: Processor) -> tuple[object, ...]:
    m = processor.m
    segments = tuple(
        (int(one.selector), int(one.base), int(one.limit), int(one.flags) & ~UNUSABLE_MARK)
        for one in (m.r.seg[i] for i in range(8))
    )
    tables = tuple((int(m.r.seg[i].base), int(m.r.seg[i].limit)) for i in (8, 9))
    registers = tuple(int(value) for array in (m.r.gpr, m.r.cr, m.r.dr) for value in array.numpy)
    mode = (int(m.r.rip), int(read_flags(m)), int(m.r.efer), int(m.r.mode))
    cpu = tuple(int(getattr(m.cpu, name)) for name in ("nmi_blocked", "activity", "in_smm"))
    vmx = (int(m.vmx.on), int(m.vmx.non_root), int(m.paging.ept_pointer), int(m.paging.vpid), int(m.paging.pdpte2))
    return registers, mode, segments, tables, cpu, vmx


@pytest.mark.parametrize("mode", ["real", "protected", "long"])
@pytest.mark.parametrize("seed", range(4))
def test_round_trip(mode: str, seed: int) -> None:
    processor = interrupted(seed, mode)
    processor.m.paging.pdpte2 = 0x1234001
    processor.m.cpu.nmi_blocked = seed & 1
    if seed & 2:
        set_interrupt_shadow(processor.m, 1, 0)
    before = everything(processor)
    enter_smm(processor.m, 1)
    processor.m.r.gpr[0] = 0
    processor.m.r.cr[2] = 0
    assert int(execute_rsm(processor.m)) == 0
    assert everything(processor) == before


def test_entry_state() -> None:
    processor = interrupted(7, "long")
    m = processor.m
    enter_smm(m, 1)
    assert int(m.r.rip) == 0x8000 and int(m.r.seg[CS].base) == SMBASE and int(m.r.seg[CS].selector) == 0x3000
    assert (
        int(m.r.cr[0]) == 0x30
        and int(m.r.cr[4]) == 0
        and int(m.r.efer) == 0
        and int(read_flags(m)) == 2
        and int(m.r.dr[7]) == 0x400
    )
    for index in range(6):
        assert int(m.r.seg[index].limit) == 0xFFFFFFFF and (index == int(CS) or int(m.r.seg[index].base) == 0)
    assert (
        int(m.cpu.in_smm) == 1 and int(m.r.mode) >> 19 & 1 and int(m.cpu.nmi_blocked) == 1 and int(m.engine.flush) == 1
    )
    assert int(m.cpu.smi_count) == 1 and int(m.r.mode) & 3 == 0


def test_published_fields_stand_where_the_manual_says() -> None:
    processor = interrupted(9, "long")
    m = processor.m
    rax, rip, cr3 = int(m.r.gpr[0]), int(m.r.rip), int(m.r.cr[3])
    enter_smm(m, 1)
    assert (
        processor.peek(SMBASE + 0xFF5C, 8) == rax
        and processor.peek(SMBASE + 0xFFD8, 8) == rip
        and processor.peek(SMBASE + 0xFFF0, 8) == cr3
    )
    assert processor.peek(SMBASE + 0xFEF8, 4) == SMBASE and processor.peek(SMBASE + 0xFEFC, 4) == 0x30101
    assert field(processor, "GDTR_BASE_HIGH") == 0xFFFF8000 and field(processor, "GDTR_BASE_LOW") == 0x1000


def test_handler_changes_registers_and_relocates_smbase() -> None:
    processor = interrupted(3, "protected")
    enter_smm(processor.m, 1)
    put(processor, "RAX", 0x77)
    put(processor, "SMBASE", 0x50000)
    assert int(execute_rsm(processor.m)) == 0
    assert int(processor.m.r.gpr[0]) == 0x77 and int(processor.m.cpu.smbase) == 0x50000
    enter_smm(processor.m, 1)
    assert field(processor, "RAX", 0x50000) == 0x77


def test_vmx_operation_is_left_and_resumed() -> None:
    processor = interrupted(5, "long")
    m = processor.m
    for index, value in FIXED.items():
        m.cpu.vmx_msr[index] = value
    m.cpu.cr4_allowed = int(m.cpu.cr4_allowed) | 0x2000
    m.r.cr[4] = int(m.r.cr[4]) | 0x2000
    m.vmx.on, m.vmx.non_root, m.paging.ept_pointer, m.paging.vpid, m.vmx.current = 1, 1, 0x701E, 3, 0x9000
    before = everything(processor)
    enter_smm(m, 1)
    assert not int(m.vmx.on) and not int(m.vmx.non_root) and not int(m.paging.ept_pointer) and not int(m.r.cr[4])
    assert field(processor, "ENABLE_EPT") == 1 and field(processor, "EPTP") == 0x701E
    put(processor, "CR4", 0x20)  # the processor sets VMXE again
    assert int(execute_rsm(m)) == 0 and everything(processor) == before


@pytest.mark.parametrize("restart, activity", [(1, 1), (0, 0)])
def test_halt(restart: int, activity: int) -> None:
    processor = interrupted(2, "long")
    processor.m.cpu.activity = HALTED
    enter_smm(processor.m, 1)
    assert int(processor.m.cpu.activity) == 0 and field(processor, "AUTO_HALT_RESTART") == 1
    put(processor, "AUTO_HALT_RESTART", restart)
    execute_rsm(processor.m)
    assert int(processor.m.cpu.activity) == activity


def test_io_instruction_restart() -> None:
    processor = interrupted(6, "long")
    m = processor.m
    m.cpu.io.port, m.cpu.io.size, m.cpu.io.is_immediate, m.r.rip = 0xB2, 1, 1, 0x4000
    note_io_smi(m)
    m.r.rip = 0x4002
    enter_smm(m, 1)
    assert field(processor, "IO_MISC") == 1 | 1 << 1 | 8 << 4 | 0xB2 << 16 and field(processor, "IO_RIP") == 0x4000
    put(processor, "IO_INSTRUCTION_RESTART", 0xFF)
    execute_rsm(m)
    assert int(m.r.rip) == 0x4000
    enter_smm(m, 1)
    assert field(processor, "IO_MISC") == 0


@pytest.mark.parametrize(
    "name, value",
    [
        ("CR0", 0x80000000),
        ("CR0", 1 << 32),
        ("CR0", 0x20000011),
        ("CR4", 1 << 30),
        ("IA32_EFER", 0x100),
        ("CR3", 1 << 45),
    ],
)
def test_invalid_state_is_a_shutdown(name: str, value: int) -> None:
    processor = interrupted(8, "long")
    enter_smm(processor.m, 1)
    put(processor, name, value)
    assert int(execute_rsm(processor.m)) == TRIPLE_FAULT and int(processor.m.cpu.activity) == 2


def test_rsm_outside_smm_is_undefined() -> None:
    assert int(execute_rsm(interrupted(1, "long").m)) == UD


def test_save_area_may_cross_a_page() -> None:
    processor = interrupted(4, "long")
    processor.m.cpu.smbase = 0x30000 + 0x300
    before = everything(processor)
    enter_smm(processor.m, 1)
    assert int(execute_rsm(processor.m)) == 0 and everything(processor) == before
    assert int(processor.m.r.seg[SS].selector) == 16
