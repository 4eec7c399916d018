"""Severity and the policy table, against the table that the claims name and an obvious search."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.outer.room import Room, words
from vmxemu.isa import mca
from vmxemu.outer import policy

ANY = int(policy.ANY)


@pytest.fixture(scope="module")
def room():
    return Room()


def graded(valid, uncorrected, corrupt, signalled, action, restart, error_ip):
    rows = (
        (not valid, "none"),
        (not uncorrected, "corrected"),
        (corrupt, "fatal"),
        (not restart, "fatal"),
        (not signalled, "ucna"),
        (not action, "srao"),
        (not error_ip, "fatal"),
        (True, "srar"),
    )
    return next(name for condition, name in rows if condition)


@pytest.mark.parametrize("facts", list(itertools.product((False, True), repeat=7)))
def test_severity(facts):
    flags = (mca.STATUS_VAL, mca.STATUS_UC, mca.STATUS_PCC, mca.STATUS_S, mca.STATUS_AR)
    status = sum(int(flag) for flag, on in zip(flags, facts, strict=False) if on)
    got = policy.severity_of(*words(status, facts[5], facts[6]))
    assert policy.SEVERITIES[int(got)] == graded(*facts)


CONDITION = st.sampled_from((ANY, 0, 1, 2, 3))
RULES = st.lists(st.tuples(*[CONDITION] * 5), max_size=12)


@settings(max_examples=300, deadline=None)
@given(rules=RULES, facts=st.tuples(*[st.integers(0, 4)] * 5))
def test_first_match_wins(room, rules, facts):
    outer = room.m.outer
    outer.rule_count = len(rules)
    for row, rule in zip(outer.rules, rules, strict=False):
        row.kind, row.command, row.bank, row.owner, row.severity = rule
    expected = next(
        (
            number
            for number, rule in enumerate(rules)
            if all(condition in (ANY, fact) for condition, fact in zip(rule, facts, strict=True))
        ),
        int(policy.NO_RULE),
    )
    assert int(policy.match(room.m, *words(*facts))) == expected
