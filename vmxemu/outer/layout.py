"""VMM1's state. Its architectural structures (VMCS01, VMCS02, EPT01, EPT02, bitmaps) live in the sequestered region of
emulated memory;
here is what an implementation in C would keep in its own variables."""

from vmxemu.layout import Array, Layout, array, u64
from vmxemu.platform.layout import Mca
from vmxemu.vmx.layout import Vmx

RULES, ROOTS, MIGRATIONS, COUNTED_FRAMES, VIRTUAL_EVENTS = 64, 8, 4096, 4096, 256


class Rule(Layout):
    """One row of the policy table; a condition of all ones matches everything."""

    kind: u64
    command: u64
    bank: u64
    owner: u64
    severity: u64
    decided_owner: u64
    action: u64


class Root(Layout):
    """An EPT02 that VMM1 has built: for which EPTP12, and where."""

    eptp12: u64
    hpa: u64


class Migration(Layout):
    """A page of VM1 that no longer stands where it stood at boot."""

    gpa: u64
    old_hpa: u64
    new_hpa: u64


class CountedFrame(Layout):
    """Corrected errors of one frame."""

    hpa: u64
    errors: u64


class VirtualEvent(Layout):
    """A management interrupt that is VMM2's, waiting for the moment at which a processor would deliver it."""

    kind: u64
    serial: u64
    gpa1: u64
    detail: u64
    flags: u64
    deferred: u64


class SavedPaging(Layout):
    """The host's paging registers while VMM1 looks at memory as VM1 does."""

    cr0: u64
    cr3: u64
    cr4: u64
    efer: u64
    mode: u64
    eflags: u64
    ept_pointer: u64
    vpid: u64


class Outer(Layout):
    """Everything VMM1 knows."""

    door: u64  # host RIP that enters VMM1
    run_time: u64  # the boot phase is over
    trap_control: u64  # VMXEMU_TRAP_CONTROL
    trap_allowed: u64  # configuration: 0 is the negative control
    invalidation: u64  # configuration: 0 is the negative control
    up: u64
    level: u64  # 1 = VM1 runs, 2 = VM2 runs
    bypasses: u64
    arrival: u64  # a management interrupt caused the exit in hand: its kind
    arrival_level: u64
    decisions: u64
    pending_exit: u64  # a VM exit has happened and is not handled yet

    vmcs01: u64
    vmcs02: u64
    ept01: u64  # EPTP of VM1
    msr_bitmap01: u64
    msr_bitmap02: u64
    lists02: u64  # page for MSR load and store lists
    pool_next: u64  # next free frame, growing down
    pool_end: u64
    pool_free: u64
    arena_base: u64  # table pages of all EPT02s
    arena_next: u64
    arena_end: u64
    roots: Array[Root] = array(ROOTS)
    root_count: u64
    vpid02: u64

    nested: Vmx  # the virtual processor's VMX state, as VMM2 sees it
    vmxe: u64  # CR4.VMXE as VMM2 set it
    feature_control: u64
    nested_launches: u64
    nested_vpid: u64  # VPID of VMCS12 that VMCS02 ran last
    mca: Mca  # the virtual machine-check banks

    rule_count: u64
    rules: Array[Rule] = array(RULES)
    threshold: u64
    counted: Array[CountedFrame] = array(COUNTED_FRAMES)
    counted_frames: u64
    migrations: Array[Migration] = array(MIGRATIONS)
    migration_count: u64
    retired_uses: u64  # accesses to retired or sequestered frames by VM1 or VM2: must stay 0

    waiting: Array[VirtualEvent] = array(VIRTUAL_EVENTS)
    waiting_count: u64
    smbase: u64  # VM1's
    virtual_smm: u64
    smm_from_level: u64
    smm_backup: u64  # page that holds VMCS01 while VM1's SMM handler borrows it
    saved: SavedPaging
    error_detail: u64
    delivered: Array[u64] = array(8)  # by management kind
    smi_command: u64  # while the firmware's SMM handler runs: port 0xB2 as VM1 knows it, and bit 32
    image_started: u64  # the stock firmware has handed VM1 to the user's image
    pins01: u64  # VMCS01's NMI controls as the firmware set them
    mtf_pending: u64  # a monitor-trap-flag exit of VM2 gave way to a management interrupt
