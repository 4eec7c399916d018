"""The word that describes an event: VM-entry and VM-exit interruption information, IDT-vectoring information. SDM
Vol. 3C, 'VMCS'."""

from vmxemu.layout import u64 as U

(
    EXTERNAL_TYPE,
    RESERVED_TYPE,
    NMI_TYPE,
    HARDWARE_TYPE,
    SOFTWARE_TYPE,
    PRIVILEGED_TYPE,
    SOFTWARE_EXCEPTION_TYPE,
    OTHER_TYPE,
) = (U(i) for i in range(8))
INFO_ERROR_CODE = U(1 << 11)
INFO_NMI_UNBLOCKING = U(1 << 12)  # due to IRET; the same bit of exit qualifications
INFO_VALID = U(1 << 31)
INFO_RESERVED = U(0x7FFF_F000)  # of VM-entry interruption information
INFO_KEPT = U(0x8000_0FFF)  # of an event that becomes IDT-vectoring information

# Interruptibility state
STI_BLOCKING, MOV_SS_BLOCKING, SMI_BLOCKING, NMI_BLOCKING, ENCLAVE = U(1), U(2), U(4), U(8), U(16)
# Pending debug exceptions
PENDING_SINGLE_STEP = U(1 << 14)
PENDING_ENABLED = U(1 << 12)
