"""Where `vmxemu walk` finds tables and registers: a description, a memory image, or a machine that has run."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vmxemu.configuration import InputError

if TYPE_CHECKING:
    from vmxemu.configuration.walk_description import WalkDescription

SOURCES = ("example", "tables", "image", "run_what", "trace")
ONLY_WITH = {
    "base": ("image",),
    "mode": ("image",),
    "until": ("run_what",),
    "at": ("trace",),
    "warm": ("run_what", "trace"),
}
LARGEST_IMAGE_BYTES = 8 << 30
HIGHEST_BASE = 1 << 40
PAE_TABLE_BYTES = 32


@dataclass(frozen=True, slots=True)
class Source:
    """A state to translate in, and what to translate. `keep` holds what the state's memory belongs to."""

    m: Any
    keep: Any
    title: str
    address: int
    access: str = "read"
    implicit: bool = False
    shadow_stack: bool = False
    repeat: int = 1
    stride: int = 0


def source_of(address: int | str | None, options: dict[str, Any]) -> Source:
    """What the options ask for. Raises click.UsageError or InputError."""
    given = [name for name in SOURCES if options[name] is not None]
    if len(given) != 1:
        names = ", ".join(f"--{name.removesuffix('_what')}" for name in SOURCES)
        raise click.UsageError(f"expected one of {names}, got {len(given)} of them; try: vmxemu walk --example 4x4")
    for name, needed in ONLY_WITH.items():
        is_given = options[name] is not None and options[name] is not False
        if is_given and given[0] not in needed:
            wants = " or ".join(f"--{one.removesuffix('_what')}" for one in needed)
            raise click.UsageError(f"--{name} goes with {wants} only")
    _check(options)
    if given[0] in ("example", "tables"):
        return _described(address, options)
    return _image(address, options) if given[0] == "image" else _machine(address, options)


def _check(options: dict[str, Any]) -> None:
    if options["shadow_stack"] and options["access"] == "fetch":
        raise click.UsageError("--shadow-stack goes with reads and writes only")
    if options["pdpte"] and len(options["pdpte"]) != 4:
        raise click.UsageError(f"expected --pdpte four times or not at all, got {len(options['pdpte'])}")
    for name in ("pkru", "pkrs"):
        if (options[name] or 0) >> 32:
            raise click.BadParameter(f"expected 32 bits, got {options[name]:#x}", param_hint=f"--{name}")
    if options["cpu"] is not None:
        from vmxemu.isa import cpus

        if options["cpu"] not in cpus.names():
            expected = f"expected a CPU profile ({', '.join(cpus.names())}), got {options['cpu']!r}"
            raise click.BadParameter(expected, param_hint="--cpu")


def _number(address: int | str | None, default: int | None, where: str) -> int:
    if isinstance(address, str):
        raise click.BadParameter(f"{address} is known with --run and --trace only", param_hint="ADDRESS")
    if address is None and default is None:
        raise click.UsageError(f"expected an address to translate with {where}")
    return default or 0 if address is None else address


def _described(address: int | str | None, options: dict[str, Any]) -> Source:
    from vmxemu.configuration import examples
    from vmxemu.configuration.walk_description import WalkDescription

    path = examples.find(options["example"]) if options["example"] else Path(options["tables"])
    described = WalkDescription.from_toml(path)
    compile_notice()
    from vmxemu.translation.scene import build

    walker = build(_changed(described, options), str(path))
    override(walker.m, options)
    return Source(
        walker.m,
        walker,
        described.description,
        _number(address, described.address, ""),
        options["access"] or described.access,
        options["implicit"] or described.implicit,
        options["shadow_stack"] or described.shadow_stack,
        options["repeat"] or described.repeat,
        described.stride,
    )


def _changed(described: "WalkDescription", options: dict[str, Any]) -> "WalkDescription":
    """The description with what options say of the processor itself."""
    processor, repeat = described.processor, options["repeat"] or described.repeat
    changes: dict[str, Any] = {"walk_caches": caches_wanted(options, processor.walk_caches, repeat)}
    if options["cpu"] is not None:
        changes["cpu"] = options["cpu"]
    return described.model_copy(update={"processor": processor.model_copy(update=changes)})


def caches_wanted(options: dict[str, Any], described: bool, repeat: int) -> bool:
    """A single walk is shown whole, as in a textbook; where walks follow each other it is the caches that matter."""
    if options["walk_caches"] is not None:
        return bool(options["walk_caches"])
    return bool(described or options["warm"] or repeat > 1)


def _image(address: int | str | None, options: dict[str, Any]) -> Source:
    gla = _number(address, None, "--image")
    path, base = Path(options["image"]), options["base"] or 0
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise InputError(str(path), "expected a file: a memory image")
    except OSError as problem:
        raise InputError(str(path), f"cannot be read: {problem.strerror}") from None
    if not 0 < size <= LARGEST_IMAGE_BYTES:
        raise InputError(str(path), f"expected a memory image of 1 byte to {LARGEST_IMAGE_BYTES >> 30} GiB, got {size} bytes")
    if base >= HIGHEST_BASE:
        raise click.BadParameter(f"expected less than {HIGHEST_BASE:#x}, got {base:#x}", param_hint="--base")
    compile_notice()
    from vmxemu.translation.setting import Setting, apply, walker_for

    try:
        walker = walker_for(-(-(base + size) // 4096) * 4096, options["cpu"] or "skylake-sp")
        with path.open("rb") as stream:
            stream.readinto(walker.ram[base : base + size].data)
    except MemoryError:
        raise InputError(str(path), f"there is not enough memory to hold it at {base:#x}") from None
    apply(walker.m, Setting(mode=options["mode"] or "4-level"))
    override(walker.m, options)
    _load_pdptes(walker.m, bool(options["pdpte"]))
    title = f"Memory image {path.name}" + (f" at {base:#x}" if base else "")
    return _as_asked(Source(walker.m, walker, title, gla), options)


def _load_pdptes(m: Any, given: bool) -> None:
    """With PAE paging the registers are those that a load of CR3 would have read, unless they are given."""
    from vmxemu.translation.account import PAE, processor_of
    from vmxemu.translation.pdpte import load_pdptes

    if processor_of(m).mode == PAE and not given and int(load_pdptes(m, int(m.r.cr[3]))):
        table = int(m.r.cr[3]) // PAE_TABLE_BYTES * PAE_TABLE_BYTES
        raise InputError("--cr3", f"the PDPTEs at {table:#x} cannot be loaded; give them by --pdpte, or another --cr3")


def _machine(address: int | str | None, options: dict[str, Any]) -> Source:
    from vmxemu.cli.walk_machine import ran, replayed

    if options["trace"]:
        machine, title = replayed(options["trace"], options["at"], options["cpu"])
    else:
        machine, title = ran(options["run_what"], options["until"], options["cpu"])
    where = "rip" if address is None else address
    access = options["access"] or ("fetch" if where == "rip" else "read")
    registers = machine.registers
    code, stack = registers.seg[1], registers.seg[2]
    gla = {"rip": int(code.base) + int(registers.rip), "rsp": int(stack.base) + int(registers.gpr[4])}
    m = machine.state
    override(m, options)
    if not options["warm"]:
        from vmxemu.translation.invalidate import invalidate_all

        invalidate_all(m)
    at = gla[where] & (1 << 64) - 1 if isinstance(where, str) else where
    return _as_asked(Source(m, machine, title, at, access), options)


def _as_asked(source: Source, options: dict[str, Any]) -> Source:
    from vmxemu.translation.setting import without_walk_caches

    access, repeat = options["access"] or source.access, options["repeat"] or 1
    if not caches_wanted(options, False, repeat):
        without_walk_caches(source.m)
    kind = {"implicit": options["implicit"], "shadow_stack": options["shadow_stack"]}
    return replace(source, access=access, repeat=repeat, **kind)


def override(m: Any, options: dict[str, Any]) -> None:
    """Registers that options name take the place of what is there."""
    from vmxemu.isa import bits
    from vmxemu.translation.setting import set_registers

    values = dict(options["registers"])
    if options["cpl"] is not None:
        values["cpl"] = options["cpl"]
    if options["ac"] is not None:
        mask = int(bits.RFLAGS_AC)
        values["rflags"] = int(m.r.eflags) & ~mask | (mask if options["ac"] else 0)
    values |= {f"pdpte{number}": value for number, value in enumerate(options["pdpte"])}
    if values:
        set_registers(m, values)
    if "eptp" in values:
        _check_eptp(m)


def _check_eptp(m: Any) -> None:
    """An EPTP must be one that VM entry takes on some processor: an image may come from another than the profile's. SDM Vol. 3C,
    'VM-Execution Control Fields'.
    """
    eptp = int(m.paging.ept_pointer)
    memory_type, levels, reserved = eptp & 7, (eptp >> 3 & 7) + 1, eptp & 0xF00 | eptp >> int(m.cpu.physical_bits)
    if eptp and (memory_type not in (0, 6) or levels not in (4, 5) or reserved):
        expected = "expected memory type 0 or 6 in bits 2:0, 3 or 4 (levels - 1) in bits 5:3, 0 in bits 11:8"
        raise InputError("--eptp", f"{expected}, an address of {int(m.cpu.physical_bits)} bits; got {eptp:#x}")


def compile_notice() -> None:
    """Tell the user why nothing happens for a while, where the kernels of the walk have never been compiled."""
    from vmxemu.cli.session import say
    from vmxemu.compile_cache import CACHE_FOLDER, digest_of

    folder = CACHE_FOLDER / digest_of("vmxemu.translation.translate")
    if next(folder.rglob("translate.translate-*.nbi"), None) is None:
        say("compiling the walk (first time only, about half a minute) ...")
