"""The native trace buffer."""

from vmxemu.layout import Array, Layout, array, u8, u16, u32, u64

CAPACITY = 1 << 16


class Event(Layout):
    """One trace event; `trace.events` gives the meaning of a, b, c, d for each kind."""

    cycle: u64
    rip: u64
    kind: u16
    level: u8  # 0 = VMX root or no VMX, 1 = L1, 2 = L2, 3 = SMM
    flags: u8
    reason: u32
    a: u64
    b: u64
    c: u64
    d: u64


class Trace(Layout):
    """Events since Python last drained the buffer, and the ring of the latest ones."""

    enabled: u64
    count: u64
    lost: u64
    total: u64
    events: Array[Event] = array(CAPACITY)
