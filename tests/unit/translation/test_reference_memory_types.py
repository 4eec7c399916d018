"""The reference checked by hand: memory types. Worked out from the SDM, Vol. 3A, 'Memory Cache Control'; Vol. 3C, 'EPT
and Memory Typing'.
"""

from tests.reference.translation import READ, Processor
from tests.reference.translation_memory_types import UC, UC_MINUS, WB, WC, WP, WT, Mtrrs, memory_type, mtrr_type
from tests.unit.translation.test_reference import ALL, CD, PG, PSE, put
from tests.unit.translation.test_reference_ept import RWX, TYPE_WB, paged


def test_memory_type_without_ept():
    all_wb = Mtrrs()
    by_pat = [memory_type(0, kind, all_wb, 0, None) for kind in (UC, WC, WT, WP, WB, UC_MINUS)]
    assert by_pat == [UC, WC, WT, WP, WB, UC]
    assert memory_type(0, UC_MINUS, Mtrrs(1 << 11 | WC), 0, None) == WC
    assert memory_type(0, WB, Mtrrs(0), 0, None) == UC  # MTRRs off
    assert memory_type(1, WB, all_wb, 0, None) == UC


def test_memory_type_with_ept():
    no_matter = Mtrrs(0)
    assert memory_type(0, WB, no_matter, 0, WT << 3) == WT
    assert memory_type(0, UC, no_matter, 0, WB << 3) == UC
    assert memory_type(0, UC, no_matter, 0, WB << 3 | 1 << 6) == WB  # ignore PAT
    assert memory_type(1, WB, no_matter, 0, WB << 3 | 1 << 6) == UC


def test_mtrrs():
    fixed = [0] * 11
    fixed[0], fixed[2], fixed[10] = WT << 8, WP << 56, WC << 56
    ranges = [(0x10_0000 | WT, 0x3F_FFF0_0800), (0x10_0000 | WB, 0x3F_FFE0_0800), (0x20_0000 | UC, 0)]
    mtrrs = Mtrrs(1 << 11 | 1 << 10 | WP, fixed, ranges)
    assert [mtrr_type(mtrrs, hpa) for hpa in (0xFFFF, 0x1_0000, 0xB_C000, 0xF_F000, 0xF_EFFF)] == [UC, WT, WP, WC, UC]
    assert [mtrr_type(mtrrs, hpa) for hpa in (0x10_0000, 0x1F_FFFF, 0x20_0000)] == [WT, WT, WP]
    mtrrs.def_type ^= 1 << 10  # fixed ranges off: the variable ones reach below 1 MByte too
    assert [mtrr_type(mtrrs, hpa) for hpa in (0x1_0000, 0x10_0000)] == [WB, WT]
    mtrrs.variable[2] = (0x10_0000 | UC, 0x3F_FFFF_F800)
    assert mtrr_type(mtrrs, 0x10_0000) == UC


def test_pat_selects_by_three_bits():
    pat = sum(kind << 8 * index for index, kind in enumerate((WB, WT, UC_MINUS, UC, WP, WC, WB, WB)))
    processor = paged(ALL | 1 << 7 | 1 << 3, RWX | TYPE_WB, pat=pat)  # PAT and PWT: index 5
    assert processor.translate(0x1123, READ).memory_type == WC
    processor.cr0 |= CD
    assert processor.translate(0x1123, READ).memory_type == UC
    processor = Processor(bytearray(0x4000), cr0=PG, cr3=0x1000, cr4=PSE, pat=pat)
    put(processor, 0x1000, ALL | 1 << 7 | 1 << 12 | 1 << 3, 4)  # the PAT bit of a large page is bit 12
    assert processor.translate(0, READ).memory_type == WC
    put(processor, 0x1000, ALL | 1 << 7 | 1 << 3, 4)
    assert processor.translate(0, READ).memory_type == WT
