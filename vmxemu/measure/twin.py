"""The twin in plain C, benchmarks/ept_twin.c: compiled, loaded, and given the same tables and the same TLB."""

import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vmxemu.configuration import rates
from vmxemu.measure.cases import ACCESSES, Case
from vmxemu.translation.library import Addresses

FLAGS = ("-O2", "-shared", "-fPIC")
COUNTED = ("stlb_hits", "walks", "references", "cycles", "table_hits", "ept_table_hits", "nested_hits")


@dataclass(frozen=True, slots=True)
class Translated:
    """One run of the twin; `counted` are the COUNTED of the run."""

    seconds: float
    hpas: Addresses
    counted: tuple[int, ...]


class Twin:
    """The compiled library. It translates in 64-bit mode, with 4 levels, on one core."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.twin_translate_many.restype = ctypes.c_uint64
        self._hpas: Addresses = np.zeros(0, np.uint64)

    @classmethod
    def compiled(cls) -> "Twin | None":
        """None where there is no C compiler ($CC, else cc), or it fails."""
        command = shlex.split(os.environ.get("CC") or "cc")
        source = rates.path().parent / "ept_twin.c"
        if not command or shutil.which(command[0]) is None or not source.is_file():
            return None
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "ept_twin.so"
            command += [*FLAGS, "-o", str(library), str(source)]
            if subprocess.run(command, capture_output=True, check=False).returncode:
                return None
            return cls(library)

    def use(self, m: Any) -> None:
        """Take over a processor's tables, geometry and costs; the twin's caches are empty afterwards."""
        tlb = m.tlb
        numbers = np.array(
            [
                *(int(m.memory.low_bytes), int(m.r.cr[3]), int(m.paging.ept_pointer), int(m.cpu.physical_bits)),
                *(int(tlb.stlb_cycles), int(tlb.walk_cycles), int(tlb.reference_cycles)),
            ],
            np.uint64,
        )
        where = (int(m.memory.ram), numbers.ctypes.data, tlb.arrays[0].address, m.caches.address)
        if not self._library.twin_setup(*map(ctypes.c_void_p, where)):
            raise RuntimeError("the C twin has no room for these caches")

    def translate(self, glas: Addresses, case: Case) -> Translated:
        """Translate; the result's array is overwritten by the next call."""
        if case.cold:
            self._library.twin_invalidate()
        if len(self._hpas) != len(glas):
            self._hpas = np.zeros_like(glas)
        counted = (ctypes.c_uint64 * len(COUNTED))()
        where, to = ctypes.c_void_p(glas.ctypes.data), ctypes.c_void_p(self._hpas.ctypes.data)
        access = ctypes.c_uint64(ACCESSES.index(case.access))
        count, dependent = ctypes.c_uint64(len(glas)), ctypes.c_int(case.dependent)
        nanoseconds = self._library.twin_translate_many(where, to, count, access, dependent, ctypes.byref(counted))
        return Translated(nanoseconds * 1e-9, self._hpas, tuple(counted))
