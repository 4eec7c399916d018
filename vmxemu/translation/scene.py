"""Tables built from a description (configuration.walk_description), in a Walker that is ready to translate."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vmxemu.configuration.errors import InputError
from vmxemu.configuration.walk_description import (
    GUEST_LEVELS,
    SIZES,
    EntryChange,
    EptDescription,
    EptPage,
    GuestPage,
    WalkDescription,
)
from vmxemu.isa import paging
from vmxemu.translation import layout
from vmxemu.translation.library import Walker
from vmxemu.translation.setting import Setting, apply, walker_for

FRAME_BYTES = 4096
LARGE_BIT = 7
LEVEL_OF_SIZE = {"4K": 1, "2M": 2, "4M": 2, "1G": 3}
EXTENSIONS = {
    "MBE": layout.EPT_MODE_BASED_EXECUTE,
    "SPP": layout.EPT_SUBPAGE_WRITE,
    "PML": layout.EPT_PAGE_MODIFICATION_LOG,
    "VE": layout.EPT_CONVERT_TO_VE,
}
TYPES = {name: number for number, name in paging.MEMORY_TYPES.items()}
WRITE_BACK = TYPES["WB"]


@dataclass(slots=True)
class Frames:
    """Host-physical memory under construction: frames that hold something."""

    content: dict[int, bytearray] = field(default_factory=dict)

    def claim(self, hpa: int, what: str) -> int:
        """Take an unused frame into use."""
        if hpa in self.content:
            raise InputError(what, f"expected room for tables at host-physical {hpa:#x}, where there is one already")
        self.content[hpa] = bytearray(FRAME_BYTES)
        return hpa

    def read(self, hpa: int, size: int) -> int:
        """A little-endian number."""
        frame, offset = self.content[hpa // FRAME_BYTES * FRAME_BYTES], hpa % FRAME_BYTES
        return int.from_bytes(frame[offset : offset + size], "little")

    def write(self, hpa: int, size: int, value: int) -> None:
        """Store a little-endian number."""
        frame, offset = self.content[hpa // FRAME_BYTES * FRAME_BYTES], hpa % FRAME_BYTES
        frame[offset : offset + size] = value.to_bytes(size, "little")


@dataclass(slots=True)
class Tree:
    """Paging structures under construction. `place` gives an address for a new table; `host` is where an address stands
    in host-physical memory.
    """

    frames: Frames
    levels: int
    index_bits: int
    entry_bytes: int
    present: int
    place: Callable[[], int]
    host: Callable[[int], int]
    root: int = 0

    def __post_init__(self) -> None:
        self.root = self.place()

    def entry(self, address: int, level: int, table_bits: int | None) -> int:
        """Host-physical address of the entry of `level` for an address; missing tables are made if `table_bits` are given.
        Raises ValueError where there is no such entry.
        """
        table = self.root
        for above in range(self.levels, level - 1, -1):
            index = address >> 12 + self.index_bits * (above - 1) & (1 << self.index_bits) - 1
            at = self.host(table) + index * self.entry_bytes
            if above == level:
                return at
            entry = self.frames.read(at, self.entry_bytes)
            if entry & self.present == 0:
                if table_bits is None:
                    raise ValueError(f"nothing is mapped at {address:#x}, so there is no entry of level {level}")
                entry = self.place() | table_bits
                self.frames.write(at, self.entry_bytes, entry)
            elif above < 4 and entry >> LARGE_BIT & 1:
                raise ValueError(f"a large page maps {address:#x} already")
            table = entry & 0x000F_FFFF_FFFF_F000
        raise ValueError(f"there are only {self.levels} levels, not {level}")

    def map(self, address: int, level: int, entry: int, table_bits: int) -> None:
        """Store the entry that maps a page."""
        at = self.entry(address, level, table_bits)
        if self.frames.read(at, self.entry_bytes):
            raise ValueError(f"{address:#x} is mapped already")
        self.frames.write(at, self.entry_bytes, entry)


def build(described: WalkDescription, where: str) -> Walker:
    """A walker with these tables and registers. Raises InputError, beginning with `where`, for what cannot be built."""
    try:
        return _Builder(described).walker()
    except InputError as problem:
        raise InputError(f"{where}: {problem.where}", problem.problem) from None


class _Builder:
    def __init__(self, described: WalkDescription) -> None:
        self.described, self.frames = described, Frames()
        self.eptp = self.cr3 = self.spp_table = self.pml_address = 0
        self.pdptes = [0, 0, 0, 0]
        self.backing: dict[int, int] = {}

    def walker(self) -> Walker:
        """Build everything: EPT first, because guest tables may stand in pages of it."""
        ept = self._ept(self.described.ept) if self.described.ept else None
        guest = self._guest(ept) if self.described.processor.mode != "off" else None
        for tree, prefix, changes in (
            (ept, "ept", self.described.ept.entry if self.described.ept else ()),
            (guest, "guest", self.described.guest.entry),
        ):
            for number, change in enumerate(changes):
                _change(tree, change, f"{prefix}.entry[{number}]", prefix == "ept")
        if guest is not None and self.described.processor.mode == "pae":
            self.pdptes = [self.frames.read(guest.host(guest.root) + 8 * index, 8) for index in range(4)]
        return self._load()

    def _ept(self, ept: EptDescription) -> Tree:
        place = self._placer(ept.tables, "ept.tables", lambda address: address)
        tree = Tree(self.frames, ept.levels, 9, 8, 7 | 1 << 10, place, lambda address: address)
        for number, page in enumerate(ept.page):
            self._each(tree, page, f"ept.page[{number}]", _ept_bits(page), _bits("EPT_PTE", page.tables))
        if any(page.sub_pages is not None for page in ept.page):
            self._sub_pages(ept, place)
        if "PML" in ept.controls:
            self.pml_address = place()
        flags = _bits("EPTP", tuple(name for name in ept.controls if name in ("AD", "SSS")))
        self.eptp = tree.root | ept.levels - 1 << 3 | flags | WRITE_BACK
        return tree

    def _sub_pages(self, ept: EptDescription, place: Callable[[], int]) -> None:
        tree = Tree(self.frames, 4, 9, 8, 1, place, lambda address: address)
        self.spp_table = tree.root
        for page in ept.page:
            if page.sub_pages is not None:
                tree.map(page.at, 1, sum(1 << 2 * number for number in set(page.sub_pages)), 1)

    def _guest(self, ept: Tree | None) -> Tree:
        described = self.described
        legacy = described.processor.mode == "32-bit"
        host = (lambda address: address) if ept is None else self._host_of
        hold = (lambda gpa: gpa) if ept is None else self._holder(ept)
        place = self._placer(described.guest.tables, "guest.tables", hold)
        levels = GUEST_LEVELS[described.processor.mode]
        tree = Tree(self.frames, levels, 10 if legacy else 9, 4 if legacy else 8, 1, place, host)
        for number, page in enumerate(described.guest.page):
            self._each(tree, page, f"guest.page[{number}]", self._guest_bits(page), _bits("PTE", page.tables))
        self.cr3 = tree.root
        return tree

    def _guest_bits(self, page: GuestPage) -> int:
        bits = _bits("PTE" if page.size == "4K" else "PDE_2M", page.flags)
        return bits | page.key << 59 if self.described.processor.mode != "32-bit" else bits & 0xFFFF_FFFF

    def _each(self, tree: Tree, page: GuestPage | EptPage, where: str, bits: int, table_bits: int) -> None:
        """Map all pages of one table of the description."""
        level, size = LEVEL_OF_SIZE[page.size], SIZES[page.size]
        bits |= 1 << LARGE_BIT if level > 1 else 0
        for number in range(page.count):
            target = page.to + number * size
            if page.size == "4M":
                target = target & 0xFFFF_FFFF | target >> 32 << 13
            try:
                self._tops(tree, page.at + number * size, table_bits)
                tree.map(page.at + number * size, level, target | bits, table_bits)
            except ValueError as problem:
                raise InputError(where, str(problem)) from None

    def _tops(self, tree: Tree, address: int, table_bits: int) -> None:
        """A PAE PDPTE has neither R/W nor U/S nor A."""
        if self.described.processor.mode != "pae" or tree.index_bits != 9 or tree.levels != 3:
            return
        at = tree.entry(address, 3, 0)
        if tree.frames.read(at, 8) == 0:
            tree.frames.write(at, 8, tree.place() | table_bits & 1)

    def _placer(self, first: int, what: str, hold: Callable[[int], int]) -> Callable[[], int]:
        """Gives addresses for tables, one frame after the other."""
        if first % FRAME_BYTES:
            raise InputError(what, f"expected a multiple of 4K, got {first:#x}")
        following = iter(range(first, first + (1 << 30), FRAME_BYTES))

        def place() -> int:
            address = next(following)
            self.frames.claim(hold(address), what)
            return address

        return place

    def _holder(self, ept: Tree) -> Callable[[int], int]:
        """Where a guest's table stands: in a page of the EPT, or in one that is mapped for it."""
        described = self.described.ept
        assert described is not None
        following = iter(range(described.guest_tables, described.guest_tables + (1 << 30), FRAME_BYTES))

        def hold(gpa: int) -> int:
            for page in described.page:
                if page.at <= gpa < page.at + SIZES[page.size] * page.count:
                    self.backing[gpa] = page.to + gpa - page.at
                    return self.backing[gpa]
            self.backing[gpa] = next(following)
            ept.map(gpa, 1, self.backing[gpa] | 7 | WRITE_BACK << 3 | 1 << 10, 7 | 1 << 10)
            return self.backing[gpa]

        return hold

    def _host_of(self, gpa: int) -> int:
        return self.backing[gpa // FRAME_BYTES * FRAME_BYTES] + gpa % FRAME_BYTES

    def _load(self) -> Walker:
        """Memory and registers into a walker."""
        last = max(self.frames.content, default=0)
        if last >= 1 << 32:
            raise InputError("ept.page", f"expected the guest's tables below 4 GiB, got host-physical {last:#x}")
        processor, ept = self.described.processor, self.described.ept
        walker = walker_for(last + FRAME_BYTES, processor.cpu)
        for hpa, frame in self.frames.content.items():
            walker.ram[hpa : hpa + FRAME_BYTES] = memoryview(frame)
        setting = Setting(
            mode=processor.mode,
            controls=processor.controls,
            cpl=processor.cpl,
            cr3=self.cr3,
            eptp=self.eptp,
            pdptes=tuple(self.pdptes),
            pkru=processor.pkru,
            pkrs=processor.pkrs,
        )
        apply(walker.m, setting)
        m: Any = walker.m
        if ept is not None:
            m.paging.ept_extensions = sum(int(EXTENSIONS[name]) for name in ept.controls if name in EXTENSIONS)
            m.paging.spp_table, m.paging.pml_address, m.paging.pml_index = self.spp_table, self.pml_address, ept.pml_index
        return walker


def _bits(structure: str, names: tuple[str, ...]) -> int:
    return sum(paging.bits_of(structure, name) for name in names)


def _ept_bits(page: EptPage) -> int:
    return _bits("EPT_PTE", page.flags) | TYPES[page.memory_type] << 3


def _change(tree: Tree | None, change: EntryChange, where: str, is_ept: bool) -> None:
    """Apply one change to an entry."""
    if tree is None:
        raise InputError(where, "there are no such tables")
    try:
        at = tree.entry(change.at, change.level, None)
    except ValueError as problem:
        raise InputError(where, str(problem)) from None
    entry = tree.frames.read(at, tree.entry_bytes) if change.value is None else change.value
    entry = entry & ~_mask(change.clear, where, is_ept) | _mask(change.set, where, is_ept)
    if entry >> 8 * tree.entry_bytes:
        raise InputError(where, f"expected an entry of {8 * tree.entry_bytes} bits, got {entry:#x}")
    tree.frames.write(at, tree.entry_bytes, entry)


def _mask(names: tuple[str | int, ...], where: str, is_ept: bool) -> int:
    """Bits by name or number."""
    rows = {row.name: row.mask for row in paging.STRUCTURES["EPT_PTE" if is_ept else "PTE"] if row.kind == "flag"}
    rows["PS"] = 1 << LARGE_BIT
    mask = 0
    for name in names:
        known = 0 <= name < 64 if isinstance(name, int) else name in rows
        if not known:
            raise InputError(where, f"expected bits by name ({' '.join(rows)}) or number (0 to 63), got {name!r}")
        mask |= 1 << name if isinstance(name, int) else rows[name]
    return mask
