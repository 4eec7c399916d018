"""Virtual time."""

from vmxemu.layout import Array, Layout, array, u64
from vmxemu.layout import u64 as U

ATTENTION = U(1)  # look where interrupts are enabled
AFTER_SHADOW = U(2)  # look at the first block boundary without an interrupt shadow, whatever RFLAGS.IF


class Clock(Layout):
    """Time is counted in ticks, sixteenths of a cycle, so that cheap instructions can cost less than a cycle."""

    ticks: u64
    deadline: u64  # the block hook looks closer from this tick on; 0 = at every block
    attention: u64  # a pending event waits for a window: look at every block boundary
    instructions: u64
    blocks: u64
    slice_end: u64  # ticks at which Python wants to be called
    limit: u64  # ticks of --max-cycles
    next_stop: u64  # ticks at which the run loop wants to be called
    cost: Array[u64] = array(64)  # cycles per event, indexed by timing.costs
