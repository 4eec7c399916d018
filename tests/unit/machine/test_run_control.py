"""Runs in pieces: the guest must not be able to tell, whoever stops the machine and however often."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.machine.rom import code, long_mode, place
from tests.unit.machine.test_interruption import TIMER_ON
from vmxemu.machine import Machine
from vmxemu.machine import machine as machine_module

pytestmark = pytest.mark.usefixtures("kernels")


WORK = code(
    "41bf01000000",  # mov r15d, 1
    "b9b80b0000",  # mov ecx, 3000
    "bb32000000",  # again: mov ebx, 50
    "899e80030000",  # mov dword [rsi+0x380], ebx
    "fb",  # sti
    "51",  # cpuid_here: push rcx
    "31c0",  # xor eax, eax
    "0fa2",  # cpuid
    "59",  # pop rcx
    "e461",  # in al, 0x61
    "488914cd00000300",  # mov [rcx*8+0x30000], rdx
    "0f31",  # rdtsc
    "4801042500000400",  # add [0x40000], rax
    "fa",  # cli
    "e2d7",  # loop again
    "e6f4",  # out 0xF4, al
)


def machine_for(folder: Path) -> tuple[Machine, list[np.ndarray[Any, Any]]]:
    machine = long_mode(
        folder,
        code("bb32000000") + TIMER_ON + WORK,
        inject=["smi@cycle=300k,count=5,every=77k", "nmi@cycle=500k", "ce@cycle=400k,hpa=0x30000"],
    )
    place(machine, 0x38000, code("0faa"))  # rsm
    batches: list[np.ndarray[Any, Any]] = []
    machine.on_events(batches.append)
    return machine, batches


def outcome(machine: Machine, batches: list[np.ndarray[Any, Any]]) -> tuple[Any, ...]:
    registers = tuple(int(value) for value in machine.registers.gpr.numpy)
    memory = machine.read_hpa(0, 0x50000)
    return machine.cycles, machine.instructions, registers, memory, np.concatenate(batches).tobytes()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, kernels: None) -> tuple[Any, ...]:
    machine, batches = machine_for(tmp_path_factory.mktemp("whole"))
    assert machine.run().reason == "EXIT_PORT"
    return outcome(machine, batches)


def test_it_does_something(uninterrupted: tuple[Any, ...]) -> None:
    assert uninterrupted[0] > 600_000 and len(uninterrupted[4]) > 1000


def test_same_again(tmp_path: Path, uninterrupted: tuple[Any, ...]) -> None:
    machine, batches = machine_for(tmp_path)
    machine.run()
    assert outcome(machine, batches) == uninterrupted


@pytest.mark.parametrize("ticks", [1 << 10, 12_345, 1 << 16, 999_999])
def test_slices_do_not_show(tmp_path: Path, uninterrupted: tuple[Any, ...], ticks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, batches = machine_for(tmp_path)
    monkeypatch.setattr(machine_module, "SLICE_TICKS", ticks)
    machine.run()
    assert outcome(machine, batches) == uninterrupted


@pytest.mark.parametrize("step", [7_777, 100_001])
def test_until_then_on(tmp_path: Path, uninterrupted: tuple[Any, ...], step: int) -> None:
    machine, batches = machine_for(tmp_path)
    stop = step
    while (result := machine.run(until=stop)).reason == "UNTIL":
        assert machine.cycles >= stop
        stop += step
    assert result.reason == "EXIT_PORT"
    assert outcome(machine, batches) == uninterrupted


def test_until_in_the_past(tmp_path: Path) -> None:
    machine, _ = machine_for(tmp_path)
    machine.run(until=50_000)
    before = machine.cycles
    assert machine.run(until=10).reason == "UNTIL"
    assert machine.cycles == before


def test_interrupt_then_on(tmp_path: Path, uninterrupted: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    machine, batches = machine_for(tmp_path)
    monkeypatch.setattr(machine_module, "SLICE_TICKS", 1 << 20)
    stops = 0
    while (result := machine.run(on_slice=lambda running: running.interrupt())).reason == "INTERRUPTED":
        assert result.exit_status == 130
        stops += 1
    assert stops > 3
    assert outcome(machine, batches) == uninterrupted


def test_keyboard_interrupt_then_on(tmp_path: Path, uninterrupted: tuple[Any, ...]) -> None:
    machine, batches = machine_for(tmp_path)

    def press(running: Machine) -> None:
        raise KeyboardInterrupt

    assert machine.run(on_slice=press).reason == "INTERRUPTED"
    assert machine.run().reason == "EXIT_PORT"
    assert outcome(machine, batches) == uninterrupted


def test_ended_machine_can_be_read(tmp_path: Path) -> None:
    machine, _ = machine_for(tmp_path)
    machine.run()
    assert machine.disassemble(int(machine.registers.rip), 1)
    assert machine.statistics()["virtual_cycles"] == machine.cycles
