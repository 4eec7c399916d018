"""Starting the user's image in VM1: the stock firmware's last act is a VMCALL by which VMM1 resets VM1's processor.

The image then finds what it would find on the bare machine: a processor after RESET, at the reset vector of a ROM that ends at
4 GiB.
"""

from typing import TYPE_CHECKING

from vmxemu.cpu.flags import write_flags
from vmxemu.cpu.layout import CS, GDTR, IDTR, LDTR, RAX, RDX, TR
from vmxemu.cpu.mode import refresh_mode
from vmxemu.isa import bits
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.outer.guest_view import as_guest, as_host
from vmxemu.translation.invalidate import invept
from vmxemu.vmx.vmcs import Vmcs

if TYPE_CHECKING:
    from vmxemu.state import State

START_IMAGE = U(0x564D5831)
CR0_RESET = U(0x60000010)
PAT_RESET = U(0x0007_0406_0007_0406)
DATA_FLAGS, CODE_FLAGS, LDT_FLAGS, TSS_FLAGS = U(0x9300), U(0x9B00), U(0x8200), U(0x8B00)
SEGMENTS = U(10)
CPUID_SIGNATURE_LEAF = U(1)
ALL_CONTEXTS = U(2)


@kernel
def wants_image(m: "State") -> bool:
    """Whether this VMCALL of VM1 is the stock firmware's: once, before anybody in VM1 has turned VMX on."""
    outer = m.outer
    return m.memory.image_bytes != 0 and outer.image_started == 0 and outer.nested.on == 0 and m.r.gpr[RAX] == START_IMAGE


@kernel
def start_image(m: "State", v: Vmcs) -> None:
    """Give VM1's processor its state after RESET (SDM Vol. 3A, 'Processor State After Reset')."""
    m.outer.image_started = 1
    as_guest(m, v)
    for number in range(16):
        m.r.gpr[number] = 0
    m.r.gpr[RDX] = signature(m)
    for number in range(SEGMENTS):
        segment = m.r.seg[number]
        segment.selector = 0
        segment.base = 0
        segment.limit = 0xFFFF
        segment.flags = DATA_FLAGS
    m.r.seg[CS].selector = 0xF000
    m.r.seg[CS].base = 0xFFFF0000
    m.r.seg[CS].flags = CODE_FLAGS
    m.r.seg[LDTR].flags = LDT_FLAGS
    m.r.seg[TR].flags = TSS_FLAGS
    m.r.seg[GDTR].flags = 0
    m.r.seg[IDTR].flags = 0
    m.r.rip = 0xFFF0
    m.r.cr[0] = CR0_RESET | bits.CR0_NE
    m.r.cr[2] = 0
    m.r.cr[3] = 0
    m.r.cr[4] = bits.CR4_VMXE
    m.r.efer = 0
    m.r.pat = PAT_RESET
    m.paging.pkru = 0
    m.paging.pkrs = 0
    m.r.dr[6] = 0xFFFF0FF0
    m.r.dr[7] = 0x400
    write_flags(m, 2)
    refresh_mode(m)
    as_host(m, v)
    v.cr0_read_shadow = CR0_RESET
    v.cr4_read_shadow = 0
    m.outer.vmxe = 0
    m.outer.feature_control = 0
    invept(m, ALL_CONTEXTS, 0)


@kernel
def signature(m: "State") -> int:
    """CPUID.01H:EAX."""
    for number in range(m.cpu.cpuid_count):
        if m.cpu.cpuid[number].leaf == CPUID_SIGNATURE_LEAF:
            return m.cpu.cpuid[number].eax
    return 0
