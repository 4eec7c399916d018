"""Tables of 32-bit paging: entries of four bytes, two levels, pages of 4K and 4M."""

PAGE_4M = 1 << 22


class ShortTables:
    """As vmxemu.translation.library.Tables: `root`, `table_bits`, `map`."""

    def __init__(self, walker):
        self.walker, self.table_bits = walker, 7
        self.root = walker.new_frame()

    def _load(self, at):
        return int.from_bytes(self.walker.ram[at : at + 4].tobytes(), "little")

    def _save(self, at, value):
        self.walker.ram[at : at + 4] = list(value.to_bytes(4, "little"))

    def map(self, address, target, size=1 << 12, flags=7):
        at = self.root + (address >> 22) * 4
        if size == PAGE_4M:
            self._save(at, target & 0xFFC0_0000 | (target >> 32 & 0xFF) << 13 | flags | 1 << 7)
            return
        if not self._load(at) & 1:
            self._save(at, self.walker.new_frame() | self.table_bits)
        self._save((self._load(at) & ~0xFFF) + (address >> 12 & 0x3FF) * 4, target | flags)
