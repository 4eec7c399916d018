"""Accesses that fail, or reach what is not RAM: exact fault addresses, no address beyond the architecture, no crash."""

from pathlib import Path

import pytest

from tests.unit.machine.rom import CODE, ROM_BASE, code, events, long_mode, map_page, place, power_on, rom, status, word

pytestmark = pytest.mark.usefixtures("kernels")

ABSENT, BEFORE, AFTER = 0x31000, 0x30000, 0x32000
GP, PF, SS = 13, 14, 12


def attempt(folder: Path, instruction: bytes, rsi: int, **options: int) -> list[tuple[int, int, int, int]]:
    """Run one instruction with RSI = `rsi`; what it raised. Page 31000h is absent."""
    program = code("49bf") + (CODE + 0x100).to_bytes(8, "little")  # mov r15, CODE + 0x100
    program += code("48be") + rsi.to_bytes(8, "little") + instruction + code("e6f4")  # mov rsi, rsi; ...; out 0xF4, al
    machine = long_mode(folder, program)
    place(machine, CODE + 0x100, code("e6f4"))
    map_page(machine, ABSENT, 0, 0)
    status(machine)
    return events(machine)


LOADS = {
    "mov al": code("8a06"),  # mov al, [rsi]
    "mov ax": code("668b06"),  # mov ax, [rsi]
    "mov eax": code("8b06"),  # mov eax, [rsi]
    "mov rax": code("488b06"),  # mov rax, [rsi]
    "movups": code("0f1006"),  # movups xmm0, [rsi]
    "lodsq": code("48ad"),  # lodsq
    "fld": code("db2e"),  # fld tword [rsi]
    "push": code("ff36"),  # push qword [rsi]
}
STORES = {
    "mov al": code("8806"),  # mov [rsi], al
    "mov eax": code("8906"),  # mov [rsi], eax
    "mov rax": code("488906"),  # mov [rsi], rax
    "movups": code("0f1106"),  # movups [rsi], xmm0
    "add": code("480106"),  # add [rsi], rax
    "lock add": code("f0480106"),  # lock add [rsi], rax
    "xchg": code("488706"),  # xchg [rsi], rax
    "lock cmpxchg": code("f0480fb106"),  # lock cmpxchg [rsi], rax
    "sgdt": code("0f0106"),  # sgdt [rsi]
}
SIZES = {"mov al": 1, "mov ax": 2, "mov eax": 4, "movups": 16, "fld": 10, "sgdt": 10}


@pytest.mark.parametrize("name", [name for name in LOADS if name != "mov al"])
def test_load_that_crosses_into_an_absent_page(tmp_path: Path, name: str) -> None:
    found = attempt(tmp_path, LOADS[name], ABSENT - 1)
    assert [event[:3] for event in found] == [(PF, 0, ABSENT)]


@pytest.mark.parametrize("name", [name for name in STORES if name != "mov al"])
def test_store_that_crosses_into_an_absent_page(tmp_path: Path, name: str) -> None:
    found = attempt(tmp_path, STORES[name], ABSENT - 1)
    assert [event[0] for event in found] == [PF]
    assert found[0][2] == ABSENT and found[0][1] & ~2 == 0


@pytest.mark.parametrize("name", LOADS)
def test_load_that_starts_in_an_absent_page(tmp_path: Path, name: str) -> None:
    at = AFTER - 1
    assert [event[:3] for event in attempt(tmp_path, LOADS[name], at)] == [(PF, 0, at)]


@pytest.mark.parametrize("name", STORES)
def test_store_that_starts_in_an_absent_page(tmp_path: Path, name: str) -> None:
    at = AFTER - 1
    found = attempt(tmp_path, STORES[name], at)
    assert [event[0] for event in found] == [PF]
    assert found[0][2] == at


def test_store_that_fails_leaves_the_first_page_alone(tmp_path: Path) -> None:
    program = code(
        "4c8d3d0f000000",  # lea r15, [rel on]
        "48c7c0ffffffff",  # mov rax, -1
        "48890425fc0f0300",  # mov [0x30FFC], rax
        "e6f4",  # on: out 0xF4, al
    )
    machine = long_mode(tmp_path, program)
    map_page(machine, ABSENT, 0, 0)
    status(machine)
    assert machine.read_hpa(0x30FF8, 8) == bytes(8)


def test_fetch_that_crosses_into_an_absent_page(tmp_path: Path) -> None:
    program = code(
        "4c8d3d07000000",  # lea r15, [rel on]
        "bbfe0f0300",  # mov ebx, 0x30FFE
        "ffe3",  # jmp rbx
        "e6f4",  # on: out 0xF4, al
    )
    machine = long_mode(tmp_path, program)
    place(machine, ABSENT - 2, code("b878"))  # mov eax, ..78h: three bytes are missing
    map_page(machine, ABSENT, 0, 0)
    status(machine)
    found = events(machine)
    assert [(event[0], event[2], event[3]) for event in found] == [(PF, ABSENT, ABSENT - 2)]
    assert found[0][1] & ~0x10 == 0


HOLES = [0x8000_0000_0000, 0x8000_0003_0000, 0xFFFF_7FFF_FFFF_FFF8, 1 << 63, 0x0001_0000_0000_0000, 0x8000_0000_0000 + ROM_BASE]


@pytest.mark.parametrize("address", HOLES, ids=hex)
@pytest.mark.parametrize(
    "instruction", [LOADS["mov rax"], STORES["mov rax"], STORES["lock add"], STORES["sgdt"]], ids=["load", "store", "lock", "sgdt"]
)
def test_non_canonical_data(tmp_path: Path, address: int, instruction: bytes) -> None:
    """8000'0000'0000h on is where the engine looks at physical memory for its own purposes: no guest may."""
    assert [event[:2] for event in attempt(tmp_path, instruction, address)] == [(GP, 0)]


@pytest.mark.parametrize("address", HOLES, ids=hex)
def test_non_canonical_jump(tmp_path: Path, address: int) -> None:
    assert [event[:2] for event in attempt(tmp_path, code("ffe6"), address)] == [(GP, 0)]  # jmp rsi


def test_non_canonical_stack(tmp_path: Path) -> None:
    program = code("4889f4", "50")  # mov rsp, rsi; push rax
    # The handler itself has no stack then but for a double fault's, and there is none: the run ends.
    machine = long_mode(tmp_path, code("48be0000000000800000") + program)  # mov rsi, 0x800000000000
    assert machine.run().reason == "TRIPLE_FAULT"


def test_non_canonical_operand_in_the_stack_segment(tmp_path: Path) -> None:
    found = attempt(tmp_path, code("4889f5", "488b4500"), 0x8000_0000_0000)  # mov rbp, rsi; mov rax, [rbp]
    assert [event[:2] for event in found] == [(SS, 0)]


NOT_RAM = {"lapic": 0xFEE000F0, "ioapic": 0xFEC00010, "void": 0xF0000000, "device window": 0xFED00000, "rom": ROM_BASE}
STRANGE = {
    "add": code("830601"),  # add dword [rsi], 1
    "lock add": code("f0830601"),  # lock add dword [rsi], 1
    "lock add q": code("f048830601"),  # lock add qword [rsi], 1
    "lock xadd": code("f00fc106"),  # lock xadd [rsi], eax
    "lock cmpxchg": code("f00fb106"),  # lock cmpxchg [rsi], eax
    "lock cmpxchg8b": code("f00fc70e"),  # lock cmpxchg8b [rsi]
    "lock cmpxchg16b": code("f0480fc70e"),  # lock cmpxchg16b [rsi]
    "cmpxchg16b": code("480fc70e"),  # cmpxchg16b [rsi]
    "xchg": code("8706"),  # xchg [rsi], eax
    "lock bts": code("f00fab06"),  # lock bts [rsi], eax
    "lock not": code("f0f716"),  # lock not dword [rsi]
    "movups load": code("0f1006"),  # movups xmm0, [rsi]
    "movups store": code("0f1106"),  # movups [rsi], xmm0
    "unaligned store": code("48894603"),  # mov [rsi+3], rax
    "crossing store": code("488986fd0f0000"),  # mov [rsi+0xffd], rax
    "unaligned lock": code("f0834e0301"),  # lock or dword [rsi+3], 1
    "movsq": code("4889f7", "48a5"),  # mov rdi, rsi; movsq
    "rep movsb": code("4889f7", "b900010000", "f3a4"),  # mov rdi, rsi; mov ecx, 256; rep movsb
    "fxsave": code("0fae06"),  # fxsave [rsi]
    "fnsave": code("dd36"),  # fnsave [rsi]
    "clflush": code("0fae3e"),  # clflush [rsi]
    "lgdt": code("0f0116"),  # lgdt [rsi]
    "call": code("ff16"),  # call qword [rsi]
    "push to it": code("488d6610", "50"),  # lea rsp, [rsi+16]; push rax
    "jump to it": code("ffe6"),  # jmp rsi
}


@pytest.mark.parametrize("place_name", NOT_RAM)
@pytest.mark.parametrize("name", STRANGE)
def test_strange_access_outside_ram(tmp_path: Path, name: str, place_name: str) -> None:
    """Whatever it does, it does not bring the process down, and the run ends with a reason that a user can read."""
    at = NOT_RAM[place_name]
    program = code("49bf") + (CODE + 0x100).to_bytes(8, "little") + code("48be") + at.to_bytes(8, "little")
    machine = long_mode(tmp_path, program + STRANGE[name] + code("e6f4"), in_rom=b"\xf4" * 64, max_cycles=300_000)
    place(machine, CODE + 0x100, code("e6f4"))
    result = machine.run()
    assert result.reason in ("EXIT_PORT", "UNMODELLED_FEATURE", "TRIPLE_FAULT", "HALTED_FOREVER", "CYCLE_LIMIT"), result


def test_read_modify_write_of_a_lapic_register(tmp_path: Path) -> None:
    program = code(
        "bef000e0fe",  # mov esi, 0xFEE000F0
        "810e00010000",  # or dword [rsi], 0x100
        "8b06",  # mov eax, [rsi]
        "4889042500000300",  # mov [0x30000], rax
        "f0810e00020000",  # lock or dword [rsi], 0x200
        "8b06",  # mov eax, [rsi]
        "4889042508000300",  # mov [0x30008], rax
        "b9ab010000",  # mov ecx, 0x1AB
        "870e",  # xchg [rsi], ecx
        "48890c2510000300",  # mov [0x30010], rcx
        "8b06",  # mov eax, [rsi]
        "4889042518000300",  # mov [0x30018], rax
        "e6f4",  # out 0xF4, al
    )
    machine = long_mode(tmp_path, program)
    status(machine)
    assert [word(machine, 0x30000 + at) for at in (0, 8, 16, 24)] == [0x1FF, 0x3FF, 0x3FF, 0x1AB]


@pytest.mark.parametrize("store", ["c606aa", "f08006aa", "8606", "f00fb026"], ids=["mov", "lock add", "xchg", "lock cmpxchg"])
def test_stores_to_rom_are_dropped(tmp_path: Path, store: str) -> None:
    """mov byte [rsi], 0xAA and its locked relatives: the ROM reads as before, at once and later."""
    before = code(
        "be00f0ffff",  # mov esi, 0xFFFFF000
        "8a06",  # mov al, [rsi]
    )
    after = code(
        "8a06",  # mov al, [rsi]
        "8a26",  # mov ah, [rsi]
        "6689042500000300",  # mov [0x30000], ax
        "eb00",  # jmp next
        "8a06",  # next: mov al, [rsi]
        "e6f4",  # out 0xF4, al
    )
    machine = long_mode(tmp_path, before + code(store) + after, in_rom=b"\x5a")
    assert status(machine) == 0x5A
    assert machine.memory_map.rom[0] == 0x5A


def test_void_reads_ones_and_drops_stores(tmp_path: Path) -> None:
    program = code(
        "be000000f0",  # mov esi, 0xF0000000
        "48c70600000000",  # mov qword [rsi], 0
        "488b06",  # mov rax, [rsi]
        "4889042500000300",  # mov [0x30000], rax
        "8b4602",  # mov eax, [rsi+2]
        "4889042508000300",  # mov [0x30008], rax
        "e6f4",  # out 0xF4, al
    )
    machine = long_mode(tmp_path, program)
    status(machine)
    assert (word(machine, 0x30000), word(machine, 0x30008)) == (0xFFFF_FFFF_FFFF_FFFF, 0xFFFF_FFFF)


@pytest.mark.parametrize("at", [0xF000_0000, 0xFEE0_0000, 0xFEC0_0000])
def test_execution_outside_memory_is_reported(tmp_path: Path, at: int) -> None:
    program = code("b8") + at.to_bytes(4, "little") + code("ffe0")  # mov eax, at; jmp rax
    result = long_mode(tmp_path, program).run()
    assert result.reason == "UNMODELLED_FEATURE"
    assert "instruction fetch where there is no memory" in result.message and f"{at:#x}" in result.message


def test_execution_runs_out_of_memory(tmp_path: Path) -> None:
    """The last instruction of RAM begins in memory and ends outside."""
    last = (64 << 20) - 1
    program = code("b8") + last.to_bytes(4, "little") + code("ffe0")  # mov eax, last; jmp rax
    machine = long_mode(tmp_path, program)
    place(machine, last, code("b8"))  # mov eax, ...
    assert machine.run().reason == "UNMODELLED_FEATURE"


def test_real_mode_wraps_no_crash(tmp_path: Path) -> None:
    result = power_on(tmp_path, rom({}, code("ebfe")), max_cycles=10_000).run()  # jmp $
    assert result.reason == "CYCLE_LIMIT"
