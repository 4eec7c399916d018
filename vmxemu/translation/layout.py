"""State of the translation room: what the walks read, and where their results stand. The cached translations are in
tlb_layout.
"""

from vmxemu.layout import Array, Layout, array, u64
from vmxemu.layout import u64 as U

READ, WRITE, FETCH = U(0), U(1), U(2)  # access
IMPLICIT_SUPERVISOR = U(4)  # or-ed to the access: descriptor tables, TSS: supervisor whatever the CPL
SHADOW_STACK = U(8)  # or-ed to READ or WRITE: an access to a shadow stack, of the CPL's privilege
PERMIT_READ, PERMIT_WRITE, PERMIT_EXECUTE = U(1), U(2), U(4)  # permissions


class Paging(Layout):
    """What a walk depends on besides CR0, CR3, CR4, EFER, CPL and AC, which it reads in `m.r`."""

    ept_pointer: u64  # EPTP in force, 0 = EPT off
    vpid: u64  # 0 = VMX root operation or VPID off
    pdpte0: u64  # PAE PDPTE registers
    pdpte1: u64
    pdpte2: u64
    pdpte3: u64
    no_1g_pages: u64  # CPUID.80000001H:EDX.Page1GB is 0: bit 7 of a guest PDPTE is reserved
    pkru: u64  # rights by protection key, two bits each: access disable, write disable. User pages
    pkrs: u64  # IA32_PKRS: the same for supervisor pages
    ept_extensions: u64  # EPT_MODE_BASED_EXECUTE and the like: VM-execution controls that change EPT walks
    spp_table: u64  # SPPTP
    pml_address: u64
    pml_index: u64  # 16 bits; the guest's PML index while its VMCS is in force
    ve_information: u64  # virtualization-exception information address
    eptp_index: u64


# Paging.ept_extensions
EPT_MODE_BASED_EXECUTE, EPT_SUBPAGE_WRITE, EPT_PAGE_MODIFICATION_LOG, EPT_CONVERT_TO_VE = U(1), U(2), U(4), U(8)


class Step(Layout):
    """One line of the journal of a translation: an entry that was read, or a cached translation that spared it."""

    kind: u64  # STEP_*
    level: u64  # of the entry: 1 = the last
    guest_level: u64  # of an EPT or SPPT entry: the guest's table that is looked for, 0 = the page itself
    gla: u64
    gpa: u64  # of the guest's entry; the address that the EPT walk translates
    hpa: u64  # where the entry stands; the frame that a cached translation gives
    entry: u64  # as it was read, or the word of a cached translation
    cycles: u64


(
    STEP_GUEST,
    STEP_EPT,
    STEP_SPP,
    STEP_TLB,
    STEP_STLB,
    STEP_WALK_CACHE,
    STEP_NESTED_TLB,
    STEP_FLAGS,
    STEP_PML,
    STEP_EPT_WALK_CACHE,
) = (U(i) for i in range(10))
STEPS = 224  # a 5-level by 5-level walk takes 35, with all flags and the log about 100; it may be made twice


class Walk(Layout):
    """Result of the latest translation."""

    gla: u64  # the linear address asked for
    gpa: u64  # guest-physical address; of the table entry where an EPT violation stopped the walk of the guest's tables
    hpa: u64
    page_bytes: u64  # size of the smallest page on the way (guest page and EPT page)
    permissions: (
        u64  # PERMIT_* that a cache may keep for this privilege; WRITE only where the dirty flags are already set
    )
    qualification: u64  # of an EPT violation
    references: u64  # table entries read: 0 for a TLB hit
    cycles: u64  # cost of this translation
    value: u64  # read_linear's result
    cycles_due: u64  # cost of all translations since the caller last took it: charge it and write 0
    entry_gpa: Array[u64] = array(8)  # where the walk found the guest's entries, by level
    entry_hpa: Array[u64] = array(8)
    word: u64  # of a success: frame, rights, page sizes, memory type and key (translation.rights)
    convertible: u64  # of an EPT violation: the entry that caused it lets it become a virtualization exception
    frame_state: u64  # memory.layout's state of the frame, where `m.tlb.watch_frames` asks for it
    memory_cycles: u64  # cost of the references where `m.caches.on`
    recording: u64  # 1 = keep the journal
    step_count: u64
    steps: Array[Step] = array(STEPS)
