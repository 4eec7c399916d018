"""The whole machine state, one record: kernels take it as `m`."""

from vmxemu.cpu.layout import Cpu, Registers
from vmxemu.engine.layout import Engine
from vmxemu.layout import Layout, pointer
from vmxemu.memory.layout import Memory
from vmxemu.outer.layout import Outer
from vmxemu.platform.layout import Platform
from vmxemu.report import Report
from vmxemu.smm.layout import Smm
from vmxemu.timing.layout import Clock
from vmxemu.trace.layout import Trace
from vmxemu.translation.layout import Paging, Walk
from vmxemu.translation.tlb_layout import Caches, Tlb
from vmxemu.vmx.layout import Exit, Vmx


class State(Layout):
    """Every room's record. `r` is the register file, in place inside Unicorn."""

    tlb: Tlb  # first, because it is aligned more strictly than the others
    r: Registers = pointer()
    cpu: Cpu
    memory: Memory
    paging: Paging
    walk: Walk
    caches: Caches
    vmx: Vmx
    exit: Exit
    smm: Smm
    platform: Platform
    outer: Outer
    clock: Clock
    report: Report
    engine: Engine
    trace: Trace
