"""The configuration of a run, read from a scenario file, from an image and options, or from a trace's header."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from vmxemu.configuration import blobs, quantities
from vmxemu.configuration.complaint import complaint
from vmxemu.configuration.errors import InputError
from vmxemu.configuration.expectations import Expect
from vmxemu.configuration.image import Image
from vmxemu.configuration.image import load as load_image
from vmxemu.configuration.injection import MOST_INJECTIONS, Cycles, Injection
from vmxemu.configuration.policy import DEFAULT as DEFAULT_POLICY
from vmxemu.configuration.policy import MOST_RULES, Rule
from vmxemu.isa import cpus

# RAM below this address; the rest of it starts at 4 GiB. Between them: MMIO, LAPIC, ROM.
LOW_MEMORY_LIMIT_BYTES = 3 << 30
FOUR_GIB = 4 << 30
FRAME_BYTES = 4096
TRANSLATION_OPTIONS = {"tlb": "tlb", "check_translations": "check"}
Size = Annotated[int, BeforeValidator(quantities.size)]
Hertz = Annotated[int, BeforeValidator(quantities.hertz), Field(ge=1_000_000, le=100_000_000_000)]


def _known_cpu(name: Any) -> Any:
    if not isinstance(name, str) or name not in cpus.names():
        raise ValueError(f"expected a CPU profile ({', '.join(cpus.names())}), got {name!r}")
    return name


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MemoryMap(_Table):
    """Bytes of RAM; of these, at its top below 4 GiB, those sequestered by VMM1 and those of TSEG (SMRAM)."""

    size: Annotated[Size, Field(ge=4 << 20, le=64 << 30)] = 256 << 20
    sequestered: Size = 16 << 20
    tseg: Size = 8 << 20

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in ("size", "sequestered", "tseg"):
            if getattr(self, name) % FRAME_BYTES:
                raise ValueError(f"{name}: expected a multiple of 4K, got {getattr(self, name)}")
        if self.sequestered + self.tseg + (2 << 20) > self.low_bytes:
            sizes = f"{quantities.show_size(self.sequestered)} and {quantities.show_size(self.tseg)}"
            room = quantities.show_size(self.low_bytes)
            raise ValueError(f"expected sequestered and tseg ({sizes}) to leave 2M of the {room} of low memory")
        return self

    @property
    def low_bytes(self) -> int:
        """RAM in [0, low_bytes)."""
        return min(self.size, LOW_MEMORY_LIMIT_BYTES)

    @property
    def high_bytes(self) -> int:
        """RAM in [4 GiB, 4 GiB + high_bytes)."""
        return self.size - self.low_bytes

    def holds(self, hpa: int) -> bool:
        """Whether the address is RAM."""
        return hpa < self.low_bytes or FOUR_GIB <= hpa < FOUR_GIB + self.high_bytes


class Thresholds(_Table):
    """Corrected errors of one frame at which its page is migrated."""

    ce: Annotated[int, Field(ge=1, le=1_000_000)] = 3


class Translation(_Table):
    """How the TLB treats what it need not keep and need not drop, and whether uses of stale translations are looked for.

    exact: the profile's sizes, and each operation removes what the manual demands. lazy: the same, and there is so much room
    that next to nothing is evicted. eager: each operation that invalidates anything drops everything.
    """

    tlb: Literal["exact", "lazy", "eager"] = "exact"
    check: bool = False


class Configuration(BaseModel):
    """Everything that a run depends on. Build one with `find`, `from_toml`, `from_image` or `from_header`."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    image: Image
    description: str = ""
    cpu: Annotated[str, BeforeValidator(_known_cpu)] = "skylake-sp"
    topology: Literal["bare", "layered"] = "bare"
    memory: MemoryMap = MemoryMap()
    seed: Annotated[int, Field(ge=0, lt=1 << 64)] = 0
    max_cycles: Annotated[Cycles, Field(ge=1)] = 20_000_000_000
    frequency: Hertz | None = None  # None: the profile's
    boots_vmm1: bool = False  # layered: the image is the firmware that boots VMM1; else a stock firmware does, and starts the image
    trap: bool = True  # False: management interrupts take the processor's default way (negative control)
    invalidation: bool = True  # False: a migration leaves stale translations behind (negative control)
    thresholds: Thresholds = Thresholds()
    translation: Translation = Translation()
    inject: tuple[Injection, ...] = ()
    policy: Annotated[tuple[Rule, ...], Field(max_length=MOST_RULES)] = DEFAULT_POLICY
    expect: tuple[Expect, ...] = ()

    @model_validator(mode="after")
    def _injections_fit(self) -> Self:
        if (total := sum(injection.count for injection in self.inject)) > MOST_INJECTIONS:
            raise ValueError(f"inject: expected at most {MOST_INJECTIONS} injections, repetitions counted, got {total}")
        for index, injection in enumerate(self.inject):
            self._check(injection, f"inject[{index}].")
        return self

    @property
    def stock_firmware(self) -> bool:
        """Whether the stock firmware boots VMM1 and starts the image in VM1."""
        return self.topology == "layered" and not self.boots_vmm1

    def check_injection(self, injection: Injection) -> None:
        """Raises InputError if this machine has no such virtual machine, memory or machine-check bank."""
        try:
            self._check(injection, "")
        except ValueError as error:
            raise InputError(f"injection {injection.text()!r}", str(error)) from None

    def _check(self, injection: Injection, prefix: str) -> None:
        banks = cpus.load(self.cpu).mca.banks if injection.bank is not None else 0
        if injection.bank is not None and injection.bank >= banks:
            raise ValueError(f"{prefix}bank: expected a bank of {self.cpu} (0 to {banks - 1}), got {injection.bank}")
        address = injection.address
        if injection.address_kind in ("vm1_gpa", "vm2_gpa") and self.topology != "layered":
            expected = "expected hpa: there is no such virtual machine in the bare topology"
            raise ValueError(f"{prefix}{injection.address_kind}: {expected}")
        if address is not None and not self.memory.holds(address):
            name, have = injection.address_kind, quantities.show_size(self.memory.size)
            raise ValueError(f"{prefix}{name}: expected an address inside memory ({have}), got {address:#x}")

    @classmethod
    def find(cls, name: str, **options: Any) -> Self:
        """The configuration of a scenario, an image, or a shipped blob's name. Options as for `from_image`."""
        path = Path(name)
        if not path.exists() and (shipped := blobs.find(name)) is not None:
            path = shipped
        return cls.from_toml(path, **options) if path.suffix == ".toml" else cls.from_image(path, **options)

    @classmethod
    def from_image(cls, path: str | Path, **options: Any) -> Self:
        """A configuration for a flat ROM. Options are this class's fields, plus `memory_size`, `tlb` and
        `check_translations` (of `translation`); None means default."""
        given = load_image(Path(path))
        return cls._build(f"options for {Path(path).name}", {"image": given}, options)

    @classmethod
    def from_toml(cls, path: str | Path, **options: Any) -> Self:
        """The configuration that a scenario describes; options override it, `inject` adds to it. Raises InputError."""
        path = Path(path)
        table = _read(path)
        name = table.get("image")
        if not isinstance(name, str):
            raise InputError(f"{path}: image", "expected the image's file name or a shipped blob's name")
        beside = path.parent / name
        table["image"] = load_image(beside if beside.is_file() else blobs.find_image(name) or beside)
        return cls._build(str(path), table, options)

    @classmethod
    def _build(cls, where: str, table: dict[str, Any], options: dict[str, Any]) -> Self:
        options = {key: value for key, value in options.items() if value is not None}
        if (size := options.pop("memory_size", None)) is not None:
            memory = table.get("memory")
            table["memory"] = {**(memory if isinstance(memory, dict) else {}), "size": size}
        translation = {key: options.pop(name) for name, key in TRANSLATION_OPTIONS.items() if name in options}
        given = table.get("translation", {})
        if translation and isinstance(given, dict):
            table["translation"] = {**given, **translation}
        added = [Injection.parse(item) if isinstance(item, str) else item for item in options.pop("inject", ())]
        if added:
            listed = table.get("inject", [])
            table["inject"] = [*listed, *added] if isinstance(listed, list) else listed
        try:
            return cls.model_validate({**table, **options})
        except ValidationError as error:
            raise complaint(where, error, cls) from None

    def to_header(self) -> dict[str, Any]:
        """The configuration as a JSON-able dict; the image is named by path and hash, not contained."""
        fields = self.model_dump(mode="json", exclude={"image"}, exclude_none=True)
        if self.translation == Translation():
            del fields["translation"]
        given = self.image
        shipped = blobs.find_hash(given.sha256)  # its path would only tell where this package is installed
        path = shipped.name if shipped else given.path
        fields["image"] = {"name": given.name, "path": path, "sha256": given.sha256, "bytes": len(given.data)}
        return fields

    @classmethod
    def from_header(cls, header: dict[str, Any], where: str = "trace header") -> Self:
        """The inverse of `to_header`: the image is a shipped blob with that hash, else the file at its path."""
        try:
            described = dict(header["image"])
            recorded, sha256 = Path(described["path"]), str(described["sha256"])
        except (KeyError, TypeError, ValueError):
            raise InputError(where, "names no image; expected the configuration of a run") from None
        given = load_image(blobs.find_hash(sha256) or recorded)
        if given.sha256 != sha256:
            hashes = f"expected sha256 {sha256[:16]}..., got {given.sha256[:16]}..."
            raise InputError(given.path, f"is not the recorded image; {hashes}")
        same = Image(str(described.get("name", given.name)), str(recorded), sha256, given.data)
        return cls._build(where, {**header, "image": same}, {})


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(str(path), "no such file") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(str(path), f"malformed TOML: {error}") from None
    except UnicodeDecodeError as error:
        raise InputError(str(path), f"expected UTF-8 text: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror}") from None
