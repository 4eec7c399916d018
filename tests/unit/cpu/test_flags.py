"""RFLAGS from Unicorn's lazy state, against Unicorn's own computation of it."""

import random

import pytest
from unicorn import UcError
from unicorn import x86_const as x86

from tests.unit.cpu.plain_unicorn import PlainUnicorn
from tests.unit.cpu.processor import Processor
from vmxemu.cpu import flags

SIZES = ("", "66", "48")
TWO_OPERANDS = "01 09 11 19 21 29 31 39 85 0fafc3 0fbcc3 0fbdc3 0fc1 0fb1"
GROUPS = (
    "f7d8 f7e3 f7eb ffc0 ffc8 d1e0 d1e8 d1f8 d3e0 d3e8 d3f8 d1c0 d1d0 d3c8 c1e005 c1f803 "
    "0fbae005 0fa5d8 0fadd8 f8 f9 f5 fc fd 9e 0fc0d8"
)
BYTE_FORMS = "00d8 08d8 10d8 18d8 20d8 28d8 30d8 38d8 84d8 f6d8 f6e3 f6eb fec0 fec8 d0e0 d0e8 d0f8 d2e0 d2e8 d2f8"


def instructions() -> list[bytes]:
    found = [bytes.fromhex(text) for text in BYTE_FORMS.split()]
    for size in SIZES:
        for text in TWO_OPERANDS.split():
            found.append(bytes.fromhex(size + (text if len(text) > 4 else text + "d8")))
        found += [bytes.fromhex(size + text) for text in GROUPS.split() if text not in ("9e",)]
    return found + [
        bytes.fromhex("660f38f6c3"),
        bytes.fromhex("f30f38f6c3"),
        bytes.fromhex("f3480fb8c3"),
        bytes.fromhex("9e"),
    ]


def supported(machine: PlainUnicorn, code: bytes) -> bool:
    machine.uc.ctl_remove_cache(0x800, 0x900)
    machine.load(0x800, code)
    try:
        machine.run(0x800, 0x800 + len(code))
    except UcError:
        return False
    return True


def random_operand(generator: random.Random) -> int:
    return generator.choice(
        (
            0,
            1,
            0x7F,
            0x80,
            0xFF,
            0x7FFF,
            0x8000,
            0xFFFFFFFF,
            0x80000000,
            1 << 63,
            (1 << 64) - 1,
            generator.getrandbits(64),
        )
    )


@pytest.mark.parametrize("seed", range(3))
def test_lazy_flags_equal_unicorn(seed: int) -> None:
    generator = random.Random(seed)
    machine, processor = PlainUnicorn(), Processor()
    codes = [code for code in instructions() if supported(machine, code)]
    seen = set()
    for _ in range(1500):
        chosen = [generator.choice(codes) for _ in range(generator.randint(1, 3))]
        code = b"".join(chosen)
        machine.load(0x1000, code)
        for register in (x86.UC_X86_REG_RAX, x86.UC_X86_REG_RBX, x86.UC_X86_REG_RCX, x86.UC_X86_REG_RDX):
            machine.uc.reg_write(register, random_operand(generator))
        machine.uc.reg_write(x86.UC_X86_REG_EFLAGS, generator.getrandbits(12) & 0xCD5 | 2)
        machine.uc.ctl_remove_cache(0x1000, 0x1100)
        machine.run(0x1000, 0x1000 + len(code))
        registers = machine.snapshot()
        processor.m.r = registers.address
        seen.add(int(registers.cc_op))
        assert int(flags.read_flags(processor.m)) == machine.eflags | 2, (code.hex(), registers.cc_op)
    assert len(seen) > 30


@pytest.mark.parametrize("value", [0, 0x246, 0xCD7, 0x3F7FD7, 0xFFFFFFFFFFFFFFFF])
def test_written_flags_are_read_back(value: int) -> None:
    processor = Processor()
    flags.write_flags(processor.m, value)
    assert int(flags.read_flags(processor.m)) == value & 0x3F7FD5 | 2
    assert int(processor.m.r.df) == (-1 if value & 0x400 else 1)
    assert int(processor.m.r.eflags) & 0xCD5 == 0


def test_interrupt_flag_is_not_lazy() -> None:
    processor = Processor()
    flags.write_flags(processor.m, 0x200)
    assert flags.interrupts_enabled(processor.m)
    flags.change_flags(processor.m, 0x200, 0)
    assert not flags.interrupts_enabled(processor.m)
