"""Memory types written from the SDM: Vol. 3A, 'Memory Cache Control'; Vol. 3C, 'EPT and Memory Typing'."""

from dataclasses import dataclass, field

UC, WC, WT, WP, WB, UC_MINUS = 0, 1, 4, 5, 6, 7

# Vol. 3A, table 'Effective Page-Level Memory Types for Pentium III and More Recent Processor Families':
# (MTRR memory type, PAT entry value) -> effective memory type
EFFECTIVE = {
    (UC, UC): UC, (UC, UC_MINUS): UC, (UC, WC): WC, (UC, WT): UC, (UC, WB): UC, (UC, WP): UC,
    (WC, UC): UC, (WC, UC_MINUS): WC, (WC, WC): WC, (WC, WT): UC, (WC, WB): WC, (WC, WP): UC,
    (WT, UC): UC, (WT, UC_MINUS): UC, (WT, WC): WC, (WT, WT): WT, (WT, WB): WT, (WT, WP): WP,
    (WB, UC): UC, (WB, UC_MINUS): UC, (WB, WC): WC, (WB, WT): WT, (WB, WB): WB, (WB, WP): WP,
    (WP, UC): UC, (WP, UC_MINUS): WC, (WP, WC): WC, (WP, WT): WT, (WP, WB): WP, (WP, WP): WP,
}  # fmt: skip

# Vol. 3A, table 'Address Mapping for Fixed-Range MTRRs': first address, bytes each field covers; in the order of the
# eleven registers, eight fields each
FIXED_RANGES = [(0x00000, 0x10000), (0x80000, 0x4000), (0xA0000, 0x4000)]
FIXED_RANGES += [(address, 0x1000) for address in range(0xC0000, 0x100000, 0x8000)]


@dataclass
class Mtrrs:
    """IA32_MTRR_DEF_TYPE (here: enabled, everything write-back), the eleven fixed-range registers, and (PHYSBASE,
    PHYSMASK) pairs.
    """

    def_type: int = 1 << 11 | WB
    fixed: list = field(default_factory=lambda: [0] * 11)
    variable: list = field(default_factory=list)


def mtrr_type(mtrrs, hpa):
    """Vol. 3A, 'MTRR Precedences'. None where ranges overlap in a way that the manual leaves undefined."""
    if not mtrrs.def_type >> 11 & 1:
        return UC
    if hpa < 1 << 20 and mtrrs.def_type >> 10 & 1:
        for register, (first, size) in zip(mtrrs.fixed, FIXED_RANGES, strict=True):
            if first <= hpa < first + 8 * size:
                return register >> (hpa - first) // size * 8 & 0xFF
    found = set()
    for base, mask in mtrrs.variable:
        if mask >> 11 & 1 and (hpa & mask) >> 12 == (base & mask) >> 12:
            found.add(base & 0xFF)
    if not found:
        return mtrrs.def_type & 0xFF
    if UC in found:
        return UC
    if found == {WT, WB}:
        return WT
    return found.pop() if len(found) == 1 else None


def pat_type(pat, index):
    """Vol. 3A, 'Selecting a Memory Type from the PAT'."""
    return pat >> 8 * index & 7


def memory_type(cache_disable, from_pat, mtrrs, hpa, ept_leaf):
    """The effective memory type of an access to `hpa`. `ept_leaf`: the EPT entry that maps the page, None without
    EPT. None where undefined.
    """
    if cache_disable:
        return UC
    if ept_leaf is None:
        from_mtrr = mtrr_type(mtrrs, hpa)
        return None if from_mtrr is None else EFFECTIVE[from_mtrr, from_pat]
    ept_type = ept_leaf >> 3 & 7
    ignore_pat = ept_leaf >> 6 & 1
    return ept_type if ignore_pat else EFFECTIVE[ept_type, from_pat]
