"""The chipset's odd ports: NMI status and speaker (0x61), fast A20 (0x92), APM commands (0xB2), exit, shutdown."""

from typing import TYPE_CHECKING

import numpy as np

from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, NOT_MINE, STOPPED
from vmxemu.platform import pit
from vmxemu.platform.management import CAUSE_PORT, raise_caused
from vmxemu.platform.rates import pit_now
from vmxemu.report import EXIT_PORT, SHUTDOWN_PORT
from vmxemu.trace.events import NMI, SMI

if TYPE_CHECKING:
    from vmxemu.state import State

SERR, IOCHK = u64(0x80), u64(0x40)
SERR_OFF, IOCHK_OFF = u64(4), u64(8)
REFRESH_PERIODS = u64(18)  # the refresh toggle changes every 15 microseconds
SPEAKER = u64(2)  # the counter behind it
A20, FAST_RESET = u64(2), u64(1)
SHUTDOWN = np.frombuffer(b"Shutdown", dtype=np.uint8).astype(np.uint64)


@kernel
def read_61(m: "State") -> int:
    """IN from 0x61."""
    now = pit_now(m)
    refresh = now // REFRESH_PERIODS & 1
    speaker = pit.output(m.platform.pit.channel[SPEAKER], now)
    return m.platform.nmi_control | refresh << 4 | speaker << 5 | m.platform.nmi_status


@kernel
def write_61(m: "State", value: int) -> None:
    """OUT to 0x61: bit 0 gate of counter 2; bits 2 and 3 switch the two NMI sources off and clear them."""
    m.platform.nmi_control = value & 0xF
    pit.set_gate(m, SPEAKER, value & 1)
    if value & SERR_OFF:
        m.platform.nmi_status = m.platform.nmi_status & ~SERR
    if value & IOCHK_OFF:
        m.platform.nmi_status = m.platform.nmi_status & ~IOCHK


@kernel
def assert_nmi_source(m: "State", source: int, address: int, cause: int) -> int:
    """SERR# or IOCHK#: its status bit, and an NMI unless ports 0x61 and 0x70 keep it away. Gives its serial or 0."""
    if m.platform.nmi_control & (SERR_OFF if source == SERR else IOCHK_OFF):
        return u64(0)
    m.platform.nmi_status = m.platform.nmi_status | source
    if m.platform.rtc.nmi_disabled != 0:
        return u64(0)
    return raise_caused(m, NMI, address, source, cause, 0)


@kernel
def enable_nmi(m: "State", was_disabled: int) -> None:
    """Port 0x70 bit 7 went from 1 to 0: a waiting source is seen now."""
    waiting = m.platform.nmi_status
    if was_disabled != 0 and m.platform.rtc.nmi_disabled == 0 and waiting != 0:
        raise_caused(m, NMI, 0, waiting, CAUSE_PORT, 0)


@kernel
def write_92(m: "State", value: int) -> int:
    """OUT to 0x92: A20 stays on whatever bit 1 says; bit 0 would reset the processor, which is not modelled."""
    if value & FAST_RESET:
        return NOT_MINE
    m.platform.port_92 = value | A20
    return DONE


@kernel
def write_apm(m: "State", command: int) -> None:
    """OUT to 0xB2: an SMI with this command."""
    m.platform.smi_command = command
    raise_caused(m, SMI, 0, command, CAUSE_PORT, 0)


@kernel
def write_exit(m: "State", value: int) -> int:
    """OUT to 0xF4: the run is over with this status."""
    m.report.reason = EXIT_PORT
    m.report.status = value
    m.engine.stop = 1
    return STOPPED


@kernel
def write_shutdown(m: "State", letter: int) -> int:
    """OUT to 0x8900: the letters of "Shutdown" in a row end the run, as under Bochs."""
    matched = m.platform.shutdown_matched
    if letter == SHUTDOWN[matched]:
        matched = matched + 1
    else:
        matched = u64(1) if letter == SHUTDOWN[0] else u64(0)
    if matched < 8:
        m.platform.shutdown_matched = matched
        return DONE
    m.platform.shutdown_matched = 0
    m.report.reason = SHUTDOWN_PORT
    m.report.status = 0
    m.engine.stop = 1
    return STOPPED
