"""Stale uses in words, by the numbers that kernels use (translation.stale, translation.stale_source)."""

SOURCES = {
    0: "L1 DTLB",
    1: "L1 ITLB",
    2: "STLB",
    3: "paging-structure cache",
    4: "nested TLB",
    5: "EPT paging-structure cache",
    6: "walk cache",
}
CHANGES = {
    1: "guest tables changed",
    2: "EPT changed",
    3: "guest dirty flag cleared",
    4: "EPT dirty flag cleared",
    5: "other tables under the same VPID and PCID",
}
BY_GUEST = "INVLPG, INVPCID or MOV to CR3 (a VMM's: INVVPID)"
# What would have removed the translation, by what has changed.
OWED = {1: BY_GUEST, 2: "INVEPT", 3: BY_GUEST, 4: "INVEPT", 5: "MOV to CR3 without the no-flush bit, INVPCID or INVVPID"}
