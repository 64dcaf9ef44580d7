"""Only cells are looked at that are needed: fewer than all, and none that would have told something else."""

from collections.abc import Callable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from sim.experiments.strategy_map.refinement import coarse_lines, refined
from sim.results.strategy_map import Cell, cells_in

SIDES = st.integers(1, 24)


def looked(num_x: int, num_y: int, truth: Callable[[Cell], object]) -> tuple[dict[Cell, object], list, list[Cell]]:
    asked: list[Cell] = []

    def look(some: Sequence[Cell]) -> dict[Cell, object]:
        asked.extend(some)
        return {cell: truth(cell) for cell in some}

    known, meshes = refined(coarse_lines(num_x), coarse_lines(num_y), look)
    return known, meshes, asked


@given(SIDES, SIDES, st.randoms(use_true_random=False))
def test_each_cell_is_computed_once_or_lies_in_an_agreeing_mesh(num_x, num_y, random):
    labels = {(i, j): random.randrange(3) for i in range(num_x) for j in range(num_y)}
    known, meshes, asked = looked(num_x, num_y, labels.__getitem__)
    assert len(asked) == len(set(asked)) == len(known)
    covered = set()
    for mesh in meshes:
        inside = list(cells_in(mesh))
        covered.update(inside)
        (x0, x1), (y0, y1) = mesh
        assert {(x0, y0), (x1, y0), (x0, y1), (x1, y1)} <= known.keys()
        if any(cell not in known for cell in inside):
            assert len({known[cell] for cell in inside if cell in known}) == 1
    assert covered == labels.keys()


@given(SIDES, SIDES, st.floats(-3, 3), st.floats(-3, 3), st.floats(-20, 20))
def test_a_straight_border_is_found_wherever_it_runs(num_x, num_y, a, b, c):
    def truth(cell: Cell) -> bool:
        return a * cell[0] + b * cell[1] > c

    known, meshes, _ = looked(num_x, num_y, truth)
    for mesh in meshes:
        agreed = {known[cell] for cell in cells_in(mesh) if cell in known}
        if len(agreed) == 1:  # a half plane that has all corners has all between them
            assert {truth(cell) for cell in cells_in(mesh)} == agreed


def test_cells_are_computed_on_the_first_net_and_along_borders():
    known, _, asked = looked(20, 20, lambda _: "same")
    assert coarse_lines(20) == [0, 5, 10, 15, 19]
    assert coarse_lines(3) == [0, 1, 2]
    assert set(asked) == {(i, j) for i in coarse_lines(20) for j in coarse_lines(20)}
    assert len(known) == 25
    known, _, _ = looked(20, 20, lambda cell: cell[0] < 7)
    assert all((i, j) in known for i in (6, 7) for j in range(20))
    assert len(known) < 150


def test_small_grids_and_requested_lines_are_computed_whole():
    assert set(looked(1, 1, lambda _: 0)[0]) == {(0, 0)}
    assert {(3, 0), (4, 0)} <= set(looked(9, 1, lambda cell: cell[0] < 4)[0])
    known, _ = refined(coarse_lines(20), range(3), lambda cells: {cell: cell[1] == 1 for cell in cells})
    assert {cell[1] for cell in known} == {0, 1, 2}
    same, _ = refined(coarse_lines(20), range(3), lambda cells: dict.fromkeys(cells, 0))
    assert {cell[1] for cell in same} == {0, 1, 2}
