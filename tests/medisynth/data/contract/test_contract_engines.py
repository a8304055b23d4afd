"""Metadata, agreements, columns that steps add, the archived results and engines that break."""

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from governance.records.dataset import RuleResult
from governance.records.errors import MedisynthGovError
from medisynth.data.contract.contract import (
    DataContract,
    broken_rules,
    load_contract,
    validate_with_great_expectations,
    validate_with_pandera,
    with_metadata,
)
from tests.medisynth.data.image_tables import sound
from tests.places import ROOT

NO_METADATA = pd.DataFrame()


def images(ids: list[str], patients: list[str], **columns: Any) -> pd.DataFrame:
    table = pd.DataFrame({"image_id": ids, "patient_id": patients}).astype("string")
    for name, values in columns.items():
        table[name] = values
    return table


def texts(**columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.array(v, dtype="string") for name, v in columns.items()})


def own(folder: Path, text: str, adapter: str | None = None) -> DataContract:
    path = folder / "data_contract.yaml"
    path.write_text("name: ours\nversion: 1\n" + text, encoding="utf-8")
    return load_contract(adapter, path)


def only(contract: DataContract, *starts: str) -> DataContract:
    return replace(contract, rules=tuple(r for r in contract.rules if r.name.startswith(starts)))


def judged(table: pd.DataFrame, contract: DataContract) -> dict[str, RuleResult]:
    """Outcomes, after both engines gave the same."""
    one = validate_with_pandera(table, contract)
    other = validate_with_great_expectations(table, contract).outcomes
    assert [outcome.model_copy(update={"engine": "pandera"}) for outcome in other] == list(one)
    return {outcome.rule: outcome for outcome in one}


def test_rules_about_a_column_of_the_metadata_file_are_tried_by_both_engines(tmp_path):
    contract = own(
        tmp_path,
        "metadata:\n  Mass (kg):\n    dtype: real\n    nullable: false\n    min: 35\n    max: 250\n"
        "    severity: warning\n    reason: Ours.\n"
        "  Ward: {allowed: [A, B], unique: true, severity: critical, reason: Ours.}\n"
        "  Room: {severity: info, reason: Ours.}\n",
    )
    table = images(list("abcde"), list("12345"))
    metadata = texts(
        **{"Mass (kg)": ["70", "7e1", "", "seventy", "700"], "Ward": list("ABCA") + [""]}
    )

    found = judged(with_metadata(table, metadata, contract), only(contract, "metadata."))

    measured = {name: (o.n_evaluated, o.n_unexpected, o.examples) for name, o in found.items()}
    assert measured == {
        "metadata.Mass (kg)_exists": (1, 0, ()),
        "metadata.Mass (kg)_is_real": (4, 1, ("seventy",)),
        "metadata.Mass (kg)_not_null": (5, 1, ("(empty)",)),
        "metadata.Mass (kg)_range": (3, 1, ("700.0",)),
        "metadata.Ward_exists": (1, 0, ()),
        "metadata.Ward_unique": (4, 2, ("A", "A")),
        "metadata.Ward_allowed": (4, 1, ("C",)),
        "metadata.Room_exists": (1, 1, ()),
    }
    assert found["metadata.Room_exists"].severity == "critical"


def test_a_condition_may_speak_of_columns_of_the_metadata_file(tmp_path):
    contract = own(
        tmp_path,
        "metadata:\n  Smoker: {severity: info, reason: r}\n  Pack years: {severity: info, reason: r}\n"
        "cross_column:\n  - name: smokers_say_how_much\n    column: metadata.Pack years\n"
        "    when_column: metadata.Smoker\n    is: 'yes'\n    expect: filled\n"
        "    severity: warning\n    reason: r\n",
    )
    metadata = texts(**{"Smoker": ["yes", "yes", "no"], "Pack years": ["3", "", ""]})
    table = with_metadata(images(list("abc"), list("123")), metadata, contract)

    found = judged(table, only(contract, "smokers"))["smokers_say_how_much"]

    assert (found.n_evaluated, found.n_unexpected) == (2, 1)


def test_an_unknown_level_and_a_text_for_a_number_break_rules_of_the_contract(tmp_path):
    contract = own(
        tmp_path,
        "demographics:\n"
        "  - {name: ethnic group, column: Group, kind: category, levels: [White, Black]}\n"
        "  - {name: maternal age, column: Age, kind: number, unit: years, edges: [20, 35]}\n"
        "  - {name: parity, column: Parity, kind: number, edges: [1], severity: critical}\n",
    )
    metadata = texts(Group=["White", "white", ""], Age=["30", "31.5", "about 40"])
    table = with_metadata(images(list("abc"), list("123")), metadata, contract)

    found = judged(table, only(contract, "ethnic", "maternal", "parity"))

    assert found["ethnic_group_known_level"].examples == ("white",)
    assert found["ethnic_group_known_level"].n_evaluated == 2
    assert found["ethnic_group_known_level"].severity == "warning"
    assert found["maternal_age_is_number"].examples == ("about 40",)
    assert not found["parity_declared"].passed  # nobody has the column
    assert "'Parity'" in found["parity_declared"].reason
    assert not found["parity_is_number"].passed
    assert found["parity_is_number"].n_evaluated == 0


def test_a_declared_column_of_the_image_table_is_read_where_the_metadata_lacks_it():
    contract = only(load_contract("hc18"), "gestational")
    table = images(list("ab"), list("12"), head_circumference_mm=[174.06, np.nan])

    joined = with_metadata(table, NO_METADATA, contract)

    assert joined["attribute.gestational age"].tolist() == ["174.06", pd.NA]
    found = judged(joined, contract)
    assert found["gestational_age_is_number"].passed
    assert found["gestational_age_is_number"].n_evaluated == 1


def test_metadata_of_other_rows_is_refused_as_a_fault_of_the_caller():
    with pytest.raises(ValueError, match="2 images but 1 rows"):
        with_metadata(images(list("ab"), list("12")), texts(x=["1"]), load_contract())


@pytest.mark.parametrize(
    ("adapter", "image_id", "patient", "rule", "passed"),
    [
        ("fetal-planes-db", "Patient00012_Plane3_1_of_2", "12", "image_name_says_the_pat", True),
        ("fetal-planes-db", "Patient00012_Plane3_1_of_2", "2", "image_name_says_the_pat", False),
        ("fetal-planes-db", "Patient00012_Plane3_1_of_2", "120", "image_name_says_the_pat", False),
        ("fetal-planes-db", "scan7", "2", "image_name_says_the_pat", True),
        ("phantom", "Patient00010_Plane3_1_of_2", "1", "image_name_says_the_pat", False),
        ("hc18", "010_2HC", "10", "image_name_says_the_exam", True),
        ("hc18", "000_HC", "0", "image_name_says_the_exam", True),
        ("hc18", "010_HC", "1", "image_name_says_the_exam", False),
        ("african-planes", "patient001_DZA_plane0", "Algeria-1", "image_name_says_the_pat", True),
        ("african-planes", "patient001_DZA_plane0", "Algeria-11", "image_name_says_the_pat", False),
    ],
)
def test_a_name_that_carries_another_patient_breaks_a_critical_rule(
    adapter, image_id, patient, rule, passed
):
    contract = only(load_contract(adapter), rule)
    table = images(["x", image_id], ["1", patient]).iloc[1:]

    (outcome,) = validate_with_pandera(table, contract)

    assert outcome.passed is passed
    assert outcome.severity == "critical"
    assert outcome.n_evaluated == 1


def test_values_that_must_agree_are_judged_alike_and_shown_together():
    contract = only(load_contract("african-planes"), "one_size", "image_name_says_the_country")
    table = images(
        ["patient001_DZA_plane0", "patient001_EGY_plane0", "patient002_EGY_plane0"],
        list("123"),
        site=pd.array(["Algeria", "Algeria", None], dtype="string"),
        width_px=[500, 400, 400],
        height_px=[430, 450, 450],
    )

    found = judged(table, contract)

    assert found["image_name_says_the_country"].examples == ("patient001_EGY_plane0 Algeria",)
    assert found["image_name_says_the_country"].n_evaluated == 2  # one country is not recorded
    assert found["one_size_a_country"].examples == ("Algeria 400 450",)
    assert found["one_size_a_country"].severity == "info"


def test_the_archived_results_are_equal_for_equal_tables_and_name_every_rule():
    contract = only(load_contract(), "image_id", "plane", "site", "row_count", "pixel_size")
    ids = [f"{n}/" + "x" * 300 for n in range(9)]
    table = images(ids, list("123456789"), plane=pd.array(["p"] * 9, dtype="string"))

    one, other = (validate_with_great_expectations(table, contract) for _ in range(2))

    assert one == other
    native = json.loads(one.native_json)
    items = [item for part in native["validations"] for item in part["results"]]
    meta = {item["expectation_config"]["meta"]["rule"]: item for item in items}
    not_tried = {item["rule"] for item in native["not_tried"]}
    assert set(meta) | not_tried == {rule.name for rule in contract.rules}
    assert set(meta) & not_tried == set()
    assert {"site_all_or_none", "pixel_size_mm_range"} <= not_tried
    pattern = meta["image_id_pattern"]
    assert pattern["expectation_config"]["meta"]["severity"] == "critical"
    assert pattern["expectation_config"]["meta"]["reason"].endswith(".")
    shown = pattern["result"]["partial_unexpected_list"]
    assert len(shown) == 5
    assert all(len(value) <= 80 for value in shown)
    assert "x" * 81 not in one.native_json.decode()
    for drawn in ("run_time", "validation_id", "ge_load_time", '"id"'):
        assert drawn not in one.native_json.decode()


def test_an_expectation_that_breaks_is_an_error_of_ours_and_no_verdict():
    contract = only(load_contract(), "image_id")
    table = images(list("ab"), list("12"))
    broken = replace(contract.rules[-1], kind="pattern", pattern="(unclosed")

    for validate in (validate_with_pandera, validate_with_great_expectations):
        with pytest.raises(Exception, match=r"broke|unterminated") as caught:
            validate(table, replace(contract, rules=(broken,)))
        assert not isinstance(caught.value, MedisynthGovError)  # no exit code for faulty data


def test_a_verdict_on_other_values_than_the_table_has_is_not_believed():
    engine = importlib.import_module("medisynth.data.contract.great_expectations_engine")
    unique = only(load_contract(), "image_id_unique").rules
    table = images(list("ab"), list("12"))

    with engine._quiet():
        (item,) = engine._validate(table, unique).results
    assert engine._outcome(unique[0], item, table).n_evaluated == 2
    with pytest.raises(RuntimeError, match="fault of the engine or of medisynth, not of the data"):
        engine._outcome(unique[0], item, table.iloc[:1])


@pytest.mark.parametrize("worst", [None, "warning"])
def test_the_gate_is_the_engines_worst_failure_and_must_agree_with_its_expectations(worst):
    engine = importlib.import_module("medisynth.data.contract.great_expectations_engine")
    failed = RuleResult(
        engine="great_expectations",
        rule="r",
        column="c",
        severity="critical",
        passed=False,
        n_evaluated=2,
        n_unexpected=1,
        reason="R.",
    )

    engine._check_worst([failed], "critical")
    with pytest.raises(RuntimeError, match="calls its worst failure"):
        engine._check_worst([failed], worst)


def test_only_columns_that_a_later_step_adds_are_tried_when_it_hands_them_on():
    contract, table = load_contract(), sound()
    grouped = table.assign(group=pd.array(["g"] * len(table), dtype="string"))
    divided = grouped.assign(partition=pd.array(["training"] * len(table), dtype="string"))
    broken = divided.assign(image_id="i0")  # a rule of the first step, which has been tried
    broken.loc[2, "partition"] = "validation"

    assert broken_rules(table, contract, added_by="s3_audit") == (
        "group_exists",
        "group_dtype",
        "group_not_null",
    )
    assert broken_rules(grouped, contract, added_by="s3_audit") == ()
    assert broken_rules(divided, contract, added_by="s4_split") == ()
    assert broken_rules(broken, contract, added_by="s4_split") == ("partition_allowed",)


@pytest.mark.parametrize("options", [[], ["-W", "error"]], ids=["plain", "import fails"])
def test_warming_up_imports_the_engine_silently_and_a_failure_harms_nothing(options):
    code = (
        "import os, sys\n"
        "from medisynth.data.contract.contract import warm_up\n"
        "before = dict(os.environ)\n"
        "warm_up().join()\n"
        "assert dict(os.environ) == before\n"
        "from medisynth.data.contract.great_expectations_engine import _quiet, import_engine\n"
        "with _quiet():\n    import_engine()\n"
        "print('great_expectations' in sys.modules)\n"
    )

    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, *options, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)
