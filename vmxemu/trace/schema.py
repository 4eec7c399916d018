"""The columns of a trace and its checksum. Everything that reads or writes events agrees here."""

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from vmxemu.trace.layout import Event

Events = npt.NDArray[Any]  # a structured array of DTYPE

VERSION = 1
BATCH_EVENTS = 1 << 14
DTYPE = np.dtype([(name, field.of) for name, field in Event.FIELDS.items()])
COLUMNS: tuple[str, ...] = DTYPE.names or ()


def checksum(columns: list[npt.NDArray[Any]], previous: int) -> int:
    """CRC-32 of a batch's columns, begun with the batch before it, so that a missing batch shows."""
    value = previous
    for column in columns:
        value = zlib.crc32(np.ascontiguousarray(column).view(np.uint8).data, value)
    return value


def empty() -> Events:
    """No events."""
    return np.zeros(0, DTYPE)
