"""The engine's own state."""


from vmxemu.layout import Array, Layout, array, u8, u64
from vmxemu.layout import u64 as U

BLOCKS = U(1 << 15)
IO_SITES = U(1 << 12)
BLOCK_USES = U(1 << 17)
NO_TRAP = U(0xFFFFFFFFFFFFFFFF)


class BlockCost(Layout):
    """What a translated block costs."""

    linear: u64
    size: u64
    ticks: u64
    instructions: u64


class Engine(Layout):
    """Handles and flags between the kernels and Unicorn."""

    uc: u64
    flush: u64  # set by any room: forget all of Unicorn's cached translations before the guest goes on
    stop: u64  # set by any room: go back to Python as soon as possible
    trap: u64  # trap that the run loop has to handle, NO_TRAP = none
    invalid_address: u64  # host address of uc_struct.invalid_addr
    retranslate: u64  # a block with an I/O instruction was translated before its site was known
    retranslate_hpa: u64
    retranslate_bytes: u64
    fill_access: u64  # access type of the fill that failed
    fill_failed: u64
    system_access: u64  # the next supervisor access at CPL 3 is one of the processor's own (descriptor load)
    flush_at_block_end: u64
    drop_all_code: u64  # a retired frame held code: forget every translated block
    trap_may_raise: u64  # the trap in hand may have made an event pending
    world: u64  # identity of the address space that runs now
    owner0: u64  # which world filled each of Unicorn's three TLBs: supervisor, supervisor with the tag, user
    owner1: u64
    owner_user: u64
    fills: u64
    flushes: u64
    traps: u64
    capstone16: u64
    capstone32: u64
    capstone64: u64
    capstone_insn: u64
    mnemonic_ticks: u64  # host address: ticks by Capstone instruction number
    code_buffer: u64  # host address of 8 KiB for looking at code
    window_open: u64  # the engine itself is using its window to physical memory; see engine.coherence
    io_callback: u64
    state_address: u64
    io_site_count: u64
    io_sites: Array[u64] = array(int(IO_SITES))  # linear addresses, open addressing, 0 = free
    hook_handle: u64
    block: Array[BlockCost] = array(int(BLOCKS))
    scratch: Array[u64] = array(8)
    tlb_windows: Array[u64] = array(3)  # host addresses of CPUTLBDesc.window_begin_ns of Unicorn's three TLBs
    previous_block: u64  # 0: Unicorn knows no previous block (first one, or dropped) and will not report the next translation
    current_block: u64  # linear address of the block that runs
    block_uses: Array[u8] = array(int(BLOCK_USES))  # see engine.code.block_may
