"""EPT tables as software handles them: looking up, mapping, splitting. No side effects on accessed and dirty flags here."""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel, load64, store64
from vmxemu.layout import u64 as U
from vmxemu.memory.layout import VMM1_OWN
from vmxemu.memory.physical import host_address, read64, write64
from vmxemu.outer.pool import NO_FRAME, take_frame, take_table

if TYPE_CHECKING:
    from vmxemu.state import State

FRAME_MASK = U(0x000F_FFFF_FFFF_F000)
RIGHTS, LARGE = U(7), U(1 << 7)
MEMORY_TYPE_BITS = U(0x78)  # memory type and ignore-PAT
WRITE_BACK = U(6 << 3)
NOT_MAPPED = U(0xFFFFFFFFFFFFFFFF)
HOLE_HPA = U(0xFD00_0000)  # nothing is there: loads give ones, stores are lost
FROM_POOL, FROM_ARENA = U(0), U(1)


@kernel
def entry_at(root: int, table: int, gpa: int, level: int) -> int:
    """Address of the entry for `gpa` in the table at `table` of that level (4 = PML4)."""
    return (table & FRAME_MASK) + ((gpa >> (3 + 9 * level) & 0x1FF) << 3)


@kernel
def leaf_of(m: "State", root: int, gpa: int) -> int:
    """HPA of the leaf entry that maps `gpa` under the EPT at HPA `root`, its level in m.outer.error_detail; NOT_MAPPED if
    there is none."""
    table = root
    level = U(4)
    while True:
        at = entry_at(root, table, gpa, level)
        entry = read64(m, at)
        if entry & RIGHTS == 0 or host_address(m, at) == 0:
            m.outer.error_detail = level
            return NOT_MAPPED
        if level == 1 or entry & LARGE != 0:
            m.outer.error_detail = level
            return at
        table = entry
        level = level - 1


@kernel
def page_bytes(level: int) -> int:
    """Size of the page that a leaf of this level maps."""
    return U(1) << (3 + 9 * level)


@kernel
def translate_software(m: "State", root: int, gpa: int) -> int:
    """HPA behind `gpa` by the tables alone; NOT_MAPPED if there is none."""
    at = leaf_of(m, root, gpa)
    if at == NOT_MAPPED:
        return NOT_MAPPED
    size = page_bytes(m.outer.error_detail)
    return read64(m, at) & FRAME_MASK & ~(size - 1) | gpa & (size - 1)


@kernel
def new_table(m: "State", source: int) -> int:
    """A table page from the pool or the arena."""
    return take_table(m) if source == FROM_ARENA else take_frame(m, VMM1_OWN)


@kernel
def split(m: "State", at: int, level: int, source: int) -> bool:
    """Replace the large-page leaf at HPA `at` by a table of the next smaller pages with the same rights; False without a free
    page."""
    entry = read64(m, at)
    table = new_table(m, source)
    if table == NO_FRAME:
        return False
    step = page_bytes(level - 1)
    keep = entry & ~FRAME_MASK
    if level == 2:
        keep = keep & ~LARGE
    first = entry & FRAME_MASK & ~(page_bytes(level) - 1)
    for index in range(512):
        write64(m, table + index * 8, first + index * step | keep)
    write64(m, at, table | RIGHTS)
    return True


@kernel
def leaf_4k(m: "State", root: int, gpa: int, source: int) -> int:
    """HPA of the 4-KiB leaf entry for a mapped `gpa`, splitting large pages on the way; NOT_MAPPED if unmapped or out of pages."""
    while True:
        at = leaf_of(m, root, gpa)
        if at == NOT_MAPPED:
            return NOT_MAPPED
        level = m.outer.error_detail
        if level == 1:
            return at
        if not split(m, at, level, source):
            return NOT_MAPPED


@kernel
def map_page(m: "State", root: int, gpa: int, entry: int, level: int, source: int) -> bool:
    """Install `entry` as the leaf for `gpa` at `level`, making tables; a large page in the way is split. False without a free
    page."""
    table = root
    current = U(4)
    while current > level:
        at = entry_at(root, table, gpa, current)
        found = read64(m, at)
        if found & RIGHTS == 0:
            fresh = new_table(m, source)
            if fresh == NO_FRAME:
                return False
            found = fresh | RIGHTS
            write64(m, at, found)
        elif found & LARGE != 0:
            if not split(m, at, current, source):
                return False
            found = read64(m, at)
        table = found
        current = current - 1
    write64(m, entry_at(root, table, gpa, level), entry)
    return True


@kernel
def unmap_frame(m: "State", base: int, end: int, hpa: int) -> int:
    """Clear every leaf in the table pages [base, end) that maps the frame at `hpa`, large pages included. Returns how many.

    Used on the arena, whose pages are all EPT02 tables. Entries that point back into the arena are tables, not leaves.
    """
    cleared = U(0)
    for table in range(base, end, 4096):
        host = host_address(m, table)
        for offset in range(0, 4096, 8):
            entry = load64(host + offset)
            if entry & RIGHTS == 0:
                continue
            frame = entry & FRAME_MASK
            if base <= frame < end:
                continue
            size = U(4096)
            if entry & LARGE != 0:
                size = U(1 << 21)
            if hpa - (frame & ~(size - 1)) < size:
                store64(host + offset, 0)
                cleared = cleared + 1
    return cleared
