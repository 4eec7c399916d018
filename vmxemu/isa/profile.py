"""What a CPU profile holds, as types. The data are in isa/cpus/*.toml; `cpus.load` reads them."""

from dataclasses import dataclass

CpuidLeaf = tuple[int, int, int, int, int, int]  # leaf, subleaf, eax, ebx, ecx, edx


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the processor says it is. Address widths in bits, frequencies in Hz."""

    vendor: str
    family: int
    model: int
    stepping: int
    brand: str
    microcode_revision: int
    physical_bits: int
    linear_bits: int
    tsc_hz: int
    crystal_hz: int
    max_basic_leaf: int
    leaf_2: list[int]

    @property
    def signature(self) -> int:
        """CPUID.01H:EAX."""
        extended_family = max(self.family - 0xF, 0)
        family = min(self.family, 0xF)
        return extended_family << 20 | (self.model >> 4) << 16 | family << 8 | (self.model & 0xF) << 4 | self.stepping


@dataclass(frozen=True, slots=True)
class FeatureList:
    """The CPUID feature flags that are 1; names of cpuid_features.csv."""

    features: list[str]


@dataclass(frozen=True, slots=True)
class VmxCapabilities:
    """What the VMX capability MSRs report; names are those of vmx_capabilities.csv and controls.csv."""

    revision_id: int
    vmcs_bytes: int
    memory_type: int
    preemption_timer_shift: int
    cr3_targets: int
    msr_list_512s: int
    mseg_revision_id: int
    basic: list[str]
    misc: list[str]
    ept_vpid: list[str]
    controls: dict[str, list[str]]

    @property
    def control_names(self) -> frozenset[str]:
        return frozenset(name for names in self.controls.values() for name in names)


@dataclass(frozen=True, slots=True)
class MachineCheck:
    """Number of error-reporting banks and the IA32_MCG_CAP flags (names of mca_registers.csv)."""

    banks: int
    capabilities: list[str]


@dataclass(frozen=True, slots=True)
class Cache:
    """One cache level; latency is load-to-use."""

    bytes: int
    ways: int
    line_bytes: int
    latency_cycles: int
    source: str

    @property
    def sets(self) -> int:
        return self.bytes // (self.ways * self.line_bytes)


@dataclass(frozen=True, slots=True)
class MemoryLatency:
    """Load-to-use latency of an access that misses every cache."""

    latency_cycles: int
    source: str


@dataclass(frozen=True, slots=True)
class TlbGeometry:
    """One TLB. `hash`: none, or xor7 (index bits 6:0 exclusive-or the next seven)."""

    entries: int
    ways: int
    page_sizes: list[str]
    hash: str
    replacement: str
    source: str

    @property
    def sets(self) -> int:
        return self.entries // self.ways


@dataclass(frozen=True, slots=True)
class WalkCache:
    """One fully associative paging-structure cache; 0 entries where there is none."""

    entries: int
    source: str


@dataclass(frozen=True, slots=True)
class Cost:
    """Cycles of one system event, and who says so."""

    cycles: int
    source: str
