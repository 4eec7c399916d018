"""What the instruction at CS:RIP wants of memory: Unicorn asks for a read or a write, and the processor may mean something else."""

from typing import TYPE_CHECKING

from vmxemu.cpu.decode import decode
from vmxemu.cpu.layout import HF_CPL, RSP, SS
from vmxemu.cpu.memory_uses import DESCRIPTOR, READ_MODIFY_WRITE, STACK, memory_uses
from vmxemu.cpu.operand import linear_of
from vmxemu.cpu.stack import stack_mask
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.outcome import DONE
from vmxemu.translation.bits import CR4_SMAP, RFLAGS_AC
from vmxemu.translation.inline import apart
from vmxemu.translation.layout import IMPLICIT_SUPERVISOR, READ, WRITE

if TYPE_CHECKING:
    from vmxemu.state import State

PAGE, BYTE = U(4096), U(1)
LARGEST_FAR_POINTER, STACK_REACH = U(10), U(64)


@apart
def intended_access(m: "State", page: int) -> int:
    """The access, to be checked and to set flags, for which Unicorn reads from `page`.

    WRITE for the operand of a read-modify-write instruction, which Unicorn loads first. With SMAP, READ | IMPLICIT_SUPERVISOR
    for descriptors; what shares a page with the instruction's own operand or stack counts as that. Else READ.
    """
    if decode(m) != DONE:
        return READ
    insn = m.cpu.insn
    uses = memory_uses(m.r.mode, insn.opcode, insn.modrm)
    if uses & READ_MODIFY_WRITE != 0:
        return WRITE
    if uses & DESCRIPTOR != 0 and smap_tells_apart(m) and not is_software_access(m, uses, page, PAGE):
        return READ | IMPLICIT_SUPERVISOR
    return READ


@kernel
def smap_tells_apart(m: "State") -> bool:
    """Whether there are reads that software may do and the processor on its behalf may not."""
    return m.r.cr[4] & CR4_SMAP != 0 and (m.r.mode & HF_CPL == 3 or m.r.eflags & RFLAGS_AC != 0)


@kernel
def reads_descriptor(m: "State", gla: int) -> bool:
    """Whether the access to `gla` of the instruction at CS:RIP is to a descriptor table or the TSS. Unicorn does these as the
    processor's own; its memory operand and its stack are not: there the software's own rights count.
    """
    if decode(m) != DONE:
        return False
    uses = memory_uses(m.r.mode, m.cpu.insn.opcode, m.cpu.insn.modrm)
    return uses & DESCRIPTOR != 0 and not is_software_access(m, uses, gla, BYTE)


@kernel
def is_software_access(m: "State", uses: int, gla: int, size: int) -> bool:
    """Whether [gla, gla + size) meets the memory operand or the stack of the decoded instruction, which may read descriptors."""
    insn = m.cpu.insn
    if insn.is_memory != 0 and overlap(insn.linear, LARGEST_FAR_POINTER, gla, size):
        return True
    top = linear_of(m, SS, m.r.gpr[RSP] & stack_mask(m))
    return uses & STACK != 0 and overlap(top - STACK_REACH, 2 * STACK_REACH, gla, size)


@kernel
def overlap(first: int, first_size: int, second: int, second_size: int) -> bool:
    """Whether two pieces of the address space have a byte in common."""
    return second - first < first_size or first - second < second_size
