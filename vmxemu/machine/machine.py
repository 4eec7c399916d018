"""A whole machine: processor, memory, devices, VMM1, wired to one Unicorn instance."""

import ctypes
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from unicorn.unicorn_const import UC_HOOK_BLOCK, UC_HOOK_EDGE_GENERATED, UC_HOOK_INTR, UC_HOOK_TLB_FILL
from unicorn.x86_const import UC_X86_INS_SYSCALL, UC_X86_INS_SYSENTER

from vmxemu import report
from vmxemu.configuration import Configuration, Injection, InputError, blobs
from vmxemu.cpu.layout import Registers
from vmxemu.engine.layout import NO_TRAP
from vmxemu.engine.unicorn_engine import POISON_WINDOW_HPA, VOID_HPA, UnicornEngine
from vmxemu.isa import cpus, instruction_costs
from vmxemu.layout import Record
from vmxemu.machine import callbacks, device_memory, fill, loop
from vmxemu.machine.injection import schedule
from vmxemu.machine.memory_map import DEVICE_BASE, DEVICE_BYTES, FOUR_GIB, MemoryMap
from vmxemu.machine.reset import describe_platform, reset_processor
from vmxemu.machine.result import RunResult, describe
from vmxemu.machine.view import View
from vmxemu.outer.policy import install_policy
from vmxemu.platform.reset import reset as reset_platform
from vmxemu.state import State
from vmxemu.trace import events
from vmxemu.trace.emit import emit
from vmxemu.trace.layout import CAPACITY, Event, Trace
from vmxemu.trace.schema import DTYPE
from vmxemu.translation.geometry import geometry_of
from vmxemu.translation.geometry import install as install_translation
from vmxemu.translation.roomy import roomy

STOCK_FIRMWARE = "layered-firmware"
# Where the engine stops and starts again it may look up the code page once more, which costs the guest some cycles. So slices
# end at
# multiples of a fixed virtual time, whatever the host's speed: runs are equal if they stop at the same places.
SLICE_TICKS = 1 << 24
CHANNELS = {0: "serial", 1: "debug", 2: "debug402"}


class Machine(View):
    """One emulated machine. `Machine(configuration)` powers it on; `run` executes it; `View` has the read access."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.profile = cpus.load(configuration.cpu)
        self.engine = UnicornEngine()
        self.state = Record(State)
        m = self.state
        m.r = self.engine.registers_address
        self.registers = Record(Registers, self.engine.registers_address)
        self.memory_map = MemoryMap(m, self.engine, configuration.memory, configuration.image.data, self._firmware())
        self._connect()
        self._describe_processor()
        self._output: list[Callable[[str, bytes], None]] = []
        self._observers: list[Callable[[np.ndarray[Any, Any]], None]] = []
        self.wall_seconds = 0.0
        self._interrupted = False
        self._start_collecting()
        for injection in configuration.inject:
            self.inject(injection)

    def _describe_processor(self) -> None:
        m, configuration = self.state, self.configuration
        describe_platform(m, self.profile, configuration.frequency)
        self._reset_platform()
        reset_processor(m, self.profile, configuration.seed)
        self._install_translation()
        install_policy(m, configuration)
        m.clock.limit = configuration.max_cycles << 4
        m.trace.enabled = 1
        m.engine.trap = int(NO_TRAP)
        emit(m, events.PHASE, events.PHASE_RESET, 0, 0, 0, 0)

    def _install_translation(self) -> None:
        """Caches of the profile's sizes, or larger ones if nothing is to be dropped for want of room."""
        m, wanted = self.state, self.configuration.translation
        geometry = geometry_of(self.profile)
        lazy = wanted.tlb == "lazy"
        self._cache_lines = install_translation(m, roomy(geometry) if lazy else geometry)
        m.tlb.lazy, m.tlb.eager, m.tlb.checking = int(lazy), int(wanted.tlb == "eager"), int(wanted.check)

    def _firmware(self) -> bytes:
        """The stock firmware that boots VMM1, if the image does not do that itself."""
        if not self.configuration.stock_firmware:
            return b""
        path = blobs.find_image(STOCK_FIRMWARE)
        if path is None:
            raise InputError(STOCK_FIRMWARE, "the stock firmware of the layered topology is not installed")
        return path.read_bytes()

    def _reset_platform(self) -> None:
        """CMOS tells the image how much memory it has: under VMM1 the sequestered region and SMRAM are not part of it."""
        memory = self.state.memory
        low = int(memory.low_bytes)
        if self.configuration.stock_firmware:
            memory.low_bytes = memory.sequestered_base
        reset_platform(self.state)
        memory.low_bytes = low

    def _connect(self) -> None:
        """Hand the native callbacks to Unicorn."""
        m, engine = self.state, self.engine
        native = m.engine
        native.uc, native.state_address = engine.handle, m.address
        (native.capstone16, native.capstone32, native.capstone64), native.capstone_insn = engine.open_disassemblers()
        native.mnemonic_ticks = engine.mnemonic_ticks(instruction_costs.load(self.profile.instruction_costs).throughput_cycles())
        self._code_buffer = np.zeros(3 * 4096, np.uint8)
        native.code_buffer = self._code_buffer.ctypes.data
        callbacks.vmxemu_translate.address, callbacks.vmxemu_step.address  # noqa: B018  (others call them by symbol)
        native.io_callback = callbacks.on_io_site.address
        native.tlb_windows.numpy[:] = engine.tlb_windows
        engine.hook(UC_HOOK_TLB_FILL, fill.on_fill.address, m.address)
        self._take_fills()
        native.invalid_address = self._find_invalid_address()
        engine.hook(UC_HOOK_INTR, callbacks.on_trap.address, m.address)
        engine.hook(UC_HOOK_BLOCK, callbacks.on_block.address, m.address)
        engine.hook(UC_HOOK_EDGE_GENERATED, callbacks.on_translation.address, m.address)
        for instruction in (UC_X86_INS_SYSCALL, UC_X86_INS_SYSENTER):
            engine.hook_instruction(instruction, callbacks.on_system_call.address, m.address)
        engine.map_device(VOID_HPA, 4096, device_memory.on_void_read.address, device_memory.on_void_write.address, m.address)
        window = max(m.memory.low_bytes, FOUR_GIB + m.memory.high_bytes if m.memory.high_bytes else 0)
        engine.map_device(
            POISON_WINDOW_HPA,
            int(window),
            device_memory.on_poisoned_read.address,
            device_memory.on_poisoned_write.address,
            m.address,
        )
        engine.map_device(
            DEVICE_BASE, DEVICE_BYTES, device_memory.on_device_read.address, device_memory.on_device_write.address, m.address
        )
        self._translate = _native(callbacks.vmxemu_translate.address, 3)

    def _take_fills(self) -> None:
        m, softmmu = self.state, self.engine.softmmu
        low, high = int(m.memory.low_bytes), int(m.memory.high_bytes)
        m.r.owner, m.engine.softmmu = m.address, softmmu.softmmu.address
        m.engine.low_backing = softmmu.backing_of(0, int(m.memory.ram))
        m.engine.high_backing = softmmu.backing_of(FOUR_GIB, int(m.memory.ram) + low) if high else 0
        self.engine.flush()
        softmmu.take_over(fill.on_miss.address)

    def _find_invalid_address(self) -> int:
        """Before the reset the engine is in 64-bit mode, where the sentinel is a possible address; with paging off nothing is
        there."""
        found = self.engine.find_invalid_address()
        self.state.engine.fill_failed = 0
        return found

    # ---- running -------------------------------------------------------------------------------------------------------------

    def run(self, until: int | None = None, on_slice: Callable[["Machine"], None] | None = None) -> RunResult:
        """Run until the guest ends, goes wrong, or `until` cycles have passed; `on_slice` is called each million cycles or
        more often.

        Where `until` stopped a run, what follows may be a few cycles off one that was not stopped there. KeyboardInterrupt (or
        `interrupt()` from a signal handler) ends the run with reason "interrupted".
        """
        m = self.state
        native = _native(loop.run.address)
        limit = (1 << 64) - 1 if until is None else until << 4
        m.report.reason = int(report.RUNNING)
        try:
            while True:
                m.clock.slice_end = min((int(m.clock.ticks) // SLICE_TICKS + 1) * SLICE_TICKS, limit)
                began = time.perf_counter()
                reason = native(m.address)
                self.wall_seconds += time.perf_counter() - began
                self._drain()
                if reason == report.SLICE_END:
                    if int(m.clock.ticks) >= limit:
                        return describe(self, int(report.UNTIL))
                elif reason not in (report.TRACE_FULL, report.RUNNING):
                    return describe(self, reason)
                if on_slice is not None:
                    on_slice(self)
                if self._interrupted:
                    self._interrupted = False
                    return describe(self, None)
        except KeyboardInterrupt:
            self._drain()
            return describe(self, None)

    def interrupt(self) -> None:
        """Ask a running machine to stop at the end of its slice; safe in a signal handler."""
        self._interrupted = True

    def _drain(self) -> None:
        m = self.state
        output = m.platform.output
        count = int(output.count)
        if count:
            data, channels = output.byte.numpy[:count], output.channel.numpy[:count]
            start = 0
            for end in [*(np.flatnonzero(np.diff(channels)) + 1), count]:
                name = CHANNELS.get(int(channels[start]), "serial")
                for callback in self._output:
                    callback(name, bytes(data[start:end]))
                start = int(end)
            output.count = 0
        count = int(m.trace.count)
        if count:
            new = self._events_view()[:count].copy()
            m.trace.count = 0
            self._collect(new)
            for observer in self._observers:
                observer(new)

    def _events_view(self) -> np.ndarray[Any, Any]:
        trace = self.state.trace
        start = Trace.FIELDS["events"].offset
        view: np.ndarray[Any, Any] = trace.bytes()[start : start + CAPACITY * Event.SIZE].view(DTYPE)
        return view

    # ---- outside influence -----------------------------------------------------------------------------------------------------

    def inject(self, injection: Injection | str) -> None:
        """Schedule an error or interrupt: an Injection, or its text ('ce@cycle=5M,hpa=0x1f3000'). Raises InputError."""
        if isinstance(injection, str):
            injection = Injection.parse(injection)
        self.configuration.check_injection(injection)
        try:
            schedule(self.state, injection)
        except ValueError as problem:
            raise InputError(f"injection {injection.text()!r}", str(problem)) from None

    def on_output(self, callback: Callable[[str, bytes], None]) -> None:
        """Call back with (channel, bytes) for what the guest prints; channels: serial, debug, debug402."""
        self._output.append(callback)

    def on_events(self, callback: Callable[[np.ndarray[Any, Any]], None]) -> None:
        """Call back with each batch of new trace events (structured array with the fields of trace.layout.Event)."""
        self._observers.append(callback)


def _native(address: int, arguments: int = 1) -> Callable[..., int]:
    return ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * arguments)(address)


__all__ = ["InputError", "Machine"]
