"""Errors and events put in from outside at given times.

| kind | what happens | uses |
|---|---|---|
| ce | corrected memory error: logged in a bank, CMCI at its threshold | hpa, bank, status, misc |
| srao | patrol scrub finds an uncorrected error: the line is poisoned, #MC with S=1 AR=0 | hpa, bank, status, misc |
| ue | a line goes bad unseen: poisoned; whoever reads it meets `mca.log_consumption` | hpa |
| smi | system management interrupt | flags = command |
| nmi | platform NMI; through port 0x61 if flags is system_ports.SERR or IOCHK | flags |
| pmi | platform management interrupt | flags = command |
| fatal | #MC with the processor's context corrupt | hpa, bank, status, misc |
"""

from typing import TYPE_CHECKING, Any

from vmxemu.isa import mca as codes
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.memory.frames import poison_line
from vmxemu.platform import mca
from vmxemu.platform.layout import INJECTIONS, NEVER
from vmxemu.platform.management import CAPACITY as QUEUE_CAPACITY
from vmxemu.platform.management import CAUSE_INJECTED, raise_caused
from vmxemu.platform.system_ports import IOCHK, SERR, assert_nmi_source
from vmxemu.trace.emit import emit
from vmxemu.trace.events import INJECT, NMI, PMI, SMI

if TYPE_CHECKING:
    from vmxemu.platform.layout import Injection
    from vmxemu.state import State

KINDS = {1: "ce", 2: "srao", 3: "ue", 4: "smi", 5: "nmi", 6: "pmi", 7: "fatal"}
KIND_OF_NAME = {name: number for number, name in KINDS.items()}
CE, SRAO, UE, INJECT_SMI, INJECT_NMI, INJECT_PMI, FATAL = (u64(number) for number in KINDS)

SEVERITIES = {0: "none", 1: "corrected", 2: "action optional", 3: "latent", 4: "fatal"}
CAPACITY = u64(INJECTIONS)
WITH_ADDRESS = codes.STATUS_ADDRV | codes.STATUS_MISCV
CE_STATUS = WITH_ADDRESS | codes.MEMORY_READ | u64(0xF)  # channel unknown
SRAO_STATUS = WITH_ADDRESS | codes.STATUS_UC | codes.STATUS_S | codes.PATROL_SCRUB
FATAL_STATUS = WITH_ADDRESS | codes.STATUS_UC | codes.STATUS_PCC | codes.MEMORY_READ | u64(0xF)


@kernel
def next_due(m: "State") -> int:
    """Ticks of the first injection to come, NEVER if there is none, or while the queue it may go to is full: a storm waits,
    nothing is lost."""
    schedule = m.platform.injections
    if m.platform.management.count >= QUEUE_CAPACITY:
        return NEVER
    return schedule.entry[schedule.head].due if schedule.head < schedule.count else NEVER


@kernel
def run_due(m: "State") -> None:
    """Perform every injection whose time has come, in order."""
    schedule = m.platform.injections
    while (
        schedule.head < schedule.count
        and schedule.entry[schedule.head].due <= m.clock.ticks
        and m.platform.management.count < QUEUE_CAPACITY
    ):
        entry = schedule.entry[schedule.head]
        schedule.head = schedule.head + 1
        _perform(m, entry)


@kernel
def _perform(m: "State", entry: "Injection") -> None:
    kind = entry.kind
    severity, serial = u64(0), u64(0)
    if kind == CE:
        severity = u64(1)
        serial = _log(m, entry, CE_STATUS)
    elif kind == SRAO:
        severity = u64(2)
        poison_line(m, entry.hpa)
        serial = _log(m, entry, SRAO_STATUS)
    elif kind == UE:
        severity = u64(3)
        poison_line(m, entry.hpa)
    elif kind == FATAL:
        severity = u64(4)
        serial = _log(m, entry, FATAL_STATUS)
    elif kind == INJECT_SMI:
        serial = raise_caused(m, SMI, entry.hpa, entry.flags, CAUSE_INJECTED, 0)
    elif kind == INJECT_PMI:
        serial = raise_caused(m, PMI, entry.hpa, entry.flags, CAUSE_INJECTED, 0)
    elif entry.flags == SERR or entry.flags == IOCHK:
        serial = assert_nmi_source(m, entry.flags, entry.hpa, CAUSE_INJECTED)
    else:
        serial = raise_caused(m, NMI, entry.hpa, entry.flags, CAUSE_INJECTED, 0)
    emit(m, INJECT, kind, entry.hpa, entry.bank, severity, serial)


@kernel
def _log(m: "State", entry: "Injection", usual_status: int) -> int:
    status = entry.status if entry.status != 0 else usual_status
    misc = entry.misc if entry.misc != 0 else mca.PHYSICAL_LINE
    return mca.log_error(m, entry.bank, status, entry.hpa, misc)


@kernel
def _compact(m: "State") -> None:
    """Move what is still to come to the front."""
    schedule = m.platform.injections
    for position in range(schedule.count - schedule.head):
        _copy(schedule.entry[position], schedule.entry[schedule.head + position])
    schedule.count = schedule.count - schedule.head
    schedule.head = 0


@kernel
def schedule_injection(m: "State", kind: int, due: int, hpa: int, bank: int, status: int, misc: int, flags: int) -> int:
    """Put one into the schedule, after those due at the same tick. Gives its number from 1, 0 if no room."""
    schedule = m.platform.injections
    if schedule.count >= CAPACITY:
        _compact(m)
        if schedule.count >= CAPACITY:
            return u64(0)
    place = schedule.count
    while place > schedule.head and schedule.entry[place - 1].due > due:
        _copy(schedule.entry[place], schedule.entry[place - 1])
        place = place - 1
    schedule.count = schedule.count + 1
    schedule.serial = schedule.serial + 1
    entry = schedule.entry[place]
    entry.kind = kind
    entry.due = due
    entry.hpa = hpa
    entry.bank = bank
    entry.status = status
    entry.misc = misc
    entry.flags = flags
    entry.serial = schedule.serial
    return schedule.serial


@kernel
def _copy(target: "Injection", source: "Injection") -> None:
    target.kind = source.kind
    target.due = source.due
    target.hpa = source.hpa
    target.bank = source.bank
    target.status = source.status
    target.misc = source.misc
    target.flags = source.flags
    target.serial = source.serial


def inject(
    machine: Any,
    kind: str,
    cycle: int,
    hpa: int = 0,
    bank: int = int(mca.MEMORY_BANK),
    status: int = 0,
    misc: int = 0,
    flags: int = 0,
) -> int:
    """Schedule an injection from Python: `kind` as in the table above, at a virtual cycle. Gives its number.

    Raises ValueError for an unknown kind, a bank that does not exist, a value outside 64 bits or a full schedule.
    """
    if kind not in KIND_OF_NAME:
        raise ValueError(f"unknown injection {kind!r}: expected one of {', '.join(KIND_OF_NAME)}")
    banks = int(mca.bank_count(machine))
    if not 0 <= bank < banks:
        raise ValueError(f"no machine-check bank {bank}: expected 0..{banks - 1}")
    numbers = {"cycle": cycle << 4, "hpa": hpa, "status": status, "misc": misc, "flags": flags}
    for name, value in numbers.items():
        if not 0 <= value < 1 << 64:
            raise ValueError(f"injection {kind}: {name} is out of range")
    words = [u64(value) for value in (KIND_OF_NAME[kind], cycle << 4, hpa, bank, status, misc, flags)]
    number = int(schedule_injection(machine, *words))
    if number == 0:
        raise ValueError(f"more than {INJECTIONS} injections")
    return number
