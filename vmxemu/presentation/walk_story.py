"""A translation's account as rows for the picture and the tables: numbers, names, decoded entries, rights so far."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from vmxemu.isa import bits, paging
from vmxemu.translation import layout, rights
from vmxemu.translation.account import (
    EPT,
    EPT_CACHE,
    FLAGS,
    GUEST,
    LEGACY,
    NESTED_TLB,
    PAE,
    PAGE,
    PML,
    SPP,
    STLB,
    TLB,
    WALK_CACHE,
    Account,
    Processor,
    Reference,
)

LEVEL_NAMES = {5: "PML5E", 4: "PML4E", 3: "PDPTE", 2: "PDE", 1: "PTE"}
FLAG_STORE = 7  # guest_level of the EPT walks that stores to flags take
LARGE = {3: "PDPTE_1G", 2: "PDE_2M"}
LEAVES = {"PTE", "PAE_PTE", "PTE_32", "PDE_4M", "PAE_PDE_2M", "PDE_2M", "PDPTE_1G", "EPT_PTE", "EPT_PDE_2M", "EPT_PDPTE_1G"}
PAGE_BYTES = {1: 1 << 12, 2: 1 << 21, 3: 1 << 30}
QUIET = {"P", "R", "W", "X", "XU", "PWT", "PCD", "PAT", "TYPE", "KEY", "ADDRESS", "ADDRESS_HIGH"}
EPT_RIGHTS = 7  # R W X, all that a walk cache keeps of EPT's entries
TOP = 6  # above every guest level
KEPT = (rights.MAY_READ, rights.MAY_WRITE, rights.MAY_FETCH)
CACHES = {TLB: "L1 TLB", STLB: "STLB", WALK_CACHE: "walk cache", NESTED_TLB: "nested TLB", EPT_CACHE: "EPT cache"}


@dataclass(slots=True)
class Row:
    """One line of the story. `number` is that of the reference, None where nothing was read for the walk; `target` is
    the guest's level for which it was needed, PAGE for the page itself, FLAG_STORE for a store of flags. A walk that a
    paging-structure cache has led to a fault is done again without: `attempt` counts.
    """

    reference: Reference
    number: int | None
    target: int
    structure: str = ""
    title: str = ""
    flags: list[str] = field(default_factory=list)
    so_far: str = ""
    present: bool = True
    attempt: int = 0

    @property
    def kind(self) -> int:
        return self.reference.kind

    @property
    def is_leaf(self) -> bool:
        """Whether the entry maps a page."""
        return self.structure in LEAVES


@dataclass(slots=True)
class Story:
    """An account and its rows."""

    account: Account
    rows: list[Row]

    @property
    def final(self) -> list[Row]:
        """The rows of the last attempt, which decides."""
        return [row for row in self.rows if row.attempt == self.rows[-1].attempt]

    def of(self, kind: int, target: int | None = None) -> list[Row]:
        """The rows of a kind in the last attempt, in order; those for one target if it is given."""
        return [row for row in self.final if row.kind == kind and (target is None or row.target == target)]

    def spared_by(self, target: int) -> str:
        """The cache that spared the EPT walk for `target`, or all that leads there; empty if none did."""
        for row in self.final:
            if row.kind in (TLB, STLB):
                return CACHES[row.kind]
            if row.kind == NESTED_TLB and row.target == target:
                return CACHES[row.kind]
            if row.kind == WALK_CACHE and target >= row.reference.level - 1 and target != PAGE:
                return CACHES[row.kind]
        return ""

    def ept_spared_from(self, target: int) -> int | None:
        """The lowest level of the EPT entries for `target` that a walk cache of EPT spared; None if it spared none."""
        return next((row.reference.level for row in self.of(EPT_CACHE, target)), None)

    @property
    def guest_leaf(self) -> Row | None:
        """The guest's entry that maps the page, if the walk read it."""
        return next((row for row in self.of(GUEST) if row.is_leaf and row.present), None)

    @property
    def ept_leaf(self) -> Row | None:
        """The EPT entry that maps the page itself, if the walk read it."""
        return next((row for row in self.of(EPT, PAGE) if row.is_leaf and row.present), None)


def tell(account: Account) -> Story:
    """The story of an account."""
    teller = _Teller(account.processor)
    for reference in account.references:
        teller.add(reference)
    return Story(account, teller.rows)


class _Teller:
    """Makes the rows one after the other: counts references and attempts, and-s rights."""

    def __init__(self, processor: Processor) -> None:
        self.processor = processor
        self.number = self.attempt = 0
        self.guest, self.ept = GuestRights(), EptRights()
        self.ept_target: int | None = None
        self.position = TOP
        self.rows: list[Row] = []

    def add(self, reference: Reference) -> None:
        """Tell one more line of the journal."""
        target = reference.level if reference.kind in (GUEST, WALK_CACHE) else reference.guest_level
        self._notice_restart(reference, target)
        counts = reference.kind in (GUEST, EPT) and target != FLAG_STORE
        self.number += counts
        row = Row(reference, self.number if counts else None, target, title=_title(reference), attempt=self.attempt)
        if reference.kind == FLAGS:
            row.flags = flags_stored(reference, self.rows)
        if reference.kind in (GUEST, EPT, SPP):
            row.structure = structure_of(reference, self.processor)
            row.present = is_present(row.structure, reference.entry, self.processor)
            row.flags = flags_of(row, self.processor)
        self._add_rights(row)
        self.rows.append(row)

    def _notice_restart(self, reference: Reference, target: int) -> None:
        """A walk goes from the top of the guest's tables down to the page; one that begins again has a reason."""
        if reference.kind not in (GUEST, EPT, NESTED_TLB, WALK_CACHE, EPT_CACHE) or target == FLAG_STORE:
            return
        if target > self.position:
            self.attempt += 1
            self.guest, self.ept_target = GuestRights(), None
        self.position = target

    def _add_rights(self, row: Row) -> None:
        reference = row.reference
        if reference.kind in (EPT, EPT_CACHE):
            if self.ept_target != row.target:
                self.ept = EptRights(self.processor.has(int(layout.EPT_MODE_BASED_EXECUTE)))
            self.ept_target = row.target
            entry = reference.entry if reference.kind == EPT else reference.entry | ~EPT_RIGHTS
            row.so_far = self.ept.add(entry) if row.present else ""
            return
        self.ept_target = None
        if reference.kind == GUEST and row.present:
            row.so_far = self.guest.add(paging.decode(row.structure, reference.entry))
        elif reference.kind == WALK_CACHE:
            row.so_far = self.guest.add(paging.decode("PDE", reference.entry))
        elif reference.kind in (TLB, STLB):
            row.so_far = rights_kept(reference.entry)


@dataclass(slots=True)
class GuestRights:
    """What the guest's entries permit so far: shown as RWX and U or S."""

    writable: bool = True
    user: bool = True
    executable: bool = True

    def add(self, entry: dict[str, int]) -> str:
        """Take one more decoded entry into account."""
        self.writable &= bool(entry["RW"])
        self.user &= bool(entry["US"])
        self.executable &= not entry.get("XD", 0)
        return f"R{'W' if self.writable else '-'}{'X' if self.executable else '-'} {'U' if self.user else 'S'}"


@dataclass(slots=True)
class EptRights:
    """What the entries of one EPT walk permit so far; with mode-based execute control XU is told apart."""

    mode_based: bool = False
    both: int = (1 << 64) - 1

    def add(self, entry: int) -> str:
        """Take one more entry into account."""
        self.both &= entry
        fields = paging.decode("EPT_PTE", self.both)
        letters = "".join(name if fields[name] else "-" for name in ("R", "W", "X"))
        return letters + (("+XU" if fields["XU"] else "   ") if self.mode_based else "")


def rights_kept(word: int) -> str:
    """The rights in the word of a TLB's entry; writable only if the dirty flags are set already."""
    letters = "".join(letter if word & int(right) else "-" for letter, right in zip("RWX", KEPT, strict=True))
    return f"{letters} {'U' if word & int(rights.USER) else 'S'}"


def level_name(level: int) -> str:
    """The SDM's name of an entry by its level."""
    return LEVEL_NAMES.get(level, f"level {level}")


def target_name(target: int) -> str:
    """Who needs a translation: a guest's entry, or the page."""
    if target == PAGE:
        return "the page"
    return "a store of flags" if target == FLAG_STORE else f"guest {level_name(target)}"


TITLES = {GUEST: "guest {name}", EPT: "EPT {name}", SPP: "SPPT level {level}", FLAGS: "A/D store", PML: "PML log"}


def _title(reference: Reference) -> str:
    title = TITLES.get(reference.kind) or CACHES.get(reference.kind, "?")
    return title.format(name=level_name(reference.level), level=reference.level)


def structure_of(reference: Reference, processor: Processor) -> str:
    """The structure of isa/paging_entries.csv that describes an entry."""
    level, large = reference.level, bool(reference.entry & paging.bits_of("PDE_2M", "PS"))
    if reference.kind == SPP:
        return "SPP_VECTOR" if level == 1 else "SPP_TABLE"
    name = LARGE[level] if large and level in LARGE else level_name(level)
    if reference.kind == EPT:
        return f"EPT_{name}"
    if processor.mode == PAE:
        return f"PAE_{name}"
    if processor.mode == LEGACY:
        maps_page = large and processor.cr4 & int(bits.CR4_PSE)
        return "PTE_32" if level == 1 else "PDE_4M" if maps_page else "PDE_32"
    return name


def is_present(structure: str, entry: int, processor: Processor) -> bool:
    """Whether the entry is there at all: any of R W X (with mode-based execute control, XU) in EPT, else P or V."""
    fields = paging.decode(structure, entry)
    if structure.startswith("EPT_"):
        mode_based = processor.has(int(layout.EPT_MODE_BASED_EXECUTE)) and fields["XU"]
        return bool(fields["R"] or fields["W"] or fields["X"] or mode_based)
    return bool(fields.get("P", fields.get("V", 1)))


def flags_of(row: Row, processor: Processor) -> list[str]:
    """The flags that are 1, the memory type and the key, as short words."""
    fields, structure = paging.decode(row.structure, row.reference.entry), row.structure
    if structure == "SPP_VECTOR":
        return [f"{sum(row.reference.entry >> 2 * i & 1 for i in range(32))} of 32 writable"]
    if not row.present:
        return ["not present"] + (["SVE"] if fields.get("SVE") else [])
    shown: list[str] = []
    if structure.startswith("EPT_"):
        rights = "".join(name if fields[name] else "-" for name in ("R", "W", "X"))
        xu = processor.has(int(layout.EPT_MODE_BASED_EXECUTE)) and fields["XU"]
        shown.append(rights + ("+XU" if xu else ""))
    elif "P" in fields:
        shown.append("P")
    shown += [name for name, value in fields.items() if value and name not in QUIET]
    if "TYPE" in fields:
        shown.append(paging.memory_type(fields["TYPE"]))
    elif "PAT" in fields:
        shown.append(pat_type(fields, processor))
    else:
        shown += [name for name in ("PWT", "PCD") if fields.get(name)]
    if "KEY" in fields and (processor.keyed or fields["KEY"]):
        shown.append(f"key={fields['KEY']}")
    width = 52 if processor.mode == LEGACY and row.kind == GUEST else processor.physical_bits
    wrong = paging.reserved_bits_set(structure, row.reference.entry, width)
    return shown + [f"reserved {','.join(map(str, wrong))}!"] * bool(wrong)


def flags_stored(reference: Reference, rows: Sequence[Row]) -> list[str]:
    """Which flags an entry gained, and whose entry it is: the latest that was read there."""
    for row in reversed(rows):
        if row.kind in (GUEST, EPT) and row.reference.hpa == reference.hpa:
            gained = reference.entry & ~row.reference.entry
            names = [one.name for one in paging.STRUCTURES[row.structure] if one.kind == "flag" and one.mask & gained]
            whose = f"in {row.title}" + (f" ({row.number})" if row.number else "")
            return [*(f"+{name}" for name in names), whose]
    return []


def pat_type(fields: dict[str, int], processor: Processor) -> str:
    """The memory type that a guest's leaf chooses from IA32_PAT."""
    index = fields["PAT"] << 2 | fields["PCD"] << 1 | fields["PWT"]
    return paging.memory_type(processor.pat >> 8 * index & 7)
