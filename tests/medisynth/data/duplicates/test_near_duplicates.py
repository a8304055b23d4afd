"""Changed copies are found under any patient, and different pictures are left alone."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from governance.records.errors import DataError
from medisynth.data.duplicates.alignment import aligned_similarity, reduce_frames
from medisynth.data.duplicates.candidates import MOST_CANDIDATES, TRANSFORMS, describe, mirrored
from medisynth.data.duplicates.exact import leakage_groups
from medisynth.data.duplicates.search import NEAR_SIMILARITY, DuplicateSearch, find_duplicates
from tests.benchmarks.planted import CHANGES, plant, score
from tests.places import KIT

needs_kit = pytest.mark.skipif(not KIT.is_dir(), reason="the real images are not beside this copy")

Grey = NDArray[np.uint8]


def pictures(n: int, seed: int = 0) -> Grey:
    """Unrelated smooth pictures, shape (n, 64, 64)."""
    noise = np.random.default_rng(seed).standard_normal((n, 64, 64))
    smooth = gaussian_filter(noise, (0, 3, 3))
    smooth *= 40 / smooth.std(axis=(1, 2), keepdims=True)
    return np.clip(smooth + 110, 0, 255).astype(np.uint8)


def images(frames: Grey, patients: list[str] | None = None) -> pd.DataFrame:
    digests = [hashlib.sha256(frame.tobytes()).hexdigest() for frame in frames]
    table = pd.DataFrame(
        {
            "image_id": [f"i{k:04d}" for k in range(len(frames))],
            "patient_id": patients or [f"p{k}" for k in range(len(frames))],
            "file_sha256": digests,
            "pixel_sha256": digests,
        }
    )
    return table.astype("string")


def names(search: DuplicateSearch) -> list[tuple[str, str, str]]:
    return [(pair.left_id, pair.right_id, pair.kind) for pair in search.pairs]


def test_a_brighter_copy_is_near_and_an_equal_one_exact():
    frames = pictures(5)
    frames[3] = frames[0]
    frames[4] = np.clip(frames[1] * 1.1 + 10, 0, 255)

    search = find_duplicates(images(frames), frames)

    assert names(search) == [("i0000", "i0003", "same file"), ("i0001", "i0004", "near-duplicate")]
    near = search.pairs[1]
    assert (near.left_patient, near.right_patient, near.transform) == ("p1", "p4", "as is")
    assert near.similarity is not None
    assert near.similarity > 0.99


@pytest.mark.parametrize(
    ("transform", "mirror"),
    [
        ("mirrored left to right", np.s_[:, ::-1]),
        ("mirrored top to bottom", np.s_[::-1]),
        ("turned by 180 degrees", np.s_[::-1, ::-1]),
    ],
)
def test_a_mirrored_copy_is_found_and_its_transform_named(transform, mirror):
    frames = pictures(6)
    frames[5] = frames[2][mirror]

    (pair,) = find_duplicates(images(frames), frames).pairs

    assert (pair.left_id, pair.right_id, pair.transform) == ("i0002", "i0005", transform)
    assert pair.similarity == 1


def test_copies_under_one_patient_are_found_as_well():
    frames = pictures(3)
    frames[2] = frames[0] // 2 + 40

    search = find_duplicates(images(frames, ["p", "p", "p"]), frames)

    assert names(search) == [("i0000", "i0002", "near-duplicate")]
    assert search.null is None  # one patient: nothing to hold the threshold against


def test_the_order_of_rows_plays_no_part():
    frames = pictures(60, seed=1)
    frames[40:50] = frames[:10, :, ::-1]
    frames[50:60] = frames[10:20] // 2 + 60
    table = images(frames, [f"p{k % 37}" for k in range(60)])
    order = np.random.default_rng(2).permutation(60)

    search = find_duplicates(table, frames)

    assert len(search.pairs) == 20
    assert find_duplicates(table.iloc[order], frames[order]) == search


def test_declared_distinct_pairs_are_left_out_whichever_id_comes_first():
    frames = pictures(6)
    frames[4] = frames[0] // 2 + 60
    frames[5] = frames[1]
    table = images(frames)

    search = find_duplicates(table, frames, distinct=[("i0004", "i0000"), ("i0001", "i0005")])

    assert search.pairs == ()
    assert len(find_duplicates(table, frames).pairs) == 2


def test_more_mutual_copies_than_an_image_may_bring_in_stay_one_group():
    n = 3 * MOST_CANDIDATES
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 2, (n, 64, 64))
    frames = np.clip(pictures(1)[0] + noise, 0, 255).astype(np.uint8)
    table = images(frames)

    search = find_duplicates(table, frames)

    assert leakage_groups(table, search.pairs).nunique() == 1
    assert len(search.pairs) <= n * MOST_CANDIDATES


def test_the_null_leaves_out_confirmed_pairs_and_pairs_of_one_patient():
    frames = pictures(40, seed=3)
    frames[1] = frames[0] // 2 + 60  # confirmed
    mixed = 0.85 * frames[2].astype(float) + 0.35 * (frames[3].astype(float) - 110)
    frames[4] = np.clip(mixed, 0, 255)  # alike, not the same
    frames[39] = frames[5] // 2 + 60  # one patient
    patients = [f"p{k}" for k in range(39)] + ["p5"]

    null = find_duplicates(images(frames, patients), frames).null

    assert null is not None
    assert null.n_pairs == 40 * 39 // 2 - 1
    assert null.threshold == NEAR_SIMILARITY
    assert len(null.nearest) == 40
    assert list(null.nearest) == sorted(null.nearest)
    alike = aligned_similarity(frames[2:3].astype(np.float32), frames[4:5].astype(np.float32))
    assert null.highest == null.nearest[-1] == pytest.approx(float(alike[0]), abs=1e-3)
    assert 0.8 < null.highest < NEAR_SIMILARITY


def test_a_frame_of_one_grey_level_is_like_nothing():
    frames = pictures(4)
    frames[0], frames[1] = 0, 200

    assert find_duplicates(images(frames), frames).pairs == ()


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_images_have_no_pairs_and_no_null(n):
    frames = pictures(2)[:n]

    search = find_duplicates(images(frames), frames)

    assert (search.pairs, search.null) == ((), None)


def test_two_images_are_enough_to_be_a_pair():
    frames = pictures(2)
    frames[1] = frames[0] // 2 + 60

    search = find_duplicates(images(frames), frames)

    assert names(search) == [("i0000", "i0001", "near-duplicate")]
    assert search.null is not None
    assert search.null.highest is None


def test_thumbnails_that_do_not_fit_the_table_are_refused():
    frames = pictures(3)

    with pytest.raises(DataError, match=re.escape("uint8 of shape (2, 64, 64), expected uint8 of")):
        find_duplicates(images(frames), frames[:2])


def test_progress_ends_with_all_images():
    frames = pictures(5)
    seen: list[tuple[int, int]] = []

    find_duplicates(images(frames), frames, progress=lambda done, total: seen.append((done, total)))

    assert seen[-1] == (5, 5)


def test_similarity_ignores_gain_offset_small_shift_and_stretch():
    (scene,) = pictures(1, seed=9).astype(np.float32)
    large = np.asarray(Image.fromarray(scene).resize((256, 256), Image.Resampling.BICUBIC))

    def seen(left: int, top: int, width: int, height: int) -> NDArray[np.float32]:
        part = Image.fromarray(large[top : top + height, left : left + width])
        return np.asarray(part.resize((64, 64), Image.Resampling.BOX), dtype=np.float32)

    whole, part = seen(0, 0, 256, 256), seen(8, 8, 240, 240)  # 3 % off every side
    pair = (whole[None], (1.5 * part + 20)[None])

    assert np.corrcoef(whole.ravel(), part.ravel())[0, 1] < NEAR_SIMILARITY
    assert aligned_similarity(*pair)[0] > 0.98
    assert aligned_similarity(*reversed(pair))[0] > 0.98
    assert aligned_similarity(whole[None], -whole[None])[0] < 0


def test_reducing_takes_area_means():
    frame = np.arange(16, dtype=np.float32).reshape(1, 4, 4)

    assert reduce_frames(frame, 2).tolist() == [[[2.5, 4.5], [10.5, 12.5]]]


def test_one_product_by_parity_gives_the_similarity_of_every_mirror_image():
    frames = pictures(2, seed=4)
    left, right = describe(frames)
    signs = {"as is": (1, 1, 1, 1), "mirrored left to right": (1, -1, 1, -1)}
    signs |= {"mirrored top to bottom": (1, 1, -1, -1), "turned by 180 degrees": (1, -1, -1, 1)}

    for number, transform in enumerate(TRANSFORMS):
        (turned,) = describe(mirrored(frames[:1], number))
        parts = (left * right).reshape(4, 64).sum(axis=1)
        assert turned @ right == pytest.approx(parts @ signs[transform], abs=1e-5)


def test_every_kind_of_planted_phantom_copy_is_found_without_a_false_alarm():
    planted = plant(n_patients=25, n_copies=6, seed=11)
    search = find_duplicates(planted.table, planted.thumbnails)

    found = score(planted, {(pair.left_id, pair.right_id) for pair in search.pairs})

    assert found.recall == dict.fromkeys(CHANGES, 1.0)
    assert found.n_false_images == 0


def kit_frames(folder: Path, file_names: list[str]) -> Grey:
    frames = []
    for name in file_names:
        with Image.open(folder / name) as picture:
            grey = picture.convert("L").resize((64, 64), Image.Resampling.BOX)
        frames.append(np.asarray(grey))
    return np.stack(frames)


def kit_search(frames: Grey, ids: list[str], patients: list[str]) -> DuplicateSearch:
    table = images(frames, patients)
    table["image_id"] = pd.array(ids, dtype="string")
    return find_duplicates(table, frames)


def grouped(ids: "pd.Series[str]", groups: "pd.Series[str]") -> set[frozenset[str]]:
    return {frozenset(part) for _, part in ids[groups.notna()].groupby(groups.dropna())}


def linked(search: DuplicateSearch, ids: list[str]) -> set[frozenset[str]]:
    """Sets of images that pairs tie together, by images instead of patients."""
    table = pd.DataFrame({"image_id": ids, "patient_id": ids})
    groups = leakage_groups(table, search.pairs)
    parts = (frozenset(part) for _, part in table["image_id"].groupby(groups))
    return {part for part in parts if len(part) > 1}


@needs_kit
def test_hc18_has_exactly_its_ten_known_groups_each_within_one_examination():
    rows = pd.read_csv(KIT / "hc18" / "metadata.csv", dtype=str)
    ids = rows["file_name"].str.removesuffix(".png")
    frames = kit_frames(KIT / "hc18" / "images", rows["file_name"].tolist())

    search = kit_search(frames, ids.tolist(), rows["exam_id"].tolist())

    assert [n[:2] for n in names(search) if n[2] != "near-duplicate"] == [("392_2HC", "392_HC")]
    known = grouped(ids, rows["near_duplicate_group"])
    assert (len(known), sum(map(len, known))) == (10, 21)
    assert linked(search, ids.tolist()) == known
    assert all(pair.is_one_patient for pair in search.pairs)
    assert search.null is not None
    assert search.null.highest is not None
    assert search.null.highest < 0.90


@needs_kit
def test_the_african_set_has_exactly_its_known_pairs_seven_across_the_official_split():
    rows = pd.read_csv(KIT / "african_planes" / "metadata.csv", dtype=str)
    rows = rows[rows["in_kit"] == "1"].reset_index(drop=True)
    ids = rows["image_name"]
    frames = kit_frames(KIT / "african_planes" / "images", [f"{name}.png" for name in ids])
    patients = rows["center"] + " " + rows["patient_num"]

    search = kit_search(frames, ids.tolist(), patients.tolist())

    side = dict(zip(ids, rows["train"], strict=True))
    across = [pair for pair in search.pairs if side[pair.left_id] != side[pair.right_id]]
    assert sum(not pair.is_near for pair in search.pairs) == 10
    assert sum(not pair.is_near for pair in across) == 5
    assert len(across) == 7
    assert linked(search, ids.tolist()) == grouped(ids, rows["near_duplicate_group"])
    assert not any(pair.is_one_patient for pair in search.pairs)


@needs_kit
def test_fetal_planes_db_has_the_frame_under_two_patients_and_the_resampled_one():
    root = KIT / "fetal_planes_db"
    folders = ("Images", "trans_ventricular_480/images")
    files = sorted(
        p.relative_to(root).as_posix() for f in folders for p in (root / f).glob("*.png")
    )
    patients = [Path(name).name[:12] for name in files]

    search = kit_search(kit_frames(root, files), files, patients)

    ventricular = "trans_ventricular_480/images"
    assert names(search) == [
        ("Images/Patient00305_Plane6_1_of_3.png", "Images/Patient00305_Plane6_2_of_3.png")
        + ("near-duplicate",),
        ("Images/Patient00809_Plane3_3_of_3.png", f"{ventricular}/Patient00809_Plane3_3_of_3.png")
        + ("near-duplicate",),
        (f"{ventricular}/Patient00786_Plane3_2_of_3.png",)
        + (f"{ventricular}/Patient00799_Plane3_1_of_3.png", "near-duplicate"),
    ]
    assert [pair.is_one_patient for pair in search.pairs] == [True, True, False]
