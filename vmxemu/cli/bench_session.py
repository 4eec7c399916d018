"""The measurements of `vmxemu bench ept`, one after the other, with progress; Ctrl-C leaves what there is."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from vmxemu.cli.interrupt import Interrupts, Stop
from vmxemu.cli.session import say
from vmxemu.cli.status import OK
from vmxemu.compile_cache import compiled_before
from vmxemu.measure.cases import Case
from vmxemu.measure.goals import WAYS, Goal, goals
from vmxemu.measure.measure import Bench, Row
from vmxemu.measure.rounds import ROUND_SECONDS
from vmxemu.measure.twin import Twin
from vmxemu.presentation.tally import Tally

# What does the work in a case: whether each address depends on the one before, and whether there are streams
KERNELS = {
    (False, False): ("vmxemu.translation.batch", "translate_many"),
    (False, True): ("vmxemu.translation.streams", "translate_streams"),
    (True, False): ("vmxemu.measure.chase", "chase"),
    (True, True): ("vmxemu.measure.chase", "chase_streams"),
}
TINY = 64  # pages and translations: enough to make the compiler work
GOAL_SECONDS = 0.3  # goals are measured longer than other rows


@dataclass
class Result:
    """What was measured before the end, and the exit status."""

    rows: list[Row] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    status: int = OK


def measure_all(cases: list[Case], with_goals: bool) -> Result:
    """Raises InputError for a trace that cannot be used."""
    result = Result()
    with Interrupts() as interrupts:
        try:
            _measure(cases, with_goals, interrupts, result)
        except Stop as stop:
            result.status = stop.status
    return result


def _measure(cases: list[Case], with_goals: bool, interrupts: Interrupts, result: Result) -> None:
    wanted = [*cases, *(way.case for way in WAYS.values() if with_goals)]
    with _at_once(interrupts):
        Bench(None).read_traces(wanted)
        _compile(wanted)
        twin = Twin.compiled()
    bench = Bench(twin, interrupts.check, ROUND_SECONDS)
    to_goals = list(goals(Bench(twin, interrupts.check, GOAL_SECONDS))) if with_goals else []
    with Tally(len(cases) + len(to_goals)) as tally:
        for case in cases:
            tally.now(case.label)
            result.rows.append(bench.measure(case))
            tally.done()
        for measure in to_goals:
            tally.now("speed goals")
            result.goals.append(measure())
            tally.done()


@contextmanager
def _at_once(interrupts: Interrupts) -> Iterator[None]:
    """Ctrl-C need not wait here."""
    interrupts.check()
    interrupts.at_once = True
    try:
        yield
    finally:
        interrupts.at_once = False


def _compile(cases: Iterable[Case]) -> None:
    """Have the kernels that the cases need compiled, or loaded."""
    needed = sorted({(case.dependent, case.streams > 1) for case in cases})
    if not all(compiled_before(*KERNELS[kind]) for kind in needed):
        say("compiling kernels (first run only, about half a minute) ...")
    warmer = Bench(None, seconds=0.0)
    for dependent, parallel in needed:
        pattern = "chase" if dependent else "uniform"
        warmer.measure(replace(Case(pattern), pages=TINY, count=TINY, streams=2 if parallel else 1))
