"""Look-ups, walks, what they keep and what they cost, slow and obvious, over tables that permit everything.

Only pages may be missing, only flags may be clear. What a walk reads is in `memory`, and so are the flags that it sets.
"""

from tests.reference.ept_structure import FRAME, EptSide
from tests.reference.tlb import DataCaches, Entry, Group, Store, replacement_of, stores_of
from tests.reference.translation_memory_types import Mtrrs, memory_type, pat_type

P, A, D, PS, G = 1, 1 << 5, 1 << 6, 1 << 7, 1 << 8


class PageFault(Exception):
    pass


class Twin(EptSide):
    """A processor's translation. `mode`: "off", "32", "pae", "4" or "5" (levels)."""

    def __init__(self, memory, geometry):
        self.memory, self.geometry = memory, geometry
        self.mode, self.cr3, self.pcide, self.pge, self.eptp, self.vpid, self.pdpte = "4", 0, True, True, 0, 0, [0] * 4
        self.cache_disable, self.pat, self.mtrrs = False, 0x0007_0406_0007_0406, Mtrrs()
        self.generation = 0  # of VPID 0: what it was before is dead, but takes room until it is replaced
        self.first = {"data": Group(stores_of(geometry, "l1d")), "fetch": Group(stores_of(geometry, "l1i"))}
        self.second = Group(stores_of(geometry, "stlb"))
        self.walk_caches = {
            name: Store(entries, entries, replacement_of(geometry, name))
            for name, entries in geometry.walk_caches.items()
            if entries
        }
        self.data_caches = DataCaches(geometry)
        self.lookups = self.stlb_hits = self.walks = self.references = self.faults = self.walk_cycles = self.nested_hits = 0
        self.table_hits, self.ept_table_hits = [0] * 8, [0] * 8

    # ---- memory and modes
    def load(self, address, size=8):
        return int.from_bytes(self.memory[address : address + size], "little")

    def save(self, address, value, size=8):
        self.memory[address : address + size] = value.to_bytes(size, "little")

    @property
    def ep4ta(self):
        return self.eptp & FRAME if self.eptp else None

    @property
    def pcid(self):
        return self.cr3 & 0xFFF if self.pcide and self.mode != "off" else 0

    def tag(self):
        """(PCID, VPID, EP4TA) of the linear addresses in use; without paging they are guest-physical."""
        if self.mode == "off":
            return 0, None, self.ep4ta
        return self.pcid, self.vpid_tag(self.vpid), self.ep4ta

    def vpid_tag(self, vpid):
        return vpid or ("host", self.generation)

    # ---- look-up
    def translate(self, gla, access):
        """(hpa, or None for a page fault; references; cycles)"""
        self.lookups += 1
        group = self.first["fetch" if access == "fetch" else "data"]
        for level, cycles in ((group, 0), (self.second, self.geometry.stlb_cycles)):
            found = level.find(gla, *self.tag())
            if not found:
                continue
            store, place = found
            entry = store.at(place)
            frame, dirty = entry.value
            if access == "write" and not dirty:
                store.drop_at(place)
                continue
            store.use(place)
            if level is self.second:
                self.stlb_hits += 1
                hpa = frame + gla % entry.size
                group.put(gla, hpa, entry.size, self.tag(), entry.is_global, dirty, entry.guest_bytes)
            return frame + gla % entry.size, 0, cycles
        return self.miss(group, gla, access)

    def miss(self, group, gla, access):
        self.walks += 1
        self.walk_references = self.walk_latency = 0
        self.helped = False
        try:
            try:
                page = self.walk(gla, access, use_tables=True)
            except PageFault:
                if not self.helped:
                    raise
                page = self.walk(gla, access, use_tables=False)
        except PageFault:
            self.faults += 1
            self.forget(gla)
            page = None
        self.references += self.walk_references
        latency = self.walk_latency if self.geometry.data_caches else self.walk_references * self.geometry.reference_cycles
        cycles = self.geometry.walk_cycles + latency
        self.walk_cycles += cycles
        if page is None:
            return None, self.walk_references, cycles
        hpa, size, is_global, dirty, guest_bytes = page
        for level in (group, self.second):
            level.put(gla, hpa, size, self.tag(), is_global, dirty, guest_bytes)
        return hpa, self.walk_references, cycles

    def forget(self, gla):
        """What a page fault takes with it: the page, and the tables for the address, under any EPT."""
        self.drop_page(gla)
        for level in range(2, 6):
            store, page, (size, pcid, vpid, _) = self.table_key(gla, level)
            for ways in store.sets if store else ():
                for way, entry in enumerate(ways):
                    if entry and (entry.page, entry.size, entry.pcid, entry.vpid) == (page, size, pcid, vpid):
                        ways[way] = None

    # ---- the guest's tables
    def shape(self):
        """(levels, address bits per level, bytes of an entry)"""
        return {"32": (2, 10, 4), "pae": (2, 9, 8), "4": (4, 9, 8), "5": (5, 9, 8)}[self.mode]

    def table_key(self, gla, level):
        """Where the paging-structure cache of a level keeps the entry for an address."""
        _, bits, _ = self.shape()
        size = 1 << 12 + bits * (level - 1)
        name = {2: "pd", 3: "pdpt", 4: "pml4", 5: "pml5"}[level]
        return self.walk_caches.get(name), gla // size, (size, *self.tag())

    def walk(self, gla, access, use_tables):
        """(hpa, page bytes, global, dirty, bytes of the guest's page)"""
        if self.mode == "off":
            hpa, size, dirty, _ = self.page(gla, access == "write")
            return hpa, size, False, dirty, size
        levels, bits, width = self.shape()
        higher = self.pdpte[gla >> 30 & 3] if self.mode == "pae" else self.cr3
        if self.mode in ("4", "5") and self.pcide:
            higher &= ~0x18  # PCID bits are no memory type: PAT entry 0 is selected
        level, known, kind, all_accessed = levels, None, None, True
        if use_tables:
            for cached in range(2, levels + 1):
                store, page, key = self.table_key(gla, cached)
                place = store and store.find(page, *key)
                if place:
                    store.use(place)
                    self.table_hits[cached] += 1
                    self.helped = True
                    higher, known, kind = store.at(place).value
                    level = cached - 1
                    break
        top, read = level, []
        while True:
            offset = (gla >> 12 + bits * (level - 1) & (1 << bits) - 1) * width
            gpa = (higher & FRAME) + offset
            hpa = known + offset if known is not None else None
            if hpa is None:
                hpa, kind = self.table(gpa, level)
            known = None
            if use_tables and level != top and all_accessed:
                self.keep_table(gla, level + 1, higher, hpa & FRAME, kind)
            entry = self.load(hpa, width)
            self.refer(hpa, self.structure_type(higher, kind))
            read.append((level, gpa, hpa))
            if not entry & P:
                raise PageFault
            all_accessed = all_accessed and bool(entry & A)
            if level == 1 or (entry & PS and level < 4):
                break
            higher, level = entry, level - 1
        self.set_flags(read, width, access == "write")
        size = 1 << 12 + bits * (level - 1)
        if size == 1 << 22:
            gpa = (entry & 0xFFC00000) + (entry >> 13 & 0xFF) * (1 << 32) + gla % size
        else:
            gpa = (entry & FRAME) // size * size + gla % size
        hpa, ept_bytes, ept_dirty, _ = self.page(gpa, access == "write")
        dirty = (access == "write" or bool(entry & D)) and ept_dirty
        kept = 1 << 21 if size == 1 << 22 else size
        return hpa, min(kept, ept_bytes), bool(entry & G) and self.pge, dirty, size

    def structure_type(self, higher, kind):
        """Memory type of a table. `kind`: the EPT entry that maps it."""
        return memory_type(self.cache_disable, pat_type(self.pat, higher >> 3 & 3), self.mtrrs, 0, kind)

    def keep_table(self, gla, level, entry, hpa, kind):
        store, page, (size, pcid, vpid, ep4ta) = self.table_key(gla, level)
        if store:
            store.put(Entry(page, size, pcid, vpid, ep4ta, False, (entry, hpa, kind)))

    def set_flags(self, read, width, write):
        """From the top down; each store goes through EPT as a write, which is no reference."""
        for number, (_, gpa, hpa) in enumerate(read):
            old = self.load(hpa, width)
            new = old | A | (D if write and number == len(read) - 1 else 0)
            if new != old:
                if self.eptp:
                    self.ept_walk(gpa, True, counted=False)
                self.save(hpa, new, width)

    # ---- invalidation: Vol. 3A and 3C
    def drop_pages(self, condition):
        for group in (*self.first.values(), self.second):
            for store in group.stores.values():
                store.drop(condition)

    def drop_tables(self, condition):
        for store in self.walk_caches.values():
            store.drop(condition)

    def mov_cr3(self, value, keep=False):
        """Non-global translations of the PCID that is loaded, in the current VPID."""
        pcid = value & 0xFFF if self.pcide else 0
        if not keep:
            def condition(entry):
                return entry.vpid == self.vpid_tag(self.vpid) and entry.pcid == pcid and not entry.is_global

            self.drop_pages(condition)
            self.drop_tables(condition)
        self.cr3 = value

    def drop_page(self, gla):
        """The guest's page, in all its parts, of the current PCID or global."""
        vpid = self.vpid_tag(self.vpid)

        def condition(entry):
            here = entry.page * entry.size // entry.guest_bytes == gla // entry.guest_bytes
            return entry.vpid == vpid and here and (entry.is_global or entry.pcid == self.pcid)

        self.drop_pages(condition)

    def invlpg(self, gla):
        vpid = self.vpid_tag(self.vpid)
        self.drop_page(gla)
        self.drop_tables(lambda entry: entry.vpid == vpid and entry.pcid == self.pcid)

    def invalidate_all(self):
        self.drop_pages(lambda entry: True)
        self.drop_tables(lambda entry: True)

    def invept(self, eptp=None):
        def condition(entry):
            return entry.ep4ta is not None and (eptp is None or entry.ep4ta == eptp & FRAME)

        self.drop_pages(condition)
        self.drop_tables(condition)

    def invvpid(self, vpid):
        """Single-context."""
        if vpid == 0:
            self.generation += 1
            return
        self.drop_pages(lambda entry: entry.vpid == vpid)
        self.drop_tables(lambda entry: entry.vpid == vpid)
