"""A trace on disk: an Arrow IPC stream, zstd-compressed, that stays readable wherever it is cut.

The metadata of the schema hold the header as JSON, those of each batch its sequence number, count of events and chained
checksum. The last batch is empty and closes the trace: it holds totals and how the run ended. Batches are cut by number
of events, never by wall time, so that the same run gives the same bytes.
"""

import json
import zlib
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from vmxemu.trace import framing
from vmxemu.trace.schema import BATCH_EVENTS, COLUMNS, DTYPE, VERSION, Events, checksum, empty

HEADER_KEY, HEADER_CRC_KEY = b"vmxemu.header", b"vmxemu.header.crc32"
PACKAGES = ("vmxemu", "unicorn", "capstone", "numba", "numpy", "pyarrow")
FIELDS = [pa.field(name, pa.from_numpy_dtype(DTYPE[name]), nullable=False) for name in COLUMNS]


class TraceError(Exception):
    """The file is not a trace, or is cut or corrupt. One line; what precedes the damage has been given already."""


def header_of(configuration: dict[str, Any]) -> dict[str, Any]:
    """A header for a run with this configuration (`Configuration.to_header()`)."""
    return {"version": VERSION, "configuration": configuration, "packages": {name: _version(name) for name in PACKAGES}}


def _crc(text: bytes) -> bytes:
    return f"{zlib.crc32(text):08x}".encode()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


class Writer:
    """Writes events as they come. Any OSError (disk full) leaves what was written readable."""

    def __init__(self, path: str | Path, header: dict[str, Any]) -> None:
        self.path, self.events, self.batches, self._crc = str(path), 0, 0, 0
        self._waiting: list[Events] = []
        self._waiting_events = 0
        self._file = open(path, "wb", buffering=0)
        text = json.dumps(header, sort_keys=True).encode()
        schema = pa.schema(FIELDS, metadata={HEADER_KEY: text, HEADER_CRC_KEY: _crc(text)})
        self._schema = schema
        try:
            options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
            self._stream: Any = pa.ipc.new_stream(_Named(self._file), schema, options=options)
        except BaseException:
            self._file.close()
            raise

    def add(self, events: Events) -> None:
        """Append events (a structured array of trace.schema.DTYPE; it is copied)."""
        if not len(events):
            return
        self._waiting.append(np.array(events, DTYPE))
        self._waiting_events += len(events)
        if self._waiting_events >= BATCH_EVENTS:
            joined = np.concatenate(self._waiting)
            whole = len(joined) // BATCH_EVENTS * BATCH_EVENTS
            for start in range(0, whole, BATCH_EVENTS):
                self._write(joined[start : start + BATCH_EVENTS], {})
            self._waiting, self._waiting_events = [joined[whole:]], len(joined) - whole

    def _write(self, events: Events, more: dict[str, str]) -> None:
        columns = [np.ascontiguousarray(events[name]) for name in COLUMNS]
        crc = checksum(columns, self._crc)
        metadata = {"sequence": str(self.batches), "events": str(len(events)), "crc32": f"{crc:08x}", **more}
        batch = pa.RecordBatch.from_arrays([pa.array(column) for column in columns], schema=self._schema)
        self._stream.write_batch(batch, custom_metadata=metadata)
        self._crc, self.batches, self.events = crc, self.batches + 1, self.events + len(events)

    def close(self, ending: dict[str, Any] | None = None) -> None:
        """Write the rest and the closing batch, which says how the run ended."""
        try:
            if self._waiting_events:
                self._write(np.concatenate(self._waiting), {})
                self._waiting, self._waiting_events = [], 0
            self._write(empty(), {"closing": json.dumps({**(ending or {}), "events": self.events}, sort_keys=True)})
            self._stream.close()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the file as it is; nothing more is written. Calling it again does nothing."""
        with suppress(OSError):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._file.closed:
            self.close({"reason": "UNFINISHED"})


class _Named:
    """The file as Arrow sees it; a write that fails says which file."""

    def __init__(self, file: Any) -> None:
        self._file, self.closed = file, False

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        total = len(rest)
        try:
            while len(rest):
                rest = rest[self._file.write(rest) or 0 :]
        except OSError as problem:
            raise OSError(problem.errno, problem.strerror, self._file.name) from None
        return total

    def flush(self) -> None:
        """Nothing is held back."""

    def writable(self) -> bool:
        """Arrow asks."""
        return True

    def readable(self) -> bool:
        """Arrow asks."""
        return False

    def close(self) -> None:
        """The writer closes the file itself."""


class Reader:
    """Reads a trace batch by batch. `header` is there at once, `ending` after the closing batch has been read."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.ending: dict[str, Any] | None = None
        self.events = self.batches = 0
        try:
            self._file = pa.memory_map(self.path) if Path(path).stat().st_size else pa.BufferReader(b"")
        except FileNotFoundError:
            raise TraceError(f"{path}: no such file") from None
        except OSError as problem:
            raise TraceError(f"{path}: cannot be read: {problem.strerror or problem}") from None
        self._messages = framing.Messages(self._file)
        self.header = self._read_header()

    def _read_header(self) -> dict[str, Any]:
        expected = f"{self.path}: is not a vmxemu trace, or is cut or corrupt in its header"
        try:
            self._schema = self._messages.schema()
            metadata = self._schema.metadata or {}
            header = json.loads(metadata[HEADER_KEY])
            if metadata.get(HEADER_CRC_KEY) != _crc(metadata[HEADER_KEY]):
                raise ValueError("its checksum is wrong")
        except (framing.Cut, *framing.DAMAGE, KeyError):
            raise TraceError(f"{expected}; expected an Arrow stream written by vmxemu run --record") from None
        if not isinstance(header, dict) or not self._schema.equals(pa.schema(FIELDS)):
            raise TraceError(f"{expected}; its columns are not those of this version")
        if header.get("version") != VERSION:
            raise TraceError(f"{self.path}: is a trace of version {header.get('version')}; expected version {VERSION}")
        return header

    def __iter__(self) -> Iterator[Events]:
        """The events of each batch. Raises TraceError at the first damage, after all that precedes it."""
        crc = 0
        while self.ending is None:
            try:
                batch, metadata = self._messages.batch(self._schema)
                events, crc = self._checked(batch, metadata, crc)
            except framing.Cut:
                raise TraceError(self._damage("is cut there; expected a closing batch")) from None
            except framing.DAMAGE as problem:
                raise TraceError(self._damage(f"is corrupt: {' '.join(str(problem).split())[:160]}")) from None
            self.batches += 1
            self.events += len(events)
            if len(events):
                yield events

    def _damage(self, what: str) -> str:
        return f"{self.path}: batch {self.batches} (after {self.events:,} events) {what}"

    def _checked(self, batch: Any, metadata: dict[str, str], previous: int) -> tuple[Events, int]:
        columns = [batch.column(index).to_numpy(zero_copy_only=False) for index in range(len(COLUMNS))]
        crc = checksum(columns, previous)
        stated = (metadata.get("sequence"), metadata.get("events"), metadata.get("crc32"))
        found = (str(self.batches), str(batch.num_rows), f"{crc:08x}")
        for name, expected, got in zip(("sequence number", "number of events", "checksum"), stated, found, strict=True):
            if expected != got:
                raise ValueError(f"its {name} should be {expected}, is {got}")
        events = np.zeros(batch.num_rows, DTYPE)
        for name, column in zip(COLUMNS, columns, strict=True):
            events[name] = column
        if "closing" in metadata:
            self._close(metadata["closing"])
        return events, crc

    def _close(self, text: str) -> None:
        ending = json.loads(text)
        if not isinstance(ending, dict) or ending.get("events") != self.events:
            raise ValueError("its closing totals are wrong")
        self.ending = ending


def read(path: str | Path) -> tuple[dict[str, Any], Events]:
    """Header and all events of an undamaged trace. Raises TraceError."""
    reader = Reader(path)
    batches = list(reader)
    return reader.header, np.concatenate(batches) if batches else empty()
