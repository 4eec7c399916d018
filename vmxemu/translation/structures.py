"""Paging structures under construction, of any format, in memory that is only what they take."""

from collections.abc import Callable
from dataclasses import dataclass, field

from vmxemu.configuration.errors import InputError
from vmxemu.configuration.walk_description import EntryChange
from vmxemu.isa import paging

FRAME_BYTES = 4096
LARGE_BIT = 7
ADDRESS_BITS = paging.bits_of("PTE", "ADDRESS")


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
            table = entry & ADDRESS_BITS
        raise ValueError(f"there are only {self.levels} levels, not {level}")

    def map(self, address: int, level: int, entry: int, table_bits: int) -> None:
        """Store the entry that maps a page."""
        at = self.entry(address, level, table_bits)
        if self.frames.read(at, self.entry_bytes):
            raise ValueError(f"{address:#x} is mapped already")
        self.frames.write(at, self.entry_bytes, entry)


def change_entry(tree: Tree | None, change: EntryChange, where: str, is_ept: bool) -> None:
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
