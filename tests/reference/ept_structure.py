"""Guest-physical addresses: EPT walks, EPT's paging-structure caches, nested TLBs. A part of walk_structure.Twin."""

from tests.reference.tlb import Entry
from tests.reference.translation_memory_types import UC

FRAME = 0x000F_FFFF_FFFF_F000
LARGE, ACCESSED, DIRTY = 1 << 7, 1 << 8, 1 << 9
KB4 = 1 << 12


class EptSide:
    def refer(self, address, kind, counted=True):
        cycles = self.data_caches.load(address, kind) if self.geometry.data_caches else 0
        if counted:
            self.walk_references += 1
            self.walk_latency += cycles

    def table(self, gpa, level):
        """(hpa, EPT entry) of an entry of the guest's tables."""
        if not self.eptp:
            return gpa, None
        hpa, _, _, kind = self.nested("nested", gpa, bool(self.eptp >> 6 & 1))
        return hpa, kind

    def page(self, gpa, write):
        if not self.eptp:
            return gpa, 1 << 40, True, None
        return self.nested("nested_pages", gpa, write)

    def nested(self, name, gpa, write):
        """An EPT walk, or what a nested TLB knows: (hpa, page bytes, dirty, EPT entry)."""
        store = self.walk_caches.get(name)
        key = gpa // KB4, KB4, 0, None, self.ep4ta
        place = store and store.find(*key)
        if place:
            frame, size, dirty, kind = store.at(place).value
            if dirty or not write:
                store.use(place)
                self.nested_hits += 1
                return frame + gpa % KB4, size, dirty, kind
            store.drop_at(place)
        hpa, size, dirty, kind = self.ept_walk(gpa, write)
        if store:
            store.put(Entry(*key, False, (hpa - gpa % KB4, size, dirty, kind)))
        return hpa, size, dirty, kind

    def ept_path(self, gpa, level, table):
        """[(level, address, entry)] from a table down to the page."""
        path = []
        while True:
            address = table + (gpa >> 9 * level & 0xFF8)
            entry = self.load(address)
            path.append((level, address, entry))
            if level == 1 or (entry & LARGE and level < 4):
                return path
            level, table = level - 1, entry & FRAME

    def flags_missing(self, path, write):
        if not self.eptp >> 6 & 1:
            return False
        return any(not entry & ACCESSED for _, _, entry in path) or (write and not path[-1][2] & DIRTY)

    def ept_key(self, gpa, level):
        size = 1 << 12 + 9 * (level - 1)
        name = {2: "ept_pd", 3: "ept_pdpt", 4: "ept_pml4", 5: "ept_pml5"}[level]
        return self.walk_caches.get(name), gpa // size, (size, 0, None, self.ep4ta)

    def ept_walk(self, gpa, write, counted=True):
        """From the deepest table that is known, where no flag is to be set; else from the top."""
        path = None
        for level in range(2, 6):
            store, page, key = self.ept_key(gpa, level)
            place = store and store.find(page, *key)
            if place:
                path = self.ept_path(gpa, level - 1, store.at(place).value)
                if self.flags_missing(path, write):
                    path = None
                else:
                    store.use(place)
                    self.ept_table_hits[level] += 1
                break
        if path is None:
            path = self.ept_path(gpa, (self.eptp >> 3 & 7) + 1, self.eptp & FRAME)
        kind = UC if self.cache_disable else self.eptp & 7
        for _, address, _ in path:
            self.refer(address, kind, counted)
        if self.flags_missing(path, write):
            for _, address, entry in path:
                self.save(address, entry | ACCESSED)
            if write:
                self.save(path[-1][1], self.load(path[-1][1]) | DIRTY)
        for level, _, entry in path[:-1]:
            store, page, key = self.ept_key(gpa, level)
            if store:
                store.put(Entry(page, *key, False, entry & FRAME))
        level, address, _ = path[-1]
        entry = self.load(address)
        size = 1 << 12 + 9 * (level - 1)
        dirty = not self.eptp >> 6 & 1 or bool(entry & DIRTY)
        return (entry & FRAME) // size * size + gpa % size, size, dirty, entry
