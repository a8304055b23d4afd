"""Contract files: the base, an adapter's on top, the user's own, and every trap with its line."""

from pathlib import Path

import pytest

from governance.records.errors import SettingsError
from medisynth.data.contract.contract import DataContract, Rule, load_contract
from medisynth.data.contract.file import read_contract
from medisynth.data.contract.rules import combine
from medisynth.data.phantom.anatomy import mean_head_circumference_mm

BASE = load_contract()
ADAPTERS = ("african-planes", "fetal-planes-db", "hc18", "phantom")
HEAD = "name: ours\nversion: 1\n"


def rule(contract: DataContract, name: str) -> Rule:
    return next(one for one in contract.rules if one.name == name)


def own(folder: Path, text: str, adapter: str | None = None) -> DataContract:
    path = folder / "data_contract.yaml"
    path.write_text(HEAD + text, encoding="utf-8")
    return load_contract(adapter, path)


def fault(folder: Path, text: str, adapter: str | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        own(folder, text, adapter)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(folder / "data_contract.yaml"), "FILE")


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapters_contract_is_the_base_with_its_own_rules_on_top(adapter):
    contract = load_contract(adapter)

    names = [one.name for one in contract.rules]
    assert contract.name == adapter
    assert len(names) == len(set(names))
    assert {one.name for one in BASE.rules} - set(names) <= {
        # replaced by the stricter "recorded for every image"
        "operator_all_or_none",
        "machine_all_or_none",
        "site_all_or_none",
        "official_partition_all_or_none",
    }
    assert all(one.reason.endswith(".") for one in contract.rules)
    expected = ["image_table.yaml", adapter.replace("-", "_") + ".yaml"]
    assert [name for name, _ in contract.files] == expected
    assert all(len(digest) == 64 for _, digest in contract.files)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_no_adapters_contract_weakens_a_critical_rule_of_the_base(adapter):
    contract = load_contract(adapter)

    for below in BASE.rules:
        if below.severity == "critical" and below.name != "official_partition_all_or_none":
            assert rule(contract, below.name).severity == "critical", below.name
    for name in ("width_px_range", "image_id_pattern", "synthetic_mark_allowed"):
        assert rule(contract, name) == rule(BASE, name)


def test_an_unknown_adapter_gets_the_base():
    assert load_contract("example-hospital") == BASE
    assert load_contract("../../etc/passwd") == BASE
    assert load_contract("image-table") == BASE


def test_a_rule_stated_again_replaces_the_base_s_and_leaves_the_others(tmp_path):
    contract = own(
        tmp_path, "columns:\n  mean_intensity: {min: 20, severity: info, reason: Dark.}\n"
    )

    changed = rule(contract, "mean_intensity_range")
    assert (changed.minimum, changed.maximum, changed.severity) == (20, None, "info")
    assert rule(contract, "mean_intensity_not_null") == rule(BASE, "mean_intensity_not_null")
    assert len(contract.rules) == len(BASE.rules)
    assert contract.files[-1][0] == "data_contract.yaml"
    assert (contract.name, contract.version) == (BASE.name, BASE.version)


def test_a_critical_rule_may_be_tightened(tmp_path):
    contract = own(
        tmp_path,
        "min_rows: 100\ncolumns:\n"
        "  width_px: {min: 200, max: 2000, severity: critical, reason: Ours.}\n"
        "  mode: {allowed: [L], severity: critical, reason: Ours.}\n"
        "  image_id: {pattern: 'ours_[0-9]+', severity: critical, reason: Ours.}\n"
        "  head_circumference_mm: {required: true, severity: warning, reason: Ours.}\n",
    )

    assert rule(contract, "row_count").minimum == 100
    assert rule(contract, "width_px_range").minimum == 200
    assert rule(contract, "mode_allowed").allowed == ("L",)
    assert rule(contract, "image_id_pattern") == rule(BASE, "image_id_pattern")
    assert rule(contract, "image_id_pattern_own").pattern == r"\A(?:ours_[0-9]+)\Z"
    assert not rule(contract, "head_circumference_mm_range").is_optional


@pytest.mark.parametrize(
    ("column", "named"),
    [
        ("width_px: {min: 10, max: 10000, severity: critical, reason: r}", "width_px_range"),
        ("width_px: {min: 64, severity: critical, reason: r}", "width_px_range"),
        ("width_px: {min: 64, max: 100, severity: warning, reason: r}", "width_px_range"),
        ("mode: {allowed: [L, P], severity: critical, reason: r}", "mode_allowed"),
        ("image_id: {unique: false, severity: critical, reason: r}", "image_id_unique"),
        ("image_id: {nullable: true, severity: critical, reason: r}", "image_id_not_null"),
        ("image_id: {nullable: all_or_none, severity: critical, reason: r}", "image_id_not_null"),
        ("image_id: {required: false, severity: critical, reason: r}", "image_id_exists"),
        ("row: {dtype: real, severity: critical, reason: r}", "row_dtype"),
        ("synthetic_mark: {allowed: [true], severity: critical, reason: r}", "synthetic_mark_all"),
        ("row: {nullable: true, severity: info, reason: r}", "row_not_null"),
    ],
)
def test_weakening_a_critical_rule_is_refused_with_rule_file_and_line(tmp_path, column, named):
    message = fault(tmp_path, f"columns:\n  {column}\n")

    assert message.startswith("FILE:4: columns.")
    assert named in message
    assert "may only tighten" in message


def test_a_critical_rule_over_two_columns_is_not_taken_back_either(tmp_path):
    text = (
        "cross_column:\n  - {name: fetal_brain_has_brain_plane, column: brain_plane, "
        "when_column: plane, is: Fetal brain, expect: empty, severity: critical, reason: r}\n"
    )

    assert "weakens the critical rule 'fetal_brain_has_brain_plane'" in fault(tmp_path, text)
    assert "weakens the critical rule 'row_count'" not in fault(tmp_path, text)


def test_hc18_declares_the_trimester_by_a_proxy_and_says_what_it_cannot_show():
    (declared,) = load_contract("hc18").demographics

    assert (declared.name, declared.column) == ("gestational age", "head_circumference_mm")
    assert (declared.kind, declared.unit) == ("number", "mm")
    means_mm = [mean_head_circumference_mm(weeks) for weeks in (14, 28)]
    assert declared.edges == tuple(round(mean) for mean in means_mm)
    assert [name.split()[0] for name in declared.bins] == ["first", "second", "third"]
    assert all(name.endswith("(derived)") for name in declared.bins)
    assert declared.is_proxy
    assert "Hadlock" in declared.note
    assert "cannot" in declared.note
    assert BASE.demographics == ()


def test_a_users_file_declares_attributes(tmp_path):
    contract = own(
        tmp_path,
        "demographics:\n  - {name: ethnicity, column: Ethnic group, kind: category, "
        "levels: [White, Black], note: Self-reported.}\n",
    )

    assert contract.demographics[0].levels == ("White", "Black")
    known = rule(contract, "ethnicity_known_level")
    assert (known.severity, known.allowed) == ("warning", ("White", "Black"))
    assert rule(contract, "ethnicity_declared").severity == "critical"


TRAPS = [
    ("columns: {}\ncolumns: {}\n", "FILE:4: ", "columns"),
    ("columns: &a {}\nmetadata: *a\n", "FILE:3: ", "anchors and aliases are not allowed"),
    ("columns: !!python/object/apply:os.system [ls]\n", "FILE:3: ", "tags are not allowed"),
    ("columns: !!map {}\n", "FILE:3: ", "tags are not allowed"),
    ("a: " + "[" * 5000 + "\n", "FILE:3: ", "more than 8 levels"),
    ("columns: [1, 2\n", "FILE:", "not readable as YAML"),
    ("---\nname: x\n", "FILE:", "YAML"),
    ("rules: 1\n", "FILE:3: rules: ", "is no key of a contract"),
    ("min_rows: 0\n", "FILE:3: min_rows: ", "greater than or equal to 1, found '0'"),
    ("min_rows: '5'\n", "FILE:3: min_rows: ", "valid integer"),
    ("columns:\n  plane: {severity: fatal, reason: r}\n", "FILE:4: columns.plane.sever", "'fatal'"),
    ("columns:\n  plane: {severity: info}\n", "FILE:4: columns.plane: reason", "is missing"),
    ("columns:\n  plane: {severity: info, reason: r, min: .nan}\n", "FILE:4: columns", "finite"),
    ("columns:\n  plane: {severity: info, reason: r, min: 2, max: 1}\n", "FILE:4: ", "at most max"),
    ("columns:\n  plane: {severity: info, reason: r, pattern: '('}\n", "FILE:4: ", "regular expr"),
    ("columns:\n  plane: {severity: info, reason: r, pattern: 'a)|(b'}\n", "FILE:4: ", "regular"),
    ("columns:\n  plane: {severity: info, reason: r, pattern: 'a(?i)'}\n", "FILE:4: ", "regular"),
    (
        "columns:\n  extra: {severity: info, reason: r}\n",
        "FILE:4: columns.extra: ",
        "needs 'dtype'",
    ),
    ("metadata:\n  BMI: {severity: info, reason: r, min: 1}\n", "FILE:4: ", "need dtype"),
    (
        "cross_column: [{name: a, column: b, when_column: c, expect: empty, severity: info, "
        "reason: r}]\n",
        "FILE:3: cross_column.0: ",
        "exactly one of",
    ),
    (
        "demographics: [{name: a, column: b, kind: category, levels: [1]}]\n",
        "FILE:3: demographics.0.levels.0: ",
        "put it in quotes",
    ),
    ("demographics: [{name: a, column: b, kind: category}]\n", "FILE:3: ", "needs `levels`"),
    ("demographics: [{name: a, column: b, kind: number}]\n", "FILE:3: ", "needs `edges`"),
    (
        "demographics: [{name: a, column: b, kind: number, edges: [1], bins: [low]}]\n",
        "FILE:3: ",
        "expected 2 different names in `bins`",
    ),
    (
        "demographics: [{name: a, column: b, kind: number, edges: [2, 1]}]\n",
        "FILE:3: ",
        "increasing",
    ),
    (
        "demographics: [{name: a, column: b, kind: number, edges: [1], is_proxy: true}]\n",
        "FILE:3: ",
        "needs a `note`",
    ),
    (
        "demographics:\n  - {name: a, column: b, kind: number, edges: [1]}\n"
        "  - {name: a, column: c, kind: number, edges: [1]}\n",
        "FILE:5: demographics.1.name: ",
        "declared twice",
    ),
    ("extends: phantom\n", "FILE:3: extends: ", "expected 'image-table'"),
]


@pytest.mark.malformed("config")
@pytest.mark.parametrize(("text", "place", "words"), TRAPS, ids=[str(n) for n in range(len(TRAPS))])
def test_a_trap_is_named_with_file_line_and_key(tmp_path, text, place, words):
    message = fault(tmp_path, text)

    assert message.startswith(place)
    assert words in message


def test_words_of_yaml_that_once_were_booleans_stay_words(tmp_path):
    contract = own(
        tmp_path,
        "demographics: [{name: smoker, column: smoker, kind: category, levels: [yes, no]}]\n",
    )

    assert contract.demographics[0].levels == ("yes", "no")


@pytest.mark.malformed("config")
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"name: x\n", "version: is missing"),
        (b"a: " + b"x" * 70_000, "larger than 64 kB"),
        (b"name: \xff", ":1: is not UTF-8"),
        (b"%YAML 1.1\n---\nname: x\n", "directives are not allowed"),
        (b"name: x\x00", "YAML"),
        (b"version: " + b"9" * 9000, "contract.yaml"),
    ],
)
def test_a_file_that_is_no_contract_is_refused(tmp_path, data, words):
    path = tmp_path / "contract.yaml"
    path.write_bytes(data)

    with pytest.raises(SettingsError, match=r"contract\.yaml") as caught:
        load_contract(own=path)
    assert words in str(caught.value)


@pytest.mark.malformed("config")
def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path, said in ((tmp_path / "none.yaml", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(SettingsError, match=said):
            load_contract(own=path)


def test_a_built_in_file_says_what_it_extends(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(HEAD)
    base = Path(load_contract.__code__.co_filename).with_name("built_in") / "image_table.yaml"

    with pytest.raises(SettingsError, match="extends: expected 'image-table'"):
        combine([read_contract(base), read_contract(path)])
