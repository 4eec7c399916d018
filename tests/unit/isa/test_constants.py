"""The constants that kernels take, and anchors that were read off the SDM by hand."""

from types import ModuleType

import numpy as np
import pytest

from vmxemu.isa import bits, capabilities, controls, errors, exceptions, exits, fields, mca, msrs, smm_map

MODULES = [bits, capabilities, controls, errors, exceptions, exits, fields, mca, msrs, smm_map]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_constants_are_unsigned(module: ModuleType) -> None:
    values = [value for value in vars(module).values() if isinstance(value, np.generic)]
    assert values
    assert {value.dtype for value in values} == {np.dtype(np.uint64)}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_a_wrong_name_is_an_attribute_error_that_names_it(module: ModuleType) -> None:
    with pytest.raises(AttributeError, match="NO_SUCH_NAME"):
        _ = module.NO_SUCH_NAME


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        (fields.GUEST_RIP, 0x681E),
        (fields.HOST_RIP, 0x6C16),
        (fields.EPT_POINTER, 0x201A),
        (fields.VMX_PREEMPTION_TIMER_VALUE, 0x482E),
        (fields.GUEST_INTERRUPTIBILITY_INFO, 0x4824),
        (exits.EPT_MISCONFIG, 49),
        (exits.ENTRY_FAIL_GUEST_STATE, 33),
        (controls.CPU_SECONDARY, 1 << 31),
        (controls.SECONDARY_UNRESTRICTED_GUEST, 1 << 7),
        (controls.EXIT_SAVE_PREEMPTION_TIMER, 1 << 22),
        (errors.INVALID_OPERAND_TO_INVEPT_INVVPID, 28),
        (exceptions.PF, 14),
        (exceptions.WITH_ERROR_CODE_MASK, 1 << 8 | 0b11111 << 10 | 1 << 17 | 1 << 21),
        (msrs.IA32_VMX_TRUE_ENTRY_CTLS, 0x490),
        (msrs.IA32_MTRR_FIX4K_F8000, 0x26F),
        (msrs.IA32_MC19_MISC, 0x44F),
        (smm_map.RAX, 0x7F5C),
        (smm_map.R15, 0x7F1C),
        (smm_map.ES_SELECTOR, 0x7FA8),
        (mca.STATUS_CORRECTED_COUNT, 0x7FFF << 38),
        (bits.CR4_VMXE, 1 << 13),
        (capabilities.EPT_WALK_5, 1 << 7),
    ],
)
def test_anchors(constant: int, value: int) -> None:
    assert constant == value


def test_a_masked_word_is_spelled_out() -> None:
    assert controls.names("pin", 0x17) == ["PIN_EXTERNAL_INTERRUPT"]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (0x0000, "NO_ERROR"),
        (0x0134, "DATA_LOAD"),
        (0x1134, "DATA_LOAD"),
        (0x0150, "INSTRUCTION_FETCH"),
        (0x017A, "L3_EXPLICIT_WRITE_BACK"),
        (0x00C3, "PATROL_SCRUB"),
        (0x0091, "MEMORY_READ"),
        (0x00B0, "MEMORY_CONTROLLER"),
        (0x0800, "BUS_OR_INTERCONNECT"),
        (0x0E0B, "IO"),
        (0x4000, "UNKNOWN"),
    ],
)
def test_machine_check_codes_decode(code: int, name: str) -> None:
    assert mca.name(code) == name
