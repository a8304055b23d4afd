"""The phantom simulator: published layout, repeatable bytes, plausible physics, planted faults."""

import csv
import hashlib
import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from governance.records.errors import DataError, ResourceError, SettingsError
from medisynth.data.adapters.fetal_planes_db import FetalPlanesDb
from medisynth.data.adapters.phantom import Phantom
from medisynth.data.audit.target_population import (
    check_levels,
    declared_levels,
    load_target_population,
)
from medisynth.data.contract.contract import load_contract
from medisynth.data.phantom import (
    BRAIN_PLANES,
    LEAKS,
    MACHINES,
    SIMULATOR_VERSION,
    PhantomReport,
    PhantomSettings,
    phantom_key,
    plant_in_copy,
    simulate_image,
    write_phantoms,
)
from medisynth.data.phantom.acquisition import receive, simulate
from medisynth.data.phantom.anatomy import (
    draw_anatomy,
    mean_head_circumference_mm,
    sample_raster,
)
from medisynth.data.phantom.cohort import (
    PERSON_COLUMNS,
    SimulatedPatient,
    plan_cohort,
    stream,
)
from medisynth.data.phantom.geometry import Beams, draw_view
from medisynth.data.phantom.profiles import (
    MACHINE_PROFILES,
    OPERATOR_HABITS,
    body_mass_effect,
)

ORDINARY = body_mass_effect(25.0)
SMALL = PhantomSettings(n_patients=5, seed=3, max_images_per_patient=4, image_height_px=64)


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def rows_of(root: Path) -> dict[str, dict[str, str]]:
    with (root / "FETAL_PLANES_DB_data.csv").open(newline="", encoding="ascii") as stream_:
        return {row["Image_name"]: row for row in csv.DictReader(stream_, delimiter=";")}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> PhantomReport:
    return write_phantoms(tmp_path_factory.mktemp("phantom") / "small", SMALL, n_workers=1)


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> PhantomReport:
    settings = replace(SMALL, n_patients=16, leaks=LEAKS)
    return write_phantoms(tmp_path_factory.mktemp("phantom") / "leaky", settings)


def leak_images(report: PhantomReport, leak: str) -> tuple[str, ...]:
    (images,) = [planted.images for planted in report.leaks if planted.leak == leak]
    return images


# --- layout ------------------------------------------------------------------------------------


def test_metadata_file_is_as_published_with_columns_on_the_patient_before_the_last(
    small: PhantomReport,
) -> None:
    lines = (small.root / "FETAL_PLANES_DB_data.csv").read_bytes().decode("ascii").split("\n")

    published = "Image_name;Patient_num;Plane;Brain_plane;Operator;US_Machine"
    assert lines[0] == ";".join((published, *PERSON_COLUMNS, "Train "))
    assert lines[-1] == ""
    assert len(lines) == small.n_images + 2
    assert all(line.endswith((";1 ", ";0 ")) for line in lines[1:-1])
    assert lines[1].startswith("Patient00001_Plane3_1_of_")
    assert lines[1].split(";")[1:3] == ["1", "Fetal brain"]


def test_every_row_has_an_8_bit_grey_png_and_there_is_no_other_file(small: PhantomReport) -> None:
    names = {f"Images/{name}.png" for name in rows_of(small.root)}

    assert set(contents(small.root)) == names | {"FETAL_PLANES_DB_data.csv", "phantom.json"}
    for name in names:
        with Image.open(small.root / name) as picture:
            assert (picture.format, picture.mode) == ("PNG", "L")
            assert not picture.info  # no text chunk


def test_the_adapter_of_the_published_set_reads_the_phantoms(small: PhantomReport) -> None:
    listing = Phantom().list_images(small.root)

    assert Phantom().detects(small.root)
    assert not FetalPlanesDb().detects(small.root)
    assert len(listing.table) == small.n_images
    assert listing.table["patient_id"].nunique() == small.n_patients == 5
    assert set(listing.table["site"]) <= {"Site 1", "Site 2", "Site 3"}
    by_patient = listing.table.groupby("patient_id")["official_partition"].agg(["nunique", "first"])
    assert set(by_patient["nunique"]) == {1}
    # 0.4 of 5 patients are 2
    assert Counter(by_patient["first"]) == {"training": 3, "held-out test set": 2}


def test_phantoms_of_an_older_simulator_are_refused_with_what_to_do(
    small: PhantomReport, tmp_path: Path
) -> None:
    table = "FETAL_PLANES_DB_data.csv"
    lines = [line.split(";") for line in (small.root / table).read_text().splitlines()]
    old = "\n".join(";".join([*fields[:6], fields[-1]]) for fields in lines) + "\n"
    (tmp_path / table).write_text(old)
    (tmp_path / "phantom.json").write_text("{}")

    with pytest.raises(DataError, match=r"no column 'Site', .* simulate them anew"):
        Phantom().list_images(tmp_path)


def test_parameter_file_says_that_no_patient_is_behind_the_images(small: PhantomReport) -> None:
    described = json.loads((small.root / "phantom.json").read_bytes())

    assert "no patient" in described["statement"]
    assert described["simulator_version"] == SIMULATOR_VERSION
    assert described["key"] == phantom_key(SMALL)
    assert described["settings"] == json.loads(json.dumps(asdict(SMALL)))
    assert described["n_images"] == small.n_images
    assert described["planted_leaks"] == []


# --- repeatability -----------------------------------------------------------------------------


def test_same_seed_gives_same_bytes_whatever_the_number_of_workers(
    small: PhantomReport, tmp_path: Path
) -> None:
    again = write_phantoms(tmp_path / "again", SMALL, n_workers=3)

    assert contents(again.root) == contents(small.root)


def test_planting_in_a_copy_gives_the_bytes_of_simulating_with_the_faults(
    leaky: PhantomReport, tmp_path: Path
) -> None:
    settings = replace(SMALL, n_patients=16)
    write_phantoms(tmp_path / "clean", settings)

    report = plant_in_copy(tmp_path / "clean", tmp_path / "planted", replace(settings, leaks=LEAKS))

    assert report.leaks == leaky.leaks
    assert contents(tmp_path / "planted") == contents(leaky.root)


def test_another_seed_gives_other_images(small: PhantomReport, tmp_path: Path) -> None:
    other = write_phantoms(tmp_path / "other", replace(SMALL, seed=4, n_patients=1))

    digests = {hashlib.sha256(data).digest() for data in contents(small.root).values()}
    images = [data for name, data in contents(other.root).items() if name.endswith(".png")]
    assert all(hashlib.sha256(data).digest() not in digests for data in images)


def test_first_patients_do_not_depend_on_how_many_follow(
    small: PhantomReport, tmp_path: Path
) -> None:
    fewer = write_phantoms(tmp_path / "fewer", replace(SMALL, n_patients=2))

    all_of_them = contents(small.root)
    for name, data in contents(fewer.root).items():
        if name.endswith(".png"):
            assert all_of_them[name] == data
    table = all_of_them["FETAL_PLANES_DB_data.csv"]
    assert table.startswith((fewer.root / "FETAL_PLANES_DB_data.csv").read_bytes())


def test_pixels_survive_last_bit_differences_of_the_arithmetic() -> None:
    settings = PhantomSettings(n_patients=1, seed=1)
    image = plan_cohort(settings)[0]
    machine, habit = MACHINE_PROFILES[image.machine], OPERATOR_HABITS[image.operator]
    anatomy = draw_anatomy(26.0, stream(1, 0, 1, 1))
    shifted = replace(
        anatomy,
        skull_mm=float(np.nextafter(anatomy.skull_mm, np.inf)),
        brain_db=float(np.nextafter(anatomy.brain_db, np.inf)),
        warp=np.nextafter(anatomy.warp, np.inf),
    )
    frames = []
    for head in (anatomy, shifted):
        rng = stream(1, 1, 1, 0)
        view = draw_view(head, machine, habit, ORDINARY, settings.image_height_px, rng)
        frames.append(simulate(head, image.brain_plane, machine, view, habit, rng))

    assert np.array_equal(frames[0], frames[1])
    assert frames[0].std() > 20  # a picture, not a constant


def test_pixels_of_this_simulator_version_do_not_drift() -> None:
    """If this fails on purpose, raise SIMULATOR_VERSION and put the new digest here."""
    settings = PhantomSettings(n_patients=2, seed=0, image_height_px=64, annotations=False)
    digest = hashlib.sha256()
    for image in plan_cohort(settings)[:3]:
        digest.update(simulate_image(settings, image).tobytes())

    assert (SIMULATOR_VERSION, digest.hexdigest()[:16]) == ("1.1", "466d49fae6e0b394")


def test_key_changes_with_every_setting_and_not_with_the_order_of_names() -> None:
    changed: dict[str, Any] = {
        "n_patients": 65, "seed": 1, "machines": ("Aloka",), "operators": ("Op. 1",),
        "planes": ("Trans-thalamic",), "min_images_per_patient": 2, "max_images_per_patient": 9,
        "image_height_px": 128, "test_fraction": 0.5, "annotations": False,
        "leaks": ("text-file",), "imbalances": ("site-without-group",), "missing_fraction": 0.1,
    }  # fmt: skip
    keys = {phantom_key(PhantomSettings(**{name: value})) for name, value in changed.items()}
    keys.add(phantom_key(PhantomSettings()))

    assert set(changed) == set(asdict(PhantomSettings()))
    assert len(keys) == len(changed) + 1
    turned = PhantomSettings(machines=tuple(reversed(MACHINES)))
    assert phantom_key(turned) == phantom_key(PhantomSettings())


# --- cohort ------------------------------------------------------------------------------------


def test_partition_shares_are_as_asked_for_any_number_of_patients() -> None:
    for fraction in (0.0, 0.25, 0.4, 0.5, 1.0):
        for n in (1, 2, 7, 64):
            settings = PhantomSettings(n_patients=n, test_fraction=fraction)
            in_test = {i.patient for i in plan_cohort(settings) if not i.is_training}
            assert len(in_test) == int(n * fraction + 0.5)


def test_machines_are_dealt_in_fixed_shares_and_reach_both_partitions() -> None:
    images = plan_cohort(PhantomSettings(n_patients=100))
    machine_of = {image.patient: image.machine for image in images}
    trained = {image.patient: image.is_training for image in images}

    # 9 + 5 + 3 + 3 of every 20 patients
    assert Counter(machine_of[p] for p in range(1, 21)) == {
        "Voluson E6": 9, "Aloka": 5, "Voluson S10": 3, "Other": 3,
    }  # fmt: skip
    assert {(machine_of[p], trained[p]) for p in machine_of} == {
        (machine, part) for machine in MACHINES for part in (True, False)
    }


def test_images_per_patient_vary_and_planes_repeat_only_after_all_were_seen() -> None:
    images = plan_cohort(PhantomSettings(n_patients=200))
    planes: dict[int, list[str]] = {}
    for image in images:
        planes.setdefault(image.patient, []).append(image.brain_plane)
        assert image.name.endswith(f"_{image.number + 1}_of_{image.name.rsplit('_', 1)[1]}")

    sizes = Counter(len(listed) for listed in planes.values())
    assert set(sizes) == set(range(1, 9))
    assert 4.0 < len(images) / 200 < 5.0
    assert all(len(set(listed[:3])) == min(3, len(listed)) for listed in planes.values())


def test_chosen_machines_operators_and_planes_are_the_only_ones() -> None:
    settings = PhantomSettings(
        n_patients=30, machines=("Aloka",), operators=("Op. 3",), planes=("Trans-cerebellum",)
    )
    images = plan_cohort(settings)

    assert {(i.machine, i.operator, i.brain_plane) for i in images} == {
        ("Aloka", "Op. 3", "Trans-cerebellum")
    }


# --- who the patients are ----------------------------------------------------------------------


def people(**given: Any) -> dict[int, tuple[SimulatedPatient, bool]]:
    """Patient and whether it is in training, by number, of 200 patients."""
    images = plan_cohort(PhantomSettings(n_patients=200, **given))
    return {image.patient: (image.person, image.is_training) for image in images}


def shares_of(values: list[str]) -> dict[str, float]:
    return {name: n / len(values) for name, n in Counter(values).items()}


def test_the_built_in_target_states_the_shares_that_patients_are_drawn_from() -> None:
    target = load_target_population(Phantom().info(Path()).target_population)
    contract = load_contract("phantom")
    persons = [person for person, _ in people(missing_fraction=0.0).values()]
    texts = dict(
        zip(PERSON_COLUMNS, zip(*(p.recorded() for p in persons), strict=True), strict=True)
    )

    check_levels(target, contract.demographics)
    assert {a.name for a in contract.demographics} == set(target.attributes)
    assert {a.column for a in contract.demographics} == set(PERSON_COLUMNS)
    for attribute in contract.demographics:
        levels, values = declared_levels(attribute), list(texts[attribute.column])
        if attribute.kind == "number":
            bins = np.searchsorted(attribute.edges, [float(v) for v in values], side="right")
            values = [levels[k] for k in bins]
        assert shares_of(values) == pytest.approx(target.attributes[attribute.name].shares)


def test_values_are_missing_at_about_the_share_asked_for_and_never_the_site() -> None:
    persons = [person for person, _ in people(missing_fraction=0.2).values()]

    missing = Counter(column for person in persons for column in person.unrecorded)
    assert all(20 <= n <= 60 for n in missing.values())  # 40 expected
    assert set(missing) == {
        "Maternal_age_years", "Body_mass_index", "Fetal_sex", "Self_identified_group",
    }  # fmt: skip
    assert all(not person.unrecorded for person, _ in people(missing_fraction=0.0).values())


def test_planted_imbalances_leave_exactly_the_gap_that_they_name() -> None:
    plain = people()
    groups = {(p.site, p.group) for p, _ in people(imbalances=("site-without-group",)).values()}
    aged = people(imbalances=("age-band-missing-from-training",))
    late = people(imbalances=("late-weeks-missing-from-training",))

    assert {(p.site, p.group) for p, _ in plain.values()} - groups == {("Site 2", "Group A")}
    assert {in_training for p, in_training in aged.values() if p.maternal_age_years >= 35} == {
        False
    }
    assert {in_training for p, in_training in late.values() if p.gestational_age_weeks >= 34} == {
        False
    }
    for planted in (aged, late):
        assert all(
            planted[n] == plain[n] for n, (_, in_training) in plain.items() if not in_training
        )


def test_the_group_age_and_sex_of_a_patient_change_no_pixel() -> None:
    image = plan_cohort(SMALL)[0]
    other = replace(
        image.person,
        group="Group C",
        maternal_age_years=44,
        fetal_sex="other",
        site="x",
        country="y",
    )

    assert np.array_equal(
        simulate_image(SMALL, image), simulate_image(SMALL, replace(image, person=other))
    )


def test_mean_head_circumference_is_that_of_the_published_table() -> None:
    """Hadlock 1984, mean head circumference by menstrual age."""
    table = {14: 97, 18: 151, 20: 177, 24: 224, 28: 266, 32: 301, 36: 328, 40: 346}

    for weeks, circumference_mm in table.items():
        assert mean_head_circumference_mm(weeks) == pytest.approx(circumference_mm, abs=0.6)


def test_later_weeks_give_larger_more_folded_heads_with_relatively_narrower_ventricles() -> None:
    early, late = (
        [draw_anatomy(weeks, stream(seed)) for seed in range(30)] for weeks in (20.0, 36.0)
    )

    for young, old in zip(early, late, strict=True):
        circumference_mm = np.pi / 2 * (old.bpd_mm + old.ofd_mm)
        assert circumference_mm == pytest.approx(mean_head_circumference_mm(36), rel=0.1)
        assert old.bpd_mm > young.bpd_mm + 25
        assert len(old.sulci) > len(young.sulci) + 8
    widths = [np.mean([head.ventricle[1] for head in heads]) for heads in (early, late)]
    assert widths[1] < 0.8 * widths[0]


def test_more_body_mass_means_deeper_heads_more_gain_and_weaker_echoes() -> None:
    machine, habit = MACHINE_PROFILES["Voluson E6"], OPERATOR_HABITS["Op. 3"]
    depths, gains, means = [], [], []
    for body_mass_index in (19.0, 38.0):
        body = body_mass_effect(body_mass_index)
        found = []
        for seed in range(4):
            rng = stream(seed)
            anatomy = draw_anatomy(34.0, rng)
            view = draw_view(anatomy, machine, habit, body, 100, rng)
            depths.append(view.head_mm[1])
            gains.append(view.gain_db)
            found.append(simulate(anatomy, "Trans-thalamic", machine, view, habit, rng).mean())
        means.append(np.mean(found))

    assert np.mean(depths[4:]) > np.mean(depths[:4])
    assert min(np.subtract(gains[4:], gains[:4])) > 3
    assert means[1] < 0.95 * means[0]


# --- physics -----------------------------------------------------------------------------------


def test_uniform_scatterers_give_rayleigh_speckle_of_unit_power() -> None:
    """A fully developed speckle envelope has mean/std = sqrt(pi / (4 - pi)) = 1.913."""
    machine = replace(
        MACHINE_PROFILES["Other"], n_looks=1, noise_db=-200.0, focus_mm=100.0, lateral_deg=0.4
    )
    radius = np.linspace(146, 150, 700)[:, None]  # at the focus, where the beam is narrow
    angle = np.linspace(-0.6, 0.6, 500)[None, :]
    flat = np.zeros((700, 500))
    beams = Beams(radius, angle, flat, flat, np.ones((1, 500)))
    machine = replace(machine, axial_mm=2 * beams.step_mm)
    attenuation = np.full_like(flat, 0.012)  # exactly what the depth gain takes back
    # The gain of the beams is a random curve: divide it out column by column.
    envelope = receive(np.ones_like(flat), flat, attenuation, beams, machine, stream(0))
    envelope /= np.sqrt(np.mean(envelope**2, axis=0, keepdims=True))

    assert envelope.mean() / envelope.std() == pytest.approx(1.913, abs=0.06)


def test_linear_interpolation_is_exact_on_a_plane() -> None:
    rows, columns = np.mgrid[0:6, 0:9].astype(np.float64)
    raster = 2 * rows - 3 * columns + 1
    at_row, at_column = np.array([0.0, 2.25, 4.9]), np.array([7.5, 0.125, 3.0])

    values = sample_raster(raster, at_row, at_column)
    assert values == pytest.approx(2 * at_row - 3 * at_column + 1)
    assert sample_raster(raster, np.array([-4.0]), np.array([-1.0]))[0] == raster[0, 0]


@pytest.mark.parametrize("machine_name", MACHINES)
@pytest.mark.parametrize("plane", BRAIN_PLANES)
def test_the_skull_is_bright_the_brain_dark_and_the_corners_black(
    machine_name: str, plane: str
) -> None:
    machine, habit = MACHINE_PROFILES[machine_name], OPERATOR_HABITS["Op. 1"]
    skull, brain = [], []
    for seed in range(2):
        anatomy = draw_anatomy(26.0, stream(seed))
        anatomy = replace(anatomy, sutures=np.zeros(0, dtype=np.complex128))
        rng = stream(seed, 1)
        view = draw_view(anatomy, machine, habit, ORDINARY, 140, rng)
        frame = simulate(anatomy, plane, machine, view, habit, rng)
        assert frame.shape == (view.height_px, view.width_px)
        assert frame.dtype == np.uint8
        y = view.top_mm + (np.arange(view.height_px) + 0.5)[:, None] * view.mm_per_px
        x = view.left_mm + (np.arange(view.width_px) + 0.5)[None, :] * view.mm_per_px
        assert frame[np.arctan2(np.abs(x), y) > view.half_angle_rad].max(initial=0) == 0
        right, down = x - view.head_mm[0], y - view.head_mm[1]
        cos, sin = np.cos(view.tilt_rad), np.sin(view.tilt_rad)
        along = (right * cos + down * sin) / (anatomy.ofd_mm / 2)
        across = (down * cos - right * sin) / (anatomy.bpd_mm / 2)
        rho = np.hypot(along, across)
        middle = np.abs(along) < 0.4  # where the beam meets the skull at right angles
        skull.append(frame[middle & (np.abs(rho - 1) < 0.06)].mean())
        brain.append(frame[middle & (rho < 0.8)].mean())

    assert np.mean(skull) > 1.8 * np.mean(brain)


def test_two_images_of_a_patient_share_the_head_and_not_the_pixels() -> None:
    settings = replace(SMALL, n_patients=3, min_images_per_patient=4)
    first, second = plan_cohort(settings)[:2]

    a, b = (simulate_image(settings, image) for image in (first, second))
    assert first.patient == second.patient
    assert a.shape == b.shape
    assert (a != b).mean() > 0.3


# --- planted faults ----------------------------------------------------------------------------


def test_without_leaks_no_two_images_are_equal(small: PhantomReport) -> None:
    images = [data for name, data in contents(small.root).items() if name.endswith(".png")]

    assert small.leaks == ()
    assert len(set(images)) == len(images) == small.n_images


def test_planted_faults_are_listed_with_existing_image_names(leaky: PhantomReport) -> None:
    listed = json.loads((leaky.root / "phantom.json").read_bytes())["planted_leaks"]

    assert [planted["leak"] for planted in listed] == list(LEAKS)
    assert listed == json.loads(json.dumps([asdict(leak) for leak in leaky.leaks]))
    named = [name for planted in leaky.leaks for name in planted.images]
    assert set(named) <= set(rows_of(leaky.root))
    patients = [{name.split("_")[0] for name in planted.images} for planted in leaky.leaks]
    assert sum(map(len, patients)) == len(set().union(*patients))  # no patient in two faults


def test_patient_in_both_is_the_only_patient_in_both(leaky: PhantomReport) -> None:
    sides: dict[str, set[str]] = {}
    for row in rows_of(leaky.root).values():
        sides.setdefault(row["Patient_num"], set()).add(row["Train "])

    both = [patient for patient, parts in sides.items() if len(parts) == 2]
    assert [f"Patient{int(p):05d}" for p in both] == [
        leak_images(leaky, "patient-in-both")[0].split("_")[0]
    ]


def test_duplicate_is_the_only_equal_pair_and_crosses_the_partition(leaky: PhantomReport) -> None:
    by_digest: dict[bytes, list[str]] = {}
    for path in sorted((leaky.root / "Images").iterdir()):
        by_digest.setdefault(hashlib.sha256(path.read_bytes()).digest(), []).append(path.stem)
    (pair,) = [names for names in by_digest.values() if len(names) > 1]
    rows = rows_of(leaky.root)

    assert sorted(leak_images(leaky, "duplicate-other-patient")) == sorted(pair)
    assert {rows[name]["Train "] for name in pair} == {"1 ", "0 "}
    assert len({rows[name]["Patient_num"] for name in pair}) == 2


def test_near_duplicate_differs_in_bytes_and_correlates_across_patients(
    leaky: PhantomReport,
) -> None:
    names = leak_images(leaky, "near-duplicate")
    a, b = (np.asarray(Image.open(leaky.root / f"Images/{name}.png"), float) for name in names)

    assert not np.array_equal(a, b)
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9
    assert {rows_of(leaky.root)[name]["Train "] for name in names} == {"1 ", "0 "}


def test_truncated_and_text_files_cannot_be_decoded(leaky: PhantomReport) -> None:
    (cut,) = leak_images(leaky, "truncated-file")
    (text,) = leak_images(leaky, "text-file")

    with (
        Image.open(leaky.root / f"Images/{cut}.png") as picture,
        pytest.raises(OSError, match=r"truncated|incomplete"),
    ):
        picture.load()
    with pytest.raises(UnidentifiedImageError):
        Image.open(leaky.root / f"Images/{text}.png")


def test_identifying_column_holds_made_up_names(leaky: PhantomReport) -> None:
    assert {row["Patient_name"] for row in rows_of(leaky.root).values()} == {
        f"Simulated Person {k}" for k in range(1, 17)
    }


def test_leaks_change_only_the_rows_and_files_they_name(
    leaky: PhantomReport, tmp_path: Path
) -> None:
    settings = replace(SMALL, n_patients=16, leaks=("truncated-file",))
    one = write_phantoms(tmp_path / "one", settings)
    none = contents(write_phantoms(tmp_path / "none", replace(settings, leaks=())).root)

    different = [name for name, data in contents(one.root).items() if none[name] != data]
    assert different == [f"Images/{one.leaks[0].images[0]}.png", "phantom.json"]


def test_too_few_patients_for_a_leak_is_a_settings_error(tmp_path: Path) -> None:
    settings = replace(SMALL, n_patients=1, leaks=("duplicate-other-patient",))

    with pytest.raises(SettingsError, match=r"phantom\.leaks: .*held-out test set.*n_patients"):
        write_phantoms(tmp_path / "x", settings)
    assert list(tmp_path.iterdir()) == []


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_patients", 0),
        ("n_patients", True),
        ("n_patients", 100_000),
        ("seed", -1),
        ("seed", 1.5),
        ("machines", ()),
        ("machines", ("Voluson E7",)),
        ("machines", "Aloka"),
        ("machines", ("Aloka", "Aloka")),
        ("operators", ("Op. 4",)),
        ("planes", ("Trans-orbital",)),
        ("min_images_per_patient", 0),
        ("max_images_per_patient", 0),
        ("image_height_px", 63),
        ("test_fraction", 1.1),
        ("test_fraction", float("nan")),
        ("test_fraction", "half"),
        ("annotations", 1),
        ("leaks", ("spill",)),
        ("imbalances", ("nobody",)),
        ("missing_fraction", -0.1),
    ],
)
def test_unusable_settings_name_field_value_and_what_is_allowed(field: str, value: object) -> None:
    given: dict[str, Any] = {field: value}
    with pytest.raises(SettingsError) as caught:
        PhantomSettings(**given)

    message = str(caught.value)
    assert message.startswith(f"phantom.{field}: ")
    assert "expected" in message
    assert caught.value.exit_code == 2


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("mine")

    with pytest.raises(DataError, match="not empty") as caught:
        write_phantoms(tmp_path, SMALL)
    assert caught.value.exit_code == 3
    assert contents(tmp_path) == {"keep.txt": b"mine"}


def test_an_empty_folder_is_filled_and_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    one = replace(SMALL, n_patients=1)

    assert write_phantoms(tmp_path / "empty", one).n_patients == 1
    with pytest.raises(DataError, match="not a folder"):
        write_phantoms(tmp_path / "file", one)


def test_a_place_that_cannot_be_written_is_a_resource_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ResourceError, match="cannot be written") as caught:
        write_phantoms(tmp_path / "file" / "below", SMALL)
    assert caught.value.exit_code == 7


def test_interruption_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantoms(tmp_path / "deep" / "data", SMALL, interrupt)
    assert list((tmp_path / "deep").iterdir()) == []


def test_progress_counts_up_to_all_images(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = write_phantoms(tmp_path / "x", SMALL, lambda done, total: seen.append((done, total)))

    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (report.n_images, report.n_images)
