"""RDPKRU, WRPKRU, IA32_PKRS, and CPUID's mirror of CR4.PKE."""

import pytest

from tests.unit.cpu.processor import Processor
from vmxemu.cpu.control_registers import write_cr
from vmxemu.cpu.cpuid import execute_cpuid
from vmxemu.cpu.decode import decode
from vmxemu.cpu.msr import read_msr, write_msr
from vmxemu.cpu.system import emulate
from vmxemu.isa import bits, msrs

pytestmark = pytest.mark.jit_off

GP, NOT_MINE = 1 | 13 << 8 | 1 << 16, 9
AT, RAX, RCX, RDX = 0x1000, 0, 1, 2
PKE, PKS = int(bits.CR4_PKE), int(bits.CR4_PKS)
READ, WRITE = "0f01ee", "0f01ef"


def keyed(cpl: int = 3, enabled: bool = True) -> Processor:
    processor = Processor().long(cpl=cpl)
    m = processor.m
    m.cpu.cr4_allowed = int(m.cpu.cr4_allowed) | PKE | PKS
    if enabled:
        m.r.cr[4] = int(m.r.cr[4]) | PKE
    return processor


def run(processor: Processor, code: str) -> int:
    processor.poke(AT, bytes.fromhex(code) + b"\x90" * 8)
    processor.m.r.rip = AT
    assert int(decode(processor.m)) == 0
    return int(emulate(processor.m, 0))


@pytest.mark.parametrize("cpl", (0, 3))
def test_what_is_written_is_read_at_any_privilege(cpl: int) -> None:
    processor = keyed(cpl)
    m = processor.m
    m.r.gpr[RAX], m.r.gpr[RCX], m.r.gpr[RDX] = 0xAAAA_BBBB_1234_5678, 0xFFFF_FFFF_0000_0000, 0x1_0000_0000
    assert run(processor, WRITE) == 0 and int(m.r.rip) == AT + 3
    assert (int(m.paging.pkru), int(m.engine.flush)) == (0x1234_5678, 1)
    m.r.gpr[RAX] = m.r.gpr[RDX] = (1 << 64) - 1
    assert run(processor, READ) == 0
    assert (int(m.r.gpr[RAX]), int(m.r.gpr[RDX])) == (0x1234_5678, 0)


def test_the_same_value_again_costs_no_flush() -> None:
    processor = keyed()
    assert run(processor, WRITE) == 0 and int(processor.m.engine.flush) == 0


@pytest.mark.parametrize(
    ("code", "ecx", "edx", "outcome"), [(READ, 1, 0, GP), (WRITE, 1, 0, GP), (WRITE, 0, 1, GP), (READ, 0, 1, 0)]
)
def test_ecx_and_edx_must_be_zero(code: str, ecx: int, edx: int, outcome: int) -> None:
    processor = keyed()
    processor.m.r.gpr[RCX], processor.m.r.gpr[RDX] = ecx, edx
    assert run(processor, code) == outcome


@pytest.mark.parametrize("code", (READ, WRITE, "66" + READ, "f3" + WRITE, "f2" + READ, "f0" + READ))
def test_invalid_opcodes(code: str) -> None:
    assert run(keyed(enabled=len(code) > 6), code) == NOT_MINE


def test_control_register_bits() -> None:
    processor = keyed(cpl=0, enabled=False)
    m = processor.m
    for bit in (PKE, PKS):
        m.engine.flush = 0
        assert int(write_cr(m, 4, int(m.r.cr[4]) | bit)) == 0 and int(m.engine.flush) == 1
    m.cpu.cr4_allowed = int(m.cpu.cr4_allowed) & ~PKS
    assert int(write_cr(m, 4, int(m.r.cr[4]))) == GP


def test_cpuid_follows_cr4_pke() -> None:
    processor = keyed(enabled=False)
    m = processor.m
    row = m.cpu.cpuid[0]
    row.leaf, row.subleaf, row.ecx = 7, 0, 1 << 3
    m.cpu.cpuid_count = 1
    for enabled in (False, True):
        m.r.cr[4] = PKE if enabled else 0
        m.r.gpr[RAX], m.r.gpr[RCX] = 7, 0
        execute_cpuid(m)
        assert int(m.r.gpr[RCX]) == (0x18 if enabled else 8)


def test_pkrs() -> None:
    m = keyed().m
    assert int(write_msr(m, int(msrs.IA32_PKRS), 0xFFFF_FFFC)) == 0
    assert (int(m.paging.pkrs), int(m.engine.flush)) == (0xFFFF_FFFC, 1)
    assert int(read_msr(m, int(msrs.IA32_PKRS))) == 0 and int(m.walk.value) == 0xFFFF_FFFC
    assert int(write_msr(m, int(msrs.IA32_PKRS), 1 << 32)) == GP
