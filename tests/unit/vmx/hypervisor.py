"""A processor in VMX root operation over a small RAM, with one good VMCS: what the tests of this room start from."""

from typing import Any

import numpy as np

from vmxemu.cpu.layout import CS, DS, ES, FS, GS, LDTR, SEG_DB, SEG_G, SEG_L, SEG_P, SEG_S, SS, TR, Registers
from vmxemu.cpu.mode import refresh_mode
from vmxemu.isa import controls, cpus, fields, msrs
from vmxemu.layout import Record
from vmxemu.state import State
from vmxemu.vmx.vmcs import Vmcs

RAM_BYTES = 1 << 21
PML4, PDPT, PD = 0x1000, 0x2000, 0x3000
CODE_PAGE, STACK_PAGE, DATA_PAGE = 0x8000, 0x9000, 0xA000
VMXON_REGION, VMCS_REGION, OTHER_REGION = 0x10000, 0x11000, 0x12000
MSR_BITMAP, IO_A, IO_B = 0x13000, 0x14000, 0x15000
ENTRY_LIST, STORE_LIST, LOAD_LIST = 0x16000, 0x17000, 0x18000
HOST_RIP, GUEST_RIP = 0xFFFF8000_00001000, 0x40_1000
REVISION = 0x564D5831
PROFILE = cpus.load("skylake-sp")
TRUE_MSR = {
    "pin": msrs.IA32_VMX_TRUE_PINBASED_CTLS,
    "primary": msrs.IA32_VMX_TRUE_PROCBASED_CTLS,
    "secondary": msrs.IA32_VMX_PROCBASED_CTLS2,
    "exit": msrs.IA32_VMX_TRUE_EXIT_CTLS,
    "entry": msrs.IA32_VMX_TRUE_ENTRY_CTLS,
}


def control(word: str, *names: str) -> int:
    """A control word with what this processor demands and these controls."""
    value = PROFILE.msr_values[int(TRUE_MSR[word])] & 0xFFFFFFFF
    for name in names:
        assert controls.BY_NAME[name].word == word
        value |= controls.BY_NAME[name].mask
    return value


def value_of(v: Any, name: str) -> int:
    return int(getattr(v, name))


class Hypervisor:
    """Owns the records and the RAM. `m` is what kernels take, `v` the current VMCS."""

    def __init__(self, profile: cpus.CpuProfile = PROFILE) -> None:
        self.m: Any = Record(State)
        self.registers = Record(Registers)
        self.ram = np.zeros(RAM_BYTES + 4096, np.uint8)
        self.base = -(-int(self.ram.ctypes.data) // 4096) * 4096
        self.frames = np.zeros(RAM_BYTES >> 12, np.uint8)
        m = self.m
        object.__setattr__(m, "_keep", (m._keep, self))  # `m` alone keeps everything alive
        m.r = self.registers.address
        m.memory.ram, m.memory.low_bytes, m.memory.frames = self.base, RAM_BYTES, self.frames.ctypes.data
        m.memory.frame_count, m.memory.rom_base = RAM_BYTES >> 12, 0xFFFF0000
        m.cpu.physical_bits, m.cpu.linear_bits = profile.identity.physical_bits, profile.identity.linear_bits
        m.cpu.cr4_allowed, m.cpu.efer_allowed = profile.msr_values[int(msrs.IA32_VMX_CR4_FIXED1)], 0xD01
        for address, value in profile.msr_values.items():
            if 0x480 <= address <= 0x493:
                m.cpu.vmx_msr[address - 0x480] = value
        m.cpu.feature_control = 5
        m.clock.deadline = (1 << 64) - 1
        self._long_mode()
        self._page_tables()
        for region in (VMXON_REGION, VMCS_REGION, OTHER_REGION):
            self.poke(region, REVISION.to_bytes(4, "little"))
        m.vmx.on, m.vmx.vmxon_pointer = 1, VMXON_REGION
        m.vmx.current, m.vmx.host_address = VMCS_REGION, self.base + VMCS_REGION
        self.v: Any = Record(Vmcs, self.base + VMCS_REGION)
        self._good_controls()
        self._good_host()
        self._good_guest()

    def poke(self, address: int, data: bytes) -> None:
        start = self.base - int(self.ram.ctypes.data) + address
        self.ram[start : start + len(data)] = np.frombuffer(data, np.uint8)

    def poke64(self, address: int, value: int) -> None:
        self.poke(address, value.to_bytes(8, "little"))

    def peek64(self, address: int) -> int:
        start = self.base - int(self.ram.ctypes.data) + address
        return int.from_bytes(self.ram[start : start + 8].tobytes(), "little")

    def code(self, *data: int, at: int = CODE_PAGE) -> None:
        """Put an instruction at RIP."""
        self.poke(at, bytes(data) + bytes(16))
        self.m.r.rip = at

    def segment(self, index: Any, selector: int, base: int, limit: int, flags: int) -> None:
        target = self.m.r.seg[index]
        target.selector, target.base, target.limit, target.flags = selector, base, limit, flags

    def _long_mode(self) -> None:
        m = self.m
        m.r.cr[0], m.r.cr[3], m.r.cr[4], m.r.efer = 0x80000031, PML4, 0x2020, 0xD00
        code = int(SEG_P | SEG_S | SEG_L | SEG_G) | 0xB00
        data = int(SEG_P | SEG_S | SEG_DB | SEG_G) | 0x300
        self.segment(CS, 8, 0, 0xFFFFFFFF, code)
        for index in (ES, SS, DS, FS, GS):
            self.segment(index, 16, 0, 0xFFFFFFFF, data)
        self.segment(LDTR, 0, 0, 0, 0)
        self.segment(TR, 0x18, 0, 0x67, int(SEG_P) | 0xB00)
        m.r.eflags, m.r.df, m.r.cc_op = 2, 1, 1
        m.r.gpr[4], m.r.rip = STACK_PAGE + 0x800, CODE_PAGE
        m.r.dr[7] = 0x400
        refresh_mode(m)

    def cpl(self, level: int) -> None:
        for index in (CS, SS):
            segment = self.m.r.seg[index]
            segment.flags = int(segment.flags) & ~0x6000 | level << 13
        refresh_mode(self.m)

    def _page_tables(self) -> None:
        self.poke64(PML4, PDPT | 7)
        self.poke64(PDPT, PD | 7)
        self.poke64(PD, 0 | 0x87 | 0x60)

    def _good_controls(self) -> None:
        v = self.v
        v.pin_based_vm_exec_control = control("pin", "PIN_NMI", "PIN_VIRTUAL_NMI", "PIN_PREEMPTION_TIMER")
        v.vmx_preemption_timer_value = 1000
        v.cpu_based_vm_exec_control = control(
            "primary", "CPU_IO_BITMAPS", "CPU_MSR_BITMAPS", "CPU_SECONDARY", "CPU_TSC_OFFSETTING"
        )
        v.secondary_vm_exec_control = control("secondary", "SECONDARY_EPT", "SECONDARY_VPID")
        v.vm_exit_controls = control(
            "exit",
            "EXIT_HOST_64",
            "EXIT_SAVE_PAT",
            "EXIT_LOAD_PAT",
            "EXIT_SAVE_EFER",
            "EXIT_LOAD_EFER",
            "EXIT_SAVE_DEBUG",
        ) | int(controls.EXIT_SAVE_PREEMPTION_TIMER)
        v.vm_entry_controls = control(
            "entry", "ENTRY_IA32E_GUEST", "ENTRY_LOAD_PAT", "ENTRY_LOAD_EFER", "ENTRY_LOAD_DEBUG"
        )
        v.msr_bitmap, v.io_bitmap_a, v.io_bitmap_b = MSR_BITMAP, IO_A, IO_B
        v.tsc_offset = 0x1234
        v.ept_pointer, v.virtual_processor_id = 0x2001E, 1
        v.vmcs_link_pointer = (1 << 64) - 1

    def _good_host(self) -> None:
        v = self.v
        v.host_cr0, v.host_cr3, v.host_cr4 = 0x80000031, PML4, 0x2020
        v.host_cs_selector, v.host_tr_selector = 8, 0x18
        for name in ("es", "ss", "ds", "fs", "gs"):
            setattr(v, f"host_{name}_selector", 0x10)
        v.host_fs_base, v.host_gs_base, v.host_tr_base = 0x1111, 0xFFFF800000002222, 0x3333
        v.host_gdtr_base, v.host_idtr_base = 0x4444, 0x5555
        v.host_ia32_pat, v.host_ia32_efer = 0x0007040600070406, 0xD00
        v.host_ia32_sysenter_cs, v.host_ia32_sysenter_esp, v.host_ia32_sysenter_eip = 8, 0x6666, 0x7777
        v.host_rsp, v.host_rip = 0xFFFF800000009000, HOST_RIP

    def _good_guest(self) -> None:
        v = self.v
        v.guest_cr0, v.guest_cr3, v.guest_cr4, v.guest_dr7 = 0x80010033, 0x5000, 0x2620, 0x400
        v.guest_cs_selector, v.guest_cs_ar_bytes, v.guest_cs_limit = 8, 0xA09B, 0xFFFFFFFF
        for name in ("es", "ss", "ds", "fs", "gs"):
            setattr(v, f"guest_{name}_selector", 0x10)
            setattr(v, f"guest_{name}_ar_bytes", 0xC093)
            setattr(v, f"guest_{name}_limit", 0xFFFFFFFF)
        v.guest_fs_base, v.guest_gs_base = 0xAAAA, 0xFFFF800000BBBB00
        v.guest_ldtr_ar_bytes = 0x10000
        v.guest_tr_selector, v.guest_tr_ar_bytes, v.guest_tr_limit, v.guest_tr_base = 0x18, 0x8B, 0x67, 0xCCCC
        v.guest_gdtr_base, v.guest_gdtr_limit, v.guest_idtr_base, v.guest_idtr_limit = 0xDDDD, 0x7F, 0xEEEE, 0xFFF
        v.guest_ia32_pat, v.guest_ia32_efer = 0x0007040600070406, 0xD00
        v.guest_sysenter_cs, v.guest_sysenter_esp, v.guest_sysenter_eip = 0x10, 0x1000, 0x2000
        v.guest_rsp, v.guest_rip, v.guest_rflags = 0x50_0000, GUEST_RIP, 0x202

    def snapshot(self) -> dict[str, int]:
        """All fields of the current VMCS."""
        return {row.name.lower(): value_of(self.v, row.name.lower()) for row in fields.ROWS}
