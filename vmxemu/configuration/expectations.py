"""What a scenario promises, as checks on a finished run: each is one row of CHECKS, key -> what says the problem."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=0)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tally(_Table):
    """How many records agree with every key given; exactly `count`, or `at_least` so many."""

    kind: str | None = None
    owner: str | None = None
    action: str | None = None
    rule: str | None = None
    level: int | None = None
    reason: str | None = None
    contains: str | None = None
    count: Count | None = None
    at_least: Count | None = None

    @model_validator(mode="after")
    def _one_number(self) -> Self:
        if (self.count is None) == (self.at_least is None):
            raise ValueError("expected either count or at_least")
        return self


class Expect(_Table):
    """One expectation: a name and exactly one check."""

    name: Annotated[str, Field(min_length=1)]
    exit_status: int | None = None
    reason: str | None = None
    output_contains: str | None = None
    output_lacks: str | None = None
    lines: Tally | None = None
    lines_equal: str | None = None
    phases: tuple[str, ...] | None = None
    exits: Tally | None = None
    decisions: Tally | None = None
    deliveries: Tally | None = None
    one_decision_each: bool | None = None
    migrations: Count | None = None
    migrations_at_least: Count | None = None
    bypasses: Count | None = None
    refusals_at_least: Count | None = None
    stale_translations: Count | None = None
    stale_translations_at_least: Count | None = None

    @model_validator(mode="after")
    def _one_check(self) -> Self:
        given = [key for key in CHECKS if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one check ({', '.join(CHECKS)}), got {' and '.join(given) or 'none'}")
        return self

    @property
    def check(self) -> str:
        """The key of its check."""
        return next(key for key in CHECKS if getattr(self, key) is not None)


@dataclass(frozen=True)
class Facts:
    """A finished run: the statistics, why it ended, its exit status, and everything it printed."""

    statistics: Mapping[str, Any]
    reason: str
    exit_status: int
    output: str


@dataclass(frozen=True)
class Verdict:
    """Whether one expectation holds; `problem` is empty if it does."""

    name: str
    problem: str

    @property
    def holds(self) -> bool:
        return not self.problem


def judge(expectations: Sequence[Expect], facts: Facts) -> list[Verdict]:
    """A verdict for every expectation, in order."""
    return [Verdict(expect.name, CHECKS[expect.check](facts, getattr(expect, expect.check))) for expect in expectations]


def _same(what: str, expected: object, got: object) -> str:
    return "" if expected == got else f"{what}: expected {expected}, got {got}"


def _at_least(what: str, expected: int, got: int) -> str:
    return "" if got >= expected else f"{what}: expected at least {expected}, got {got}"


def _records(facts: Facts, key: str) -> Sequence[Mapping[str, Any]]:
    return facts.statistics.get(key) or ()


def _plain(value: object) -> str:
    return str(value).lower().removeprefix("#")


def _number(what: str, tally: Tally, got: int) -> str:
    return _same(what, tally.count, got) if tally.count is not None else _at_least(what, tally.at_least or 0, got)


def _tally(key: str) -> Callable[[Facts, Any], str]:
    def check(facts: Facts, tally: Tally) -> str:
        wanted = tally.model_dump(include={"kind", "owner", "action", "rule", "level"}, exclude_none=True)
        found = sum(
            all(_plain(record.get(name)) == _plain(value) for name, value in wanted.items())
            for record in _records(facts, key)
        )
        described = " ".join([key, *(f"{name}={value}" for name, value in wanted.items())])
        return _number(described, tally, found)

    return check


def _exits(facts: Facts, tally: Tally) -> str:
    found = sum(
        int(count)
        for level, reasons in (facts.statistics.get("exits_by_reason") or {}).items()
        for reason, count in reasons.items()
        if (tally.level is None or str(level).removeprefix("L") == str(tally.level))
        and (tally.reason is None or _plain(reason) == _plain(tally.reason))
    )
    return _number(f"exits {tally.reason or ''}".strip(), tally, found)


def _lines_with(facts: Facts, text: str) -> list[str]:
    return [line[line.index(text) :].rstrip() for line in facts.output.splitlines() if text in line]


def _lines(facts: Facts, tally: Tally) -> str:
    return _number(f"lines with {tally.contains or ''!r}", tally, len(_lines_with(facts, tally.contains or "")))


def _lines_equal(facts: Facts, text: str) -> str:
    lines = _lines_with(facts, text)
    if len(lines) < 2:
        return f"expected at least two lines with {text!r}, got {len(lines)}"
    return next((f"{line!r} differs from {lines[0]!r}" for line in lines if line != lines[0]), "")


def _phases(facts: Facts, names: Sequence[str]) -> str:
    seen = [str(record.get("name")) for record in _records(facts, "phases")]
    rest = iter(seen)
    missing = next((name for name in names if name not in rest), None)
    return "" if missing is None else f"phase {missing!r} is missing or out of order; seen: {', '.join(seen) or 'none'}"


def _one_decision_each(facts: Facts, wanted: bool) -> str:
    # Before VMM1 is up (level L0) the processor treats management interrupts itself.
    arrived = sorted(int(record["serial"]) for record in _records(facts, "management") if record.get("level") != "L0")
    decided = sorted(int(record["serial"]) for record in _records(facts, "decisions"))
    if (arrived == decided) is wanted:
        return ""
    odd = sorted(set(arrived) ^ set(decided)) or sorted({serial for serial in decided if decided.count(serial) > 1})
    return f"{len(arrived)} management interrupts arrived, {len(decided)} were decided; see serials {odd[:5]}"


CHECKS: dict[str, Callable[[Facts, Any], str]] = {
    "exit_status": lambda facts, wanted: _same("exit status", wanted, facts.exit_status),
    "reason": lambda facts, wanted: _same("reason", _plain(wanted), _plain(facts.reason)),
    "output_contains": lambda facts, text: "" if text in facts.output else f"the output lacks {text!r}",
    "output_lacks": lambda facts, text: f"the output contains {text!r}" if text in facts.output else "",
    "lines": _lines,
    "lines_equal": _lines_equal,
    "phases": _phases,
    "exits": _exits,
    "decisions": _tally("decisions"),
    "deliveries": _tally("deliveries"),
    "one_decision_each": _one_decision_each,
    "migrations": lambda facts, wanted: _same("migrations", wanted, len(_done(facts))),
    "migrations_at_least": lambda facts, wanted: _at_least("migrations", wanted, len(_done(facts))),
    "bypasses": lambda facts, wanted: _same("bypasses", wanted, len(_records(facts, "bypasses"))),
    "refusals_at_least": lambda facts, wanted: _at_least("refusals", wanted, len(_records(facts, "refusals"))),
    "stale_translations": lambda facts, wanted: _stale(facts, lambda got: _same(STALE, wanted, got)),
    "stale_translations_at_least": lambda facts, wanted: _stale(facts, lambda got: _at_least(STALE, wanted, got)),
}
STALE = "uses of stale translations"


def _stale(facts: Facts, judged: Callable[[int], str]) -> str:
    found = facts.statistics.get("stale_translations")
    return judged(int(found["uses"])) if found else "translations were not checked (translation.check, --check-translations)"


def _done(facts: Facts) -> list[Mapping[str, Any]]:
    return [record for record in _records(facts, "migrations") if not record.get("status")]
