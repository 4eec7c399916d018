"""The registers that decide a walk, from a mode and a few names, and a processor of a CPU profile to have them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vmxemu.cpu.layout import HF_CPL, HF_CS64
from vmxemu.isa import bits, cpus, msrs
from vmxemu.translation.bits import EPT_VPID_CAP
from vmxemu.translation.invalidate import invalidate_all
from vmxemu.translation.library import Walker

MODES = ("off", "32-bit", "pae", "4-level", "5-level")
REGISTERS_OF_CONTROLS = {"WP": "cr0", "NXE": "efer", "AC": "rflags"}  # all others are in CR4


@dataclass(frozen=True, slots=True)
class Setting:
    """What a walk depends on. `controls`: names of bits of CR0, CR4, EFER and RFLAGS."""

    mode: str = "4-level"
    controls: tuple[str, ...] = ("WP", "PGE", "NXE")
    cpl: int = 0
    cr3: int = 0
    eptp: int = 0
    pdptes: tuple[int, ...] = (0, 0, 0, 0)
    pkru: int = 0
    pkrs: int = 0

    def registers(self) -> dict[str, int]:
        """Values by register name."""
        values = {"cr0": int(bits.CR0_PE), "cr4": 0, "efer": 0, "rflags": 2}
        for name in self.controls:
            register = REGISTERS_OF_CONTROLS.get(name, "cr4")
            values[register] |= int(getattr(bits, f"{register.upper()}_{name}"))
        if self.mode != "off":
            values["cr0"] |= int(bits.CR0_PG)
        if self.mode in ("pae", "4-level", "5-level"):
            values["cr4"] |= int(bits.CR4_PAE)
        if self.mode in ("4-level", "5-level"):
            values["efer"] |= int(bits.EFER_LMA | bits.EFER_LME)
        if self.mode == "5-level":
            values["cr4"] |= int(bits.CR4_LA57)
        rest = {name: getattr(self, name) for name in ("cpl", "cr3", "eptp", "pkru", "pkrs")}
        return values | rest | {f"pdpte{number}": value for number, value in enumerate(self.pdptes)}


def walker_for(ram_bytes: int, cpu: str) -> Walker:
    """A walker with the caches and abilities of a CPU profile."""
    profile = cpus.load(cpu)
    walker = Walker(ram_bytes, cpu, profile.identity.physical_bits)
    m = walker.m
    m.cpu.vmx_msr[int(EPT_VPID_CAP)] = profile.msr_values[int(msrs.IA32_VMX_BASIC) + int(EPT_VPID_CAP)]
    m.paging.no_1g_pages = int("PAGE1GB" not in profile.features)
    return walker


WALK_CACHES = ("tables_on", "ept_tables_on", "nested_on", "nested_pages_on")


def without_walk_caches(m: Any) -> None:
    """Switch paging-structure caches and nested TLBs off: each walk makes all its references, as in a textbook."""
    for name in WALK_CACHES:
        setattr(m.tlb, name, 0)


def has_walk_caches(m: Any) -> bool:
    """Whether walks may be spared some of their references."""
    return any(int(getattr(m.tlb, name)) for name in WALK_CACHES)


def apply(m: Any, setting: Setting) -> None:
    """Put all registers of a setting into force."""
    set_registers(m, setting.registers())
    m.r.mode = int(m.r.mode) & ~int(HF_CS64) | (int(HF_CS64) if setting.mode in ("4-level", "5-level") else 0)


def set_registers(m: Any, values: Mapping[str, int]) -> None:
    """Write registers by name: cr0, cr3, cr4, efer, rflags, cpl, eptp, pkru, pkrs, pdpte0 to pdpte3. Cached translations
    are dropped.
    """
    for name, value in values.items():
        if name in ("cr0", "cr3", "cr4"):
            m.r.cr[int(name[2])] = value
        elif name == "efer":
            m.r.efer = value
        elif name == "rflags":
            m.r.eflags = value
        elif name == "cpl":
            m.r.mode = int(m.r.mode) & ~int(HF_CPL) | value
        else:
            setattr(m.paging, "ept_pointer" if name == "eptp" else name, value)
    invalidate_all(m)
