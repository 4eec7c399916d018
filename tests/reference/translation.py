"""Address translation written from the SDM's text: slow, obvious, on Python integers. It shares nothing with the
kernels.

SDM Vol. 3A, chapter 'Paging'; translation_ept.py has EPT. Where the manual leaves a choice, this is it: flags of guest
entries are set once the walk has found the access permitted, from the top down, before the page itself is translated
through EPT; a protection key that denies is told in the error code even where another right is missing too.
"""

from typing import NamedTuple

from tests.reference.translation_ept import NO_LINEAR_ADDRESS, PAGE, TABLE_READ_WRITE, UNPAGED, Ept, EptAccess, LinearPage
from tests.reference.translation_memory_types import WB, memory_type, pat_type
from tests.reference.translation_state import (
    FETCH,
    READ,
    WRITE,
    EptMisconfiguration,
    EptViolation,
    GeneralProtection,
    PageFault,
    PmlFull,
    SppEvent,
    all_have,
    bit,
    bits,
)

__all__ = [
    "FETCH", "READ", "WRITE", "EptMisconfiguration", "EptViolation", "GeneralProtection", "PageFault", "PmlFull", "Processor",
    "SppEvent",
]  # fmt: skip


class Translation(NamedTuple):
    gpa: int
    hpa: int
    memory_type: int | None  # None where the manual leaves it undefined
    key: int | None  # None where no protection key has effect on the page


class Request(NamedTuple):
    """An access to a linear address."""

    kind: str  # READ, WRITE, FETCH
    user: bool  # user-mode access
    implicit: bool  # supervisor access by the processor itself, whatever the CPL
    shadow_stack: bool


class Entry(NamedTuple):
    """A guest paging-structure entry that a walk has used."""

    gpa: int
    hpa: int
    value: int
    size: int


class Processor(Ept):
    def translate(self, gla, access, implicit=False, shadow_stack=False):
        """Translation of a linear address; raises PageFault, GeneralProtection, EptViolation, EptMisconfiguration,
        PmlFull, SppEvent.
        """
        self.references = 0
        request = Request(access, self.cpl == 3 and not implicit, implicit, shadow_stack)
        if not bit(self.efer, 10) or not (self.code_64 or implicit):
            gla &= 0xFFFFFFFF
        if not bit(self.cr0, 31):
            return self.access_page(gla, request, UNPAGED, WB, None)
        if bit(self.efer, 10):
            width = 57 if bit(self.cr4, 12) else 48
            if bits(gla, 63, width - 1) not in (0, (1 << (65 - width)) - 1):
                raise GeneralProtection("not canonical")
        path = self.walk(gla, request)
        values = [entry.value for entry in path]
        page = LinearPage(all_have(values, 2), all_have(values, 1), int(any(bit(value, 63) for value in values)))
        key = self.protection_key(values[-1], page)
        self.check_rights(values, request, page, key)
        self.set_flags(path, request)
        gpa = self.page_address(gla, path)
        return self.access_page(gpa, request, page, self.pat_memory_type(path), key)

    def access_page(self, gpa, request, page, from_pat, key):
        kind = request.kind
        access = EptAccess(
            kind == READ, kind == WRITE, kind == FETCH, PAGE, page, request.shadow_stack, supervisor=not request.user
        )
        hpa, ept_leaf = self.ept(gpa, access)
        return Translation(gpa, hpa, memory_type(bit(self.cr0, 30), from_pat, self.mtrrs, hpa, ept_leaf), key)

    def translate_guest_physical(self, gpa, access):
        """Host-physical address for a READ or WRITE without a linear address."""
        self.references = 0
        return self.ept(gpa, EptAccess(access == READ, access == WRITE, fetch=False, involves=NO_LINEAR_ADDRESS))[0]

    # ---- the walk: Vol. 3A, '32-Bit Paging', 'PAE Paging', '4-Level Paging and 5-Level Paging'
    def levels(self):
        """(number of levels walked, bits per level, bytes per entry)"""
        if bit(self.efer, 10):
            return (5 if bit(self.cr4, 12) else 4), 9, 8
        return (2, 9, 8) if bit(self.cr4, 5) else (2, 10, 4)

    def walk(self, gla, request):
        """The entries used, from the top."""
        count, per_level, size = self.levels()
        if size == 4:
            table = bits(self.cr3, 31, 12) << 12
        elif count == 2:
            pdpte = self.pdpte[bits(gla, 31, 30)]
            if not bit(pdpte, 0):
                raise PageFault(self.error_code(request, present=0), "PDPTE not present")
            table = bits(pdpte, 51, 12) << 12
        else:
            table = bits(self.cr3, 51, 12) << 12
        path = []
        for level in range(count, 0, -1):
            low = 12 + per_level * (level - 1)
            gpa = table + size * bits(gla, low + per_level - 1, low)
            hpa = self.guest_table(gpa)
            value = self.load(hpa, size)
            self.references += 1
            path.append(Entry(gpa, hpa, value, size))
            if not bit(value, 0):
                raise PageFault(self.error_code(request, present=0), "not present")
            large = level > 1 and bit(value, 7) and (size == 8 or bit(self.cr4, 4))
            why = self.reserved_bits_set(value, level, size, large)
            if why:
                raise PageFault(self.error_code(request, present=1, reserved=1), why)
            if large:
                break
            table = bits(value, 51, 12) << 12
        return path

    def reserved_bits_set(self, entry, level, size, large):
        """Which reserved bits of a present entry are set, or None"""
        if size == 4:
            if not large:
                return None
            top = min(40, self.maxphyaddr)  # PSE-36: bits 20:13 give address bits 39:32
            return "PSE-36 address" if bits(entry, 21, top - 19) else None
        if bits(entry, 51, self.maxphyaddr):
            return "address beyond MAXPHYADDR"
        if not bit(self.efer, 10) and bits(entry, 62, 52):
            return "bits 62:52 in PAE paging"
        if bit(entry, 63) and not bit(self.efer, 11):
            return "XD without NXE"
        if large:
            if level >= 4:
                return "PS in a PML4E or PML5E"
            if level == 3 and not self.page_1g:
                return "no 1-GByte pages"
            if bits(entry, 29 if level == 3 else 20, 13):
                return "low address bits of a large page"
        return None

    def page_address(self, gla, path):
        low = self.offset_bits(path)
        entry = path[-1].value
        if low == 22:
            return bits(entry, 20, 13) << 32 | bits(entry, 31, 22) << 22 | bits(gla, 21, 0)
        return bits(entry, 51, low) << low | bits(gla, low - 1, 0)

    def offset_bits(self, path):
        """How many bits of the linear address are the offset within the page."""
        count, per_level, _ = self.levels()
        return 12 + per_level * (count - len(path))

    def pat_memory_type(self, path):
        """'Paging and Memory Typing When the PAT is Supported'"""
        entry = path[-1].value
        pat_bit = bit(entry, 12 if self.offset_bits(path) > 12 else 7)
        return pat_type(self.pat, pat_bit << 2 | bit(entry, 4) << 1 | bit(entry, 3))

    # ---- rights: Vol. 3A, 'Access Rights', 'Protection Keys'
    def check_rights(self, values, request, page, key):
        """Raises PageFault unless the access is permitted."""
        if request.shadow_stack:
            tables, leaf = values[:-1], values[-1]
            is_shadow_stack = all(bit(value, 1) for value in tables) and not bit(leaf, 1) and bit(leaf, 6)
            forbidden = None if is_shadow_stack and page.user_mode == request.user else "shadow stack"
        elif request.user:
            forbidden = self.user_forbidden(request.kind, page)
        else:
            forbidden = self.supervisor_forbidden(request, page)
        key_denies = key is not None and self.key_denies(key, request, page)
        if forbidden or key_denies:
            code = self.error_code(request, present=1, key=key_denies)
            raise PageFault(code, forbidden or ("key of a user page" if page.user_mode else "key of a supervisor page"))

    def user_forbidden(self, kind, page):
        if not page.user_mode:
            return "supervisor page"
        if kind == WRITE and not page.writable:
            return "write"
        return "XD" if kind == FETCH and page.execute_disable else None

    def supervisor_forbidden(self, request, page):
        smep, smap, write_protect = bit(self.cr4, 20), bit(self.cr4, 21), bit(self.cr0, 16)
        if request.kind == FETCH:
            if page.execute_disable:
                return "XD"
            return "SMEP" if smep and page.user_mode else None
        if smap and page.user_mode and (request.implicit or not self.ac):
            return "SMAP"
        return "write" if request.kind == WRITE and write_protect and not page.writable else None

    def protection_key(self, leaf, page):
        """The key of a page for which keys are in force: CR4.PKE for user-mode addresses, CR4.PKS for others."""
        in_force = bit(self.efer, 10) and bit(self.cr4, 22 if page.user_mode else 24)
        return bits(leaf, 62, 59) if in_force else None

    def key_denies(self, key, request, page):
        if request.kind == FETCH:
            return False
        rights = self.pkru if page.user_mode else self.pkrs
        access_disable, write_disable = bit(rights, 2 * key), bit(rights, 2 * key + 1)
        if access_disable:
            return True
        write_protect = bit(self.cr0, 16)
        return bool(write_disable and request.kind == WRITE and (write_protect or (request.user and page.user_mode)))

    def error_code(self, request, present, reserved=0, key=0):
        """Vol. 3A, 'Page-Fault Exceptions'"""
        code = present | (request.kind == WRITE) << 1 | request.user << 2 | reserved << 3
        if request.kind == FETCH and (bit(self.cr4, 20) or (bit(self.cr4, 5) and bit(self.efer, 11))):
            code |= 1 << 4
        return code | key << 5 | request.shadow_stack << 6

    # ---- Vol. 3A, 'Accessed and Dirty Flags'
    def set_flags(self, path, request):
        for entry in path:
            old = self.load(entry.hpa, entry.size)
            new = old | 1 << 5
            if request.kind == WRITE and entry is path[-1]:
                new |= 1 << 6
            if new != old:
                self.ept(entry.gpa, TABLE_READ_WRITE, counted=False)
                self.save(entry.hpa, entry.size, new)
