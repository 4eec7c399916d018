"""What translation depends on, how it can end, and memory. No code is shared with the kernels, here and in
translation.py, translation_ept.py, translation_memory_types.py.
"""

from dataclasses import dataclass, field

from tests.reference.translation_memory_types import Mtrrs

READ, WRITE, FETCH = "read", "write", "fetch"
POWER_UP_PAT = 0x0007_0406_0007_0406


class Failure(Exception):
    """How a translation can end other than well. `why` is for people and for counting; it is compared with nothing."""

    def __init__(self, why):
        super().__init__(why)
        self.why = why


class GeneralProtection(Failure):
    pass


class PageFault(Failure):
    def __init__(self, error_code, why):
        super().__init__(why)
        self.error_code = error_code


class EptViolation(Failure):
    def __init__(self, gpa, qualification, convertible, why):
        super().__init__(why)
        self.gpa, self.qualification, self.convertible = gpa, qualification, convertible


class EptMisconfiguration(Failure):
    def __init__(self, gpa, why):
        super().__init__(why)
        self.gpa = gpa


class PmlFull(Failure):
    def __init__(self, gpa):
        super().__init__("the page-modification log is full")
        self.gpa = gpa


class SppEvent(Failure):
    def __init__(self, gpa, qualification, why):
        super().__init__(why)
        self.gpa, self.qualification = gpa, qualification


def bit(value, number):
    return value >> number & 1


def bits(value, high, low):
    return value >> low & ((1 << (high - low + 1)) - 1)


def all_have(entries, number):
    """The logical AND of one bit in all entries; 0 if there are none."""
    return int(bool(entries) and all(bit(entry, number) for entry in entries))


@dataclass
class State:
    """Registers, controls, capabilities. `memory` is RAM from address 0; elsewhere reads give ones and stores are
    lost.
    """

    memory: bytearray
    cr0: int = 0
    cr3: int = 0
    cr4: int = 0
    efer: int = 0
    pdpte: list = field(default_factory=lambda: [0, 0, 0, 0])
    cpl: int = 0
    ac: bool = False
    code_64: bool = True  # 64-bit code, not compatibility mode, where EFER.LMA = 1
    pkru: int = 0
    pkrs: int = 0
    pat: int = POWER_UP_PAT
    mtrrs: Mtrrs = field(default_factory=Mtrrs)

    eptp: int = 0  # 0: EPT is off
    ept_mbe: bool = False  # mode-based execute control for EPT
    spp_enabled: bool = False  # sub-page write permissions for EPT
    spp_table: int = 0
    pml_enabled: bool = False  # page-modification logging
    pml_address: int = 0
    pml_index: int = 0
    ve_enabled: bool = False  # EPT-violation #VE

    maxphyaddr: int = 46
    page_1g: bool = True  # the guest has 1-GByte pages
    ept_execute_only: bool = True
    ept_2m: bool = True
    ept_1g: bool = True
    ept_advanced: bool = False  # advanced VM-exit information for EPT violations

    references: int = 0  # of the latest translation

    def __post_init__(self):
        self.quadwords, self.doublewords = memoryview(self.memory).cast("Q"), memoryview(self.memory).cast("I")

    # Whatever translation reads or writes is aligned: entries by their index, the log by its page-aligned address.
    def load(self, hpa, size):
        if hpa + size > len(self.memory):
            return (1 << 8 * size) - 1
        return self.quadwords[hpa // 8] if size == 8 else self.doublewords[hpa // 4]

    def save(self, hpa, size, value):
        if hpa + size <= len(self.memory):
            if size == 8:
                self.quadwords[hpa // 8] = value
            else:
                self.doublewords[hpa // 4] = value
