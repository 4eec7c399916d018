"""An I/O instruction that raises an SMI (a write to the command port): the save area tells the handler which.

SDM Vol. 3C, 'I/O State Implementation'.
"""

from typing import TYPE_CHECKING

from vmxemu.cpu.io import element_address
from vmxemu.jit import kernel
from vmxemu.layout import u64

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
IO_SMI = U(1)
# Type field by direction (in), string, repeat, immediate
OUT_DX, IN_DX, OUTS, INS, REP_OUTS, REP_INS, OUT_IMMEDIATE, IN_IMMEDIATE = (
    U(kind) for kind in (0, 1, 2, 3, 6, 7, 8, 9)
)


@kernel
def note_io_smi(m: "State") -> None:
    """Keep what m.cpu.io says for the SMI that this instruction raises; call before RIP moves on."""
    io = m.cpu.io
    kind = io.is_in
    if io.is_immediate != 0:
        kind = kind | OUT_IMMEDIATE
    elif io.is_string != 0:
        kind = kind | (REP_OUTS if io.is_rep != 0 else OUTS)
        m.smm.io_memory_address = element_address(m)
    m.smm.io_misc = IO_SMI | io.size << 1 | kind << 4 | io.port << 16
    m.smm.io_rip = m.r.rip
