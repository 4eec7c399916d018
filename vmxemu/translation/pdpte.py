"""The PDPTE registers of PAE paging. SDM Vol. 3A, 'PDPTE Registers'."""

from typing import TYPE_CHECKING

from vmxemu.isa import exceptions
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import read64
from vmxemu.outcome import fault_with
from vmxemu.translation.bits import PDPTE_RESERVED, P
from vmxemu.translation.layout import READ
from vmxemu.translation.translate import translate_guest_physical

if TYPE_CHECKING:
    from vmxemu.state import State

GP = exceptions.GP
EVERYTHING = U(0xFFFFFFFFFFFFFFFF)


@kernel
def pdpte_is_bad(m: "State", pdpte: int) -> bool:
    """Whether a present PDPTE has reserved bits set: 2:1, 8:5 and those above the physical-address width."""
    return pdpte & P != 0 and pdpte & (PDPTE_RESERVED | EVERYTHING << m.cpu.physical_bits) != 0


@kernel
def load_pdptes(m: "State", cr3: int) -> int:
    """Load the four registers from the table at CR3 bits 31:5, read through EPT where it is on. All or none.

    DONE; #GP(0) for a bad PDPTE; EPT_VIOLATION (its qualification says that no linear address is involved) or
    EPT_MISCONFIG.
    """
    table = cr3 & 0xFFFFFFE0
    outcome = translate_guest_physical(m, table, READ)
    if outcome != 0:
        return outcome
    at = m.walk.hpa
    first, second, third, fourth = read64(m, at), read64(m, at + 8), read64(m, at + 16), read64(m, at + 24)
    if pdpte_is_bad(m, first) or pdpte_is_bad(m, second) or pdpte_is_bad(m, third) or pdpte_is_bad(m, fourth):
        return fault_with(GP, 0)
    m.paging.pdpte0 = first
    m.paging.pdpte1 = second
    m.paging.pdpte2 = third
    m.paging.pdpte3 = fourth
    return 0
