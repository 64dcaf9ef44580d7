"""Which cells of a grid are looked at: a coarse net first, then finer where its cells do not agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise, product
from typing import TypeVar

Cell = tuple[int, int]

COARSE_MESHES = 4
"""Meshes of the first net along a side."""

Span = tuple[int, int]
"""From a line of the net to the next."""

Mesh = tuple[Span, Span]

Label = TypeVar("Label")


def net(num: int) -> list[int]:
    """The coarse net's lines along a side of so many cells, its last among them."""
    stride = max(1, -(-num // COARSE_MESHES))
    return sorted({*range(0, num, stride), num - 1})


def refined(
    lines_x: Sequence[int], lines_y: Sequence[int], look: Callable[[Sequence[Cell]], Mapping[Cell, Label]]
) -> tuple[dict[Cell, Label], list[Mesh]]:
    """Labels of the cells that had to be looked at, and the meshes left, whose corners are among them.

    lines: those of the first net, from 0 to the last cell along each side. look: gives labels of some cells, each asked
    for once. A mesh in which all that is known has one label is taken to have it throughout; others are split in
    halves, down to the cells.
    """
    known = dict(look(list(product(lines_x, lines_y))))
    meshes = [(x, y) for x in spans(lines_x) for y in spans(lines_y)]
    while True:
        mixed = [mesh for mesh in meshes if len({known[cell] for cell in cells(mesh) if cell in known}) > 1]
        halved = {mesh: parts(mesh) for mesh in mixed}
        if not any(halved.values()):
            return known, meshes
        meshes = [part for mesh in meshes for part in halved.get(mesh) or [mesh]]
        corners = (corner for halves in halved.values() for mesh in halves for corner in product(*mesh))
        if wanted := list(dict.fromkeys(corner for corner in corners if corner not in known)):
            known.update(look(wanted))


def spans(lines: Sequence[int]) -> list[Span]:
    """From line to line; of a single line, from itself to itself."""
    return list(pairwise(lines)) if len(lines) > 1 else [(lines[0], lines[0])]


def cells(mesh: Mesh) -> Iterator[Cell]:
    """All cells of a mesh, its edges among them."""
    (first_x, last_x), (first_y, last_y) = mesh
    return product(range(first_x, last_x + 1), range(first_y, last_y + 1))


def parts(mesh: Mesh) -> list[Mesh]:
    """A mesh in halves along every side that has cells between its ends; nothing where none has."""
    (halves_x, halves_y) = ([(a, (a + b) // 2), ((a + b) // 2, b)] if b - a > 1 else [(a, b)] for a, b in mesh)
    return list(product(halves_x, halves_y)) if len(halves_x) + len(halves_y) > 2 else []
