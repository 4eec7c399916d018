"""Laws of the CPU profiles and of what is computed from them."""

import tomllib
from typing import Any

import pytest

from vmxemu.isa import controls, cpuid, cpus, data, instruction_costs, msrs
from vmxemu.timing import costs

PROFILES = {name: cpus.load(name) for name in cpus.names()}


@pytest.fixture(params=sorted(PROFILES))
def profile(request: pytest.FixtureRequest) -> cpus.CpuProfile:
    return PROFILES[request.param]


def leaf(profile: cpus.CpuProfile, number: int, subleaf: int = 0) -> tuple[int, int, int, int]:
    return next(row[2:] for row in profile.cpuid if row[:2] == (number, subleaf))


def value(profile: cpus.CpuProfile, name: str) -> int:
    return profile.msr_values[msrs.BY_NAME[name].address]


def tree(name: str = "skylake-sp") -> dict[str, Any]:
    return tomllib.loads((data.directory() / "cpus" / f"{name}.toml").read_text(encoding="utf-8"))


def test_the_promised_profiles_exist() -> None:
    assert set(PROFILES) >= {"skylake-sp", "icelake-sp", "zen4-like", "ideal"}


def test_a_profile_is_called_like_its_file(profile: cpus.CpuProfile) -> None:
    assert PROFILES[profile.name] is profile


@pytest.mark.parametrize("word", ["PINBASED", "PROCBASED", "EXIT", "ENTRY"])
def test_capability_words_are_consistent(profile: cpus.CpuProfile, word: str) -> None:
    plain, true = value(profile, f"IA32_VMX_{word}_CTLS"), value(profile, f"IA32_VMX_TRUE_{word}_CTLS")
    name = {"PINBASED": "pin", "PROCBASED": "primary", "EXIT": "exit", "ENTRY": "entry"}[word]
    default1 = sum(row.mask for row in controls.ROWS if row.word == name and row.default1)
    assert plain & 0xFFFFFFFF == default1, "allowed-0 is the default1 class"
    assert plain >> 32 == true >> 32, "allowed-1 does not depend on the true controls"
    for capability in (plain, true):
        must, may = capability & 0xFFFFFFFF, capability >> 32
        assert must & ~may == 0
    assert true & 0xFFFFFFFF & ~default1 == 0
    assert default1 & ~(plain >> 32) == 0


def test_true_controls_are_the_ones_that_hardware_reports(profile: cpus.CpuProfile) -> None:
    expected = {"PINBASED": 0x16, "PROCBASED": 0x04006172, "EXIT": 0x00036DFB, "ENTRY": 0x000011FB}
    assert {name: value(profile, f"IA32_VMX_TRUE_{name}_CTLS") & 0xFFFFFFFF for name in expected} == expected


def test_only_named_controls_may_be_set(profile: cpus.CpuProfile) -> None:
    may = value(profile, "IA32_VMX_PROCBASED_CTLS2") >> 32
    assert set(controls.names("secondary", may)) == set(profile.vmx.controls["secondary"])


def test_basic_information(profile: cpus.CpuProfile) -> None:
    basic = value(profile, "IA32_VMX_BASIC")
    assert 0 < basic & 0x7FFFFFFF == profile.vmx.revision_id
    assert basic >> 31 & 1 == 0
    assert 0 < basic >> 32 & 0x1FFF <= 4096
    assert basic >> 50 & 0xF == 6, "write-back"
    assert basic >> 55 & 1 == 1, "true controls"


def test_miscellaneous_information(profile: cpus.CpuProfile) -> None:
    misc = value(profile, "IA32_VMX_MISC")
    assert misc & 0x1F == profile.vmx.preemption_timer_shift
    assert misc >> 16 & 0x1FF == 4
    if "SECONDARY_UNRESTRICTED_GUEST" in profile.vmx.control_names:
        assert misc >> 5 & 1 == 1


def test_the_field_index_reported_is_that_of_the_spp_table_pointer_or_the_preemption_timer(profile: cpus.CpuProfile) -> None:
    assert value(profile, "IA32_VMX_VMCS_ENUM") == (0x18 if "SECONDARY_SPP" in profile.vmx.control_names else 0x17) << 1


def test_fixed_bits_are_consistent(profile: cpus.CpuProfile) -> None:
    for register in ("CR0", "CR4"):
        assert value(profile, f"IA32_VMX_{register}_FIXED0") & ~value(profile, f"IA32_VMX_{register}_FIXED1") == 0
    assert value(profile, "IA32_VMX_CR0_FIXED0") == 0x80000021


def test_five_level_paging_is_consistent(profile: cpus.CpuProfile) -> None:
    five = "LA57" in profile.features
    assert profile.identity.linear_bits == (57 if five else 48)
    assert (value(profile, "IA32_VMX_CR4_FIXED1") >> 12 & 1 == 1) is five
    assert (value(profile, "IA32_VMX_EPT_VPID_CAP") >> 7 & 1 == 1) is five
    assert leaf(profile, 0x80000008)[0] == profile.identity.physical_bits | profile.identity.linear_bits << 8


def test_features_are_the_bits_of_their_leaves(profile: cpus.CpuProfile) -> None:
    present = {(row[0], row[1]): row[2:] for row in profile.cpuid}
    for feature in cpuid.FEATURES:
        registers = present.get((feature.leaf, feature.subleaf), (0, 0, 0, 0))
        bit = registers[cpuid.REGISTERS.index(feature.register)] >> feature.bit & 1
        assert bit == int(feature.name in profile.features), feature


def test_no_feature_that_the_engine_cannot_run(profile: cpus.CpuProfile) -> None:
    absent = {"XSAVE", "OSXSAVE", "AVX", "AVX2", "FMA", "F16C", "SHA", "GFNI", "RDRAND", "RDSEED", "OSPKE"}
    assert not profile.features & absent
    assert not any(name.startswith("AVX512") for name in profile.features)


def test_names_in_leaves(profile: cpus.CpuProfile) -> None:
    highest, ebx, ecx, edx = leaf(profile, 0)
    assert b"".join(word.to_bytes(4, "little") for word in (ebx, edx, ecx)) == profile.identity.vendor.encode()
    assert highest == max(row[0] for row in profile.cpuid if row[0] < 0x80000000)
    brand = b"".join(word.to_bytes(4, "little") for part in range(3) for word in leaf(profile, 0x80000002 + part))
    assert brand.rstrip(b"\0").decode() == profile.identity.brand
    assert all(0 <= word < 1 << 32 for row in profile.cpuid for word in row)


def test_signatures() -> None:
    assert leaf(PROFILES["skylake-sp"], 1)[0] == 0x50654
    assert leaf(PROFILES["icelake-sp"], 1)[0] == 0x606A6


def test_leaf_4_describes_the_caches(profile: cpus.CpuProfile) -> None:
    for subleaf, name in enumerate(("l1d", "l1i", "l2", "l3")):
        _, ebx, ecx, _ = leaf(profile, 4, subleaf)
        size = ((ebx >> 22) + 1) * ((ebx >> 12 & 0x3FF) + 1) * ((ebx & 0xFFF) + 1) * (ecx + 1)
        assert size == profile.caches[name].bytes


def test_geometry_divides_evenly(profile: cpus.CpuProfile) -> None:
    for cache in profile.caches.values():
        assert cache.sets * cache.ways * cache.line_bytes == cache.bytes
        assert cache.sets.bit_count() == 1
    for tlb in profile.tlb.values():
        assert tlb.sets * tlb.ways == tlb.entries
        assert tlb.sets.bit_count() == 1
        assert tlb.hash in ("none", "xor7")
        assert tlb.hash == "none" or tlb.sets == 128
        assert tlb.replacement in ("tree_plru", "true_lru")
        assert set(tlb.page_sizes) <= {"4K", "2M", "1G"}


def test_profiles_charge_for_the_same_events() -> None:
    assert len({frozenset(profile.costs) for profile in PROFILES.values()}) == 1
    assert len({frozenset(profile.walk_caches) for profile in PROFILES.values()}) == 1


def test_every_event_of_the_clock_has_its_row(profile: cpus.CpuProfile) -> None:
    assert set(costs.ROWS.values()) <= set(profile.costs)


def test_every_number_has_a_source(profile: cpus.CpuProfile) -> None:
    assert all(profile.cost_sources.values())
    assert all(cache.source for cache in profile.caches.values())
    assert all(tlb.source for tlb in profile.tlb.values())
    assert all(cache.source for cache in profile.walk_caches.values())
    assert profile.memory.source


def test_the_ideal_processor_counts_events() -> None:
    assert set(PROFILES["ideal"].costs.values()) == {1}


def test_latencies_grow_outwards(profile: cpus.CpuProfile) -> None:
    latencies = [profile.caches[name].latency_cycles for name in ("l1d", "l2", "l3")] + [profile.memory.latency_cycles]
    assert latencies == sorted(latencies)


def test_reset_values_cover_the_profile_decided_msrs(profile: cpus.CpuProfile) -> None:
    resets = profile.reset_values()
    for msr in msrs.ROWS:
        if profile.msr_exists(msr) and not msr.name.startswith("VMXEMU_"):
            assert msr.address in resets, msr
    assert resets[0x1B] == 0xFEE00900
    assert 0x493 not in resets


def test_banks_beyond_the_profile_do_not_exist() -> None:
    text = tree()
    text["mca"]["banks"] = 4
    few = cpus.parse(text)
    assert few.msr_exists(msrs.BY_NAME["IA32_MC3_CTL"])
    assert not few.msr_exists(msrs.BY_NAME["IA32_MC4_CTL"])
    assert not few.msr_exists(msrs.BY_NAME["IA32_MC19_CTL2"])
    assert few.msr_exists(msrs.BY_NAME["IA32_MCG_CAP"])


def test_instruction_costs_exist_for_each_profile(profile: cpus.CpuProfile) -> None:
    table = instruction_costs.load(profile.instruction_costs)
    for form in instruction_costs.FORMS:
        assert table.cost("no such mnemonic", form).mnemonic == instruction_costs.DEFAULT


def test_a_load_is_not_faster_than_the_register_form() -> None:
    table = instruction_costs.load("skylake-sp")
    for name in ("add", "imul", "addps", "popcnt", "movzx", "cmove"):
        assert table.cost(name, "load").latency_16ths > table.cost(name, "register").latency_16ths


def test_a_small_kernel_costs_what_llvm_mca_says_of_it() -> None:
    # llvm-mca of LLVM 14: 4.5 cycles an iteration on skylake-avx512.
    table = instruction_costs.load("skylake-sp").throughput_cycles()
    register = sum(table[name][0] for name in ("imul", "add", "mov", "add", "mov", "add", "cmp", "jne"))
    assert register + table["mov"][1] + table["mov"][2] == pytest.approx(4.5, rel=0.15)


def test_the_ideal_processor_takes_one_cycle_an_instruction() -> None:
    assert instruction_costs.load("ideal").throughput_cycles() == {"default": (1.0, 0.0, 0.0)}


def test_an_unknown_profile_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no CPU profile 'pentium'; known: icelake-sp, ideal, skylake-sp, zen4-like"):
        cpus.load("pentium")
    with pytest.raises(ValueError, match="known: icelake-sp, ideal, skylake-sp"):
        instruction_costs.load("pentium")


@pytest.mark.parametrize(
    ("path", "wrong", "message"),
    [
        (("identity", "family"), "six", r"skylake-sp\.identity\.family: 'six' is not"),
        (("identity", "famly"), 6, r"skylake-sp\.identity\.famly: unknown key"),
        (("tlb", "stlb", "entries"), -1, r"skylake-sp\.tlb\.stlb\.entries"),
        (("cpuid", "features"), ["AVX1024"], "AVX1024 is not in cpuid_features.csv"),
        (("vmx", "controls", "pin"), ["CPU_HLT"], "no control CPU_HLT of that word"),
        (("vmx", "misc"), ["EPT_WALK_4"], "EPT_WALK_4 is not a flag of IA32_VMX_MISC"),
        (("mca", "capabilities"), ["MCG_STATUS_RIPV"], "MCG_STATUS_RIPV is not in"),
    ],
)
def test_a_wrong_profile_is_refused_with_the_key(path: tuple[str, ...], wrong: Any, message: str) -> None:
    text = tree()
    *parents, key = path
    table = text
    for parent in parents:
        table = table[parent]
    table[key] = wrong
    with pytest.raises(ValueError, match=message):
        cpus.parse(text)


def test_a_missing_section_is_refused() -> None:
    text = tree()
    del text["vmx"]
    with pytest.raises(ValueError, match="missing key vmx"):
        cpus.parse(text)
