"""What is shown gives no small cell away, attacked by linear algebra and linear programming."""

import numpy as np
import pytest
from scipy.optimize import linprog

from medisynth.data.audit.suppression import Sum, withheld_cells


def margins(shape: tuple[int, int]) -> list[Sum]:
    """Sums of a table whose row and column totals are known."""
    places = np.arange(shape[0] * shape[1]).reshape(shape)
    return [Sum(tuple(map(int, line))) for line in (*places, *places.T)]


def ranges(counts: list[int], sums: list[Sum], withheld: frozenset[int]) -> dict[int, float]:
    """Width of the range that a reader can work out for each withheld cell."""
    cells = sorted(withheld)
    matrix = np.array([[float(cell in one.parts) for cell in cells] for one in sums])
    if not cells:
        return {}
    totals = matrix @ np.array([counts[cell] for cell in cells])
    width = {}
    for i, cell in enumerate(cells):
        unit = np.eye(len(cells))[i]
        ends = [
            linprog(sign * unit, A_eq=matrix, b_eq=totals, method="highs").fun for sign in (1, -1)
        ]
        width[cell] = -ends[1] - ends[0]
    return width


def test_nothing_is_withheld_where_no_cell_is_small():
    counts = [9, 8, 7, 6, 0, 5]

    assert withheld_cells(counts, margins((2, 3)), 5, ranks=[0] * 6) == frozenset()


def test_one_small_cell_takes_a_rectangle_with_it():
    counts = [2, 20, 30, 10, 40, 50, 15, 60, 70]
    found = withheld_cells(counts, margins((3, 3)), 5, ranks=[0] * 9)

    assert found == {0, 1, 3, 4}


def test_a_single_patient_in_a_row_of_zeros_hides_with_others_where_there_are_any():
    counts = [1, 0, 0, 30, 30, 30]
    found = withheld_cells(counts, margins((2, 3)), 5, ranks=[0] * 6)

    assert 0 in found
    assert len(found & {0, 1, 2}) >= 2  # a zero hides it, since nothing else can


def test_a_part_of_a_shown_whole_is_not_the_only_one_withheld():
    # places 0 and 1 are two partitions, 2 is both together
    found = withheld_cells([3, 40, 43], [Sum((0, 1), 2)], 5, ranks=[0, 0, 1])

    assert found == {0, 1}


def test_everything_small_stays_withheld_when_nothing_can_protect_it():
    assert withheld_cells([3], [Sum((0,))], 5, ranks=[0]) == {0}


def test_a_smallest_cell_of_one_withholds_nothing():
    assert withheld_cells([1, 2, 3, 4], margins((2, 2)), 1, ranks=[0] * 4) == frozenset()


@pytest.mark.parametrize("seed", range(20))
def test_no_small_cell_of_a_random_table_can_be_worked_out(seed):
    rng = np.random.default_rng(seed)
    counts = [int(x) for x in rng.choice([0, 1, 2, 4, 6, 9, 30], 20)]
    sums = margins((4, 5))
    found = withheld_cells(counts, sums, 5, ranks=[0] * 20)
    small = {i for i, n in enumerate(counts) if 0 < n < 5}

    assert small <= found
    width = ranges(counts, sums, found)
    given_away = {cell for cell in small if width[cell] < 1}
    # a line with fewer than five patients in all protects nobody, whatever is withheld
    poor = {cell for one in sums if sum(counts[c] for c in one.parts) < 5 for cell in one.parts}
    assert given_away <= poor
