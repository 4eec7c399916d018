"""Model-specific registers: `msrs.IA32_EFER` is its address. SDM Vol. 4; the emulator's own start with VMXEMU_."""

from dataclasses import dataclass

from vmxemu.isa import data


@dataclass(frozen=True, slots=True)
class Msr:
    """One MSR. `reset` is None where a profile or the configuration decides; WRMSR of a 1 in `reserved` is #GP."""

    address: int
    name: str
    access: str
    reset: int | None
    reserved: int
    checks: tuple[str, ...]
    exists_if: str
    meaning: str
    sdm: str

    @property
    def readable(self) -> bool:
        return "r" in self.access

    @property
    def writable(self) -> bool:
        return "w" in self.access


def _row(row: dict[str, str]) -> Msr:
    return Msr(
        address=data.number(row["address"]),
        name=row["name"],
        access=row["access"],
        reset=data.number(row["reset"]) if row["reset"] else None,
        reserved=data.number(row["reserved"]),
        checks=() if row["check"] == "none" else tuple(row["check"].split("+")),
        exists_if="" if row["exists_if"] == "1" else row["exists_if"],
        meaning=row["meaning"],
        sdm=row["sdm"],
    )


ROWS: tuple[Msr, ...] = tuple(_row(row) for row in data.table("msrs"))
BY_ADDRESS: dict[int, Msr] = {msr.address: msr for msr in ROWS}
BY_NAME: dict[str, Msr] = {msr.name: msr for msr in ROWS}

globals().update(data.constants({msr.name: msr.address for msr in ROWS}))


def __getattr__(name: str) -> int:
    raise AttributeError(f"isa/msrs.csv has no MSR {name}")
