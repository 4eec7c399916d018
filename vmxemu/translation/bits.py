"""Bits of control registers and paging-structure entries. SDM Vol. 3A, 'Paging'; Vol. 3C, 'VMX Support for Address
Translation'.
"""

from vmxemu.layout import u64 as U

FRAME_MASK = U(0x000F_FFFF_FFFF_F000)  # physical address of a 4-KiB frame in any entry
ADDRESS_MASK = U(0x000F_FFFF_FFFF_FFFF)

CR0_PG = U(1 << 31)
CR0_CD = U(1 << 30)
CR0_WP = U(1 << 16)
CR3_NO_FLUSH = U(1 << 63)
CR4_PSE = U(1 << 4)
CR4_PAE = U(1 << 5)
CR4_PGE = U(1 << 7)
CR4_LA57 = U(1 << 12)
CR4_PCIDE = U(1 << 17)
CR4_SMEP = U(1 << 20)
CR4_SMAP = U(1 << 21)
CR4_PKE = U(1 << 22)
CR4_PKS = U(1 << 24)
EFER_LMA = U(1 << 10)
EFER_NXE = U(1 << 11)
RFLAGS_AC = U(1 << 18)
PCID_MASK = U(0xFFF)
MTRR_ENABLE, MTRR_FIXED_ENABLE = U(1 << 11), U(1 << 10)  # of IA32_MTRR_DEF_TYPE
MTRR_MASK_VALID = U(1 << 11)  # of a variable range's mask

# Guest paging-structure entries
P = U(1)
RW = U(1 << 1)
US = U(1 << 2)
A = U(1 << 5)
D = U(1 << 6)
PS = U(1 << 7)
G = U(1 << 8)
XD = U(1 << 63)
PDPTE_RESERVED = U(0x1E6)  # bits 2:1 and 8:5 of a PAE PDPTE

# Page-fault error code
PF_PRESENT, PF_WRITE, PF_USER, PF_RESERVED, PF_FETCH, PF_KEY, PF_SHADOW_STACK = (U(1 << i) for i in range(7))

# EPT entries and EPTP
EPT_READ, EPT_WRITE, EPT_EXECUTE = U(1), U(2), U(4)
EPT_LARGE = U(1 << 7)
EPT_A = U(1 << 8)
EPT_D = U(1 << 9)
EPT_USER_EXECUTE = U(1 << 10)
EPT_SUPERVISOR_SHADOW_STACK = U(1 << 60)
EPT_SUBPAGES = U(1 << 61)  # sub-page write permissions
EPTP_LENGTH = U(7 << 3)
EPTP_LENGTH_4 = U(3 << 3)
EPTP_AD = U(1 << 6)
EPTP_SHADOW_STACK = U(1 << 7)
EPT_VPID_CAP = U(0x48C - 0x480)  # index of IA32_VMX_EPT_VPID_CAP in m.cpu.vmx_msr
CAP_EXECUTE_ONLY = U(1 << 0)
CAP_2M = U(1 << 16)
CAP_1G = U(1 << 17)
CAP_ADVANCED_INFORMATION = U(1 << 22)

# Exit qualification of an EPT violation; bits 2:0 say the access, 5:3 what the walk permits
QUALIFICATION_USER_EXECUTE = U(1 << 6)
GLA_VALID = U(1 << 7)
IS_TRANSLATION = U(1 << 8)  # of the linear address itself, not of a guest paging-structure entry
USER_MODE_LINEAR = U(1 << 9)
READ_WRITE_LINEAR = U(1 << 10)
EXECUTE_DISABLE_LINEAR = U(1 << 11)
SHADOW_STACK_ACCESS = U(1 << 13)
SHADOW_STACK_PAGE = U(1 << 14)
SPP_MISS = U(1 << 11)  # of an SPP-related event
