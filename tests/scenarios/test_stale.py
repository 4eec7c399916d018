"""Stale translations in the whole machine: software that forgets an invalidation is found out, and shipped software is clean."""

import json
from pathlib import Path

import pytest

from tests.scenarios.play import Played, scenario
from vmxemu.cli import main
from vmxemu.configuration import blobs
from vmxemu.trace import events as known

pytestmark = pytest.mark.usefixtures("kernels")

RIGHT = {"own page, INVLPG", "EPT, INVEPT", "guest's page, INVVPID"}
WRONG = {
    "own page, INVLPG of the next one": ("guest tables changed", "L0", 0),
    "EPT, nothing": ("EPT changed", "L1", 1),
    "guest's page, INVLPG in the VMM": ("guest tables changed", "L1", 1),
}
Capture = pytest.CaptureFixture[str]


def play(tlb: str, **options: object) -> Played:
    return Played.start(scenario("stale", tlb=tlb, check_translations=True, **options)).run()


def lines(played: Played) -> dict[str, str]:
    return dict(line.rstrip().split(": ") for line in played.output.splitlines() if ": " in line and "firmware" not in line)


@pytest.mark.parametrize("tlb", ["lazy", "exact"])
def test_what_was_not_invalidated_shows_and_is_named(tlb: str) -> None:
    played = play(tlb)
    assert lines(played) == dict.fromkeys(RIGHT, "new") | dict.fromkeys(WRONG, "old")
    found = played.statistics["stale_translations"]
    assert found["uses"] == 3
    assert [(kind["changed"], kind["level"], kind["vpid"]) for kind in found["kinds"]] == list(WRONG.values())
    for kind in found["kinds"]:
        assert (kind["gla"] & ~0xFFF, kind["cached"], kind["now"]) == (1 << 32, "0x1000000", "0x1001000")
        assert 0 < kind["cycle_cached"] < kind["cycle"]
    traced = played.of(known.STALE_USE)
    assert traced["reason"].tolist() == [1, 2, 1] and traced["b"].tolist() == [0, 0, 0]
    assert traced["level"].tolist() == [0, 1, 1] and traced["c"].tolist() == [0x1000000] * 3


def test_an_eager_tlb_hides_them() -> None:
    played = play("eager")
    assert lines(played) == dict.fromkeys(RIGHT | set(WRONG), "new")
    assert played.statistics["stale_translations"] == {"uses": 0, "kinds": []}


def test_nobody_looks_unless_asked() -> None:
    played = Played.start(scenario("stale", check_translations=False)).run()
    assert "stale_translations" not in played.statistics
    assert len(played.of(known.STALE_USE)) == 0


@pytest.mark.parametrize(("tlb", "shown"), [("lazy", "old"), ("eager", "new")])
def test_as_vmm2(tlb: str, shown: str) -> None:
    """Under VMM1 the guest is VM2. What EPT02 still holds is no stale translation, but an eager TLB drops it too."""
    image = blobs.find_image("stale")
    assert image is not None
    played = Played.start(scenario(str(image), topology="layered", memory_size="128M", tlb=tlb, check_translations=True)).run()
    assert lines(played) == dict.fromkeys(RIGHT, "new") | dict.fromkeys(WRONG, shown)
    kinds = played.statistics["stale_translations"]["kinds"]
    levels = [(kind["changed"], kind["level"]) for kind in kinds]
    assert levels == ([("guest tables changed", "L1"), ("guest tables changed", "L2")] if tlb == "lazy" else [])


@pytest.mark.parametrize(("tlb", "status"), [("lazy", 1), ("eager", 0)])
def test_the_commands_exit_status_and_tables(tlb: str, status: int, tmp_path: Path, capfd: Capture) -> None:
    image = str(blobs.find_image("stale"))
    arguments = ["run", image, "--tlb", tlb, "--check-translations", "--serial", str(tmp_path / "serial")]
    assert main([*arguments, "--json"]) == status
    facts = json.loads(capfd.readouterr().out)
    assert facts["stale_translations"]["uses"] == len(facts["stale_translations"]["kinds"]) == 3 * status
    assert main(arguments) == status
    output = capfd.readouterr()
    if status:
        assert "Uses of stale translations: 3" in output.out and "INVEPT" in output.out
        assert "3 uses of stale translations" in output.err
    else:
        assert "Uses of stale translations: none" in output.out


def test_the_scenario_expects_them(capfd: Capture) -> None:
    assert main(["run", "stale", "--quiet"]) == 0
    assert main(["run", "stale", "--quiet", "--tlb", "eager"]) == 1
    assert "expected 3, got 0" in capfd.readouterr().err


@pytest.mark.parametrize("tlb", ["lazy", "eager"])
@pytest.mark.parametrize("name", ["hello", "exits"])
def test_shipped_software_is_clean(name: str, tlb: str) -> None:
    played = Played.start(scenario(name, tlb=tlb, check_translations=True)).run()
    assert played.result is not None and played.result.exit_status == 0
    assert played.statistics["stale_translations"]["kinds"] == []


@pytest.mark.campaign
@pytest.mark.parametrize("tlb", ["lazy", "exact", "eager"])
def test_nested_software_is_clean(tlb: str) -> None:
    played = Played.start(scenario("nested-ras", tlb=tlb, check_translations=True)).run()
    assert played.result is not None and played.result.exit_status == 0
    assert played.statistics["stale_translations"]["kinds"] == []
