"""A VMM behaves the same on the bare processor and inside VMM1, time aside."""

from pathlib import Path

from tests.conformance import ours


def test_vmm2_prints_the_same_in_both_topologies(tmp_path: Path) -> None:
    bare, bare_status = ours.run("vmm2-bare", tmp_path, "--memory", "128M")
    layered, layered_status = ours.run("nested-ras", tmp_path, "--memory", "128M", "--topology", "layered")
    assert bare_status == layered_status == 0
    assert bare[0] == "VMM2: starts"
    assert layered[layered.index("VMM2: starts") :] == bare
