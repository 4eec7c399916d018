"""Laws of isa/memory_types.csv, and that it is the manual's table as tests.reference.memory_types has it."""

import pytest

from tests.reference.memory_types import EFFECTIVE, ENCODING, PAT_COLUMNS, combined
from vmxemu.isa import data, memory_types

ROWS = {(row["region"], row["page"]): row["effective"] for row in data.table("memory_types")}
REGIONS = ("UC", "WC", "WT", "WP", "WB")


def test_encodings():
    assert {number: name for name, number in memory_types.NUMBERS.items()} == ENCODING == memory_types.NAMES


def test_every_pair_has_one_row():
    assert len(ROWS) == len(data.table("memory_types")) == 30
    assert set(ROWS) == {(region, page) for region in REGIONS for page in PAT_COLUMNS} and set(EFFECTIVE) == set(REGIONS)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("page", PAT_COLUMNS)
def test_pairs(region, page):
    assert ROWS[region, page] == combined(region, page)


def test_laws():
    assert set(ROWS.values()) == set(REGIONS)  # UC- is UC in the end
    for region in REGIONS:
        assert ROWS[region, "UC"] == "UC"  # a page's UC cannot be overridden
        assert ROWS[region, "WC"] == "WC"  # nor can its WC
        assert ROWS[region, "WB"] == region  # a page's WB leaves it to the region
    for page in PAT_COLUMNS:
        assert ROWS["WB", page] == page.rstrip("-")  # and the other way round
        assert ROWS["UC", page] == ("WC" if page == "WC" else "UC")


def test_the_combined_table_has_64_places():
    found = memory_types.combined()
    assert len(found) == 64
    for place, effective in enumerate(found):
        region, page = ENCODING.get(place >> 3), ENCODING.get(place & 7)
        known = region in REGIONS and page is not None
        assert memory_types.NAMES[effective] == (combined(region, page) if known else "UC")
