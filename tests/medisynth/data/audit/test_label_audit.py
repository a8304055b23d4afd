import csv
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from governance.records.audit import LabelAudit
from governance.records.errors import DataError, SettingsError
from medisynth.data.audit.labels import (
    MAX_SUSPECTS,
    SUSPECT_BELOW,
    _calibrated,
    _gradient_histograms,
    audit_labels,
)
from medisynth.intervals import most_unseen
from tests.places import KIT

REAL = KIT / "fetal_planes_db"
ACROSS, DOWN = "stripes across", "stripes down"


def striped(classes, seed=0):
    """Noisy stripes, 8 pixels wide, shifted at random: each class has one direction."""
    rng = np.random.default_rng(seed)
    images = []
    for name in classes:
        stripes = 128 + 80 * np.sign(np.sin((np.arange(64) + rng.integers(16)) * np.pi / 8))
        image = np.broadcast_to(stripes[:, None] if name == ACROSS else stripes, (64, 64))
        images.append(np.clip(image + rng.normal(0, 20, (64, 64)), 0, 255))
    return np.stack(images).astype(np.uint8)


def listed(brain_planes, patients=None, plane="Fetal brain"):
    n = len(brain_planes)
    columns = {
        "image_id": [f"image{k:03d}" for k in range(n)],
        "patient_id": patients if patients is not None else [str(k // 2) for k in range(n)],
        "plane": [plane] * n if isinstance(plane, str) else plane,
        "brain_plane": brain_planes,
    }
    return pd.DataFrame(columns, dtype="string")


@pytest.fixture(scope="module")
def clear():
    """120 images of 60 patients in two classes that anybody can tell apart."""
    classes = [ACROSS if k % 2 else DOWN for k in range(120)]
    return classes, striped(classes)


@pytest.fixture(scope="module")
def swapped(clear):
    classes, images = clear
    wrong = (7, 30, 55, 90)
    given = [(DOWN if c == ACROSS else ACROSS) if k in wrong else c for k, c in enumerate(classes)]
    return wrong, given, audit_labels(listed(given), images, seed=1)


def test_labels_that_were_swapped_are_suspected_and_no_other(swapped):
    wrong, _, audit = swapped

    assert {s.image_id for s in audit.suspects} == {f"image{k:03d}" for k in wrong}
    assert audit.n_suspected == 4
    low, high = audit.rate_ci95
    assert 0 < low < 4 / 120 < high
    assert audit.balanced_accuracy == pytest.approx(116 / 120, abs=0.001)
    assert audit.reason == ""


def test_a_suspect_carries_the_label_that_was_true_and_the_most_suspect_stands_first(
    swapped, clear
):
    _, given, audit = swapped
    classes, _ = clear

    for suspect in audit.suspects:
        k = int(suspect.image_id.removeprefix("image"))
        assert (suspect.given, suspect.suggested) == (given[k], classes[k])
        assert 0 <= suspect.probability_of_given < SUSPECT_BELOW
    probabilities = [s.probability_of_given for s in audit.suspects]
    assert probabilities == sorted(probabilities)


def test_the_effect_says_what_changes_and_that_a_suspicion_is_a_question(swapped):
    _, _, audit = swapped

    assert "4 of 120 images (3.3%)" in audit.effect
    assert "use no label and do not change" in audit.effect
    assert "a question to whoever labelled the image, not an error" in audit.effect


def test_right_labels_are_not_suspected(clear):
    classes, images = clear

    audit = audit_labels(listed(classes), images, seed=1)

    assert audit.balanced_accuracy == 1.0
    assert (audit.n_suspected, audit.suspects) == (0, ())
    assert audit.rate_ci95 == (0.0, most_unseen(audit.n_patients))
    assert audit.effect.startswith("No label is suspected.")


def test_equal_input_and_seed_give_an_equal_audit(swapped, clear):
    _, given, audit = swapped

    assert audit_labels(listed(given), clear[1], seed=1) == audit


def test_noise_cannot_be_judged_and_nothing_is_suspected():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (120, 64, 64), dtype=np.uint8)

    audit = audit_labels(listed([ACROSS, DOWN] * 60), images, seed=0)

    assert audit.reason.startswith("the model cannot judge these labels: balanced accuracy 0.")
    assert "chance 0.50" in audit.reason
    assert audit.balanced_accuracy is not None
    assert (audit.n_suspected, audit.suspects, audit.rate_ci95) == (0, (), None)


def test_knowing_a_patient_does_not_help_since_none_is_in_two_folds():
    """Each patient has a picture of its own and one label drawn at random.

    With a patient on both sides every label would be learnt by heart, and the image whose label
    differs from its patient's other nine would be suspected.
    """
    rng = np.random.default_rng(3)
    pictures = rng.integers(0, 256, (40, 64, 64))
    labels = rng.permutation([ACROSS, DOWN] * 20)
    images = np.repeat(pictures, 10, axis=0) + rng.normal(0, 5, (400, 64, 64))
    given = np.repeat(labels, 10).tolist()
    given[0] = ACROSS if given[0] == DOWN else DOWN
    table = listed(given, [str(k // 10) for k in range(400)])

    audit = audit_labels(table, np.clip(images, 0, 255).astype(np.uint8), seed=0)

    assert audit.balanced_accuracy is not None
    assert audit.balanced_accuracy < 0.7
    assert audit.suspects == ()
    assert "cannot judge" in audit.reason


def test_brain_planes_are_audited_where_there_are_two(clear):
    classes, images = clear

    audit = audit_labels(listed(classes, plane=["A", "B"] * 60), images, seed=0)

    assert audit.label == "brain_plane"
    assert audit.classes == {ACROSS: 60, DOWN: 60}
    assert (audit.n_images, audit.n_patients) == (120, 60)


def test_planes_are_audited_where_brain_planes_are_not_recorded(clear):
    classes, images = clear

    audit = audit_labels(listed([pd.NA] * 120, plane=classes), images, seed=0)

    assert audit.label == "plane"
    assert audit.balanced_accuracy == 1.0


def test_the_label_asked_for_is_audited(clear):
    classes, images = clear

    audit = audit_labels(listed(["A", "B"] * 60, plane=classes), images, label="plane", seed=0)

    assert audit.label == "plane"


@pytest.mark.parametrize("label", [None, "plane"])
def test_one_class_leaves_nothing_to_audit(label, clear):
    audit = audit_labels(listed([pd.NA] * 120), clear[1], label=label, seed=0)

    assert audit.label == ""
    assert "plane has 1" in audit.reason
    assert audit.balanced_accuracy is None
    assert audit.suspects == ()


def test_images_without_a_label_are_not_counted(clear):
    classes, images = clear
    given = [pd.NA, pd.NA, *classes[2:]]

    audit = audit_labels(listed(given), images, seed=0)

    assert (audit.n_images, audit.n_patients) == (118, 59)
    assert sum(audit.classes.values()) == 118


def test_a_class_of_too_few_patients_is_left_out_by_name(clear):
    classes, images = clear
    given = [*classes[:112], *["Rare"] * 8]  # 4 patients, 5 folds

    audit = audit_labels(listed(given), images, seed=0)

    assert audit.method.endswith("left out for fewer than 5 patients: Rare")
    assert audit.classes["Rare"] == 8
    assert audit.rate_ci95[1] >= most_unseen(audit.n_patients)


def test_two_patients_are_too_few_to_judge_anything(clear):
    classes, images = clear

    audit = audit_labels(listed(classes, ["1", "2"] * 60), images, seed=0)

    assert audit.reason == "fewer than two classes have 5 patients or more"
    assert audit.label == "brain_plane"
    assert audit.suspects == ()


def test_progress_is_told_after_every_fold(clear):
    classes, images = clear
    told = []

    audit_labels(
        listed(classes), images, n_folds=3, seed=0, progress=lambda *done: told.append(done)
    )

    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_method_names_libraries_with_versions_and_folds(swapped):
    import cleanlab

    assert f"cleanlab {cleanlab.__version__}" in swapped[2].method
    assert "5 folds, no patient in two" in swapped[2].method


def test_a_column_that_does_not_exist_is_refused(clear):
    with pytest.raises(SettingsError, match="no column 'views'"):
        audit_labels(listed(clear[0]), clear[1], label="views", seed=0)


def test_fewer_thumbnails_than_rows_are_refused(clear):
    with pytest.raises(DataError, match="120 images but thumbnails of shape"):
        audit_labels(listed(clear[0]), clear[1][:7], seed=0)


def test_one_fold_is_refused(clear):
    with pytest.raises(SettingsError, match="found 1, expected at least 2"):
        audit_labels(listed(clear[0]), clear[1], n_folds=1, seed=0)


def test_an_upright_edge_has_one_direction_of_equal_strength_in_every_cell_it_crosses():
    image = np.zeros((1, 64, 64), np.uint8)
    image[:, :, 12:] = 100  # the edge lies in the second column of cells

    histograms = _gradient_histograms(image).reshape(8, 8, 8)  # direction, row, column of cells

    assert np.count_nonzero(histograms) == 8
    assert histograms[0, :, 1] == pytest.approx(1 / np.sqrt(8))  # length 1 over eight cells


def test_a_model_that_is_too_sure_is_tempered_to_what_it_gets_right():
    """It says 99 per cent for the first class of two, which 75 of 100 images have."""
    codes = np.repeat([0, 1], [75, 25])
    probability = np.tile([0.99, 0.01], (100, 1))

    assert _calibrated(probability, codes) == pytest.approx(
        np.tile([0.75, 0.25], (100, 1)), abs=0.001
    )


def test_the_audit_is_read_back_from_its_json_as_it_was(swapped):
    audit = swapped[2]

    assert LabelAudit.model_validate_json(audit.model_dump_json()) == audit
    assert audit.n_suspected == 4
    assert len(audit.suspects) <= MAX_SUSPECTS


def test_the_module_is_light_and_the_audit_imports_no_torch():
    code = (
        "import sys, medisynth.data.audit.labels as a; "
        "light = not {'sklearn', 'cleanlab'} & set(sys.modules); "
        "import cleanlab.filter; sys.exit(not light or 'torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603


def test_planes_of_the_real_images_are_judged_better_than_chance():
    metadata = REAL / "FETAL_PLANES_DB_data.csv"
    if not metadata.is_file():
        pytest.skip("the real images are not on this machine")
    with metadata.open() as stream:
        rows = list(csv.DictReader(stream, delimiter=";"))
    rows = [r for r in rows if (REAL / "Images" / f"{r['Image_name']}.png").exists()]
    thumbnails = []
    for row in rows:
        with Image.open(REAL / "Images" / f"{row['Image_name']}.png") as image:
            small = image.convert("L").resize((64, 64), Image.Resampling.BOX)
            thumbnails.append(np.asarray(small))
    table = listed(
        [pd.NA] * len(rows), [r["Patient_num"] for r in rows], [r["Plane"] for r in rows]
    )

    audit = audit_labels(table, np.stack(thumbnails), seed=0)

    assert (audit.label, audit.n_images, audit.n_patients) == ("plane", 120, 103)
    assert audit.reason == ""
    assert audit.balanced_accuracy is not None
    assert audit.balanced_accuracy > 0.4  # chance is 0.17
