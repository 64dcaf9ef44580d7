"""Adaptive refinement: a coarse mesh of cells is evaluated first, then finer ones where corners differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, product
from typing import TypeVar

from sim.results.strategy_map import Cell, Mesh, Span, cells_in

COARSE_MESHES = 4
"""Meshes along a side at the beginning."""

Label = TypeVar("Label")


def coarse_lines(num: int) -> list[int]:
    """The lines of the coarse mesh along a side of so many cells, the last cell among them."""
    stride = max(1, -(-num // COARSE_MESHES))
    return sorted({*range(0, num, stride), num - 1})


def refined(
    lines_x: Sequence[int], lines_y: Sequence[int], evaluate: Callable[[Sequence[Cell]], Mapping[Cell, Label]]
) -> tuple[dict[Cell, Label], list[Mesh]]:
    """Labels of the evaluated cells, and the final meshes, whose corners are among them.

    lines: of the coarse mesh, from 0 to the last cell. evaluate: gives labels of cells, each once. A mesh whose known
    cells have one label is taken to have it throughout; others are halved until meshes have no cells inside.
    """
    known = dict(evaluate(list(product(lines_x, lines_y))))
    meshes = [(x, y) for x in spans(lines_x) for y in spans(lines_y)]
    while True:
        mixed = [mesh for mesh in meshes if len({known[cell] for cell in cells_in(mesh) if cell in known}) > 1]
        halved = {mesh: halves(mesh) for mesh in mixed}
        if not any(halved.values()):
            return known, meshes
        meshes = [part for mesh in meshes for part in halved.get(mesh) or [mesh]]
        corners = (corner for parts in halved.values() for mesh in parts for corner in product(*mesh))
        if wanted := list(dict.fromkeys(corner for corner in corners if corner not in known)):
            known.update(evaluate(wanted))


def spans(lines: Sequence[int]) -> list[Span]:
    """The spans between lines; of a single line, one from itself to itself."""
    return list(pairwise(lines)) if len(lines) > 1 else [(lines[0], lines[0])]


def halves(mesh: Mesh) -> list[Mesh]:
    """A mesh halved along every side that has cells between its ends; empty where none has."""
    (halves_x, halves_y) = ([(a, (a + b) // 2), ((a + b) // 2, b)] if b - a > 1 else [(a, b)] for a, b in mesh)
    return list(product(halves_x, halves_y)) if len(halves_x) + len(halves_y) > 2 else []
