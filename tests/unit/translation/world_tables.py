"""The tables of a random world, made with few array operations: guest tables, an EPT, an SPPT.

RAM is `FRAMES` frames. Each level of the guest's tables has a few frames of its own, so that most walks get through;
spoiling makes the loops, cross links, wild addresses and reserved bits.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

U = np.uint64
FRAMES = 48
GUEST_ROOT, EPT_ROOT, SPPT_ROOT, PML_FRAME = 1, 17, 25, 29
PAGES = range(30, FRAMES)
EPT_PAGE_TABLES = range(22, 24)
INDICES = (0, 1, 2, 3, 5, 256, 510, 511)
NOWHERE = 5 << 18  # a frame outside RAM, below the narrowest MAXPHYADDR: 5 GiB, which an EPT maps like 0
ADDRESS = U(0x000F_FFFF_FFFF_F000)
BELOW_2M, BELOW_1G = U(0x1FF000), U(0x3FFFF000)

# Frames of the tables by level, from the top
GUEST_LEVELS = {
    "off": [],
    "legacy": [range(1, 2), range(2, 5)],
    "pae": [range(1, 5), range(5, 9)],
    "long": [range(1, 2), range(2, 5), range(5, 8), range(8, 11)],
    "la57": [range(1, 2), range(2, 5), range(5, 8), range(8, 11), range(11, 14)],
}


def spread(*weighted):
    """A table of 64 values, each as often as its weight says, to be looked up with 6 random bits."""
    values = [value for value, weight in weighted for _ in range(weight)]
    assert len(values) == 64
    return np.array(values, U)


# Bits 2:0 of EPT entries. W without R is a misconfiguration, X without R one without the capability.
TABLE_RIGHTS = {"kind": spread((7, 63), (3, 1)), "holes": spread((7, 57), (3, 2), (1, 2), (5, 2), (0, 1))}
SIDE_RIGHTS = spread((7, 44), (5, 6), (3, 6), (1, 4), (4, 2), (0, 2))  # tables that no guest table is reached through
PAGE_RIGHTS = {
    "kind": spread((7, 64)),
    "mixed": spread((7, 30), (5, 8), (3, 8), (1, 7), (4, 7), (0, 3), (2, 1)),
    "read-only": spread((7, 10), (1, 26), (5, 20), (3, 5), (0, 2), (4, 1)),
    "executable": spread((7, 12), (4, 26), (5, 10), (3, 8), (1, 5), (0, 3)),
}
MEMORY_TYPES = spread((6, 30), (0, 9), (1, 8), (4, 8), (5, 8), (2, 1)) << U(3)
GOOD_MEMORY_TYPES = spread((6, 31), (0, 9), (1, 8), (4, 8), (5, 8)) << U(3)


class Dice:
    """Random arrays."""

    def __init__(self, chance):
        self.chance = chance

    def words(self, count):
        return np.frombuffer(self.chance.randbytes(8 * count), U)

    def happens(self, count, probability):
        return np.frombuffer(self.chance.randbytes(2 * count), np.uint16) < int(probability * 65536)

    def flag(self, count, number, probability):
        return self.happens(count, probability).astype(U) << U(number)


class Places(NamedTuple):
    """Where entries stand (index in RAM in units of an entry) and to which frames each may refer."""

    at: np.ndarray
    first: np.ndarray
    choices: np.ndarray
    level: np.ndarray


def places(rows):
    at, first, choices, level = zip(*rows, strict=True)
    return Places(np.array(at), np.array(first, U), np.array(choices, U), np.array(level))


@cache
def guest_places(mode):
    levels = GUEST_LEVELS[mode]
    per_frame = 1024 if mode == "legacy" else 512
    rows = []
    for position, frames in enumerate(levels):
        below = levels[position + 1] if position + 1 < len(levels) else PAGES
        for frame in frames:
            for index in INDICES:
                rows.append((frame * per_frame + index, below[0], len(below), len(levels) - position))
    return places(rows)


@cache
def ept_places(length):
    """A spine of tables for the guest-physical addresses from 0 on, others elsewhere; guest tables are mapped 1:1."""
    rows = []
    spine = list(range(EPT_ROOT, EPT_ROOT + length - 1))
    for level, frame in zip(range(length, 1, -1), spine, strict=True):
        below = (frame + 1, 1) if level > 2 else (EPT_PAGE_TABLES[0], len(EPT_PAGE_TABLES))
        for index in INDICES:
            rows.append((frame * 512 + index, below[0], below[1] if index else 1, level))
    for frame in EPT_PAGE_TABLES:
        for index in range(512):
            own = index < PAGES[0] and frame == EPT_PAGE_TABLES[0]
            rows.append((frame * 512 + index, index if own else PAGES[0], 1 if own else len(PAGES), 1))
    return places(rows)


@cache
def spp_places():
    rows = []
    for level, frame in zip((4, 3, 2), range(SPPT_ROOT, SPPT_ROOT + 3), strict=True):
        rows += [(frame * 512 + index, frame + 1, 2 if index and level > 2 else 1, level) for index in INDICES]
    return places(rows)


def targets(where, random):
    return where.first + (random >> U(32)) % where.choices << U(12)


def spoiled(dice, entries, probability, width=64):
    """The entries with some spoilt: bits flipped, addresses made wild or of any frame, noise."""
    if not probability:
        return entries
    (victims,) = np.nonzero(dice.happens(len(entries), probability))
    if not len(victims):
        return entries
    good = entries[victims]
    random = dice.words(len(victims))
    frame = (random >> U(40)) % U(FRAMES) << U(12)
    one = U(1)
    ways = [
        good ^ one << (random >> U(8)) % U(width),
        good & ~U(7),
        good | one << U(36) + (random >> U(8)) % U(16) if width == 64 else good | one << U(13) + (random >> U(8)) % U(9),
        random,
        good & ~ADDRESS | frame,
        good & ~ADDRESS | frame,
        good ^ one << (random >> U(8)) % U(12),
        good ^ (random >> U(20) & U(7)) << U(3) * ((random >> U(24)) & one),  # rights, or memory type
        good ^ U(1 << 7),
        good | one << U(12) + (random >> U(8)) % U(18),
    ]
    result = entries.copy()
    result[victims] = np.choose((random & U(0xFF)).astype(np.intp) % len(ways), ways)
    return result


def stray_bit(dice, count, probability, lowest, highest):
    """A random bit in some of `count` words."""
    number = U(lowest) + (dice.words(count) >> U(8)) % U(highest + 1 - lowest)
    return dice.happens(count, probability) * (U(1) << number)


def fill_guest_tables(world, memory, dice):
    where = guest_places(world.mode)
    count = len(where.at)
    random = dice.words(count)
    small = world.mode == "legacy"
    free = 0xF78 if small or world.mode == "pae" else 0x7FF0_0000_0000_0F78
    entries = targets(where, random) | random & U(free)
    in_last = where.level == 1
    entries |= dice.flag(count, 0, 0.985)
    entries |= np.where(in_last, dice.flag(count, 1, 0.75), dice.flag(count, 1, 0.96))
    entries |= np.where(in_last, random >> U(1) & U(1 << 6), U(0))
    if "shadow stacks" in world.features:
        stack = in_last & dice.happens(count, 0.55)
        entries = np.where(stack, entries & ~U(1 << 1) | U(1 << 6), entries)
    in_tables, in_pages = {"user": (0.99, 0.99), "mixed": (0.95, 0.5), "supervisor": (0.9, 0.1)}[world.privilege]
    entries |= np.where(in_last, dice.flag(count, 2, in_pages), dice.flag(count, 2, in_tables))
    if not small:
        entries |= dice.flag(count, 63, 0.08 if world.efer >> 11 & 1 else 0.012)
    if world.mode == "pae":
        entries |= stray_bit(dice, count, 0.01, 52, 62)
    # Pages outside RAM: below 1 MByte, and where an EPT that maps them takes other tables than for the guest's tables
    outside = dice.happens(count, 0.25) & in_last
    far = (random >> U(44) & U(1)) * U(1 << 39 if world.maxphyaddr > 39 and not small else 0)
    entries += outside * np.where(random >> U(45) & U(1), U(NOWHERE << 12) | far, (random >> U(47) & U(7)) << U(17))
    # Large pages: at the levels that have them, more rarely elsewhere
    has_large = (where.level == 2) | (where.level == 3)
    large = np.where(has_large, dice.happens(count, 0.2), dice.happens(count, 0.005)) & ~in_last
    low = U(0x3FF000) if small else np.where(where.level == 3, BELOW_1G, BELOW_2M)
    base = (random >> U(20) & U(0xFFC00000 if small else 0x7_FFE0_0000)) * (random >> U(40) & U(1))
    as_large = (entries & ~ADDRESS) | (base & ~low) | (random >> U(30) & U(1 << 12)) | U(1 << 7)
    as_large |= stray_bit(dice, count, 0.15, 13, 21) if small else stray_bit(dice, count, 0.04, 13, 31)
    entries = np.where(large, as_large, entries)
    entries = spoiled(dice, entries, world.hostility, 32 if small else 64)
    if small:
        memory.view(np.uint32)[where.at] = entries.astype(np.uint32)
    else:
        memory[where.at] = entries


def fill_ept(world, memory, dice):
    where = ept_places(world.ept_levels)
    count = len(where.at)
    random, more = dice.words(count), dice.words(count)
    is_leaf = where.level == 1
    if world.large_ept:
        is_leaf = is_leaf | ((where.level <= 3) & (random >> U(20) & U(7) < np.where(where.at % 512, 4, 2)))
    is_table_page = (where.level == 1) & (where.choices == 1)
    six = (random >> U(40) & U(63)).astype(np.intp)
    table_rights = np.where(where.at % 512 == 0, TABLE_RIGHTS[world.table_rights][six], SIDE_RIGHTS[six])
    table_rights = np.where(is_table_page, TABLE_RIGHTS[world.table_rights][six], table_rights)
    rights = np.where(is_leaf & ~is_table_page, PAGE_RIGHTS[world.page_rights][six], table_rights)
    # bits 11, 52 and above have a meaning in some entries or none; bits 8, 9 are the flags
    entries = rights | random & U(0xDFF0_0000_0000_0900) | (random | more) & U(1 << 61 | 1 << 10)
    types = MEMORY_TYPES if world.hostility else GOOD_MEMORY_TYPES
    in_leaf = types[(more >> U(20) & U(63)).astype(np.intp)] | more & U(1 << 6 | 1 << 9)
    in_leaf |= np.where(is_table_page, dice.flag(count, 9, 0.8), U(0))
    entries |= np.where(is_leaf, in_leaf, U(0))
    address = targets(where, random)
    address += (dice.happens(count, 0.06) & is_leaf & ~is_table_page) * U(NOWHERE << 12)
    if world.large_ept:
        large = is_leaf & (where.level > 1)
        base = (more & U(0xF_C000_0000 if world.maxphyaddr > 36 else 0x4000_0000)) * ((more >> U(60)) & U(1))
        base |= stray_bit(dice, count, 0.2, 12, 31)
        address = np.where(large, np.where(where.at % 512 == 0, U(0), base), address)
        entries |= large * U(1 << 7)
    entries |= address
    aside = (where.level > 1) & (where.at % 512 != 0)
    entries |= np.where(aside, stray_bit(dice, count, 0.06, 3, 7), U(0))
    memory[where.at] = spoiled(dice, entries, world.hostility * 0.3)


def fill_sppt(world, memory, dice):
    where = spp_places()
    count = len(where.at)
    random = dice.words(count)
    entries = targets(where, random) | dice.flag(count, 0, 0.95)
    entries |= stray_bit(dice, count, 0.02, 1, 11) | stray_bit(dice, count, 0.02, world.maxphyaddr, 63)
    memory[where.at] = spoiled(dice, entries, world.hostility)
    vectors = dice.words(512) & U(0x5555_5555_5555_5555)
    odd = dice.words(512) >> U(8) & U(31)
    vectors |= dice.happens(512, 0.12) * (U(2) << U(2) * odd)
    memory[(SPPT_ROOT + 3) * 512 : (SPPT_ROOT + 4) * 512] = vectors
