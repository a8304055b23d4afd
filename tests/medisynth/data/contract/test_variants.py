"""One level written in two ways is an error that names both; levels declared apart are two."""

from pathlib import Path

import pandas as pd
import pytest

from governance.records.errors import DataError
from medisynth.data.adapters import DatasetInfo, Listing
from medisynth.data.adapters.listing_table import listing_table
from medisynth.data.adapters.selection import not_selected, select_planes
from medisynth.data.contract.contract import load_contract
from medisynth.data.contract.variants import level_variants


def listing(**columns: list[str | None]) -> Listing:
    n = len(next(iter(columns.values())))
    table = listing_table(
        {
            "image_id": [f"i{k}" for k in range(n)],
            "path": [f"Images/i{k}.png" for k in range(n)],
            "patient_id": [str(k) for k in range(n)],
            "plane": columns.pop("plane", ["Fetal brain"] * n),
            "row": list(range(2, n + 2)),
            **{name: columns.pop(name) for name in ("operator", "site") if name in columns},
        }
    )
    metadata = pd.DataFrame({k: pd.array(v, dtype="string") for k, v in columns.items()})
    return Listing(DatasetInfo("t", "T", "", "", "", ""), table, "t.csv", "0" * 64, metadata)


@pytest.mark.parametrize(
    ("written", "how"),
    [
        ("Fetal Brain", "letter case"),
        ("Fetal  brain", "blanks"),
        ("Fetal\u00a0brain", "blanks"),
        ("\uff26etal brain", "its Unicode form"),
        ("fetalbrain", "letter case, blanks or Unicode form"),
    ],
)
def test_a_value_that_is_a_known_level_but_for_its_writing_is_an_error_that_lists_both(
    written: str, how: str
):
    [found] = level_variants(
        listing(plane=["Fetal brain", written, "Fetal brain", written]), load_contract()
    )

    assert (found.code, found.where, found.row, found.column) == ("D026", "t.csv", 3, "plane")
    assert "(2 rows) differs from 'Fetal brain' (a known level, 2 rows)" in found.message
    assert f"only by {how};" in found.message


def test_probable_variants_of_an_attribute_without_known_levels_are_listed_side_by_side():
    found = level_variants(
        listing(operator=["Op. 2", "op.2", "Op. 2", "Op.  2", "Dr. Ada", None]), load_contract()
    )

    assert [(f.row, f.column) for f in found] == [(3, "operator"), (5, "operator")]
    assert all("differs from 'Op. 2' (2 rows)" in f.message for f in found)


def test_levels_that_the_users_contract_declares_are_two_however_alike(tmp_path: Path):
    own = tmp_path / "data_contract.yaml"
    own.write_text(
        "name: ours\nversion: 1\ncolumns:\n  operator:\n    allowed: [Op. 2, op.2]\n"
        "    severity: warning\n    reason: Two people.\n"
        "demographics:\n  - name: ward\n    column: Ward\n    kind: category\n    levels: [A, B]\n"
    )
    data = listing(operator=["Op. 2", "op.2", "OP. 2"], Ward=["A", "b", "B"])

    found = level_variants(data, load_contract(own=own))

    assert [(f.row, f.column) for f in found] == [(4, "operator"), (3, "attribute.ward")]


def test_rows_that_are_not_selected_are_counted_by_reason_and_an_unknown_plane_is_marked():
    data = listing(plane=["Fetal brain", "Fetal femur", "Fetal femur", "Fetal brian", None])
    selected = select_planes(data, "default")

    counts = not_selected(data.table, selected, ["Fetal brain", "Fetal femur"])

    assert counts == {
        "Fetal femur": 2,
        "Fetal brian (no known plane, nearest is Fetal brain)": 1,
        "no plane recorded": 1,
    }
    assert sum(counts.values()) == len(data.table) - len(selected)


def test_default_planes_written_otherwise_throughout_are_named_as_the_table_writes_them():
    with pytest.raises(DataError, match="which the table writes 'fetal brain'"):
        select_planes(listing(plane=["fetal brain", "Other"]), "default")
