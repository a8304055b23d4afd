"""Split of images into training, tuning and held-out test set; no group is ever divided."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd

from governance.records.base import PARTITIONS, TEST, TRAINING, TUNING
from governance.records.duplicates import DuplicatePair
from governance.records.errors import DataError, LeakageError, SettingsError
from medisynth.data.duplicates.exact import exact_pairs

_MAX_NAMED = 20
_EXACT = "exact copy of an image in the held-out test set"
_NEAR = "near-duplicate of an image in the held-out test set"
_TIED = "same patient, or a patient tied by a copy, as images in the held-out test set"


@dataclass(frozen=True)
class SplitResult:
    """A split in which every group of images lies in one partition.

    Attributes:
        partition: "training", "tuning" or "held-out test set" of each image that is used, on the
            table's index; dropped images are not in it.
        dropped: Id of each image that was dropped, and why.
        deviations: Sentences on how the split departs from the data set's official one.
    """

    partition: pd.Series
    dropped: tuple[tuple[str, str], ...] = ()
    deviations: tuple[str, ...] = ()


def split_images(
    table: pd.DataFrame,
    groups: pd.Series,
    *,
    pairs: Sequence[DuplicatePair] = (),
    source: Literal["official", "computed"],
    test_fraction: float,
    tuning_fraction: float,
    seed: int,
    on_duplicate: Literal["stop", "drop_training"],
    tuning_from: Literal["training", "held-out"] = "training",
) -> SplitResult:
    """Split images by group.

    Groups are shuffled with a generator made from the seed, within strata of plane and machine,
    so that file order (often a shift in gestational age) plays no part. The same seed gives the
    same split whatever the order of rows.

    Args:
        table: Rows with image_id, patient_id, pixel_sha256, file_sha256, plane, brain_plane,
            machine and official_partition; unique index.
        groups: Group of each row, as from `duplicates.exact.leakage_groups`, on the same index.
        pairs: The pairs behind the groups, so that errors and reasons can name them; exact pairs
            are looked up by their digests where none are given.
        source: "official" keeps the held-out test set that the data set brings and takes tuning
            groups out of its training part; "computed" draws both.
        test_fraction: Share of all groups that is held out, 0 to 1; for "computed" only.
        tuning_fraction: Share of the remaining groups that tunes, 0 to 1.
        seed: Seed of the shuffling, 0 or above.
        on_duplicate: What to do with a group that crosses the official split: "stop", or
            "drop_training" to drop its training images, on record.
        tuning_from: Where an official split takes tuning groups from: its training part, or the
            held-out part where nothing is trained here and all training images must be searched.

    Raises:
        SettingsError: A fraction or the seed is out of range.
        LeakageError: A group crosses the official split and must not.
        DataError: The data set brings no official split, or a partition would be empty.
    """
    _check_settings(test_fraction, tuning_fraction, seed)
    if source == "official":
        held_out, dropped, deviations = _official(table, groups, pairs, on_duplicate)
    else:
        held_out, dropped, deviations = _computed(table, groups, test_fraction, seed)
    used = ~dropped.notna()
    from_held_out = source == "official" and tuning_from == "held-out"
    rest = table[used & (held_out if from_held_out else ~held_out)]
    tuning_groups = _draw(rest, groups[rest.index], tuning_fraction, seed, stream=1)
    partition = pd.Series(TRAINING, index=table.index, dtype="string", name="partition")
    partition[held_out] = TEST
    partition[groups.isin(tuning_groups)] = TUNING
    partition = partition[used]
    _check_filled(table, partition, groups, source)
    reasons = zip(table["image_id"][~used].astype(str), dropped[~used].astype(str), strict=True)
    return SplitResult(partition, tuple(sorted(reasons)), deviations)


def partition_overlaps(
    table: pd.DataFrame, partition: pd.Series
) -> tuple[dict[str, int], dict[str, int]]:
    """Count the patients and pictures that two partitions share; a sound split gives 0 everywhere.

    Args:
        table: Rows with patient_id and pixel_sha256.
        partition: Partition of rows, on the table's index; rows without one are not counted.

    Returns:
        Shared patients, then shared picture contents, under keys such as "training | tuning".
    """
    patients: dict[str, int] = {}
    contents: dict[str, int] = {}
    for left, right in combinations(PARTITIONS, 2):
        for counts, column in ((patients, "patient_id"), (contents, "pixel_sha256")):
            values = table[column].reindex(partition.index)
            shared = set(values[partition == left]) & set(values[partition == right])
            counts[f"{left} | {right}"] = len(shared)
    return patients, contents


def _check_settings(test_fraction: float, tuning_fraction: float, seed: int) -> None:
    for name, value in (("test_fraction", test_fraction), ("tuning_fraction", tuning_fraction)):
        if not 0 < value < 1:
            raise SettingsError(f"split.{name}: found {value}, expected between 0 and 1")
    if seed < 0:
        raise SettingsError(f"split.seed: found {seed}, expected 0 or above")


def _computed(
    table: pd.DataFrame, groups: pd.Series, test_fraction: float, seed: int
) -> tuple[pd.Series, pd.Series, tuple[str, ...]]:
    n_groups = groups.nunique()
    if n_groups < len(PARTITIONS):
        raise DataError(
            f"{len(table):,} selected images form {n_groups} group(s) that must not be divided; "
            "expected at least 3, one for each partition; select more images",
            code="D052",
        )
    held_out = groups.isin(_draw(table, groups, test_fraction, seed, stream=0)).astype(bool)
    deviations: tuple[str, ...] = ()
    if table["official_partition"].notna().any():
        moved = held_out != (table["official_partition"] == TEST).fillna(False).astype(bool)
        deviations = (
            "the official split of the data set was not used (split.source is computed): "
            f"{int(moved.sum()):,} of {len(table):,} images are on another side of the held-out "
            "test set; results cannot be compared with those on the official split",
        )
    return held_out, pd.Series(pd.NA, index=table.index, dtype="string"), deviations


def _official(
    table: pd.DataFrame,
    groups: pd.Series,
    pairs: Sequence[DuplicatePair],
    on_duplicate: Literal["stop", "drop_training"],
) -> tuple[pd.Series, pd.Series, tuple[str, ...]]:
    _check_official(table["official_partition"])
    held_out = (table["official_partition"] == TEST).astype(bool)
    crossing = set(groups[held_out]) & set(groups[~held_out])
    if not crossing:
        return held_out, pd.Series(pd.NA, index=table.index, dtype="string"), ()
    if on_duplicate == "stop":
        raise _leakage_error(table[groups.isin(crossing)], held_out, pairs)
    to_drop = groups.isin(crossing) & ~held_out
    dropped = _reasons(table, held_out, pairs).where(to_drop)
    n_exact, n_near = (int(dropped.str.startswith(word).sum()) for word in (_EXACT, _NEAR))
    deviation = (
        f"the official split was not kept whole: {int(to_drop.sum()):,} official training images "
        f"in {len(crossing):,} groups that cross it were dropped "
        f"({n_exact:,} of them exact copies and {n_near:,} near-duplicates of test images)"
    )
    return held_out, dropped, (deviation,)


def _check_official(official: pd.Series) -> None:
    n_without = int(official.isna().sum())
    if n_without == len(official):
        raise DataError(
            "the data set brings no official split; set split.source=computed", code="D050"
        )
    if n_without:
        raise DataError(
            f"{n_without:,} of {len(official):,} selected images have no official partition; set "
            "split.source=computed",
            code="D050",
        )
    unknown = sorted(set(official) - {TRAINING, TEST})
    if unknown:
        raise DataError(
            f"official_partition: found {unknown[0]!a}, expected {TRAINING!r} or {TEST!r}",
            code="D050",
        )


def _reasons(table: pd.DataFrame, held_out: pd.Series, pairs: Sequence[DuplicatePair]) -> pd.Series:
    """Why each image must not be used in training if its group crosses the official split."""
    ids = table["image_id"].astype(str)
    in_test = set(ids[held_out])
    similarity: dict[str, float] = {}
    for pair in pairs:
        for one, other in ((pair.left_id, pair.right_id), (pair.right_id, pair.left_id)):
            if other in in_test and pair.similarity is not None:
                similarity[one] = max(pair.similarity, similarity.get(one, 0.0))
    # Two numbers that share a picture are taken for one patient: none of the images may train.
    near = ids.map(similarity).map("{:.2f}".format)
    reason = (f"{_NEAR} (similarity " + near + ")").where(ids.isin(list(similarity)), _TIED)
    reason = reason.astype("string")
    reason[table["pixel_sha256"].isin(set(table["pixel_sha256"][held_out]))] = _EXACT
    return reason


def _leakage_error(
    crossing: pd.DataFrame, held_out: pd.Series, pairs: Sequence[DuplicatePair]
) -> LeakageError:
    """Return an error that names the patients and pictures on both sides of the official split."""
    side = held_out[crossing.index]
    in_test = dict(zip(crossing["image_id"].astype(str), side, strict=True))
    named = [
        pair.sentence
        for pair in pairs or exact_pairs(crossing)
        if pair.left_id in in_test
        and pair.right_id in in_test
        and in_test[pair.left_id] != in_test[pair.right_id]
    ]
    shared = set(crossing["patient_id"][side]) & set(crossing["patient_id"][~side])
    patients = [f"patient {patient} is on both sides" for patient in sorted(map(str, shared))]
    found = patients + named
    more = f"; and {len(found) - _MAX_NAMED:,} more" if len(found) > _MAX_NAMED else ""
    declare = (
        ", or list two pictures that a person found to be different in audit.distinct_pairs as "
        '"left = right: reason"'
        if named
        else ""
    )
    return LeakageError(
        f"the official split shares {len(patients):,} patients and {len(named):,} pairs of equal or "
        "nearly equal images between training and held-out test set; set "
        "split.on_duplicate=drop_training to drop the training images, or "
        f"split.source=computed{declare}: {'; '.join(found[:_MAX_NAMED])}{more}"
    )


def _draw(
    table: pd.DataFrame, groups: pd.Series, fraction: float, seed: int, *, stream: int
) -> list[str]:
    """Draw a share of the groups: evenly spaced over strata, at random within each.

    At least one group is drawn and at least one is left, where there are two.
    """
    strata = _strata(table, groups)
    n_groups = len(strata)
    if n_groups < 2:
        return []
    rng = np.random.default_rng([seed, stream])
    order = rng.permutation(n_groups)
    names = strata.index.to_numpy(dtype=object)[order]
    by_stratum = np.argsort(strata.to_numpy(dtype=object).astype(str)[order], kind="stable")
    n_drawn = min(max(1, round(fraction * n_groups)), n_groups - 1)
    places = np.floor((np.arange(n_drawn) + rng.random()) * n_groups / n_drawn).astype(int)
    places = np.minimum(places, n_groups - 1)  # rounding may reach the end
    return [str(name) for name in names[by_stratum][places]]


def _strata(table: pd.DataFrame, groups: pd.Series) -> pd.Series:
    """Stratum of each group, sorted by group: its most frequent plane and machine."""
    plane = table["brain_plane"].fillna(table["plane"]).fillna("")
    stratum = (plane + " | " + table["machine"].fillna("")).astype(str)
    counts = pd.DataFrame({"group": groups.astype(str), "stratum": stratum}).value_counts(
        sort=False
    )
    frame = counts.rename("n").reset_index()
    frame = frame.sort_values(["group", "n", "stratum"], ascending=[True, False, True])
    return frame.drop_duplicates("group").set_index("group")["stratum"]


def _check_filled(
    table: pd.DataFrame, partition: pd.Series, groups: pd.Series, source: str
) -> None:
    present = set(partition)
    empty = [name for name in PARTITIONS if name not in present]
    if not empty:
        return
    n_images = len(table)
    if source == "official" and TEST in empty:
        message = (
            f"all {n_images:,} selected images are official training, so there is no held-out test "
            "set; set split.source=computed"
        )
    elif source == "official" and TRAINING not in set(table["official_partition"]):
        message = (
            f"all {n_images:,} selected images are official held-out test set, so there is nothing "
            "to train on; set split.source=computed"
        )
    else:
        n_left = groups[partition.index][partition != TEST].nunique()
        message = (
            f"no image is left for {' and '.join(empty)}: outside the held-out test set there are "
            f"{n_left} group(s) that must not be divided, expected at least 2; select more images"
        )
    raise DataError(message, code="D051")
