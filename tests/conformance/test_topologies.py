"""A VMM behaves the same on the bare processor and inside VMM1, time aside."""

from pathlib import Path

import pytest

from tests.conformance import ours

FIRMWARE = "firmware:"  # lines of the stock firmware that boots VMM1


@pytest.mark.parametrize("blob", ["hello", "exits", "vmm2-bare"])
def test_the_same_image_prints_the_same_in_both_topologies(blob: str, tmp_path: Path) -> None:
    bare, bare_status = ours.run(blob, tmp_path, "--memory", "128M", "--topology", "bare")
    layered, layered_status = ours.run(blob, tmp_path, "--memory", "128M", "--topology", "layered")
    assert bare_status == layered_status == 0
    assert any(line.startswith(FIRMWARE) for line in layered)
    assert [line for line in layered if not line.startswith(FIRMWARE)] == bare


def test_vmm2_prints_the_same_under_its_own_firmware(tmp_path: Path) -> None:
    bare, bare_status = ours.run("vmm2-bare", tmp_path, "--memory", "128M")
    layered, layered_status = ours.run("nested-ras", tmp_path, "--memory", "128M")
    assert bare_status == layered_status == 0
    assert bare[0] == "VMM2: starts"
    own = layered.index("VMM2: starts")
    events = ("VMM2: replaced", "VMM2 counted")  # the storm is nested-ras's alone
    assert [line for line in layered[own:] if not line.startswith(events)] == [line for line in bare if not line.startswith(events)]
