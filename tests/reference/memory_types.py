"""Memory types written from the SDM's text. Vol. 3A, 'Memory Cache Control'; Vol. 3C, 'EPT and Memory Typing'."""

from dataclasses import dataclass, field

ENCODING = {0: "UC", 1: "WC", 4: "WT", 5: "WP", 6: "WB", 7: "UC-"}
# Vol. 3A, table 'Effective Page-Level Memory Types for Pentium III and Later': a row per MTRR type, a column per PAT type.
PAT_COLUMNS = ("UC", "UC-", "WC", "WT", "WB", "WP")
EFFECTIVE = {
    "UC": ("UC", "UC", "WC", "UC", "UC", "UC"),
    "WC": ("UC", "WC", "WC", "UC", "WC", "UC"),
    "WT": ("UC", "UC", "WC", "WT", "WT", "WP"),
    "WP": ("UC", "WC", "WC", "WT", "WP", "WP"),
    "WB": ("UC", "UC", "WC", "WT", "WB", "WP"),
}
KB = 1024


def combined(region, pat):
    """Effective type, by name."""
    return EFFECTIVE[region][PAT_COLUMNS.index(pat)]


@dataclass
class Mtrrs:
    """`fixed`: the eleven fixed-range registers in the order of their ranges; `variable`: (base, mask) pairs."""

    def_type: int = 0
    fixed: list = field(default_factory=lambda: [0] * 11)
    variable: list = field(default_factory=list)

    def fixed_ranges(self):
        """(first address, end, type) of each of the 88 ranges below 1 MiB."""
        sizes = [64 * KB] + [16 * KB] * 2 + [4 * KB] * 8
        start = 0
        for register, size in zip(self.fixed, sizes, strict=True):
            for number in range(8):
                yield start, start + size, register >> 8 * number & 0xFF
                start += size

    def type_of(self, address):
        """Encoding of the memory type; None where the manual leaves it undefined."""
        if not self.def_type >> 11 & 1:
            return 0  # UC
        if address < 1024 * KB and self.def_type >> 10 & 1:
            return next(kind for start, end, kind in self.fixed_ranges() if start <= address < end)
        kinds = set()
        for base, mask in self.variable:
            valid, physmask, physbase = mask >> 11 & 1, mask >> 12, base >> 12
            if valid and (address >> 12) & physmask == physbase & physmask:
                kinds.add(base & 0xFF)
        if not kinds:
            return self.def_type & 0xFF
        if len(kinds) == 1:
            return kinds.pop()
        if 0 in kinds:
            return 0
        return 4 if kinds == {4, 6} else None


def effective(cache_disable, paging, pat_msr, pat_index, mtrr=None, ept=None, ignore_pat=False):
    """Name of the effective type. `ept`: the type in the EPT entry that maps the page, or None where EPT is off and the
    type of the MTRRs counts.
    """
    if cache_disable:
        return "UC"
    pat = ENCODING[pat_msr >> 8 * pat_index & 7] if paging else "WB"
    if ept is not None:
        return ENCODING[ept] if ignore_pat else combined(ENCODING[ept], pat)
    return combined(ENCODING[mtrr], pat)
