"""Records whose fields both kernels and Python reach by name, at fixed offsets in plain memory.

A record is declared as a class of annotated fields::

    class Segment(Layout):
        selector: u32
        _pad: u32
        base: u64
        limit: u32
        flags: u32

    class Tlb(Layout):
        sets: Array[TlbEntry] = array(1536)   # an array inside the record
        root: To[Segment]                     # a pointer to another record

In a kernel `m.tlb.sets[i].tag` compiles to one load. Fields are laid out in order and never padded implicitly: an unaligned field
is an error. Unsigned fields of any width are read as unsigned 64-bit numbers and truncated when stored, so that kernel arithmetic
has one integer type.
"""

import ctypes
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

T = TypeVar("T")

if TYPE_CHECKING:
    u8 = int
    u16 = int
    u32 = int
    u64 = int
    i32 = int
    i64 = int
else:
    u8, u16, u32, u64, i32, i64 = np.uint8, np.uint16, np.uint32, np.uint64, np.int32, np.int64

SCALARS: tuple[Any, ...] = (np.uint8, np.uint16, np.uint32, np.uint64, np.int32, np.int64)


class Array(Generic[T]):
    """Annotation of an array field; give its length with `array(n)`."""

    def __getitem__(self, index: int) -> T:
        raise NotImplementedError

    def __setitem__(self, index: int, value: T) -> None:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError


class To(Generic[T]):
    """Annotation of a field that holds the address of another record: reading the field gives that record."""


class _Mark:
    """What a class attribute says of the field beyond its annotation."""

    def __init__(self, length: int = 1, fixed: bool = False, align: int = 1) -> None:
        self.length, self.fixed, self.align = length, fixed, align


def array(length: int, fixed: bool = False, align: int = 1) -> Any:
    """Length of an array field: the class attribute's value. `fixed`: see there. `align`: what its address must be a multiple
    of, up to 4096; records that hold it are aligned alike.
    """
    return _Mark(length, fixed, align)


def fixed() -> Any:
    """Marks a scalar field that Python sets up and no kernel stores: it stays as it is while a kernel runs."""
    return _Mark(fixed=True)


def pointer() -> Any:
    """Marks a record-typed field as a pointer to the record instead of the record itself."""
    return To


class Field:
    """One field: byte offset, kind (scalar, record, scalars, records, pointer), element type, length, whether kernels leave it
    as it is, what its offset must be a multiple of.
    """

    __slots__ = ("align", "fixed", "kind", "length", "of", "offset")

    def __init__(self, offset: int, kind: str, of: Any, length: int, fixed: bool = False, align: int = 1) -> None:
        self.offset, self.kind, self.of, self.length, self.fixed = offset, kind, of, length, fixed
        if kind == "pointer":
            self.align = 8
        else:
            self.align = max(align, of.ALIGN if kind in ("record", "records") else self.element_size)

    @property
    def size(self) -> int:
        if self.kind == "pointer":
            return 8
        return self.element_size * self.length

    @property
    def element_size(self) -> int:
        return int(self.of.SIZE) if isinstance(self.of, type) and issubclass(self.of, Layout) else np.dtype(self.of).itemsize


class Layout:
    """Base of all records. Class attributes: `FIELDS` (name -> Field, in order), `SIZE` in bytes, `ALIGN`."""

    FIELDS: dict[str, Field]
    SIZE: int
    ALIGN: int

    def __init_subclass__(cls) -> None:
        cls.FIELDS, offset = {}, 0
        for name, hint in get_type_hints(cls).items():
            if name in ("FIELDS", "SIZE", "ALIGN"):
                continue
            if name in ("address", "bytes"):
                raise TypeError(f"{cls.__name__}.{name}: Python's view of a record has an attribute of that name")
            mark = cls.__dict__.get(name)
            field = _field(hint, mark, offset)
            if offset % field.align:
                raise TypeError(f"{cls.__name__}.{name} is not aligned at byte {offset}")
            cls.FIELDS[name] = field
            offset += field.size
            if mark is not None:
                delattr(cls, name)
        cls.ALIGN = max(8, *(field.align for field in cls.FIELDS.values()))
        cls.SIZE = -(-offset // cls.ALIGN) * cls.ALIGN


def _field(hint: Any, mark: Any, offset: int) -> Field:
    if get_origin(hint) is Array:
        (of,) = get_args(hint)
        kind = "records" if isinstance(of, type) and issubclass(of, Layout) else "scalars"
        if kind == "records" and mark.fixed:
            raise TypeError("an array of records is not fixed; its fields may be")
        return Field(offset, kind, of, mark.length, mark.fixed, mark.align)
    if mark is To:
        return Field(offset, "pointer", hint, 1, fixed=True)
    if isinstance(hint, type) and issubclass(hint, Layout):
        return Field(offset, "record", hint, 1)
    if hint in SCALARS:
        return Field(offset, "scalar", hint, 1, mark is not None and mark.fixed)
    raise TypeError(f"no such field type: {hint!r}")


class Record:
    """A record in memory as Python sees it; kernels take it as an argument. Attribute access mirrors the kernel's.

    `Record(layout)` allocates zeroed memory; `Record(layout, address)` looks at memory that something else owns.
    """

    __slots__ = ("_keep", "_layout", "address")

    def __init__(self, layout: type[Layout], address: int = 0, keep: Any = None) -> None:
        if address == 0:
            keep = np.zeros(layout.SIZE + 4096, np.uint8)
            address = -(-int(keep.ctypes.data) // 4096) * 4096
        for name, value in (("_layout", layout), ("address", int(address)), ("_keep", keep)):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        try:
            field = self._layout.FIELDS[name]
        except KeyError:
            raise AttributeError(f"{self._layout.__name__} has no field {name}") from None
        at = self.address + field.offset
        if field.kind == "scalar":
            return widen(_view(field.of, at, 1)[0])
        if field.kind == "scalars":
            return Elements(_view(field.of, at, field.length))
        if field.kind == "record":
            return Record(field.of, at, self._keep)
        if field.kind == "pointer":
            return Record(field.of, int(_view(np.uint64, at, 1)[0]), self._keep)
        return Records(field.of, at, field.length, self._keep)

    def __setattr__(self, name: str, value: Any) -> None:
        field = self._layout.FIELDS[name]
        if field.kind not in ("scalar", "pointer"):
            raise AttributeError(f"{name} is not a scalar")
        store(np.uint64 if field.kind == "pointer" else field.of, self.address + field.offset, value)

    def __repr__(self) -> str:
        return f"<{self._layout.__name__} at {self.address:#x}>"

    def bytes(self) -> "np.ndarray[Any, np.dtype[np.uint8]]":
        """The record's memory as a writable array of bytes (a view)."""
        view: np.ndarray[Any, np.dtype[np.uint8]] = _view(np.uint8, self.address, self._layout.SIZE)
        return view


class Elements:
    """A scalar array field as Python sees it."""

    __slots__ = ("numpy",)

    def __init__(self, view: Any) -> None:
        self.numpy = view

    def __getitem__(self, index: Any) -> Any:
        return widen(self.numpy[index])

    def __setitem__(self, index: Any, value: Any) -> None:
        store(self.numpy.dtype.type, self.numpy.ctypes.data + int(index) * self.numpy.itemsize, value)

    def __len__(self) -> int:
        return len(self.numpy)


class Records:
    """An array-of-records field as Python sees it."""

    __slots__ = ("_at", "_keep", "_layout", "_length")

    def __init__(self, layout: type[Layout], at: int, length: int, keep: Any) -> None:
        self._layout, self._at, self._length, self._keep = layout, at, length, keep

    def __getitem__(self, index: Any) -> Record:
        if not 0 <= int(index) < self._length:
            raise IndexError(index)
        return Record(self._layout, self._at + int(index) * self._layout.SIZE, self._keep)

    def __len__(self) -> int:
        return self._length

    def column(self, name: str) -> Any:
        """One scalar field of all of them, as a NumPy array (a view)."""
        field = self._layout.FIELDS[name]
        step = np.dtype(field.of).itemsize
        whole = _view(field.of, self._at, self._length * self._layout.SIZE // step)
        return whole[field.offset // step :: self._layout.SIZE // step]


def _view(dtype: Any, address: int, length: int) -> Any:
    kind = np.ctypeslib.as_ctypes_type(np.dtype(dtype))
    return np.ctypeslib.as_array((kind * length).from_address(address))


def widen(value: Any) -> Any:
    """Scalars as kernels see them: unsigned 64-bit, or signed 64-bit for signed fields."""
    if isinstance(value, np.ndarray):
        return value
    return np.uint64(value) if isinstance(value, np.unsignedinteger) else np.int64(value)


def store(dtype: Any, address: int, value: Any) -> None:
    """Store `value` at `address`, truncated to `dtype`'s width."""
    size = np.dtype(dtype).itemsize
    ctypes.memmove(address, (int(value) & ((1 << 8 * size) - 1)).to_bytes(size, "little"), size)
