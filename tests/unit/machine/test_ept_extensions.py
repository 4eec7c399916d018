"""What VM-execution controls add to EPT, in the whole machine: logging, #VE, EPTP switching, mode-based execution, sub-pages."""

import struct
from pathlib import Path

import pytest

from tests.unit.machine.rom import code, events, map_page, status
from tests.unit.machine.tiny_vmm import (
    ACCESSED_DIRTY,
    END,
    EPT,
    EPTP_4_WB,
    EPTP_5_WB,
    GUEST,
    RESUME,
    RWX,
    SCRATCH,
    SECOND_EPT,
    USER_EXECUTE,
    TinyVmm,
    imm32,
    load,
    skip,
    store,
    vmwrite,
)
from vmxemu.isa import exits

pytestmark = pytest.mark.usefixtures("kernels")

PAGE, OTHER = 0x50000, 0x60000
VIOLATION, FULL, SPP = int(exits.EPT_VIOLATION), int(exits.PML_FULL), int(exits.SPP_EVENT)
LOG, AREA, LIST, SPPT = SCRATCH, SCRATCH, SCRATCH, SCRATCH
RET = code("c3")
SUBPAGES = 1 << 61
RF = 1 << 16


def call(address: int) -> bytes:
    """mov ebx, address; call rbx."""
    return code("bb" + imm32(address), "ffd3")


def test_page_modification_log(tmp_path: Path) -> None:
    guest = b"".join(store(PAGE + 0x1000 * number + 8) for number in (0, 0, 1, 2, 3, 4))
    refill = vmwrite("GUEST_PML_INDEX", 511) + RESUME
    vmm = TinyVmm(tmp_path, guest, [refill, END], "SECONDARY_PML")
    vmm.v.ept_pointer = EPT | EPTP_4_WB | ACCESSED_DIRTY
    vmm.v.pml_address, vmm.v.guest_pml_index = LOG, 6
    assert status(vmm.machine) == 0
    (full,) = vmm.exits()
    assert (full["VM_EXIT_REASON"], full["EXIT_QUALIFICATION"], full["GUEST_PML_INDEX"]) == (FULL, 0, 0xFFFF)
    assert full["GUEST_RIP"] == GUEST + 7 * 4 and full["GUEST_RFLAGS"] & RF, "before the store to the fourth page"
    logged = [vmm.get64(LOG + 8 * index) for index in range(6, -1, -1)]
    assert logged == [0x1000, 0x2000, 0x3000, 0x4000, PAGE, PAGE + 0x1000, PAGE + 0x2000]  # tables are read as if written
    assert [vmm.get64(LOG + 8 * index) for index in (511, 510, 509)] == [PAGE + 0x3000, PAGE + 0x4000, 0]
    assert int(vmm.m.paging.pml_index) == 509


def test_virtualization_exception(tmp_path: Path) -> None:
    first, second = load(PAGE + 0x18), load(PAGE + 0x20)
    guest = code("41bf" + imm32(GUEST + 6 + len(first))) + first + second
    vmm = TinyVmm(tmp_path, guest, [END], "SECONDARY_EPT_VE")
    vmm.v.ve_information_address, vmm.v.eptp_index = AREA, 0x1234
    vmm.map(PAGE, 0, 0)
    assert status(vmm.machine) == 0
    assert [(vector, rip) for vector, _, _, rip in events(vmm.machine)] == [(20, GUEST + 6)]
    area = struct.unpack("<IIQQQH", vmm.machine.read_hpa(AREA, 34))
    assert area == (VIOLATION, 0xFFFFFFFF, 0x781, PAGE + 0x18, PAGE + 0x18, 0x1234)
    (busy,) = vmm.exits()
    assert busy["VM_EXIT_REASON"] == VIOLATION and busy["GUEST_LINEAR_ADDRESS"] == PAGE + 0x20, "the area is in use"


def test_a_suppressed_violation_and_an_intercepted_exception_exit(tmp_path: Path) -> None:
    vmm = TinyVmm(tmp_path, load(PAGE) + load(OTHER), [skip(7) + RESUME, END], "SECONDARY_EPT_VE")
    vmm.v.ve_information_address, vmm.v.exception_bitmap = AREA, 1 << 20
    vmm.map(PAGE, 0, 1 << 63)
    vmm.map(OTHER, 0, 0)
    assert status(vmm.machine) == 0
    suppressed, intercepted = vmm.exits()
    assert suppressed["VM_EXIT_REASON"] == VIOLATION and suppressed["GUEST_PHYSICAL_ADDRESS"] == PAGE
    assert intercepted["VM_EXIT_REASON"] == int(exits.EXCEPTION_NMI) and intercepted["VM_EXIT_INTR_INFO"] == 0x80000314
    assert vmm.get64(AREA) >> 32 == 0xFFFFFFFF and vmm.get64(AREA + 24) == OTHER


def switch(function: int, index: int) -> bytes:
    """mov eax, function; mov ecx, index; vmfunc."""
    return code("b8" + imm32(function), "b9" + imm32(index), "0f01d4")


def test_eptp_switching(tmp_path: Path) -> None:
    keep = code("89c6")  # mov esi, eax
    compare = code("c1e610", "09f0", "89c6")  # shl esi, 16; or eax, esi; mov esi, eax
    guest = load(PAGE) + keep + switch(0, 1) + load(PAGE) + compare + code("893425" + imm32(OTHER))
    guest += switch(0, 512) + switch(0, 2) + switch(1, 0) + switch(64, 0)
    vmm = TinyVmm(tmp_path, guest, [skip(3) + RESUME] * 3, "SECONDARY_VMFUNC", "SECONDARY_EPT_VE")
    vmm.v.eptp_list_address, vmm.v.ve_information_address = LIST, LIST + 0x1000
    for index, eptp in enumerate((EPT | EPTP_4_WB, SECOND_EPT | EPTP_4_WB, SECOND_EPT | EPTP_4_WB | 0x100)):
        vmm.put64(LIST + 8 * index, eptp)
    vmm.map(PAGE, PAGE + 0x1000, RWX | USER_EXECUTE, SECOND_EPT)
    vmm.put64(PAGE, 0x1111)
    vmm.put64(PAGE + 0x1000, 0x2222)
    assert status(vmm.machine) == 0xEE  # the last one is an invalid opcode
    assert [vector for vector, *_ in events(vmm.machine)] == [6]
    assert vmm.get64(OTHER) == 0x11112222
    assert [one["VM_EXIT_REASON"] for one in vmm.exits()] == [int(exits.VMFUNC)] * 3
    assert (int(vmm.v.ept_pointer), int(vmm.v.eptp_index)) == (SECOND_EPT | EPTP_4_WB, 1)
    assert (int(vmm.m.paging.ept_pointer), int(vmm.m.paging.eptp_index)) == (SECOND_EPT | EPTP_4_WB, 1)


def test_vmfunc_needs_its_control(tmp_path: Path) -> None:
    vmm = TinyVmm(tmp_path, switch(0, 0), [])
    assert status(vmm.machine) == 0xEE
    assert [vector for vector, *_ in events(vmm.machine)] == [6]


@pytest.mark.parametrize(
    ("user_page", "rights", "permitted"),
    [(True, RWX, False), (True, 3 | USER_EXECUTE, True), (False, RWX, True), (False, 3 | USER_EXECUTE, False)],
)
def test_mode_based_execution(tmp_path: Path, user_page: bool, rights: int, permitted: bool) -> None:
    vmm = TinyVmm(tmp_path, call(PAGE), [END], "SECONDARY_MODE_BASED_EXECUTE")
    vmm.put(PAGE, RET)
    vmm.map(PAGE, PAGE, rights)
    if not user_page:
        map_page(vmm.machine, PAGE, PAGE, 3)
    assert status(vmm.machine) == 0
    if permitted:
        assert vmm.exits() == []
    else:
        (violation,) = vmm.exits()
        assert (violation["VM_EXIT_REASON"], violation["GUEST_RIP"]) == (VIOLATION, PAGE)
        seen = violation["EXIT_QUALIFICATION"]
        assert seen & 7 == 4 and seen >> 3 & 7 == rights & 7 and seen >> 6 & 1 == rights >> 10 & 1
        assert seen >> 9 & 1 == int(user_page), "advanced information"


def with_subpages(vmm: TinyVmm, vector: int) -> None:
    """SPPT that knows PAGE only."""
    for level, shift in ((0, 39), (1, 30), (2, 21)):
        vmm.put64(SPPT + 0x1000 * level + (PAGE >> shift & 511) * 8, SPPT + 0x1000 * (level + 1) | 1)
    vmm.put64(SPPT + 0x3000 + (PAGE >> 12 & 511) * 8, vector)
    vmm.v.spp_table_pointer = SPPT
    vmm.map(PAGE, PAGE, 5 | SUBPAGES | USER_EXECUTE)


def test_subpages(tmp_path: Path) -> None:
    """Stores to sub-pages 1, 31 and a read are permitted; the next store, in the same block, is not."""
    allowed = code("b877000000") + store(PAGE + 0x80) + store(PAGE + 0xFF8) + code("31c0") + load(PAGE + 0x80)
    allowed += code("890425" + imm32(OTHER))
    guest = allowed + store(PAGE + 0x100) + store(PAGE + 0x84)
    vmm = TinyVmm(tmp_path, guest, [skip(7) + RESUME], "SECONDARY_SPP")
    with_subpages(vmm, 1 << 2 | 1 << 62)
    assert status(vmm.machine) == 0
    (denied,) = vmm.exits()
    assert (denied["VM_EXIT_REASON"], denied["GUEST_RIP"]) == (VIOLATION, GUEST + len(allowed))
    assert (denied["GUEST_PHYSICAL_ADDRESS"], denied["EXIT_QUALIFICATION"] & 0x1BF) == (PAGE + 0x100, 0x1AA)
    assert vmm.get64(PAGE + 0x80) & 0xFF == 0x77 and vmm.get64(PAGE + 0xFF8) == 0x77 and vmm.get64(OTHER) == 0x77
    assert vmm.get64(PAGE + 0x100) == 0 and vmm.get64(PAGE + 0x80) >> 32 != 0
    assert int(vmm.m.engine.stepping) == 0 and int(vmm.m.r.dr[6]) & 1 << 14 == 0


def test_string_store_stops_at_the_first_forbidden_subpage(tmp_path: Path) -> None:
    guest = code("bf" + imm32(PAGE + 0x40), "b900010000", "b841414141", "f3aa")  # edi, ecx = 256, al = 'A', rep stosb
    vmm = TinyVmm(tmp_path, guest, [END], "SECONDARY_SPP")
    with_subpages(vmm, 0b0101)  # sub-pages 0 and 1; half of 2 would follow
    assert status(vmm.machine) == 0
    (denied,) = vmm.exits()
    assert denied["GUEST_PHYSICAL_ADDRESS"] == PAGE + 0x100
    assert vmm.machine.read_hpa(PAGE, 4096) == bytes(0x40) + b"A" * 0xC0 + bytes(0xF00)


def test_store_across_two_such_pages(tmp_path: Path) -> None:
    vmm = TinyVmm(tmp_path, code("b8efbeadde") + store(PAGE + 0xFFE) + store(PAGE + 0xFFE), [END], "SECONDARY_SPP")
    with_subpages(vmm, 1 << 62)
    vmm.put64(SPPT + 0x3000 + ((PAGE >> 12) + 1 & 511) * 8, 1)
    vmm.map(PAGE + 0x1000, PAGE + 0x1000, 5 | SUBPAGES | USER_EXECUTE)
    assert status(vmm.machine) == 0
    assert vmm.exits() == []
    assert vmm.machine.read_hpa(PAGE + 0xFFE, 4) == bytes.fromhex("efbeadde")


@pytest.mark.parametrize(("entry", "qualification"), [(0, 1 << 11), (1 | 1 << 5, 0)])
def test_subpage_table_misses_and_misconfigurations(tmp_path: Path, entry: int, qualification: int) -> None:
    vmm = TinyVmm(tmp_path, store(PAGE + 0x80), [END], "SECONDARY_SPP")
    with_subpages(vmm, 1 << 2)
    vmm.put64(SPPT + 0x2000, entry)
    assert status(vmm.machine) == 0
    (event,) = vmm.exits()
    assert (event["VM_EXIT_REASON"], event["EXIT_QUALIFICATION"]) == (SPP, qualification)
    assert (event["GUEST_LINEAR_ADDRESS"], event["GUEST_PHYSICAL_ADDRESS"]) == (PAGE + 0x80, PAGE + 0x80)


def test_other_pages_stay_fast_to_write(tmp_path: Path) -> None:
    """With the control on, a plain page becomes writable as a whole after its first store."""
    loop = store(OTHER) + code("ffc9", "75f5")  # dec ecx; jnz
    vmm = TinyVmm(tmp_path, code("b9e8030000") + loop, [], "SECONDARY_SPP")
    with_subpages(vmm, 0)
    assert status(vmm.machine) == 0
    assert int(vmm.m.engine.fills) < 100


def test_five_levels(tmp_path: Path) -> None:
    guest = load(PAGE) + code("890425" + imm32(OTHER))
    vmm = TinyVmm(tmp_path, guest, [])
    vmm.put64(SCRATCH, EPT | RWX | USER_EXECUTE)
    vmm.v.ept_pointer = SCRATCH | EPTP_5_WB
    vmm.put64(PAGE, 0x5555)
    assert status(vmm.machine) == 0
    assert vmm.get64(OTHER) == 0x5555


def test_iret_that_unblocks_nmis_and_faults(tmp_path: Path) -> None:
    """IRET from a stack that EPT does not map, with NMIs blocked: the exit says that they no longer are."""
    guest = code("bc" + imm32(PAGE + 0x100), "48cf")  # mov esp, PAGE + 100h; iretq
    vmm = TinyVmm(tmp_path, guest + guest, [skip(2) + RESUME, END])
    vmm.v.guest_interruptibility_info = 8
    vmm.map(PAGE, 0, 0)
    assert status(vmm.machine) == 0
    unblocking, other = vmm.exits()
    assert unblocking["VM_EXIT_REASON"] == other["VM_EXIT_REASON"] == VIOLATION
    assert (unblocking["EXIT_QUALIFICATION"] >> 12 & 1, other["EXIT_QUALIFICATION"] >> 12 & 1) == (1, 0)
    assert int(vmm.v.guest_interruptibility_info) == 0
