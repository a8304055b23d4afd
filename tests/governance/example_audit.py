"""The data set audit of the example run: who is in the data, what goes together, what occurs twice.

All numbers are made up; they agree with each other and with the partitions of `example_run`.
"""

from collections.abc import Sequence
from itertools import pairwise

from governance.records.audit import (
    AttributeShift,
    Concentration,
    Confounding,
    CoverageAudit,
    CoverageLevel,
    DatasetAudit,
    DeclaredAttribute,
    DemographicCell,
    DemographicsAudit,
    LabelAudit,
    QuantityLevel,
    SuspectedLabel,
    TargetDistance,
)
from governance.records.base import PARTITIONS, TEST, TRAINING, TUNING, Document
from governance.records.content import ContentScan, IdentifyingColumn, TextMark
from governance.records.dataset import BoundaryCheck, BoundaryChecks, FlowLevel, FlowStep
from governance.records.duplicates import DuplicateAudit, DuplicatePair, SimilarityNull

# Partition -> (patients, images).
COUNTS = {TRAINING: (38, 80), TUNING: (8, 16), TEST: (12, 24), "all": (58, 120)}
N_LISTED, N_LISTED_PATIENTS = 12_400, 1_792
PAIRS = tuple(
    f"{left} | {right}"
    for place, left in enumerate(PARTITIONS)
    for right in PARTITIONS[place + 1 :]
)
PAIR_FIGURE = "figures/duplicates/pair-0001.png"
# Level -> (patients, images) in training, tuning, held-out test set. Nobody is in two levels.
_Parts = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
_LEVELS: dict[str, dict[str, _Parts]] = {
    "machine": {
        "Voluson E6": ((37, 79), (6, 13), (9, 19)),
        "Voluson S10": ((1, 1), (2, 3), (3, 5)),
    },
    "operator": {
        "Op. 1": ((20, 44), (4, 9), (6, 13)),
        "Op. 2": ((16, 33), (2, 4), (3, 6)),
        "Op. 3": ((2, 3), (0, 0), (0, 0)),
        "not recorded": ((0, 0), (2, 3), (3, 5)),
    },
    "plane": {
        "Fetal brain": ((35, 75), (7, 15), (11, 22)),
        "Other": ((3, 5), (1, 1), (1, 2)),
    },
}
# Level -> (patients, images) of the metadata file.
_LISTED = {
    "machine": {
        "Aloka": (776, 5_114),
        "Other": (118, 342),
        "Voluson E6": (807, 5_862),
        "Voluson S10": (91, 1_082),
    },
    "operator": {
        "Op. 1": (407, 2_792),
        "Op. 2": (344, 2_435),
        "Op. 3": (270, 3_560),
        "not recorded": (803, 3_613),
    },
    "plane": {
        "Fetal abdomen": (595, 711),
        "Fetal brain": (1_082, 3_092),
        "Fetal femur": (754, 1_040),
        "Fetal thorax": (755, 1_718),
        "Maternal cervix": (917, 1_626),
        "Other": (734, 4_213),
    },
}


def flow(odd: str) -> tuple[FlowStep, ...]:
    """Listed and present images, by level; both add up."""
    n_patients, n_images = COUNTS["all"]
    listed = tuple(
        FlowLevel(
            attribute=attribute, level=_named(level, odd), n_images=images, n_patients=patients
        )
        for attribute, levels in _LISTED.items()
        for level, (patients, images) in levels.items()
    )
    return (
        FlowStep(step="listed", n_images=N_LISTED, n_patients=N_LISTED_PATIENTS, levels=listed),
        FlowStep(
            step="present",
            n_images=n_images,
            n_patients=n_patients,
            note=f"{N_LISTED - n_images:,} listed files are missing",
            levels=_flow_levels(odd),
        ),
    )


def divided(odd: str) -> FlowStep:
    """What the partitions hold together, by level."""
    n_patients, n_images = COUNTS["all"]
    return FlowStep(
        step="divided", n_images=n_images, n_patients=n_patients, levels=_flow_levels(odd)
    )


def boundaries() -> BoundaryChecks:
    """The image table at four step boundaries."""
    steps = ("s1_ingest", "s2_validate", "s3_audit", "s4_split", "s5_train")
    return BoundaryChecks(
        checks=tuple(
            BoundaryCheck(boundary=f"{before} to {after}", n_rows=COUNTS["all"][1], n_rules=7)
            for before, after in pairwise(steps)
        )
    )


def coverage(odd: str) -> CoverageAudit:
    """Patients and images of each level in each partition, with shares."""
    levels = [
        CoverageLevel(
            attribute=attribute,
            level=_named(level, odd),
            partition=partition,
            n_patients=patients,
            n_images=images,
            share=round(patients / COUNTS[partition][0], 4),
            share_ci95=_wilson(patients, COUNTS[partition][0]),
        )
        for attribute, by_level in _LEVELS.items()
        for level, parts in by_level.items()
        for partition, (patients, images) in _with_all(parts).items()
    ]
    return CoverageAudit(
        attributes=tuple(_LEVELS),
        levels=tuple(levels),
        completeness={"machine": 1.0, "operator": 53 / 58, "plane": 1.0},
    )


def dataset_audit(odd: str) -> DatasetAudit:
    """Concentration, confounding, shift and image quality."""
    concentration = (
        ("all", "all", 58, 120, 0.05, 44.4),
        ("plane", "Fetal brain", 53, 112, 6 / 112, 41.7),
        ("plane", "Other", 5, 8, 3 / 8, 3.6),
        ("brain_plane", "Trans-thalamic", 40, 70, 4 / 70, 33.1),
        ("brain_plane", "Trans-cerebellum", 25, 42, 3 / 42, 20.3),
    )
    return DatasetAudit(
        concentration=tuple(
            Concentration(
                attribute=attribute,
                level=level,
                n_patients=n_patients,
                n_images=n_images,
                largest_patient=f"1{place} {odd}".strip(),
                largest_share=share,
                effective_patients=effective,
            )
            for place, (attribute, level, n_patients, n_images, share, effective) in enumerate(
                concentration
            )
        ),
        confounding=_confounding(odd),
        quality=_quality(),
        shifts=_shifts(odd),
        n_resamples=1_000,
        seed=7,
    )


def _confounding(odd: str) -> tuple[Confounding, ...]:
    rows = (
        (
            "operator",
            "machine",
            0.61,
            0.001,
            (f"operator Op. 3 only with machine Voluson E6 {odd}",),
        ),
        ("machine", "plane", 0.13, 0.214, ()),
        ("operator", "plane", 0.09, 0.522, ()),
    )
    return tuple(
        Confounding(
            left=left,
            right=right,
            v=v,
            p_value=p_value,
            n_permutations=999,
            n_patients=53 if "operator" in (left, right) else 58,
            n_images=112 if "operator" in (left, right) else 120,
            exclusive=tuple(words.strip() for words in exclusive),
        )
        for left, right, v, p_value, exclusive in rows
    )


def _shifts(odd: str) -> tuple[AttributeShift, ...]:
    rows = (
        ("machine", TEST, 0.2237, (0.02, 0.47), 0.23, ()),
        (
            "operator",
            TEST,
            0.14,
            (0.03, 0.43),
            0.31,
            (" ".join(f"Op. 3 {odd} only in training".split()),),
        ),
        ("plane", TEST, 0.0044, (0.0, 0.21), 0.17, ()),
        ("machine", TUNING, 0.2237, (0.01, 0.52), 0.27, ()),
        (
            "operator",
            TUNING,
            0.14,
            (0.02, 0.49),
            0.36,
            (" ".join(f"Op. 3 {odd} only in training".split()),),
        ),
        ("plane", TUNING, 0.0461, (0.0, 0.33), 0.21, ()),
    )
    return tuple(
        AttributeShift(
            attribute=attribute,
            left=TRAINING,
            right=right,
            total_variation=variation,
            ci95=interval,
            floor=floor,
            one_sided=one_sided,
        )
        for attribute, right, variation, interval, floor, one_sided in rows
    )


def _quality() -> tuple[QuantityLevel, ...]:
    rows = (
        ("mean_intensity", "grey levels", (21.0, 24.5, 31.0, 44.0, 52.5, 61.0, 78.0, 88.0, 91.0)),
        ("contrast", "grey levels", (18.0, 20.0, 26.0, 35.0, 41.0, 47.0, 58.0, 66.0, 69.0)),
        ("sharpness", "", (0.011, 0.013, 0.02, 0.034, 0.047, 0.061, 0.09, 0.12, 0.31)),
        ("black_fraction", "", (0.12, 0.14, 0.2, 0.31, 0.38, 0.46, 0.6, 0.68, 0.71)),
    )
    return tuple(
        QuantityLevel(
            quantity=quantity,
            unit=unit,
            partition=partition,
            n_images=n_images,
            n_patients=n_patients,
            quantiles=quantiles,
            n_outliers=1 if quantity == "sharpness" and partition in (TRAINING, "all") else 0,
            outliers=("Patient00012_Plane3_1_of_2",)
            if quantity == "sharpness" and partition in (TRAINING, "all")
            else (),
        )
        for quantity, unit, quantiles in rows
        for partition, (n_patients, n_images) in COUNTS.items()
    )


def demographics(odd: str) -> DemographicsAudit:
    """Two attributes that a contract beside the data declares, one of them a proxy."""
    return DemographicsAudit(
        declared=(
            DeclaredAttribute(
                name="parity",
                column="Parity",
                kind="category",
                unit="",
                is_proxy=False,
                note=f"from the booking record {odd}".strip(),
                completeness=0.966,
            ),
            DeclaredAttribute(
                name="BMI",
                column="Bmi_group",
                kind="category",
                unit="",
                is_proxy=False,
                note="at booking, in three groups",
                completeness=0.931,
            ),
            DeclaredAttribute(
                name="maternal age",
                column="Age_years",
                kind="number",
                unit="years",
                is_proxy=False,
                note="at the examination",
                completeness=0.983,
            ),
            DeclaredAttribute(
                name="gestational age",
                column="Trimester",
                kind="category",
                unit="",
                is_proxy=True,
                note="the trimester stands in for it; weeks are not recorded",
                completeness=1.0,
            ),
        ),
        undeclared=("ethnicity", "fetal sex", "site", "country"),
        cells=_cells(odd),
        numbers=tuple(
            QuantityLevel(
                quantity="maternal age",
                unit="years",
                partition=partition,
                n_images=n_images - (partition in (TRAINING, "all")),
                n_patients=n_patients - (partition in (TRAINING, "all")),
                quantiles=(18.0, 18.5, 21.0, 27.0, 31.0, 35.0, 40.0, 43.0, 44.0),
            )
            for partition, (n_patients, n_images) in COUNTS.items()
        ),
        smallest_cell=5,
        n_suppressed=3,
        target_name="Births in the region, 2018 (made up for this example)",
        distances=(
            TargetDistance(
                attribute="parity",
                total_variation=0.11,
                ci95=(0.02, 0.24),
                n_patients=56,
                source="Made-up register 2018, table 3",
                widest="nulliparous: 57.1 % here, 46.1 % in the target",
            ),
        ),
        not_compared=("ethnicity: the data set does not record it",),
    )


def _cells(odd: str) -> tuple[DemographicCell, ...]:
    """Parity by BMI: the smallest cell is suppressed, and two more so that none can be worked out."""
    single = (
        (("parity",), ("nulliparous",), 32, 56),
        (("parity",), (f"parous {odd}".strip(),), 24, 56),
        (("BMI",), ("below 25",), 34, 54),
        (("BMI",), ("25 to 30",), 13, 54),
        (("BMI",), ("above 30",), 7, 54),
        (("gestational age",), ("second trimester",), 41, 58),
        (("gestational age",), ("third trimester",), 17, 58),
        (("parity", "BMI"), ("nulliparous", "below 25"), 21, 53),
        (("parity", "BMI"), ("nulliparous", "25 to 30"), 7, 53),
        (("parity", "BMI"), ("nulliparous", "above 30"), None, 53),
        (("parity", "BMI"), ("parous", "below 25"), 12, 53),
        (("parity", "BMI"), ("parous", "25 to 30"), None, 53),
        (("parity", "BMI"), ("parous", "above 30"), None, 53),
    )
    return tuple(
        DemographicCell(
            attributes=attributes,
            levels=levels,
            partition="all",
            n_patients=n,
            share=None if n is None else round(n / total, 4),
            share_ci95=None if n is None else _wilson(n, total),
        )
        for attributes, levels, n, total in single
    )


def duplicates(odd: str) -> DuplicateAudit:
    """A near-duplicate and an exact pair under different patients, and one pair of one patient."""
    nearest = tuple(round(0.31 + 0.0011 * n, 4) for n in range(500))
    return DuplicateAudit(
        method="Digests of files and of decoded pixels; perceptual hash of 8 views, then correlation "
        "after alignment, all pairs.",
        n_images=COUNTS["all"][1],
        n_pairs=3,
        n_near=1,
        n_pairs_across_patients=2,
        n_pairs_across_partitions=0,
        n_groups=2,
        pairs=(
            _pair(
                ("Patient00786_Plane3_2_of_3", "786"),
                ("Patient00799_Plane3_1_of_3", "799"),
                kind="near-duplicate",
                transform="mirrored left to right",
                similarity=0.9712,
                figure=PAIR_FIGURE,
            ),
            _pair(
                ("Patient00010_Plane3_1_of_1", "10"),
                (f"Patient00011_Plane3_1_of_1 {odd}".strip(), "11"),
                kind="same pixels",
            ),
            _pair(
                ("Patient00809_Plane3_3_of_3", "809"),
                ("Patient00809_Plane3_3_of_3 copy", "809"),
                kind="same file",
            ),
        ),
        null=SimilarityNull(n_pairs=7_021, nearest=nearest, threshold=0.92, highest=max(nearest)),
        distinct=(
            f"Patient00021_Plane3_1_of_2 and Patient00044_Plane3_1_of_1: looked at, two fetuses {odd}".strip(),
        ),
    )


def _pair(left: tuple[str, str], right: tuple[str, str], **fields: object) -> DuplicatePair:
    return DuplicatePair.model_validate(
        {
            "left_id": left[0],
            "left_patient": left[1],
            "left_partition": TRAINING,
            "right_id": right[0],
            "right_patient": right[1],
            "right_partition": TRAINING,
            **fields,
        }
    )


def content(odd: str) -> ContentScan:
    """Burned-in text in a few images; a date, a reviewed name and a time."""
    return ContentScan(
        engine="tesseract 5.3.0",
        reads_text=True,
        n_images=120,
        n_scanned=60,
        n_with_overlay=71,
        n_with_text=22,
        n_with_callipers=9,
        marks=(
            TextMark(
                image_id=f"Patient00010_Plane3_1_of_1 {odd}".strip(),
                kind="date",
                text="##/##/2013",
                confidence=0.91,
            ),
            TextMark(
                image_id="Patient00031_Plane3_1_of_2",
                kind="name",
                text="Xxxxx Xxxxxx",
                confidence=0.77,
            ),
            TextMark(
                image_id="Patient00032_Plane3_1_of_2", kind="time", text="10:41:07", confidence=0.88
            ),
        ),
        n_images_with_marks=3,
        text_chunks={"Software": 120},
        n_columns=7,
        columns=(
            IdentifyingColumn(
                column=f"Exam_date {odd}".strip(),
                reason="all values look like dates",
                n_values=58,
            ),
        ),
        reviewed=("Patient00031_Plane3_1_of_2",),
        limitations="Handwriting and text below 8 px are not read.",
    )


def labels(odd: str) -> LabelAudit:
    """Two suspected labels among the training images."""
    return LabelAudit(
        label="brain_plane",
        method="Logistic regression on 64 image features, 5 folds by patient; cleanlab 2.7.1.",
        n_images=75,
        n_patients=35,
        classes={"Trans-thalamic": 45, "Trans-cerebellum": 30},
        balanced_accuracy=0.84,
        n_suspected=2,
        rate_ci95=(0.0073, 0.0921),
        suspects=(
            SuspectedLabel(
                image_id=f"Patient00017_Plane3_2_of_3 {odd}".strip(),
                given="Trans-thalamic",
                suggested="Trans-cerebellum",
                probability_of_given=0.03,
            ),
            SuspectedLabel(
                image_id="Patient00023_Plane3_1_of_1",
                given="Trans-cerebellum",
                suggested="Trans-thalamic",
                probability_of_given=0.11,
            ),
        ),
        effect="If every suspected label is wrong, 2.7 % of the training images teach another plane; "
        "metrics by plane can move by no more than that share of their images.",
    )


def _flow_levels(odd: str) -> tuple[FlowLevel, ...]:
    return tuple(
        FlowLevel(
            attribute=attribute,
            level=_named(level, odd),
            n_images=_with_all(parts)["all"][1],
            n_patients=_with_all(parts)["all"][0],
        )
        for attribute, by_level in _LEVELS.items()
        for level, parts in by_level.items()
    )


def _with_all(parts: _Parts) -> dict[str, tuple[int, int]]:
    by_partition = dict(zip(PARTITIONS, parts, strict=True))
    return {**by_partition, "all": (sum(p for p, _ in parts), sum(n for _, n in parts))}


def _named(level: str, odd: str) -> str:
    return f"{level} {odd}".strip() if level == "Voluson E6" else level


def _wilson(k: int, n: int) -> tuple[float, float]:
    z = 1.959964
    centre, spread = (
        (k / n + z**2 / (2 * n)),
        z * (k / n * (1 - k / n) / n + (z / (2 * n)) ** 2) ** 0.5,
    )
    low, high = ((centre + side * spread) / (1 + z**2 / n) for side in (-1, 1))
    return (round(max(low, 0.0), 4), round(min(high, 1.0), 4))


def audit_documents(odd: str) -> Sequence[Document]:
    """Everything that the audit leaves; duplicates.json is among them."""
    return (
        boundaries(),
        coverage(odd),
        dataset_audit(odd),
        demographics(odd),
        duplicates(odd),
        content(odd),
        labels(odd),
    )
