"""What nested-ras must show, claim by claim: who is booted when, who handles what, and that memory faults are survived.

The system shown is that of US 8,522,236 B2, claim 1: the letters a to h are the elements of that claim, 2-4 those after it.
"""

from collections import Counter

import pytest

from tests.scenarios.play import FRAME_BYTES, Played, scenario
from vmxemu.isa import exits
from vmxemu.trace import events as known

LATER = 20_000_000  # cycles: enough for what was injected to be handled, but for the threshold's last errors


def vm2_page_of(played: Played, kind: str) -> list[int]:
    """The addresses in VM2 at which this kind of error is injected, as its pages."""
    chosen = [one for one in played.machine.configuration.inject if one.kind == kind and one.vm2_gpa is not None]
    return [one.vm2_gpa // FRAME_BYTES * FRAME_BYTES for one in chosen if one.vm2_gpa is not None]


def first_injection(played: Played) -> int:
    return min(one.cycle for one in played.machine.configuration.inject)


@pytest.fixture(scope="module")
def before_and_after() -> tuple[Played, dict[str, object], dict[str, object]]:
    """A second run, looked at before the storm and after the last corrected error, before VMM2 loses a page."""
    played = Played.start(scenario())
    corrected = [one for one in played.machine.configuration.inject if one.kind == "ce"]
    end = max(one.cycle + one.count * one.every for one in corrected) + 1_000_000
    sights = []
    for cycle in (first_injection(played) - 1_000_000, end):
        played.run(until=cycle)
        eptp12 = played.machine.vmcs("12")["EPT_POINTER"]
        pages = vm2_page_of(played, "ce")
        sights.append(
            {
                "ept12": played.table_pages(eptp12),
                "content": {gpa: played.machine.read_gpa(gpa, FRAME_BYTES, 2) for gpa in pages},
                "hpa": {gpa: played.machine.hpa_of_gpa(gpa, 2) for gpa in pages},
                "ept01": played.leaves(int(played.machine.state.outer.ept01)),
            }
        )
    return played, sights[0], sights[1]


Sights = tuple[Played, dict[str, object], dict[str, object]]


def test_the_scenario_ends_well(nested: Played) -> None:
    assert nested.result is not None
    assert (nested.result.reason, nested.result.exit_status) == ("EXIT_PORT", 0), nested.result


# ---- a: firmware boots VMM1 before run time


def test_a_vmm1_is_up_before_run_time_and_vmm2_comes_after(nested: Played) -> None:
    names = [row["name"] for row in nested.statistics["phases"]]
    assert names == ["reset", "VMM1 up", "end of boot phase", "VMM2 in VMX operation", "VM2 first launch"]
    when = list(nested.phases().values())
    assert when == sorted(when) and len(set(when)) == len(when)


def test_a_vmm1_is_brought_up_by_instructions(nested: Played) -> None:
    """The first VM entry of all is the firmware's VMLAUNCH; VMM1 is up by the time of it, not at reset."""
    entry = nested.of(known.VM_ENTRY)[0]
    assert nested.phases()["VMM1 up"] <= int(entry["cycle"]) < nested.phases()["end of boot phase"]
    assert nested.phases()["reset"] < nested.phases()["VMM1 up"]


def test_a_asking_for_vmm1_at_run_time_is_refused(nested: Played) -> None:
    refusals = nested.of(known.REFUSED)
    late = refusals[refusals["cycle"] >= nested.phases()["end of boot phase"]]
    assert len(late) >= 1
    assert "asking for VMM1 is refused" in nested.output


def test_a_control_vmm1_that_is_asked_for_too_late_never_comes_up() -> None:
    played = Played.start(scenario("late-vmm1", topology="layered")).run()
    assert "VMM1 up" not in played.phases()
    assert "end of boot phase" in played.phases()
    assert len(played.of(known.REFUSED)) >= 1


# ---- b: VMM1 establishes VM1 and alone is in VMX root operation


def test_b_vm1_has_its_own_vmcs_and_ept(nested: Played) -> None:
    outer = nested.machine.state.outer
    vmcs01 = nested.machine.vmcs("01")
    assert vmcs01["EPT_POINTER"] == int(outer.ept01) != 0
    for address in (int(outer.vmcs01), int(outer.vmcs02), int(outer.ept01) & -FRAME_BYTES):
        assert address in nested.sequestered


def test_b_only_vmm1s_own_vmcss_are_ever_entered(nested: Played) -> None:
    outer = nested.machine.state.outer
    entered = set(nested.of(known.VM_ENTRY)["a"].tolist())
    assert entered == {int(outer.vmcs01), int(outer.vmcs02)}


# ---- c: VMM2 boots in VM1 at run time


def test_c_vmm2s_vmx_instructions_exit_and_are_emulated(nested: Played) -> None:
    emulated = nested.of(known.NESTED)
    instructions = "VMXON VMCLEAR VMPTRLD VMWRITE VMREAD VMLAUNCH VMRESUME".split()
    for reason in (getattr(exits, name) for name in instructions):
        chosen = emulated[emulated["reason"] == int(reason)]
        assert len(chosen) and set(chosen["level"].tolist()) <= {0, 1}, int(reason)
    assert emulated["cycle"].min() > nested.phases()["end of boot phase"]


def test_c_vmm2_never_changes_the_real_root_state(nested: Played) -> None:
    """The processor stays in VMX operation, on VMM1's VMXON region, with one of VMM1's VMCSs current."""
    vmx, outer = nested.machine.state.vmx, nested.machine.state.outer
    assert int(vmx.current) in (int(outer.vmcs01), int(outer.vmcs02))
    assert int(vmx.on) and not int(outer.nested.on)  # the blob's last act above VMM1 was VMM2's VMXOFF


# ---- d: VMM2 establishes VM2


def test_d_vm2_runs_on_vmcs02_and_ept02(nested: Played, before_and_after: Sights) -> None:
    running = before_and_after[0]  # at its end VMM2 leaves VMX operation, and VMCS12 is gone
    vmcs02, vmcs12 = running.machine.vmcs("02"), running.machine.vmcs("12")
    assert vmcs02["EPT_POINTER"] != vmcs12["EPT_POINTER"]
    assert vmcs02["EPT_POINTER"] & -FRAME_BYTES in running.sequestered
    assert int(running.machine.state.outer.nested.current) not in running.sequestered
    assert "L2" in nested.statistics["exits_by_reason"]


def test_d_vmm2_sees_its_own_exits_in_its_own_vmcs(nested: Played, before_and_after: Sights) -> None:
    reflected = Counter((nested.of(known.REFLECT)["reason"] & 0xFFFF).tolist())
    for reason in (exits.CPUID, exits.IO_INSTRUCTION, exits.HLT, exits.EPT_VIOLATION):
        assert reflected[int(reason)] >= 1, int(reason)
    assert before_and_after[0].machine.vmcs("12")["VM_EXIT_REASON"] & 0xFFFF in reflected


# ---- e: the trap directs every management interrupt to VMM1


def test_e_no_management_interrupt_bypasses_vmm1(nested: Played) -> None:
    assert nested.statistics["bypasses"] == []
    assert {row["kind"] for row in nested.statistics["management"]} == {"SMI", "#MC", "CMCI", "NMI", "PMI"}


def test_e_vmm1_is_the_first_handler_of_each(nested: Played) -> None:
    """Nothing is delivered to anybody between an arrival and the decision on it."""
    every = nested.events
    arrivals = every["kind"] == int(known.ARRIVAL)
    run_time = every["cycle"] >= nested.phases()["end of boot phase"]
    forbidden = {int(kind) for kind in (known.EVENT, known.SMM_ENTER, known.DELIVERY, known.REFLECT, known.VM_ENTRY)}
    for index in (arrivals & run_time).nonzero()[0].tolist():
        following = every[index + 1 :]
        decided = int((following["kind"] == int(known.DECISION)).argmax())
        assert following[decided]["kind"] == int(known.DECISION) and following[decided]["a"] == every[index]["a"]
        assert not forbidden & set(following[:decided]["kind"].tolist())


def test_e_control_without_the_trap_they_bypass_vmm1() -> None:
    configuration = scenario(trap=False)
    played = Played.start(configuration).run(until=max(one.cycle for one in configuration.inject) + LATER)
    assert len(played.statistics["bypasses"]) >= 1
    assert len(played.statistics["decisions"]) < len(played.statistics["management"])


# ---- f: VMM1 determines who handles it


def test_f_each_has_exactly_one_decision(nested: Played) -> None:
    begins = nested.phases()["end of boot phase"]
    arrived = [row["serial"] for row in nested.statistics["management"] if row["cycle"] >= begins]
    decided = [row["serial"] for row in nested.statistics["decisions"]]
    assert len(set(arrived)) == len(arrived)
    assert sorted(arrived) == sorted(decided)


def test_f_a_decision_is_what_its_rule_says(nested: Played) -> None:
    rules = {rule.name: rule for rule in nested.machine.configuration.policy}
    for row in nested.statistics["decisions"]:
        rule = rules[row["rule"]]
        assert row["owner"].lower() == rule.owner and row["action"] == rule.action
        assert rule.match.kind in (None, row["kind"].lower().removeprefix("#"))


def test_f_every_sort_of_owner_occurs(nested: Played) -> None:
    assert {row["owner"] for row in nested.statistics["decisions"]} >= {"VMM1", "VMM2", "unknown"}


# ---- g: VMM2's own are provided to VMM2


def test_g_vmm2_gets_its_own_exactly_once(nested: Played) -> None:
    due = sorted(row["serial"] for row in nested.statistics["decisions"] if row["action"] == "deliver")
    given = sorted(row["serial"] for row in nested.statistics["deliveries"])
    assert due == given and len(due) >= 3
    assert "VMM2 counted: SMI=1 MC=1 CMCI=0 NMI=1" in nested.output


def test_g_vmm2_is_told_guest_physical_addresses(nested: Played) -> None:
    arrived = {row["serial"]: row for row in nested.statistics["management"]}
    (machine_check,) = [row for row in nested.statistics["deliveries"] if row["kind"] == "#MC"]
    address = machine_check["address"]
    assert address not in nested.sequestered
    assert nested.machine.hpa_of_gpa(address, 1) // 64 == arrived[machine_check["serial"]]["address"] // 64


def test_g_no_page_moves_for_what_is_vmm2s(nested: Played) -> None:
    lost = {row["address"] // FRAME_BYTES for row in nested.statistics["management"] if row["kind"] == "#MC"}
    assert not lost & {row["old_hpa"] // FRAME_BYTES for row in nested.statistics["migrations"]}


# ---- h-i: pages move to the sequestered region


def test_h_pages_move_into_the_sequestered_region(nested: Played) -> None:
    moved = nested.statistics["migrations"]
    assert len(moved) >= 4 and all(row["status"] == 0 for row in moved)
    for row in moved:
        assert row["new_hpa"] in nested.sequestered and row["old_hpa"] not in nested.sequestered
    assert {row["old_hpa"] for row in moved} == nested.retired()


def test_h_what_vm2_sums_up_never_changes(nested: Played) -> None:
    sums = [line.split("sum ")[1] for line in nested.output.splitlines() if "sum " in line]
    assert len(sums) >= 10 and len(set(sums)) == 1


def test_h_retired_frames_are_never_used_again(nested: Played) -> None:
    assert nested.statistics["retired_uses"] == 0
    outer = nested.machine.state.outer
    retired = {hpa // FRAME_BYTES for hpa in nested.retired()}
    assert retired
    assert not retired & nested.frames_mapped_by(int(outer.ept01))
    assert not retired & nested.frames_mapped_by(nested.machine.vmcs("02")["EPT_POINTER"])


def test_h_the_region_is_out_of_vm1s_and_vm2s_reach(nested: Played) -> None:
    """But for the frames that VMM1 mapped on their behalf."""
    outer = nested.machine.state.outer
    region = {hpa // FRAME_BYTES for hpa in range(nested.sequestered.start, nested.sequestered.stop, FRAME_BYTES)}
    given = {row["new_hpa"] // FRAME_BYTES for row in nested.statistics["migrations"]}
    assert region & nested.frames_mapped_by(int(outer.ept01)) == given
    assert region & nested.frames_mapped_by(nested.machine.vmcs("02")["EPT_POINTER"]) <= given


# ---- h-ii: by GPA to HPA through EPT


def test_h_gpas_stay_hpas_change(before_and_after: Sights) -> None:
    played, before, after = before_and_after
    moved = {row["old_hpa"]: row["new_hpa"] for row in played.statistics["migrations"]}
    old, new = before["hpa"], after["hpa"]
    assert isinstance(old, dict) and isinstance(new, dict) and len(old) >= 3
    for gpa in old:
        assert new[gpa] == moved[old[gpa]] != old[gpa]


def test_h_contents_are_equal(before_and_after: Sights) -> None:
    _, before, after = before_and_after
    assert before["content"] == after["content"]


def test_h_vmm2s_tables_are_untouched(before_and_after: Sights) -> None:
    _, before, after = before_and_after
    assert before["ept12"] == after["ept12"] and before["ept12"]


def test_h_ept01_maps_the_moved_pages_by_4_kib(before_and_after: Sights) -> None:
    played, before, after = before_and_after
    first, last = before["ept01"], after["ept01"]
    assert isinstance(first, dict) and isinstance(last, dict)
    for row in played.statistics["migrations"]:
        assert last[row["gpa"]] == (row["new_hpa"], FRAME_BYTES)
    assert any(size == 2 << 20 for _, size in first.values()), "no large page of EPT01 could be split"


def test_h_derived_entries_go_before_the_source_is_retired(nested: Played) -> None:
    every = nested.events
    for row in nested.statistics["migrations"]:
        about = every[(every["cycle"] <= row["cycle"])]
        dropped = ((about["kind"] == int(known.INVALIDATION)) & (about["b"] == row["gpa"])).nonzero()[0]
        retired = ((about["kind"] == int(known.FRAME)) & (about["a"] == row["old_hpa"])).nonzero()[0]
        assert len(dropped) and len(retired) and dropped[-1] < retired[-1]


def test_h_control_without_invalidation_retired_frames_are_used() -> None:
    played = Played.start(scenario(invalidation=False)).run()
    sums = {line.split("sum ")[1] for line in played.output.splitlines() if "sum " in line}
    assert played.statistics["retired_uses"] > 0 or len(sums) > 1


# ---- 2-4: both are hypervisors; SMI and PMI


def test_2_each_hypervisor_runs_a_guest(nested: Played) -> None:
    assert set(nested.of(known.VM_EXIT)["level"].tolist()) == {1, 2}


@pytest.mark.parametrize("kinds", [("smi",), ("pmi",), ("smi", "pmi", "nmi")], ids="-".join)
def test_4_only_some_kinds(kinds: tuple[str, ...]) -> None:
    configuration = scenario(inject_only=kinds)
    played = Played.start(configuration).run(until=max(one.cycle for one in configuration.inject) + LATER)
    facts = played.statistics
    expected = Counter(one.kind.upper() for one in configuration.inject for _ in range(one.count))
    assert Counter(row["kind"] for row in facts["decisions"]) == expected
    assert facts["bypasses"] == [] and facts["migrations"] == []
