"""The engine's own state."""


from vmxemu.layout import Array, Layout, array, pointer, u8, u16, u64
from vmxemu.layout import u64 as U

BLOCKS = U(1 << 15)
IO_SITES = U(1 << 12)
BLOCK_USES = U(1 << 17)
NO_TRAP = U(0xFFFFFFFFFFFFFFFF)
ANSWER_NONE, ANSWER_PAGE, ANSWER_REFUSE = U(0), U(1), U(2)


class BlockCost(Layout):
    """What a translated block costs."""

    linear: u64
    size: u64
    ticks: u64
    instructions: u64


class PageEntry(Layout):
    """Unicorn's cached translation of a page (CPUTLBEntry)."""

    read: u64  # the page's linear address, flags in the low bits, where reads are granted; all ones where not
    write: u64
    code: u64
    hpa: u64
    addend: u64  # host address minus linear address
    _pad: Array[u64] = array(3)


class PageBacking(Layout):
    """Which memory of Unicorn's is behind it (CPUIOTLBEntry)."""

    base: u64  # Unicorn's own address of the memory minus the linear address
    attributes: u64


class PageTable(Layout):
    """One of Unicorn's three softmmu TLBs, except what generated code looks at (CPUTLBDesc)."""

    large_page_address: u64
    large_page_mask: u64
    window_begin_ns: u64
    window_entries: u64
    used: u64  # entries in use: decides whether the next flush doubles the table
    next_victim: u64
    victims: Array[PageEntry] = array(8)
    victim_backing: Array[PageBacking] = array(8)
    backing: u64  # host address of a PageBacking per entry


class FastTable(Layout):
    """What generated code looks at (CPUTLBDescFast)."""

    mask: u64  # (number of entries - 1) * size of an entry
    entries: u64


class Softmmu(Layout):
    """Unicorn's softmmu TLBs (CPUTLB): user, supervisor with the tag, supervisor."""

    dirty: u16  # bit n: TLB n was filled since its latest flush
    _pad: Array[u16] = array(3)
    flushes: Array[u64] = array(3)
    tables: Array[PageTable] = array(3)
    _align: u64
    fast: Array[FastTable] = array(3)


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
    answer: u64  # ANSWER_*: what Unicorn's own fill is to be told
    answer_hpa: u64
    answer_granted: u64
    softmmu: Softmmu = pointer()
    low_backing: u64  # Unicorn's own address of RAM at 0, and of RAM at 4 GiB
    high_backing: u64
    system_access: u64  # the next supervisor access at CPL 3 is one of the processor's own (descriptor load)
    flush_at_block_end: u64
    stepping: u64  # one instruction runs as a single step: a store to a page with sub-page permissions; see machine.subpages
    subpage: u64  # linear addresses of its permitted stores, the latest two pages
    subpage_before: u64
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
