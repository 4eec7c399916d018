"""Bytes that the guest prints, kept for Python to drain."""

from typing import TYPE_CHECKING, Any

from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.platform.layout import OUTPUT_BYTES

if TYPE_CHECKING:
    from vmxemu.state import State

SERIAL, DEBUG_E9, DEBUG_402 = u64(0), u64(1), u64(2)
CHANNEL_NAMES = {0: "serial", 1: "debug port 0xE9", 2: "debug port 0x402"}

CAPACITY = u64(OUTPUT_BYTES)
HIGH_WATER = u64(OUTPUT_BYTES - 1024)  # the rest is for what the current trap still writes


@kernel
def put_byte(m: "State", channel: int, value: int) -> None:
    """Keep one byte; ask for Python when the buffer is nearly full."""
    output = m.platform.output
    if output.count >= CAPACITY:
        output.lost = output.lost + 1
        m.engine.stop = 1
        return
    output.byte[output.count] = value
    output.channel[output.count] = channel
    output.count = output.count + 1
    if output.count >= HIGH_WATER:
        m.engine.stop = 1


def drain(machine: Any) -> list[tuple[int, bytes]]:
    """What was printed since the last call, as runs of (channel, bytes) in the order of printing. Python side."""
    output = machine.platform.output
    count = int(output.count)
    output.count = 0
    data, channels = output.byte.numpy[:count].tobytes(), output.channel.numpy[:count].tobytes()
    runs: list[tuple[int, bytes]] = []
    start = 0
    for end in range(1, count + 1):
        if end == count or channels[end] != channels[start]:
            runs.append((channels[start], data[start:end]))
            start = end
    return runs
