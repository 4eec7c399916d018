"""State of the translation room: what the walks read, where their results stand, and the cached translations."""

import numpy as np

from vmxemu.layout import Layout, u64

U = np.uint64
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


class Walk(Layout):
    """Result of the latest translation."""

    gla: u64  # the linear address asked for
    gpa: u64
    hpa: u64
    page_bytes: u64  # size of the smallest page on the way (guest page and EPT page)
    permissions: u64  # PERMIT_* that a cache may keep for this privilege; WRITE only where the dirty flags are already set
    qualification: u64  # of an EPT violation
    references: u64
    cycles: u64
    value: u64  # read_linear's result
