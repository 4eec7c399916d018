"""Scenario files, options, injections and expectations."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmxemu.configuration import Configuration, Injection, InputError, blobs, quantities
from vmxemu.configuration.expectations import CHECKS, Expect, Facts, judge

IMAGE = b"\xea" * 65536


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rom.bin").write_bytes(IMAGE)
    return tmp_path


def scenario(folder: Path, text: str, **options: Any) -> Configuration:
    path = folder / "s.toml"
    path.write_text(text)
    return Configuration.from_toml(path, **options)


COMPLETE = """
image = "rom.bin"
description = "everything"
cpu = "icelake-sp"
topology = "layered"
seed = 3
max_cycles = "5G"
frequency = "2.5GHz"
trap = false
invalidation = false

[memory]
size = "5G"
sequestered = "32M"
tseg = 0x100000

[thresholds]
ce = 5

[[inject]]
kind = "ce"
cycle = "10M"
hpa = 0x1_0000_0000
count = 3
every = "1k"

[[inject]]
kind = "smi"
cycle = 1_000
command = 0xB2

[[policy]]
name = "mine"
match = { kind = "smi", command = 0x42 }
owner = "vmm2"
action = "deliver"

[[expect]]
name = "moved"
migrations_at_least = 3
"""


def test_a_complete_scenario(folder: Path) -> None:
    made = scenario(folder, COMPLETE)
    assert (made.memory.low_bytes, made.memory.high_bytes) == (3 << 30, 2 << 30)
    assert (made.max_cycles, made.frequency, made.trap, made.invalidation) == (5 * 10**9, 2_500_000_000, False, False)
    assert made.inject[0] == Injection.parse("ce@cycle=10M,hpa=0x100000000,count=3,every=1000")
    assert made.policy[0].match.command == 0x42 and made.thresholds.ce == 5


def test_header_and_back(folder: Path) -> None:
    made = scenario(folder, COMPLETE)
    assert Configuration.from_header(made.to_header()) == made


def test_options_override_and_injections_add(folder: Path) -> None:
    made = scenario(folder, COMPLETE, cpu="skylake-sp", memory_size=8 << 30)
    assert (made.cpu, made.memory.size, made.memory.sequestered) == ("skylake-sp", 8 << 30, 32 << 20)
    made = scenario(folder, COMPLETE, inject=["nmi@cycle=7"])
    assert [one.kind for one in made.inject] == ["ce", "smi", "nmi"]


ROM = "image = 'rom.bin'\n"
BAD = [
    ("image = ", "s.toml: malformed TOML: Invalid value (at"),
    ("cpu = 'x'", "s.toml: image: expected"),
    ("image = 'no.bin'", "no.bin: no such file"),
    (ROM + "colour = 1", "s.toml: colour: unknown key; expected one of image, description, cpu"),
    (ROM + "[memory]\nsize = 'lots'", "s.toml: memory.size: expected a size such as \"256M\", got 'lots'"),
    (ROM + "[memory]\nsize = 5000001", "expected a multiple of 4K"),
    (ROM + "[memory]\nsequestered = '1G'", "memory: expected sequestered and tseg"),
    (ROM + "memory = 5", "memory: expected a table, got 5"),
    (ROM + "trap = 'perhaps'", "trap: expected true or false, got 'perhaps'"),
    (ROM + "seed = -1", "seed: expected at least 0, got -1"),
    (ROM + "seed = 'x'", "seed: expected an integer, got 'x'"),
    (ROM + "cpu = 'z80'", "cpu: expected a CPU profile (icelake-sp"),
    (ROM + "inject = 3", "inject: expected an array, got 3"),
    (
        ROM + "[[inject]]\nkind = 'ce'\ncycle = 1\nhpa = 0xf0000000",
        "inject[0].hpa: expected an address inside memory",
    ),
    (ROM + "[[inject]]\nkind = 'fatal'\ncycle = 1\nbank = 31", "inject[0].bank: expected a bank of skylake-sp (0 to"),
    (ROM + "[[inject]]\nkind = 'nmi'", "inject[0].cycle: this key is missing"),
    (ROM + "[[inject]]\nkind = 'nmi'\ncycle = 1\nhpa = 4096", "inject[0]: nmi takes no address"),
    (
        ROM + "[[policy]]\nname = 'x'\nowner = 'me'\naction = 'log'",
        "policy[0].owner: expected 'vmm1', 'vmm2'",
    ),
    (
        ROM + "[[policy]]\nname = 'x'\nowner = 'vmm1'\naction = 'log'\nmatch = { kin = 1 }",
        "policy[0].match.kin: unknown",
    ),
    (ROM + 2 * "[[inject]]\nkind = 'nmi'\ncycle = 1\ncount = 40000\nevery = 1\n", "expected at most 65536 injections"),
    (
        ROM + "[[inject]]\nkind = 'nmi'\ncycle = 1\ncount = 9\nevery = '100000T'",
        "inject[0]: the last one would come at",
    ),
    (ROM + 65 * "[[policy]]\nname = 'x'\nowner = 'vmm1'\naction = 'log'\n", "policy: expected at most 64, got 65"),
    (ROM + "[[expect]]\nname = 'x'", "expect[0]: expected one check"),
    (
        ROM + "[[expect]]\nname = 'x'\ndecisions = { kind = 'smi' }",
        "expect[0].decisions: expected either count or",
    ),
]


@pytest.mark.parametrize(("text", "says"), BAD)
def test_mistakes_are_one_line_with_the_key_path(text: str, says: str, folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        scenario(folder, text)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_not_utf8(folder: Path) -> None:
    (folder / "s.toml").write_bytes(b"image = '\xff'")
    with pytest.raises(InputError, match="expected UTF-8"):
        Configuration.from_toml(folder / "s.toml")


@given(st.text(max_size=60))
def test_no_injection_text_gets_past_as_anything_else(text: str) -> None:
    try:
        assert Injection.parse(text).kind
    except InputError as problem:
        assert "\n" not in str(problem)


@given(
    st.sampled_from(["ce", "ue", "srao"]),
    st.integers(0, 1 << 58),
    st.sampled_from(["hpa", "vm1_gpa", "vm2_gpa"]),
    st.integers(0, 1 << 50),
    st.none() | st.integers(0, 31),
)
def test_injections_survive_their_text(kind: str, cycle: int, where: str, address: int, bank: int | None) -> None:
    made = Injection.model_validate({"kind": kind, "cycle": cycle, where: address, "bank": bank})
    assert Injection.parse(made.text()) == made


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (quantities.size, "256M", 256 << 20),
        (quantities.size, "1.5GiB", 3 << 29),
        (quantities.size, "4096", 4096),
        (quantities.cycles, "5_000", 5000),
        (quantities.cycles, "2.5M", 2_500_000),
        (quantities.hertz, "2.7 GHz", 2_700_000_000),
        (quantities.address, "0xFFFF_F000", 0xFFFFF000),
    ],
)
def test_quantities(read: Any, text: str, value: int) -> None:
    assert read(text) == value


@pytest.mark.parametrize("text", ["", "-1", "1.5", "0x", "M", "1e9", "5 MM", True, None, 1.5, "9999999999999999999999"])
def test_bad_quantities(text: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        quantities.size(text)


def test_every_check_can_fail_and_hold() -> None:
    record = {
        "cycle": 1,
        "serial": 1,
        "kind": "SMI",
        "owner": "VMM2",
        "action": "deliver",
        "rule": "r",
        "name": "reset",
    }
    lists = ("phases", "management", "decisions", "deliveries", "bypasses", "refusals")
    facts = Facts(
        {
            **{name: [record] for name in lists},
            "migrations": [{"status": 0}, {"status": 1}],
            "exits_by_reason": {"L1": {"CPUID": 2}},
            "stale_translations": {"uses": 3, "kinds": []},
        },
        "EXIT_PORT",
        0,
        "sum 1\nsum 1\nsum: 2\n",
    )
    cases: dict[str, tuple[Any, Any]] = {
        "exit_status": (0, 1),
        "reason": ("exit_port", "triple_fault"),
        "output_contains": ("sum", "x"),
        "output_lacks": ("x", "sum"),
        "lines": ({"contains": "sum", "count": 3}, {"contains": "sum", "count": 2}),
        "lines_equal": ("sum 1", "sum"),
        "phases": (["reset"], ["reset", "VMM1 up"]),
        "exits": ({"reason": "cpuid", "level": 1, "count": 2}, {"level": 2, "at_least": 1}),
        "decisions": ({"kind": "smi", "owner": "vmm2", "count": 1}, {"owner": "vmm1", "at_least": 1}),
        "deliveries": ({"count": 1}, {"count": 0}),
        "one_decision_each": (True, False),
        "migrations": (1, 2),
        "migrations_at_least": (1, 2),
        "bypasses": (1, 0),
        "refusals_at_least": (1, 2),
        "stale_translations": (3, 0),
        "stale_translations_at_least": (2, 4),
    }
    assert cases.keys() == CHECKS.keys()
    for check, (holds, fails) in cases.items():
        verdicts = judge([Expect(name="a", **{check: holds}), Expect(name="b", **{check: fails})], facts)
        assert [verdict.holds for verdict in verdicts] == [True, False], (check, verdicts)


def test_what_nobody_has_looked_for_is_not_zero() -> None:
    (verdict,) = judge([Expect(name="a", stale_translations=0)], Facts({}, "EXIT_PORT", 0, ""))
    assert "--check-translations" in verdict.problem


def test_translation_profiles(folder: Path) -> None:
    made = scenario(folder, 'image = "rom.bin"\n[translation]\ntlb = "lazy"')
    assert (made.translation.tlb, made.translation.check) == ("lazy", False)
    assert Configuration.from_header(made.to_header()) == made
    made = scenario(folder, 'image = "rom.bin"\n[translation]\ntlb = "lazy"', tlb="eager", check_translations=True)
    assert (made.translation.tlb, made.translation.check) == ("eager", True)
    plain = scenario(folder, 'image = "rom.bin"')
    assert (plain.translation.tlb, plain.translation.check) == ("exact", False) and "translation" not in plain.to_header()
    with pytest.raises(InputError, match="translation.tlb"):
        scenario(folder, 'image = "rom.bin"\n[translation]\ntlb = "sloppy"')
    with pytest.raises(InputError, match="translation"):
        scenario(folder, 'image = "rom.bin"\ntranslation = 3', tlb="lazy", check_translations=True).to_header()


def test_blobs_are_found_by_name_and_hash(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "directory", lambda: folder)
    (folder / "job.toml").write_text('image = "rom.bin"\ndescription = "the job"')
    made = Configuration.find("job")
    (folder / "MANIFEST.toml").write_text(
        f'[[blob]]\nname = "other"\nfile = "rom.bin"\nsha256 = "{made.image.sha256}"\nscenario = "job.toml"\n'
    )
    assert Configuration.find("other").description == "the job"
    assert blobs.find_hash(made.image.sha256) == folder / "rom.bin"
    header = made.to_header()
    header["image"]["path"] = "/nowhere/rom.bin"
    assert Configuration.from_header(header).image.data == IMAGE
    (folder / "MANIFEST.toml").write_text("[[blob]]\nfile = 3")
    with pytest.raises(InputError, match="a blob without 'name'"):
        blobs.shipped()
