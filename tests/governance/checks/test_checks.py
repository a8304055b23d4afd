import itertools
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import CHECKS, check, judge, judge_items, listed, not_evaluated
from governance.policy.load import with_criteria
from governance.records.base import TEST, TRAINING, ItemStatus
from governance.records.dataset import AbsentAttribute
from governance.records.errors import EvidenceError, PolicyError
from governance.records.evaluation import NearestPair
from governance.records.item import CheckResult, ItemRecord, Observed
from governance.records.partition import RefusedRead, SplitRecord
from governance.records.policy import Criterion
from governance.records.run import Figure
from governance.records.training import FittedThing
from tests.governance.checks.copying_cases import COPYING_CASES
from tests.governance.checks.data_cases import (
    COLUMN,
    DATA_CASES,
    declared,
    declaring,
    pair,
    pairs,
    with_marks,
)
from tests.governance.checks.faults import (
    FAILED,
    INCEPTION,
    NOT_EVALUATED,
    PARTS,
    PASSED,
    POLICY,
    RECORDED,
    A,
    B,
    C,
    Change,
    D,
    both,
    but,
    declaration,
    entry,
    metric,
    nothing,
    of,
    result,
    with_coverage,
    without,
)
from tests.governance.checks.model_cases import MODEL_CASES
from tests.governance.checks.software_cases import SOFTWARE_CASES
from tests.governance.checks.test_selftest_record import ALL, SILENT, trial
from tests.stored_run.stored import START, good

NOW = of("declarations").read_utc
DESCRIPTION = of("training").description
MISSING = ItemStatus.MISSING
DATA_ITEMS = (
    *("P2-12", "P2-13", "P3-01", "P3-02", "P3-03", "P3-04", "P3-05", "P3-06", "P3-07", "P3-08"),
    *("P4-01", "P4-02", "P4-03", "P4-04", "P4-10", "P5-01", "P5-02", "P5-03", "P5-04"),
)
# Names of rules, the sentence on what an examination is, and reasons that other modules wrote.
KNOWN_WORDS = ("patient_id", "are of one patient", "a patient is in both", "too few patients")


EXPECTED_OF_A_GOOD_RUN = {
    **dict.fromkeys(CHECKS, PASSED),
    "P2-14": RECORDED,
    "P3-04": RECORDED,  # measured, but no limit is configured
    "P3-09": RECORDED,
    "P5-04": RECORDED,
    "P8-02": RECORDED,  # measured, but no goal is configured
    "P6-06": RECORDED,
    "P6-08": NOT_EVALUATED,  # no such metric in this version
    "P7-02": NOT_EVALUATED,
    "P7-03": NOT_EVALUATED,
    "P8-04": NOT_EVALUATED,
    "P10-05": RECORDED,
    "P4-10": FAILED,  # machines are shared in the example
    "P4-13": NOT_EVALUATED,
}

CASES: list[tuple[str, Change, ItemStatus, str]] = [
    *DATA_CASES,
    *SOFTWARE_CASES,
    *MODEL_CASES,
    *COPYING_CASES,
    (
        "P1-02",
        but("declarations", declarations=(declaration(expires=date(2026, 11, 1)),)),
        FAILED,
        "P1-H1 (it expired on 2026-11-01)",
    ),
    (
        "P1-02",
        but("declarations", declarations=(declaration(applies_to={"config": B}),)),
        FAILED,
        f"it applies to configuration {B}, this run's is {A}",
    ),
    ("P1-02", but("declarations", declarations=()), NOT_EVALUATED, "declares no item"),
    ("P1-02", without("declarations"), NOT_EVALUATED, "names no declarations file"),
    ("P2-01", but("run", code_clean=False), FAILED, "uncommitted changes"),
    (
        "P2-01",
        but("run", code_commit=None, code_clean=None),
        NOT_EVALUATED,
        "not run from a git",
    ),
    ("P2-02", but("environment", lock_differences=("numpy: 1",)), FAILED, "numpy: 1"),
    ("P2-02", but("environment", lock_file=None), NOT_EVALUATED, "no lock file"),
    ("P2-07", but("integrity", mismatches=("plan.json",)), FAILED, "plan.json"),
    ("P2-07", but("integrity", unregistered=("x",)), NOT_EVALUATED, "no digest on record"),
    (
        "P2-07",
        but("integrity", unregistered=("x",), mismatches=("plan.json",)),
        FAILED,
        "plan.json",
    ),
    ("P2-07", but("integrity", n_files=0), NOT_EVALUATED, "no file"),
    ("P2-08", but("integrity", journal_faults=("line 3",)), FAILED, "line 3"),
    ("P2-08", but("integrity", journal_events=0), NOT_EVALUATED, "empty"),
    ("P2-09", but("evaluation", pretrained=()), NOT_EVALUATED, "source and licence are not on"),
    (
        "P2-09",
        but("evaluation", metrics=(metric("kid", extractor_sha256=""),)),
        FAILED,
        INCEPTION,
    ),
    ("P2-09", but("evaluation", metrics=(), pretrained=()), PASSED, "0 components"),
    (
        "P2-09",
        but("training", pretrained=(entry("evaluation", "pretrained", licence=" "),)),
        FAILED,
        INCEPTION,
    ),
    ("P4-05", but("isolation", n_sealed_reads=1), FAILED, "1 sealed file opened"),
    ("P4-05", but("isolation", level=1), FAILED, "level 1"),
    ("P4-05", but("isolation", attempts=()), NOT_EVALUATED, "did not try"),
    (
        "P4-05",
        but("isolation", attempts=(RefusedRead(target="data folder", refused=True, error="13"),)),
        NOT_EVALUATED,
        "did not try to read a sealed image",
    ),
    (
        "P4-05",
        but("isolation", attempts=(RefusedRead(target="sealed image", refused=False, error=""),)),
        FAILED,
        "could read: sealed image",
    ),
    (
        "P4-05",
        but(
            "isolation",
            noticed=(RefusedRead(target="key of the vault", refused=True, error="", way="open"),),
        ),
        FAILED,
        "the generator tried to reach what it must not: key of the vault (open)",
    ),
    ("P4-05", without("evaluation"), NOT_EVALUATED, "evaluation step did not run"),
    ("P4-06", but("evaluation", opening={"number": 2}), FAILED, "purpose: "),
    ("P4-06", but("evaluation", opening=None), NOT_EVALUATED, "was not opened"),
    (
        "P4-07",
        but("training", fitted=(FittedThing(name="histograms", fit_view_sha256=C),)),
        FAILED,
        "histograms",
    ),
    ("P4-07", but("training", fitted=()), NOT_EVALUATED, "no fitted thing"),
    ("P4-08", but("training", selection={"partition": TEST}), FAILED, TEST),
    ("P4-08", but("training", selection={"view_sha256": A}), FAILED, "not the tuning view"),
    ("P4-11", but("evaluation", n_synthetic_in_test=1), FAILED, "1 synthetic image in the test"),
    ("P4-11", but("evaluation", n_test_patients_in_training=4), FAILED, "4 test patients"),
    (
        "P4-11",
        but("evaluation", n_test_images_in_training=2),
        FAILED,
        "2 test images with equal pixels in training",
    ),
    ("P4-11", but("evaluation", n_synthetic_in_test=None), NOT_EVALUATED, "not compared"),
    ("P4-11", but("split", unit="examination"), NOT_EVALUATED, "of one patient"),
    (
        "P4-12",
        but("selftest", trials=(trial("patient", answers=(SILENT,)), *ALL[1:])),
        FAILED,
        "patient plant was not caught",
    ),
    ("P5-05", but("evaluation", metrics=(metric("kid", extractor=""),)), FAILED, "kid-"),
    ("P5-05", but("evaluation", metrics=(metric("kid", partition="other"),)), FAILED, "kid-"),
    (
        "P5-05",
        but(
            "evaluation",
            metrics=(metric("kid", status="not evaluated", value=None, reason="no weights"),),
        ),
        NOT_EVALUATED,
        "no weights",
    ),
    (
        "P5-06",
        but("evaluation", metrics=(metric("kid"), metric("fid", reason=""))),
        FAILED,
        "fid",
    ),
    ("P5-06", but("evaluation", metrics=(metric("fid"),)), FAILED, "fid-"),
    (
        "P5-06",
        but("evaluation", metrics=(metric("fid"), metric("kid", ci95=None))),
        FAILED,
        "fid",
    ),
    ("P5-06", but("evaluation", metrics=(metric("fid", n_features=50, reason=""),)), PASSED, ""),
    ("P5-06", but("evaluation", metrics=(metric("kid"),)), PASSED, "KID with interval"),
    ("P5-06", but("evaluation", metrics=()), NOT_EVALUATED, "no metric was evaluated"),
    ("P6-01", but("training", description={"architecture": "x"}), FAILED, "sizes, losses"),
    (
        "P6-01",
        but("training", description=DESCRIPTION | {"Optimiser ": "x", "pre-training": " "}),
        FAILED,
        "empty: pre-training",
    ),
    ("P6-02", but("plan", frozen_utc=START + timedelta(minutes=2)), FAILED, "sealed"),
    ("P6-02", without("training"), NOT_EVALUATED, "the training step did not run"),
    (
        "P6-04",
        but("evaluation", memorisation={"n_flagged": 9, "share_ci95": (0.05, 0.16)}),
        FAILED,
        "9 of 100 flagged",
    ),
    (
        "P6-04",
        but("evaluation", memorisation={"n_flagged": 1, "share_ci95": (0.0, 0.049)}),
        NOT_EVALUATED,
        "neither confirmed nor ruled out",
    ),
    (
        "P6-04",
        but("evaluation", memorisation={"n_synthetic": 40, "share_ci95": (0.0, 0.088)}),
        NOT_EVALUATED,
        "draw more",
    ),
    (
        "P6-04",
        but(
            "evaluation",
            memorisation={
                "n_flagged": 1,
                "share_ci95": (0.0, 0.049),
                "closest": (NearestPair(synthetic="s.png", training_id="x", distance=0.0),),
            },
        ),
        FAILED,
        "equal to a training image: s.png",
    ),
    ("P6-04", but("evaluation", memorisation=None), NOT_EVALUATED, "not computed"),
    ("P7-01", but("figures", figures=()), FAILED, "no random sample sheet"),
    (
        "P7-01",
        but("figures", figures=of("figures").figures[:2]),
        NOT_EVALUATED,
        "worst-scoring sheet is not implemented yet",
    ),
    (
        "P7-01",
        but(
            "figures",
            figures=(Figure(path="a", title="synthetic, at random", caption="nearest, worst"),),
        ),
        FAILED,
        "does not state its seed",
    ),
    ("P8-01", but("evaluation", opening={"plan_sha256": A}), FAILED, "names another plan"),
    ("P8-01", but("evaluation", opening={"opened_utc": START - timedelta(1)}), FAILED, "after"),
    ("P8-01", but("plan", multiplicity=" "), FAILED, "nothing on multiplicity"),
    ("P8-01", but("evaluation", opening=None), NOT_EVALUATED, "was not opened"),
    ("P8-02", but("evaluation", metrics=(metric("kid", ci95=None),)), FAILED, "no interval"),
    ("P8-02", but("evaluation", metrics=(metric("fid"),)), NOT_EVALUATED, "not among"),
    (
        "P8-02",
        but("evaluation", metrics=(metric("kid", status="not evaluated", reason="no weights"),)),
        NOT_EVALUATED,
        "no weights",
    ),
    (
        "P8-03",
        but(
            "evaluation",
            metrics=(
                metric("kid"),
                metric("fid", status="not evaluated", value=None, reason="no weights"),
            ),
        ),
        NOT_EVALUATED,
        "FID (no weights), PRECISION, by machine",
    ),
    (
        "P3-09",
        but("evaluation", metrics=(metric("kid"),)),
        NOT_EVALUATED,
        "no class has two levels",
    ),
    (
        "P3-09",
        but(
            "evaluation",
            metrics=(
                metric(
                    "recall",
                    subgroup="plane=Fetal brain",
                    status="not evaluated",
                    value=None,
                    reason="no weights",
                ),
            ),
        ),
        NOT_EVALUATED,
        "by class: no weights",
    ),
    ("P8-03", but("evaluation", metrics=(metric("kid", n_patients=0),)), FAILED, "kid-"),
    ("P8-09", but("samples", checkpoint_sha256=A), FAILED, "images were drawn from another"),
    ("P8-09", but("evaluation", opening={"model_sha256": A}), FAILED, "the opening names another"),
    ("P9-03", but("evaluation", metrics=(metric("kid", ci95=None),)), FAILED, "kid-"),
    ("P9-03", but("evaluation", metrics=()), NOT_EVALUATED, "no metric"),
    ("P9-05", but("samples", n_marks_read_back=99), FAILED, "99 of 100 marks"),
    ("P9-05", but("samples", n_marks_read_back=101), FAILED, "101 of 100"),
    ("P9-05", but("samples", n_images=0, n_marks_read_back=0), NOT_EVALUATED, "no synthetic"),
]


@pytest.mark.parametrize("item_id", sorted(CHECKS))
def test_in_a_good_run_each_check_says_what_is_true(item_id: str) -> None:
    found = result(item_id, good())

    assert (found.status, bool(found.reason)) == (EXPECTED_OF_A_GOOD_RUN[item_id], True), found


@pytest.mark.parametrize(("item_id", "apply", "status", "words"), CASES)
def test_one_fault_changes_the_item_and_the_reason_names_it(
    item_id: str, apply: Change, status: ItemStatus, words: str
) -> None:
    found = result(item_id, apply(good()))

    assert found.status is status, found
    assert words in found.reason
    assert found.reason


def test_every_check_has_a_case_that_does_not_pass() -> None:
    spoiled = {item_id for item_id, _, status, _ in CASES if status is not PASSED}

    assert set(CHECKS) - spoiled == {"P2-14", "P4-13"}


def test_checks_belong_to_computed_items_and_to_one_of_the_steps() -> None:
    computed = {item.id for item in POLICY.items if item.kind == "computed"}

    assert set(CHECKS) <= computed
    assert {gate.item_id for gate in POLICY.gate} <= set(CHECKS)
    assert {c.step for c in CHECKS.values()} <= {
        "start",
        "s1_ingest",
        "s2_validate",
        "s3_audit",
        "s4_split",
        "s5_train",
        "s6_evaluate",
        "s7_evidence",
    }


def test_a_run_that_left_nothing_passes_nothing() -> None:
    for item_id in CHECKS:
        found = result(item_id, nothing())

        assert found.status is NOT_EVALUATED
        assert found.reason
        assert found.observed is None


def test_losing_documents_never_turns_anything_better() -> None:
    """A check sees less: it says the same or that it cannot say."""
    parts = [*PARTS, "plan_sha256"]
    singles: list[tuple[str, ...]] = [(part,) for part in parts]
    starts = [(good(), [*singles, *itertools.combinations(parts, 2)])]
    starts += [(apply(good()), singles) for _, apply, _, _ in CASES[::10]]
    for start, removals in starts:
        before = {item_id: result(item_id, start).status for item_id in CHECKS}
        for gone in removals:
            fewer = without(*gone)(start)
            for item_id in CHECKS:
                after = result(item_id, fewer).status
                assert after in (before[item_id], NOT_EVALUATED), (item_id, gone)


def test_a_refused_split_passes_no_item_of_independence() -> None:
    gone = without("seal", "isolation", "training", "samples", "evaluation", "figures")
    refused = but("split", refused="a patient is on both sides")(gone(good()))
    for item_id in (
        name for name in CHECKS if name.startswith("P4-") and name not in ("P4-10", "P4-12")
    ):
        assert result(item_id, refused).status is NOT_EVALUATED


def test_the_numbers_observed_are_those_of_the_documents() -> None:
    def seen(item_id: str, documents: JudgedRun) -> Observed:
        observed = result(item_id, documents).observed
        assert observed is not None
        return observed

    uneven = with_coverage({"machine": {"E6": (60, 10), "S10": (40, 90)}})(good())
    assert seen("P3-03", uneven) == Observed(
        value=10, unit="patients", n_patients=10, partition=TEST
    )
    assert seen("P3-05", good()) == Observed(
        value=0.1, ci95=(0.05, 0.2), partition=f"{TRAINING} and {TEST}"
    )
    assert seen("P3-04", good()) == Observed(
        value=0.05, ci95=(0.025, 0.12), n_patients=140, partition="all"
    )
    assert seen("P3-07", good()).value == 0.5
    assert seen("P3-01", good()).value == 0.96
    assert seen("P6-04", good()) == Observed(
        value=0.0, unit="fraction of synthetic images", ci95=(0.0, 0.037), n_images=100
    )
    assert seen("P4-06", good()).value == 1
    assert seen("P2-14", good()) == Observed(value=12.5, unit="s")
    assert seen("P8-02", good()) == Observed(
        value=0.05, ci95=(0.04, 0.07), n_patients=60, n_images=100, partition=TEST
    )


def test_an_absent_attribute_is_observed_as_zero_patients_and_fails() -> None:
    absent = (AbsentAttribute(name="BMI", consequence=""),)
    simulated = but("dataset", absent_attributes=absent, is_simulated=True)(good())
    found = result("P3-01", simulated)

    assert (found.status, found.observed) == (
        FAILED,
        Observed(value=0.0, unit="fraction of patients"),
    )
    assert "no patient is behind any image" in found.limitations


@pytest.mark.parametrize(("goal", "status"), [(0.07, PASSED), (0.069, FAILED), (0.05, FAILED)])
def test_the_primary_endpoint_is_judged_by_its_bound_and_not_by_its_value(
    goal: float, status: ItemStatus
) -> None:
    assert result("P8-02", good(), limit=goal).status is status


@pytest.mark.parametrize(
    ("item_id", "limit", "status"),
    [
        ("P3-04", 0.12, PASSED),
        ("P3-04", 0.119, FAILED),  # the bound decides, not the distance of 0.05
        ("P3-09", 0.4, PASSED),
        ("P3-09", 0.41, FAILED),
    ],
)
def test_a_limit_that_the_configuration_sets_decides(
    item_id: str, limit: float, status: ItemStatus
) -> None:
    assert result(item_id, good(), limit=limit).status is status


def test_what_could_not_be_compared_with_the_target_never_passes() -> None:
    lacking = but("demographics", not_compared=("ethnicity: not recorded",))(good())

    assert result("P3-04", lacking, limit=0.5).status is NOT_EVALUATED
    assert result("P3-04", lacking, limit=0.01).status is FAILED
    assert "ethnicity: not recorded" in result("P3-04", lacking).limitations


def test_a_class_without_coverage_or_recall_keeps_the_item_from_passing() -> None:
    only = metric("coverage", subgroup="plane=Fetal brain", value=0.7, better="higher")
    found = result("P3-09", but("evaluation", metrics=(only,))(good()), limit=0.5)

    assert (found.status, found.reason) == (
        NOT_EVALUATED,
        "not evaluated: recall of plane=Fetal brain",
    )


def test_identifiers_are_counted_as_columns_and_images() -> None:
    spoiled = both(but("content", columns=(COLUMN,)), with_marks("date", "name", "time"))
    observed = result("P2-13", spoiled(good())).observed

    assert observed == Observed(value=3, unit="identifiers", n_images=300)


def test_a_confounded_pair_becomes_a_limit() -> None:
    tied = pairs(pair("operator", "machine", 0.61))(good())

    assert "told apart in this data: operator from machine" in result("P3-07", tied).limitations


def test_a_proxy_is_named_as_a_limit() -> None:
    proxy = declaring(declared("gestational age", 1.0, column="Trimester", is_proxy=True))
    found = result("P3-01", proxy(good()))

    assert "A proxy does not count as the attribute: Trimester for gestational age." in (
        found.limitations
    )


def test_examinations_are_never_called_patients() -> None:
    by_examination = both(
        but("dataset", split_unit="examination"), but("split", unit="examination")
    )
    spoiled = [apply for _, apply, _, _ in DATA_CASES]
    for apply in [both(), *spoiled]:
        documents = by_examination(apply(good()))
        for item_id in DATA_ITEMS:
            found = result(item_id, documents)
            unit = found.observed.unit if found.observed else ""
            texts = f"{unit} {found.reason} {found.method}"
            for known in KNOWN_WORDS:
                texts = texts.replace(known, "")
            assert "patient" not in texts, (item_id, texts)


def test_an_unset_goal_is_recorded_and_says_so() -> None:
    found = result("P8-02", good())

    assert found.status is RECORDED
    assert "no limit is configured" in found.reason


def test_an_upper_goal_does_not_judge_a_metric_that_is_better_when_higher() -> None:
    higher = but("evaluation", metrics=(metric("kid", better="higher"),))(good())

    assert result("P8-02", higher, limit=1.0).status is NOT_EVALUATED


@pytest.mark.parametrize(("limit", "status"), [(2, PASSED), (1, FAILED)])
def test_a_second_opening_is_within_a_limit_of_two(limit: int, status: ItemStatus) -> None:
    second = but("evaluation", opening={"number": 2})(good())

    assert result("P4-06", second, limit=limit).status is status


def test_a_later_opening_is_a_limitation_of_the_plan() -> None:
    later = result("P8-01", but("evaluation", opening={"number": 3})(good()))

    assert later.status is PASSED
    assert "opened 2 times before" in later.limitations


def test_a_rule_with_nothing_to_judge_is_named_as_a_limitation() -> None:
    assert "brain_plane_only_with_fetal_brain" in result("P2-12", good()).limitations
    assert "another plane" in result("P5-02", good()).limitations


@pytest.mark.parametrize(
    ("operator", "limit", "value", "status"),
    [
        ("==", 0, 0, PASSED),
        ("==", 0, 1, FAILED),
        ("==", 0, False, FAILED),
        ("==", True, 1, FAILED),
        ("==", True, True, PASSED),
        ("<=", 0.1, 0.1, PASSED),
        ("<=", 0.1, 0.11, FAILED),
        (">=", 30, 30, PASSED),
        (">=", 30, 29, FAILED),
        (">=", 1, True, FAILED),
        ("<=", 1, "none", FAILED),
        ("<=", 0.1, float("nan"), NOT_EVALUATED),
        (">=", 0.1, float("inf"), NOT_EVALUATED),
        ("none", None, 3, RECORDED),
        ("<=", None, 3, RECORDED),
    ],
)
def test_an_observed_value_is_compared_as_the_criterion_says(
    operator: Any, limit: Any, value: Any, status: ItemStatus
) -> None:
    criterion = Criterion(metric="m", operator=operator, value=limit)
    found = judge(criterion, Observed(value=value), reason="r", method="m", source=SplitRecord)

    assert found.status is status
    assert found.artifact == "data/split.json"


@pytest.mark.parametrize("operator", ["==", "<=", "none"])
def test_what_an_item_asks_besides_its_criterion_fails_it(operator: Any) -> None:
    value = None if operator == "none" else 0
    criterion = Criterion(metric="m", operator=operator, value=value)
    found = judge(
        criterion, Observed(value=0), reason="r", method="", source=SplitRecord, holds=False
    )

    assert found.status is FAILED


def test_many_names_are_cut_and_counted() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(n) for n in range(8)]) == "0, 1, 2, 3, 4 and 3 more"


def test_a_taken_id_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"P4-01: the check 'shared_patients' has this id"):

        @check("P4-01", step="s4_split")
        def another(documents: JudgedRun, criterion: Criterion) -> CheckResult:
            return not_evaluated("never")


def records(documents: JudgedRun, **changes: Any) -> dict[str, ItemRecord]:
    arguments: dict[str, Any] = {
        "now": NOW,
        "artifacts": {"data/split.json": A, "integrity.json": B},
        **changes,
    }
    return {record.id: record for record in judge_items(POLICY, documents.folder, **arguments)}


def test_every_item_gets_one_record_in_the_order_of_the_policy() -> None:
    for documents in (good(), nothing()):
        assert list(records(documents)) == [item.id for item in POLICY.items]


def test_nothing_passes_in_the_records_of_an_empty_run() -> None:
    for record in records(nothing()).values():
        assert record.status is (MISSING if record.kind == "human" else NOT_EVALUATED)
    assert all(record.reason for record in records(nothing()).values())


def test_what_no_check_computes_is_not_implemented_yet() -> None:
    found = records(good())
    for item in POLICY.items:
        if item.id in CHECKS or item.kind == "human":
            continue
        assert found[item.id].status is NOT_EVALUATED
        assert "not implemented yet" in found[item.id].reason
        assert found[item.id].observed is None


def test_people_s_word_is_declared_or_missing_in_the_records() -> None:
    found = records(good())
    statuses = {item_id: r.status for item_id, r in found.items() if r.kind == "human"}

    assert statuses == dict.fromkeys(statuses, MISSING) | {"P1-H1": ItemStatus.DECLARED}
    assert found["P2-H1"].reason.startswith("nobody declared it: ")


def test_a_record_carries_the_frozen_criterion_and_the_artifact() -> None:
    record = records(good())["P4-01"]
    assert record.criterion is not None
    assert record.artifact is not None

    assert (record.criterion.frozen_at, record.criterion.frozen_sha256) == (
        of("plan").frozen_utc,
        D,
    )
    assert (record.criterion.operator, record.criterion.value) == ("==", 0)
    assert (record.artifact.path, record.artifact.sha256) == ("data/split.json", A)
    assert (record.principle, record.title) == ("P4", POLICY.item("P4-01").title)


def test_without_a_plan_no_criterion_is_called_frozen() -> None:
    for gone in (without("plan"), without("plan_sha256")):
        assert all(r.criterion is None for r in records(gone(good())).values())


def test_human_items_carry_no_criterion() -> None:
    assert all(r.criterion is None for r in records(good()).values() if r.kind == "human")


def test_only_the_items_asked_for_are_computed() -> None:
    assert list(records(good(), only=["P4-01", "P2-12"])) == ["P2-12", "P4-01"]

    with pytest.raises(PolicyError, match="P4-99: the policy has no such item"):
        records(good(), only=["P4-99"])


def test_another_policy_than_the_frozen_one_is_refused() -> None:
    other = with_criteria(POLICY, {"P3-03": 1})

    with pytest.raises(EvidenceError, match="the frozen policy differs"):
        judge_items(other, good().folder, now=NOW, artifacts={})
    with pytest.raises(EvidenceError, match="its policy is not readable"):
        records(but("plan", policy={})(good()))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (CheckResult(status=ItemStatus.DECLARED, reason="r"), "its check returned 'declared'"),
        (CheckResult(status=ItemStatus.NOT_APPLICABLE, reason="r"), "returned 'not applicable'"),
        (CheckResult(status=ItemStatus.NOT_EVALUATED), "gave no reason"),
        (CheckResult(status=ItemStatus.PASSED), "gave no reason"),
    ],
)
def test_a_check_may_not_return_what_none_may(
    monkeypatch: pytest.MonkeyPatch, bad: CheckResult, message: str
) -> None:
    monkeypatch.setitem(CHECKS, "P4-01", replace(CHECKS["P4-01"], function=lambda *_: bad))

    with pytest.raises(EvidenceError, match=message):
        records(good())


def test_checks_are_pure() -> None:
    documents = good()
    first, second = records(documents), records(documents)

    assert first == second
    same = [documents.get(kind) == good().get(kind) for kind in PARTS.values()]
    assert same == [True] * len(PARTS)
