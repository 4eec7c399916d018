"""What an EPT walk needs to know of single entries and of its answer. SDM Vol. 3C, formats of EPT paging-structure entries."""

from typing import TYPE_CHECKING, Any

import numpy as np

from vmxemu.jit import load64
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import read64
from vmxemu.translation.bits import (
    ADDRESS_MASK,
    CAP_1G,
    CAP_2M,
    EPT_READ,
    EPT_VPID_CAP,
    EPT_WRITE,
    EPTP_AD,
    FRAME_MASK,
)
from vmxemu.translation.ept_failure import ASKED
from vmxemu.translation.inline import apart, inlined

if TYPE_CHECKING:
    from vmxemu.state import State

STORE_READY = U(1 << 3)
ANSWER_USER_EXECUTE_SHIFT, ANSWER_TYPE_SHIFT = U(6), U(7)
BAD_MEMORY_TYPES = U(0b10001100)  # 2, 3 and 7 are reserved
NO_TABLE_AT_ALL = U(0xF8)
NOT_A_TABLE = U(0x78)  # bits 6:3 of an entry that references a table are reserved; so is 7 where there is no large page
EVERYTHING = U(0xFFFFFFFFFFFFFFFF)
ONE_LEVEL, TWO_LEVELS, THREE_LEVELS = U(9), U(18), U(27)  # shifts: 9 * level
SIZE_OF_SHIFT: Any = np.array([(shift // 9 - 1 & 3) << 4 for shift in range(64)], dtype=np.uint64)


@inlined
def reserved_bits(m: "State") -> int:
    """Address bits of an entry above the physical-address width."""
    return ADDRESS_MASK & EVERYTHING << m.cpu.physical_bits


@inlined
def read_entry(m: "State", hpa: int, ram: int, plain: int) -> int:
    """An 8-byte entry; all ones where there is no memory."""
    return load64(ram + hpa) if hpa < plain else read_elsewhere(m, hpa)


@apart
def read_elsewhere(m: "State", hpa: int) -> int:
    """An entry above 4 GiB, in ROM, in SMRAM or nowhere."""
    return read64(m, hpa)


@inlined
def page_class(answer: int) -> int:
    """Page-size class of a walk's answer."""
    return answer >> 4 & 3


@inlined
def is_refused(
    m: "State", eptp: int, want: int, both: int, tables: int, entry: int, shift: int, reserved: int
) -> bool:
    """Whether the straight way of a walk ends here: the access is not permitted, a flag is to be set, or an entry is no good.
    `both`: all entries and-ed; `tables`: those above the last one or-ed; `shift`: 9 * level of the last one, `entry`.

    An entry that permits reads has no unusual permissions.
    """
    needed = want & ASKED | EPT_READ | (eptp & EPTP_AD) << 2
    dirty = (eptp & EPTP_AD) << 3 & (want & EPT_WRITE) << 8
    if both & needed != needed or entry & dirty != dirty or (tables | entry) & reserved != 0:
        return True
    if tables & NO_TABLE_AT_ALL != 0 or BAD_MEMORY_TYPES >> (entry >> 3 & 7) & 1 != 0:
        return True
    return shift != ONE_LEVEL and bad_large_page(m, entry, shift)


@apart
def bad_large_page(m: "State", entry: int, shift: int) -> bool:
    """Whether an entry that claims to map a 2M or 1G page is misconfigured: no such page, or address bits below its
    size.
    """
    needed = CAP_2M if shift == 18 else CAP_1G
    low = ((1 << (shift + 3)) - 1) & FRAME_MASK
    return shift > 27 or m.cpu.vmx_msr[EPT_VPID_CAP] & needed == 0 or entry & low != 0
