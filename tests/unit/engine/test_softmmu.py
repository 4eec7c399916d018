"""Pages that the engine enters in Unicorn's TLBs: to the byte as Unicorn would have entered them."""

import ctypes
import random
from pathlib import Path

import numpy as np
import pytest

from tests.unit.machine.rom import code, long_mode
from vmxemu.engine.layout import PageBacking, PageEntry, PageTable, Softmmu
from vmxemu.engine.softmmu import enter_page
from vmxemu.machine import Machine

pytestmark = pytest.mark.usefixtures("kernels")

LAST_PAGE = 0xFFFF_FFFF_FFFF_F000
ADDEND, ENTRY = PageEntry.FIELDS["addend"].offset // 8, PageEntry.SIZE // 8
GRANTED = (1, 3, 5, 7)


def contents(machine: Machine) -> "list[list[int]]":
    """All that the three TLBs hold, addends relative to RAM; what Unicorn leaves undefined left out."""
    softmmu, ram = machine.engine.softmmu.softmmu, int(machine.state.memory.ram)
    found = [[int(softmmu.dirty)]]
    for number in range(3):
        table, fast = softmmu.tables[number], softmmu.fast[number]
        count = (int(fast.mask) >> 6) + 1
        found.append([int(table.used), int(table.next_victim), count])
        victims = table.address + PageTable.FIELDS["victims"].offset
        backing = table.address + PageTable.FIELDS["victim_backing"].offset
        for entries, behind, length in ((victims, backing, 8), (int(fast.entries), int(table.backing), count)):
            words = np.frombuffer(ctypes.string_at(entries, length * PageEntry.SIZE), np.uint64).reshape(length, ENTRY)
            bases = np.frombuffer(ctypes.string_at(behind, length * PageBacking.SIZE), np.uint64).reshape(length, 2)[:, 0]
            used = (words[:, :3] != 2**64 - 1).any(axis=1)
            rows = [[int(value) for value in row[:ADDEND]] for row in words]
            found += [
                [*row, (int(word[ADDEND]) - ram) % 2**64, int(base)] if valid else [*row[:3]]
                for row, word, base, valid in zip(rows, words, bases, used, strict=True)
            ]
    return found


def test_entering_as_unicorn_does(tmp_path: Path) -> None:
    ours, theirs = long_mode(tmp_path, code("f4")), long_mode(tmp_path, code("f4"))
    assert Softmmu.SIZE == 32 + 3 * PageTable.SIZE + 8 + 3 * 16
    for machine in (ours, theirs):
        machine.engine.flush()
    assert contents(ours) == contents(theirs)
    choose = random.Random(3)
    pages = [LAST_PAGE, 0, *(choose.randrange(1 << 52) << 12 for _ in range(20)), *(n << 12 for n in range(5, 1000, 64))]
    memory = ours.state.memory
    for step in range(2000):
        number, page, granted = choose.randrange(3), choose.choice(pages), choose.choice(GRANTED)
        hpa = choose.randrange(64) << 12
        theirs.engine.softmmu.enter_as_unicorn(number, page, hpa, granted)
        backing = int(ours.state.engine.low_backing) + hpa
        enter_page(ours.state, number, page, hpa, int(memory.ram) + hpa, backing, granted)
        if step % 100 == 99:
            assert contents(ours) == contents(theirs)
        if step % 500 == 499:
            for machine in (ours, theirs):
                machine.engine.flush()
