"""IN, OUT, INS and OUTS: permission, device, and the string forms' repetition."""

from typing import TYPE_CHECKING

from vmxemu import report
from vmxemu.cpu import io as cpu_io
from vmxemu.cpu.decode import advance
from vmxemu.cpu.layout import RAX
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.outcome import DONE, NOT_MINE, RETRY, STOPPED
from vmxemu.platform.ports import port_in, port_out
from vmxemu.smm.io_smi import note_io_smi
from vmxemu.timing import costs
from vmxemu.timing.clock import charge_event

if TYPE_CHECKING:
    from vmxemu.state import State

ELEMENTS_A_TURN = U(4096)
SMI_COMMAND = U(0xB2)  # a write there raises an SMI


@kernel
def execute(m: "State") -> int:
    """The decoded I/O instruction; a long string form is done in turns, between which events can be taken."""
    outcome = cpu_io.decode_io(m)
    if outcome != DONE:
        return outcome
    io = m.cpu.io
    outcome = cpu_io.io_allowed(m, io.port, io.size)
    if outcome != DONE:
        return outcome
    charge_event(m, costs.IO)
    if io.is_string != 0:
        return string(m)
    if io.is_in != 0:
        outcome = port_in(m, io.port, io.size)
        if outcome == NOT_MINE:
            return unmodelled_port(m, io.port, io.size, 0)
        if outcome == DONE:
            set_accumulator(m, io.size, m.walk.value)
            advance(m)
        return outcome
    value = m.r.gpr[RAX] & size_mask(io.size)
    outcome = port_out(m, io.port, io.size, value)
    if outcome == NOT_MINE:
        return unmodelled_port(m, io.port, io.size, value)
    if outcome == DONE:
        if io.port == SMI_COMMAND:
            note_io_smi(m)
        advance(m)
        m.clock.next_stop = 0  # a device may have raised or dropped its interrupt
        m.clock.deadline = 0
    return outcome


@kernel
def size_mask(size: int) -> int:
    """All ones in `size` bytes."""
    return ~(~U(0) << size * 8)


@kernel
def set_accumulator(m: "State", size: int, value: int) -> None:
    """Write AL, AX or EAX; only EAX clears the upper half."""
    mask = size_mask(size)
    if size == 4:
        m.r.gpr[RAX] = value & mask
    else:
        m.r.gpr[RAX] = m.r.gpr[RAX] & ~mask | value & mask


@kernel
def string(m: "State") -> int:
    """INS or OUTS, with or without REP. RETRY between turns: the registers say how far it has come."""
    io = m.cpu.io
    left = cpu_io.elements_left(m)
    for _ in range(ELEMENTS_A_TURN):
        if left == 0:
            advance(m)
            return DONE
        outcome = element(m, io.port, io.size)
        if outcome != DONE:
            return outcome
        left = cpu_io.finish_element(m)
        if io.is_rep == 0:
            advance(m)
            return DONE
    return RETRY


@kernel
def element(m: "State", port: int, size: int) -> int:
    """One element between port and memory."""
    if m.cpu.io.is_in != 0:
        outcome = cpu_io.prepare_element(m)
        if outcome != DONE:
            return outcome
        outcome = port_in(m, port, size)
        if outcome == NOT_MINE:
            return unmodelled_port(m, port, size, 0)
        return cpu_io.store_element(m, m.walk.value) if outcome == DONE else outcome
    outcome = cpu_io.load_element(m)
    if outcome != DONE:
        return outcome
    value = m.walk.value & size_mask(size)
    outcome = port_out(m, port, size, value)
    if outcome == DONE and port == SMI_COMMAND:
        note_io_smi(m)
    return unmodelled_port(m, port, size, value) if outcome == NOT_MINE else outcome


@kernel
def unmodelled_port(m: "State", port: int, size: int, value: int) -> int:
    """No device answers at this port: the run ends with its name."""
    m.report.reason = report.UNMODELLED_DEVICE
    m.report.where = port
    m.report.size = size
    m.report.value = value
    return STOPPED
