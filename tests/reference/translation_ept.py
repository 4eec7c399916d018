"""EPT written from the SDM: Vol. 3C, 'The Extended Page Table Mechanism (EPT)'.

Where the manual leaves a choice, this is it: flags of EPT entries are set when an EPT walk has found its access
permitted; an address beyond the walk length is a violation that is not convertible, with no permissions; undefined
bits of the qualification are 0; a log entry is written before the flags that caused it.
"""

from typing import NamedTuple

from tests.reference.translation_state import (
    EptMisconfiguration,
    EptViolation,
    PmlFull,
    SppEvent,
    State,
    all_have,
    bit,
    bits,
)

NO_LINEAR_ADDRESS, TABLE, PAGE = "none", "table", "page"  # how a linear address is involved in a guest-physical access


class LinearPage(NamedTuple):
    """What the guest's entries say of the page of a linear address."""

    user_mode: int
    writable: int
    execute_disable: int


UNPAGED = LinearPage(user_mode=1, writable=1, execute_disable=0)  # CR0.PG = 0: Vol. 3C, 'Exit Qualification for EPT Violations'


class EptAccess(NamedTuple):
    """An access with a guest-physical address."""

    read: bool
    write: bool
    fetch: bool
    involves: str = NO_LINEAR_ADDRESS
    page: LinearPage | None = None  # where a PAGE is accessed
    shadow_stack: bool = False
    supervisor: bool = False  # the access has supervisor privilege


TABLE_READ = EptAccess(read=True, write=False, fetch=False, involves=TABLE)
TABLE_READ_WRITE = EptAccess(read=True, write=True, fetch=False, involves=TABLE)


class Ept(State):
    """Translation of guest-physical addresses."""

    def ept(self, gpa, access, counted=True):
        """(host-physical address, the EPT entry that maps the page: None without EPT)"""
        if self.eptp == 0:
            return gpa, None
        length = bits(self.eptp, 5, 3) + 1
        if gpa >> (12 + 9 * length):
            raise EptViolation(gpa, self.qualification(access, [], leaf=None), 0, "beyond the walk length")
        table = bits(self.eptp, 51, 12) << 12
        addresses, entries = [], []
        for level in range(length, 0, -1):
            address = table + 8 * bits(gpa, 9 * level + 11, 9 * level + 3)
            entry = self.load(address, 8)
            self.references += counted
            addresses.append(address)
            entries.append(entry)
            if not self.ept_present(entry):
                qualification = self.qualification(access, entries, leaf=None)
                raise EptViolation(gpa, qualification, self.convertible(entry), "not present")
            maps_page = level == 1 or (level in (2, 3) and bit(entry, 7))
            why = self.misconfigured(entry, level, maps_page)
            if why:
                raise EptMisconfiguration(gpa, why)
            if maps_page:
                break
            table = bits(entry, 51, 12) << 12
        leaf = entries[-1]
        forbidden = self.ept_forbids(access, entries)
        if forbidden and not self.sub_page_permits(gpa, access, entries, level):
            raise EptViolation(gpa, self.qualification(access, entries, leaf), self.convertible(leaf), forbidden)
        if bit(self.eptp, 6):
            self.set_ept_flags(gpa, access, addresses, leaf)
        size = 12 + 9 * (level - 1)
        return bits(leaf, 51, size) << size | bits(gpa, size - 1, 0), leaf

    def guest_table(self, gpa):
        """Host-physical address of a guest paging-structure entry that is read. 'Accessed and Dirty Flags for EPT':
        treated as a write while the flags are on.
        """
        return self.ept(gpa, TABLE_READ_WRITE if bit(self.eptp, 6) else TABLE_READ)[0]

    # ---- entries
    def ept_present(self, entry):
        """'EPT Translation Mechanism'"""
        return bits(entry, 2, 0) != 0 or (self.ept_mbe and bit(entry, 10) != 0)

    def misconfigured(self, entry, level, maps_page):
        """'EPT Misconfigurations': what is wrong with a present entry, or None"""
        readable, writable, executable = bit(entry, 0), bit(entry, 1), bit(entry, 2)
        if self.ept_mbe:
            executable |= bit(entry, 10)
        if writable and not readable:
            return "write without read"
        if executable and not readable and not self.ept_execute_only:
            return "execute-only"
        if bits(entry, 51, self.maxphyaddr):
            return "address beyond MAXPHYADDR"
        if not maps_page:
            reserved = bits(entry, 7, 3) if level >= 4 else bits(entry, 6, 3)
            return "reserved bits of a table reference" if reserved else None
        if (level == 3 and not self.ept_1g) or (level == 2 and not self.ept_2m):
            return "no such page size"
        if (level == 3 and bits(entry, 29, 12)) or (level == 2 and bits(entry, 20, 12)):
            return "low address bits of a large page"
        return "memory type" if bits(entry, 5, 3) in (2, 3, 7) else None

    def ept_forbids(self, access, entries):
        """'EPT Violations', after the walk: what is forbidden, or None"""
        leaf = entries[-1]
        if self.is_supervisor_shadow_stack(access):
            tables = entries[:-1]
            permitted = all(bit(entry, 0) and bit(entry, 1) for entry in tables) and bit(leaf, 0) and bit(leaf, 60)
            return None if permitted else "supervisor shadow stack"
        if access.read and not all_have(entries, 0):
            return "read"
        if access.write and not all_have(entries, 1):
            return "write"
        if access.fetch:
            by_user_bit = self.ept_mbe and access.page.user_mode
            if not all_have(entries, 10 if by_user_bit else 2):
                return "user-mode execute" if by_user_bit else "execute"
        return None

    def is_supervisor_shadow_stack(self, access):
        """Whether the leaf's bit 60 decides. 'Supervisor shadow-stack control' is bit 7 of EPTP."""
        return bit(self.eptp, 7) and access.involves == PAGE and access.shadow_stack and access.supervisor

    # ---- violations
    def qualification(self, access, entries, leaf):
        """Vol. 3C, table 'Exit Qualification for EPT Violations'. `leaf`: the entry that maps the page, if the walk
        reached one.
        """
        value = access.read | access.write << 1 | access.fetch << 2
        value |= all_have(entries, 0) << 3 | all_have(entries, 1) << 4 | all_have(entries, 2) << 5
        if self.ept_mbe:
            value |= all_have(entries, 10) << 6
        if access.involves in (TABLE, PAGE):
            value |= 1 << 7
        if access.involves == PAGE:
            value |= 1 << 8
            if self.ept_advanced:
                value |= access.page.user_mode << 9 | access.page.writable << 10 | access.page.execute_disable << 11
            value |= access.shadow_stack << 13
        if bit(self.eptp, 7) and leaf is not None:
            value |= bit(leaf, 60) << 14
        return value

    def convertible(self, entry):
        """'Convertible EPT Violations': bit 63 is 'suppress #VE'."""
        return int(self.ve_enabled and not bit(entry, 63))

    # ---- sub-page write permissions
    def sub_page_permits(self, gpa, access, entries, level):
        """'Sub-Page Write Permissions': whether a write that the EPT entries forbid is permitted after all."""
        if not self.spp_enabled or not access.write or access.involves != PAGE or level != 1:
            return False
        if self.is_supervisor_shadow_stack(access):
            return False
        if not bit(entries[-1], 61) or not all_have(entries, 0) or all_have(entries, 1):
            return False
        table = bits(self.spp_table, 51, 12) << 12
        for level in (4, 3, 2):
            entry = self.load(table + 8 * bits(gpa, 9 * level + 11, 9 * level + 3), 8)
            if not bit(entry, 0):
                raise SppEvent(gpa, 1 << 11, "miss")
            if bits(entry, 11, 1) or bits(entry, 63, self.maxphyaddr):
                raise SppEvent(gpa, 0, "misconfiguration of a table reference")
            table = bits(entry, 51, 12) << 12
        vector = self.load(table + 8 * bits(gpa, 20, 12), 8)
        if any(bit(vector, number) for number in range(1, 64, 2)):
            raise SppEvent(gpa, 0, "misconfiguration of a vector")
        return bit(vector, 2 * bits(gpa, 11, 7))

    # ---- flags and log
    def set_ept_flags(self, gpa, access, addresses, leaf):
        """'Accessed and Dirty Flags for EPT', 'Page-Modification Logging'"""
        nothing_to_do = all(bit(self.load(address, 8), 8) for address in addresses) and (not access.write or bit(leaf, 9))
        if nothing_to_do:
            return
        if self.pml_enabled and self.pml_index > 511:
            raise PmlFull(gpa)
        if self.pml_enabled and access.write and not bit(leaf, 9):
            self.save(self.pml_address + 8 * self.pml_index, 8, gpa >> 12 << 12)
            self.pml_index = (self.pml_index - 1) & 0xFFFF
        for address in addresses:
            self.save(address, 8, self.load(address, 8) | 1 << 8)
        if access.write:
            self.save(addresses[-1], 8, self.load(addresses[-1], 8) | 1 << 9)
