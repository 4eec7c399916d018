"""References of two-dimensional walks without caches: (g + 1)(h + 1) - 1."""

import numpy as np
import pytest

from vmxemu.translation.geometry import NO_TLB
from vmxemu.translation.library import PAGE_1G, PAGE_2M, PAGE_4K, Walker

RAM = 16 << 20
GUEST = {0: None, 2: PAGE_1G, 3: PAGE_2M, 4: PAGE_4K}
EPT = {2: PAGE_1G, 3: PAGE_2M, 4: PAGE_4K}


def build(guest_levels, ept_levels, guest_root_levels=4, ept_root_levels=4):
    walker = Walker(RAM, NO_TLB)
    ept = walker.new_ept(ept_root_levels)
    size = EPT[ept_levels - (ept_root_levels - 4)]
    ept.map(0, 0, size, max(1, RAM // size))
    guest = None
    if guest_levels:
        guest = walker.new_guest_tables(ept, guest_root_levels)
        guest.map(0, 0, GUEST[guest_levels - (guest_root_levels - 4)])
    walker.use(guest, ept)
    return walker


@pytest.mark.jit_off
@pytest.mark.parametrize("guest_levels", GUEST)
@pytest.mark.parametrize("ept_levels", EPT)
def test_references_of_4_level_structures(guest_levels, ept_levels):
    walker = build(guest_levels, ept_levels)
    result = walker.translate(0x123)
    assert result.outcome == 0 and result.hpa == 0x123
    assert result.references == (guest_levels + 1) * (ept_levels + 1) - 1
    matrix = walker.reference_matrix()
    assert matrix.sum() == result.references
    assert matrix[:, 0].sum() == guest_levels


@pytest.mark.parametrize(
    ("guest_levels", "ept_levels", "guest_root", "ept_root", "expected"),
    [(5, 5, 5, 5, 35), (5, 4, 5, 4, 29), (4, 5, 4, 5, 29), (3, 3, 5, 5, 15), (0, 5, 4, 5, 5)],
)
def test_references_with_5_levels(guest_levels, ept_levels, guest_root, ept_root, expected):
    assert build(guest_levels, ept_levels, guest_root, ept_root).translate(0x123).references == expected


def test_the_matrix_counts_by_guest_and_ept_level():
    walker = build(4, 3)
    walker.translate(0)
    expected = np.zeros((6, 6), int)
    expected[1:5, 0] = 1
    expected[0:5, 2:5] = 1
    assert (walker.reference_matrix() == expected).all()


def test_without_ept_a_walk_reads_the_guest_entries_only():
    walker = Walker(RAM, NO_TLB)
    guest = walker.new_guest_tables()
    guest.map(0x1000, 0x3000)
    walker.use(guest)
    assert walker.translate(0x1010).references == 4
