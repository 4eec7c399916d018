"""Effective memory types: MTRRs, PAT, EPT and CR0.CD against the reference."""

import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.translation_memory_types import EFFECTIVE, FIXED_RANGES, UC, Mtrrs, pat_type
from tests.reference.translation_memory_types import memory_type as reference_type
from tests.reference.translation_memory_types import mtrr_type as reference_mtrr_type
from vmxemu.cpu.mtrr import CAPABILITIES
from vmxemu.isa import msrs
from vmxemu.isa.memory_types import NAMES
from vmxemu.translation import bits
from vmxemu.translation.geometry import NO_TLB
from vmxemu.translation.library import PAGE_1G, PAGE_2M, PAGE_4K, Walker
from vmxemu.translation.memory_type import NO_EPT_TYPE, VARIABLE_RANGES, effective_type, mtrr_type

REGION_TYPES = (0, 1, 4, 5, 6)
PAT_TYPES = (0, 1, 4, 5, 6, 7)


@pytest.fixture(scope="module")
def walker():
    return Walker(4 << 20, NO_TLB)


def load(m, mtrrs):
    m.cpu.mtrr_def_type = mtrrs.def_type
    for number, value in enumerate(mtrrs.fixed):
        m.cpu.mtrr_fixed[number] = value
    for number in range(int(VARIABLE_RANGES)):
        base, mask = mtrrs.variable[number] if number < len(mtrrs.variable) else (0, 0)
        m.cpu.mtrr_base[number], m.cpu.mtrr_mask[number] = base, mask


# ---- MTRRs


def test_there_are_as_many_variable_ranges_as_the_capability_register_says():
    assert int(CAPABILITIES) & 0xFF == int(VARIABLE_RANGES)


@pytest.mark.jit_off
def test_every_fixed_range_begins_and_ends_where_it_should(walker):
    chance = random.Random(1)
    fixed = [sum(chance.choice(REGION_TYPES) << 8 * number for number in range(8)) for _ in range(11)]
    load(walker.m, Mtrrs(1 << 11 | 1 << 10 | 6, fixed))
    end = 0
    for register, (first, size) in zip(fixed, FIXED_RANGES, strict=True):
        for number in range(8):
            start, end = first + number * size, first + (number + 1) * size
            kind = register >> 8 * number & 0xFF
            assert int(mtrr_type(walker.m, start)) == int(mtrr_type(walker.m, end - 1)) == kind
    assert end == 1 << 20 and int(mtrr_type(walker.m, end)) == 6


def test_disabled_mtrrs_make_everything_uncacheable(walker):
    load(walker.m, Mtrrs(1 << 10 | 6, [0x0606_0606_0606_0606] * 11, [(6, 1 << 11)]))
    assert [int(mtrr_type(walker.m, hpa)) for hpa in (0, 0x9000, 1 << 20, 1 << 40)] == [0] * 4


def test_fixed_ranges_count_only_while_they_are_enabled_and_win_over_variable_ones(walker):
    fixed, variable = [0x0404_0404_0404_0404] * 11, [(5, ((1 << 46) - (1 << 30)) | 1 << 11)]
    for enabled, expected in ((1 << 10, 4), (0, 5)):
        load(walker.m, Mtrrs(1 << 11 | enabled | 6, fixed, variable))
        assert int(mtrr_type(walker.m, 0x1234)) == expected
        assert int(mtrr_type(walker.m, 2 << 20)) == 5
        assert int(mtrr_type(walker.m, 1 << 30)) == 6


@pytest.mark.parametrize(("kinds", "expected"), [((6, 6), 6), ((6, 4), 4), ((4, 6), 4), ((6, 0), 0), ((0, 5), 0), ((1, 0, 4), 0)])
def test_overlapping_variable_ranges(walker, kinds, expected):
    """The ranges are nested in one another: 4 GiB, 1 GiB, 256 MiB."""
    variable = [(kind, ((1 << 46) - (1 << 32 - 2 * number)) | 1 << 11) for number, kind in enumerate(kinds)]
    load(walker.m, Mtrrs(1 << 11 | 1, [0] * 11, variable))
    assert int(mtrr_type(walker.m, 0x100_0000)) == expected
    assert int(mtrr_type(walker.m, 5 << 30)) == 1


variable_ranges = st.lists(
    st.tuples(st.sampled_from(REGION_TYPES), st.integers(12, 40), st.integers(0, 7), st.booleans()), max_size=10
)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from((0, 1 << 11, 3 << 10)), st.sampled_from(REGION_TYPES), variable_ranges,
    st.lists(st.integers(0, (1 << 46) - 1), min_size=1, max_size=8), st.integers(0, 2**32),
)  # fmt: skip
def test_mtrrs_equal_the_reference(walker, enables, default, ranges, addresses, seed):
    chance = random.Random(seed)
    fixed = [sum(chance.choice(REGION_TYPES) << 8 * number for number in range(8)) for _ in range(11)]
    variable = [
        (place << size | kind, ((1 << 46) - (1 << size)) | valid << 11) for kind, size, place, valid in ranges
    ]  # fmt: skip
    mtrrs = Mtrrs(enables | default, fixed, variable)
    load(walker.m, mtrrs)
    near = [base & ~0xFFF for base, _ in variable] + [chance.randrange(1 << 20), chance.randrange(1 << 33)]
    for address in addresses + near:
        expected = reference_mtrr_type(mtrrs, address)
        if expected is not None:
            assert int(mtrr_type(walker.m, address)) == expected


# ---- what they make together


def test_all_64_combinations_of_region_and_page(walker):
    """With the type of the region from an MTRR, and from EPT with and without "ignore PAT". Reserved types of PAT and of
    EPT cannot be there; were they, the type would be UC.
    """
    m = walker.m
    m.r.cr[0] = bits.CR0_PG
    for region, page in product(range(8), range(8)):
        m.r.pat = page << 24
        expected = EFFECTIVE.get((region, page), UC)
        if region != NO_EPT_TYPE:
            assert int(effective_type(m, 3, region, 0, 0)) == expected
        if region in REGION_TYPES:
            assert int(effective_type(m, 3, region, 1, 0)) == region
            load(m, Mtrrs(1 << 11 | region))
            assert int(effective_type(m, 3, NO_EPT_TYPE, 0, 0)) == expected


@pytest.mark.jit_off
@pytest.mark.parametrize("size", [PAGE_4K, PAGE_2M, PAGE_1G])
@pytest.mark.parametrize("with_ept", [False, True])
def test_types_of_translations(walker, size, with_ept):
    """PAT stands in bit 7 of an entry for a 4-KiB page and in bit 12 of others; EPT's type wins over MTRRs."""
    m, chance = walker.m, random.Random(size)
    for _ in range(40):
        walker._next_frame = len(walker.ram)
        walker.ram[:] = 0
        pat = sum(chance.choice(PAT_TYPES) << 8 * number for number in range(8))
        index, ept_type, ignore_pat = chance.randrange(8), chance.choice(REGION_TYPES), chance.random() < 0.3
        mtrr, cache_disable = chance.choice(REGION_TYPES), chance.random() < 0.2
        ept = walker.new_ept() if with_ept else None
        if ept:
            ept.map(0, 0, PAGE_2M, 2)
            ept.map(1 << 30, 1 << 30, size, flags=7 | ept_type << 3 | ignore_pat << 6)
        guest = walker.new_guest_tables(ept)
        pat_bit = index >> 2 << (7 if size == PAGE_4K else 12)
        guest.map(1 << 30, 1 << 30, size, flags=int(bits.P | bits.RW) | (index & 3) << 3 | pat_bit)
        walker.use(guest, ept)
        m.r.pat = pat
        m.r.cr[0] = int(m.r.cr[0]) | (int(bits.CR0_CD) if cache_disable else 0)
        load(m, Mtrrs(1 << 11 | mtrr))
        leaf = ept_type << 3 | ignore_pat << 6 if with_ept else None
        expected = reference_type(cache_disable, pat_type(pat, index), Mtrrs(1 << 11 | mtrr), 1 << 30, leaf)
        assert walker.translate(1 << 30).memory_type == NAMES[expected]


@pytest.mark.parametrize("cache_disable", [False, True])
def test_without_paging_the_page_is_write_back(walker, cache_disable):
    m = walker.m
    for kind, ignore_pat in product(REGION_TYPES, (0, 1)):
        walker._next_frame = len(walker.ram)
        walker.ram[:] = 0
        ept = walker.new_ept()
        ept.map(0, 0, flags=7 | kind << 3 | ignore_pat << 6)
        walker.use(None, ept)
        m.r.pat = 0  # all UC: without effect
        m.r.cr[0] = bits.CR0_CD if cache_disable else 0
        assert walker.translate(0).memory_type == ("UC" if cache_disable else NAMES[kind])
    walker.use(None)
    m.r.cr[0] = bits.CR0_CD if cache_disable else 0
    load(m, Mtrrs(1 << 11 | 5))
    assert walker.translate(0).memory_type == ("UC" if cache_disable else "WP")
    m.r.pat = msrs.BY_NAME["IA32_PAT"].reset
