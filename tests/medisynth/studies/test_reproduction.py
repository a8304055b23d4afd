import io
from pathlib import Path

import numpy as np
import pytest

from governance.records.errors import DataError
from medisynth.studies.midl2023 import images, log_files, logs, table
from medisynth.studies.midl2023.findings import Verdict
from tests.places import KIT

SHARED = KIT
REAL_TABLE = SHARED / "fetal_planes_db" / "FETAL_PLANES_DB_data.csv"
REAL_LOGS = SHARED / "midl2023_logs"
HEADER = "Image_name;Patient_num;Plane;Brain_plane;Operator;US_Machine;Train "

needs_table = pytest.mark.skipif(not REAL_TABLE.is_file(), reason="the public table is not here")
needs_logs = pytest.mark.skipif(not REAL_LOGS.is_dir(), reason="the published logs are not here")


def write_table(folder, rows):
    """Rows of (patient, brain plane, machine, training), one image each."""
    lines = [HEADER]
    for i, (patient, plane, machine, training) in enumerate(rows):
        brain = "Not A Brain" if plane == "Other" else plane
        kind = "Other" if plane == "Other" else "Fetal brain"
        lines.append(f"image{i};{patient};{kind};{brain};Op. 1;{machine};{training} ")
    path = folder / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


SMALL = [
    (1, "Trans-thalamic", "Voluson E6", 1),
    (2, "Trans-cerebellum", "Voluson E6", 1),
    (2, "Trans-cerebellum", "Voluson E6", 1),
    (3, "Trans-cerebellum", "Voluson E6", 0),
    (1, "Trans-cerebellum", "Voluson E6", 0),
    (4, "Trans-cerebellum", "Voluson E6", 1),
    (5, "Trans-cerebellum", "Aloka", 1),
    (6, "Other", "Voluson E6", 1),
]


@pytest.fixture
def small(tmp_path):
    return table.read_table(write_table(tmp_path, SMALL))


def values(finding):
    return {value.name: value.value for value in finding.values}


def made_logs(**changed):
    fields = {
        "fid_epochs": np.array([0, 10, 20]),
        "fid": np.array([7.0, 5.0, 9.0]),
        "generator": np.full(21, 0.25),
        "discriminator": np.array([0.5, 1.0, 0.75] + [1.0] * 18),
        "fid_beside_losses": np.array([7.0] * 10 + [5.0] * 10 + [9.0]),
        "tb_fid": np.array([40.0, 30.0]),
        "tb_discriminator": np.full(4, 1.4),
        "tb_generator": np.full(4, 0.7),
    }
    return log_files.Logs(**(fields | changed))


# --- the table -----------------------------------------------------------------------------------


def test_counts_are_those_of_the_plane_and_machine_alone(small):
    found = values(table.training_images(small))

    assert found["images of the plane and machine"] == 5
    assert found["their patients"] == 4
    assert found["official training images"] == 3
    assert found["official test images"] == 2
    assert found["images left by a split of 80 : 20"] == 4


def test_a_claim_that_no_count_has_is_not_reproducible_as_stated(small):
    assert table.training_images(small).verdict is Verdict.NOT_AS_STATED


def test_a_claim_that_a_count_has_is_reproduced(tmp_path):
    rows = [(1, "Trans-cerebellum", "Voluson E6", 1)] * 408 + SMALL[:1]

    found = table.training_images(table.read_table(write_table(tmp_path, rows)))

    assert found.verdict is Verdict.REPRODUCED
    assert (
        "Trans-cerebellum, Voluson E6, official training"
        in values(found)["groups of brain images with exactly 408 rows"]
    )


def test_groups_are_found_with_and_without_machine_and_split(small):
    assert table.groups_of_size(small, 6) == (
        "Trans-cerebellum, all machines, official training and test",
    )
    assert table.groups_of_size(small, 2) == (
        "Trans-cerebellum, Voluson E6, official test",
        "Trans-cerebellum, all machines, official test",
    )


@pytest.mark.parametrize(
    ("images_of", "n_training", "expected"),
    [
        ((2, 1), 2, 2 / 3),  # of {aa, ab, ab} two part the pair
        ((1, 1, 1), 2, 0.0),
        ((2, 2), 2, 2 * 4 / 6),  # each pair is parted by 4 of 6 choices
        ((3,), 1, 1.0),
    ],
)
def test_expected_overlap_equals_counting_by_hand(images_of, n_training, expected):
    assert table.expected_overlap(images_of, n_training) == pytest.approx(expected, abs=1e-12)


def test_the_published_split_is_the_legacy_shuffle_of_seed_42(small):
    # One thalamic image draws nothing; RandomState(42) then orders five names 1, 4, 2, 0, 3.
    training, other = table.published_split(small)["Trans-cerebellum"]

    assert other == {"image4"}
    assert training == {"image1", "image2", "image3", "image5"}


def test_a_patient_on_both_sides_is_counted_with_the_images_seen(tmp_path):
    rows = [*SMALL[:4], (4, "Trans-cerebellum", "Voluson E6", 0), SMALL[5]]  # image4, 5: patient 4

    found = values(table.patients_on_both_sides(table.read_table(write_table(tmp_path, rows))))

    assert found["patients on both sides of the published split"] == 1
    assert found["images held out whose patient is in training"] == 1
    assert found["patients with more than one image"] == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!DOCTYPE html><html></html>", "is a web page"),
        ("", "is empty"),
        ("a;b\n1;2\n", "column 'Image_name' is missing"),
        (HEADER.replace(";", ",") + "\n", "column 'Image_name' is missing"),
        (f"{HEADER}\nx;1;Fetal brain;Trans-thalamic;Op. 1;Aloka;2 \n", "expected 0 or 1"),
        (f"{HEADER}\nx;1;Fetal brain;Trans-thalamic;Op. 1;Aloka;1 \n", "no brain image has"),
    ],
)
def test_another_table_is_refused_in_one_sentence(tmp_path, text, said):
    path = tmp_path / "table.csv"
    path.write_text(text)

    with pytest.raises(DataError, match=said) as caught:
        table.read_table(path)

    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.csv"):
        table.read_table(tmp_path / "nothing.csv")


@needs_table
def test_the_public_table_gives_the_known_counts():
    read = table.read_table(REAL_TABLE)
    first, second = table.training_images(read), table.pretraining_images(read)

    assert [v.value for v in first.values[:5]] == [492, 377, 268, 224, 393]
    assert first.values[5].value == "Trans-ventricular, Voluson E6, official training and test"
    assert first.verdict is Verdict.NOT_AS_STATED
    assert [v.value for v in second.values[:4]] == [1072, 588, 484, 857]
    assert second.verdict is Verdict.REPRODUCED
    both = values(table.patients_on_both_sides(read))
    assert both["patients with more than one image"] == 83
    assert both["patients expected on both sides of a random 80 : 20 split"] == pytest.approx(
        31.2, abs=0.05
    )
    assert both["patients on both sides of the published split"] == 39
    assert both["images held out whose patient is in training"] == 41


# --- the logs ------------------------------------------------------------------------------------


def test_the_smallest_of_three_is_described_by_the_two_others():
    found = values(logs.smallest_of_many(made_logs()))

    assert found["checkpoints"] == 3
    assert found["its place in the log"] == 2
    assert found["mean of the others"] == 8.0
    assert found["standard deviation of the others"] == pytest.approx(2**0.5)
    assert found["distance of the lowest from that mean, in standard deviations"] == pytest.approx(
        3 / 2**0.5
    )
    assert found["rows that agree with the FID column of sr_gan_loss.csv"] == 3


def test_equal_values_have_no_distance_in_standard_deviations():
    found = logs.smallest_of_many(made_logs(fid=np.full(3, 6.0)))

    lines = {value.name: value for value in found.values}
    line = lines["distance of the lowest from that mean, in standard deviations"]
    assert (line.value, line.shown) == (None, "not evaluated")


def test_means_that_are_not_the_claimed_ones_are_not_reproduced():
    assert logs.logged_fids(made_logs()).verdict is Verdict.NOT_AS_STATED


def test_epochs_of_exactly_one_are_counted_and_the_last_other_one_is_found():
    found = values(logs.still_discriminator(made_logs()))

    assert found["epochs with a logged loss of exactly 1"] == 19
    assert found["epoch from which it never changes again"] == 3


def test_a_loss_that_moves_in_most_epochs_is_not_called_still():
    moving = made_logs(discriminator=np.linspace(0.1, 0.9, 21))

    assert logs.still_discriminator(moving).verdict is Verdict.REPRODUCED


def test_divisors_are_the_multiples_of_the_odd_part_that_was_divided_by():
    # Sums of single-precision losses are whole multiples of 2^-30 here; 12 leaves the odd part 3.
    sums = np.array([1_000_001, 3_141_592, 2_718_281, 1_618_034, 999_983]) * 2.0**-30

    assert logs.possible_divisors(sums / 12, 20) == (3, 6, 9, 12, 15, 18)


def test_sums_of_single_precision_losses_give_their_divisor():
    losses = np.random.default_rng(0).uniform(0.002, 0.02, (30, 35)).astype(np.float32)
    means = np.array([sum(map(float, row)) / 35 for row in losses])

    assert logs.possible_divisors(means, 100) == (35, 70)


def test_means_of_double_precision_fit_no_divisor():
    means = np.random.default_rng(0).uniform(0.002, 0.02, 30)

    assert logs.possible_divisors(means, 100) == ()


@pytest.mark.parametrize(
    ("n_epochs", "n_training", "expected"),
    [
        (20, 100, (0, 4, 0.0)),
        (24, 24, (1, 1, 24 * 4e-6)),  # epoch 23 alone
        (200, 393, (45, 16, 45 * 16 * 24 * 4e-6)),
        (200, 23, (45, 0, 0.0)),  # no whole batch
        (100_000, 24_000, (24_995, 1000, 0.6)),
    ],
)
def test_the_largest_pseudo_probability_by_hand(n_epochs, n_training, expected):
    assert logs.largest_pseudo_probability(n_epochs, n_training) == pytest.approx(expected)


def test_one_wrong_real_image_of_24_keeps_p_from_rising(small):
    found = values(logs.pseudo_augmentation(small, made_logs()))

    assert found["real images of 24 that may be taken for synthetic if p is to rise"] == 0


def save_logs(folder, **changed):
    epochs = "Epochs,FID,,,\n0,7.0,,,\n10,5.0,,,\n20,6.0,,,\n"
    losses = "Epoch,Generator_Loss,Disciminator_Loss,FID\n0,0.5,1.0,7.0\n1,0.25,1.0,7.0\n"
    files = {log_files.FID_FILE: epochs.encode(), log_files.LOSS_FILE: losses.encode()}
    for name, n in zip(log_files.FILES[2:], (2, 4, 4), strict=True):
        files[name] = array_bytes(np.arange(n) + 1.0)
    for name, data in (files | changed).items():
        if data is not None:
            (folder / name).write_bytes(data)
    return folder


def array_bytes(array, *, allow_pickle=False):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def test_logs_are_read_as_written(tmp_path):
    read = log_files.read_logs(save_logs(tmp_path))

    assert read.fid_epochs.tolist() == [0, 10, 20]
    assert read.fid.tolist() == [7.0, 5.0, 6.0]
    assert read.generator.tolist() == [0.5, 0.25]
    assert read.tb_fid.tolist() == [1.0, 2.0]
    assert read.tb_epochs_a_fid == 2


OBJECTS = array_bytes(np.array([{"a": 1}], dtype=object), allow_pickle=True)
PAGE = b"<!DOCTYPE html><html><body>404</body></html>"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("FID.csv", None, "FID.csv: is missing"),
        ("FID.csv", PAGE, "expected a header that starts with Epochs,FID"),
        ("FID.csv", b"", "an empty file"),
        ("FID.csv", b"\xff\xfe", "is not a table"),
        ("FID.csv", b"Epochs,FID\n0,x\n", "FID.csv:2: expected a finite number, found 'x'"),
        ("FID.csv", b"Epochs,FID\n0,nan\n", "expected a finite number"),
        ("FID.csv", b"Epochs,FID\n0,1,2\n", "expected an epoch and a FID"),
        ("FID.csv", b"Epochs,FID\n9,1\n5,1\n7,1\n", "ascending order"),
        ("FID.csv", b"Epochs,FID\n0,1\n", "three or more"),
        ("FID.csv", b"Epochs,FID\n" + b"0" * 1_000_001, "is larger than"),
        ("sr_gan_loss.csv", PAGE, "is a web page"),
        ("sr_gan_loss.csv", b"a,b\n1,2\n", "column 'Epoch' is missing"),
        (
            "sr_gan_loss.csv",
            b"Epoch,Generator_Loss,Disciminator_Loss,FID\n1,1,1,1\n",
            "expected epoch 0, found '1'",
        ),
        ("tc_200_2_FID_log.npy", OBJECTS, "which only pickle can read"),
        ("tc_200_2_FID_log.npy", PAGE, "is not an array in NumPy's format"),
        ("tc_200_2_FID_log.npy", b"", "is not an array in NumPy's format"),
        (
            "tc_200_2_FID_log.npy",
            array_bytes(np.ones(2)).replace(b"}", b"(", 1),
            "is not an array in NumPy's format",
        ),
        ("tc_200_2_FID_log.npy", array_bytes(np.ones((2, 2))), "expected one row"),
        ("tc_200_2_FID_log.npy", array_bytes(np.ones(2, int)), "expected one row"),
        ("tc_200_2_FID_log.npy", array_bytes(np.ones(9))[:-1], "expected one row"),
        ("tc_200_2_FID_log.npy", array_bytes(np.array([np.nan])), "not finite"),
        ("tc_200_2_FID_log.npy", array_bytes(np.ones(3)), "have 4, 4 and 3 values"),
        ("tc_200_2_G_loss_log.npy", array_bytes(np.ones(3)), "have 4, 3 and 2 values"),
    ],
)
def test_a_log_of_another_shape_is_refused_in_one_sentence(tmp_path, name, data, said):
    save_logs(tmp_path, **{name: data})

    with pytest.raises(DataError, match=said) as caught:
        log_files.read_logs(tmp_path)

    assert "\n" not in str(caught.value)


def test_a_pickle_is_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    data = array_bytes(np.array([Bomb()], dtype=object), allow_pickle=True)

    with pytest.raises(DataError, match="it was not read"):
        log_files.read_logs(save_logs(tmp_path, **{"tc_200_2_D_loss_log.npy": data}))

    assert not (tmp_path / "exploded").exists()


def test_a_folder_without_logs_is_refused(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        log_files.read_logs(tmp_path / "nowhere")


@needs_table
@needs_logs
def test_the_published_logs_give_the_known_numbers():
    read, public = log_files.read_logs(REAL_LOGS), table.read_table(REAL_TABLE)

    six = logs.logged_fids(read)
    assert [v.shown for v in six.values] == ["7.04", "5.09", "10", "36.02", "28.93", "60"]
    assert six.verdict is Verdict.REPRODUCED
    lowest = [value.shown for value in logs.smallest_of_many(read).values]
    assert lowest[:6] == ["21", "5.09", "2 of 21", "6.09", "7.14", "0.46"]
    still = logs.still_discriminator(read)
    assert [v.value for v in still.values[:2]] == [189, 12]
    epoch = logs.images_an_epoch(public, read)
    assert [(v.value, v.shown) for v in epoch.values[1:]] == [
        (408, "does not fit"),
        (256, "does not fit"),
        (236, "fits"),
        (492, "does not fit"),
        (1.0, "1.000"),
    ]
    assert epoch.values[0].shown == "59, 118, 177, 236, 295, 354, 413, 472"
    assert epoch.verdict is Verdict.NOT_AS_STATED
    pseudo = values(logs.pseudo_augmentation(public, read))
    assert pseudo["largest p that can be reached"] == pytest.approx(0.06912)
    fids = values(logs.two_different_fids(public, read, ()))
    assert fids["real images in TB-GAN's FID"] == 99


# --- the pictures --------------------------------------------------------------------------------


def grey(*levels):
    return [
        images.Frame(f"{i:03d}_HC", np.full((9, 7), level, np.uint8))
        for i, level in enumerate(levels)
    ]


def mean_level(pixels):
    feature = pixels.reshape(len(pixels), -1).mean(axis=1, dtype=float)[:, None]
    return {64: feature, 192: 10 * feature}


def test_only_white_is_left_of_a_frame_cast_to_whole_numbers():
    pixels = np.array([[[0, 128, 254, 255]]], np.uint8)

    assert images.cast_reference(pixels).tolist() == [[[0, 0, 0, 1]]]


def test_distances_to_black_and_between_halves_by_hand():
    # Levels 2, 4, 6, 8: mean 5 and variance 20 / 3; halves 2, 6 and 4, 8: means 2 apart.
    found = images.distances("folder", grey(2, 4, 6, 8), mean_level)

    assert found is not None
    assert found.black[64] == pytest.approx(25 + 20 / 3)
    assert found.halves[64] == pytest.approx(4)
    assert found.halves[192] == pytest.approx(400)
    assert found.n_halves == (2, 2)
    lines = [value.value for value in images.layer_scales([found])]
    assert lines == pytest.approx([100, 100])


def test_too_few_frames_have_no_distance():
    assert images.distances("folder", grey(2, 4, 6), mean_level) is None


def test_a_patient_is_never_in_both_halves():
    names = ["a_1", "a_2", "b_1", "c_1", "c_2", "d_1"]

    assert images.two_halves(names) == ([0, 1, 3, 4], [2, 5])


def test_a_mean_near_black_is_said_to_be_near_black():
    found = images.distances("folder", grey(2, 4, 6, 8), mean_level)

    near = images.black_reference(made_logs(tb_fid=np.array([30.0, 31.0])), [found])
    far = images.black_reference(made_logs(tb_fid=np.array([4.0, 5.0])), [found])

    assert near.verdict is far.verdict is Verdict.UNDECIDED
    assert "is nearer to what real frames score against black" in near.because
    assert "not nearer" in far.because


def ramp(across, seed=0):
    noise = np.random.default_rng(seed).integers(0, 60, (48, 64))
    grid = np.linspace(0, 180, 64)[None, :] if across else np.linspace(0, 180, 48)[:, None]
    return (np.broadcast_to(grid, (48, 64)) + noise).astype(np.uint8)


def test_correlation_of_equal_inverted_and_constant_pictures():
    picture = ramp(True)

    assert images.correlation(picture, picture) == pytest.approx(1)
    assert images.correlation(picture, 255 - picture) == pytest.approx(-1)
    assert images.correlation(picture, np.full_like(picture, 7)) == 0


def test_the_named_source_is_found_and_ranked():
    made = images.Frame("made_img2img_of_P1_1", ramp(True, 1))
    real = [images.Frame("P1_1", ramp(True, 2)), images.Frame("P2_1", ramp(False, 3))]

    found = images.known_positive([made], real)
    swapped = images.known_positive(
        [made], [images.Frame("P1_1", real[1].grey), images.Frame("P2_1", real[0].grey)]
    )

    assert found.verdict is Verdict.REPRODUCED
    assert values(found)["its rank"] == 1
    assert swapped.verdict is Verdict.NOT_AS_STATED
    assert values(swapped)["its rank"] == 2


def test_a_picture_without_a_named_source_is_not_evaluated():
    found = images.known_positive([images.Frame("made", ramp(True))], grey(1))

    assert found.verdict is Verdict.NOT_EVALUATED
    assert found.values == ()


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(DataError, match="is not a folder with PNG files"):
        images.read_frames(tmp_path, images.square)


# --- the networks --------------------------------------------------------------------------------


def test_the_faulty_wiring_leaves_all_but_the_last_layer_of_each_block_untouched():
    from medisynth.studies.midl2023.dsr_gan_published.classic_srgan import ClassicEnlarger
    from medisynth.studies.midl2023.networks import parameters_without_gradient

    # One channel, one block: two convolutions of 10, two normalisations of 2, one slope.
    faulty = ClassicEnlarger(1, 1, 2, broken=True)

    assert parameters_without_gradient(faulty) == (10 + 2 + 1 + 10, 83 + 25 + 12 + 40 + 1 + 82)


def test_the_published_size_has_the_known_share_without_gradient():
    from medisynth.studies.midl2023.dsr_gan_published.classic_srgan import ClassicEnlarger
    from medisynth.studies.midl2023.networks import parameters_without_gradient

    assert parameters_without_gradient(ClassicEnlarger(64, 5, 2, broken=True)) == (369_925, 565_768)
    assert parameters_without_gradient(ClassicEnlarger(64, 5, 2, broken=False)) == (0, 565_768)
