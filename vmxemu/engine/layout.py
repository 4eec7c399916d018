"""The engine's own state."""

from vmxemu.layout import Array, Layout, array, u64


class BlockCost(Layout):
    """What a translated block costs."""

    address: u64
    size: u64
    ticks: u64
    instructions: u64


class Engine(Layout):
    """Handles and flags between the kernels and Unicorn."""

    uc: u64
    capstone: u64
    flush: u64  # set by any room: forget all of Unicorn's cached translations before the guest goes on
    stop: u64  # set by any room: leave the run loop as soon as possible
    trap: u64  # pending trap number, all ones = none
    invalid_address: u64  # host address of uc_struct.invalid_addr
    retranslate: u64
    fill_failed: u64
    fill_outcome: u64
    world: u64  # 0: the world whose supervisor accesses use the first table, 1: the second
    owner0: u64
    owner1: u64
    owner_user: u64
    fills: u64
    block: Array[BlockCost] = array(1 << 15)
