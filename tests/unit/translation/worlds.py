"""Random small worlds: RAM of 64 frames with guest tables, an EPT and pages, valid, nearly valid or hostile."""

import random
from dataclasses import dataclass

import numpy as np

from tests.reference import translation as reference
from vmxemu.outcome import EPT_MISCONFIG, EPT_VIOLATION, FAULT
from vmxemu.translation import bits
from vmxemu.translation.invalidate import invalidate_all
from vmxemu.translation.library import Walker
from vmxemu.translation.translate import translate

FRAMES = 64
GUEST_TABLES, EPT_TABLES, PAGES = range(1, 20), range(20, 34), range(34, FRAMES)
ACCESS = {reference.READ: 0, reference.WRITE: 1, reference.FETCH: 2}
INDICES = (0, 1, 2, 3, 256, 511)
MODES = ("off", "legacy", "pae", "long", "long", "la57")


@dataclass(frozen=True)
class Access:
    gla: int
    kind: str
    cpl: int
    ac: bool
    implicit: bool


def flags(chance, *choices):
    """A word with each of the (bit, probability) pairs."""
    word = 0
    for number, probability in choices:
        if chance.random() < probability:
            word |= 1 << number
    return word


class World:
    """One world, made from a seed; `hostility` 0..1 is the chance that an entry is far from valid."""

    def __init__(self, seed, hostility):
        self.chance = chance = random.Random(seed)
        self.hostility = hostility
        self.memory = bytearray(FRAMES * 4096)
        self.mode = chance.choice(MODES)
        self.maxphyaddr = chance.choice((36, 39, 46, 52))
        self.efer = (1 << 10 if self.mode in ("long", "la57") else 0) | flags(chance, (11, 0.8))
        self.cr0 = (0 if self.mode == "off" else 1 << 31) | flags(chance, (16, 0.7))
        self.cr4 = flags(chance, (4, 0.7), (7, 0.5), (20, 0.4), (21, 0.4)) | (
            0 if self.mode in ("off", "legacy") else 1 << 5
        )
        self.cr4 |= 1 << 12 if self.mode == "la57" else 0
        self.page_1g = chance.random() < 0.8
        self.ept_levels = chance.choice((4, 4, 4, 5))
        self.capabilities = flags(chance, (0, 0.7), (16, 0.9), (17, 0.9))
        ept_on = chance.random() < 0.8
        self.eptp = (EPT_TABLES[0] << 12 | (self.ept_levels - 1) << 3 | 6 | flags(chance, (6, 0.5))) if ept_on else 0
        self.large_ept = chance.random() < 0.3
        self.cr3 = GUEST_TABLES[0] << 12
        self.pdpte = [GUEST_TABLES[1 + i] << 12 | flags(chance, (0, 0.9)) for i in range(4)]
        self._fill_guest_tables()
        self._fill_ept()

    def _put(self, address, size, value):
        value &= (1 << 8 * size) - 1
        self.memory[address : address + size] = value.to_bytes(size, "little")

    def _wild(self, entry):
        """Spoil an entry: any bit, absent, out of memory, or noise."""
        chance = self.chance
        how = chance.randrange(6)
        if how == 0:
            return entry ^ 1 << chance.randrange(64)
        if how == 1:
            return entry & ~7
        if how == 2:
            return entry | chance.randrange(1 << 40) << 12
        if how == 3:
            return chance.getrandbits(64)
        if how == 4:
            return (entry & 0xFFF) | chance.randrange(FRAMES) << 12
        return entry ^ 1 << chance.randrange(12)

    def _maybe_wild(self, entry):
        return self._wild(entry) if self.chance.random() < self.hostility else entry

    def _fill_guest_tables(self):
        """Each frame serves at any level: an entry refers to a frame soon after it, which is as good a page as any."""
        chance = self.chance
        size = 4 if self.mode == "legacy" else 8
        for frame in GUEST_TABLES:
            for index in INDICES:
                target = min(frame + chance.choice((1, 1, 2, 3, 5)), FRAMES - 1)
                entry = target << 12
                entry |= flags(chance, (0, 0.97), (1, 0.85), (2, 0.75), (5, 0.5), (6, 0.5), (8, 0.3), (63, 0.1))
                if chance.random() < 0.12:
                    entry = entry & ~0x1FFFFF & ~(0x3FFFFF if size == 4 else 0) | entry & 0xFFF | 1 << 7
                    entry &= ~0x3FFFF000 if chance.random() < 0.4 else -1
                self._put(frame * 4096 + index * size, size, self._maybe_wild(entry))

    def _fill_ept(self):
        """A spine of tables for guest-physical addresses below 256K: tables 1:1, pages shuffled, rights at random."""
        chance = self.chance
        rights = (0, 0.97), (1, 0.92), (2, 0.92), (8, 0.5), (9, 0.5)
        spine = EPT_TABLES[: self.ept_levels]
        for frame, next_frame in zip(spine, spine[1:], strict=False):
            entry = next_frame << 12 | 7 | flags(chance, (8, 0.5))
            if chance.random() < 0.05:
                entry &= ~(1 << chance.randrange(3))
            if self.large_ept and next_frame == spine[-1]:
                entry = (0x87 | chance.choice((0, 1, 4, 5, 6, 6, 6)) << 3) | flags(chance, (8, 0.5), (9, 0.5))
            self._put(frame * 4096, 8, self._maybe_wild(entry) if chance.random() < 0.2 else entry)
        for gpa_frame in range(FRAMES):
            frame = chance.choice(PAGES) if gpa_frame in PAGES else gpa_frame
            entry = frame << 12 | flags(chance, *rights) | chance.choice((0, 6, 6, 6, 6, 5, 1, 4)) << 3
            self._put(spine[-1] * 4096 + gpa_frame * 8, 8, self._maybe_wild(entry) if chance.random() < 0.3 else entry)

    def access(self):
        """A random access."""
        chance = self.chance
        gla = chance.randrange(4096)
        steps = 10 if self.mode == "legacy" else 9
        for level in range(5):
            index = chance.choice(INDICES) & ((1 << steps) - 1)
            gla |= index << (12 + steps * level)
        gla &= (1 << 64) - 1
        if self.mode == "off":
            gla = chance.randrange(FRAMES * 4096 * 2)
        if self.mode in ("long", "la57") and chance.random() < 0.97:
            width = 57 if self.mode == "la57" else 48
            gla &= (1 << width) - 1
            gla |= -(gla >> (width - 1)) << width & ((1 << 64) - 1)
        kind = chance.choice((reference.READ, reference.WRITE, reference.FETCH))
        return Access(gla, kind, chance.choice((0, 3)), chance.random() < 0.3, chance.random() < 0.15)

    def processor(self):
        """The reference, with a copy of the memory."""
        return reference.Processor(
            bytearray(self.memory), self.cr0, self.cr3, self.cr4, self.efer, eptp=self.eptp, pdpte=self.pdpte,
            maxphyaddr=self.maxphyaddr, page_1g=self.page_1g,
            ept_execute_only=bool(self.capabilities & 1), ept_2m=bool(self.capabilities >> 16 & 1),
            ept_1g=bool(self.capabilities >> 17 & 1),
        )  # fmt: skip

    def load_into(self, walker: Walker):
        """Put this world into a walker of the same RAM size."""
        walker.ram[:] = np.frombuffer(bytes(self.memory), np.uint8)
        m = walker.m
        m.cpu.physical_bits, m.cpu.vmx_msr[bits.EPT_VPID_CAP] = self.maxphyaddr, self.capabilities
        m.r.cr[0], m.r.cr[3], m.r.cr[4], m.r.efer = self.cr0, self.cr3, self.cr4, self.efer
        m.paging.ept_pointer, m.paging.no_1g_pages = self.eptp, int(not self.page_1g)
        m.paging.pdpte0, m.paging.pdpte1, m.paging.pdpte2, m.paging.pdpte3 = self.pdpte
        invalidate_all(m)


def ask_reference(processor, access):
    """What the reference says: a tuple that begins with a word."""
    processor.cpl, processor.ac = access.cpl, access.ac
    try:
        gpa, hpa = processor.translate(access.gla, access.kind, access.implicit)
    except reference.PageFault as fault:
        return "#PF", fault.error_code
    except reference.GeneralProtection:
        return "#GP", 0
    except reference.EptViolation as violation:
        return "violation", violation.gpa, violation.qualification
    except reference.EptMisconfiguration as misconfiguration:
        return "misconfiguration", misconfiguration.gpa
    return "done", gpa, hpa


def ask_kernel(walker, access):
    """What the kernel says, in the same form."""
    m = walker.m
    m.r.mode = access.cpl | 1 << 15
    m.r.eflags = int(access.ac) << 18
    outcome = int(translate(m, access.gla, ACCESS[access.kind] | int(access.implicit) << 2))
    if outcome == 0:
        return "done", int(m.walk.gpa), int(m.walk.hpa)
    if outcome & 0xFF == FAULT:
        return {14: "#PF", 13: "#GP"}[outcome >> 8 & 0xFF], outcome >> 32
    if outcome == EPT_VIOLATION:
        return "violation", int(m.walk.gpa), int(m.walk.qualification)
    assert outcome == EPT_MISCONFIG
    return "misconfiguration", int(m.walk.gpa)
