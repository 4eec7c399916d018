"""Laws of isa/memory_types.csv, and that it is the manual's table as the reference has it."""

import pytest

from tests.reference.translation_memory_types import EFFECTIVE, UC, UC_MINUS, WB, WC, WP, WT
from vmxemu.isa import data, memory_types

NAMES = {UC: "UC", WC: "WC", WT: "WT", WP: "WP", WB: "WB", UC_MINUS: "UC-"}
ROWS = {(row["region"], row["page"]): row["effective"] for row in data.table("memory_types")}
REGIONS = ("UC", "WC", "WT", "WP", "WB")
PAGES = (*REGIONS, "UC-")


def test_encodings():
    assert memory_types.NAMES == NAMES == {number: name for name, number in memory_types.NUMBERS.items()}


def test_every_pair_has_one_row():
    assert len(ROWS) == len(data.table("memory_types")) == 30
    assert set(ROWS) == {(region, page) for region in REGIONS for page in PAGES}


@pytest.mark.parametrize(("region", "page"), EFFECTIVE)
def test_pairs(region, page):
    assert ROWS[NAMES[region], NAMES[page]] == NAMES[EFFECTIVE[region, page]]


def test_laws():
    assert set(ROWS.values()) == set(REGIONS)  # UC- is UC in the end
    for region in REGIONS:
        assert ROWS[region, "UC"] == "UC"  # a page's UC cannot be overridden
        assert ROWS[region, "WC"] == "WC"  # nor can its WC
        assert ROWS[region, "WB"] == region  # a page's WB leaves it to the region
    for page in PAGES:
        assert ROWS["WB", page] == page.rstrip("-")  # and the other way round
        assert ROWS["UC", page] == ("WC" if page == "WC" else "UC")


def test_the_combined_table_has_64_places():
    """UC where one of the two is reserved."""
    assert memory_types.combined() == [EFFECTIVE.get((place >> 3, place & 7), UC) for place in range(64)]
