"""Tree pseudo-LRU: a bit per node of a binary tree over the ways of a set points to the half that was used longer ago.

One tree shape serves all arrays: six levels, 64 leaves, nodes numbered from 1 as in a heap. A set of fewer ways uses its
left part; where the right half of a node has no ways, the left one is taken.
"""

import numpy as np

from vmxemu.layout import u64 as U
from vmxemu.translation.inline import inlined

DEPTH = 6
TOP = U(1 << DEPTH)


def _node(way: int, depth: int) -> int:
    return 1 << depth | way >> (DEPTH - depth)


def _path(way: int) -> tuple[int, int]:
    """Mask of the nodes on the way to a leaf, and their bits when each points away from it."""
    nodes = [(_node(way, depth), way >> (DEPTH - 1 - depth) & 1) for depth in range(DEPTH)]
    return sum(1 << node for node, _ in nodes), sum((1 - side) << node for node, side in nodes)


WAYS = 1 << DEPTH
KEPT = np.array([~np.uint64(_path(way)[0]) for way in range(WAYS)], dtype=np.uint64)
POINTED = np.array([_path(way)[1] for way in range(WAYS)], dtype=np.uint64)


def levels_of(ways: int) -> int:
    """How many levels of the tree decide in a set of that many ways: above them there is nothing to the right."""
    return max(1, (ways - 1).bit_length())


def nodes_of(ways: int) -> int:
    """Mask of the nodes whose right half has ways."""
    forks = {_node(way, depth) for depth in range(DEPTH) for way in range(ways) if way >> (DEPTH - 1 - depth) & 1}
    return sum(1 << node for node in forks)


@inlined
def away_from(tree: int, way: int) -> int:
    """The tree when it points away from a way."""
    new: int = tree & KEPT[way] | POINTED[way]
    return new


@inlined
def pointed_to(tree: int, nodes: int, levels: int) -> int:
    """The way that a tree points to; `nodes`, `levels`: see above."""
    decided, node = tree & nodes, TOP >> levels
    for _ in range(levels):
        node = node << 1 | decided >> node & 1
    return node & (TOP - 1)
