"""One contract, two engines: every rule is tried by both, and both find the same faults."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest

from governance.records.dataset import RuleResult
from medisynth.data.contract.contract import (
    DataContract,
    load_contract,
    validate_with_great_expectations,
    validate_with_pandera,
)
from tests.medisynth.data.image_tables import sound
from tests.places import ROOT

CONTRACT = load_contract()


def gx(table: pd.DataFrame, contract: DataContract) -> tuple[RuleResult, ...]:
    return validate_with_great_expectations(table, contract).outcomes


ENGINES = (validate_with_pandera, gx)
both_engines = pytest.mark.parametrize("validate", ENGINES, ids=["pandera", "gx"])
Validate = Callable[[pd.DataFrame, DataContract], tuple[RuleResult, ...]]


def about(*columns: str) -> DataContract:
    """The rules of some columns; Great Expectations takes a second for all of them."""
    return replace(CONTRACT, rules=tuple(r for r in CONTRACT.rules if r.column in columns))


def failed(outcomes: tuple[RuleResult, ...]) -> list[str]:
    return [outcome.rule for outcome in outcomes if not outcome.passed]


def compared(outcomes: tuple[RuleResult, ...]) -> list[RuleResult]:
    """Outcomes without the engine's name, for comparing the two."""
    return [outcome.model_copy(update={"engine": "pandera"}) for outcome in outcomes]


@both_engines
def test_a_sound_table_breaks_no_rule_and_every_rule_has_an_outcome(validate):
    outcomes = validate(sound(), CONTRACT)

    assert failed(outcomes) == []
    at_ingest = [rule.name for rule in CONTRACT.rules if rule.since == "s1_ingest"]
    assert [outcome.rule for outcome in outcomes] == at_ingest
    engine = "great_expectations" if validate is gx else "pandera"
    assert {outcome.engine for outcome in outcomes} == {engine}


@both_engines
def test_an_empty_table_fails_on_its_number_of_rows(validate):
    outcomes = validate(sound(0), about("", "image_id", "row", "synthetic_mark"))

    assert "row_count" in failed(outcomes)
    assert outcomes[0].severity == "critical"


def spoil(column: str, value: object, row: int = 1) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[row, column] = value
        return table

    return change


FAULTS = [
    ("image_id_unique", spoil("image_id", "i0"), 2),
    ("image_id_not_null", spoil("image_id", pd.NA), 1),
    ("image_id_pattern", spoil("image_id", "../i1"), 1),
    ("image_id_pattern", spoil("image_id", "i1\n"), 1),
    ("path_pattern", spoil("path", "Images/../../etc/passwd.png"), 1),
    ("path_pattern", spoil("path", "/etc/x.png"), 1),
    ("path_pattern", spoil("path", "Images/i1.jpg"), 1),
    ("patient_id_not_null", spoil("patient_id", pd.NA), 1),
    ("plane_allowed", spoil("plane", "Fetal brian", row=0), 1),
    ("brain_plane_allowed", spoil("brain_plane", "trans-thalamic"), 1),
    ("brain_plane_only_with_fetal_brain", spoil("brain_plane", "Other", row=0), 1),
    ("fetal_brain_has_brain_plane", spoil("brain_plane", pd.NA), 1),
    ("machine_all_or_none", spoil("machine", pd.NA), 1),
    ("official_partition_all_or_none", spoil("official_partition", pd.NA), 1),
    ("official_partition_allowed", spoil("official_partition", "test"), 1),
    ("file_sha256_pattern", spoil("file_sha256", "A" * 64), 1),
    ("pixel_sha256_pattern", spoil("pixel_sha256", "0" * 63), 1),
    ("width_px_range", spoil("width_px", 31), 1),
    ("height_px_range", spoil("height_px", 10_001), 1),
    ("mode_allowed", spoil("mode", "P"), 1),
    ("mean_intensity_range", spoil("mean_intensity", 0.0), 1),
    ("mean_intensity_not_null", spoil("mean_intensity", float("nan")), 1),
    ("black_fraction_range", spoil("black_fraction", 0.99), 1),
    ("overlay_fraction_range", spoil("overlay_fraction", 1.01), 1),
    ("sector_fraction_range", spoil("sector_fraction", -0.01), 1),
    ("png_text_keywords_not_null", spoil("png_text_keywords", pd.NA), 1),
    ("png_metadata_not_null", spoil("png_metadata", pd.NA), 1),
    ("synthetic_mark_allowed", spoil("synthetic_mark", True), 1),
    ("row_dtype", lambda t: t.assign(row=t["row"].astype(float)), 1),
    ("patient_id_dtype", lambda t: t.assign(patient_id=range(len(t))), 1),
    ("width_px_dtype", lambda t: t.assign(width_px=[True] * len(t)), 1),
    ("synthetic_mark_dtype", lambda t: t.assign(synthetic_mark=[0] * len(t)), 1),
    ("machine_exists", lambda t: t.drop(columns="machine"), 1),
    ("head_circumference_mm_range", lambda t: t.assign(head_circumference_mm=17.5), 6),
]


@pytest.mark.parametrize(
    ("rule", "change", "n_unexpected"), FAULTS, ids=[f"{n}-{f[0]}" for n, f in enumerate(FAULTS)]
)
def test_each_fault_breaks_its_rule_in_both_engines_alike(rule, change, n_unexpected):
    table = change(sound())
    contract = about(next(r.column for r in CONTRACT.rules if r.name == rule))

    one, other = (validate(table, contract) for validate in ENGINES)

    assert compared(one) == compared(other)
    assert rule in failed(one)
    outcome = next(outcome for outcome in one if outcome.rule == rule)
    assert outcome.n_unexpected == n_unexpected
    assert outcome.n_evaluated >= n_unexpected
    assert outcome.reason


@both_engines
def test_a_missing_or_mistyped_column_fails_all_its_rules_instead_of_hiding_them(validate):
    table = sound().drop(columns="image_id").assign(n_bytes="many")

    contract = about("image_id", "n_bytes")

    outcomes = {outcome.rule: outcome for outcome in validate(table, contract)}

    for rule, reason in (
        ("image_id_unique", "column image_id is missing"),
        ("image_id_dtype", "column image_id is missing"),
        ("n_bytes_range", "column n_bytes has the wrong type"),
    ):
        assert not outcomes[rule].passed
        assert outcomes[rule].n_evaluated == 0
        assert outcomes[rule].reason == reason


@both_engines
def test_what_is_not_recorded_is_not_evaluated_and_says_so(validate):
    table = sound()
    table["brain_plane"] = pd.array([None] * len(table), dtype="string")

    contract = about("brain_plane", "site", "pixel_size_mm")

    outcomes = {outcome.rule: outcome for outcome in validate(table, contract)}

    assert failed(tuple(outcomes.values())) == []
    for rule in ("fetal_brain_has_brain_plane", "site_all_or_none", "pixel_size_mm_range"):
        assert outcomes[rule].n_evaluated == 0
        assert "not recorded" in outcomes[rule].reason


@both_engines
def test_examples_are_few_short_and_printable(validate):
    table = sound(20)
    table["plane"] = pd.array([f"\x1b[31m{k}" + "x" * 200 for k in range(20)], dtype="string")
    table["brain_plane"] = pd.array([None] * 20, dtype="string")

    outcome = next(o for o in validate(table, about("plane")) if o.rule == "plane_allowed")

    assert outcome.n_unexpected == 20
    assert outcome.severity == "warning"
    assert len(outcome.examples) == 5
    assert all(len(text) <= 80 and text.isprintable() for text in outcome.examples)


@both_engines
def test_an_engine_that_breaks_raises_and_gives_no_verdict(validate):
    pattern = next(rule for rule in CONTRACT.rules if rule.kind == "pattern")
    broken = replace(pattern, pattern="(unclosed")
    contract = replace(CONTRACT, rules=(broken,))

    with pytest.raises(Exception, match=r"broke|unterminated|missing \)"):
        validate(sound(), contract)


def test_neither_engine_changes_the_table():
    table = sound()
    for validate in ENGINES:
        validate(table, about("image_id", "brain_plane"))

    pd.testing.assert_frame_equal(table, sound())


def test_an_index_with_gaps_does_not_matter():
    table = sound().iloc[[5, 1, 3]]
    for validate in ENGINES:
        assert failed(validate(table, about("image_id", "brain_plane"))) == []


def test_great_expectations_prints_nothing_and_leaves_the_environment_alone(capfd, caplog):
    before = dict(os.environ)

    validate_with_great_expectations(sound(), about("image_id", "head_circumference_mm"))

    assert dict(os.environ) == before
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_importing_the_contract_imports_no_engine():
    code = (
        "import sys, medisynth.data.contract.contract\n"
        "print([m for m in ('great_expectations', 'pandera', 'torch') if m in sys.modules])"
    )
    root = ROOT

    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


def test_the_built_in_contract_gives_a_reason_for_every_rule():
    names = [rule.name for rule in CONTRACT.rules]

    assert len(names) == len(set(names))
    assert all(rule.reason.endswith(".") for rule in CONTRACT.rules)
    critical = {rule.name for rule in CONTRACT.rules if rule.severity == "critical"}
    assert {"row_count", "image_id_unique", "synthetic_mark_allowed"} <= critical
