"""CPUID leaves of a profile. SDM Vol. 2A, 'CPUID'. One package, one core, one thread; APIC id 0."""

from dataclasses import dataclass

from vmxemu.isa import data
from vmxemu.isa.profile import Cache, CpuidLeaf, Identity, TlbGeometry

REGISTERS = ("eax", "ebx", "ecx", "edx")
PAGE_SIZE_BITS = {"4K": 1, "2M": 2, "4M": 4, "1G": 8}
MAX_EXTENDED_LEAF = 0x80000008

Values = dict[tuple[int, int], list[int]]


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature flag."""

    leaf: int
    subleaf: int
    register: str
    bit: int
    name: str
    sdm: str


FEATURES: tuple[Feature, ...] = tuple(
    Feature(
        data.number(row["leaf"]),
        data.number(row["subleaf"]),
        row["register"],
        data.number(row["bit"]),
        row["name"],
        row["sdm"],
    )
    for row in data.table("cpuid_features")
)
FEATURE_NAMES: frozenset[str] = frozenset(feature.name for feature in FEATURES)


def _words(text: str) -> list[int]:
    raw = text.encode("ascii")
    return [int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), 4)]


def _identify(values: Values, identity: Identity) -> None:
    ebx, edx, ecx = _words(identity.vendor)
    values[0, 0] = [identity.max_basic_leaf, ebx, ecx, edx]
    # EBX: CLFLUSH line in quadwords, one logical processor. The APIC id (31:24) belongs to the platform.
    values[1, 0] = [identity.signature, 1 << 16 | 8 << 8, 0, 0]
    values[2, 0] = list(identity.leaf_2)
    values[0x80000000, 0] = [MAX_EXTENDED_LEAF, 0, 0, 0]
    brand = _words(identity.brand.ljust(48, "\0"))
    for part in range(3):
        values[0x80000002 + part, 0] = brand[4 * part : 4 * part + 4]
    values[0x80000008, 0] = [identity.physical_bits | identity.linear_bits << 8, 0, 0, 0]


def _clock(values: Values, identity: Identity) -> None:
    mhz = identity.tsc_hz // 1_000_000
    values[0x15, 0] = [2, 2 * identity.tsc_hz // identity.crystal_hz, identity.crystal_hz, 0]
    values[0x16, 0] = [mhz, mhz, 100, 0]


def _caches(values: Values, caches: dict[str, Cache]) -> None:
    kinds = {"l1d": (1, 1), "l1i": (2, 1), "l2": (3, 2), "l3": (3, 3)}  # type, level
    for subleaf, (name, (kind, level)) in enumerate(kinds.items()):
        cache = caches[name]
        shape = (cache.ways - 1) << 22 | (cache.line_bytes - 1)
        values[4, subleaf] = [kind | level << 5 | 1 << 8, shape, cache.sets - 1, 0]
    values[4, len(kinds)] = [0, 0, 0, 0]
    l2 = caches["l2"]
    associativity = {1: 1, 2: 2, 4: 4, 8: 6, 16: 8}.get(l2.ways, 7)  # 7: see leaf 4
    values[0x80000006, 0] = [0, 0, l2.bytes // 1024 << 16 | associativity << 12 | l2.line_bytes, 0]


def _tlbs(values: Values, tlb: dict[str, TlbGeometry]) -> None:
    """Leaf 18H, 'Deterministic Address Translation Parameters'."""
    subleaf = 0
    for name, geometry in tlb.items():
        subleaf += 1
        kind = 2 if name.startswith("itlb") or name.endswith("code") else 3 if name.startswith("stlb") else 1
        level = 2 if name.startswith("stlb") else 1
        pages = sum(PAGE_SIZE_BITS[size] for size in geometry.page_sizes)
        full = int(geometry.sets == 1) << 8
        values[0x18, subleaf] = [0, geometry.ways << 16 | pages, geometry.sets, kind | level << 5 | full]
    values[0x18, 0] = [subleaf, 0, 0, 0]


def _topology(values: Values) -> None:
    values[5, 0] = [64, 64, 3, 0x20]  # MONITOR line bytes; interrupts break MWAIT; one C1 sub-state
    values[0xB, 0] = [0, 1, 1 << 8, 0]  # thread level
    values[0xB, 1] = [0, 1, 2 << 8 | 1, 0]  # core level
    values[0xB, 2] = [0, 0, 2, 0]


def leaves(
    identity: Identity, features: frozenset[str], caches: dict[str, Cache], tlb: dict[str, TlbGeometry]
) -> list[CpuidLeaf]:
    """All leaves in order. Bits that follow CR4 (OSXSAVE, OSPKE) and IA32_APIC_BASE are the caller's to fill in."""
    values: Values = {(leaf, 0): [0, 0, 0, 0] for leaf in range(identity.max_basic_leaf + 1)}
    values |= {(leaf, 0): [0, 0, 0, 0] for leaf in range(0x80000000, MAX_EXTENDED_LEAF + 1)}
    _identify(values, identity)
    _clock(values, identity)
    _caches(values, caches)
    _topology(values)
    if identity.max_basic_leaf >= 0x18:
        _tlbs(values, tlb)
    for feature in FEATURES:
        if feature.name in features:
            leaf = values.setdefault((feature.leaf, feature.subleaf), [0, 0, 0, 0])
            leaf[REGISTERS.index(feature.register)] |= 1 << feature.bit
    return [(leaf, subleaf, *values[leaf, subleaf]) for leaf, subleaf in sorted(values)]  # type: ignore[misc]
