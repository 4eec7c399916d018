"""Tables built from a description (configuration.walk_description), in a Walker that is ready to translate."""

from collections.abc import Callable
from typing import Any

from vmxemu.configuration.errors import InputError
from vmxemu.configuration.walk_description import (
    GUEST_LEVELS,
    SIZES,
    EptDescription,
    EptPage,
    GuestPage,
    WalkDescription,
)
from vmxemu.isa import paging
from vmxemu.isa.memory_types import NUMBERS
from vmxemu.translation import layout
from vmxemu.translation.library import Walker
from vmxemu.translation.setting import Setting, apply, walker_for, without_walk_caches
from vmxemu.translation.structures import FRAME_BYTES, LARGE_BIT, Frames, Tree, change_entry

LEVEL_OF_SIZE = {"4K": 1, "2M": 2, "4M": 2, "1G": 3}
EXTENSIONS = {
    "MBE": layout.EPT_MODE_BASED_EXECUTE,
    "SPP": layout.EPT_SUBPAGE_WRITE,
    "PML": layout.EPT_PAGE_MODIFICATION_LOG,
    "VE": layout.EPT_CONVERT_TO_VE,
}
WRITE_BACK = NUMBERS["WB"]


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
                change_entry(tree, change, f"{prefix}.entry[{number}]", prefix == "ept")
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
        rights = _bits("EPT_PTE", ("R", "W", "X", "XU") if "MBE" in described.controls else ("R", "W", "X"))
        following = iter(range(described.guest_tables, described.guest_tables + (1 << 30), FRAME_BYTES))

        def hold(gpa: int) -> int:
            for page in described.page:
                if page.at <= gpa < page.at + SIZES[page.size] * page.count:
                    self.backing[gpa] = page.to + gpa - page.at
                    return self.backing[gpa]
            self.backing[gpa] = next(following)
            ept.map(gpa, 1, self.backing[gpa] | rights | WRITE_BACK << 3, rights)
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
        if not processor.walk_caches:
            without_walk_caches(walker.m)
        m: Any = walker.m
        if ept is not None:
            m.paging.ept_extensions = sum(int(EXTENSIONS[name]) for name in ept.controls if name in EXTENSIONS)
            m.paging.spp_table, m.paging.pml_address, m.paging.pml_index = self.spp_table, self.pml_address, ept.pml_index
        return walker


def _bits(structure: str, names: tuple[str, ...]) -> int:
    return sum(paging.bits_of(structure, name) for name in names)


def _ept_bits(page: EptPage) -> int:
    return _bits("EPT_PTE", page.flags) | NUMBERS[page.memory_type] << 3
