"""Tree pseudo-LRU: a bit per node of a binary tree over the ways of a set points to the half that was used longer ago.

One tree shape serves all arrays: six levels, 64 leaves, nodes numbered from 1 as in a heap. A set of fewer ways uses its
left part; where the right half of a node has no ways, the left one is taken.
"""

from typing import TYPE_CHECKING

import numpy as np

from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.translation.inline import inlined

if TYPE_CHECKING:
    from vmxemu.state import State

DEPTH = 6
TOP = U(1 << DEPTH)


def _node(way: int, depth: int) -> int:
    return 1 << depth | way >> (DEPTH - depth)


def _path(way: int) -> tuple[int, int]:
    """Mask of the nodes on the way to a leaf, and their bits when each points away from it."""
    nodes = [(_node(way, depth), way >> (DEPTH - 1 - depth) & 1) for depth in range(DEPTH)]
    return sum(1 << node for node, _ in nodes), sum((1 - side) << node for node, side in nodes)


WAYS = 1 << DEPTH
# An array of more ways has its victims by age: its trees say nothing.
MOST_WAYS = 16 * WAYS
KEPT = np.array([~np.uint64(_path(way)[0] if way < WAYS else 0) for way in range(MOST_WAYS)], dtype=np.uint64)
POINTED = np.array([_path(way)[1] if way < WAYS else 0 for way in range(MOST_WAYS)], dtype=np.uint64)


@inlined
def touch(m: "State", slot: int) -> None:
    """Point the tree of the entry's set away from it."""
    first: int = m.tlb.sets[slot]
    way = slot - first
    m.tlb.trees[first >> 2] = m.tlb.trees[first >> 2] & KEPT[way] | POINTED[way]


@kernel
def tree_victim(m: "State", first: int, ways: int, levels: int) -> int:
    """The way that the tree of the set that begins at entry `first` points to. `levels`: 2 ** levels are not fewer than the
    ways, so that the upper levels always point left.
    """
    tree = m.tlb.trees[first >> 2]
    node, way, half = TOP >> levels, U(0), U(1) << (levels - 1)
    while half != 0:
        right = tree >> node & 1 if way + half < ways else 0
        way = way + half * right
        node = node * 2 + right
        half = half >> 1
    return way
