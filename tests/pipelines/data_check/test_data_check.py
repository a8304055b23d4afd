import hashlib
import json
import os
from xml.etree import ElementTree

import pytest
from PIL import Image
from typer.testing import CliRunner

from medisynth.data.phantom import PhantomSettings, write_phantoms
from pipelines.cli.app import app
from pipelines.config.model import load_config
from pipelines.data_check.check import CheckedData, CheckMemory, now
from tests.places import KIT

needs_kit = pytest.mark.skipif(not KIT.is_dir(), reason="the real data kit is not here")
runner = CliRunner()


def test_a_sound_data_set_is_exit_0_with_its_digest(tmp_path):
    write_phantoms(tmp_path / "data", PhantomSettings(n_patients=12, image_height_px=80))

    result = runner.invoke(app, ["data", "check", str(tmp_path / "data"), "--json"])

    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["listing"]["n_patients"] == 12
    assert len(facts["dataset"]["content_sha256"]) == 64
    assert facts["duplicates"]["n_pairs"] == 0


def test_a_planted_duplicate_across_the_split_is_exit_4_and_named(tmp_path):
    settings = PhantomSettings(
        n_patients=12, image_height_px=80, leaks=("duplicate-other-patient",)
    )
    report = write_phantoms(tmp_path / "data", settings)

    result = runner.invoke(app, ["data", "check", str(tmp_path / "data")])

    assert result.exit_code == 4, result.output
    for name in report.leaks[0].images:
        assert name in result.stdout


def test_a_site_without_a_group_and_a_band_missing_from_training_fail_their_items_by_name(tmp_path):
    imbalances = ("site-without-group", "age-band-missing-from-training")
    few = {"image_height_px": 64, "max_images_per_patient": 1}
    settings = PhantomSettings(n_patients=120, imbalances=imbalances, **few)
    write_phantoms(tmp_path / "data", settings)
    command = ["data", "check", str(tmp_path / "data"), "--json", "-o", "audit.n_text_images=0"]

    facts = json.loads(runner.invoke(app, command).stdout)
    said = {item["id"]: (item["status"], item["reason"]) for item in facts["items"]}

    assert (said["P3-03"][0], said["P3-05"][0]) == ("failed", "failed")
    assert "maternal age 35 years and above: 0 in training" in said["P3-03"][1]
    assert "group Group A and site Site 2: none where" in said["P3-03"][1]
    assert "maternal age 35 years and above only in held-out test set" in said["P3-05"][1]
    assert said["P3-04"][0] == "recorded"  # the simulator's own target, without a limit


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    write_phantoms(tmp_path / "data", PhantomSettings(n_patients=10, image_height_px=80))
    before = sorted((tmp_path / "data").rglob("*"))
    monkeypatch.chdir(tmp_path)

    runner.invoke(app, ["data", "check", "data"])

    assert sorted((tmp_path / "data").rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@needs_kit
def test_the_real_table_alone_gives_the_published_numbers(tmp_path):
    table = KIT / "fetal_planes_db" / "FETAL_PLANES_DB_data.csv"
    (tmp_path / table.name).write_bytes(table.read_bytes())

    result = runner.invoke(app, ["data", "check", str(tmp_path)])

    assert result.exit_code == 3  # no image is there
    assert "12,400 rows, 1,792 patients" in result.stdout
    assert "official training: 7,129 images, 896 patients" in result.stdout
    assert "official held-out test set: 5,271 images, 896 patients" in result.stdout
    line = next(t for t in result.stdout.splitlines() if "Voluson S10" in t)
    assert "1,071 (90)" in line
    assert "11 (1)" in line


@needs_kit
def test_the_african_set_has_ten_exact_pairs_five_across_the_split(tmp_path):
    command = ["data", "check", str(KIT / "african_planes"), "--out", str(tmp_path)]

    result = runner.invoke(app, command)

    assert result.exit_code == 4
    facts = json.loads((tmp_path / "data_check.json").read_bytes())
    pairs = facts["duplicates"]["pairs"]
    exact = [p for p in pairs if p["kind"] == "same file"]
    assert len(exact) == 10
    assert all(p["left_patient"] != p["right_patient"] for p in exact)
    assert sum(p["left_partition"] != p["right_partition"] for p in exact) == 5
    assert facts["split"]["shared_near"]["training | held-out test set"] == 2
    statuses = {item["id"]: item["status"] for item in facts["items"]}
    assert statuses["P4-02"] == "failed"
    assert statuses["P4-03"] == "failed"


@needs_kit
def test_hc18_has_one_exact_pair_and_the_ten_groups_of_its_metadata(tmp_path):
    import pandas as pd

    command = ["data", "check", str(KIT / "hc18"), "--out", str(tmp_path)]

    result = runner.invoke(app, command)

    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "data_check.json").read_bytes())["duplicates"]
    exact = [(p["left_id"], p["right_id"]) for p in found["pairs"] if p["kind"] == "same file"]
    assert exact == [("392_2HC", "392_HC")]
    table = pd.read_csv(KIT / "hc18" / "metadata.csv", dtype=str)
    grouped = table[table["near_duplicate_group"].notna()]
    expected = {
        frozenset(names.str.removesuffix(".png"))
        for _, names in grouped.groupby("near_duplicate_group")["file_name"]
    }
    assert _components(found["pairs"]) == expected
    assert len(expected) == 10
    assert found["n_pairs_across_patients"] == 0


def _components(pairs):
    """Images tied together by pairs."""
    group_of = {}
    for pair in pairs:
        ends = (pair["left_id"], pair["right_id"])
        merged = frozenset().union(*(group_of.get(end, frozenset({end})) for end in ends))
        group_of.update(dict.fromkeys(merged, merged))
    return set(group_of.values())


@needs_kit
def test_the_real_table_alone_fails_confounding_and_shift(tmp_path):
    table = KIT / "fetal_planes_db" / "FETAL_PLANES_DB_data.csv"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / table.name).write_bytes(table.read_bytes())

    runner.invoke(app, ["data", "check", str(tmp_path / "data"), "--out", str(tmp_path / "out")])

    facts = json.loads((tmp_path / "out" / "data_check.json").read_bytes())
    items = {item["id"]: item for item in facts["items"]}
    v = {(c["left"], c["right"]): c["v"] for c in facts["audit"]["confounding"]}
    assert round(v["machine", "operator"], 2) == 0.61
    assert items["P3-07"]["status"] == "failed"
    assert items["P3-05"]["status"] == "failed"
    assert "Voluson S10" in items["P3-03"]["reason"]


def test_a_check_writes_a_page_that_loads_nothing_json_and_junit(tmp_path):
    settings = PhantomSettings(n_patients=12, image_height_px=80, leaks=("identifying-column",))
    write_phantoms(tmp_path / "data", settings)

    command = ["data", "check", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    result = runner.invoke(app, command)

    assert result.exit_code == 0, result.output
    page = (tmp_path / "out" / "data_check.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert 'src="http' not in page
    data = (tmp_path / "out" / "data_check.junit.xml").read_bytes()
    suite = ElementTree.fromstring(data)  # noqa: S314 - our own output
    cases = {case.get("name").split()[0]: case for case in suite}
    assert cases["P2-13"].find("failure") is not None
    assert "Patient_name" in cases["P2-13"].find("failure").get("message")
    assert cases["P4-01"].find("failure") is None
    assert int(suite.get("failures")) == len(suite.findall("testcase/failure"))


def test_a_second_check_decodes_nothing_that_has_not_changed(tmp_path):
    write_phantoms(tmp_path / "data", PhantomSettings(n_patients=10, image_height_px=80))
    command = ["data", "check", str(tmp_path / "data"), "--json"]
    command += ["-o", f"data.cache={tmp_path / 'cache'}"]
    first = json.loads(runner.invoke(app, command).stdout)
    n_images = first["dataset"]["n_decoded"]
    one = next((tmp_path / "data" / "Images").iterdir())
    with Image.open(one) as image:
        image.transpose(Image.Transpose.ROTATE_180).save(one)

    second = json.loads(runner.invoke(app, command).stdout)

    assert first["dataset"]["n_from_cache"] == 0
    assert second["dataset"]["n_decoded"] == 1
    assert second["dataset"]["n_from_cache"] == n_images - 1
    assert first["dataset"]["content_sha256"] != second["dataset"]["content_sha256"]


def test_a_contract_beside_the_data_is_judged_with_the_built_in_one(tmp_path):
    write_phantoms(tmp_path / "data", PhantomSettings(n_patients=10, image_height_px=80))
    own = (
        "name: ours\nversion: 1\n"
        "columns:\n  width_px:\n    dtype: integer\n    nullable: false\n    min: 32\n    max: 50\n"
        "    severity: critical\n    reason: Our scanners give small frames.\n"
    )
    (tmp_path / "data" / "data_contract.yaml").write_text(own, encoding="utf-8")

    result = runner.invoke(app, ["data", "check", str(tmp_path / "data")])

    assert result.exit_code == 3, result.output
    assert "width_px" in result.output


def test_an_unreadable_target_population_is_exit_2_and_named(tmp_path):
    write_phantoms(tmp_path / "data", PhantomSettings(n_patients=10, image_height_px=80))
    target = tmp_path / "target.yaml"
    target.write_text("name: {\n", encoding="utf-8")

    command = ["data", "check", str(tmp_path / "data"), "-o", f"audit.target_population={target}"]
    result = runner.invoke(app, command)

    assert result.exit_code == 2
    assert str(target.name) in result.output


def check(folder, *more):
    return runner.invoke(app, ["data", "check", str(folder), "--json", *more])


def phantoms(folder, **settings):
    write_phantoms(folder, PhantomSettings(n_patients=10, image_height_px=80, **settings))
    return folder


def test_a_flat_image_and_a_misspelt_level_are_named_with_row_value_and_nearest_level(tmp_path):
    folder = phantoms(tmp_path / "data", machines=("Voluson E6",))
    path = sorted((folder / "Images").iterdir())[0]
    Image.new("L", (100, 80), 0).save(path)
    table = folder / "FETAL_PLANES_DB_data.csv"
    lines = table.read_text().splitlines()
    lines[2] = lines[2].replace("Voluson E6", "Volusn E6")
    table.write_text("\n".join(lines) + "\n")

    result = runner.invoke(app, ["data", "check", str(folder)])

    assert result.exit_code == 3, result.output
    row = next(k for k, line in enumerate(lines, 1) if line.startswith(path.stem))
    assert f"{table.name}:{row} column 'std_intensity': {path.stem}: 0.0, nearest allowed 1" in (
        result.stderr
    )
    name = lines[2].split(";")[0]
    assert f"row 3, {name}: Volusn E6, nearest allowed Voluson E6" in result.stdout
    assert f"row 3, {name}: Volusn E6" in result.stderr


@pytest.mark.malformed("config")
def test_a_contract_beside_the_data_that_is_no_file_or_has_nearly_the_name_is_refused(tmp_path):
    folder = phantoms(tmp_path / "data")
    contract = folder / "data_contract.yaml"
    os.mkfifo(contract)
    assert "is a named pipe, expected a data contract" in (said := check(folder)).stderr
    assert said.exit_code == 2
    contract.unlink()
    os.mkfifo(pipe := tmp_path / "pipe")
    for key in ("data.contract", "audit.target_population"):
        assert (said := check(folder, "-o", f"{key}={pipe}")).exit_code == 2
        assert str(pipe) in said.stderr
    contract.symlink_to("nowhere")
    assert "is a symbolic link whose file is not there" in check(folder).stderr
    contract.unlink()
    (folder / "Data_Contract.yml").touch()
    assert "'Data_Contract.yml' would not be read; rename it" in check(folder).stderr


def test_an_unchanged_folder_gives_the_same_result_without_checking_again(tmp_path):
    folder = phantoms(tmp_path / "data", leaks=("duplicate-other-patient",))

    first, second = check(folder), check(folder)

    assert first.exit_code == second.exit_code == 4
    assert json.loads(first.stdout) == json.loads(second.stdout)
    assert "nothing has changed since" in second.stderr
    assert "nothing has changed since" not in first.stderr
    assert "error" in second.stderr


def test_one_changed_byte_of_the_same_length_is_checked_anew(tmp_path):
    folder = phantoms(tmp_path / "data")
    check(folder)
    image = next(folder.rglob("*.png"))
    status = image.stat()
    damaged = bytearray(image.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    image.write_bytes(bytes(damaged))
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))

    second = check(folder)

    assert second.exit_code == 3
    assert "nothing has changed since" not in second.stderr


def test_the_content_of_files_that_nothing_reads_is_not_compared(tmp_path):
    folder = phantoms(tmp_path / "data")
    (folder / "notes.txt").write_text("one")
    check(folder)
    (folder / "notes.txt").write_text("two")

    assert "nothing has changed since" in check(folder).stderr


def test_another_configuration_or_a_new_file_is_checked_anew(tmp_path):
    folder = phantoms(tmp_path / "data")
    check(folder)

    assert "nothing has changed" not in check(folder, "-o", "audit.n_resamples=101").stderr
    (folder / "notes.txt").write_text("new")
    assert "nothing has changed" not in check(folder).stderr


def test_a_switched_off_cache_checks_anew(tmp_path):
    folder = phantoms(tmp_path / "data")
    for _ in range(2):
        assert "nothing has changed" not in check(folder, "-o", "data.cache=off").stderr


def test_a_damaged_memory_counts_as_none(tmp_path):
    folder = phantoms(tmp_path / "data")
    cache = tmp_path / "cache"
    keep = ("-o", f"data.cache={cache}")
    check(folder, *keep)
    [entry] = (cache / "checks").iterdir()
    data = bytearray(entry.read_bytes())
    data[len(data) // 3] ^= 255
    entry.write_bytes(bytes(data))

    assert check(folder, *keep).exit_code == 0
    assert entry.stat().st_mode & 0o077 == 0


def test_what_was_read_is_remembered_not_what_lay_there_afterwards(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"as it lies there now")
    flags = {"data.path": str(folder), "data.cache": str(tmp_path / "cache")}
    config = load_config(preset="laptop", flags=flags)

    def is_recalled_after(read_sha256: dict[str, str]) -> bool:
        memory = CheckMemory(config, lambda done, total: None)
        memory.keep(CheckedData("", {}, b"", b"", 0, None, "", (), now(), read_sha256))
        return CheckMemory(config, lambda done, total: None).recall() is not None

    assert not is_recalled_after({"a.png": hashlib.sha256(b"as it was read").hexdigest()})
    assert is_recalled_after({"a.png": hashlib.sha256(b"as it lies there now").hexdigest()})
    assert is_recalled_after({})


def test_a_folder_with_a_symbolic_link_is_never_remembered(tmp_path):
    folder = phantoms(tmp_path / "data")
    (folder / "link").symlink_to(tmp_path)
    for _ in range(2):
        assert "nothing has changed" not in check(folder).stderr
