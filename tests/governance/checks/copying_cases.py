"""Inputs on which the items on copied images pass, fail and stay open."""

from typing import Any

from governance.records.base import ItemStatus
from governance.records.evaluation import CopiedPartsRecord, DataCopyingRecord, PlantedRecall
from tests.governance.checks.faults import Change, but

PASSED, FAILED, NOT_EVALUATED = ItemStatus.PASSED, ItemStatus.FAILED, ItemStatus.NOT_EVALUATED


def parts(**changes: Any) -> CopiedPartsRecord:
    """A search of 100 images that flags none and works, unless changed."""
    return CopiedPartsRecord.model_validate(
        {
            "method": "speckle",
            "threshold": 0.8,
            "confirmed_from": 0.9,
            "null_median": 0.6,
            "synthetic_median": 0.6,
            "n_null": 80,
            "n_synthetic": 100,
            "n_flagged": 0,
            "n_confirmed": 0,
            "n_flagged_either": 0,
            "share_ci95": (0.0, 0.03),
            "interval_method": "exact",
            "n_of_one_patient": 0,
            "n_unseen": 48,
            "n_unseen_flagged": 0,
            "unseen_ci95": (0.0, 0.06),
            "planted": (PlantedRecall(kind="half of the image", n=10, n_found=10),),
            "null_agreements": (),
            "synthetic_agreements": (),
            "closest": (),
            **changes,
        }
    )


def _searched(c_t: float = 0.0, **changes: Any) -> Change:
    score = DataCopyingRecord(method="C_T", value=c_t, n_cells=1, n_synthetic=100, n_tuning=50)
    return but("evaluation", parts=parts(**changes), data_copying=score)


COPYING_CASES: list[tuple[str, Change, ItemStatus, str]] = [
    ("P6-04", _searched(), PASSED, "found 100 % of 10 altered copies"),
    (
        "P6-04",
        _searched(n_flagged=1, n_flagged_either=1, share_ci95=(0.0, 0.049)),
        PASSED,
        "parts of training images in 1 of 100, 0 confirmed",
    ),
    (
        "P6-04",
        _searched(n_flagged=5, n_confirmed=5, n_of_one_patient=5),
        FAILED,
        "5 confirmed, 5 of them from one patient",
    ),
    (
        "P6-04",
        _searched(n_flagged=8, n_flagged_either=8, share_ci95=(0.03, 0.15)),
        FAILED,
        "8 of 100 flagged, upper 95 % bound 0.150",
    ),
    ("P6-04", _searched(c_t=-4.2), FAILED, "C_T -4.2 is below -3"),
    (
        "P6-04",
        _searched(planted=(PlantedRecall(kind="zoomed", n=10, n_found=8),)),
        NOT_EVALUATED,
        "fewer than 90 % of altered copies were found",
    ),
    (
        "P6-04",
        _searched(n_unseen_flagged=6, unseen_ci95=(0.04, 0.25)),
        NOT_EVALUATED,
        "more than 2 % of unseen images were flagged",
    ),
]
