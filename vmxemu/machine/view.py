"""Reading a machine from Python: registers, memory by each kind of address, VMCSs, statistics, events."""

import ctypes
from collections import deque
from typing import Any

import capstone
import numpy as np

from vmxemu.cpu.flags import read_flags
from vmxemu.isa import fields
from vmxemu.memory.physical import host_address
from vmxemu.outer.ept_tables import NOT_MAPPED
from vmxemu.outer.lookup import frame_behind
from vmxemu.trace.digest import Digest
from vmxemu.trace.emit import level_of
from vmxemu.trace.events import PHASES
from vmxemu.translation.stale_report import stale_uses
from vmxemu.vmx.vmcs import vmread_field

EVENTS_KEPT = 4096
PAGE_BYTES = 4096
VMCS_NAMES = ("01", "12", "02")


class View:
    """The read side of `Machine`; it changes nothing that the guest could see."""

    state: Any  # Record of vmxemu.state.State; fields by name
    registers: Any  # Record of vmxemu.cpu.layout.Registers
    configuration: Any
    wall_seconds: float
    _translate: Any

    def _start_collecting(self) -> None:
        self._digest = Digest(tuple(rule.name for rule in self.configuration.policy))
        self._recent: deque[np.void] = deque(maxlen=EVENTS_KEPT)

    def _collect(self, new: "np.ndarray[Any, Any]") -> None:
        self._digest.add(new)
        self._recent.extend(new[-EVENTS_KEPT:])

    # ---- processor -------------------------------------------------------------------------------------------------------------

    @property
    def cycles(self) -> int:
        """Virtual cycles since reset."""
        return int(self.state.clock.ticks) >> 4

    @property
    def instructions(self) -> int:
        """Instructions of the blocks that have begun."""
        return int(self.state.clock.instructions)

    @property
    def rflags(self) -> int:
        """RFLAGS, arithmetic flags included."""
        return int(read_flags(self.state))

    @property
    def level(self) -> str:
        """What runs: L0, L1, L2 or SMM."""
        return ("L0", "L1", "L2", "SMM")[int(level_of(self.state))]

    @property
    def phase(self) -> str:
        """Name of the latest phase."""
        rows = self._digest.summary()["phases"]
        return str(rows[-1]["name"]) if rows else PHASES[1]

    @property
    def exits(self) -> int:
        """VM exits so far."""
        return int(self.state.report.level_exits.numpy.sum())

    # ---- memory ----------------------------------------------------------------------------------------------------------------

    def read_hpa(self, hpa: int, size: int) -> bytes:
        """Bytes of physical memory. Raises ValueError where there is no RAM or ROM (or SMRAM hides it)."""
        return self._pieces(hpa, size, lambda address: address)

    def read_gpa(self, gpa: int, size: int, level: int = 1) -> bytes:
        """Bytes by guest-physical address of VM1 (level 1) or VM2 (level 2). Raises ValueError where nothing is mapped."""
        return self._pieces(gpa, size, lambda address: self.hpa_of_gpa(address, level))

    def read_gva(self, gva: int, size: int) -> bytes:
        """Bytes by linear address of the software that runs now. Raises ValueError where nothing is mapped."""
        return self._pieces(gva, size, self.hpa_of_gva)

    def hpa_of_gpa(self, gpa: int, level: int = 1) -> int:
        """Host-physical address behind a guest-physical one, by the tables as they stand. Raises ValueError if unmapped."""
        hpa = int(frame_behind(self.state, gpa, level == 2))
        if hpa == int(NOT_MAPPED):
            raise ValueError(f"GPA {gpa:#x} of VM{level} is not mapped")
        return hpa

    def hpa_of_gva(self, gva: int) -> int:
        """Host-physical address behind a linear address now. Nothing is left of the look. Raises ValueError if unmapped."""
        m = self.state
        tlb, walk, caches = m.tlb.bytes().copy(), m.walk.bytes().copy(), m.caches.on
        m.caches.on, m.tlb.probing, m.tlb.checking = 0, 1, 0
        try:
            outcome = self._translate(m.address, gva, 0)
            hpa = int(m.walk.hpa)
        finally:
            m.tlb.bytes()[:], m.walk.bytes()[:], m.caches.on = tlb, walk, caches
        if outcome:
            raise ValueError(f"GVA {gva:#x} is not mapped")
        return hpa

    def _pieces(self, address: int, size: int, find: Any) -> bytes:
        data = bytearray()
        while size:
            piece = min(size, PAGE_BYTES - address % PAGE_BYTES)
            hpa = find(address)
            host = int(host_address(self.state, hpa))
            if host == 0:
                raise ValueError(f"no memory at HPA {hpa:#x}")
            data += ctypes.string_at(host, piece)
            address, size = address + piece, size - piece
        return bytes(data)

    def disassemble(self, gva: int, count: int = 8) -> list[str]:
        """Instructions at a linear address of the software that runs now, one line each; empty where there is no code to read."""
        long_mode, wide = bool(self.registers.mode & 1 << 15), bool(self.registers.mode & 1 << 4)
        mode = capstone.CS_MODE_64 if long_mode else capstone.CS_MODE_32 if wide else capstone.CS_MODE_16
        start = gva + (0 if long_mode else int(self.registers.seg[1].base))
        for size in (16 * count, 16):
            try:
                code = self.read_gva(start, size)
            except ValueError:
                continue
            shown = capstone.Cs(capstone.CS_ARCH_X86, mode).disasm(code, gva, count)
            return [f"{one.address:#x}  {one.bytes.hex():<24} {one.mnemonic} {one.op_str}".rstrip() for one in shown]
        return []

    # ---- VMX -------------------------------------------------------------------------------------------------------------------

    def vmcs(self, which: str = "current") -> dict[str, int]:
        """Every field of a VMCS by name: "current" (the processor's), "01", "12" or "02". Raises ValueError if there is none."""
        m = self.state
        host = {
            "current": int(m.vmx.host_address),
            "01": int(host_address(m, m.outer.vmcs01)) if m.outer.up else 0,
            "02": int(host_address(m, m.outer.vmcs02)) if m.outer.up else 0,
            "12": int(m.outer.nested.host_address),
        }.get(which, 0)
        if not host:
            raise ValueError(f"no VMCS {which!r}; known: current, {', '.join(VMCS_NAMES)}, as far as they exist")
        return {row.name: int(vmread_field(host, row.encoding)) for row in fields.ROWS}

    # ---- what happened -----------------------------------------------------------------------------------------------------------

    def recent_events(self, count: int) -> "np.ndarray[Any, Any]":
        """The latest events."""
        rows = list(self._recent)[-count:]
        return np.array(rows) if rows else np.zeros(0)

    def statistics(self) -> dict[str, Any]:
        """What has happened so far, JSON-able: exits_by_reason, phases, management, decisions, deliveries, migrations, refusals,
        bypasses, injections, translation, virtual_cycles, instructions, wall_seconds, mips; stale_translations if they are
        looked for."""
        m = self.state
        facts = self._digest.summary()
        facts |= {
            "translation": self._translation(),
            "virtual_cycles": self.cycles,
            "instructions": self.instructions,
            "blocks": int(m.clock.blocks),
            "wall_seconds": self.wall_seconds,
            "mips": self.instructions / self.wall_seconds / 1e6 if self.wall_seconds else 0.0,
            "events": int(m.trace.total),
            "events_lost": int(m.trace.lost),
            "management_lost": int(m.platform.management.lost),
            "retired_uses": int(m.outer.retired_uses),
        }
        if m.tlb.checking:
            facts["stale_translations"] = {"uses": int(m.tlb.stale_count), "kinds": stale_uses(m)}
        return facts

    def _translation(self) -> dict[str, Any]:
        tlb = self.state.tlb
        walks, lookups = int(tlb.walks), int(tlb.clock)
        return {
            "fills": int(self.state.engine.fills),
            "tlb_lookups": lookups,
            "tlb_first_level_hits": lookups - int(tlb.stlb_hits) - walks,
            "tlb_second_level_hits": int(tlb.stlb_hits),
            "walks": walks,
            "walk_references": int(tlb.references),
            "references_per_walk": round(int(tlb.references) / walks, 3) if walks else 0.0,
            "walk_faults": int(tlb.faults),
            "invalidations": int(tlb.invalidations),
            "engine_flushes": int(self.state.engine.flushes),
        }
