"""Processor state. `Registers` is what Unicorn keeps (its CPUX86State, in place); `Cpu` is what it has no room for."""

from vmxemu.layout import Array, Layout, array, fixed, i32, u8, u16, u32, u64

U = u64
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = (U(i) for i in range(16))
ES, CS, SS, DS, FS, GS, LDTR, TR, GDTR, IDTR = (U(i) for i in range(10))

# Unicorn's mode word ("hflags"). It never holds TF, IOPL, RF, VM, AC: Unicorn takes these from RFLAGS; so must we.
HF_CPL = U(3)
HF_INHIBIT_IRQ = U(1 << 3)
HF_CS32 = U(1 << 4)
HF_SS32 = U(1 << 5)
HF_ADDSEG = U(1 << 6)
HF_PE = U(1 << 7)
HF_TF = U(1 << 8)
HF_MP = U(1 << 9)
HF_EM = U(1 << 10)
HF_TS = U(1 << 11)
HF_IOPL = U(3 << 12)
HF_LMA = U(1 << 14)
HF_CS64 = U(1 << 15)
HF_RF = U(1 << 16)
HF_VM = U(1 << 17)
HF_AC = U(1 << 18)
HF_GUEST = U(1 << 21)
HF_OSFXSR = U(1 << 22)
HF_SMAP = U(1 << 23)  # here: chooses Unicorn's second supervisor TLB, see engine/

# Segment descriptor flags as Unicorn keeps them: the descriptor's high doubleword & 0x00F0FF00
SEG_G, SEG_DB, SEG_L, SEG_AVL, SEG_P, SEG_S = U(1 << 23), U(1 << 22), U(1 << 21), U(1 << 20), U(1 << 15), U(1 << 12)

ACTIVE, HALTED, SHUTDOWN, WAIT_FOR_SIPI = U(0), U(1), U(2), U(3)  # Activity states as in the VMCS guest-state area


class Segment(Layout):
    """A segment register, or GDTR/IDTR (base and limit only)."""

    selector: u32
    _pad: u32
    base: u64
    limit: u32
    flags: u32


class Registers(Layout):
    """CPUX86State of the pinned Unicorn, as far as we use it. engine/ verifies the offsets at start-up."""

    gpr: Array[u64] = array(16)
    rip: u64
    eflags: u64  # without CF PF AF ZF SF OF DF, which are lazy: use cpu.flags
    cc_dst: u64
    cc_src: u64
    cc_src2: u64
    cc_op: u32
    df: i32
    mode: u32  # hflags: recompute with cpu.mode after changing CR0, CR4, EFER, CS, SS, CPL, RFLAGS.VM
    mode2: u32
    seg: Array[Segment] = array(10)
    cr: Array[u64] = array(5)
    _gap1: Array[u8] = array(128)
    efer: u64
    _gap2: Array[u8] = array(4200)
    sysenter_cs: u64  # 32 bits used
    sysenter_esp: u64
    sysenter_eip: u64
    star: u64
    _gap3: u64
    lstar: u64
    cstar: u64
    fmask: u64
    kernel_gs_base: u64
    _gap4: Array[u8] = array(24)
    tsc_aux: u64
    _gap5: Array[u8] = array(376)
    pat: u64
    _gap6: Array[u8] = array(48)
    owner: u64  # address of the State. In Unicorn: KVM's system-time MSR, which nothing there touches
    _gap6b: Array[u8] = array(40)
    error_code: u32
    exception_is_int: u32
    exception_next_rip: u64
    dr: Array[u64] = array(8)
    _gap7: Array[u8] = array(40)
    vmcb: u64
    tsc_offset: u64
    intercept: u64  # bit = SVM exit code - 0x60
    intercept_cr_read: u16
    intercept_cr_write: u16
    intercept_dr_read: u16
    intercept_dr_write: u16
    intercept_exceptions: u32
    _gap8: u32


EXPECTED_OFFSETS = {
    "rip": 128, "eflags": 136, "mode": 176, "seg": 184, "cr": 424, "efer": 592, "sysenter_cs": 4800, "star": 4824,
    "lstar": 4840, "tsc_aux": 4896, "pat": 5280, "owner": 5336, "error_code": 5384, "dr": 5400, "vmcb": 5504, "intercept": 5520,
    "intercept_exceptions": 5536,
}  # fmt: skip


class CpuidLeaf(Layout):
    """One row of the CPUID table. `any_subleaf` is 1 where ECX is ignored."""

    leaf: u32
    subleaf: u32
    any_subleaf: u32
    _pad: u32
    eax: u32
    ebx: u32
    ecx: u32
    edx: u32


class Instruction(Layout):
    """What cpu.decode says of the instruction at RIP."""

    length: u64
    opcode: u64  # 0x00BB one byte, 0x0FBB two bytes, 0x0F38BB, 0x0F3ABB
    prefixes: u64  # bit 0 66h, 1 67h, 2 LOCK, 3 REPNE/F2, 4 REP/F3
    rex: u64  # the REX byte or 0
    modrm: u64
    has_modrm: u64
    register: u64  # ModRM.reg | REX.R << 3
    rm: u64  # ModRM.rm | REX.B << 3; register number where mod = 3
    is_memory: u64  # mod != 3
    segment: u64  # segment register of the memory operand
    linear: u64  # linear address of the memory operand (segment base included)
    offset: u64  # effective address without segment base
    operand_bytes: u64  # 2, 4, 8
    address_bytes: u64  # 2, 4, 8
    immediate: u64
    displacement: u64  # sign-extended; RIP-relative: plus the next RIP, as exit qualifications have it
    base: u64  # base register number or 16 for none
    index: u64  # index register number or 16 for none
    scale: u64  # log2
    code: Array[u8] = array(16)
    available: u64  # bytes of `code` that are fetched
    cursor: u64  # bytes that the decoder has taken
    failure: u64  # outcome that ended the fetch, 0 = none
    override: u64  # segment-override prefix: segment register, or 16 for none
    rip_relative: u64


class IoAccess(Layout):
    """The decoded IN, OUT, INS or OUTS."""

    port: u64
    size: u64  # bytes per element
    is_in: u64
    is_string: u64
    is_rep: u64
    is_immediate: u64  # the port is in the instruction, not in DX
    next_rip: u64


class Delivery(Layout):
    """Work in progress of an event's delivery; nothing reaches the registers before all has succeeded."""

    external: u64  # EXT bit of error codes
    gate_error: u64  # error code that names the IDT entry
    gate_type: u64
    gate_dpl: u64
    gate_ist: u64
    offset: u64
    selector: u64
    code: u64  # descriptor of the handler's code segment
    new_cpl: u64
    frame_bytes: u64  # 2, 4 or 8: size of each push
    stack_changes: u64
    sp: u64
    sp_mask: u64
    stack_base: u64
    stack_selector: u64
    stack_descriptor: u64
    access: u64
    failure: u64  # outcome that stopped the pushes, 0 = none


class Cpu(Layout):
    """Processor state without a home in Unicorn."""

    in_smm: u64
    nmi_blocked: u64
    sti_shadow: u64  # interrupt shadows that VM entry loads; natural ones live in Registers.mode
    mov_ss_shadow: u64
    activity: u64
    apic_base: u64
    smbase: u64
    feature_control: u64
    misc_enable: u64
    debugctl: u64
    tsc_offset: u64  # TSC = cycles + tsc_offset (WRMSR to the TSC); the VMX offset is m.vmx.tsc_offset
    tsc_deadline: u64
    tpr: u64  # CR8 << 4
    spec_ctrl: u64
    xss: u64
    mtrr_def_type: u64
    mtrr_fixed: Array[u64] = array(11)
    mtrr_base: Array[u64] = array(10)
    mtrr_mask: Array[u64] = array(10)
    vmx_msr: Array[u64] = array(20, fixed=True)  # 0x480..0x493
    physical_bits: u64 = fixed()  # MAXPHYADDR
    linear_bits: u64 = fixed()
    smi_count: u64
    cpuid_count: u64 = fixed()
    single_step: u64
    pending_debug: u64  # pending debug exceptions, DR6 format
    smi_pending: u64
    nmi_pending: u64
    mce_pending: u64
    init_pending: u64
    cr0_fixed: u64 = fixed()
    cr4_allowed: u64 = fixed()  # bits of CR4 that this profile has
    efer_allowed: u64 = fixed()
    event_vector: u64  # event being delivered (for double faults and IDT-vectoring information)
    event_info: u64  # in the format of IDT_VECTORING_INFO_FIELD, 0 = none
    event_error: u64
    event_length: u64
    cpuid: Array[CpuidLeaf] = array(96)
    insn: Instruction
    iret_rip: u64  # of the IRET that ended the blocking of NMIs last, and the count of blocks when it runs
    iret_block: u64
    event_gla: u64  # linear address of the #PF in `event_*`, for CR2
    unrestricted: u64  # unrestricted guest in force: VMX non-root operation may clear CR0.PE and CR0.PG
    tsc_adjust: u64
    platform_info: u64  # MSR_PLATFORM_INFO
    microcode_revision: u64
    arch_capabilities: u64
    smm_monitor_ctl: u64
    smrr_base: u64
    smrr_mask: u64
    xcr0: u64
    xcr0_allowed: u64
    random: u64  # state of the generator behind RDRAND and RDSEED
    monitor_armed: u64
    monitor_gla: u64
    descriptor: u64  # the descriptor read last, and its upper half in IA-32e mode
    descriptor_high: u64
    io: IoAccess
    delivery: Delivery
    msr_absent: Array[u64] = array(4)  # bit = row of cpu.msr_table: this profile lacks the MSR
