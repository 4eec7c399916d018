"""IN, OUT, INS and OUTS: permission, device, and the string forms' repetition."""

from typing import TYPE_CHECKING

import numpy as np

from vmxemu import report
from vmxemu.cpu import io as cpu_io
from vmxemu.cpu.decode import advance
from vmxemu.jit import kernel
from vmxemu.outcome import DONE, NOT_MINE, STOPPED
from vmxemu.platform.ports import port_in, port_out
from vmxemu.timing import costs
from vmxemu.timing.clock import charge_event

if TYPE_CHECKING:
    from vmxemu.state import State

U = np.uint64


@kernel
def unmodelled_port(m: "State", port: int, size: int, value: int) -> int:
    """No device answers at this port: the run ends with its name."""
    m.report.reason = report.UNMODELLED_DEVICE
    m.report.address = port
    m.report.size = size
    m.report.value = value
    return STOPPED
