"""Cell suppression: which table cells to withhold so that no small one can be worked out.

A small cell alone is not enough: where a sum is known, the one missing part is its difference to
the rest. So further cells are withheld until no small one follows from what is shown.
"""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from governance.records.audit import DemographicCell
from medisynth.data.audit.attribute_values import AttributeValues
from medisynth.data.audit.coverage import ALL
from medisynth.data.audit.levels import Coded, membership
from medisynth.intervals import wilson_interval

_DETERMINED = 1 - 1e-9


@dataclass(frozen=True)
class Sum:
    """Cells that add up to a known number, or to another cell.

    Attributes:
        parts: Indices of the cells that are added.
        whole: Index of the cell that they add up to; None when the sum itself is known.
    """

    parts: tuple[int, ...]
    whole: int | None = None

    @property
    def cells(self) -> tuple[int, ...]:
        """All cells of the sum."""
        return self.parts if self.whole is None else (*self.parts, self.whole)


def withheld_cells(
    counts: Sequence[int],
    sums: Sequence[Sum],
    smallest: int,
    *,
    ranks: Sequence[int],
) -> frozenset[int]:
    """Choose the cells to withhold: the small ones, and as many others as protect them.

    Args:
        counts: Patients of each cell.
        sums: Sums that a reader can form.
        smallest: Cells of 1 to smallest - 1 patients are small. A cell of 0 is not: it describes
            nobody; it is withheld only where no other can protect.
        ranks: Of each cell; lower ones are withheld first to protect others, then the smaller.

    Returns:
        Indices of all withheld cells, small ones included. Each sum with a withheld cell has at
        least two, which hold at least `smallest` patients together where the sum is shown (as far
        as it has so many), and no small cell follows from all sums together by linear algebra.

    Source:
        Hundepool et al. 2012, Statistical Disclosure Control, doi:10.1002/9781118348239, chapter 4.
    """
    small = {place for place, n in enumerate(counts) if 0 < n < smallest}
    state = _State(counts, sums, smallest, ranks, small)
    state.close(range(len(sums)))
    while places := state.determined():
        for place in places:
            state.protect(place)
    return frozenset(state.gone)


class _State:
    """The cells withheld so far."""

    def __init__(
        self,
        counts: Sequence[int],
        sums: Sequence[Sum],
        smallest: int,
        ranks: Sequence[int],
        small: set[int],
    ) -> None:
        self.counts, self.sums, self.smallest, self.ranks = counts, sums, smallest, ranks
        self.small, self.gone = small, set(small)
        self.lost: set[int] = set()  # small cells that nothing protects
        self.of_cell: dict[int, list[int]] = defaultdict(list)
        for number, one in enumerate(sums):
            for place in one.cells:
                self.of_cell[place].append(number)

    def close(self, numbers: Sequence[int] | range) -> None:
        """Withhold further cells until no single sum narrows down a withheld cell."""
        waiting = deque(numbers)
        while waiting:
            number = waiting.popleft()
            if not self._is_vague(self.sums[number]):
                place = self._best(self.sums[number])
                if place is not None:
                    self.gone.add(place)
                    waiting += self.of_cell[place]

    def determined(self) -> list[int]:
        """Return small cells that can still be worked out from all sums together."""
        found: list[int] = []
        for cells, numbers in self._components():
            column = {place: i for i, place in enumerate(cells)}
            signs = np.zeros((len(numbers), len(cells)))
            for row, number in enumerate(numbers):
                one = self.sums[number]
                for place in one.parts:
                    if place in column:
                        signs[row, column[place]] = 1
                if one.whole in column:
                    signs[row, column[one.whole]] = -1
            # A cell follows from the sums where its unit vector lies in their row space.
            is_known = np.einsum("ij,ji->i", np.linalg.pinv(signs), signs) > _DETERMINED
            found += [p for p in cells if is_known[column[p]] and p in self.small - self.lost]
        return found

    def protect(self, place: int) -> None:
        """Withhold one more cell of a sum that holds this one, where one is left."""
        found = [self._best(self.sums[number]) for number in self.of_cell[place]]
        choices = [x for x in found if x is not None]
        if not choices:
            self.lost.add(place)  # everything around it is withheld already
            return
        best = min(choices, key=self._cost)
        self.gone.add(best)
        self.close(self.of_cell[best])

    def _is_vague(self, one: Sum) -> bool:
        gone = [place for place in one.cells if place in self.gone]
        if not gone:
            return True
        if len(gone) == 1:
            return False
        whole_is_shown = one.whole is None or one.whole not in self.gone
        return not whole_is_shown or sum(self.counts[p] for p in gone) >= self.smallest

    def _best(self, one: Sum) -> int | None:
        shown = [place for place in one.cells if place not in self.gone]
        return min(shown, key=self._cost) if shown else None

    def _cost(self, place: int) -> tuple[bool, int, int, int]:
        n = self.counts[place]
        return (n == 0, self.ranks[place], n, place)

    def _components(self) -> list[tuple[list[int], list[int]]]:
        """Group withheld cells that share sums, with those sums; only groups with a small cell."""
        seen: set[int] = set()
        found = []
        for start in sorted(self.gone & self.small):
            if start in seen:
                continue
            cells, numbers, waiting = {start}, set(), [start]
            while waiting:
                for number in self.of_cell[waiting.pop()]:
                    if number in numbers:
                        continue
                    numbers.add(number)
                    new = [p for p in self.sums[number].cells if p in self.gone - cells]
                    cells.update(new)
                    waiting += new
            seen |= cells
            found.append((sorted(cells), sorted(numbers)))
        return found


UNASSIGNED = ""  # rows without a partition: never shown, but they can be worked out


def demographic_cells(
    found: Sequence[AttributeValues],
    patients: Coded,
    sides: Mapping[str, NDArray[np.bool_]],
    smallest: int,
) -> tuple[DemographicCell, ...]:
    """Count patients by level and by pairs of levels.

    Args:
        found: Attributes; those without levels are passed over.
        patients: Patient of each row.
        sides: Rows of "all", of each partition, and of UNASSIGNED where some have none.
        smallest: Cells of 1 to smallest - 1 patients are withheld, and others that protect them.

    Returns:
        Single attributes first, then pairs; UNASSIGNED is not among them.
    """
    groups = [(x,) for x in found if x.levels]
    pairs = list(combinations((x for x in found if x.levels), 2))
    keys: list[tuple[tuple[str, ...], tuple[str, ...], str]] = []
    counts: list[int] = []
    totals: list[int] = []
    for group in [*groups, *pairs]:
        names = tuple(x.declared.name for x in group)
        for side, rows in sides.items():
            by_level, n_with = count_levels(group, patients, rows)
            for levels, n in by_level.items():
                keys.append((names, levels, side))
                counts.append(n)
                totals.append(n_with)
    withheld = withheld_cells(
        counts,
        _sums(keys),
        smallest,
        ranks=[_rank(names, side) for names, _, side in keys],
    )
    shown = [i for i, key in enumerate(keys) if key[2] != UNASSIGNED]
    return tuple(
        _cell(*keys[i]) if i in withheld else _cell(*keys[i], counts[i], totals[i]) for i in shown
    )


def _rank(names: tuple[str, ...], side: str) -> int:
    """Order of withholding: cells that are not shown anyway, then pairs, then single partitions."""
    return -1 if side == UNASSIGNED else (side == ALL) + 2 * (len(names) == 1)


def _cell(
    names: tuple[str, ...],
    levels: tuple[str, ...],
    side: str,
    n: int | None = None,
    total: int = 0,
) -> DemographicCell:
    """Return a cell with its share of the patients with values; without `n` it is withheld."""
    return DemographicCell(
        attributes=names,
        levels=levels,
        partition=side,
        n_patients=n,
        share=None if n is None or not total else n / total,
        share_ci95=None if n is None or not total else wilson_interval(n, total),
    )


def count_levels(
    group: Sequence[AttributeValues], patients: Coded, rows: NDArray[np.bool_]
) -> tuple[dict[tuple[str, ...], int], int]:
    """Count patients by level or combination among some rows, and those with any value there."""
    shape = tuple(len(x.levels) for x in group)
    known = rows & np.all([x.codes >= 0 for x in group], axis=0)
    people = patients.codes[known]
    places = np.ravel_multi_index(tuple(x.codes[known] for x in group), shape)
    has = membership(people, places.astype(np.intp), len(patients.names), int(np.prod(shape)))
    n_patients = has.sum(axis=0).astype(int).reshape(shape)
    by_level = {
        tuple(x.levels[i] for x, i in zip(group, at, strict=True)): int(n)
        for at, n in np.ndenumerate(n_patients)
    }
    return by_level, int((has.sum(axis=1) > 0).sum())


def _sums(keys: Sequence[tuple[tuple[str, ...], tuple[str, ...], str]]) -> list[Sum]:
    """List the sums that a reader can form: partitions to all, levels to totals, pairs to levels.

    Patients with several levels, and pairs of which one value is missing, make the sums inexact; a
    reader does not know that, and nothing is gained by leaving such sums out.
    """
    at = {key: i for i, key in enumerate(keys)}
    wholes: dict[tuple[tuple[str, ...], int], list[int]] = defaultdict(list)
    totals: dict[tuple[tuple[str, ...], str], list[int]] = defaultdict(list)
    for (names, levels, side), i in at.items():
        if side != ALL:
            wholes[names, at[names, levels, ALL]].append(i)
        if len(names) == 1:
            totals[names, side].append(i)
            continue
        for name, level in zip(names, levels, strict=True):
            wholes[names, at[(name,), (level,), side]].append(i)
    found = [Sum(tuple(parts), whole) for (_, whole), parts in wholes.items()]
    return found + [Sum(tuple(parts)) for parts in totals.values()]
