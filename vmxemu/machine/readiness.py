"""Compiling, or loading from the cache, everything native before a machine is built, with progress."""

import gc
from collections.abc import Callable

from vmxemu.jit import NativeCallback


def warm_up(progress: Callable[[str, int, int], None] | None = None) -> None:
    """Make every native callback ready; `progress(name, done, total)` is called before each."""
    from vmxemu.machine import callbacks, device_memory, fill, loop

    parts: list[tuple[str, NativeCallback]] = [
        ("translation", callbacks.vmxemu_translate),
        ("processor", callbacks.vmxemu_step),
        ("run loop", loop.run),
        ("page fills", fill.on_miss),
        ("other fills", fill.on_fill),
        ("traps", callbacks.on_trap),
        ("blocks", callbacks.on_block),
        ("code survey", callbacks.on_translation),
        ("port sites", callbacks.on_io_site),
        ("system calls", callbacks.on_system_call),
        ("device reads", device_memory.on_device_read),
        ("device writes", device_memory.on_device_write),
        ("poisoned reads", device_memory.on_poisoned_read),
        ("poisoned writes", device_memory.on_poisoned_write),
        ("void reads", device_memory.on_void_read),
        ("void writes", device_memory.on_void_write),
    ]
    for number, (name, callback) in enumerate(parts):
        if progress is not None:
            progress(name, number, len(parts))
        _ = callback.address
    gc.freeze()  # the compiler's many objects stay: later collections need not look at them
