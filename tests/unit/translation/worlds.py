"""Random small worlds: registers, controls, RAM with guest tables, an EPT and more; valid, nearly valid or hostile.

A world is made from a seed and says what it is like; `hostility` 0..1 is the chance that an entry is far from valid.
"""

import random
from typing import NamedTuple

import numpy as np

from tests.reference import translation as reference
from tests.reference.translation_memory_types import UC, UC_MINUS, WB, WC, WP, WT, Mtrrs
from tests.unit.translation.asking import Subject
from tests.unit.translation.world_tables import (
    EPT_ROOT,
    FRAMES,
    GUEST_LEVELS,
    GUEST_ROOT,
    INDICES,
    NOWHERE,
    PML_FRAME,
    SPPT_ROOT,
    Dice,
    U,
    fill_ept,
    fill_guest_tables,
    fill_sppt,
)

ALL_FEATURES = frozenset(
    ("keys", "shadow stacks", "mbe", "supervisor shadow stack", "spp", "pml", "ve", "advanced", "memory types")
)
HOSTILITIES = (0.0, 0.01, 0.03, 0.1, 0.3)
MODES = ("off", "legacy", "pae", "long", "la57")
MODE_WEIGHTS = (4, 7, 7, 12, 8)
RAM_BYTES = FRAMES * 4096
KINDS = (reference.READ, reference.WRITE, reference.FETCH)
TYPES = np.array([UC, WC, WT, WP, WB, WB, WT, UC], np.uint8)
PAT_TYPES = np.array([UC, WC, WT, WP, WB, UC_MINUS, WB, WT], np.uint8)
LONG = ("long", "la57")


class Access(NamedTuple):
    address: int
    kind: str
    cpl: int
    ac: bool
    implicit: bool
    shadow_stack: bool
    code_64: bool
    physical: bool  # the address is guest-physical
    pkru: int
    pkrs: int


class World:
    """One world. It has each of the `features` half the time."""

    def __init__(self, seed, hostility, mode=None, features=ALL_FEATURES):
        self.chance = chance = random.Random(seed)
        self.dice = Dice(chance)
        self.hostility = hostility
        self.mode = mode or chance.choices(MODES, MODE_WEIGHTS)[0]
        self.features = {name for name in sorted(ALL_FEATURES) if self._happens(0.5) and name in features}
        if "shadow stacks" in self.features and self._happens(0.5):
            self.features |= {"supervisor shadow stack"} & features
        self.maxphyaddr = chance.choice((36, 39, 46, 52))
        self._choose_registers()
        self._choose_ept()
        self._choose_memory_types()
        self.privilege = chance.choice(("user", "mixed", "mixed", "supervisor"))
        words = np.zeros(FRAMES * 512, U)
        if self.mode != "off":
            fill_guest_tables(self, words, self.dice)
        if self.eptp:
            fill_ept(self, words, self.dice)
        if "spp" in self.features:
            fill_sppt(self, words, self.dice)
        self.words = words

    def _happens(self, probability):
        return self.chance.random() < probability

    def _flags(self, *choices):
        """A word with each of the (bit, probability) pairs."""
        return sum(1 << number for number, probability in choices if self.chance.random() < probability)

    def _frame(self, frame):
        """A frame's address, in a hostile world now and then another's or one outside RAM."""
        if self._happens(self.hostility * 0.1):
            frame = self.chance.choice((self.chance.randrange(FRAMES), NOWHERE))
        return frame << 12

    def _choose_registers(self):
        mode, keys = self.mode, 0.7 * ("keys" in self.features)
        self.efer = (1 << 10 if mode in LONG else 0) | self._flags((11, 0.8))
        self.cr0 = (0 if mode == "off" else 1 << 31) | self._flags((16, 0.7), (30, 0.05))
        self.cr4 = self._flags((4, 0.7), (7, 0.5), (20, 0.4), (21, 0.4), (22, keys), (24, keys))
        self.cr4 |= (0 if mode in ("off", "legacy") else 1 << 5) | (1 << 12 if mode == "la57" else 0)
        self.cr3 = self._frame(GUEST_ROOT) | self.chance.getrandbits(12) & 0x18
        self.page_1g = self._happens(0.88)
        self.pdpte = [self._frame(frame) | self._flags((0, 0.95)) for frame in GUEST_LEVELS["pae"][0]]

    def _choose_ept(self):
        chance, features = self.chance, self.features
        self.ept_levels = chance.choice((4, 4, 4, 5))
        self.capabilities = self._flags((0, 0.7), (16, 0.9), (17, 0.9)) | ("advanced" in features) << 22
        self.eptp = 0
        if self._happens(0.85):
            self.eptp = self._frame(EPT_ROOT) | (self.ept_levels - 1) << 3 | 6 | self._flags((6, 0.5))
            self.eptp |= ("supervisor shadow stack" in features) << 7
        self.large_ept = self._happens(0.3)
        self.table_rights = chance.choice(("kind", "kind", "holes"))
        self.page_rights = chance.choice(("kind", "mixed", "mixed", "executable", "read-only"))
        if "spp" in features:
            self.page_rights = chance.choice(("mixed", "read-only", "read-only"))
        self.spp_table = self._frame(SPPT_ROOT)
        self.pml_address = self._frame(PML_FRAME) if self._happens(0.9) else NOWHERE << 12
        if self.pml_address >> 12 in range(PML_FRAME):
            self.pml_address = PML_FRAME << 12  # what a log does to the tables under a walk is nobody's rule
        self.pml_index = chance.choice((511, 200, 30, 3, 1, 0, 0xFFFF, 512))

    def _choose_memory_types(self):
        """PAT and MTRRs. Ranges overlap only in the ways that the SDM defines."""
        chance = self.chance
        self.pat = int(PAT_TYPES[np.frombuffer(chance.randbytes(8), np.uint8) & 7].view(U)[0])
        fixed = TYPES[np.frombuffer(chance.randbytes(88), np.uint8) & 7].view(U).tolist()
        def_type = int(TYPES[chance.randrange(8)]) | self._flags((10, 0.6), (11, 0.9))
        types = chance.choice(((UC, WT, WB), (UC, WC), (UC, WP), (WB,)))
        variable = []
        for _ in range(chance.randrange(5)):
            size = 1 << chance.randrange(12, 18) if self._happens(0.6) else 1 << chance.randrange(20, 35)
            base = chance.randrange(1 << 35 if size >= 1 << 20 else RAM_BYTES) & -size
            mask = (1 << self.maxphyaddr) - size | (chance.random() < 0.9) << 11
            variable.append((base | chance.choice(types), mask))
        self.mtrrs = Mtrrs(def_type, fixed, variable)

    def accesses(self, count):
        """Random accesses."""
        dice, mode = self.dice, self.mode
        random = dice.words(count)
        choices = np.array(INDICES, U)
        per_level = 10 if mode == "legacy" else 9
        address = random & U(0xFFF)
        for level in range(5):
            index = choices[(random >> U(12 + 3 * level) & U(7)).astype(np.intp)]
            if level == 0:
                index = np.where(dice.happens(count, 0.05), random >> U(54) & U(0x1FF), index)
            elif mode == "off":
                index = np.where(dice.happens(count, 0.75), U(0), index)
            address |= index << U(12 + per_level * level)
        physical = dice.happens(count, 0.03)
        low_frame = address & U(0xFFF) | (random >> U(40) & U(63)) << U(12)
        address = np.where(physical & dice.happens(count, 0.9), low_frame, address)
        if mode in LONG:
            width = 57 if mode == "la57" else 48
            canonical = (address.view(np.int64) << (64 - width) >> (64 - width)).view(U)
            address = np.where(dice.happens(count, 0.97), canonical, address)
        shadow_stacks = "shadow stacks" in self.features and mode != "off"
        rights = dice.words(count) & dice.words(count)
        made = []
        for gla, word, keys, is_physical in zip(address.tolist(), random.tolist(), rights.tolist(), physical.tolist(), strict=True):
            kind = KINDS[(word >> 27 & 0xFF) % (2 if is_physical else 3)]
            shadow_stack = shadow_stacks and kind != reference.FETCH and word >> 34 & 7 < 3
            implicit = word >> 37 & 7 == 0 and not shadow_stack
            cpl = 3 if word >> 40 & 1 else word >> 41 & 3
            code_64 = word >> 43 & 31 != 0
            access = (gla, kind, cpl, word >> 48 & 3 == 0, implicit, shadow_stack, code_64, is_physical)
            made.append(Access(*access, keys & 0xFFFFFFFF, keys >> 32))
        return made

    def processor(self, make=reference.Processor):
        """The reference, with a copy of the memory."""
        has = self.features.__contains__
        return make(
            bytearray(self.words), self.cr0, self.cr3, self.cr4, self.efer, self.pdpte, pat=self.pat, mtrrs=self.mtrrs,
            eptp=self.eptp, ept_mbe=has("mbe"), spp_enabled=has("spp"), spp_table=self.spp_table, pml_enabled=has("pml"),
            pml_address=self.pml_address, pml_index=self.pml_index, ve_enabled=has("ve"), maxphyaddr=self.maxphyaddr,
            page_1g=self.page_1g, ept_execute_only=bool(self.capabilities & 1), ept_2m=bool(self.capabilities >> 16 & 1),
            ept_1g=bool(self.capabilities >> 17 & 1), ept_advanced=bool(self.capabilities >> 22 & 1),
        )  # fmt: skip

    def load_into(self, walker):
        """Put this world into a walker of the same RAM size."""
        Subject(walker).load(self)
