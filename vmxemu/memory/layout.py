"""The physical map and the states of its frames."""


from vmxemu.layout import Layout, fixed, u64
from vmxemu.layout import u64 as U

# Frame states, one byte per 4-KiB frame of RAM
HEALTHY, FAILING, POISONED, RETIRED, RESERVED_FREE, MAPPED_ON_BEHALF, VMM1_OWN = (U(i) for i in range(7))
HOLDS_CODE = U(0x80)  # or-ed to the state: Unicorn may have translated code of this frame


class Memory(Layout):
    """RAM is [0, low_bytes) and [4 GiB, 4 GiB + high_bytes), one host mapping; ROM ends at 4 GiB."""

    ram: u64 = fixed()  # host address of RAM
    low_bytes: u64 = fixed()
    high_bytes: u64 = fixed()
    rom: u64 = fixed()  # host address of ROM
    rom_base: u64 = fixed()
    rom_bytes: u64 = fixed()
    frames: u64 = fixed()  # host address of the frame-state bytes
    frame_count: u64 = fixed()
    tseg_base: u64 = fixed()
    tseg_bytes: u64 = fixed()
    smram_locked: u64
    smram_open: u64
    sequestered_base: u64 = fixed()
    sequestered_bytes: u64 = fixed()
    poison_lines: u64 = fixed()  # host address of the list of poisoned 64-byte lines' addresses
    poison_count: u64
    code_written: u64  # set when a frame that holds code was written behind Unicorn's back
    dirty_code_count: u64
    dirty_code: u64 = fixed()  # host address of a list of such frames
    rom_sink: u64 = fixed()  # host address of the page that takes stores to ROM
    device_base: u64 = fixed()  # the window of memory-mapped devices (one Unicorn mapping)
    device_bytes: u64 = fixed()
    image_bytes: u64 = fixed()  # the user's image below the stock firmware in the ROM, 0 = the image is the firmware
