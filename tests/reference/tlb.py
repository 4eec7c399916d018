"""The structure of translation caches, slow and obvious: sets, ways, replacement, tags, and what a look-up keeps.

It shares nothing with the kernels. tests.reference.walk_structure walks, and says what walks cost.
"""

from dataclasses import dataclass

from tests.reference.translation_memory_types import UC, WC

SIZES = {"4k": 1 << 12, "2m": 1 << 21, "1g": 1 << 30}


class Lru:
    """The ways in the order in which they were used, the latest one last."""

    def __init__(self, ways):
        self.order = list(range(ways))

    def use(self, way):
        self.order.remove(way)
        self.order.append(way)

    def victim(self):
        return self.order[0]


class TreePlru:
    """A binary tree over 64 places, of which the first `ways` exist; each node knows which half was used longer ago."""

    def __init__(self, ways):
        self.ways, self.right_is_older = ways, {}

    def use(self, way):
        first, size = 0, 64
        while size > 1:
            size //= 2
            self.right_is_older[first, size] = way < first + size
            if way >= first + size:
                first += size

    def victim(self):
        first, size = 0, 64
        while size > 1:
            size //= 2
            if first + size < self.ways and self.right_is_older.get((first, size)):
                first += size
        return first


@dataclass
class Entry:
    """`page`: the address's upper bits from the page size on. Of a guest-physical translation `vpid` is None, of one
    without EPT `ep4ta` is. `guest_bytes`: size of the guest's page, of which this may be a part.
    """

    page: int
    size: int
    pcid: int
    vpid: object
    ep4ta: object
    is_global: bool
    value: object
    guest_bytes: int = 0

    def fits(self, page, size, pcid, vpid, ep4ta):
        if (self.page, self.size, self.vpid, self.ep4ta) != (page, size, vpid, ep4ta):
            return False
        return self.is_global or self.pcid == pcid


class Store:
    """Entries in sets of ways. Stores that share their entries share `sets`."""

    def __init__(self, entries, ways, replacement, hash_bits=0):
        self.sets = [[None] * ways for _ in range(entries // ways)]
        self.order = [replacement(ways) for _ in self.sets]
        self.hash_bits = hash_bits

    def set_of(self, page):
        if self.hash_bits:
            page ^= page >> self.hash_bits
        return page % len(self.sets)

    def find(self, page, *rest):
        """(set, way) of an entry, or None."""
        number = self.set_of(page)
        for way, entry in enumerate(self.sets[number]):
            if entry and entry.fits(page, *rest):
                return number, way
        return None

    def use(self, place):
        self.order[place[0]].use(place[1])

    def at(self, place):
        return self.sets[place[0]][place[1]]

    def drop_at(self, place):
        self.sets[place[0]][place[1]] = None

    def put(self, entry):
        """Into an invalid way, else the victim's. What stood there under the same key is replaced."""
        same = self.find(entry.page, entry.size, entry.pcid, entry.vpid, entry.ep4ta)
        if same:
            self.drop_at(same)
        number = self.set_of(entry.page)
        ways = self.sets[number]
        way = ways.index(None) if None in ways else self.order[number].victim()
        ways[way] = entry
        self.order[number].use(way)

    def drop(self, condition):
        for ways in self.sets:
            for way, entry in enumerate(ways):
                if entry and condition(entry):
                    ways[way] = None


class Group:
    """The arrays of one level, by page size. A page larger than any of them holds is kept as a part of it."""

    def __init__(self, stores):
        self.stores = stores  # page size -> Store

    def find(self, address, *key):
        """(store, place), or None."""
        for size, store in self.stores.items():
            place = store.find(address // size, size, *key)
            if place:
                return store, place
        return None

    def put(self, address, hpa, size, tag, is_global, dirty, guest_bytes):
        held = [own for own in self.stores if own <= size]
        if held:
            own = max(held)
            frame = hpa - address % own
            self.stores[own].put(Entry(address // own, own, *tag, is_global, (frame, dirty), guest_bytes))


def replacement_of(geometry, name):
    return TreePlru if name in geometry.tree_plru else Lru


def stores_of(geometry, group):
    """The stores of a group of vmxemu.translation.geometry.Geometry, which is read as data."""
    made = {}
    for name, size in SIZES.items():
        array = f"{group}_{name}"
        entries, ways = geometry.arrays.get(array, (0, 0))
        if entries:
            hash_bits = geometry.stlb_hash_bits if array in ("stlb_4k", "stlb_2m") else 0
            made[size] = Store(entries, ways, replacement_of(geometry, array), hash_bits)
    for name, size in SIZES.items():
        owner = geometry.shared.get(f"{group}_{name}")
        if owner and size in made and geometry.arrays[owner] == geometry.arrays[f"{group}_{name}"]:
            made[size] = made[SIZES[owner.split("_")[1]]]
    return made


class DataCaches:
    """Set-associative, LRU; a line that is found nowhere, or further out, is put into each cache on the way."""

    def __init__(self, geometry):
        self.memory_cycles, self.hits, self.misses, self.uncached = geometry.memory_cycles, [0, 0, 0], 0, 0
        self.caches = []
        for cache in geometry.data_caches:
            ways = cache.ways
            while ways > 16:
                ways = -(-ways // 2)  # a set of more than 16 ways is taken for two of half as many
            sets = cache.size_bytes // ways // 64
            while sets & (sets - 1):
                sets -= 1
            self.caches.append((cache.cycles, ways, [[] for _ in range(sets)]))

    def load(self, address, kind):
        if kind in (UC, WC):
            self.uncached += 1
            return self.memory_cycles
        line = address // 64
        for number, (cycles, ways, sets) in enumerate(self.caches):
            lines = sets[line % len(sets)]
            found = line in lines
            if found:
                lines.remove(line)
            lines.insert(0, line)
            del lines[ways:]
            if found:
                self.hits[number] += 1
                return cycles
        self.misses += 1
        return self.memory_cycles
