"""A hypervisor of a few dozen instructions over one 64-bit guest, on rom.py's long-mode machine.

Python writes the VMCS, the EPT and the guest before power-on. The host notes each exit, then jumps to the next of the given
actions: pieces of code that end in RESUME or END. Host and guest share page tables, GDT, IDT and the handlers that note events.

    0x11000 host's exit handler, 0x12000 actions, 0x20000 guest, 0x100000 EPT: PML4, PDPT, PD, PT of the first 2 MiB;
    0x110000 the same again for a second EPTP; 0x120000 log of exits; 0x140000 what a test needs
"""

import struct
from pathlib import Path
from typing import Any

from tests.unit.machine.rom import CODE, GDT, IDT, PML4, TSS, code, long_mode, place
from vmxemu.isa import controls, fields, msrs
from vmxemu.layout import Record
from vmxemu.vmx.vmcs import Vmcs

HANDLER, ACTIONS, GUEST, GUEST_STACK = 0x11000, 0x12000, 0x20000, 0x2F000
VMXON_REGION, VMCS_REGION, MSR_BITMAP, TABLE, POINTERS = 0x30000, 0x31000, 0x32000, 0x33000, 0x34000
EPT, SECOND_EPT, EXITS, SCRATCH = 0x100000, 0x110000, 0x120000, 0x140000
WB, RWX, LARGE, USER_EXECUTE = 6 << 3, 7, 1 << 7, 1 << 10
EPTP_4_WB, EPTP_5_WB, ACCESSED_DIRTY = 0x1E, 0x26, 0x40
NOTED = ("VM_EXIT_REASON", "EXIT_QUALIFICATION", "GUEST_LINEAR_ADDRESS", "GUEST_PHYSICAL_ADDRESS", "GUEST_RIP", "GUEST_PML_INDEX",
         "VM_EXIT_INTR_INFO", "GUEST_RFLAGS")  # fmt: skip
WORDS = {
    "pin": ("IA32_VMX_TRUE_PINBASED_CTLS", "pin_based_vm_exec_control"),
    "primary": ("IA32_VMX_TRUE_PROCBASED_CTLS", "cpu_based_vm_exec_control"),
    "secondary": ("IA32_VMX_PROCBASED_CTLS2", "secondary_vm_exec_control"),
    "exit": ("IA32_VMX_TRUE_EXIT_CTLS", "vm_exit_controls"),
    "entry": ("IA32_VMX_TRUE_ENTRY_CTLS", "vm_entry_controls"),
}
RESUME, END = code("0f01c3", "b0dd", "e6f4"), code("b000", "e6f4")  # vmresume, and status DDh should it fail; status 0


def imm32(value: int) -> str:
    return struct.pack("<I", value).hex()


def vmwrite(name: str, value: int) -> bytes:
    """mov r10d, field; mov r11, value; vmwrite r10, r11."""
    encoding = fields.BY_NAME[name].encoding
    return code("41ba" + imm32(encoding), "49bb" + struct.pack("<Q", value).hex(), "450f79d3")


def skip(count: int) -> bytes:
    """Move the guest's RIP on: vmread rax, r10; add rax, count; vmwrite r10, rax. Uses RAX."""
    return code("41ba" + imm32(fields.BY_NAME["GUEST_RIP"].encoding), "440f78d0", f"4883c0{count:02x}", "440f79d0")


def load(address: int) -> bytes:
    """mov eax, [address]."""
    return code("8b0425" + imm32(address))


def store(address: int) -> bytes:
    """mov [address], eax."""
    return code("890425" + imm32(address))


def _start() -> bytes:
    return code(
        "b93a000000", "31d2", "b805000000", "0f30",  # IA32_FEATURE_CONTROL
        "0f20e0", "0d00200000", "0f22e0",  # CR4.VMXE
        "f30fc73425" + imm32(POINTERS),  # vmxon
        "0fc73425" + imm32(POINTERS + 8),  # vmptrld
        "0f01c2",  # vmlaunch
        "b0dd", "e6f4",
    )  # fmt: skip


def _handler() -> bytes:
    piece = code(
        "448b0425" + imm32(EXITS),  # mov r8d, [EXITS]
        "ff0425" + imm32(EXITS),  # inc dword [EXITS]
        "4589c1",  # mov r9d, r8d
        "41c1e106",  # shl r9d, 6
    )
    for number, name in enumerate(NOTED):
        piece += code("41ba" + imm32(fields.BY_NAME[name].encoding), "450f7891" + imm32(EXITS + 64 + 8 * number))
    return piece + code("42ff24c5" + imm32(TABLE))  # jmp [TABLE + r8 * 8]


class TinyVmm:
    """One hypervisor and its guest. `v` is the VMCS; controls are named, other fields are set by attribute before `run`."""

    def __init__(self, folder: Path, guest: bytes, actions: list[bytes], *named: str, cpu: str = "ideal") -> None:
        self.machine = long_mode(folder, _start(), cpu=cpu)
        self.m = self.machine.state
        self.put(HANDLER, _handler())
        at = ACTIONS
        for number, action in enumerate(actions):
            self.put(at, action)
            self.put64(TABLE + 8 * number, at)
            at += len(action)
        assert at < GUEST and len(_start()) < HANDLER - CODE
        self.put(GUEST, guest + END)
        self.put64(POINTERS, VMXON_REGION)
        self.put64(POINTERS + 8, VMCS_REGION)
        revision = struct.pack("<I", self.machine.profile.vmx.revision_id)
        self.put(VMXON_REGION, revision)
        self.put(VMCS_REGION, revision)
        self.v: Any = Record(Vmcs, int(self.m.memory.ram) + VMCS_REGION)
        self._controls({"SECONDARY_EPT", *named})
        self._state()
        for base in (EPT, SECOND_EPT):
            self.put(base, struct.pack("<Q", base + 0x1000 | RWX | USER_EXECUTE))
            self.put(base + 0x1000, struct.pack("<Q", base + 0x2000 | RWX | USER_EXECUTE))
            large = (number << 21 | RWX | USER_EXECUTE | WB | LARGE for number in range(1, 512))
            self.put(base + 0x2000, struct.pack("<512Q", base + 0x3000 | RWX | USER_EXECUTE, *large))
            pages = (number << 12 | RWX | USER_EXECUTE | WB for number in range(512))
            self.put(base + 0x3000, struct.pack("<512Q", *pages))

    def put(self, hpa: int, data: bytes) -> None:
        place(self.machine, hpa, data)

    def put64(self, hpa: int, value: int) -> None:
        self.put(hpa, struct.pack("<Q", value))

    def get64(self, hpa: int) -> int:
        return int.from_bytes(self.machine.read_hpa(hpa, 8), "little")

    def map(self, gpa: int, hpa: int, rights: int, ept: int = EPT) -> None:
        """Map a 4-KiB page of the first 2 MiB."""
        self.put64(ept + 0x3000 + (gpa >> 12) * 8, hpa | rights | (WB if rights & (RWX | USER_EXECUTE) else 0))

    def _controls(self, names: set[str]) -> None:
        names |= {"CPU_SECONDARY", "CPU_MSR_BITMAPS", "EXIT_HOST_64", "ENTRY_IA32E_GUEST"}
        for word, (msr, field) in WORDS.items():
            value = self.machine.profile.msr_values[msrs.BY_NAME[msr].address] & 0xFFFFFFFF
            value |= sum(row.mask for row in controls.ROWS if row.word == word and row.name in names)
            setattr(self.v, field, value)
        self.v.vm_function_control = 1 if "SECONDARY_VMFUNC" in names else 0

    def _state(self) -> None:
        v = self.v
        v.msr_bitmap, v.ept_pointer, v.vmcs_link_pointer = MSR_BITMAP, EPT | EPTP_4_WB, (1 << 64) - 1
        v.host_cr0 = v.guest_cr0 = 0x80000031
        v.host_cr3 = v.guest_cr3 = PML4
        v.host_cr4 = v.guest_cr4 = 0x2620
        v.host_cs_selector, v.host_tr_selector = 8, 24
        for name in ("es", "ss", "ds", "fs", "gs"):
            setattr(v, f"host_{name}_selector", 16)
            setattr(v, f"guest_{name}_selector", 16)
            setattr(v, f"guest_{name}_ar_bytes", 0xC093)
            setattr(v, f"guest_{name}_limit", 0xFFFFFFFF)
        v.guest_cs_selector, v.guest_cs_ar_bytes, v.guest_cs_limit = 8, 0xA09B, 0xFFFFFFFF
        v.guest_ldtr_ar_bytes = 0x10000
        v.guest_tr_selector, v.guest_tr_ar_bytes, v.guest_tr_limit = 24, 0x8B, 0xFF
        v.host_tr_base = v.guest_tr_base = TSS
        v.host_gdtr_base = v.guest_gdtr_base = GDT
        v.host_idtr_base = v.guest_idtr_base = IDT
        v.guest_gdtr_limit, v.guest_idtr_limit, v.guest_dr7 = 0x3F, 0xFFF, 0x400
        v.host_rsp, v.host_rip = 0x9F00, HANDLER
        v.guest_rsp, v.guest_rip, v.guest_rflags = GUEST_STACK, GUEST, 2

    def exits(self) -> list[dict[str, int]]:
        """What the host has noted of each exit."""
        count = self.get64(EXITS) & 0xFFFFFFFF
        return [
            dict(zip(NOTED, struct.unpack("<8Q", self.machine.read_hpa(EXITS + 64 * (1 + number), 64)), strict=True))
            for number in range(count)
        ]
