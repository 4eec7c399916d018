"""VMM2's banks behave as a processor's: the same values and faults as platform.mca_msrs gives for the real ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.outer.room import Room, words
from vmxemu.isa import mca, msrs
from vmxemu.layout import u64
from vmxemu.outer import virtual_mca
from vmxemu.platform import mca as real_mca
from vmxemu.platform import mca_msrs

OTHERS = st.sampled_from((0x4D0, 0x10, 0x29F, 0x47F))
INDEX = st.one_of(st.integers(0x179, 0x17B), st.integers(0x280, 0x28C), st.integers(0x400, 0x42C), OTHERS)
VALUE = st.one_of(st.sampled_from((0, 1, 7, 8, 1 << 30, 1 << 31, (1 << 64) - 1)), st.integers(0, (1 << 64) - 1))


@pytest.fixture(scope="module")
def room():
    room = Room()
    real_mca.power_on(room.m)
    return room


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.booleans(), INDEX, VALUE), max_size=12))
def test_virtual_banks_equal_real_ones(room, steps):
    m = room.reset().m
    real_mca.power_on(m)
    virtual_mca.power_on(m)
    for writes, index, value in steps:
        if writes:
            assert virtual_mca.write(m, *words(index, value)) == mca_msrs.write(m, *words(index, value)), hex(index)
        else:
            results = []
            for read in (virtual_mca.read, mca_msrs.read):
                m.walk.value = 0
                results.append((int(read(m, u64(index))), int(m.walk.value)))
            assert results[0] == results[1], hex(index)


def test_an_uncorrected_record_stays(room):
    m = room.reset().m
    virtual_mca.power_on(m)
    corrected = int(mca.STATUS_VAL | mca.STATUS_ADDRV)
    uncorrected = corrected | int(mca.STATUS_UC)
    bank = m.outer.mca.bank[7]
    virtual_mca.log(m, *words(7, corrected, 0x1000, 0))
    virtual_mca.log(m, *words(7, uncorrected, 0x2000, 0))
    assert bank.addr == 0x2000 and bank.status & mca.STATUS_OVER
    for status in (corrected, uncorrected):
        virtual_mca.log(m, *words(7, status, 0x3000, 0))
        assert bank.addr == 0x2000 and bank.status & mca.STATUS_UC
    assert virtual_mca.write(m, msrs.IA32_MC0_STATUS + u64(4 * 7), u64(0)) == 0
    assert bank.status == 0
