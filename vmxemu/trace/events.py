"""The kinds of trace events and what their fields mean. One table serves the kernels, the reader and the documentation."""

from dataclasses import dataclass

from vmxemu.layout import u64 as U


@dataclass(frozen=True)
class Kind:
    """One kind of event: `reason` and a..d are the names of its fields, empty where unused."""

    number: int
    name: str
    reason: str
    a: str = ""
    b: str = ""
    c: str = ""
    d: str = ""


KINDS = (
    Kind(1, "VM_ENTRY", "", "vmcs", "interruption_info", "", ""),
    Kind(2, "VM_EXIT", "exit_reason", "qualification", "guest_physical", "interruption_info", "instruction_length"),
    Kind(3, "EVENT", "vector", "error_code", "delivery_type", "", ""),  # delivered through IVT or IDT
    Kind(4, "SMM_ENTER", "cause", "smbase", "virtual", "", ""),  # virtual = 1: VM1's own SMM, emulated by VMM1
    Kind(5, "SMM_LEAVE", "", "smbase", "virtual", "", ""),
    Kind(6, "PHASE", "phase", "", "", "", ""),  # vmxemu.trace.events.PHASES
    Kind(7, "ARRIVAL", "management_kind", "serial", "address", "detail", "level"),  # a management interrupt reaches the processor
    Kind(8, "DECISION", "rule", "serial", "management_kind", "owner", "action"),  # VMM1's decision on it
    Kind(9, "DELIVERY", "management_kind", "serial", "address", "deferred", ""),  # handed to VMM2
    Kind(10, "MIGRATION", "status", "gpa", "old_hpa", "new_hpa", "cycles"),
    Kind(11, "INVALIDATION", "what", "root", "first", "bytes", ""),
    Kind(12, "INJECT", "inject_kind", "hpa", "bank", "severity", "serial"),  # an error or event is put in from outside
    Kind(13, "NESTED", "instruction", "result", "operand", "", ""),  # VMM1 emulated a VMX instruction of VMM2
    Kind(14, "REFLECT", "exit_reason", "qualification", "guest_physical", "interruption_info", ""),  # an L2 exit given to VMM2
    Kind(15, "EPT02", "what", "gpa2", "gpa1", "hpa", "bytes"),
    Kind(16, "STOP", "reason", "address", "value", "", ""),
    Kind(17, "REFUSED", "what", "value", "", "", ""),  # asking for VMM1 after the boot phase, unhooking the trap, ...
    Kind(18, "FRAME", "state", "hpa", "", "", ""),  # a frame changed its state
    Kind(20, "FORBIDDEN", "state", "hpa", "gpa", "gla", ""),  # a virtual machine reached a retired or sequestered frame
    Kind(21, "STALE_USE", "stale_change", "gla", "stale_source", "cached_hpa", "cycle_cached"),  # the first of its kind
    Kind(19, "BYPASS", "management_kind", "serial", "", "", ""),  # a management interrupt was handled with no VMM1 in between
)

BY_NUMBER = {kind.number: kind for kind in KINDS}

(
    VM_ENTRY,
    VM_EXIT,
    EVENT,
    SMM_ENTER,
    SMM_LEAVE,
    PHASE,
    ARRIVAL,
    DECISION,
    DELIVERY,
    MIGRATION,
    INVALIDATION,
    INJECT,
    NESTED,
    REFLECT,
    EPT02,
    STOP,
    REFUSED,
    FRAME,
    FORBIDDEN,
    STALE_USE,
    BYPASS,
) = (U(kind.number) for kind in KINDS)

PHASES = {1: "reset", 2: "VMM1 up", 3: "end of boot phase", 4: "VMM2 in VMX operation", 5: "VM2 first launch"}
PHASE_RESET, PHASE_VMM1_UP, PHASE_RUN_TIME, PHASE_VMM2_VMXON, PHASE_VM2_LAUNCH = (U(number) for number in PHASES)

MANAGEMENT = {1: "SMI", 2: "#MC", 3: "CMCI", 4: "NMI", 5: "PMI"}
SMI, MC, CMCI, NMI, PMI = (U(number) for number in MANAGEMENT)

OWNERS = {0: "none", 1: "VMM1", 2: "VMM2", 3: "both", 4: "unknown"}
INJECTIONS = {1: "ce", 2: "srao", 3: "ue", 4: "smi", 5: "nmi", 6: "pmi", 7: "fatal"}
MIGRATION_STATUS = {
    0: "done",
    1: "already retired",
    2: "pool exhausted",
    3: "not VM1's memory",
    4: "source poisoned",
    5: "no table page",
}
FRAME_STATES = {0: "healthy", 1: "failing", 2: "poisoned", 3: "retired", 4: "reserved-free", 5: "mapped on behalf", 6: "VMM1's own"}
ACTIONS = {0: "ignore", 1: "deliver", 2: "count", 3: "migrate", 4: "contain", 5: "firmware-smm", 6: "log", 7: "fatal"}
