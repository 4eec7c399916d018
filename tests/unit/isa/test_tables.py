"""Laws that every table of isa/ obeys."""

import csv
import re

import pytest

from vmxemu.isa import data, tables

FILES = sorted(path.stem for path in data.directory().glob("*.csv"))
WITHOUT_UNIQUE_NAMES = ("instruction_costs", "mca_registers", "memory_types", "paging_entries")
NAME = re.compile(r"[A-Z][A-Z0-9_]*")


@pytest.mark.parametrize("name", FILES)
def test_every_row_has_a_source(name: str) -> None:
    for row in data.table(name):
        source = row.get("sdm", row.get("source"))
        assert source, row


@pytest.mark.parametrize("name", FILES)
def test_every_row_has_every_column(name: str) -> None:
    with (data.directory() / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    assert len(set(header)) == len(header)
    assert rows
    for row in rows:
        assert len(row) == len(header), row


@pytest.mark.parametrize("name", [name for name in FILES if name not in WITHOUT_UNIQUE_NAMES])
def test_names_are_unique_constants(name: str) -> None:
    rows = data.table(name)
    names = [row.get("name") or row["mnemonic"] for row in rows]
    assert len(set(names)) == len(names)
    assert all(NAME.fullmatch(text) for text in names)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("vmcs_fields", ("encoding",)),
        ("exit_reasons", ("number",)),
        ("vm_instruction_errors", ("number",)),
        ("exceptions", ("vector",)),
        ("controls", ("word", "bit")),
        ("msrs", ("address",)),
        ("register_bits", ("register", "bit")),
        ("paging_entries", ("structure", "low_bit")),
        ("memory_types", ("region", "page")),
        ("cpuid_features", ("leaf", "subleaf", "register", "bit")),
        ("vmx_capabilities", ("msr", "bit")),
        ("mca_registers", ("register", "name")),
        ("instruction_costs", ("cpu", "mnemonic", "form")),
    ],
)
def test_no_number_is_given_twice(name: str, key: tuple[str, ...]) -> None:
    keys = [tuple(row[column].lower() for column in key) for row in data.table(name)]
    assert len(set(keys)) == len(keys)


def test_every_csv_file_is_described_in_the_readme() -> None:
    text = (data.directory() / "README.md").read_text(encoding="utf-8")
    for name in FILES:
        assert f"`{name}.csv`" in text


@pytest.mark.parametrize("table", tables.names())
def test_a_table_renders(table: str) -> None:
    columns, rows = tables.rows(table)
    assert rows
    assert all(len(row) == len(columns) for row in rows)


@pytest.mark.parametrize(
    ("table", "pattern", "first_cells"),
    [
        ("exits", "48", ["48"]),
        ("exits", "0x30", ["48"]),
        ("exits", "ept_viol", ["48"]),
        ("vmcs", "HOST_R?P", ["0x6C14", "0x6C16"]),
        ("msrs", "IA32_EFER", ["0xC0000080"]),
        ("exits", "no such thing", []),
    ],
)
def test_a_pattern_selects_rows(table: str, pattern: str, first_cells: list[str]) -> None:
    assert [row[0] for row in tables.rows(table, pattern)[1]] == first_cells


def test_an_unknown_table_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no table 'vmcz'; known: .*vmcs"):
        tables.rows("vmcz")
