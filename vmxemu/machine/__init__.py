"""The whole machine. `Machine` is imported on first use: it brings the compiler with it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmxemu.machine.machine import Machine
    from vmxemu.machine.readiness import warm_up
    from vmxemu.machine.result import RunResult

__all__ = ["Machine", "RunResult", "warm_up"]


def __getattr__(name: str) -> Any:
    if name == "Machine":
        from vmxemu.machine.machine import Machine

        return Machine
    if name == "RunResult":
        from vmxemu.machine.result import RunResult

        return RunResult
    if name == "warm_up":
        from vmxemu.machine.readiness import warm_up

        return warm_up
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
