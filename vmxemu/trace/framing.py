"""The messages of an Arrow IPC stream, one by one, telling a stream that ends too early from one that is damaged.

Arrow's 'Encapsulated message format': FFFFFFFFh, length of the metadata, metadata (a flatbuffer; it holds the length of
the body), body.
"""

import struct
from typing import Any

import pyarrow as pa

PREFIX_BYTES = 8
CONTINUATION = 0xFFFFFFFF
BODY_LENGTH_SLOT = 4 + 2 * 3  # of the flatbuffer table `Message`: version, header type, header, bodyLength

DAMAGE = (pa.ArrowException, OSError, MemoryError, ValueError, OverflowError, struct.error, IndexError)


class Cut(Exception):
    """The stream ends inside a message, or without a closing batch."""


class Messages:
    """A cursor over the messages of a mapped file."""

    def __init__(self, source: Any) -> None:
        self._buffer = source.read_buffer()
        self._at = 0

    def schema(self) -> Any:
        """The first message, as the schema."""
        return pa.ipc.read_schema(self._next())

    def batch(self, schema: Any) -> tuple[Any, dict[str, str]]:
        """The next message as a record batch, with its custom metadata. Raises Cut at the end."""
        message = self._next()
        # A stream of just this batch, so that Arrow also gives the batch's metadata.
        stream = pa.BufferReader(b"".join((schema.serialize(), message)))
        batch, metadata = pa.ipc.open_stream(stream).read_next_batch_with_custom_metadata()
        batch.validate(full=True)
        pairs = dict(metadata.items()) if metadata is not None else {}
        return batch, {bytes(name).decode(): bytes(value).decode() for name, value in pairs.items()}

    def _next(self) -> Any:
        """The whole next message as a buffer."""
        rest = len(self._buffer) - self._at
        if rest < PREFIX_BYTES:
            raise Cut
        mark, metadata_bytes = struct.unpack("<II", self._buffer[self._at : self._at + PREFIX_BYTES])
        if mark != CONTINUATION:
            raise ValueError("no message starts there")
        if metadata_bytes == 0 or PREFIX_BYTES + metadata_bytes > rest:
            raise Cut
        start = self._at + PREFIX_BYTES
        body_bytes = _body_length(memoryview(self._buffer[start : start + metadata_bytes]))
        end = start + metadata_bytes + body_bytes
        if end > len(self._buffer):
            raise Cut
        message = self._buffer[self._at : end]
        self._at = end
        return message


def _body_length(metadata: memoryview) -> int:
    """`bodyLength` of the flatbuffer table `Message`."""
    (table,) = struct.unpack_from("<I", metadata, 0)
    (back,) = struct.unpack_from("<i", metadata, table)
    virtual = table - back
    if virtual < 0:
        raise ValueError("its metadata are malformed")
    (virtual_bytes,) = struct.unpack_from("<H", metadata, virtual)
    if virtual_bytes <= BODY_LENGTH_SLOT:
        return 0
    (offset,) = struct.unpack_from("<H", metadata, virtual + BODY_LENGTH_SLOT)
    if offset == 0:
        return 0
    (length,) = struct.unpack_from("<q", metadata, table + offset)
    if length < 0:
        raise ValueError("its length is negative")
    return int(length)
