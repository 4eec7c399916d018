"""The reference checked by hand: guest paging. Each case is worked out from the SDM (Vol. 3A) section that it names."""

import pytest

from tests.reference.translation import FETCH, READ, WRITE, GeneralProtection, PageFault, Processor

P, RW, US, A, D, PS, XD = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7, 1 << 63
ALL = P | RW | US
PG, WP, CD = 1 << 31, 1 << 16, 1 << 30
PSE, PAE, LA57, SMEP, SMAP, PKE, PKS = 1 << 4, 1 << 5, 1 << 12, 1 << 20, 1 << 21, 1 << 22, 1 << 24
LMA, NXE = 1 << 10, 1 << 11
ROOT, PDPT, PD, PT, PML4_OF_5, PAGE = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x9000
GLA = 0x123  # uses entry 0 of each table


def put(processor, address, value, size=8):
    processor.memory[address : address + size] = value.to_bytes(size, "little")


def get(processor, address, size=8):
    return int.from_bytes(processor.memory[address : address + size], "little")


def long_mode(last=ALL, tables=ALL, **state):
    """4-level paging that maps page 0 to PAGE by `last`."""
    state = {"cr0": PG | WP, "cr4": PAE, "efer": LMA | NXE, "cpl": 3} | state
    processor = Processor(bytearray(0xA000), cr3=ROOT, **state)
    for at, entry in ((ROOT, PDPT | tables), (PDPT, PD | tables), (PD, PT | tables), (PT, PAGE | last)):
        put(processor, at, entry)
    return processor


def error_code(processor, gla, access, **how):
    with pytest.raises(PageFault) as fault:
        processor.translate(gla, access, **how)
    return fault.value.error_code


# ---- '32-Bit Paging'


def test_32_bit_paging():
    processor = Processor(bytearray(0xA000), cr0=PG, cr3=ROOT)
    put(processor, ROOT + 4 * 1, PT | ALL, 4)
    put(processor, PT + 4 * 2, PAGE | ALL, 4)
    assert processor.translate(0x40_2345, READ)[:2] == (0x9345, 0x9345)
    assert processor.references == 2
    assert processor.translate(0xF_0040_2345, READ).gpa == 0x9345  # linear addresses have 32 bits
    assert (get(processor, ROOT + 4, 4), get(processor, PT + 8, 4)) == (PT | ALL | A, PAGE | ALL | A)


def test_4_mbyte_pages_with_pse_36():
    processor = Processor(bytearray(0xA000), cr0=PG, cr3=ROOT, cr4=PSE, maxphyaddr=36)
    put(processor, ROOT, 0x80_0000 | 0xF << 13 | PS | ALL, 4)  # bits 16:13 are address bits 35:32
    assert processor.translate(0x12_3456, READ).gpa == 0xF_0092_3456
    put(processor, ROOT, 0x80_0000 | 1 << 17 | PS | ALL, 4)  # bit 17 would be bit 36
    assert error_code(processor, 0x12_3456, READ) == 0b1001
    processor.maxphyaddr = 52  # the width of PSE-36 is 40 at most
    put(processor, ROOT, 0x80_0000 | 1 << 20 | PS | ALL, 4)
    assert processor.translate(0, READ).gpa == 0x80_0080_0000
    put(processor, ROOT, 0x80_0000 | 1 << 21 | PS | ALL, 4)
    assert error_code(processor, 0, READ) == 0b1001
    processor.cr4 = 0  # without PSE the bit is ignored and the entry refers to a page table, here outside memory
    put(processor, ROOT, PT | PS | ALL, 4)
    put(processor, PT, PAGE | ALL, 4)
    assert processor.translate(0, READ).gpa == PAGE


# ---- 'PAE Paging'


def test_pae_paging():
    processor = Processor(bytearray(0xA000), cr0=PG, cr4=PAE, pdpte=[0, PD | P, 0, 0])
    put(processor, PD, PT | ALL)
    put(processor, PT, PAGE | ALL)
    assert processor.translate(0x4000_0123, READ).gpa == 0x9123
    assert processor.references == 2  # the PDPTE registers are no references
    assert error_code(processor, 0x123, WRITE) == 0b00010  # PDPTE not present
    put(processor, PT, PAGE | ALL | 1 << 52)  # bits 62:52 are reserved
    assert error_code(processor, 0x4000_0123, READ) == 0b01001
    put(processor, PD, 0x60_0000 | PS | ALL)
    assert processor.translate(0x4012_3456, READ).gpa == 0x72_3456
    put(processor, PD, 0x60_0000 | 1 << 13 | PS | ALL)
    assert error_code(processor, 0x4000_0000, READ) == 0b01001


# ---- '4-Level Paging and 5-Level Paging'


def test_4_level_paging():
    processor = long_mode()
    assert processor.translate(GLA, READ)[:2] == (0x9123, 0x9123)
    assert processor.references == 4
    assert [get(processor, at) & (A | D) for at in (ROOT, PDPT, PD, PT)] == [A] * 4
    processor.translate(GLA, WRITE)
    assert [get(processor, at) & (A | D) for at in (ROOT, PDPT, PD, PT)] == [A, A, A, A | D]


def test_5_level_paging():
    processor = long_mode(cr4=PAE | LA57)
    put(processor, PML4_OF_5, get(processor, ROOT))
    put(processor, ROOT + 8 * 0x1FF, PML4_OF_5 | ALL)
    assert processor.translate(0xFFFF << 48 | GLA, READ).gpa == 0x9123
    assert processor.references == 5
    with pytest.raises(GeneralProtection):
        processor.translate(1 << 56, READ)
    assert error_code(processor, 1 << 47, READ) == 0b00100  # canonical in 57 bits, not mapped


@pytest.mark.parametrize("gla", [1 << 47, 1 << 63, 0xFFFF_7FFF_FFFF_FFFF])
def test_canonicality_comes_first(gla):
    with pytest.raises(GeneralProtection):
        long_mode(tables=0).translate(gla, READ)


def test_compatibility_mode_has_32_bit_addresses_but_for_system_tables():
    processor = long_mode(code_64=False)
    assert processor.translate(1 << 63 | GLA, READ).gpa == 0x9123
    with pytest.raises(GeneralProtection):
        processor.translate(1 << 63 | GLA, READ, implicit=True)


def test_large_pages():
    processor = long_mode()
    put(processor, PD, 0x1234_5678_0000 & ~0x1FFFFF | 1 << 12 | PS | ALL)  # bit 12 is PAT
    assert processor.translate(0x12_3456, READ).gpa == 0x1234_5678_0000 & ~0x1FFFFF | 0x12_3456
    put(processor, PDPT, 0x40_0000_0000 | PS | ALL)
    assert processor.translate(0x1234_5678, READ).gpa == 0x40_1234_5678
    assert processor.references == 2
    for wrong in (1 << 13, 1 << 29, 1 << 46):
        put(processor, PDPT, 0x40_0000_0000 | PS | ALL | wrong)
        assert error_code(processor, 0, READ) == 0b01101
    processor.page_1g = False
    put(processor, PDPT, 0x40_0000_0000 | PS | ALL)
    assert error_code(processor, 0, READ) == 0b01101
    put(processor, ROOT, PDPT | PS | ALL)  # no entry of that level maps a page
    processor.page_1g = True
    assert error_code(processor, 0, READ) == 0b01101


def test_reserved_bits():
    assert error_code(long_mode(ALL | 1 << 46), GLA, READ) == 0b01101
    assert error_code(long_mode(ALL | XD, efer=LMA), GLA, READ) == 0b01101
    assert long_mode(ALL | 0x7FF << 52).translate(GLA, READ).gpa == 0x9123  # ignored
    assert error_code(long_mode((ALL & ~P) | 1 << 46), GLA, READ) == 0b00100  # not checked where P = 0


# ---- 'Access Rights' and 'Page-Fault Exceptions'


def test_user_accesses():
    assert error_code(long_mode(P | RW), GLA, READ) == 0b00101
    assert error_code(long_mode(P | US), GLA, WRITE) == 0b00111
    assert error_code(long_mode(tables=P | US), GLA, WRITE) == 0b00111
    assert error_code(long_mode(ALL | XD), GLA, FETCH) == 0b10101
    assert error_code(long_mode(tables=ALL | XD), GLA, FETCH) == 0b10101
    assert long_mode(ALL | XD).translate(GLA, WRITE).gpa == 0x9123
    faulting = long_mode(P | US)
    error_code(faulting, GLA, WRITE)
    assert [get(faulting, at) & A for at in (ROOT, PT)] == [0, 0]


def test_supervisor_accesses():
    assert error_code(long_mode(P, cpl=0), GLA, WRITE) == 0b00011
    assert long_mode(P, cpl=0, cr0=PG).translate(GLA, WRITE).gpa == 0x9123  # CR0.WP = 0
    assert error_code(long_mode(P | US, cpl=0), GLA, WRITE) == 0b00011
    assert error_code(long_mode(P | XD, cpl=2), GLA, FETCH) == 0b10001
    assert long_mode(P | RW, cpl=3).translate(GLA, READ, implicit=True).gpa == 0x9123


def test_smep():
    assert error_code(long_mode(cpl=0, cr4=PAE | SMEP), GLA, FETCH) == 0b10001
    assert long_mode(P | RW, cpl=0, cr4=PAE | SMEP).translate(GLA, FETCH).gpa == 0x9123
    assert long_mode(cr4=PAE | SMEP).translate(GLA, FETCH).gpa == 0x9123


def test_smap():
    smap = {"cr4": PAE | SMAP, "cpl": 0}
    assert error_code(long_mode(**smap), GLA, READ) == 0b00001
    assert error_code(long_mode(**smap, cr0=PG), GLA, WRITE) == 0b00011
    assert long_mode(**smap, ac=True).translate(GLA, READ).gpa == 0x9123
    assert error_code(long_mode(**smap, ac=True), GLA, READ, implicit=True) == 0b00001  # AC does not help
    assert long_mode(**smap).translate(GLA, FETCH).gpa == 0x9123
    assert long_mode(P | RW, **smap).translate(GLA, READ).gpa == 0x9123
    assert long_mode(**smap | {"cpl": 3}).translate(GLA, READ).gpa == 0x9123


def test_the_fetch_bit_needs_nxe_or_smep():
    not_present = long_mode(0)
    assert error_code(not_present, GLA, FETCH) == 0b10100
    not_present.efer = LMA
    assert error_code(not_present, GLA, FETCH) == 0b00100
    not_present.cr4 |= SMEP
    assert error_code(not_present, GLA, FETCH) == 0b10100
    assert error_code(Processor(bytearray(0x2000), cr0=PG, efer=NXE), 0, FETCH) == 0  # CR4.PAE = 0


# ---- 'Protection Keys'

KEY_5 = 5 << 59


def keyed(last, access_disable=0, write_disable=0, **state):
    rights = (access_disable | write_disable << 1) << 10
    return long_mode(last | KEY_5, **{"cr4": PAE | PKE | PKS, "pkru": rights, "pkrs": rights} | state)


def test_keys_of_user_pages():
    assert keyed(ALL).translate(GLA, READ).key == 5
    assert error_code(keyed(ALL, access_disable=1), GLA, READ) == 0b100101
    assert error_code(keyed(ALL, access_disable=1, cpl=0), GLA, READ) == 0b100001
    assert keyed(ALL, access_disable=1).translate(GLA, FETCH).key == 5  # fetches are not subject to keys
    assert keyed(ALL, write_disable=1).translate(GLA, READ).key == 5
    assert error_code(keyed(ALL, write_disable=1, cr0=PG), GLA, WRITE) == 0b100111
    assert error_code(keyed(ALL, write_disable=1, cpl=0), GLA, WRITE) == 0b100011
    assert keyed(ALL, write_disable=1, cpl=0, cr0=PG).translate(GLA, WRITE).key == 5  # CR0.WP = 0
    assert keyed(ALL, access_disable=1, pkru=0).translate(GLA, READ).key == 5  # IA32_PKRS is not for user pages
    assert keyed(ALL, access_disable=1, cr4=PAE | PKS).translate(GLA, READ).key is None


def test_keys_of_supervisor_pages():
    assert error_code(keyed(P | RW, access_disable=1, cpl=0), GLA, READ) == 0b100001
    assert error_code(keyed(P | RW, write_disable=1, cpl=0), GLA, WRITE) == 0b100011
    assert keyed(P | RW, write_disable=1, cpl=0, cr0=PG).translate(GLA, WRITE).key == 5
    assert keyed(P | RW, access_disable=1, cpl=0, pkrs=0).translate(GLA, READ).key == 5  # PKRU is for user pages
    assert keyed(P | RW, access_disable=1, cpl=0, cr4=PAE | PKE).translate(GLA, READ).key is None


def test_a_key_is_told_beside_other_causes():
    assert error_code(keyed(P | US, write_disable=1), GLA, WRITE) == 0b100111
    assert error_code(keyed(P | RW, access_disable=1), GLA, READ) == 0b100101  # user access to a supervisor page
    assert error_code(keyed(P | RW, write_disable=1, cr0=PG), GLA, WRITE) == 0b000111  # CR0.WP = 0: not the key


# ---- 'Shadow stacks': Vol. 3A, 'Access Rights'

STACK = P | US | D


def test_shadow_stacks():
    assert long_mode(STACK).translate(GLA, WRITE, shadow_stack=True).gpa == 0x9123
    assert long_mode(STACK).translate(GLA, READ, shadow_stack=True).gpa == 0x9123
    assert error_code(long_mode(STACK | RW), GLA, READ, shadow_stack=True) == 0b1000101
    assert error_code(long_mode(P | US), GLA, READ, shadow_stack=True) == 0b1000101  # not dirty
    assert error_code(long_mode(STACK, tables=P | US), GLA, WRITE, shadow_stack=True) == 0b1000111
    assert error_code(long_mode(0), GLA, READ, shadow_stack=True) == 0b1000100
    assert error_code(long_mode(STACK), GLA, WRITE) == 0b0000111  # an ordinary write to it


def test_shadow_stacks_have_the_privilege_of_their_page():
    assert long_mode(P | D, cpl=0).translate(GLA, WRITE, shadow_stack=True).gpa == 0x9123
    assert error_code(long_mode(STACK, cpl=0), GLA, READ, shadow_stack=True) == 0b1000001
    assert error_code(long_mode(P | D), GLA, READ, shadow_stack=True) == 0b1000101
    assert long_mode(P | D, cpl=0, cr4=PAE | SMAP).translate(GLA, READ, shadow_stack=True).gpa == 0x9123


def test_keys_apply_to_shadow_stacks():
    assert error_code(keyed(STACK, write_disable=1), GLA, WRITE, shadow_stack=True) == 0b1100111
    assert keyed(STACK, write_disable=1).translate(GLA, READ, shadow_stack=True).key == 5
