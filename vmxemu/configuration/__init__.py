"""What a run is a function of: image, memory, processor, injections, policy, expectations; and how files say so.

`Configuration` and `Injection` are loaded on first use: the schema library is slow to import and few commands need it.
"""

from typing import TYPE_CHECKING, Any

from vmxemu.configuration.errors import InputError

if TYPE_CHECKING:
    from vmxemu.configuration.injection import Injection
    from vmxemu.configuration.model import Configuration

__all__ = ["Configuration", "Injection", "InputError"]


def __getattr__(name: str) -> Any:
    if name == "Configuration":
        from vmxemu.configuration.model import Configuration

        return Configuration
    if name == "Injection":
        from vmxemu.configuration.injection import Injection

        return Injection
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
