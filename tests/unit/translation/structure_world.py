"""Random tables that permit everything, random geometries and address streams, for the kernels and their slow twin.

Two address spaces (PCIDs use them by turns), three EPTs, VPIDs; pages of 4K, 2M and 1G (4M in 32-bit mode) under EPT
pages of all sizes. Flags may be clear, a few pages are missing, some tables are not write-back memory.
"""

import random

import numpy as np

from tests.reference.walk_structure import Twin
from tests.unit.translation.old_tables import ShortTables
from vmxemu.isa import cpus
from vmxemu.translation import bits, invalidate
from vmxemu.translation.geometry import DataCacheGeometry, Geometry, geometry_of, install
from vmxemu.translation.library import PAGE_1G, PAGE_2M, PAGE_4K, Tables, Walker

RAM = 2 << 20
DATA = 512 << 10  # guest-physical pages below this are data, those above tables
ACCESSES = {"read": 0, "write": 1, "fetch": 2}
PCIDS = (0, 1, 2, 3, 0x18, 0x19)
VPIDS = (0, 0, 1, 2)
FAR = 1 << 30
EPT_SHIFT = 1 << 36  # from one EPT's far host-physical addresses to the next one's


def random_geometry(chance):
    """Small arrays of every kind, so that all of them overflow."""
    def some(*choices):
        return chance.choice(choices)

    arrays = {
        "l1d_4k": some((4, 2), (8, 4), (6, 6)), "l1d_2m": some((0, 0), (2, 2), (4, 4)), "l1d_1g": some((0, 0), (2, 1)),
        "l1i_4k": some((0, 0), (4, 4), (5, 5)), "l1i_2m": some((0, 0), (3, 3)), "l1i_1g": some((0, 0), (0, 0), (1, 1)),
        "stlb_4k": some((24, 12), (40, 20), (16, 4), (12, 12)), "stlb_1g": some((0, 0), (4, 4), (4, 2)),
    }  # fmt: skip
    arrays["stlb_2m"] = some(arrays["stlb_4k"], (8, 4), (0, 0))
    if arrays["l1i_2m"] == (0, 0) and some(True, False):
        arrays["l1i_2m"] = arrays["l1i_4k"]
    walk_caches = {
        name: some(0, 1, 2, 3, 5, 17)
        for name in ("pd", "pdpt", "pml4", "pml5", "ept_pd", "ept_pdpt", "ept_pml4", "ept_pml5", "nested", "nested_pages")
    }
    data_caches = tuple(
        DataCacheGeometry(sets * ways * 64, ways, cycles)
        for sets, ways, cycles in ((1, some(2, 8), 4), (some(2, 4), some(3, 16), 14), (4, some(11, 20), 70))
    )
    return Geometry(
        arrays=arrays, shared={"stlb_2m": "stlb_4k", "l1i_2m": "l1i_4k"}, stlb_hash_bits=some(0, 1, 2),
        stlb_cycles=7, walk_cycles=9, reference_cycles=3,
        walk_caches=some(walk_caches, walk_caches, {}), data_caches=some((), data_caches, data_caches[:2]), memory_cycles=200,
        tree_plru=some(frozenset(), frozenset({"l1d_4k", "stlb_4k", "stlb_2m"}), frozenset((*arrays, *walk_caches))),
    )  # fmt: skip


class StructureWorld:
    """Tables in a walker's RAM, and a twin over a copy of them."""

    def __init__(self, walker: Walker, seed, geometry=None):
        self.walker, self.chance = walker, random.Random(seed)
        chance = self.chance
        self.mode = chance.choice(("4", "4", "5", "pae", "32"))
        self.geometry = random_geometry(chance) if geometry is None else geometry
        if isinstance(self.geometry, str):
            self.geometry = geometry_of(cpus.load(self.geometry))
        walker.ram[:], walker._next_frame = 0, RAM
        self.accessed_dirty = chance.random() < 0.5
        self.epts = [self._new_ept(number) for number in range(3)]
        self.glas = sorted({self._linear() for _ in range(chance.choice((12, 60)))})
        self.gpas = []
        self.global_gpas = {}  # of the global pages: the same in both spaces
        self.global_pages = {gla // size * size for gla, size in self.glas if chance.random() < 0.15}
        self.spaces = [self._new_space() for _ in range(2)]
        self._prepare()

    # ---- tables
    def _flags(self, base, *choices):
        for flag, probability in choices:
            base |= int(flag) if self.chance.random() < probability else 0
        return base

    def _ept_leaf(self):
        chance = self.chance
        kind = chance.choice((6, 6, 6, 6, 6, 0, 1, 4, 5))
        return self._flags(7 | kind << 3, (bits.EPT_A, 0.8), (bits.EPT_D, 0.6), (1 << 6, 0.1))

    def _new_ept(self, number):
        ept = self.walker.new_ept(self.chance.choice((4, 4, 5)))
        ept.number, ept.mapped, ept.far_size = number, set(), self.chance.choice((PAGE_4K, PAGE_2M, PAGE_1G))
        large = self.chance.random() < 0.3
        for gpa in range(0, RAM, PAGE_2M if large else PAGE_4K):
            hpa = gpa ^ number << 16 if gpa < DATA and not large else gpa
            ept.table_bits = self._flags(7, (bits.EPT_A, 0.8))
            ept.map(gpa, hpa, PAGE_2M if large else PAGE_4K, flags=self._ept_leaf())
        return ept

    def _map_far(self, gpa):
        """Have every EPT map the page around a guest-physical address above RAM."""
        for ept in self.epts:
            page = gpa // ept.far_size * ept.far_size
            if page not in ept.mapped:
                ept.mapped.add(page)
                ept.table_bits = self._flags(7, (bits.EPT_A, 0.8))
                ept.map(page, page + ept.number * EPT_SHIFT, ept.far_size, flags=self._ept_leaf())

    def _linear(self):
        """(address of a 4K page, size of the guest's page around it)"""
        chance = self.chance
        if self.mode in ("32", "pae"):
            large = {"32": 1 << 22, "pae": PAGE_2M}[self.mode]
            if chance.random() < 0.3:
                return (chance.choice((768, 769, 770)) << 22) + chance.randrange(large >> 12) * PAGE_4K, large
            return (chance.choice((0, 1, 300)) << 22) + chance.randrange(40) * PAGE_4K, PAGE_4K
        size = chance.choice((PAGE_4K, PAGE_4K, PAGE_4K, PAGE_2M, PAGE_1G))
        top = chance.choice((0, 1, 5)) << 39
        top |= chance.choice((0, 1)) << 48 if self.mode == "5" else 0
        if size == PAGE_4K:
            gla = chance.choice((0, 1)) << 30 | chance.choice((0, 1, 2, 100)) << 21 | chance.randrange(16) << 12
        elif size == PAGE_2M:
            gla = chance.choice((0, 1)) << 30 | chance.choice((200, 201, 202)) << 21 | chance.randrange(512) << 12
        else:
            gla = chance.choice((8, 9)) << 30 | chance.randrange(1 << 18) << 12
        gla |= top
        if chance.random() < 0.3:
            gla |= (1 << 64) - (1 << (56 if self.mode == "5" else 47))
        return gla, size

    def _new_space(self):
        """The root: CR3's address, or the PDPTEs."""
        walker = self.walker
        if self.mode == "32":
            tables = [ShortTables(walker)]
        else:
            levels, count = {"4": (4, 1), "5": (5, 1), "pae": (2, 4)}[self.mode]
            tables = [walker.new_guest_tables(None, levels) for _ in range(count)]
        mapped = set()
        for gla, size in self.glas:
            page = gla // size * size
            if page in mapped:
                continue
            mapped.add(page)
            own: Tables = tables[gla >> 30 & 3 if self.mode == "pae" else 0]
            own.table_bits = self._flags(7, (bits.A, 0.7), (1 << 3, 0.05), (1 << 4, 0.05))
            gpa = self.chance.randrange(DATA >> 12) << 12 if size == PAGE_4K else FAR + self.chance.randrange(3) * PAGE_1G
            if page in self.global_pages:
                gpa = self.global_gpas.setdefault(page, gpa)
            present = self.chance.random() < 0.95
            flags = self._flags(6 | present, (bits.A, 0.8), (bits.D, 0.6), (bits.G, page in self.global_pages))
            own.map(page, gpa, size, flags=flags)
            for other, _ in self.glas:
                if size != PAGE_4K and other // size * size == page:
                    self._map_far(gpa + other % size)
                    self.gpas.append(gpa + other % size)
        return [own.root for own in tables]

    # ---- the two processors
    def _prepare(self):
        m, walker, twin = self.walker.m, self.walker, Twin(bytearray(self.walker.ram.tobytes()), self.geometry)
        self.twin, twin.mode, twin.pcide = twin, self.mode, self.mode in ("4", "5")
        self.kept = install(m, self.geometry)
        walker.reset_counters()
        m.r.efer = bits.EFER_NXE | (bits.EFER_LMA if twin.pcide else 0)
        m.r.cr[0] = bits.CR0_PG | bits.CR0_WP
        m.r.cr[4] = bits.CR4_PGE | {
            "4": bits.CR4_PAE | bits.CR4_PCIDE, "5": bits.CR4_PAE | bits.CR4_PCIDE | bits.CR4_LA57,
            "pae": bits.CR4_PAE, "32": bits.CR4_PSE,
        }[self.mode]  # fmt: skip
        m.paging.ept_pointer = m.paging.vpid = m.walk.cycles_due = 0
        self._load_cr3(0, False)

    def _load_cr3(self, pcid, keep):
        m, roots = self.walker.m, self.spaces[pcid & 1]
        if self.mode == "pae":
            value = 0
            self.twin.pdpte = [root | 1 for root in roots]
            m.paging.pdpte0, m.paging.pdpte1, m.paging.pdpte2, m.paging.pdpte3 = self.twin.pdpte
        else:
            value = roots[0] | (pcid if self.twin.pcide else 0)
        keep = keep and self.twin.pcide
        self.twin.mov_cr3(value, keep)
        invalidate.on_cr3_write(m, int(m.r.cr[3]), value | (1 << 63 if keep else 0))
        m.r.cr[3] = value

    def event(self):
        """A switch of address spaces, or an invalidation."""
        chance, m, twin = self.chance, self.walker.m, self.twin
        what = chance.choice(("cr3", "cr3", "ept", "vpid", "invlpg", "invept", "invvpid", "paging", "caching", "all"))
        if what == "cr3":
            self._load_cr3(chance.choice(PCIDS), chance.random() < 0.7)
        elif what == "ept":
            ept = chance.choice((*self.epts, None))
            if ept or twin.mode != "off":
                eptp = ept.root | (ept.levels - 1) << 3 | 6 | (1 << 6 if self.accessed_dirty else 0) if ept else 0
                twin.eptp = m.paging.ept_pointer = eptp
        elif what == "vpid":
            twin.vpid = m.paging.vpid = chance.choice(VPIDS)
        elif what == "invlpg" and twin.mode != "off":
            gla, _ = chance.choice(self.glas)
            twin.invlpg(gla)
            invalidate.invlpg(m, gla)
        elif what == "invept":
            single = chance.random() < 0.5 and twin.eptp
            twin.invept(twin.eptp if single else None)
            invalidate.invept(m, 1 if single else 2, twin.eptp)
        elif what == "invvpid":
            vpid = chance.choice(VPIDS)
            twin.invvpid(vpid)
            invalidate.invvpid(m, 1, vpid, 0)
        elif what == "all" and chance.random() < 0.2:
            twin.invalidate_all()
            invalidate.invalidate_all(m)
        elif what == "paging" and twin.eptp:
            twin.mode = self.mode if twin.mode == "off" else "off"
            m.r.cr[0] = int(m.r.cr[0]) ^ int(bits.CR0_PG)
        elif what == "caching" and chance.random() < 0.2:
            twin.cache_disable = not twin.cache_disable
            m.r.cr[0] = int(m.r.cr[0]) ^ int(bits.CR0_CD)

    def block(self, length):
        """Translate some addresses in both: [(hpa, references, cycles)] of each; the batches that are as fast as it gets
        say the first of them only.
        """
        chance, twin = self.chance, self.twin
        access = chance.choice(("read", "read", "write", "fetch"))
        pool = [gla for gla, _ in self.glas] if twin.mode != "off" else [*range(0, DATA, PAGE_4K), *self.gpas]
        if chance.random() < 0.5:
            pool = chance.sample(pool, min(4, len(pool)))
        glas = [chance.choice(pool) + chance.randrange(PAGE_4K) for _ in range(length)]
        theirs = [twin.translate(gla, access) for gla in glas]
        if chance.random() < 0.4:
            hpas, outcomes = self.walker.translate_many(np.array(glas, np.uint64), ACCESSES[access])
            ours = [int(hpa) if outcome == 0 else None for hpa, outcome in zip(hpas, outcomes, strict=True)]
            return access, glas, ours, [hpa for hpa, _, _ in theirs]
        found = self.walker.translate_in_full(np.array(glas, np.uint64), ACCESSES[access])
        ours = [
            (int(hpa) if outcome == 0 else None, int(references), int(cycles))
            for hpa, outcome, references, cycles in zip(found.hpas, found.outcomes, found.references, found.cycles, strict=True)
        ]
        return access, glas, ours, theirs

    def counters(self):
        """Counters of the kernels, and those of the twin."""
        tlb, caches, twin = self.walker.m.tlb, self.walker.m.caches, self.twin
        ours = {
            "clock": int(tlb.clock), "stlb_hits": int(tlb.stlb_hits), "walks": int(tlb.walks), "faults": int(tlb.faults),
            "references": int(tlb.references), "cycles": int(tlb.walk_clock), "nested_hits": int(tlb.nested_hits),
            "table_hits": tlb.table_hits.numpy.tolist(), "ept_table_hits": tlb.ept_table_hits.numpy.tolist(),
            "cache_hits": [int(cache.hits) for cache in caches.level], "misses": int(caches.misses),
            "uncached": int(caches.uncached),
        }  # fmt: skip
        theirs = {
            "clock": twin.lookups, "stlb_hits": twin.stlb_hits, "walks": twin.walks, "faults": twin.faults,
            "references": twin.references, "cycles": twin.walk_cycles, "nested_hits": twin.nested_hits,
            "table_hits": twin.table_hits, "ept_table_hits": twin.ept_table_hits, "cache_hits": twin.data_caches.hits,
            "misses": twin.data_caches.misses, "uncached": twin.data_caches.uncached,
        }  # fmt: skip
        return ours, theirs
