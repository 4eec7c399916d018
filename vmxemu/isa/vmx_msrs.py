"""Values of the VMX capability MSRs, computed from the names of what a profile supports. SDM Vol. 3D, App. A."""

from vmxemu.isa import bits, capabilities, controls, fields, msrs
from vmxemu.isa.profile import VmxCapabilities

# MSR, control word, whether the default1 controls that have a name may be cleared.
CONTROL_MSRS: tuple[tuple[str, str, bool], ...] = (
    ("IA32_VMX_PINBASED_CTLS", "pin", False),
    ("IA32_VMX_PROCBASED_CTLS", "primary", False),
    ("IA32_VMX_EXIT_CTLS", "exit", False),
    ("IA32_VMX_ENTRY_CTLS", "entry", False),
    ("IA32_VMX_TRUE_PINBASED_CTLS", "pin", True),
    ("IA32_VMX_TRUE_PROCBASED_CTLS", "primary", True),
    ("IA32_VMX_TRUE_EXIT_CTLS", "exit", True),
    ("IA32_VMX_TRUE_ENTRY_CTLS", "entry", True),
    ("IA32_VMX_PROCBASED_CTLS2", "secondary", False),
)


def allowed_settings(word: str, supported: frozenset[str], true_controls: bool) -> tuple[int, int]:
    """(allowed-0, allowed-1) of a control word: bits that must be 1, and bits that may be 1."""
    must, may = 0, 0
    for control in controls.ROWS:
        if control.word != word:
            continue
        optional = control.name in supported
        if control.default1 and not (true_controls and optional):
            must |= control.mask
        if control.default1 or optional:
            may |= control.mask
    return must, may


def _flags(msr: str, names: list[str]) -> int:
    for name in names:
        if name not in capabilities.BY_NAME or capabilities.BY_NAME[name].msr != msr:
            raise ValueError(f"{name} is not a flag of {msr}")
    return sum(capabilities.BY_NAME[name].mask for name in names)


def _basic(vmx: VmxCapabilities) -> int:
    flags = _flags("IA32_VMX_BASIC", vmx.basic)
    return flags | vmx.revision_id | vmx.vmcs_bytes << 32 | vmx.memory_type << 50


def _misc(vmx: VmxCapabilities) -> int:
    counts = vmx.preemption_timer_shift | vmx.cr3_targets << 16 | vmx.msr_list_512s << 25
    return _flags("IA32_VMX_MISC", vmx.misc) | counts | vmx.mseg_revision_id << 32


def _fixed(features: frozenset[str]) -> dict[str, int]:
    cr0_fixed0 = int(bits.CR0_PE) | int(bits.CR0_NE) | int(bits.CR0_PG)
    return {
        "IA32_VMX_CR0_FIXED0": cr0_fixed0,
        "IA32_VMX_CR0_FIXED1": 0xFFFFFFFF,
        "IA32_VMX_CR4_FIXED0": int(bits.CR4_VMXE),
        "IA32_VMX_CR4_FIXED1": bits.supported("CR4", features),
    }


def values(features: frozenset[str], vmx: VmxCapabilities) -> dict[int, int]:
    """MSR address to value of every VMX capability MSR that exists. Raises ValueError on a name that is no flag."""
    supported = vmx.control_names
    named: dict[str, int] = {"IA32_VMX_BASIC": _basic(vmx), "IA32_VMX_MISC": _misc(vmx)}
    named |= _fixed(features)
    named["IA32_VMX_VMCS_ENUM"] = fields.highest_index(supported) << 1
    for msr, word, true_controls in CONTROL_MSRS:
        must, may = allowed_settings(word, supported, true_controls)
        named[msr] = must | may << 32
    if "CPU_SECONDARY" not in supported:
        del named["IA32_VMX_PROCBASED_CTLS2"]
    if supported & {"SECONDARY_EPT", "SECONDARY_VPID"}:
        named["IA32_VMX_EPT_VPID_CAP"] = _flags("IA32_VMX_EPT_VPID_CAP", vmx.ept_vpid)
    if "SECONDARY_VMFUNC" in supported:
        named["IA32_VMX_VMFUNC"] = allowed_settings("vmfunc", supported, False)[1]
    if "CPU_TERTIARY" in supported:
        named["IA32_VMX_PROCBASED_CTLS3"] = allowed_settings("tertiary", supported, False)[1]
    if "EXIT_SECONDARY_CONTROLS" in supported:
        named["IA32_VMX_EXIT_CTLS2"] = allowed_settings("exit2", supported, False)[1]
    return {msrs.BY_NAME[name].address: value for name, value in named.items()}
