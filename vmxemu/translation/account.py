"""The account of one translation: what the walk depended on, what it read and in which order, and how it ended.

The kernels keep a journal while `m.walk.recording` is 1; here it becomes plain values that need no machine.
"""

from dataclasses import dataclass
from typing import Any

from vmxemu import outcome as outcomes
from vmxemu.cpu.layout import HF_CPL, HF_CS64
from vmxemu.isa import bits, paging
from vmxemu.translation import layout
from vmxemu.translation.bits import EPT_VPID_CAP
from vmxemu.translation.memory_type import memory_type
from vmxemu.translation.setting import has_walk_caches
from vmxemu.translation.translate import translate

GUEST, EPT, SPP, TLB, STLB, WALK_CACHE, NESTED_TLB, FLAGS, PML, EPT_CACHE = (
    int(kind)
    for kind in (
        layout.STEP_GUEST,
        layout.STEP_EPT,
        layout.STEP_SPP,
        layout.STEP_TLB,
        layout.STEP_STLB,
        layout.STEP_WALK_CACHE,
        layout.STEP_NESTED_TLB,
        layout.STEP_FLAGS,
        layout.STEP_PML,
        layout.STEP_EPT_WALK_CACHE,
    )
)
KIND_NAMES = {
    GUEST: "guest",
    EPT: "ept",
    SPP: "spp",
    TLB: "tlb",
    STLB: "stlb",
    WALK_CACHE: "walk-cache",
    NESTED_TLB: "nested-tlb",
    EPT_CACHE: "ept-walk-cache",
    FLAGS: "flags",
    PML: "pml",
}
PAGE = 0  # guest_level of what is done for the page itself
OFF, LEGACY, PAE, FOUR, FIVE = "off", "32-bit", "PAE", "4-level", "5-level"
GUEST_LEVELS = {OFF: 0, LEGACY: 2, PAE: 2, FOUR: 4, FIVE: 5}


@dataclass(frozen=True, slots=True)
class Reference:
    """One line of the journal; the fields are those of translation.layout.Step."""

    kind: int
    level: int = 0
    guest_level: int = 0
    gla: int = 0
    gpa: int = 0
    hpa: int = 0
    entry: int = 0
    cycles: int = 0


@dataclass(frozen=True, slots=True)
class Processor:
    """What a walk depends on. `mode` is one of OFF, LEGACY, PAE, FOUR, FIVE."""

    cr0: int = 0
    cr3: int = 0
    cr4: int = 0
    efer: int = 0
    cpl: int = 0
    ac: bool = False
    long_code: bool = True
    pat: int = 0
    pkru: int = 0
    pkrs: int = 0
    eptp: int = 0
    ept_extensions: int = 0
    ept_capabilities: int = 0
    pdptes: tuple[int, ...] = (0, 0, 0, 0)
    physical_bits: int = 46
    walk_caches: bool = False

    @property
    def mode(self) -> str:
        if not self.cr0 & int(bits.CR0_PG):
            return OFF
        if self.efer & int(bits.EFER_LMA):
            return FIVE if self.cr4 & int(bits.CR4_LA57) else FOUR
        return PAE if self.cr4 & int(bits.CR4_PAE) else LEGACY

    @property
    def guest_levels(self) -> int:
        """Levels of tables in memory; the four PDPTE registers of PAE paging are no table."""
        return GUEST_LEVELS[self.mode]

    @property
    def index_bits(self) -> int:
        """Address bits that an entry resolves."""
        return 10 if self.mode == LEGACY else 9

    @property
    def ept_levels(self) -> int:
        return paging.decode("EPTP", self.eptp)["LENGTH"] + 1 if self.eptp else 0

    def has(self, extension: int) -> bool:
        """Whether an EPT_* control of translation.layout is on."""
        return bool(self.ept_extensions & int(extension))

    @property
    def keyed(self) -> bool:
        """Whether protection keys count for user or for supervisor pages."""
        return self.mode in (FOUR, FIVE) and bool(self.cr4 & int(bits.CR4_PKE | bits.CR4_PKS))


@dataclass(frozen=True, slots=True)
class Account:
    """One translation. `outcome` is a word of vmxemu.outcome; the other results are those of `m.walk`."""

    gla: int
    access: int
    processor: Processor
    references: tuple[Reference, ...]
    outcome: int = 0
    gpa: int = 0
    hpa: int = 0
    page_bytes: int = 0
    qualification: int = 0
    count: int = 0
    cycles: int = 0
    word: int = 0
    convertible: bool = False
    memory_type: int | None = None

    @property
    def kind(self) -> int:
        """DONE, FAULT, EPT_VIOLATION and so on."""
        return self.outcome & 0xFF

    @property
    def vector(self) -> int:
        """Of a fault."""
        return self.outcome >> 8 & 0xFF

    @property
    def error_code(self) -> int:
        """Of a fault."""
        return self.outcome >> 32

    @property
    def is_page_fault(self) -> bool:
        return self.kind == int(outcomes.FAULT) and self.vector == 14

    @property
    def is_cut(self) -> bool:
        """Whether the journal may have had no room for all of it."""
        return len(self.references) >= int(layout.STEPS)

    @property
    def operation(self) -> int:
        """READ, WRITE or FETCH."""
        return self.access & 3

    @property
    def user(self) -> bool:
        """Whether this is a user-mode access."""
        return self.processor.cpl == 3 and not self.access & int(layout.IMPLICIT_SUPERVISOR)

    @property
    def shadow_stack(self) -> bool:
        return bool(self.access & int(layout.SHADOW_STACK))


def journal(m: Any) -> list[Reference]:
    """The lines that the latest translation left in `m.walk.steps`."""
    count = min(int(m.walk.step_count), int(layout.STEPS))
    return [
        Reference(*(int(getattr(m.walk.steps[number], name)) for name in Reference.__slots__)) for number in range(count)
    ]


def processor_of(m: Any) -> Processor:
    """The present state of the machine `m` as far as walks depend on it."""
    r, paging_state = m.r, m.paging
    return Processor(
        cr0=int(r.cr[0]),
        cr3=int(r.cr[3]),
        cr4=int(r.cr[4]),
        efer=int(r.efer),
        cpl=int(r.mode) & int(HF_CPL),
        ac=bool(int(r.eflags) & int(bits.RFLAGS_AC)),
        long_code=bool(int(r.mode) & int(HF_CS64)),
        pat=int(r.pat),
        pkru=int(paging_state.pkru),
        pkrs=int(paging_state.pkrs),
        eptp=int(paging_state.ept_pointer),
        ept_extensions=int(paging_state.ept_extensions),
        ept_capabilities=int(m.cpu.vmx_msr[int(EPT_VPID_CAP)]),
        pdptes=tuple(int(getattr(paging_state, f"pdpte{number}")) for number in range(4)),
        physical_bits=int(m.cpu.physical_bits),
        walk_caches=has_walk_caches(m),
    )


def account(m: Any, gla: int, access: int) -> Account:
    """Translate one address with the journal kept. Flags in the tables and cached translations change as they do by
    any translation.
    """
    processor = processor_of(m)
    m.walk.recording, m.walk.step_count = 1, 0
    try:
        outcome = int(translate(m, gla, access))
    finally:
        m.walk.recording = 0
    walk = m.walk
    return Account(
        gla=gla,
        access=access,
        processor=processor,
        references=tuple(journal(m)),
        outcome=outcome,
        gpa=int(walk.gpa),
        hpa=int(walk.hpa),
        page_bytes=int(walk.page_bytes),
        qualification=int(walk.qualification),
        count=int(walk.references),
        cycles=int(walk.cycles),
        word=int(walk.word),
        convertible=bool(walk.convertible),
        memory_type=int(memory_type(m)) if outcome == 0 else None,
    )
