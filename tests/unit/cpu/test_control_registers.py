"""The rules of MOV to CR, LMSW, CLTS and MOV DR, as tables."""

import pytest

from tests.unit.cpu.processor import PML4, Processor
from vmxemu.cpu.control_registers import merge_lmsw, read_cr, write_cr
from vmxemu.cpu.debug import execute_mov_dr, read_dr, write_dr
from vmxemu.cpu.decode import decode
from vmxemu.cpu.layout import CS, TR
from vmxemu.cpu.mov_cr import emulate_mov_cr

pytestmark = pytest.mark.jit_off

GP, UD, DB = 1 | 13 << 8 | 1 << 16, 1 | 6 << 8, 1 | 1 << 8
PE, NE, WP, NW, CD, PG = 1, 1 << 5, 1 << 16, 1 << 29, 1 << 30, 1 << 31
PAE, PGE, VMXE, PCIDE, SMEP, SMAP = 1 << 5, 1 << 7, 1 << 13, 1 << 17, 1 << 20, 1 << 21
LME, LMA = 1 << 8, 1 << 10


@pytest.mark.parametrize(
    "start, value, outcome",
    [
        ("real", PE, 0),
        ("real", PG, GP),
        ("real", NW, GP),
        ("real", CD | NW, 0),
        ("real", 1 << 32, GP),
        ("real", 0x1FFAFFC0 | PE, 0),  # reserved bits of the low half are ignored
        ("protected", 0x30, 0),
        ("long", 0x80000031, 0),
        ("long", 0x31, GP),  # paging off in 64-bit code
        ("compatibility", 0x31, 0),
    ],
)
def test_cr0(start: str, value: int, outcome: int) -> None:
    processor = Processor()
    getattr(processor, "long" if start == "compatibility" else start)(
        **({"bits": 32} if start == "compatibility" else {})
    )
    before = int(processor.m.r.cr[0])
    assert int(write_cr(processor.m, 0, value)) == outcome
    assert int(processor.m.r.cr[0]) == (before if outcome else value & 0xE005003F | 0x10)


def test_long_mode_begins_and_ends_with_paging() -> None:
    processor = Processor().long(bits=32)
    m = processor.m
    assert int(write_cr(m, 0, 0x31)) == 0 and int(m.r.efer) == LME and not int(m.r.mode) >> 14 & 1
    assert int(m.engine.flush) == 1
    assert int(write_cr(m, 0, 0x80000031)) == 0 and int(m.r.efer) == LME | LMA and int(m.r.mode) >> 14 & 1


@pytest.mark.parametrize("what", ["no PAE", "CS.L", "16-bit TSS"])
def test_long_mode_is_refused(what: str) -> None:
    processor = Processor().long(bits=32)
    m = processor.m
    write_cr(m, 0, 0x31)
    if what == "no PAE":
        m.r.cr[4] = 0
    elif what == "CS.L":
        m.r.seg[CS].flags = int(m.r.seg[CS].flags) | 1 << 21
    else:
        m.r.seg[TR].flags = 0x8300
    assert int(write_cr(m, 0, 0x80000031)) == GP and int(m.r.efer) == LME


def test_fixed_bits_in_vmx_operation() -> None:
    processor = Processor().protected()
    m = processor.m
    m.cpu.vmx_msr[6], m.cpu.vmx_msr[7], m.cpu.vmx_msr[8], m.cpu.vmx_msr[9] = 0x80000021, 0xFFFFFFFF, VMXE, 0x3767FF
    m.vmx.on = 1
    assert int(write_cr(m, 0, 0x31)) == GP
    assert int(write_cr(m, 4, 0)) == GP and int(write_cr(m, 4, VMXE)) == 0
    m.cpu.unrestricted, m.vmx.non_root = 1, 1
    assert int(write_cr(m, 0, 0x31)) == 0 and int(write_cr(m, 0, NE)) == 0 and int(write_cr(m, 0, PE)) == GP


@pytest.mark.parametrize(
    "start, cr4, value, outcome",
    [
        ("long", PAE, PAE | PGE, 0),
        ("long", PAE, 0, GP),
        ("long", PAE, PAE | PCIDE, 0),
        ("protected", 0, PCIDE, GP),
        ("protected", 0, 1 << 23, GP),
        ("protected", 0, 1 << 40, GP),
        ("protected", 0, VMXE, 0),
    ],
)
def test_cr4(start: str, cr4: int, value: int, outcome: int) -> None:
    processor = getattr(Processor(), start)()
    processor.m.r.cr[4] = cr4
    processor.m.cpu.cr4_allowed = int(processor.m.cpu.cr4_allowed) | VMXE
    assert int(write_cr(processor.m, 4, value)) == outcome
    assert int(processor.m.r.cr[4]) == (cr4 if outcome else value)


def test_cr4_vmxe_is_reserved_in_smm_and_pcide_wants_a_clean_cr3() -> None:
    processor = Processor().long()
    processor.m.cpu.in_smm = 1
    assert int(write_cr(processor.m, 4, PAE | VMXE)) == GP
    processor.m.r.cr[3] = PML4 | 1
    assert int(write_cr(processor.m, 4, PAE | PCIDE)) == GP


def test_cr3_and_pcid() -> None:
    processor = Processor().long()
    m = processor.m
    assert int(write_cr(m, 3, 1 << 40)) == GP  # 40 physical bits
    assert int(write_cr(m, 3, 1 << 63 | PML4)) == GP
    write_cr(m, 4, PAE | PCIDE)
    assert int(write_cr(m, 3, 1 << 63 | PML4 | 5)) == 0 and int(m.r.cr[3]) == PML4 | 5
    assert int(write_cr(m, 0, 0x31)) == GP


def test_pae_paging_loads_the_pdptes() -> None:
    processor = Processor().protected()
    m = processor.m
    processor.poke(0x5000, (0x6001).to_bytes(8, "little"))
    m.r.cr[4], m.r.cr[3] = PAE, 0x5000
    assert int(write_cr(m, 0, 0x80000031)) == 0 and int(m.paging.pdpte0) == 0x6001
    processor.poke(0x5000, (0x6007).to_bytes(8, "little"))
    assert int(write_cr(m, 3, 0x5000)) == GP and int(m.paging.pdpte0) == 0x6001


def test_cr8_and_missing_registers() -> None:
    processor = Processor().long()
    assert (
        int(write_cr(processor.m, 8, 9)) == 0 and int(processor.m.cpu.tpr) == 0x90 and int(read_cr(processor.m, 8)) == 9
    )
    assert int(write_cr(processor.m, 8, 16)) == GP
    assert int(write_cr(processor.m, 5, 0)) == UD


def test_lmsw_cannot_clear_pe() -> None:
    processor = Processor().protected()
    assert int(merge_lmsw(processor.m, 0)) == 0x31 and int(merge_lmsw(processor.m, 0xFFFF)) == 0x3F


@pytest.mark.parametrize(
    "code, level, outcome",
    [
        ("0f20d8", 0, 0),
        ("0f20d8", 3, GP),
        ("0f22e8", 0, UD),
        ("440f20c0", 0, 0),
        ("0f06", 0, 0),
        ("0f06", 3, GP),
        ("0f01e0", 3, 0),
        ("0f01f0", 3, GP),
    ],
)
def test_instructions(code: str, level: int, outcome: int) -> None:
    processor = Processor().long(cpl=level)
    processor.poke(0x1000, bytes.fromhex(code))
    processor.m.r.rip = 0x1000
    assert int(emulate_mov_cr(processor.m)) == outcome
    assert int(processor.m.r.rip) == 0x1000 + (0 if outcome else len(code) // 2)


def test_mov_to_cr_reads_the_operand_in_the_modes_width() -> None:
    processor = Processor().protected()
    processor.poke(0x1000, bytes.fromhex("0f22d0"))  # mov cr2, eax
    processor.m.r.rip, processor.m.r.gpr[0] = 0x1000, 0xAAAAAAAA55555555
    assert int(emulate_mov_cr(processor.m)) == 0 and int(processor.m.r.cr[2]) == 0x55555555


@pytest.mark.parametrize(
    "n, value, stored",
    [
        (0, 1 << 63, 1 << 63),
        (6, 0, 0xFFFF0FF0),
        (6, 0xFFFFFFFF, 0xFFFFEFFF),
        (7, 0, 0x400),
        (7, 0xFFFFFFFF, 0xFFFF27FF),
        (4, 0, None),
        (5, 0x2000, None),
    ],
)
def test_dr(n: int, value: int, stored: int | None) -> None:
    processor = Processor().long()
    assert int(write_dr(processor.m, n, value)) == 0
    target = {4: 6, 5: 7}.get(n, n)
    if stored is not None:
        assert int(processor.m.r.dr[target]) == stored
    else:
        assert int(processor.m.r.dr[target]) in (0xFFFF0FF0, 0x2400)


def test_dr_faults() -> None:
    processor = Processor().long()
    m = processor.m
    assert int(write_dr(m, 7, 1 << 32)) == GP
    m.r.cr[4] = int(m.r.cr[4]) | 8
    assert int(read_dr(m, 4)) == UD
    m.r.cr[4] = 0x20
    write_dr(m, 7, 0x2000)
    assert int(read_dr(m, 0)) == DB and int(m.r.dr[6]) >> 13 & 1


def test_mov_dr_at_user_level() -> None:
    processor = Processor().long(cpl=3)
    processor.poke(0x1000, bytes.fromhex("0f21c0"))
    processor.m.r.rip = 0x1000
    assert int(decode(processor.m)) == 0 and int(execute_mov_dr(processor.m)) == GP
