"""SMM state."""

from vmxemu.layout import Array, Layout, array, u8, u64

AREA_BYTES = 0x400


class Smm(Layout):
    """What the processor keeps while in SMM besides the state-save area. SDM Vol. 3C, 'Default Treatment of RSM'."""

    vmx_on: u64
    vmx_non_root: u64
    saved_ept_pointer: u64
    saved_ept_extensions: u64
    saved_vpid: u64
    entries: u64
    saved_unrestricted: u64
    io_misc: u64  # of the I/O instruction that raises the coming SMI, in the format of the save area's field; 0 = none
    io_memory_address: u64
    io_rip: u64
    area: Array[u8] = array(AREA_BYTES)  # the state-save area on its way to and from SMRAM
