"""Rates of batch translation, measured without a machine, beside a twin in plain C where there is a compiler."""

import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vmxemu.configuration import rates
from vmxemu.translation.batch import translate_many
from vmxemu.translation.geometry import NO_TLB, SKYLAKE_SP, Geometry
from vmxemu.translation.invalidate import invalidate_all
from vmxemu.translation.layout import READ
from vmxemu.translation.library import PAGE_4K, Addresses, Walker

PAGES = 16384
HOT_PAGES = 32  # fit any first-level TLB
WARM_PAGES = 1024  # fit the second level, and leave little to the first
GUEST_LINEAR = 1 << 32
GUEST_PHYSICAL = 16 << 20
ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Measured:
    """Operations, and the seconds they took here and in the C twin."""

    operations: int
    seconds: float
    twin_seconds: float | None


@dataclass(frozen=True, slots=True)
class Case:
    """Which pages are translated, in which order, with which TLB, and whether it is empty at the start."""

    order: Callable[[np.random.Generator], Any]
    geometry: Geometry = SKYLAKE_SP
    cold: bool = False


CASES = {
    "tlb_hits": Case(lambda chance: np.tile(np.arange(HOT_PAGES), 1 << 13)),
    "stlb_hits": Case(lambda chance: chance.integers(0, WARM_PAGES, 1 << 16)),
    "cold_walks": Case(lambda chance: chance.permutation(PAGES), cold=True),
    "bare_walks": Case(lambda chance: chance.permutation(PAGES), NO_TLB),
}


def measure(phase: str, twin: "Twin | None") -> Measured:
    """Run one of CASES, by turns with the twin, and give the best times of both."""
    case = CASES[phase]
    walker = _walker(case.geometry)
    addresses = np.uint64(GUEST_LINEAR) + case.order(np.random.default_rng(0)).astype(np.uint64) * np.uint64(PAGE_4K)
    if twin:
        twin.use(walker, case.geometry)
    best, best_twin = float("inf"), float("inf")
    for number in range(ROUNDS + 1):
        if case.cold:
            invalidate_all(walker.m)
        seconds, hpas = _timed(walker, addresses)
        if number:  # the first round compiles, and fills the TLB
            best = min(best, seconds)
        if twin:
            seconds, twin_hpas = twin.timed(addresses, case.cold)
            if (hpas != twin_hpas).any():
                raise RuntimeError("the C twin translates differently")
            best_twin = min(best_twin, seconds) if number else best_twin
    return Measured(len(addresses), best, best_twin if twin else None)


def _walker(geometry: Geometry) -> Walker:
    """4-KiB pages in both dimensions."""
    walker = Walker(256 << 20, geometry)
    ept = walker.new_ept()
    ept.map(GUEST_PHYSICAL, GUEST_PHYSICAL, size=PAGE_4K, count=PAGES)
    guest = walker.new_guest_tables(ept)
    guest.map(GUEST_LINEAR, GUEST_PHYSICAL, count=PAGES)
    walker.use(guest, ept)
    return walker


def _timed(walker: Walker, addresses: Addresses) -> tuple[float, Addresses]:
    hpas, outcomes = np.ones_like(addresses), np.ones_like(addresses)
    begun = time.perf_counter()
    access: Any = READ
    translate_many(walker.m, addresses, access, hpas, outcomes)
    seconds = time.perf_counter() - begun
    if outcomes.any():
        raise RuntimeError("a translation failed")
    return seconds, hpas


class Twin:
    """benchmarks/ept_twin.c, compiled and loaded."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.twin_translate_many.restype = ctypes.c_uint64

    @classmethod
    def compiled(cls) -> "Twin | None":
        """None where there is no C compiler, or it fails."""
        compiler = shutil.which("cc")
        source = rates.path().parent / "ept_twin.c"
        if compiler is None or not source.is_file():
            return None
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "ept_twin.so"
            command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source)]
            if subprocess.run(command, capture_output=True, check=False).returncode:
                return None
            return cls(library)

    def use(self, walker: Walker, geometry: Geometry) -> None:
        """Take over tables and TLB geometry."""
        m, arrays = walker.m, geometry.arrays
        numbers = (
            *(int(m.memory.ram), int(m.memory.low_bytes), int(m.r.cr[3]), int(m.paging.ept_pointer)),
            *(*arrays.get("l1d_4k", (0, 0)), *arrays.get("stlb_4k", (0, 0))),
        )
        self._library.twin_setup(*map(ctypes.c_uint64, numbers))

    def timed(self, addresses: Addresses, cold: bool) -> tuple[float, Addresses]:
        """Translate; seconds and results."""
        if cold:
            self._library.twin_invalidate()
        hpas = np.ones_like(addresses)
        where, to = ctypes.c_void_p(addresses.ctypes.data), ctypes.c_void_p(hpas.ctypes.data)
        count, access = ctypes.c_uint64(len(addresses)), ctypes.c_uint64(int(READ))
        return self._library.twin_translate_many(where, to, count, access) * 1e-9, hpas
