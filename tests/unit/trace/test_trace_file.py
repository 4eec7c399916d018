"""Trace files: what is written is read; a cut file gives its prefix; damage is found and named."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmxemu.trace import schema
from vmxemu.trace.file import Reader, TraceError, Writer, header_of, read
from vmxemu.trace.schema import BATCH_EVENTS, DTYPE, Events

ON_ONE_FILE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
EVENTS = 3 * 64 + 17


class Content(bytes):
    """Bytes that a failing test need not print."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


def stream(count: int, seed: int = 0) -> Events:
    """Random events with rising cycles."""
    random = np.random.default_rng(seed)
    events = np.frombuffer(random.bytes(count * DTYPE.itemsize), DTYPE).copy()
    events["cycle"] = np.cumsum(events["cycle"] >> np.uint64(50))
    return events


def write(path: Path, events: Events, piece: int) -> None:
    writer = Writer(path, header_of({"seed": 1}))
    for start in range(0, len(events), piece):
        writer.add(events[start : start + piece])
    writer.close({"reason": "EXIT_PORT"})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file with small batches."""
    path = tmp_path_factory.mktemp("trace") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vmxemu.trace.file.BATCH_EVENTS", 64)
        write(path, stream(EVENTS), 10)
    return Content(path.read_bytes())


def prefix(path: Path) -> tuple[Events, str, Reader]:
    """The events before any damage, and what was said of it."""
    reader = Reader(path)
    got, said = [schema.empty()], ""
    try:
        for batch in reader:
            got.append(batch)
    except TraceError as problem:
        said = str(problem)
    return np.concatenate(got), said, reader


@pytest.mark.parametrize("count", [0, 1, BATCH_EVENTS, BATCH_EVENTS + 1])
def test_what_is_written_is_read(count: int, tmp_path: Path) -> None:
    events = stream(count)
    write(tmp_path / "t", events, 5000)
    header, got = read(tmp_path / "t")
    assert np.array_equal(events, got)
    assert header["configuration"] == {"seed": 1} and header["packages"]["unicorn"]


def test_the_bytes_do_not_depend_on_how_the_events_came(tmp_path: Path) -> None:
    events = stream(BATCH_EVENTS * 2 + 5)
    for name, piece in (("a", 7001), ("b", 100_000)):
        write(tmp_path / name, events, piece)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@ON_ONE_FILE
@given(cut=st.integers(0, 1 << 20))
def test_a_cut_file_gives_its_valid_prefix(whole: bytes, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut"
    path.write_bytes(whole[: cut % len(whole)])
    try:
        got, said, reader = prefix(path)
    except TraceError as problem:
        assert "not a vmxemu trace" in str(problem)
        return
    assert np.array_equal(got, stream(EVENTS)[: len(got)])
    assert len(got) in (0, 64, 128, 192, EVENTS)
    if reader.ending is None:
        where = f"{path}: batch {reader.batches} (after {len(got):,} events)"
        assert said == f"{where} is cut there; expected a closing batch"
    else:  # only the end-of-stream mark after the closing batch is missing
        assert len(got) == EVENTS and said == ""


@ON_ONE_FILE
@given(at=st.integers(0, 1 << 20), flip=st.integers(1, 255))
def test_no_damaged_byte_changes_an_event_unseen(whole: bytes, tmp_path: Path, at: int, flip: int) -> None:
    damaged = bytearray(whole)
    damaged[at % len(whole)] ^= flip
    path = tmp_path / "damaged"
    path.write_bytes(damaged)
    try:
        got, said, reader = prefix(path)
    except TraceError as problem:
        assert "\n" not in str(problem)
        return
    assert np.array_equal(got, stream(EVENTS)[: len(got)])
    assert reader.header["configuration"] == {"seed": 1}
    assert said or (len(got) == EVENTS and reader.ending is not None)
    assert "\n" not in said


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_trace(content: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        with pytest.raises(TraceError):
            Reader(file.name)


def test_a_missing_batch_is_noticed(whole: bytes, tmp_path: Path) -> None:
    marks = [at for at in range(len(whole)) if whole[at : at + 4] == b"\xff\xff\xff\xff" and at % 8 == 0]
    path = tmp_path / "missing"
    first, second = marks[1], marks[2]
    path.write_bytes(whole[:first] + whole[second:])
    _, said, _ = prefix(path)
    assert "batch 0 (after 0 events) is corrupt" in said


def test_another_version_is_refused(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "t", {"version": 99, "configuration": {}})
    writer.close()
    with pytest.raises(TraceError, match="is a trace of version 99; expected version 1"):
        Reader(tmp_path / "t")


def test_a_full_disk_raises_oserror_and_keeps_the_prefix(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with pytest.raises(OSError, match="No space left"):
        write(Path("/dev/full"), stream(5), 5)


def test_an_exception_closes_the_trace_as_unfinished(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Writer(tmp_path / "t", header_of({})) as writer:
        writer.add(stream(3))
        raise RuntimeError
    _, said, reader = prefix(tmp_path / "t")
    assert said == "" and reader.ending == {"reason": "UNFINISHED", "events": 3}
