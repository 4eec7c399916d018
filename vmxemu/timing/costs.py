"""Indices of `m.clock.cost`, cycles per event. Each stands for one row of the CPU profile's `[costs]` table in isa/cpus."""

from vmxemu.layout import u64 as U

# Our index -> the profile's row.
ROWS = {
    "VM_EXIT": "vm_exit", "VM_ENTRY": "vm_entry", "VMREAD": "vmread", "VMWRITE": "vmwrite", "VMX_INSTRUCTION": "vmptrld", "INVEPT": "invept",
    "INVVPID": "invvpid", "CPUID": "cpuid", "RDMSR": "rdmsr", "WRMSR": "wrmsr", "RDTSC": "rdtsc", "HLT_WAKE": "hlt", "IO": "out",
    "EVENT_DELIVERY": "exception_delivery", "INTERRUPT": "interrupt_delivery", "SMM_ENTRY": "smm_entry", "RSM": "rsm",
    "MACHINE_CHECK": "machine_check_delivery", "CMCI": "cmci_delivery", "CR_WRITE": "mov_to_cr0", "INVLPG": "invlpg", "STLB_HIT": "tlb_stlb_hit",
    "TLB_FLUSH": "mov_to_cr3", "DR_ACCESS": "mov_to_dr", "DESCRIPTOR_TABLE": "lgdt", "VMM1_DISPATCH": "vmm1_dispatch",
    "VMM1_NESTED_MERGE": "vmm1_nested_merge", "VMM1_REFLECT": "vmm1_reflect", "VMM1_EPT_FILL": "vmm1_ept_fill", "PAGE_COPY": "copy_page_4k",
    "MMIO": "mmio_read", "WBINVD": "wbinvd", "PAUSE": "pause",
}  # fmt: skip
NAMES = tuple(ROWS)
(VM_EXIT, VM_ENTRY, VMREAD, VMWRITE, VMX_INSTRUCTION, INVEPT, INVVPID, CPUID, RDMSR, WRMSR, RDTSC, HLT_WAKE, IO, EVENT_DELIVERY, INTERRUPT, SMM_ENTRY, RSM,
 MACHINE_CHECK, CMCI, CR_WRITE, INVLPG, STLB_HIT, TLB_FLUSH, DR_ACCESS, DESCRIPTOR_TABLE, VMM1_DISPATCH, VMM1_NESTED_MERGE, VMM1_REFLECT, VMM1_EPT_FILL,
 PAGE_COPY, MMIO, WBINVD, PAUSE) = (U(number) for number in range(len(NAMES)))  # fmt: skip
