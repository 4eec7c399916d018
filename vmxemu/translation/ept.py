"""The EPT walk: guest-physical to host-physical. SDM Vol. 3C, 'The Extended Page Table Mechanism (EPT)'.

A walk answers with one word: bits 51:12 the 4-KiB frame of the address, 2:0 the permissions R W X of the whole walk,
bit 3 set if a store needs no dirty flag any more, 5:4 the page-size class (4K, 2M, 1G). Bit 63 set says that it
failed: the rest is the outcome.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from vmxemu.jit import kernel, load64
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import read64, write64
from vmxemu.outcome import EPT_MISCONFIG, EPT_VIOLATION
from vmxemu.translation.bits import (
    ADDRESS_MASK,
    CAP_1G,
    CAP_2M,
    CAP_EXECUTE_ONLY,
    EPT_A,
    EPT_D,
    EPT_LARGE,
    EPT_READ,
    EPT_VPID_CAP,
    EPT_WRITE,
    EPTP_AD,
    EPTP_LENGTH,
    EPTP_LENGTH_4,
    FRAME_MASK,
)
from vmxemu.translation.inline import apart, inlined

if TYPE_CHECKING:
    from vmxemu.state import State

FAILED = U(1 << 63)
VIOLATION, MISCONFIGURATION = FAILED | U(EPT_VIOLATION), FAILED | U(EPT_MISCONFIG)
STORE_READY = U(1 << 3)
RWX_UNUSUAL = U(0b01010101)  # bit n: permissions n (0 = absent, 2 = W, 4 = X, 6 = WX) need a look
BAD_MEMORY_TYPES = U(0b10001100)  # 2, 3 and 7 are reserved
ONE_LEVEL, TWO_LEVELS, THREE_LEVELS = U(9), U(18), U(27)  # shifts: 9 * level
NO_TABLE_AT_ALL = U(0xF8)
NOT_A_TABLE = U(0x78)  # bits 6:3 of an entry that references a table are reserved; so is 7 where there is no large page
EVERYTHING = U(0xFFFFFFFFFFFFFFFF)
SIZE_OF_SHIFT: Any = np.array([(shift // 9 - 1 & 3) << 4 for shift in range(64)], dtype=np.uint64)


@inlined
def plain_ram(m: "State") -> int:
    """Host-physical addresses below this are plain RAM at their offset: entries there are read without further ado."""
    memory = m.memory
    return memory.tseg_base if memory.tseg_bytes != 0 and memory.tseg_base < memory.low_bytes else memory.low_bytes


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


@kernel
def ept_walk(m: "State", eptp: int, gpa: int, want: int, guest_level: int) -> int:
    """Translate `gpa` for the access `want` (bits R W X), counting references. `guest_level`: whose entry is at
    `gpa`, 0 = none.
    """
    failed, hpa, flags = walk_from(m, eptp, gpa, want, guest_level, m.memory.ram, plain_ram(m), reserved_bits(m))
    return failed if failed != 0 else (hpa & FRAME_MASK) | flags


@inlined
def walk_from(
    m: "State", eptp: int, gpa: int, want: int, guest_level: int, ram: int, plain: int, reserved: int
) -> tuple[int, int, int]:
    """The same with what all walks of a two-dimensional walk share: host address of RAM, `plain_ram`,
    `reserved_bits`.

    Gives the answer in parts, because the next table is read at once: the failure or 0, the address, the answer's low
    bits.

    This is the straight way through a 4-level EPT in plain RAM for a permitted access that needs no flag set. It has
    no effects before the end, so that it can leave to `careful_walk` wherever something is out of the ordinary.
    """
    at = eptp & FRAME_MASK | gpa >> 36 & 0xFF8
    if at >= plain or gpa >> 48 != 0 or eptp & EPTP_LENGTH != EPTP_LENGTH_4:
        return _rather_carefully(m, eptp, gpa, want, guest_level, ram, plain)
    entry = load64(ram + at)
    both, tables = entry, entry
    at = entry & FRAME_MASK | gpa >> 27 & 0xFF8
    if at >= plain:
        return _rather_carefully(m, eptp, gpa, want, guest_level, ram, plain)
    entry = load64(ram + at)
    both = both & entry
    shift, read = THREE_LEVELS, U(2)
    if entry & EPT_LARGE == 0:
        tables = tables | entry
        at = entry & FRAME_MASK | gpa >> 18 & 0xFF8
        if at >= plain:
            return _rather_carefully(m, eptp, gpa, want, guest_level, ram, plain)
        entry = load64(ram + at)
        both = both & entry
        shift, read = TWO_LEVELS, U(3)
        if entry & EPT_LARGE == 0:
            tables = tables | entry
            at = entry & FRAME_MASK | gpa >> 9 & 0xFF8
            if at >= plain:
                return _rather_carefully(m, eptp, gpa, want, guest_level, ram, plain)
            entry = load64(ram + at)
            both = both & entry
            shift, read = ONE_LEVEL, U(4)
    # An entry that permits reads has no unusual permissions.
    needed = want | EPT_READ | (eptp & EPTP_AD) << 2
    dirty = (eptp & EPTP_AD) << 3 & (want & EPT_WRITE) << 8
    if (
        both & needed != needed
        or entry & dirty != dirty
        or (tables | entry) & reserved != 0
        or tables & NO_TABLE_AT_ALL != 0
    ):
        return _rather_carefully(m, eptp, gpa, want, guest_level, ram, plain)
    if BAD_MEMORY_TYPES >> (entry >> 3 & 7) & 1 != 0 or (shift != ONE_LEVEL and _bad_large_page(m, entry, shift)):
        return _rather_carefully(m, eptp, gpa, want, guest_level, ram, plain)
    m.walk.references = m.walk.references + read
    m.tlb.ept_walks[guest_level * 64 + shift] = m.tlb.ept_walks[guest_level * 64 + shift] + 1
    ready = STORE_READY if eptp & EPTP_AD == 0 else entry >> 6 & STORE_READY
    page = EVERYTHING << (shift + 3)
    hpa = (entry & (ADDRESS_MASK & page)) | (gpa & ~page)
    return both & 0, hpa, (both & 7) | ready | SIZE_OF_SHIFT[shift]


@inlined
def _rather_carefully(
    m: "State", eptp: int, gpa: int, want: int, guest_level: int, ram: int, plain: int
) -> tuple[int, int, int]:  # fmt: skip
    answer = careful_walk(m, eptp, gpa, want, guest_level, ram, plain)
    return answer if answer & FAILED != 0 else 0, (answer & FRAME_MASK) | (gpa & 0xFFF), answer & 0xFFF


@apart
def careful_walk(m: "State", eptp: int, gpa: int, want: int, guest_level: int, ram: int, plain: int) -> int:
    """The walk as the manual has it, in every form: any number of levels, any entry, every failure, and flags to be
    set.
    """
    top = (eptp >> 3 & 7) * 9 + 9
    if gpa >> top >> 12 != 0:
        return _violation(m, gpa, want, 0)
    reserved = reserved_bits(m)
    shift = top
    table = eptp & FRAME_MASK
    both = EVERYTHING
    while True:
        entry = read_entry(m, table | (gpa >> shift & 0xFF8), ram, plain)
        if RWX_UNUSUAL >> (entry & 7) & 1 | entry & reserved != 0 and _stops(m, entry, reserved):
            _count(m, guest_level, top, shift)
            return _violation(m, gpa, want, 0) if entry & 7 == 0 else _misconfiguration(m, gpa)
        both = both & entry
        if shift == 9 or entry & EPT_LARGE != 0:
            break
        if entry & NOT_A_TABLE != 0:
            _count(m, guest_level, top, shift)
            return _misconfiguration(m, gpa)
        table = entry & FRAME_MASK
        shift = shift - 9
    _count(m, guest_level, top, shift)
    if BAD_MEMORY_TYPES >> (entry >> 3 & 7) & 1 != 0 or (shift != 9 and _bad_large_page(m, entry, shift)):
        return _misconfiguration(m, gpa)
    if both & want != want:
        return _violation(m, gpa, want, both & 7)
    ready = STORE_READY
    if eptp & EPTP_AD != 0:
        if both & EPT_A == 0 or (want & EPT_WRITE != 0 and entry & EPT_D == 0):
            _set_flags(m, eptp, gpa, shift, want)
            entry = entry | EPT_D if want & EPT_WRITE != 0 else entry
        ready = entry >> 6 & STORE_READY
    offset = ((1 << (shift + 3)) - 1) & FRAME_MASK
    size: int = SIZE_OF_SHIFT[shift]
    return (entry & FRAME_MASK & ~offset) | (gpa & offset) | (both & 7) | ready | size


@kernel
def _stops(m: "State", entry: int, reserved: int) -> bool:
    """Whether an entry of unusual permissions or with reserved bits ends the walk: only execute-only, where
    supported, does not.
    """
    return entry & 7 != 4 or entry & reserved != 0 or m.cpu.vmx_msr[EPT_VPID_CAP] & CAP_EXECUTE_ONLY == 0


@inlined
def page_class(answer: int) -> int:
    """Page-size class of a walk's answer."""
    return answer >> 4 & 3


@inlined
def _count(m: "State", guest_level: int, top: int, shift: int) -> None:
    """Count the references from the level of `top` to that of `shift`; the histogram's last column is the shift
    itself.
    """
    m.walk.references = m.walk.references + ((top - shift) * 57 >> 9) + 1  # x * 57 >> 9 = x // 9 up to 63
    index = guest_level * 64 + shift
    m.tlb.ept_walks[index] = m.tlb.ept_walks[index] + 1


@apart
def _bad_large_page(m: "State", entry: int, shift: int) -> bool:
    """Whether an entry that claims to map a 2M or 1G page is misconfigured: no such page, or address bits below its
    size.
    """
    needed = CAP_2M if shift == 18 else CAP_1G
    low = ((1 << (shift + 3)) - 1) & FRAME_MASK
    return shift > 27 or m.cpu.vmx_msr[EPT_VPID_CAP] & needed == 0 or entry & low != 0


@kernel
def _violation(m: "State", gpa: int, want: int, permitted: int) -> int:
    m.walk.gpa = gpa
    m.walk.qualification = want | permitted << 3
    return VIOLATION


@kernel
def _misconfiguration(m: "State", gpa: int) -> int:
    m.walk.gpa = gpa
    m.walk.qualification = 0
    return MISCONFIGURATION


@kernel
def _set_flags(m: "State", eptp: int, gpa: int, leaf_shift: int, want: int) -> None:
    """Set the accessed flags on the way to a page that the walk has found, and its dirty flag for a store."""
    shift = ((eptp >> 3 & 7) + 1) * 9
    table = eptp & FRAME_MASK
    while True:
        at = table | (gpa >> shift & 0xFF8)
        entry = read64(m, at)
        new = entry | EPT_A
        if shift == leaf_shift and want & EPT_WRITE != 0:
            new = new | EPT_D
        if new != entry:
            write64(m, at, new)
        if shift == leaf_shift:
            return
        table = entry & FRAME_MASK
        shift = shift - 9
