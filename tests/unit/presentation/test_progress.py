"""Progress where there is no terminal: lines of the guest and lines about the run do not cut each other up."""

import re
import sys

import numpy as np

from vmxemu.presentation.progress import Progress
from vmxemu.trace.events import PHASE
from vmxemu.trace.schema import DTYPE


def begin_phases(progress, count):
    events = np.zeros(count, DTYPE)
    events["kind"], events["reason"] = PHASE, np.arange(count)
    progress.events(events)


def shown(capfd, steps):
    """What a file gets that both standard output and standard error go to."""
    progress = Progress(1_000_000, enabled=True)
    for step in steps:
        if isinstance(step, bytes):
            progress.guest(step, sys.stderr.buffer)
        else:
            begin_phases(progress, step)
    progress.close()
    return re.sub(r"vmxemu: \[.*", "vmxemu", capfd.readouterr().err).splitlines()


def test_a_phase_waits_for_the_end_of_the_guests_line(capfd):
    assert shown(capfd, [b"one\ntwo: st", 1, b"arts\nthree\nfo", b"ur\n"]) == ["one", "two: starts", "vmxemu", "three", "four"]


def test_between_lines_a_phase_is_told_at_once(capfd):
    assert shown(capfd, [1, b"one\n", 2, b"two\n"]) == ["vmxemu", "one", "vmxemu", "vmxemu", "two"]


def test_what_still_waits_at_the_end_is_told(capfd):
    assert shown(capfd, [b"no end", 1]) == ["no endvmxemu"]
