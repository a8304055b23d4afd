"""Findings from the metadata table: numbers of images, and patients on both sides of a split."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import comb
from pathlib import Path

import numpy as np

from governance.records.errors import DataError
from medisynth.data.reading.csv_table import filled_fault, flag_fault, name_fault, read_strict
from medisynth.studies.midl2023.findings import CODE, PAPER, Finding, Value, Verdict, count, number

CEREBELLUM, THALAMIC = "Trans-cerebellum", "Trans-thalamic"
MACHINE = "Voluson E6"
CLAIMED_TRAINING, CLAIMED_PRETRAINING = 408, 1072
"""Numbers of images as the paper prints them."""

TRAINING_SHARE = Fraction(8, 10)
SHUFFLE_SEED = 42
"""This and the constant above are read in the published `data_preprocessing.ipynb`."""

_BRAIN = "Fetal brain"
_OTHER = "Other"
_REQUIRED = ("Image_name", "Patient_num", "Plane", "Brain_plane", "US_Machine", "Train")


@dataclass(frozen=True)
class Row:
    """One image of the table.

    Attributes:
        name: `Image_name`.
        patient: `Patient_num`.
        plane: `Brain_plane` of a brain image, else `Plane`.
        machine: `US_Machine`.
        training: Whether the official split has it in training.
        brain: Whether `Plane` is "Fetal brain".
    """

    name: str
    patient: str
    plane: str
    machine: str
    training: bool
    brain: bool


@dataclass(frozen=True)
class Table:
    """The metadata table.

    Attributes:
        rows: Images in file order.
        file: Name of the file.
        sha256: Digest of its bytes.
    """

    rows: tuple[Row, ...]
    file: str
    sha256: str

    def of(self, plane: str, machine: str = MACHINE) -> tuple[Row, ...]:
        """Return the brain images of one plane and machine, in file order."""
        return tuple(r for r in self.rows if r.brain and (r.plane, r.machine) == (plane, machine))


def read_table(path: Path) -> Table:
    """Read the metadata table of FETAL_PLANES_DB.

    Raises:
        DataError: The file is missing, is not this table, has an unusable value, or holds no
            image of the plane and machine that the paper names.
    """
    table = read_strict(path, delimiter=";", required=_REQUIRED)
    table.check("Image_name", name_fault)
    for column in _REQUIRED[1:-1]:
        table.check(column, filled_fault)
    table.check("Train", flag_fault)
    table.check_unique("Image_name")
    table.findings.raise_if_any()
    read = Table(tuple(_row(record.values) for record in table.records), path.name, table.sha256)
    for plane in (CEREBELLUM, THALAMIC):
        if not read.of(plane):
            raise DataError(
                f"{path.name}: no brain image has Brain_plane '{plane}' and US_Machine "
                f"'{MACHINE}'; expected the table of FETAL_PLANES_DB",
                code="D101",
            )
    return read


def _row(values: Mapping[str, str]) -> Row:
    brain = values["Plane"] == _BRAIN
    return Row(
        name=values["Image_name"],
        patient=values["Patient_num"],
        plane=values["Brain_plane"] if brain else values["Plane"],
        machine=values["US_Machine"],
        training=values["Train"] == "1",
        brain=brain,
    )


def groups_of_size(table: Table, size: int) -> tuple[str, ...]:
    """Find the groups of brain images that have exactly this many rows.

    Groups are by brain plane, with or without a machine, with or without a side of the official
    split.

    Returns:
        Names such as "Trans-ventricular, Voluson E6, training and test", in order.
    """
    sizes: Counter[str] = Counter()
    for row in table.rows:
        if row.brain:
            side = "official training" if row.training else "official test"
            for machine in (row.machine, "all machines"):
                for part in (side, "official training and test"):
                    sizes[f"{row.plane}, {machine}, {part}"] += 1
    return tuple(sorted(name for name, n in sizes.items() if n == size))


def training_images(table: Table) -> Finding:
    """Check whether the paper's plane and machine have the number of training images it states."""
    rows = table.of(CEREBELLUM)
    n_training, n_all = sum(r.training for r in rows), len(rows)
    n_kept = int(TRAINING_SHARE * n_all)
    filters = f"Brain_plane = {CEREBELLUM}, US_Machine = {MACHINE}"
    values = (
        count("images of the plane and machine", n_all, f"rows with {filters}"),
        count("their patients", len({r.patient for r in rows}), "different Patient_num of these"),
        count("official training images", n_training, "of these, Train = 1"),
        count("official test images", n_all - n_training, "of these, Train = 0"),
        count("images left by a split of 80 : 20", n_kept, f"integer part of 0.8 x {n_all}"),
        _groups(table, CLAIMED_TRAINING),
    )
    found = CLAIMED_TRAINING in {n_all, n_training, n_all - n_training, n_kept}
    verdict = Verdict.REPRODUCED if found else Verdict.NOT_AS_STATED
    return Finding(
        "1.1",
        "Number of training images",
        f'"Trans-cerebellum brain plane ultrasound images from Voluson E6 were used for this work, '
        f'consisting of {CLAIMED_TRAINING} training images"',
        f"{PAPER}, section 2.4 Datasets",
        values,
        verdict,
        f"{CLAIMED_TRAINING} is {'one' if found else 'none'} of the counts of this plane and "
        "machine; the values say which group of the table has that many rows.",
        table.file,
        f"the split of 80 : 20 ({CODE}, notebooks/style-swin-gan/data_preprocessing.ipynb)",
    )


def pretraining_images(table: Table) -> Finding:
    """Identify the 1,072 images of the pre-training."""
    rows = table.of(THALAMIC)
    n_training, n_all = sum(r.training for r in rows), len(rows)
    filters = f"Brain_plane = {THALAMIC}, US_Machine = {MACHINE}"
    found = n_all == CLAIMED_PRETRAINING
    n_kept = int(TRAINING_SHARE * n_all)
    values = (
        count("images of the plane and machine", n_all, f"rows with {filters}"),
        count("of these in the official training set", n_training, "Train = 1", of=n_all),
        count("of these in the official test set", n_all - n_training, "Train = 0", of=n_all),
        count("images left by a split of 80 : 20", n_kept, f"integer part of 0.8 x {n_all}"),
        _groups(table, CLAIMED_PRETRAINING),
    )
    return Finding(
        "1.2",
        "Number of images of the pre-training",
        '"firstly pre-trained on Trans-thalamus plane for 500 epochs as contains larger number of '
        f'images ({CLAIMED_PRETRAINING})"',
        f"{PAPER}, section 3 Experiments",
        values,
        Verdict.REPRODUCED if found else Verdict.NOT_AS_STATED,
        f"{CLAIMED_PRETRAINING:,} is the count of all images of the plane and machine, the official"
        " test set included: no official split was kept."
        if found
        else f"{CLAIMED_PRETRAINING:,} is not the count of this plane and machine.",
        table.file,
        f"the split of 80 : 20 ({CODE}, notebooks/style-swin-gan/data_preprocessing.ipynb)",
    )


def _groups(table: Table, size: int) -> Value:
    names = groups_of_size(table, size)
    shown = "; ".join(names) if names else "none"
    rule = "rows counted by Brain_plane, with and without US_Machine and Train"
    return Value(f"groups of brain images with exactly {size:,} rows", shown, shown, rule)


def expected_overlap(images_per_patient: Sequence[int], n_training: int) -> float:
    """Expected number of patients on both sides of a random split of images.

    Args:
        images_per_patient: Images of each patient, 1 or more.
        n_training: Images drawn for training, without replacement.

    Returns:
        Sum over patients of 1 - P(all images in training) - P(none in training), hypergeometric;
        exact up to the last rounding.
    """
    n = sum(images_per_patient)
    drawn = comb(n, n_training)
    total = Fraction(0)
    for k, n_patients in Counter(images_per_patient).items():
        none = comb(n - k, n_training)
        every = comb(n - k, n_training - k) if k <= n_training else 0
        total += n_patients * (1 - Fraction(none + every, drawn))
    return float(total)


def published_split(table: Table) -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """Reproduce the split of the published notebook, run once from top to bottom.

    NumPy's legacy generator, seed 42; planes in order of first appearance among brain images of
    known plane and machine; for each, the names of the Voluson E6 images in file order are
    shuffled, and the first 80 % are training.

    Returns:
        For each plane: names of training images and of the others.
    """
    planes = dict.fromkeys(
        r.plane for r in table.rows if r.brain and _OTHER not in {r.plane, r.machine}
    )
    generator = np.random.RandomState(SHUFFLE_SEED)
    parts = {}
    for plane in planes:
        names = np.array([r.name for r in table.of(plane)], dtype=object)
        generator.shuffle(names)
        n_training = int(TRAINING_SHARE * len(names))
        parts[plane] = (frozenset(names[:n_training]), frozenset(names[n_training:]))
    return parts


def patients_on_both_sides(table: Table) -> Finding:
    """Count the patients that a split by image puts on both sides."""
    rows = table.of(CEREBELLUM)
    per_patient = Counter(r.patient for r in rows)
    n_patients = len(per_patient)
    n_several = sum(k > 1 for k in per_patient.values())
    n_pretrained = len({r.patient for r in table.of(THALAMIC)} & set(per_patient))
    values = (
        count("patients with more than one image", n_several, "Patient_num", of=n_patients),
        _expected_value(tuple(per_patient.values())),
        *_published_values(table, rows, n_patients),
        count(
            "patients with a trans-thalamic image too, the plane of the pre-training",
            n_pretrained,
            f"Patient_num in both planes, {MACHINE}",
            of=n_patients,
        ),
    )
    return Finding(
        "6.2",
        "Patients on both sides",
        "FID measures the distance between synthesised and original images; nothing is said about "
        "keeping patients apart",
        f"{PAPER}, section 2.3 Image Quality Assessment",
        values,
        Verdict.UNDECIDED,
        "The lists that were used are not public. Splitting by image, as the code does, puts "
        "patients on both sides; the values say how many in the split that its seed gives.",
        table.file,
        f"split by image, 80 : 20, seed {SHUFFLE_SEED} "
        f"({CODE}, notebooks/style-swin-gan/data_preprocessing.ipynb)",
    )


def _expected_value(images_per_patient: Sequence[int]) -> Value:
    n = sum(images_per_patient)
    n_training = int(TRAINING_SHARE * n)
    return number(
        "patients expected on both sides of a random 80 : 20 split",
        expected_overlap(images_per_patient, n_training),
        "sum over patients with k images of 1 - [C(n-k, t) + C(n-k, t-k)] / C(n, t), with "
        f"n = {n} images and t = {n_training} of them in training",
        digits=1,
    )


def _published_values(table: Table, rows: Sequence[Row], n_patients: int) -> tuple[Value, Value]:
    training, other = published_split(table)[CEREBELLUM]
    trained = {r.patient for r in rows if r.name in training}
    both = trained & {r.patient for r in rows if r.name in other}
    rule = (
        f"RandomState({SHUFFLE_SEED}), planes in order of appearance, names in file order, first "
        "80 % are training"
    )
    n_seen = sum(r.name in other and r.patient in both for r in rows)
    return (
        count("patients on both sides of the published split", len(both), rule, of=n_patients),
        count("images held out whose patient is in training", n_seen, "same split", of=len(other)),
    )
