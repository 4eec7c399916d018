"""SMM state."""

from vmxemu.layout import Layout, u64


class Smm(Layout):
    """What the processor keeps while in SMM besides the state-save area (SDM Vol. 3C, 'Default Treatment of SMIs and RSM')."""

    vmx_on: u64
    vmx_non_root: u64
    saved_ept_pointer: u64
    saved_vpid: u64
    entries: u64
