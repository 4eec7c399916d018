"""Loads and stores at linear addresses for emulated instructions, delivery and the like. They may cross a page.

Where the physical address is neither RAM nor ROM a load gives all ones and a store is dropped: such instructions
rarely reach devices. The frames touched are not checked for poison here: `m.walk.hpa` is the (last) address for
callers that want to.
"""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel, load8, load16, load32, load64, store8
from vmxemu.memory.physical import host_address, write8, write16, write32, write64
from vmxemu.translation.layout import WRITE
from vmxemu.translation.translate import translate, truncate

if TYPE_CHECKING:
    from vmxemu.state import State


@kernel
def read_linear(m: "State", gla: int, size: int, access: int) -> int:
    """Load 1, 2, 4 or 8 bytes into `m.walk.value`. `access` is READ or FETCH, perhaps | IMPLICIT_SUPERVISOR."""
    outcome = translate(m, gla, access)
    if outcome != 0:
        return outcome
    if (gla & 0xFFF) + size > 4096:
        return _read_crossing(m, gla, size, access)
    m.walk.value = _load(m, m.walk.hpa, size)
    return outcome


@kernel
def write_linear(m: "State", gla: int, size: int, value: int, access: int) -> int:
    """Store 1, 2, 4 or 8 bytes; nothing is stored unless all of it can be. `access` is WRITE, perhaps |
    IMPLICIT_SUPERVISOR.
    """
    outcome = translate(m, gla, access | WRITE)
    if outcome != 0:
        return outcome
    if (gla & 0xFFF) + size > 4096:
        return _write_crossing(m, gla, size, value, access | WRITE)
    hpa = m.walk.hpa
    if size == 8:
        write64(m, hpa, value)
    elif size == 4:
        write32(m, hpa, value)
    elif size == 2:
        write16(m, hpa, value)
    else:
        write8(m, hpa, value)
    return outcome


@kernel
def read_linear_bytes(m: "State", gla: int, count: int, host_target: int, access: int) -> int:
    """Load `count` bytes to a host address, page by page. On a failure the bytes before it have been loaded."""
    done = count ^ count
    while done < count:
        at = truncate(m, gla + done, access)
        outcome = translate(m, at, access)
        if outcome != 0:
            return outcome
        end = done + (4096 - (at & 0xFFF))
        end = count if count < end else end
        hpa = m.walk.hpa
        while done < end:
            store8(host_target + done, _load(m, hpa, 1))
            hpa = hpa + 1
            done = done + 1
    return 0


@kernel
def _load(m: "State", hpa: int, size: int) -> int:
    host = host_address(m, hpa)
    if host == 0:
        return 0xFFFFFFFFFFFFFFFF >> (64 - size * 8)
    if size == 8:
        return load64(host)
    if size == 4:
        return load32(host)
    return load16(host) if size == 2 else load8(host)


@kernel
def _read_crossing(m: "State", gla: int, size: int, access: int) -> int:
    first = m.walk.hpa
    cycles = m.walk.cycles
    in_first = 4096 - (gla & 0xFFF)
    outcome = translate(m, gla + in_first, access)
    m.walk.cycles = m.walk.cycles + cycles
    if outcome != 0:
        return outcome
    second = m.walk.hpa
    value = outcome
    done = outcome
    while done < size:
        hpa = first + done if done < in_first else second + (done - in_first)
        value = value | _load(m, hpa, 1) << (done * 8)
        done = done + 1
    m.walk.value = value
    return outcome


@kernel
def _write_crossing(m: "State", gla: int, size: int, value: int, access: int) -> int:
    first = m.walk.hpa
    cycles = m.walk.cycles
    in_first = 4096 - (gla & 0xFFF)
    outcome = translate(m, gla + in_first, access)
    m.walk.cycles = m.walk.cycles + cycles
    if outcome != 0:
        return outcome
    second = m.walk.hpa
    done = outcome
    while done < size:
        hpa = first + done if done < in_first else second + (done - in_first)
        write8(m, hpa, value >> (done * 8) & 0xFF)
        done = done + 1
    return outcome
