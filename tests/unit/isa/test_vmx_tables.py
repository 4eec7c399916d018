"""Laws of the VMX tables."""

import pytest

from vmxemu.isa import controls, cpuid, errors, exceptions, exits, fields, mca, msrs

CONDITIONS = (
    {row.name for row in controls.ROWS}
    | cpuid.FEATURE_NAMES
    | {field.name for field in mca.FIELDS if field.register == "IA32_MCG_CAP"}
    | {"PERFMON", "SEAM"}
)


@pytest.mark.parametrize("field", fields.ROWS, ids=lambda field: field.name)
def test_an_encoding_says_type_and_width(field: fields.VmcsField) -> None:
    assert field.encoding & 1 == 0, "the full access type"
    assert field.encoding >> 10 & 3 == fields.TYPE_CODES[field.type]
    assert field.encoding >> 12 & 1 == 0, "reserved"
    assert field.encoding >> 13 & 3 == fields.WIDTH_CODES[field.width]
    assert field.encoding >> 15 == 0, "reserved"


@pytest.mark.parametrize("field", fields.ROWS, ids=lambda field: field.name)
def test_a_field_name_says_its_area(field: fields.VmcsField) -> None:
    if field.name.startswith("HOST_"):
        assert field.type == "host"
    elif field.name.startswith("GUEST_") and field.name not in ("GUEST_PHYSICAL_ADDRESS", "GUEST_LINEAR_ADDRESS"):
        assert field.type == "guest"
    else:
        assert field.type != "host"


def test_conditions_name_things_that_exist() -> None:
    for field in fields.ROWS:
        assert CONDITIONS.issuperset(field.exists_if), field
    for msr in msrs.ROWS:
        names = {name for group in msr.exists_if.split("&") for name in group.split("|") if name}
        assert names <= CONDITIONS, msr


def test_the_default1_class_is_the_one_of_appendix_a() -> None:
    words = {
        word: sum(row.mask for row in controls.ROWS if row.word == word and row.default1) for word in controls.WORDS
    }
    expected = {"pin": 0x16, "primary": 0x0401E172, "exit": 0x00036DFF, "entry": 0x000011FF}
    assert words == {word: expected.get(word, 0) for word in controls.WORDS}


def test_reserved_controls_are_all_default1() -> None:
    assert all(row.default1 for row in controls.ROWS if row.reserved)


def test_control_words_hold_their_bits() -> None:
    for row in controls.ROWS:
        assert 0 <= row.bit < (64 if row.word in ("tertiary", "exit2", "vmfunc") else 32)


def test_exit_reasons_fit_the_basic_field() -> None:
    assert all(0 <= row.number < 1 << 16 for row in exits.ROWS)
    assert {row.kind for row in exits.ROWS} == {"fault", "trap", "event", "entry_failure"}
    assert {row.number for row in exits.ROWS if row.kind == "entry_failure"} == {33, 34, 41}
    # Numbers that Table C-1 skips.
    assert {number for number in range(79)} - {row.number for row in exits.ROWS} == {35, 38, 42, 71}


def test_instruction_errors_skip_the_numbers_that_the_sdm_skips() -> None:
    assert set(range(1, 29)) - {row.number for row in errors.ROWS} == {14, 21, 27}


def test_only_exceptions_with_an_error_code_push_one() -> None:
    with_code = {row.mnemonic for row in exceptions.ROWS if row.error_code}
    assert with_code == {"DF", "TS", "NP", "SS", "GP", "PF", "AC", "CP"}


def test_contributory_exceptions() -> None:
    assert {row.mnemonic for row in exceptions.ROWS if row.contributory == "contributory"} == {
        "DE", "TS", "NP", "SS", "GP", "CP",
    }  # fmt: skip
