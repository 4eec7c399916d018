"""Why a run stopped, as kernels say it."""

from vmxemu.layout import Array, Layout, array, u64
from vmxemu.layout import u64 as U

(
    RUNNING,
    EXIT_PORT,
    SHUTDOWN_PORT,
    TRIPLE_FAULT,
    UNMODELLED_INSTRUCTION,
    UNMODELLED_DEVICE,
    CYCLE_LIMIT,
    HALTED_FOREVER,
    SLICE_END,
    TRACE_FULL,
    PYTHON_DEVICE,
    UNMODELLED_FEATURE,
    ENGINE_ERROR,
    VMM1_FATAL,
    UNTIL,
) = (U(i) for i in range(15))


class Report(Layout):
    """`reason` is one of the constants above; `where` names a port, MSR or physical address; `value` the datum."""

    reason: u64
    where: u64
    value: u64
    size: u64
    status: u64  # exit status that the guest wrote
    level_exits: Array[u64] = array(3 * 96)  # VM exits by level (1, 2) and basic reason: index level * 96 + reason
    feature: u64


FETCH_OUTSIDE_MEMORY, TASK_GATE, VMX_ABORT, SELF_MODIFIED_IO, SETTLE_LIMIT, MACHINE_CHECK_SHUTDOWN = (
    U(i) for i in range(1, 7)
)  # `feature`
