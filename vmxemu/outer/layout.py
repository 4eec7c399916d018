"""VMM1's state."""

from vmxemu.layout import Layout, u64
from vmxemu.vmx.layout import Vmx


class Outer(Layout):
    """VMM1 as the native code sees it; its architectural structures live in the sequestered region of emulated memory."""

    up: u64
    level: u64  # 1 = VM1 runs, 2 = VM2 runs
    nested: Vmx
