"""Test sets from other sources: what is left out, packed, read back and refused."""

import io
import shutil

import pytest

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import CHECKS
from governance.evidence.folder import RunFolder
from governance.records.base import ItemStatus
from governance.records.errors import ConfigError, DataError, EvidenceTamperedError
from governance.records.evaluation import EvaluationRecord, ExternalSet, MetricResult
from governance.records.policy import Criterion
from medisynth.data.phantom import PhantomSettings, write_phantoms
from pipelines.config.model import load_config
from pipelines.current_run.console import Console
from pipelines.current_run.places import refuse_misplaced_folders
from pipelines.selftest.bench import Bench
from pipelines.steps import external
from tests.stored_run.stored import change, stored


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    return Bench(folder, Console(stream=io.StringIO()))


@pytest.fixture(scope="module")
def other(tmp_path_factory, bench):
    """An HC18-like folder: other phantoms, and two pictures of the run's own data."""
    folder = tmp_path_factory.mktemp("other")
    phantoms = tmp_path_factory.mktemp("source") / "phantoms"
    write_phantoms(phantoms, PhantomSettings(n_patients=12, seed=9, image_height_px=64))
    files = sorted((phantoms / "Images").iterdir())[:20]
    files += sorted((bench.clean_data / "Images").iterdir())[:2]
    lines = ["filename,pixel size(mm),head circumference (mm)"]
    for k, path in enumerate(files):
        shutil.copy(path, folder / f"{k:03d}_HC.png")
        lines.append(f"{k:03d}_HC.png,0.1,150.0")
    (folder / "training_set_pixel_size_and_HC.csv").write_text("\n".join([*lines, ""]))
    return folder


@pytest.fixture(scope="module")
def run(bench, other):
    run = bench.new_run(evaluation__external=[{"name": "other", "data": str(other)}])
    run.prepare()
    return run


def test_images_that_the_run_holds_as_well_are_left_out_and_named(run):
    (found,) = external.read(run.context)

    assert found.facts.n_listed == 22
    assert found.facts.n_left_out >= 2
    assert any(line.startswith("020_HC: same file of ") for line in found.facts.left_out)
    assert len(found.pixels) == len(found.patients) == found.facts.n_images
    assert found.facts.adapter == "hc18"


def test_the_training_process_must_fail_to_read_it(run, other):
    assert run.split.must_refuse["external test set other"] == str(other)
    run.prove_isolation()


def test_packed_images_that_were_changed_are_found(run):
    path = run.context.scratch / "external" / "other.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(EvidenceTamperedError, match=r"other\.npz"):
            external.read(run.context)
    finally:
        path.write_bytes(whole)


def test_without_fidelity_the_set_is_on_record_with_the_reason(run):
    (found,) = external.unmeasured(run.context)

    assert found.kid is None
    assert "not measured" in found.reason


def test_a_set_that_is_this_runs_own_data_leaves_nothing(bench):
    again = bench.copied_data()
    run = bench.new_run(evaluation__external=[{"name": "again", "data": str(again)}])

    with pytest.raises(DataError, match=r"all .* images are in this run's data as well"):
        run.prepare()


@pytest.mark.parametrize(("inside", "said"), [(True, "lie in one another"), (False, "named 'a'")])
def test_a_set_inside_the_data_and_two_of_one_name_are_refused(tmp_path, inside, said):
    one = {"name": "a", "data": str(tmp_path / "data" / "x")}
    flags = {"data.path": str(tmp_path / "data"), "workspace": str(tmp_path / "ws")}
    with pytest.raises(ConfigError, match=said):
        refuse_misplaced_folders(
            load_config(
                preset="smoke",
                flags=flags | {"evaluation.external": [one] if inside else [one, one]},
            )
        )


FACTS = ExternalSet(
    name="other",
    title="Other",
    adapter="hc18",
    licence="",
    content_sha256="0" * 64,
    unit="patient",
    n_listed=50,
    n_left_out=2,
    left_out=(),
    n_images=48,
    n_patients=40,
)


def judged(*sets):
    evaluation = change(stored()[EvaluationRecord], external=sets)
    criterion = Criterion(metric="external test sets used", operator=">=", value=1)
    return CHECKS["P4-13"].function(JudgedRun(RunFolder.of(evaluation)), criterion)


def kid(value):
    return MetricResult(
        id="kid-x", title="KID", status=ItemStatus.RECORDED, value=value, floor=0.05
    )


def test_a_measured_set_passes_the_item_with_value_floor_and_what_was_left_out():
    result = judged(FACTS.model_copy(update={"metrics": (kid(0.2),)}))

    assert result.status is ItemStatus.PASSED
    assert "KID 0.200 (real training images 0.050), 48 images, 2 left out" in result.reason


def test_no_set_and_a_set_that_was_not_measured_are_not_evaluated():
    assert judged().status is ItemStatus.NOT_EVALUATED
    found = judged(FACTS.model_copy(update={"reason": "images are black"}))
    assert found.status is ItemStatus.NOT_EVALUATED
    assert "images are black" in found.reason


def test_a_set_that_was_packed_twice_is_compared_once(run):
    external.prepare(run.images, run.context)

    assert len(external.read(run.context)) == 1
