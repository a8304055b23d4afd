"""Distributions and far images are those one finds by hand."""

import numpy as np
import pandas as pd

from governance.records.base import TEST, TRAINING
from medisynth.data.audit.quality import QUANTITIES, image_quality


def table(values: list[float], column: str = "mean_intensity") -> pd.DataFrame:
    names = [f"image{i}" for i in range(len(values))]
    patients = [str(i // 2) for i in range(len(values))]
    return pd.DataFrame({"image_id": names, "patient_id": patients, column: values})


def test_quantiles_of_0_to_100_are_their_percents():
    (found,) = image_quality(table([float(i) for i in range(101)]))

    assert found.quantiles == (0, 1, 5, 25, 50, 75, 95, 99, 100)
    assert (found.quantity, found.unit, found.partition) == ("mean_intensity", "grey levels", "all")
    assert (found.n_images, found.n_patients, found.n_outliers) == (101, 51, 0)


def test_images_beyond_three_interquartile_ranges_are_named_farthest_first():
    # quartiles 1 and 3, so the fences are -5 and 9
    (found,) = image_quality(table([1.0, 2.0, 3.0] * 10 + [9.0, 9.5, -20.0]))

    assert found.n_outliers == 2
    assert found.outliers == ("image32", "image31")


def test_at_most_twenty_far_images_are_named_and_all_are_counted():
    (found,) = image_quality(table([1.0, 2.0, 3.0] * 100 + [100.0 + i for i in range(30)]))

    assert found.n_outliers == 30
    assert len(found.outliers) == 20
    assert found.outliers[0] == "image329"


def test_equal_quartiles_give_no_scale_and_so_no_far_image():
    (found,) = image_quality(table([128] * 50 + [500], "width_px"))

    assert found.n_outliers == 0
    assert found.quantiles[-1] == 500


def test_each_partition_is_held_against_the_quartiles_of_all_images():
    images = table([1.0, 2.0, 3.0] * 20 + [50.0, 51.0])
    partition = pd.Series([TRAINING] * 60 + [TEST] * 2)
    whole, training, test = image_quality(images, partition)

    assert [x.partition for x in (whole, training, test)] == ["all", TRAINING, TEST]
    assert (whole.n_outliers, training.n_outliers, test.n_outliers) == (2, 0, 2)


def test_missing_values_and_absent_columns_are_left_out():
    images = table([1.0, np.nan, 3.0]).assign(sharpness=np.nan)
    (found,) = image_quality(images)

    assert found.n_images == 2
    assert set(QUANTITIES) > {"mean_intensity", "sharpness"}
