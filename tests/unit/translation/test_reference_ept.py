"""The reference checked by hand: EPT. Worked out from the SDM, Vol. 3C, 'The Extended Page Table Mechanism (EPT)'."""

import pytest

from tests.reference.translation import (
    FETCH,
    READ,
    WRITE,
    EptMisconfiguration,
    EptViolation,
    PmlFull,
    Processor,
    SppEvent,
)
from tests.unit.translation.test_reference import ALL, LMA, NXE, PAE, PG, US, A, D, P, get, put

R, W, X, XU, EPT_A, EPT_D = 1, 2, 4, 1 << 10, 1 << 8, 1 << 9
SHADOW, SUB_PAGE, SUPPRESS = 1 << 60, 1 << 61, 1 << 63
TYPE_WB = 6 << 3
RWX = R | W | X
EPT4, EPT3, EPT2, EPT1, HOST = 0x1000, 0x2000, 0x3000, 0x4000, 0x9000
AD, SUPERVISOR_STACK = 1 << 6, 1 << 7
EPTP = EPT4 | 3 << 3 | 6
GLA_VALID, OF_PAGE = 1 << 7, 1 << 8
PAGE = GLA_VALID | OF_PAGE
SPPT4, SPPT3, SPPT2, SPPT1, LOG = 0x5000, 0x6000, 0x7000, 0x8000, 0xB000


def unpaged(leaf=RWX | TYPE_WB, tables=RWX, eptp=EPTP, **state):
    """CR0.PG = 0; a 4-level EPT that maps guest-physical page 0 to HOST."""
    processor = Processor(bytearray(0x10000), eptp=eptp, **state)
    for at, entry in ((EPT4, EPT3 | tables), (EPT3, EPT2 | tables), (EPT2, EPT1 | tables), (EPT1, HOST | leaf)):
        put(processor, at, entry)
    return processor


def violation(processor, access, address=0x123, **how):
    """(qualification, convertible)"""
    with pytest.raises(EptViolation) as caught:
        processor.translate(address, access, **how)
    return caught.value.qualification, caught.value.convertible


def is_misconfigured(processor, address=0x123):
    try:
        processor.translate(address, READ)
    except EptMisconfiguration as caught:
        return caught.gpa == address
    return False


# ---- 'EPT Translation Mechanism', 'EPT Violations'


def test_translation():
    processor = unpaged()
    assert processor.translate(0x123, WRITE)[:2] == (0x123, 0x9123)
    assert processor.references == 4
    put(processor, EPT2, 0x60_0000 | RWX | TYPE_WB | 1 << 7)
    assert processor.translate(0x1F_0123, READ).hpa == 0x7F_0123
    put(processor, EPT3, 0x40_0000_0000 | RWX | TYPE_WB | 1 << 7)
    assert processor.translate(0x1234_5678, READ).hpa == 0x40_1234_5678


def test_5_levels():
    processor = unpaged(eptp=0xA000 | 4 << 3 | 6)
    put(processor, 0xA000, EPT4 | RWX)
    assert processor.translate(0x123, READ).hpa == 0x9123
    assert processor.references == 5
    with pytest.raises(EptViolation):
        processor.translate_guest_physical(1 << 57, READ)
    assert processor.references == 0


def test_permissions_are_those_of_all_entries():
    assert violation(unpaged(tables=R | X), WRITE) == (0b101_010 | PAGE, 0)
    assert violation(unpaged(R | W | TYPE_WB), FETCH) == (0b011_100 | PAGE, 0)
    assert violation(unpaged(X | TYPE_WB, R | X), READ) == (0b100_001 | PAGE, 0)
    assert unpaged(X | TYPE_WB).translate(0x123, FETCH).hpa == 0x9123
    assert violation(unpaged(0), READ) == (0b000_001 | PAGE, 0)
    with pytest.raises(EptViolation) as caught:
        unpaged(R | TYPE_WB).translate_guest_physical(0x123, WRITE)
    assert (caught.value.qualification, caught.value.gpa) == (0b001_010, 0x123)


def test_mode_based_execute_control():
    assert violation(unpaged(RWX | TYPE_WB, RWX | XU, ept_mbe=True), FETCH) == (0b111_100 | PAGE, 0)  # PG = 0: user
    assert unpaged(R | XU | TYPE_WB, RWX | XU, ept_mbe=True).translate(0x123, FETCH).hpa == 0x9123
    assert unpaged(XU | TYPE_WB, XU, ept_mbe=True).translate(0x123, FETCH).hpa == 0x9123  # bit 10 makes it present
    assert violation(unpaged(XU | TYPE_WB, XU), FETCH) == (0b000_100 | PAGE, 0)
    assert violation(unpaged(R | XU | TYPE_WB, RWX | XU, ept_mbe=True), WRITE) == (0b001_010 | PAGE | 1 << 6, 0)


# ---- 'EPT Misconfigurations'


def test_misconfigurations():
    for leaf in (W, W | X):
        assert is_misconfigured(unpaged(leaf | TYPE_WB))
    assert is_misconfigured(unpaged(X | TYPE_WB, ept_execute_only=False))
    assert is_misconfigured(unpaged(XU | TYPE_WB, XU | R, ept_execute_only=False, ept_mbe=True))
    assert is_misconfigured(unpaged(RWX | TYPE_WB | 1 << 46))
    assert not is_misconfigured(unpaged(RWX | TYPE_WB | 0xFFF << 52, RWX | 0xFFF << 52))
    for kind in (2, 3, 7):
        assert is_misconfigured(unpaged(RWX | kind << 3))
    assert is_misconfigured(unpaged(tables=RWX | 1 << 3)) and is_misconfigured(unpaged(tables=RWX | 1 << 6))
    no_page_here = unpaged()
    put(no_page_here, EPT4, EPT3 | RWX | 1 << 7)
    assert is_misconfigured(no_page_here)


@pytest.mark.parametrize(("table", "low", "capability"), [(EPT3, 29, "ept_1g"), (EPT2, 20, "ept_2m")])
def test_misconfigured_large_pages(table, low, capability):
    processor = unpaged()
    put(processor, table, RWX | TYPE_WB | 1 << 7)
    assert not is_misconfigured(processor)
    for number in (12, low):
        put(processor, table, RWX | TYPE_WB | 1 << 7 | 1 << number)
        assert is_misconfigured(processor)
    put(processor, table, RWX | TYPE_WB | 1 << 7)
    setattr(processor, capability, False)
    assert is_misconfigured(processor)


def test_a_misconfiguration_below_comes_before_missing_permissions_above():
    assert is_misconfigured(unpaged(RWX | 7 << 3, X))


# ---- 'Exit Qualification for EPT Violations'


def paged(pte, leaf, **state):
    """4-level paging with one table for all levels at GPA 0, under an EPT that maps GPA 0 to 0xC000 and GPA 0x1000 to
    HOST by `leaf`; GLA 0x1123 is on that page.
    """
    state = {"cr0": PG | 1 << 16, "cr4": PAE, "efer": LMA | NXE, "cpl": 3} | state
    processor = unpaged(**state)
    put(processor, EPT1, 0xC000 | RWX | TYPE_WB)
    put(processor, EPT1 + 8, HOST | leaf)
    put(processor, 0xC000, ALL)
    put(processor, 0xC008, 0x1000 | pte)
    return processor


def test_advanced_information():
    leaf, advanced, address = R | TYPE_WB, {"ept_advanced": True}, 0x1123
    assert violation(paged(ALL, leaf, **advanced), WRITE, address)[0] == 0b001_010 | PAGE | 1 << 9 | 1 << 10
    assert violation(paged(P | US | 1 << 63, leaf, **advanced, cr0=PG, cpl=0), WRITE, address)[0] == (
        0b001_010 | PAGE | 1 << 9 | 1 << 11
    )
    assert violation(paged(P, leaf, **advanced, cpl=0), FETCH, address)[0] == 0b001_100 | PAGE
    assert violation(unpaged(leaf, **advanced), WRITE)[0] == 0b001_010 | PAGE | 1 << 9 | 1 << 10
    assert violation(paged(ALL, leaf), WRITE, address)[0] == 0b001_010 | PAGE
    in_table = paged(ALL, leaf, **advanced)
    put(in_table, EPT1, 0)
    assert violation(in_table, WRITE, address)[0] == 0b000_001 | GLA_VALID


def test_two_dimensional_references():
    processor = paged(ALL, RWX | TYPE_WB)
    assert processor.translate(0x1123, READ)[:2] == (0x1123, 0x9123)
    assert processor.references == 24


def test_convertible():
    assert violation(unpaged(0, ve_enabled=True), READ)[1] == 1
    assert violation(unpaged(SUPPRESS, ve_enabled=True), READ)[1] == 0
    assert violation(unpaged(R | TYPE_WB, RWX | SUPPRESS, ve_enabled=True), WRITE)[1] == 1  # the leaf's bit counts
    assert violation(unpaged(R | TYPE_WB | SUPPRESS, ve_enabled=True), WRITE)[1] == 0
    assert violation(unpaged(0), READ)[1] == 0
    assert violation(unpaged(0, R, ve_enabled=True, eptp=EPTP & ~0x38), READ, 1 << 31)[1] == 0  # beyond the length


# ---- 'Accessed and Dirty Flags for EPT', 'Page-Modification Logging'


def ept_flags(processor, *addresses):
    return [get(processor, at) & (EPT_A | EPT_D) for at in addresses]


def test_accessed_and_dirty_flags():
    processor = unpaged(eptp=EPTP | AD)
    processor.translate(0x123, READ)
    assert ept_flags(processor, EPT4, EPT3, EPT2, EPT1) == [EPT_A] * 4
    processor.translate(0x123, WRITE)
    assert ept_flags(processor, EPT4, EPT3, EPT2, EPT1) == [EPT_A, EPT_A, EPT_A, EPT_A | EPT_D]
    forbidden = unpaged(R | TYPE_WB, eptp=EPTP | AD)
    violation(forbidden, WRITE)
    assert ept_flags(forbidden, EPT4, EPT1) == [0, 0]
    off = unpaged()
    off.translate(0x123, WRITE)
    assert ept_flags(off, EPT4, EPT1) == [0, 0]


def test_reads_of_guest_tables_count_as_writes():
    processor = paged(ALL, RWX | TYPE_WB, eptp=EPTP | AD)
    processor.translate(0x1123, READ)
    assert ept_flags(processor, EPT1, EPT1 + 8) == [EPT_A | EPT_D, EPT_A]
    assert [get(processor, at) & (A | D) for at in (0xC000, 0xC008)] == [A, A]
    put(processor, EPT1, 0xC000 | R | X | TYPE_WB)
    assert violation(processor, READ, 0x1123) == (0b101_011 | GLA_VALID, 0)


def test_guest_flags_need_permission_to_write():
    processor = paged(ALL, RWX | TYPE_WB)
    put(processor, EPT1, 0xC000 | R | X | TYPE_WB)
    assert violation(processor, READ, 0x1123) == (0b101_011 | GLA_VALID, 0)
    put(processor, 0xC000, ALL | A)
    put(processor, 0xC008, 0x1000 | ALL | A)
    assert processor.translate(0x1123, READ).hpa == 0x9123


def test_page_modification_log():
    processor = paged(ALL, RWX | TYPE_WB, eptp=EPTP | AD, pml_enabled=True, pml_address=LOG, pml_index=1)
    processor.translate(0x1123, WRITE)
    assert (get(processor, LOG + 8), get(processor, LOG), processor.pml_index) == (0, 0x1000, 0xFFFF)
    processor.translate(0x1123, WRITE)  # dirty already
    put(processor, EPT1 + 8, HOST | RWX | TYPE_WB | EPT_A)
    processor.translate(0x1123, READ)  # no flag is to be set
    with pytest.raises(PmlFull) as full:
        processor.translate(0x1123, WRITE)
    assert full.value.gpa == 0x1123
    assert ept_flags(processor, EPT1 + 8) == [EPT_A]
    put(processor, EPT1 + 8, HOST | RWX | TYPE_WB)
    with pytest.raises(PmlFull):  # an accessed flag needs room in the log as well
        processor.translate(0x1123, READ)
    assert ept_flags(processor, EPT1 + 8) == [0]


# ---- 'Supervisor Shadow-Stack Control' (EPTP bit 7)


def stack(leaf, tables=RWX, eptp=EPTP | SUPERVISOR_STACK):
    processor = paged(P | D | A, leaf | TYPE_WB, cpl=0, eptp=eptp)
    put(processor, 0xC000, ALL | A)
    put(processor, EPT2, EPT1 | tables)
    return processor


def test_supervisor_shadow_stacks():
    assert stack(R | SHADOW).translate(0x1123, WRITE, shadow_stack=True).hpa == 0x9123
    assert violation(stack(RWX), WRITE, 0x1123, shadow_stack=True)[0] == 0b111_010 | PAGE | 1 << 13
    assert violation(stack(R | SHADOW, R | X), READ, 0x1123, shadow_stack=True)[0] == 0b001_001 | PAGE | 1 << 13 | 1 << 14
    assert stack(RWX, eptp=EPTP).translate(0x1123, WRITE, shadow_stack=True).hpa == 0x9123
    ordinary = stack(R | SHADOW)
    ordinary.cr0 = PG
    assert violation(ordinary, WRITE, 0x1123)[0] == 0b001_010 | PAGE | 1 << 14
    user = paged(P | US | D, R | SHADOW | TYPE_WB, eptp=EPTP | SUPERVISOR_STACK)
    assert violation(user, WRITE, 0x1123, shadow_stack=True)[0] == 0b001_010 | PAGE | 1 << 13 | 1 << 14
    user.translate(0x1123, READ, shadow_stack=True)


# ---- 'Sub-Page Write Permissions'


def sub_page(vector=1 << 4, leaf=R | SUB_PAGE | TYPE_WB, **state):
    processor = unpaged(leaf, spp_enabled=True, spp_table=SPPT4, **state)
    for at, entry in ((SPPT4, SPPT3 | 1), (SPPT3, SPPT2 | 1), (SPPT2, SPPT1 | 1), (SPPT1, vector)):
        put(processor, at, entry)
    return processor


def test_sub_pages():
    assert sub_page().translate(0x100, WRITE).hpa == 0x9100  # sub-page 2: bit 4
    assert sub_page().translate(0x17F, WRITE).hpa == 0x917F
    for address in (0xFF, 0x180):
        assert violation(sub_page(), WRITE, address) == (0b001_010 | PAGE, 0)
    dirtied = sub_page(eptp=EPTP | AD)
    dirtied.translate(0x100, WRITE)
    assert ept_flags(dirtied, EPT1) == [EPT_A | EPT_D] and dirtied.references == 4


def test_where_sub_pages_do_not_matter():
    assert sub_page(0, RWX | SUB_PAGE | TYPE_WB).translate(0x100, WRITE).hpa == 0x9100
    assert violation(sub_page(leaf=R | TYPE_WB), WRITE, 0x100)[0] == 0b001_010 | PAGE
    assert violation(sub_page(leaf=X | SUB_PAGE | TYPE_WB), WRITE, 0x100)[0] == 0b100_010 | PAGE
    with pytest.raises(EptViolation):
        sub_page().translate_guest_physical(0x100, WRITE)
    in_table = sub_page(eptp=EPTP, cr0=PG, cr4=PAE, efer=LMA)
    put(in_table, HOST, P | 2)  # the table itself is write-protected, and its flag must be set
    assert violation(in_table, READ, 0)[0] == 0b001_011 | GLA_VALID


@pytest.mark.parametrize("table", [SPPT4, SPPT3, SPPT2])
def test_sub_page_events(table):
    for entry, qualification in ((0, 1 << 11), (0xFFE, 1 << 11), (3, 0), (1 | 1 << 11, 0), (1 | 1 << 46, 0), (1 | 1 << 63, 0)):
        processor = sub_page()
        put(processor, table, entry)
        with pytest.raises(SppEvent) as event:
            processor.translate(0x100, WRITE)
        assert (event.value.gpa, event.value.qualification) == (0x100, qualification)


def test_odd_bits_of_a_vector_are_reserved():
    with pytest.raises(SppEvent) as event:
        sub_page(1 << 4 | 1 << 63).translate(0x100, WRITE)
    assert event.value.qualification == 0
