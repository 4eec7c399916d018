"""What a kernel returns instead of raising: an outcome, one unsigned 64-bit word. Zero is success.

Bits 7:0 kind, 15:8 vector or basic exit reason, 16 error code present, 63:32 error code or detail.
"""


from vmxemu.jit import kernel
from vmxemu.layout import u64 as U

DONE = U(0)  # completed; an emulated instruction has retired and RIP has moved on
FAULT = U(1)  # an exception: vector, error code; for #PF the linear address is in m.walk.gla
EPT_VIOLATION = U(2)  # m.walk holds qualification, gpa and gla
EPT_MISCONFIG = U(3)  # m.walk holds gpa
TRIPLE_FAULT = U(4)
POISON = U(5)  # the access would consume a poisoned line; m.walk.hpa holds its address
VM_EXIT = U(6)  # the instruction or event must cause a VM exit: basic reason in 15:8, qualification in m.exit.qualification
UNMODELLED = U(7)  # m.report says what
STOPPED = U(8)  # the run is over or Python is needed; m.report.reason says why
NOT_MINE = U(9)  # this room does not know the MSR, port or address; ask the next one
RETRY = U(10)  # state changed; execute the same instruction again
VMFAIL = U(11)  # VMX instruction failed: instruction error in 63:32 (0 = VMfailInvalid)
PML_FULL = U(12)  # a dirty flag is to be set and the page-modification log has no room; nothing was changed
SPP_EVENT = U(13)  # SPPT miss or misconfiguration; m.walk holds qualification, gpa and gla
RETIRED_FRAME = U(14)  # the frame at m.walk.hpa has been retired; told only where `m.tlb.watch_frames` asks for it


@kernel
def fault(vector: int) -> int:
    """A fault without error code."""
    return FAULT | vector << 8


@kernel
def fault_with(vector: int, error_code: int) -> int:
    """A fault with an error code."""
    return FAULT | vector << 8 | 1 << 16 | error_code << 32


@kernel
def vm_exit(reason: int) -> int:
    """A VM exit with this basic reason."""
    return VM_EXIT | reason << 8


@kernel
def vmfail(error: int) -> int:
    """A VMX instruction's failure; 0 is VMfailInvalid."""
    return VMFAIL | error << 32


@kernel
def kind_of(outcome: int) -> int:
    """The kind of an outcome."""
    return outcome & 0xFF


@kernel
def vector_of(outcome: int) -> int:
    """Vector of a fault, or basic reason of a VM exit."""
    return outcome >> 8 & 0xFF


@kernel
def has_error_code(outcome: int) -> bool:
    """Whether a fault carries an error code."""
    return (outcome >> 16 & 1) != 0


@kernel
def detail_of(outcome: int) -> int:
    """Error code of a fault, or VM-instruction error."""
    return outcome >> 32
