"""State of the translation room: what the walks read, and where their results stand. The cached translations are in
tlb_layout.
"""

from vmxemu.layout import Array, Layout, array, u64
from vmxemu.layout import u64 as U

READ, WRITE, FETCH = U(0), U(1), U(2)  # access
IMPLICIT_SUPERVISOR = U(4)  # or-ed to the access: descriptor tables, TSS: supervisor whatever the CPL
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
