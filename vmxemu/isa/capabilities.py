"""Flag bits of the VMX capability MSRs: `capabilities.EPT_WALK_5` is its mask. SDM Vol. 3D, App. A."""

from dataclasses import dataclass

from vmxemu.isa import data


@dataclass(frozen=True, slots=True)
class Capability:
    """One yes-or-no bit of a VMX capability MSR."""

    msr: str
    bit: int
    name: str
    sdm: str

    @property
    def mask(self) -> int:
        return 1 << self.bit


ROWS: tuple[Capability, ...] = tuple(
    Capability(row["msr"], data.number(row["bit"]), row["name"], row["sdm"]) for row in data.table("vmx_capabilities")
)
BY_NAME: dict[str, Capability] = {row.name: row for row in ROWS}

globals().update(data.constants({row.name: row.mask for row in ROWS}))


def __getattr__(name: str) -> int:
    raise AttributeError(f"isa/vmx_capabilities.csv has no capability {name}")
