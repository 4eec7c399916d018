"""Delivery of one event, written to be read: the oracle for vmxemu.cpu.delivery. SDM Vol. 2A, 'INT n'; Vol. 3A, ch. 6.

Works on a copy: memory is a flat bytearray (linear = physical), registers are a `Cpu`. A fault is an exception.
"""

from dataclasses import dataclass, field

DE, NP, TS, SS_FAULT, GP, PF = 0, 11, 10, 12, 13, 14
CS, SS, TR, IDT = 1, 2, 7, 9
GDT, LDT = 8, 6
FAULT_VECTORS = {0, 5, 6, 7, 10, 11, 12, 13, 14, 16, 17, 19, 20, 21}
TF, IF, NT, RF, VM, AC = 0x100, 0x200, 0x4000, 0x10000, 0x20000, 0x40000


class Fault(Exception):
    def __init__(self, vector: int, error: int | None) -> None:
        super().__init__(vector, error)
        self.vector, self.error = vector, error


class TaskGate(Exception):
    """Not modelled."""


@dataclass
class Segment:
    selector: int
    base: int
    limit: int
    flags: int


@dataclass
class Cpu:
    mode: str  # real, protected, virtual, long
    cpl: int
    rip: int
    rsp: int
    flags: int
    seg: list[Segment]
    memory: bytearray = field(repr=False)
    stack_bits: int = 32

    def read(self, at: int, size: int) -> int:
        cells = (self.memory[i] if i < len(self.memory) else 0xFF for i in range(at, at + size))
        return int.from_bytes(bytes(cells), "little")

    def write(self, at: int, size: int, value: int) -> None:
        for i in range(size):
            if at + i < len(self.memory):
                self.memory[at + i] = value >> 8 * i & 0xFF


@dataclass
class Descriptor:
    raw: int

    @property
    def base(self) -> int:
        return self.raw >> 16 & 0xFFFFFF | self.raw >> 56 << 24

    @property
    def limit(self) -> int:
        limit = self.raw & 0xFFFF | (self.raw >> 48 & 15) << 16
        return limit << 12 | 0xFFF if self.raw >> 55 & 1 else limit

    @property
    def kind(self) -> int:
        return self.raw >> 40 & 0x1F  # S and type

    @property
    def dpl(self) -> int:
        return self.raw >> 45 & 3

    @property
    def present(self) -> bool:
        return bool(self.raw >> 47 & 1)

    @property
    def is_code(self) -> bool:
        return self.kind & 0x18 == 0x18

    @property
    def conforming(self) -> bool:
        return self.kind & 0x1C == 0x1C

    @property
    def is_writable_data(self) -> bool:
        return self.kind & 0x1A == 0x12

    def as_segment(self, selector: int) -> Segment:
        return Segment(selector, self.base, self.limit, self.raw >> 32 & 0xF0FF00 | 0x100)


def descriptor(cpu: Cpu, selector: int, fault: int, error: int) -> Descriptor:
    table = cpu.seg[LDT if selector & 4 else GDT]
    outside = (selector & ~7) + 7 > table.limit or (selector & 4 and not table.flags & 0x8000)
    if outside:
        raise Fault(fault, error)
    return Descriptor(cpu.read(table.base + (selector & ~7), 8))


def mark_accessed(cpu: Cpu, selector: int) -> None:
    at = cpu.seg[LDT if selector & 4 else GDT].base + (selector & ~7) + 5
    cpu.memory[at] |= 1


def canonical(address: int) -> bool:
    return address < 1 << 47 or address >= (1 << 64) - (1 << 47)


def deliver(cpu: Cpu, vector: int, kind: int, error_code: int | None, next_rip: int) -> None:
    """Change `cpu` as the event's delivery does, or raise."""
    if cpu.mode == "real":
        deliver_real(cpu, vector, next_rip)
    elif cpu.mode == "long":
        deliver_long(cpu, vector, kind, error_code, next_rip)
    else:
        deliver_protected(cpu, vector, kind, error_code, next_rip)


def saved_flags(cpu: Cpu, vector: int, kind: int) -> int:
    return cpu.flags | (RF if kind == 3 and vector in FAULT_VECTORS else 0)


def deliver_real(cpu: Cpu, vector: int, next_rip: int) -> None:
    if vector * 4 + 3 > cpu.seg[IDT].limit:
        raise Fault(GP, None)
    target = cpu.read(cpu.seg[IDT].base + 4 * vector, 4)
    for value in (cpu.flags, cpu.seg[CS].selector, next_rip):
        cpu.rsp = cpu.rsp & ~0xFFFF | cpu.rsp - 2 & 0xFFFF
        cpu.write(cpu.seg[SS].base + (cpu.rsp & 0xFFFF), 2, value)
    cpu.flags &= ~(TF | IF | RF | AC)
    cpu.seg[CS].selector, cpu.seg[CS].base, cpu.rip = target >> 16, target >> 16 << 4, target & 0xFFFF


def check_gate(cpu: Cpu, gate: Descriptor, kind: int, name: int) -> None:
    if kind in (4, 6) and gate.dpl < cpu.cpl:
        raise Fault(GP, name)
    if not gate.present:
        raise Fault(NP, name)


def handler_segment(cpu: Cpu, selector: int, external: int, long: bool) -> tuple[Descriptor, int]:
    """The code segment and the handler's CPL."""
    if selector & ~3 == 0:
        raise Fault(GP, external)
    error = selector & ~3 | external
    code = descriptor(cpu, selector, GP, error)
    if not code.is_code or code.dpl > cpu.cpl or (long and code.raw >> 53 & 3 != 1):
        raise Fault(GP, error)
    if not code.present:
        raise Fault(NP, error)
    return code, cpu.cpl if code.conforming else code.dpl


def finish(cpu: Cpu, selector: int, code: Descriptor, cpl: int, offset: int, gate_kind: int) -> None:
    mark_accessed(cpu, selector)
    cpu.seg[CS] = code.as_segment(selector & ~3 | cpl)
    cpu.rip, cpu.cpl = offset, cpl
    cpu.flags &= ~(TF | NT | RF | VM)
    if gate_kind & 1 == 0:
        cpu.flags &= ~IF


def deliver_protected(cpu: Cpu, vector: int, kind: int, error_code: int | None, next_rip: int) -> None:
    external = 0 if kind in (4, 6) else 1
    name = vector * 8 + 2 + external
    virtual = cpu.mode == "virtual"
    if virtual and kind == 4 and cpu.flags >> 12 & 3 != 3:
        raise Fault(GP, 0)
    if vector * 8 + 7 > cpu.seg[IDT].limit:
        raise Fault(GP, name)
    gate = Descriptor(cpu.read(cpu.seg[IDT].base + vector * 8, 8))
    if gate.kind not in (5, 6, 7, 14, 15):
        raise Fault(GP, name)
    check_gate(cpu, gate, kind, name)
    if gate.kind == 5:
        raise TaskGate
    selector = gate.raw >> 16 & 0xFFFF
    code, cpl = handler_segment(cpu, selector, external, False)
    if virtual and (code.conforming or code.dpl != 0):
        raise Fault(GP, selector & ~3 | external)
    frame = []
    stack, mask = cpu.seg[SS], (1 << cpu.stack_bits) - 1
    sp = cpu.rsp & mask
    if cpl < cpu.cpl:
        stack, sp, mask = inner_stack(cpu, cpl, external)
        if virtual:
            frame += [cpu.seg[number].selector for number in (5, 4, 3, 0)]
        frame += [cpu.seg[SS].selector, cpu.rsp]
    wide = bool(gate.kind & 8)
    offset = gate.raw & 0xFFFF | (gate.raw >> 48 << 16 if wide else 0)
    if offset > code.limit:
        raise Fault(GP, external)
    frame += [saved_flags(cpu, vector, kind), cpu.seg[CS].selector, next_rip] + (
        [] if error_code is None else [error_code]
    )
    size = 4 if wide else 2
    for value in frame:
        sp = sp - size & mask
        cpu.write(stack.base + sp & 0xFFFFFFFF, size, value)
    cpu.rsp = cpu.rsp & ~mask | sp
    if stack is not cpu.seg[SS]:
        mark_accessed(cpu, stack.selector)
        cpu.seg[SS] = stack
    finish(cpu, selector, code, cpl, offset, gate.kind)
    if virtual:
        cpu.mode = "protected"
        for number in (0, 3, 4, 5):
            cpu.seg[number] = Segment(0, 0, 0, 0)


def inner_stack(cpu: Cpu, cpl: int, external: int) -> tuple[Segment, int, int]:
    tss = cpu.seg[TR]
    size = 4 if tss.flags & 0x800 else 2
    at = (1 + 2 * cpl) * size
    if at + 2 * size - 1 > tss.limit:
        raise Fault(TS, tss.selector & ~3 | external)
    sp, selector = cpu.read(tss.base + at, size), cpu.read(tss.base + at + size, 2)
    if selector & ~3 == 0:
        raise Fault(TS, external)
    error = selector & ~3 | external
    stack = descriptor(cpu, selector, TS, error)
    if selector & 3 != cpl or stack.dpl != cpl or not stack.is_writable_data:
        raise Fault(TS, error)
    if not stack.present:
        raise Fault(SS_FAULT, error)
    mask = 0xFFFFFFFF if stack.raw >> 54 & 1 else 0xFFFF
    return stack.as_segment(selector), sp & mask, mask


def deliver_long(cpu: Cpu, vector: int, kind: int, error_code: int | None, next_rip: int) -> None:
    external = 0 if kind in (4, 6) else 1
    name = vector * 8 + 2 + external
    if vector * 16 + 15 > cpu.seg[IDT].limit:
        raise Fault(GP, name)
    at = cpu.seg[IDT].base + vector * 16
    gate = Descriptor(cpu.read(at, 8))
    if gate.kind not in (14, 15):
        raise Fault(GP, name)
    check_gate(cpu, gate, kind, name)
    selector, offset = gate.raw >> 16 & 0xFFFF, gate.raw & 0xFFFF | gate.raw >> 48 << 16 | cpu.read(at + 8, 4) << 32
    code, cpl = handler_segment(cpu, selector, external, True)
    ist = gate.raw >> 32 & 7
    sp = cpu.rsp
    if ist or cpl < cpu.cpl:
        slot = 36 + 8 * (ist - 1) if ist else 4 + 8 * cpl
        if slot + 7 > cpu.seg[TR].limit:
            raise Fault(TS, cpu.seg[TR].selector & ~3 | external)
        sp = cpu.read(cpu.seg[TR].base + slot, 8)
    if not canonical(sp) or not canonical(sp - 64 & (1 << 64) - 1):
        raise Fault(SS_FAULT, external)
    if not canonical(offset):
        raise Fault(GP, external)
    sp &= ~15
    frame = [cpu.seg[SS].selector, cpu.rsp, saved_flags(cpu, vector, kind), cpu.seg[CS].selector, next_rip]
    for value in frame + ([] if error_code is None else [error_code]):
        sp -= 8
        cpu.write(sp, 8, value)
    if cpl < cpu.cpl:
        cpu.seg[SS] = Segment(cpl, 0, 0, cpl << 13)
    finish(cpu, selector, code, cpl, offset, gate.kind)
    cpu.rsp = sp
