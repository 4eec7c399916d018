"""The random worlds reach every outcome, in every mode, often enough for comparisons to mean something. This needs the
reference alone.
"""

from collections import Counter

import pytest

from tests.reference import translation as reference
from tests.unit.translation.asking import why_and_answer
from tests.unit.translation.worlds import HOSTILITIES, MODES, World

WORLDS, ACCESSES = 1200, 40
PAGED = ("legacy", "pae", "long", "la57")


class Watched(reference.Processor):
    """Tells what sub-page permissions say, and remembers the permissions that a fetch met."""

    verdict = None

    def sub_page_permits(self, gpa, access, entries, level):
        permits = super().sub_page_permits(gpa, access, entries, level)
        consulted = self.spp_enabled and access.write and entries[-1] >> 61 & 1 and level == 1 and access.involves == "page"
        self.verdict = ("permitted" if permits else "denied") if consulted else None
        return permits

    def ept_forbids(self, access, entries):
        self.execute_only = access.fetch and not entries[-1] & 1
        return super().ept_forbids(access, entries)


@pytest.fixture(scope="module")
def seen():
    """How often which: (mode, outcome, why), and features by name."""
    seen = Counter()
    for seed in range(WORLDS):
        world = World(seed, HOSTILITIES[seed % len(HOSTILITIES)])
        processor = world.processor(Watched)
        for access in world.accesses(ACCESSES):
            processor.verdict, processor.execute_only, log = None, False, processor.pml_index
            why, answer = why_and_answer(processor, access)
            count(seen, world, access, processor, why, answer)
            seen["logged"] += processor.pml_index != log
    return seen


def count(seen, world, access, processor, why, answer):
    outcome = answer[0]
    seen["physical" if access.physical else world.mode, outcome] += 1
    seen[world.mode, outcome, why] += 1
    seen[outcome, why] += 1
    if access.physical:
        return
    seen["sub-page", processor.verdict] += 1
    if outcome == "done":
        seen["memory type", answer[3], bool(world.eptp)] += 1
        seen["key", answer[4]] += 1
        seen["execute-only", "done"] += processor.execute_only
        seen["shadow stack", access.kind, access.cpl == 3] += access.shadow_stack
        seen["compatibility mode"] += world.mode in ("long", "la57") and not access.code_64
    elif outcome == "#PF":
        for number in range(7):
            seen["#PF bit", number, world.mode] += answer[1] >> number & 1
    elif outcome == "violation":
        for number in range(15):
            seen["qualification", number] += answer[2] >> number & 1
        seen["convertible", answer[3], "ve" in world.features, why == "not present"] += 1


@pytest.mark.parametrize("mode", PAGED)
def test_outcomes(seen, mode):
    for outcome in ("done", "#PF", "violation", "misconfiguration"):
        assert seen[mode, outcome] >= 50, (outcome, seen[mode, outcome])
    assert seen[mode, "SPP event"] >= 10 and seen[mode, "PML full"] >= 20
    for why in ("not present", "supervisor page", "write", "SMEP", "SMAP", "shadow stack"):
        assert seen[mode, "#PF", why] >= 50, why
    for why in ("not present", "read", "write", "execute", "user-mode execute"):
        assert seen[mode, "violation", why] >= 30, why


def test_without_paging(seen):
    for outcome, least in (("done", 500), ("violation", 100), ("misconfiguration", 50), ("SPP event", 10), ("PML full", 10)):
        assert seen["off", outcome] >= least, outcome
    for outcome, least in (("done", 200), ("violation", 100), ("misconfiguration", 30), ("PML full", 3)):
        assert seen["physical", outcome] >= least, outcome


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("legacy", "PSE-36 address"),
        ("pae", "address beyond MAXPHYADDR"),
        ("pae", "bits 62:52 in PAE paging"),
        ("pae", "XD without NXE"),
        ("pae", "low address bits of a large page"),
        ("pae", "PDPTE not present"),
        *((mode, "address beyond MAXPHYADDR") for mode in ("long", "la57")),
        *((mode, "PS in a PML4E or PML5E") for mode in ("long", "la57")),
        *((mode, "no 1-GByte pages") for mode in ("long", "la57")),
        *((mode, "low address bits of a large page") for mode in ("long", "la57")),
        *((mode, "XD without NXE") for mode in ("long", "la57")),
        *((mode, "key of a user page") for mode in ("long", "la57")),
        *((mode, "key of a supervisor page") for mode in ("long", "la57")),
        *((mode, "XD") for mode in ("pae", "long", "la57")),
    ],
)
def test_page_faults(seen, mode, why):
    assert seen[mode, "#PF", why] >= 10


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "why",
    [
        "write without read", "execute-only", "address beyond MAXPHYADDR", "reserved bits of a table reference",
        "no such page size", "low address bits of a large page", "memory type",
    ],
)  # fmt: skip
def test_misconfigurations(seen, mode, why):
    assert seen[mode, "misconfiguration", why] >= 1
    assert seen["misconfiguration", why] >= 50


def test_features(seen):
    assert seen["long", "#GP"] >= 50 and seen["la57", "#GP"] >= 50
    for why in ("miss", "misconfiguration of a table reference", "misconfiguration of a vector"):
        assert seen["SPP event", why] >= 20, why
    assert seen["sub-page", "permitted"] >= 50 and seen["sub-page", "denied"] >= 50
    assert seen["logged"] >= 100 and seen["execute-only", "done"] >= 50 and seen["compatibility mode"] >= 50
    assert seen["violation", "supervisor shadow stack"] >= 10
    for why in ("user-mode execute", "execute", "beyond the walk length"):
        assert seen["violation", why] >= 50, why
    for access in ("read", "write"):
        for user in (False, True):
            assert seen["shadow stack", access, user] >= 20, (access, user)
    for convertible in (0, 1):
        for absent in (False, True):
            assert seen["convertible", convertible, True, absent] >= 50, (convertible, absent)
    for kind in (0, 1, 4, 5, 6):
        assert seen["memory type", kind, False] >= 50 and seen["memory type", kind, True] >= 50, kind
    assert all(seen["key", key] >= 5 for key in range(16))


def test_bits_of_error_codes_and_qualifications(seen):
    for mode in PAGED:
        for number in range(7):
            if number == 5 and mode in ("legacy", "pae"):
                assert not seen["#PF bit", number, mode]  # they have no keys
            else:
                assert seen["#PF bit", number, mode] >= 20, (mode, number)
    for number in range(15):
        assert seen["qualification", number] >= 20 or number == 12, number


def test_a_world_is_a_function_of_its_seed():
    one, other = (World(7, 0.1) for _ in range(2))
    assert one.accesses(10) == other.accesses(10) and (one.words == other.words).all()
