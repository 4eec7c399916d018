"""Code that changes: whoever writes it, and through whatever address, the next execution must see the new bytes."""

from pathlib import Path

import pytest

from tests.unit.machine.rom import CODE, code, events, long_mode, map_page, place, status
from vmxemu.memory import physical
from vmxemu.memory.frames import set_frame_state
from vmxemu.memory.layout import RETIRED

pytestmark = pytest.mark.usefixtures("kernels")

FUNCTION, ALIAS = 0x20000, 0x30000
RETURN_1 = code("b001", "c3")  # mov al, 1; ret


def test_next_instruction_of_the_same_block(tmp_path: Path) -> None:
    program = code(
        "c6050100000002",  # mov byte [rel target+1], 2
        "b001",  # target: mov al, 1
        "e6f4",  # out 0xF4, al
    )
    assert status(long_mode(tmp_path, program)) == 2


def test_loop_that_counts_in_its_own_operand(tmp_path: Path) -> None:
    program = code(
        "b905000000",  # mov ecx, 5
        "fe0501000000",  # again: inc byte [rel target+1]
        "b000",  # target: mov al, 0
        "e2f6",  # loop again
        "e6f4",  # out 0xF4, al
    )
    assert status(long_mode(tmp_path, program)) == 5


def test_function_rewritten_between_two_calls(tmp_path: Path) -> None:
    program = code(
        "bb00000200",  # mov ebx, 0x20000
        "ffd3",  # call rbx
        "c6430107",  # mov byte [rbx+1], 7
        "ffd3",  # call rbx
        "e6f4",  # out 0xF4, al
    )
    machine = long_mode(tmp_path, program)
    place(machine, FUNCTION, RETURN_1)
    assert status(machine) == 7


@pytest.mark.parametrize("warm", [False, True])
def test_store_through_another_linear_address(tmp_path: Path, warm: bool) -> None:
    """`warm`: the engine already has a fast entry for stores through the alias when the frame becomes code."""
    program = code(
        "bb00000200",  # mov ebx, 0x20000
        "be00000300",  # mov esi, 0x30000
        "881416",  # mov [rsi+rdx], dl
        "ffd3",  # call rbx
        "b903000000",  # mov ecx, 3
        "884e01",  # again: mov [rsi+1], cl
        "ffd3",  # call rbx
        "00c4",  # add ah, al
        "e2f7",  # loop again
        "88e0",  # mov al, ah
        "e6f4",  # out 0xF4, al
    )
    if not warm:
        program = program.replace(code("881416"), code("909090"))  # mov [rsi+rdx], dl
    else:
        program = code("ba00080000") + program  # mov edx, 0x800
    machine = long_mode(tmp_path, program)
    map_page(machine, ALIAS, FUNCTION)
    place(machine, FUNCTION, RETURN_1)
    assert status(machine) == 6


def test_code_runs_through_the_alias_while_stores_go_to_the_first_address(tmp_path: Path) -> None:
    program = code(
        "bb00000200",  # mov ebx, 0x20000
        "be00000300",  # mov esi, 0x30000
        "c6430102",  # mov byte [rbx+1], 2
        "ffd6",  # call rsi
        "ffd3",  # call rbx
        "c6430103",  # mov byte [rbx+1], 3
        "ffd6",  # call rsi
        "88c4",  # mov ah, al
        "c6460104",  # mov byte [rsi+1], 4
        "ffd3",  # call rbx
        "00e0",  # add al, ah
        "e6f4",  # out 0xF4, al
    )
    machine = long_mode(tmp_path, program)
    map_page(machine, ALIAS, FUNCTION)
    place(machine, FUNCTION, RETURN_1)
    assert status(machine) == 7


def test_ins_into_code(tmp_path: Path) -> None:
    program = code(
        "bb00000200",  # mov ebx, 0x20000
        "ffd3",  # call rbx
        "b009",  # mov al, 9
        "e6b3",  # out 0xB3, al
        "8d7b01",  # lea edi, [rbx+1]
        "bab3000000",  # mov edx, 0xB3
        "6c",  # insb
        "ffd3",  # call rbx
        "e6f4",  # out 0xF4, al
    )
    machine = long_mode(tmp_path, program)
    place(machine, FUNCTION, RETURN_1)
    assert status(machine) == 9


def test_exception_frame_pushed_onto_code(tmp_path: Path) -> None:
    """The saved RSP, C305B0h, is itself code: mov al, 5; ret. It lands where mov al, 1; ret stood."""
    program = code(
        "bba005c300",  # mov ebx, 0xC305A0
        "ffd3",  # call rbx
        "88c4",  # mov ah, al
        "bcb005c300",  # mov esp, 0xC305B0
        "41bf01000000",  # mov r15d, 1
        "cd40",  # int 0x40
        "bcf09f0000",  # mov esp, 0x9FF0
        "ffd3",  # call rbx
        "e6f4",  # out 0xF4, al
    )
    machine = long_mode(tmp_path, program)
    place(machine, 0xC305A0, RETURN_1)
    assert status(machine) == 5
    assert [event[0] for event in events(machine)] == [0x40]


CALL_UNTIL_CHANGED = code(
    "bb00000200",  # mov ebx, 0x20000
    "ffd3",  # again: call rbx
    "3c01",  # cmp al, 1
    "74fa",  # je again
    "e6f4",  # out 0xF4, al
)


def test_host_writes_code(tmp_path: Path) -> None:
    machine = long_mode(tmp_path, CALL_UNTIL_CHANGED)
    place(machine, FUNCTION, RETURN_1)
    assert machine.run(until=20_000).reason == "UNTIL"
    physical.write8(machine.state, FUNCTION + 1, 3)
    assert status(machine) == 3


def test_more_host_writes_than_the_list_has_room_for(tmp_path: Path) -> None:
    machine = long_mode(tmp_path, CALL_UNTIL_CHANGED)
    place(machine, FUNCTION, RETURN_1)
    assert machine.run(until=20_000).reason == "UNTIL"
    for number in range(int(physical.DIRTY_CODE_CAPACITY) + 10):
        physical.write8(machine.state, (FUNCTION if number % 2 else CODE) + 0x800, 0)
    physical.write8(machine.state, FUNCTION + 1, 4)
    assert status(machine) == 4


def test_retired_frame_that_held_code(tmp_path: Path) -> None:
    """A migration copies the page, changes the mapping, retires the frame; what was translated from it must not run again."""
    machine = long_mode(tmp_path, CALL_UNTIL_CHANGED)
    place(machine, FUNCTION, RETURN_1)
    place(machine, ALIAS, code("b006", "c3"))  # mov al, 6; ret
    assert machine.run(until=20_000).reason == "UNTIL"
    map_page(machine, FUNCTION, ALIAS)
    set_frame_state(machine.state, FUNCTION, RETIRED)
    machine.state.tlb.bytes()[:] = 0
    machine.state.engine.flush = machine.state.engine.drop_all_code = 1
    assert status(machine) == 6
