"""The EPT walk: guest-physical to host-physical. SDM Vol. 3C, 'The Extended Page Table Mechanism (EPT)'.

A walk answers with one word: bits 51:12 the 4-KiB frame of the address, 2:0 the permissions R W X of the whole walk,
bit 3 set if a store needs no dirty flag any more, 5:4 the page-size class (4K, 2M, 1G), 6 execution through user-mode
linear addresses, 9:7 memory type, 10 ignore PAT. Bit 63 set says that it failed: the rest is the outcome.
"""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel, load64
from vmxemu.layout import u64 as U
from vmxemu.translation.bits import (
    ADDRESS_MASK,
    CAP_EXECUTE_ONLY,
    EPT_A,
    EPT_D,
    EPT_LARGE,
    EPT_READ,
    EPT_SUPERVISOR_SHADOW_STACK,
    EPT_USER_EXECUTE,
    EPT_VPID_CAP,
    EPT_WRITE,
    EPTP_AD,
    EPTP_LENGTH,
    EPTP_LENGTH_4,
    FRAME_MASK,
)
from vmxemu.translation.data_caches import reference_cycles
from vmxemu.translation.ept_failure import (
    ASKED,
    FAILED,
    REACHED_PAGE,
    WANT_SHADOW_STACK,
    misconfiguration,
    violation,
)
from vmxemu.translation.ept_flags import set_ept_flags
from vmxemu.translation.ept_page import (
    ANSWER_USER_EXECUTE_SHIFT,
    BAD_MEMORY_TYPES,
    EVERYTHING,
    NOT_A_TABLE,
    ONE_LEVEL,
    SIZE_OF_SHIFT,
    STORE_READY,
    THREE_LEVELS,
    TWO_LEVELS,
    bad_large_page,
    is_refused,
    read_entry,
    reserved_bits,
)
from vmxemu.translation.ept_tables import NOT_FROM_HERE, keep_ept_tables, walk_below
from vmxemu.translation.inline import apart, inlined
from vmxemu.translation.journal import note
from vmxemu.translation.layout import EPT_MODE_BASED_EXECUTE, STEP_EPT
from vmxemu.translation.subpages import eligible_for_subpages, subpage_outcome

if TYPE_CHECKING:
    from vmxemu.state import State



@inlined
def plain_ram(m: "State") -> int:
    """Host-physical addresses below this are plain RAM at their offset: entries there are read without further ado.

    0 where each reference needs attention: `careful_walk` does it all then.
    """
    if m.walk.recording | m.tlb.probing | m.paging.ept_extensions & EPT_MODE_BASED_EXECUTE != 0:
        return U(0)
    memory = m.memory
    return memory.tseg_base if memory.tseg_bytes != 0 and memory.tseg_base < memory.low_bytes else memory.low_bytes


@kernel
def ept_walk(m: "State", eptp: int, gpa: int, want: int, guest_level: int) -> int:
    """Translate `gpa` for the access `want` (bits R W X and ept_failure.WANT_*), counting references. `guest_level`:
    whose entry is at `gpa`, 0 = none.
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
    if m.tlb.ept_tables_on != 0:
        short = walk_below(m, eptp, gpa, want, guest_level, ram, plain, reserved)
        if short != NOT_FROM_HERE:
            return short & 0, (short & FRAME_MASK) | (gpa & 0xFFF), short & 0xFFF
    first = eptp & FRAME_MASK | gpa >> 36 & 0xFF8
    if first >= plain or gpa >> 48 != 0 or eptp & EPTP_LENGTH != EPTP_LENGTH_4 or want & WANT_SHADOW_STACK != 0:
        return _rather_carefully(m, eptp, gpa, want, guest_level, ram, plain)
    entry = load64(ram + first)
    both, tables = entry, entry
    second = entry & FRAME_MASK | gpa >> 27 & 0xFF8
    if second >= plain:
        return _rather_carefully(m, eptp, gpa, want, guest_level, ram, plain)
    entry = load64(ram + second)
    both = both & entry
    shift, read = THREE_LEVELS, U(2)
    third, fourth = second, second
    if entry & EPT_LARGE == 0:
        tables = tables | entry
        third = entry & FRAME_MASK | gpa >> 18 & 0xFF8
        if third >= plain:
            return _rather_carefully(m, eptp, gpa, want, guest_level, ram, plain)
        entry = load64(ram + third)
        both = both & entry
        shift, read = TWO_LEVELS, U(3)
        if entry & EPT_LARGE == 0:
            tables = tables | entry
            fourth = entry & FRAME_MASK | gpa >> 9 & 0xFF8
            if fourth >= plain:
                return _rather_carefully(m, eptp, gpa, want, guest_level, ram, plain)
            entry = load64(ram + fourth)
            both = both & entry
            shift, read = ONE_LEVEL, U(4)
    if is_refused(m, eptp, want, both, tables, entry, shift, reserved):
        return _rather_carefully(m, eptp, gpa, want, guest_level, ram, plain)
    m.walk.references = m.walk.references + read
    m.tlb.ept_walks[guest_level * 64 + shift] = m.tlb.ept_walks[guest_level * 64 + shift] + 1
    if m.caches.on != 0:
        _charge(m, eptp, read, first, second, third, fourth)
    if m.tlb.ept_tables_on != 0:
        keep_ept_tables(m, eptp, gpa, shift)
    ready = STORE_READY if eptp & EPTP_AD == 0 else entry >> 6 & STORE_READY
    page = EVERYTHING << (shift + 3)
    hpa = (entry & (ADDRESS_MASK & page)) | (gpa & ~page)
    return both & 0, hpa, (both & 7) | ready | SIZE_OF_SHIFT[shift] | (entry & 0x78) << 4


@apart
def _charge(m: "State", eptp: int, read: int, first: int, second: int, third: int, fourth: int) -> None:
    """What the straight way's references cost; the memory type of all of them stands in EPTP."""
    kind = eptp & 7
    m.walk.memory_cycles = m.walk.memory_cycles + reference_cycles(m, first, kind) + reference_cycles(m, second, kind)
    if read > 2:
        m.walk.memory_cycles = m.walk.memory_cycles + reference_cycles(m, third, kind)
    if read > 3:
        m.walk.memory_cycles = m.walk.memory_cycles + reference_cycles(m, fourth, kind)


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
        return violation(m, gpa, want, 0, EVERYTHING)
    present = 7 | (m.paging.ept_extensions & EPT_MODE_BASED_EXECUTE) << 10
    reserved = reserved_bits(m)
    shift = top
    table = eptp & FRAME_MASK
    both, tables = EVERYTHING, EVERYTHING
    while True:
        at = table | (gpa >> shift & 0xFF8)
        entry = read_entry(m, at, ram, plain)
        _refer(m, eptp, shift, guest_level, gpa, at, entry)
        if entry & present == 0:
            _count(m, guest_level, top, shift)
            return violation(m, gpa, want, 0, entry)
        if entry & reserved != 0 or (entry & EPT_READ == 0 and _needs_read(m, entry)):
            _count(m, guest_level, top, shift)
            return misconfiguration(m, gpa)
        both = both & entry
        if shift == 9 or entry & EPT_LARGE != 0:
            break
        if entry & NOT_A_TABLE != 0:
            _count(m, guest_level, top, shift)
            return misconfiguration(m, gpa)
        tables = tables & entry
        table = entry & FRAME_MASK
        shift = shift - 9
    _count(m, guest_level, top, shift)
    if BAD_MEMORY_TYPES >> (entry >> 3 & 7) & 1 != 0 or (shift != 9 and bad_large_page(m, entry, shift)):
        return misconfiguration(m, gpa)
    if not _permits(both, tables, entry, want):
        if not eligible_for_subpages(m, want, both, entry, shift):
            return violation(m, gpa, want, both | REACHED_PAGE, entry)
        outcome = subpage_outcome(m, gpa, want, both | REACHED_PAGE, entry)
        if outcome != 0:
            return outcome
    ready = STORE_READY
    if eptp & EPTP_AD != 0:
        if both & EPT_A == 0 or (want & EPT_WRITE != 0 and entry & EPT_D == 0):
            outcome = set_ept_flags(m, eptp, gpa, shift, want, entry, guest_level)
            if outcome != 0:
                return outcome
            entry = entry | EPT_D if want & EPT_WRITE != 0 else entry
        ready = entry >> 6 & STORE_READY
    if m.tlb.ept_tables_on != 0:
        keep_ept_tables(m, eptp, gpa, shift)
    offset = ((1 << (shift + 3)) - 1) & FRAME_MASK
    size: int = SIZE_OF_SHIFT[shift]
    user_execute = (both & EPT_USER_EXECUTE) >> (10 - ANSWER_USER_EXECUTE_SHIFT)
    low = (both & 7) | ready | size | user_execute | (entry & 0x78) << 4
    return (entry & FRAME_MASK & ~offset) | (gpa & offset & FRAME_MASK) | low


@inlined
def _refer(m: "State", eptp: int, shift: int, guest_level: int, gpa: int, at: int, entry: int) -> None:
    """Charge a reference, and put it into the journal."""
    cycles = U(0)
    if m.caches.on != 0 and m.tlb.probing == 0:
        cycles = reference_cycles(m, at, eptp & 7)
        m.walk.memory_cycles = m.walk.memory_cycles + cycles
    if m.walk.recording != 0:
        note(m, STEP_EPT, shift * 57 >> 9, guest_level, gpa, at, entry, cycles)


@inlined
def _permits(both: int, tables: int, entry: int, want: int) -> bool:
    """Whether a walk permits the access. `tables`: the and of all entries but the one that maps the page."""
    if want & WANT_SHADOW_STACK != 0:
        leaf = EPT_READ | EPT_SUPERVISOR_SHADOW_STACK
        return tables & (EPT_READ | EPT_WRITE) == EPT_READ | EPT_WRITE and entry & leaf == leaf
    asked = want & (ASKED | EPT_USER_EXECUTE)
    return both & asked == asked


@apart
def _needs_read(m: "State", entry: int) -> bool:
    """Whether an entry that permits no reads is misconfigured: writable, or execute-only where that is not supported."""
    return entry & EPT_WRITE != 0 or m.cpu.vmx_msr[EPT_VPID_CAP] & CAP_EXECUTE_ONLY == 0


@inlined
def _count(m: "State", guest_level: int, top: int, shift: int) -> None:
    """Count the references from the level of `top` to that of `shift`; the histogram's last column is the shift
    itself.
    """
    m.walk.references = m.walk.references + ((top - shift) * 57 >> 9) + 1  # x * 57 >> 9 = x // 9 up to 63
    if m.tlb.probing == 0:
        index = guest_level * 64 + shift
        m.tlb.ept_walks[index] = m.tlb.ept_walks[index] + 1
