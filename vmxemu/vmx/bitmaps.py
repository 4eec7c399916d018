"""The I/O and MSR bitmaps. SDM Vol. 3C, 'I/O-Bitmap Addresses', 'MSR-Bitmap Address'. Host addresses, so that any
VMCS's will do."""

from typing import TYPE_CHECKING

from vmxemu.isa import controls
from vmxemu.jit import kernel, load8
from vmxemu.layout import u64 as U

if TYPE_CHECKING:
    from vmxemu.vmx.vmcs import Vmcs

WRITE_BITMAPS = U(2048)  # byte offset of the bitmaps for WRMSR
HIGH_BITMAP = U(1024)  # byte offset of the bitmap for C0000000H..C0001FFFH
MSRS_PER_BITMAP = U(0x2000)
HIGH_MSRS = U(0xC000_0000)
PORTS_PER_BITMAP = U(0x8000)


@kernel
def io_exits(v: "Vmcs", bitmap_a: int, bitmap_b: int, port: int, size: int) -> bool:
    """Whether these controls make an access of `size` bytes at `port` exit. A bitmap whose host address is 0 reads as
    all ones."""
    primary = v.cpu_based_vm_exec_control
    if primary & controls.CPU_IO_BITMAPS == 0:
        return primary & controls.CPU_UNCONDITIONAL_IO != 0
    if port + size > 0x10000:
        return True
    for number in range(size):
        at = port + number
        host = bitmap_a if at < PORTS_PER_BITMAP else bitmap_b
        if host == 0 or load8(host + (at >> 3 & 0xFFF)) >> (at & 7) & 1 != 0:
            return True
    return False


@kernel
def msr_exits(v: "Vmcs", bitmap: int, index: int, is_write: int) -> bool:
    """Whether these controls make RDMSR or WRMSR of `index` exit."""
    if v.cpu_based_vm_exec_control & controls.CPU_MSR_BITMAPS == 0 or bitmap == 0:
        return True
    at = bitmap + (WRITE_BITMAPS if is_write != 0 else 0)
    if index >= HIGH_MSRS:
        index = index - HIGH_MSRS
        at = at + HIGH_BITMAP
    if index >= MSRS_PER_BITMAP:
        return True
    return load8(at + (index >> 3)) >> (index & 7) & 1 != 0
