"""Why a run ended, in words: the report that the user sees."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmxemu import report
from vmxemu.platform.port_map import port_name

if TYPE_CHECKING:
    from vmxemu.machine.machine import Machine

NAMES = {
    int(getattr(report, name)): name
    for name in (
        "RUNNING EXIT_PORT SHUTDOWN_PORT TRIPLE_FAULT UNMODELLED_INSTRUCTION UNMODELLED_DEVICE CYCLE_LIMIT HALTED_FOREVER "
        "SLICE_END TRACE_FULL PYTHON_DEVICE UNMODELLED_FEATURE ENGINE_ERROR VMM1_FATAL UNTIL"
    ).split()
}
FEATURES = {
    int(report.FETCH_OUTSIDE_MEMORY): "instruction fetch where there is no memory",
    int(report.TASK_GATE): "task switch through a task gate",
    int(report.SETTLE_LIMIT): "an instruction that never settles",
    int(report.MACHINE_CHECK_SHUTDOWN): "machine check with CR4.MCE clear or one in progress",
    0x564D_5801: "VMX abort",
}
GUEST_WRONG, INTERRUPTED = 3, 130
REGISTERS = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split()
LAST_EVENTS = 20


@dataclass
class RunResult:
    """How a run ended: reason (name of a report constant), exit status for a command line, one line, and a failure's details."""

    reason: str
    exit_status: int
    message: str = ""
    details: list[str] = field(default_factory=list)


def describe(machine: "Machine", reason: int | None) -> RunResult:
    """The result for a native stop reason; None means interrupted from outside."""
    if reason is None:
        return RunResult("INTERRUPTED", INTERRUPTED, "interrupted")
    name = NAMES.get(reason, f"reason {reason}")
    said = machine.state.report
    if name == "EXIT_PORT":
        status = int(said.status)
        return RunResult(name, status & 0xFF, f"the guest exited with status {status}" if status else "")
    if name in ("SHUTDOWN_PORT", "UNTIL"):
        return RunResult(name, 0)
    return RunResult(name, GUEST_WRONG, _message(machine, name), _details(machine))


def _message(machine: "Machine", name: str) -> str:
    said = machine.state.report
    address, value, size = int(said.where), int(said.value), int(said.size)
    feature = FEATURES.get(int(said.feature), f"feature {int(said.feature):#x}")
    where = f"at RIP {int(machine.registers.rip):#x}"
    messages = {
        "TRIPLE_FAULT": f"triple fault {where}" + (f" ({feature})" if said.feature else ""),
        "UNMODELLED_DEVICE": f"port {address:#x}, {port_name(address)}, is not modelled ({size}-byte access, "
        f"value {value:#x}) {where}",
        "UNMODELLED_INSTRUCTION": f"instruction not modelled {where}",
        "UNMODELLED_FEATURE": f"not modelled: {feature} (address {address:#x}, value {value:#x}) {where}",
        "CYCLE_LIMIT": f"no end after {machine.cycles:,} cycles (--max-cycles) {where}",
        "HALTED_FOREVER": f"halted with nothing that could wake it {where}",
        "ENGINE_ERROR": f"the engine stopped with error {value} {where}",
        "VMM1_FATAL": f"VMM1 gave up: value {value:#x}, address {address:#x}, check {int(said.feature)}",
    }
    return messages.get(name, name)


def _details(machine: "Machine") -> list[str]:
    registers = machine.registers
    rip = int(registers.rip)
    lines = [*machine.disassemble(rip, 3)]
    cells = [f"{name:>3}={int(registers.gpr[number]):016x}" for number, name in enumerate(REGISTERS)]
    lines += ["  ".join(cells[at : at + 4]) for at in range(0, 16, 4)]
    crs = "  ".join(f"cr{number}={int(registers.cr[number]):x}" for number in (0, 2, 3, 4))
    flags = f"rip={rip:x}  rflags={machine.rflags:x}  efer={int(registers.efer):x}"
    segments = f"cs={int(registers.seg[1].selector):x}  ss={int(registers.seg[2].selector):x}"
    lines += [f"{crs}  {flags}", f"{segments}  level={machine.level}"]
    from vmxemu.trace.show import as_text

    text = as_text(tuple(rule.name for rule in machine.configuration.policy))
    return [*lines, *(text(number, event) for number, event in enumerate(machine.recent_events(LAST_EVENTS)))]
