"""Indices of `m.clock.cost`, cycles per event; the values come from the CPU profile's `[costs]` table in isa/cpus."""

import numpy as np

NAMES = (
    "vm_exit", "vm_entry", "vmread", "vmwrite", "vmx_instruction", "invept", "invvpid", "cpuid", "rdmsr", "wrmsr", "rdtsc", "hlt_wake", "io",
    "event_delivery", "interrupt", "smm_entry", "rsm", "machine_check", "cmci", "cr_write", "invlpg", "stlb_hit", "tlb_flush", "dr_access",
    "descriptor_table", "vmm1_dispatch", "vmm1_nested_merge", "vmm1_reflect", "vmm1_ept_fill", "page_copy", "mmio", "wbinvd", "pause",
)  # fmt: skip
INDEX = {name: number for number, name in enumerate(NAMES)}
(VM_EXIT, VM_ENTRY, VMREAD, VMWRITE, VMX_INSTRUCTION, INVEPT, INVVPID, CPUID, RDMSR, WRMSR, RDTSC, HLT_WAKE, IO, EVENT_DELIVERY, INTERRUPT, SMM_ENTRY, RSM,
 MACHINE_CHECK, CMCI, CR_WRITE, INVLPG, STLB_HIT, TLB_FLUSH, DR_ACCESS, DESCRIPTOR_TABLE, VMM1_DISPATCH, VMM1_NESTED_MERGE, VMM1_REFLECT, VMM1_EPT_FILL,
 PAGE_COPY, MMIO, WBINVD, PAUSE) = (np.uint64(number) for number in range(len(NAMES)))  # fmt: skip
