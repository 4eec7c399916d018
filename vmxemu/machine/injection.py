"""Putting configured injections into the platform's schedule."""

from typing import Any

from vmxemu.configuration import Injection
from vmxemu.platform.injection import inject
from vmxemu.platform.mca import MEMORY_BANK

VM1_ADDRESS, VM2_ADDRESS = 1 << 32, 1 << 33  # in `flags`: the address is guest-physical until it falls due
PLATFORM_KIND = {"mc": "fatal"}


def schedule(machine_state: Any, injection: Injection) -> None:
    """Schedule it, each repetition on its own. Raises ValueError if the schedule is full or the bank does not exist."""
    address_flag = {"vm1_gpa": VM1_ADDRESS, "vm2_gpa": VM2_ADDRESS}.get(injection.address_kind, 0)
    for number in range(injection.count):
        inject(
            machine_state,
            PLATFORM_KIND.get(injection.kind, injection.kind),
            injection.cycle + number * injection.every,
            hpa=injection.address or 0,
            bank=int(MEMORY_BANK) if injection.bank is None else injection.bank,
            flags=address_flag | (injection.command or 0),
        )
