"""Address translation written from the SDM's text: slow, obvious, on Python integers. It shares nothing with the
kernels.

SDM Vol. 3A, chapter 'Paging'; Vol. 3C, chapter 'VMX Support for Address Translation'. Where the manual leaves a
choice, this is it: flags of guest entries are set once the walk has found the access permitted, from the top down,
before the page itself is translated through EPT; flags of EPT entries are set when an EPT walk has found its access
permitted.
"""

from dataclasses import dataclass, field

READ, WRITE, FETCH = "read", "write", "fetch"


class PageFault(Exception):
    def __init__(self, error_code):
        self.error_code = error_code


class GeneralProtection(Exception):
    pass


class EptViolation(Exception):
    def __init__(self, gpa, qualification):
        self.gpa, self.qualification = gpa, qualification


class EptMisconfiguration(Exception):
    def __init__(self, gpa):
        self.gpa = gpa


def bit(value, number):
    return value >> number & 1


def bits(value, high, low):
    return value >> low & ((1 << (high - low + 1)) - 1)


@dataclass
class Processor:
    """What translation depends on. `memory` is RAM from address 0; elsewhere reads give ones and stores are lost."""

    memory: bytearray
    cr0: int = 0
    cr3: int = 0
    cr4: int = 0
    efer: int = 0
    cpl: int = 0
    ac: bool = False
    eptp: int = 0
    pdpte: list = field(default_factory=lambda: [0, 0, 0, 0])
    maxphyaddr: int = 46
    page_1g: bool = True
    ept_execute_only: bool = True
    ept_2m: bool = True
    ept_1g: bool = True
    references: int = 0

    # ---- memory
    def load(self, hpa, size):
        if hpa + size > len(self.memory):
            return (1 << 8 * size) - 1
        return int.from_bytes(self.memory[hpa : hpa + size], "little")

    def save(self, hpa, size, value):
        if hpa + size <= len(self.memory):
            self.memory[hpa : hpa + size] = value.to_bytes(size, "little")

    # ---- EPT
    def ept(self, gpa, read=False, write=False, fetch=False, linear=None, counted=True):
        """Host-physical address. `linear`: None, "table" or "page": how a linear address is involved."""
        if self.eptp == 0:
            return gpa
        asked = read | write << 1 | fetch << 2
        extra = {None: 0, "table": 1 << 7, "page": 1 << 7 | 1 << 8}[linear]
        length = bits(self.eptp, 5, 3) + 1
        if gpa >> (12 + 9 * length):
            raise EptViolation(gpa, asked | extra)
        table = bits(self.eptp, 51, 12) << 12
        used = []
        permitted = 0b111
        for level in range(length, 0, -1):
            address = table + 8 * bits(gpa, 9 * level + 11, 9 * level + 3)
            entry = self.load(address, 8)
            self.references += counted
            used.append(address)
            if bits(entry, 2, 0) == 0:
                raise EptViolation(gpa, asked | extra)
            maps_page = level == 1 or (level in (2, 3) and bit(entry, 7))
            if self.ept_entry_is_misconfigured(entry, level, maps_page):
                raise EptMisconfiguration(gpa)
            permitted &= bits(entry, 2, 0)
            if maps_page:
                break
            table = bits(entry, 51, 12) << 12
        if asked & ~permitted:
            raise EptViolation(gpa, asked | permitted << 3 | extra)
        if bit(self.eptp, 6):
            for address in used:
                self.save(address, 8, self.load(address, 8) | 1 << 8)
            if write:
                self.save(used[-1], 8, self.load(used[-1], 8) | 1 << 9)
        size = 12 + 9 * (level - 1)
        return bits(entry, 51, size) << size | bits(gpa, size - 1, 0)

    def ept_entry_is_misconfigured(self, entry, level, maps_page):
        r, w, x = bit(entry, 0), bit(entry, 1), bit(entry, 2)
        if w and not r:
            return True
        if x and not r and not self.ept_execute_only:
            return True
        if bits(entry, 51, self.maxphyaddr):
            return True
        if not maps_page:
            return bits(entry, 7, 3) != 0 if level >= 4 else bits(entry, 6, 3) != 0
        if level == 3 and (not self.ept_1g or bits(entry, 29, 12)):
            return True
        if level == 2 and (not self.ept_2m or bits(entry, 20, 12)):
            return True
        return bits(entry, 5, 3) in (2, 3, 7)

    def guest_table_access(self, gpa):
        return self.ept(gpa, read=True, write=bool(bit(self.eptp, 6)), linear="table")

    # ---- linear addresses
    def translate(self, gla, access, implicit=False):
        """(gpa, hpa); raises PageFault, GeneralProtection, EptViolation, EptMisconfiguration. 32-bit modes take 32
        bits.
        """
        self.references = 0
        kinds = {"read": access == READ, "write": access == WRITE, "fetch": access == FETCH}
        lma = bit(self.efer, 10)
        if not lma:
            gla &= 0xFFFFFFFF
        if not bit(self.cr0, 31):
            return gla, self.ept(gla, linear="page", **kinds)
        if lma:
            width = 57 if bit(self.cr4, 12) else 48
            if bits(gla, 63, width - 1) not in (0, (1 << (65 - width)) - 1):
                raise GeneralProtection
        user = self.cpl == 3 and not implicit
        path = self.walk(gla, access, user)
        self.check_rights(path, access, user, implicit)
        for position, (entry_gpa, entry_hpa, _, size) in enumerate(path):
            old = self.load(entry_hpa, size)
            new = old | 1 << 5
            if access == WRITE and position == len(path) - 1:
                new |= 1 << 6
            if new != old:
                self.ept(entry_gpa, read=True, write=True, linear="table", counted=False)
                self.save(entry_hpa, size, new)
        gpa = self.page_address(gla, path)
        return gpa, self.ept(gpa, linear="page", **kinds)

    def levels(self):
        """(number of levels walked, bits per level, bytes per entry)"""
        if bit(self.efer, 10):
            return (5 if bit(self.cr4, 12) else 4), 9, 8
        return (2, 9, 8) if bit(self.cr4, 5) else (2, 10, 4)

    def walk(self, gla, access, user):
        """[(gpa, hpa, value, bytes) of each entry used]"""
        count, per_level, size = self.levels()
        if size == 4:
            table = bits(self.cr3, 31, 12) << 12
        elif count == 2:
            pdpte = self.pdpte[bits(gla, 31, 30)]
            if not bit(pdpte, 0):
                raise PageFault(self.error_code(access, user, present=0, reserved=0))
            table = bits(pdpte, 51, 12) << 12
        else:
            table = bits(self.cr3, 51, 12) << 12
        path = []
        for level in range(count, 0, -1):
            low = 12 + per_level * (level - 1)
            gpa = table + size * bits(gla, low + per_level - 1, low)
            hpa = self.guest_table_access(gpa)
            entry = self.load(hpa, size)
            self.references += 1
            path.append((gpa, hpa, entry, size))
            if not bit(entry, 0):
                raise PageFault(self.error_code(access, user, present=0, reserved=0))
            large = level > 1 and bit(entry, 7) and (size == 8 or bit(self.cr4, 4))
            if self.reserved_bits_set(entry, level, size, large):
                raise PageFault(self.error_code(access, user, present=1, reserved=1))
            if large:
                break
            table = bits(entry, 51, 12) << 12
        return path

    def reserved_bits_set(self, entry, level, size, large):
        if size == 4:
            if not large:
                return False
            top = min(40, self.maxphyaddr)  # PSE-36: bits 20:13 give address bits 39:32
            return bits(entry, 21, top - 19) != 0
        if bits(entry, 51, self.maxphyaddr):
            return True
        if not bit(self.efer, 10) and bits(entry, 62, 52):
            return True
        if bit(entry, 63) and not bit(self.efer, 11):
            return True
        if large:
            if level >= 4 or (level == 3 and not self.page_1g):
                return True
            return bits(entry, 29 if level == 3 else 20, 13) != 0
        return False

    def check_rights(self, path, access, user, implicit):
        entries = [entry for _, _, entry, _ in path]
        writable = all(bit(entry, 1) for entry in entries)
        user_page = all(bit(entry, 2) for entry in entries)
        no_execute = any(bit(entry, 63) for entry in entries)
        if user:
            allowed = user_page and (writable or access != WRITE) and not (access == FETCH and no_execute)
        elif access == FETCH:
            allowed = not no_execute and not (bit(self.cr4, 20) and user_page)
        else:
            allowed = True
            if access == WRITE and bit(self.cr0, 16) and not writable:
                allowed = False
            if user_page and bit(self.cr4, 21) and (implicit or not self.ac):
                allowed = False
        if not allowed:
            raise PageFault(self.error_code(access, user, present=1, reserved=0))

    def error_code(self, access, user, present, reserved):
        fetch_reported = bit(self.cr4, 20) or (bit(self.cr4, 5) and bit(self.efer, 11))
        code = present | user << 2 | reserved << 3
        code |= (access == WRITE) << 1
        return code | (access == FETCH and fetch_reported) << 4

    def page_address(self, gla, path):
        count, per_level, size = self.levels()
        entry = path[-1][2]
        level = count - len(path) + 1
        offset_bits = 12 + per_level * (level - 1)
        if offset_bits == 22:
            return bits(entry, 20, 13) << 32 | bits(entry, 31, 22) << 22 | bits(gla, 21, 0)
        return bits(entry, 51, offset_bits) << offset_bits | bits(gla, offset_bits - 1, 0)
