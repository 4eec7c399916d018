"""CPU profiles: what a processor can do, how large its translation hardware is, and what its events cost."""

import tomllib
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from typing import Any, TypeVar

from vmxemu.isa import controls, cpuid, data, mca, msrs, vmx_msrs
from vmxemu.isa.profile import (
    Cache,
    Cost,
    CpuidLeaf,
    FeatureList,
    Identity,
    MachineCheck,
    MemoryLatency,
    TlbGeometry,
    VmxCapabilities,
    WalkCache,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CpuProfile:
    """One processor. `msr_values` are the reset values that differ between processors; `costs` are cycles by event."""

    name: str
    description: str
    instruction_costs: str
    identity: Identity
    features: frozenset[str]
    mca: MachineCheck
    vmx: VmxCapabilities
    caches: dict[str, Cache]
    memory: MemoryLatency
    tlb: dict[str, TlbGeometry]
    walk_caches: dict[str, WalkCache]
    costs: dict[str, int]
    cost_sources: dict[str, str]
    cpuid: list[CpuidLeaf]
    msr_values: dict[int, int]

    def has(self, condition: str) -> bool:
        """Whether an `exists_if` cell holds here: `&` binds looser than `|`; empty or 1 is always true."""
        if condition in ("", "1"):
            return True
        present = self.features | self.vmx.control_names | frozenset(self.mca.capabilities)
        return all(any(name in present for name in group.split("|")) for group in condition.split("&"))

    def msr_exists(self, msr: msrs.Msr) -> bool:
        """Whether the processor has this MSR; RDMSR of any other is #GP."""
        in_banks = msr.name.startswith("IA32_MC") and msr.name[len("IA32_MC") :].split("_")[0].isdigit()
        if in_banks and int(msr.name[len("IA32_MC") :].split("_")[0]) >= self.mca.banks:
            return False
        return self.has(msr.exists_if)

    def reset_values(self) -> dict[int, int]:
        """Reset value of every MSR that exists and that the profile or the table decides."""
        table = {row.address: row.reset for row in msrs.ROWS if row.reset is not None and self.msr_exists(row)}
        return table | self.msr_values


def names() -> list[str]:
    """The profiles there are."""
    return sorted(path.stem for path in (data.directory() / "cpus").glob("*.toml"))


def load(name: str) -> CpuProfile:
    """The profile `name`. Raises ValueError, naming the known profiles or the wrong key, if it cannot be had."""
    known = names()
    if name not in known:
        raise ValueError(f"no CPU profile {name!r}; known: {', '.join(known)}")
    with (data.directory() / "cpus" / f"{name}.toml").open("rb") as stream:
        return parse(tomllib.load(stream))


def parse(tree: dict[str, Any]) -> CpuProfile:
    """A profile from the tree that its TOML holds. Raises ValueError that names the key on anything wrong."""
    name = str(tree.get("name"))
    sections = ("identity", "cpuid", "mca", "vmx", "caches", "memory", "tlb", "walk_caches", "costs")
    for key in ("name", "description", "instruction_costs", *sections):
        if key not in tree:
            raise ValueError(f"{name}: missing key {key}")
    identity = _build(Identity, tree["identity"], f"{name}.identity")
    features = frozenset(_build(FeatureList, tree["cpuid"], f"{name}.cpuid").features)
    vmx = _build(VmxCapabilities, tree["vmx"], f"{name}.vmx")
    machine_check = _build(MachineCheck, tree["mca"], f"{name}.mca")
    _check_names(name, features, vmx, machine_check)
    caches = {key: _build(Cache, value, f"{name}.caches.{key}") for key, value in tree["caches"].items()}
    tlb = {key: _build(TlbGeometry, value, f"{name}.tlb.{key}") for key, value in tree["tlb"].items()}
    costs = {key: _build(Cost, value, f"{name}.costs.{key}") for key, value in tree["costs"].items()}
    return CpuProfile(
        name=name,
        description=tree["description"],
        instruction_costs=tree["instruction_costs"],
        identity=identity,
        features=features,
        mca=machine_check,
        vmx=vmx,
        caches=caches,
        memory=_build(MemoryLatency, tree["memory"], f"{name}.memory"),
        tlb=tlb,
        walk_caches={
            key: _build(WalkCache, value, f"{name}.walk_caches.{key}") for key, value in tree["walk_caches"].items()
        },
        costs={key: cost.cycles for key, cost in costs.items()},
        cost_sources={key: cost.source for key, cost in costs.items()},
        cpuid=cpuid.leaves(identity, features, caches, tlb),
        msr_values=vmx_msrs.values(features, vmx) | _identity_msrs(identity, machine_check),
    )


def _build(kind: type[T], table: dict[str, Any], where: str) -> T:
    """A dataclass from a TOML table, its keys and the kinds of their values checked."""
    wanted = {field.name: field.type for field in dataclass_fields(kind)}  # type: ignore[arg-type]
    for key in table.keys() ^ wanted.keys():
        raise ValueError(f"{where}.{key}: {'unknown' if key in table else 'missing'} key")
    for key, value in table.items():
        if not _fits(wanted[key], value):
            raise ValueError(f"{where}.{key}: {value!r} is not {wanted[key]}")
    return kind(**table)


def _fits(wanted: Any, value: Any) -> bool:
    origin = getattr(wanted, "__origin__", wanted)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if origin is list:
        return isinstance(value, list) and all(_fits(wanted.__args__[0], item) for item in value)
    return isinstance(value, origin)


def _check_names(name: str, features: frozenset[str], vmx: VmxCapabilities, machine_check: MachineCheck) -> None:
    for feature in sorted(features - cpuid.FEATURE_NAMES):
        raise ValueError(f"{name}.cpuid.features: {feature} is not in cpuid_features.csv")
    for word, listed in vmx.controls.items():
        for control in listed:
            if control not in controls.BY_NAME or controls.BY_NAME[control].word != word:
                raise ValueError(f"{name}.vmx.controls.{word}: no control {control} of that word in controls.csv")
    known = {field.name for field in mca.FIELDS if field.register == "IA32_MCG_CAP"}
    for flag in machine_check.capabilities:
        if flag not in known:
            raise ValueError(f"{name}.mca.capabilities: {flag} is not in mca_registers.csv")


def _identity_msrs(identity: Identity, machine_check: MachineCheck) -> dict[int, int]:
    masks = {field.name: field.mask for field in mca.FIELDS}
    values = {
        "IA32_BIOS_SIGN_ID": identity.microcode_revision << 32,
        "MSR_PLATFORM_INFO": identity.tsc_hz // 100_000_000 << 8,
        "IA32_MCG_CAP": machine_check.banks | sum(masks[flag] for flag in machine_check.capabilities),
    }
    return {msrs.BY_NAME[name].address: value for name, value in values.items()}
