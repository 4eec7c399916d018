"""A translation described in a small TOML file: the processor, the guest's pages, EPT's pages, the access."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from vmxemu.configuration import quantities
from vmxemu.configuration.complaint import complaint
from vmxemu.configuration.errors import InputError
from vmxemu.isa import cpus, paging

MOST_PAGES, MOST_ENTRIES = 4096, 64
LARGEST_TABLE_ADDRESS = 1 << 31
SIZES = {"4K": 1 << 12, "2M": 1 << 21, "4M": 1 << 22, "1G": 1 << 30}
LONG_SIZES = ("4K", "2M", "1G")
SIZES_OF_MODE = {"off": (), "32-bit": ("4K", "4M"), "pae": ("4K", "2M"), "4-level": LONG_SIZES, "5-level": LONG_SIZES}
GUEST_LEVELS = {"off": 0, "32-bit": 2, "pae": 3, "4-level": 4, "5-level": 5}
CONTROLS = ("WP", "PSE", "PGE", "SMEP", "SMAP", "PKE", "PKS", "NXE", "AC")
EPT_CONTROLS = ("AD", "SSS", "MBE", "SPP", "PML", "VE")
MEMORY_TYPES = ("UC", "WC", "WT", "WP", "WB")


def _flags(*structures: str) -> tuple[str, ...]:
    """The names of the flags in any of these structures, but for PS, which the page's size decides."""
    names = (row.name for name in structures for row in paging.STRUCTURES[name] if row.kind == "flag")
    return tuple(name for name in dict.fromkeys(names) if name != "PS")


GUEST_FLAGS = _flags("PTE")
EPT_FLAGS = _flags("EPT_PTE")


def words(known: tuple[str, ...], what: str) -> BeforeValidator:
    """Text such as "P RW US" as a tuple of names, each one of `known`."""

    def split(value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError(f"expected {what} as text, such as {' '.join(known[:3])!r}, got {value!r}")
        for word in value.split():
            if word not in known:
                raise ValueError(f"expected {what} out of {' '.join(known)}, got {word!r}")
        return tuple(dict.fromkeys(value.split()))

    return BeforeValidator(split)


Address = Annotated[int, BeforeValidator(quantities.address)]
Size = Annotated[int, BeforeValidator(quantities.size)]
TableAddress = Annotated[Address, Field(le=LARGEST_TABLE_ADDRESS)]
GuestFlags = Annotated[tuple[str, ...], words(GUEST_FLAGS, "flags")]
EptFlags = Annotated[tuple[str, ...], words(EPT_FLAGS, "flags")]
Count = Annotated[int, Field(ge=1, le=MOST_PAGES)]


def _known_cpu(name: Any) -> Any:
    if name not in cpus.names():
        raise ValueError(f"expected a CPU profile ({', '.join(cpus.names())}), got {name!r}")
    return name


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProcessorDescription(_Table):
    """Mode, privilege and controls. `walk_caches`: those of the profile; without, each walk makes all its references."""

    cpu: Annotated[str, BeforeValidator(_known_cpu)] = "skylake-sp"
    mode: Literal["off", "32-bit", "pae", "4-level", "5-level"] = "4-level"
    walk_caches: bool = False
    cpl: Literal[0, 1, 2, 3] = 3
    controls: Annotated[tuple[str, ...], words(CONTROLS, "controls")] = ("WP", "PGE", "NXE")
    pkru: Annotated[Address, Field(lt=1 << 32)] = 0
    pkrs: Annotated[Address, Field(lt=1 << 32)] = 0


class _Page(_Table):
    at: Address
    to: Address
    size: str
    count: Count = 1

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        for name in ("at", "to"):
            if getattr(self, name) % SIZES[self.size]:
                raise ValueError(f"{name}: expected a multiple of {self.size}, got {getattr(self, name):#x}")
        if self.to + SIZES[self.size] * self.count > 1 << 52:
            raise ValueError(f"to: expected an address of at most 52 bits, got {self.to:#x}")
        return self


class GuestPage(_Page):
    """`count` pages from linear address `at` on, at guest-physical address `to`. `tables`: flags of the entries above."""

    size: Literal["4K", "2M", "4M", "1G"] = "4K"
    flags: GuestFlags = ("P", "RW", "US", "A", "D")
    tables: GuestFlags = ("P", "RW", "US", "A")
    key: Annotated[int, Field(ge=0, le=15)] = 0


class EptPage(_Page):
    """`count` pages from guest-physical address `at` on, at host-physical address `to`. `sub_pages`: those of 128 bytes
    that may be written (SPP).
    """

    size: Literal["4K", "2M", "1G"] = "4K"
    flags: EptFlags = ("R", "W", "X")
    tables: EptFlags = ("R", "W", "X")
    memory_type: Literal["UC", "WC", "WT", "WP", "WB"] = "WB"
    sub_pages: tuple[Annotated[int, Field(ge=0, le=31)], ...] | None = None


class EntryChange(_Table):
    """A change of one entry after all pages are mapped: the whole of it, or bits by name or number."""

    at: Address
    level: Annotated[int, Field(ge=1, le=5)]
    value: Address | None = None
    set: tuple[str | int, ...] = ()
    clear: tuple[str | int, ...] = ()


class GuestDescription(_Table):
    """The guest's tables, from guest-physical address `tables` on."""

    tables: TableAddress = 0x10_0000
    page: Annotated[tuple[GuestPage, ...], Field(max_length=MOST_ENTRIES)] = ()
    entry: Annotated[tuple[EntryChange, ...], Field(max_length=MOST_ENTRIES)] = ()


class EptDescription(_Table):
    """The EPT, from host-physical address `tables` on. Guest tables that none of its pages holds are mapped too, from
    `guest_tables` on.
    """

    levels: Literal[4, 5] = 4
    controls: Annotated[tuple[str, ...], words(EPT_CONTROLS, "controls")] = ()
    tables: TableAddress = 0x200_0000
    guest_tables: TableAddress = 0x100_0000
    pml_index: Annotated[int, Field(ge=0, le=0xFFFF)] = 511
    page: Annotated[tuple[EptPage, ...], Field(max_length=MOST_ENTRIES)] = ()
    entry: Annotated[tuple[EntryChange, ...], Field(max_length=MOST_ENTRIES)] = ()


class WalkDescription(_Table):
    """The whole file."""

    description: str = ""
    address: Address
    access: Literal["read", "write", "fetch"] = "read"
    implicit: bool = False
    shadow_stack: bool = False
    repeat: Annotated[int, Field(ge=1, le=16)] = 1
    stride: Size = 0
    processor: ProcessorDescription = ProcessorDescription()
    guest: GuestDescription = GuestDescription()
    ept: EptDescription | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        mode = self.processor.mode
        for number, page in enumerate(self.guest.page):
            if page.size not in SIZES_OF_MODE[mode]:
                sizes = ", ".join(SIZES_OF_MODE[mode]) or "no pages, because paging is off"
                raise ValueError(f"guest.page[{number}].size: expected {sizes} in mode {mode}, got {page.size!r}")
            _check_width(mode, page, f"guest.page[{number}]")
        for number, mapping in enumerate(self.ept.page if self.ept else ()):
            width = 12 + 9 * (self.ept.levels if self.ept else 0)
            if mapping.at + SIZES[mapping.size] * mapping.count > 1 << width:
                expected = f"expected a guest-physical address of {width} bits"
                raise ValueError(f"ept.page[{number}].at: {expected}, got {mapping.at:#x}")
        if self.shadow_stack and self.access == "fetch":
            raise ValueError("shadow_stack: expected false for a fetch, got true")
        return self

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a file. Raises InputError that names the file, the key and what was expected."""
        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
            return cls.model_validate(table)
        except FileNotFoundError:
            raise InputError(str(path), "no such file") from None
        except ValidationError as error:
            raise complaint(str(path), error, cls) from None
        except tomllib.TOMLDecodeError as error:
            raise InputError(str(path), f"malformed TOML: {error}") from None
        except UnicodeDecodeError as error:
            raise InputError(str(path), f"expected UTF-8 text: {error.reason} at byte {error.start}") from None
        except OSError as error:
            raise InputError(str(path), f"cannot be read: {error.strerror}") from None


def _check_width(mode: str, page: GuestPage, where: str) -> None:
    """Linear addresses have 32 bits outside the 64-bit modes and are canonical in them; so are guest-physical ones."""
    last = page.at + SIZES[page.size] * page.count - 1
    if mode in ("32-bit", "pae"):
        if last >> 32:
            raise ValueError(f"{where}.at: expected a linear address of 32 bits, got {page.at:#x}")
        if mode == "32-bit" and page.size == "4K" and page.to + page.count * SIZES["4K"] > 1 << 32:
            raise ValueError(f"{where}.to: expected a guest-physical address of 32 bits, got {page.to:#x}")
        if page.to >= 1 << 40 and mode == "32-bit":
            raise ValueError(f"{where}.to: expected a guest-physical address of 40 bits, got {page.to:#x}")
        return
    width = 57 if mode == "5-level" else 48
    for address in (page.at, last):
        if address >> width - 1 not in (0, (1 << 65 - width) - 1):
            raise ValueError(f"{where}.at: expected a canonical address of {width} bits, got {page.at:#x}")
