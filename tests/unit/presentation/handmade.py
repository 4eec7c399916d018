"""Accounts of translations made by hand: journals as the kernels keep them, without tables or kernels."""

from dataclasses import replace

from vmxemu.isa import bits
from vmxemu.translation.account import EPT, GUEST, PAGE, Account, Processor, Reference

GLA, PAGE_GPA, PAGE_HPA = 0x7F12_3456_7ABC, 0x40_0ABC, 0x90_0ABC
PRESENT, LEAF, EPT_TABLE, EPT_PAGE = 0x27, 0x67, 0x07, 0x37
WRITE_BACK_PAT = 0x0007_0406_0007_0406


def processor(guest_levels=4, ept_levels=4, **changes):
    cr4 = int(bits.CR4_PAE) | (int(bits.CR4_LA57) if guest_levels == 5 else 0)
    efer = int(bits.EFER_LMA | bits.EFER_NXE)
    eptp = 0x200_0006 | ept_levels - 1 << 3 if ept_levels else 0
    made = Processor(
        cr0=int(bits.CR0_PG | bits.CR0_WP) if guest_levels else 0, cr3=0x10_0000, cr4=cr4, efer=efer, cpl=3,
        pat=WRITE_BACK_PAT, eptp=eptp, ept_capabilities=1 | 3 << 16,
    )  # fmt: skip
    return replace(made, **changes)


def ept_walk(target, gpa, frame, levels, leaf=1, cycles=4):
    rows = []
    for level in range(levels, leaf - 1, -1):
        hpa = 0x200_0000 + (levels - level << 12 | gpa >> 9 * level & 0xFF8)
        page, table = frame >> 9 * leaf + 3 << 9 * leaf + 3 | EPT_PAGE, 0x200_1000 + (levels - level << 12) | EPT_TABLE
        entry = page if level == leaf else table
        large = 0x80 if level == leaf and leaf > 1 else 0
        rows.append(Reference(EPT, level, target, GLA, gpa, hpa, entry | large, cycles))
    return rows


def walk(guest_levels=4, ept_levels=4, guest_leaf=1, ept_leaf=1, access=0, **changes):
    """A walk that succeeds: (g + 1)(h + 1) - 1 references."""
    rows = []
    for level in range(guest_levels, guest_leaf - 1, -1):
        gpa = 0x10_0000 + (guest_levels - level << 12 | GLA >> 9 * level & 0xFF8)
        hpa = gpa + 0xF0_0000 if ept_levels else gpa
        if ept_levels:
            rows += ept_walk(level, gpa, hpa, ept_levels, ept_leaf)
        is_leaf = level == guest_leaf
        entry = PAGE_GPA & ~0xFFF | LEAF if is_leaf else 0x10_1000 + (guest_levels - level << 12) | PRESENT
        rows.append(Reference(GUEST, level, level, GLA, gpa, hpa, entry | (0x80 if is_leaf and level > 1 else 0), 12))
    if ept_levels:
        rows += ept_walk(PAGE, PAGE_GPA, PAGE_HPA, ept_levels, ept_leaf)
    made = Account(
        GLA, access, processor(guest_levels, ept_levels), tuple(rows), gpa=PAGE_GPA, hpa=PAGE_HPA if ept_levels else PAGE_GPA,
        page_bytes=1 << 12 + 9 * (min(guest_leaf, ept_leaf) - 1), count=len(rows), cycles=sum(row.cycles for row in rows),
    )  # fmt: skip
    return replace(made, **changes)
