"""What each step receives, compared with what is on record before the step begins."""

import io
from collections.abc import Mapping

import numpy as np
import pandas as pd

from governance.evidence.journal import Journal
from governance.records.base import TEST, TRAINING, TUNING
from governance.records.dataset import BoundaryCheck, BoundaryChecks, DatasetIdentity
from governance.records.errors import DataError, EvidenceError, MedisynthGovError
from governance.records.files import sha256_bytes, sha256_file
from governance.records.partition import SplitRecord
from governance.records.training import SampleSet, TrainingRecord
from medisynth.data.contract.contract import broken_rules
from medisynth.data.reading.views import ImageView
from pipelines.current_run.context import (
    IMAGE_TABLE,
    AuditedImages,
    ImageSet,
    RunContext,
    SplitImages,
    TrainedGenerator,
)

_HANDED_ON = "handed on"


def images_ingested(images: ImageSet, context: RunContext) -> None:
    """Check what s1 hands to s2: one picture a row, and the table that is on record.

    Raises:
        DataError: A rule does not hold.
    """
    _settle("s1_ingest to s2_validate", len(images.table), _image_rules(images, context), context)


def images_validated(images: ImageSet, context: RunContext) -> None:
    """Check what s2 hands to s3: the very table that s1 recorded and s2 validated.

    Raises:
        DataError: A rule does not hold.
    """
    _settle("s2_validate to s3_audit", len(images.table), _image_rules(images, context), context)


def groups_made(images: ImageSet, audited: AuditedImages, context: RunContext) -> None:
    """Check what s3 hands to s4: a group for each row, and no patient and no pair in two groups.

    Raises:
        DataError: A rule does not hold.
    """
    table, groups = images.table, audited.groups
    rules = {
        **_image_rules(images, context),
        "one_group_a_row": groups.index.equals(table.index) and bool(groups.notna().all()),
    }
    if rules["one_group_a_row"]:
        by_image = dict(zip(table["image_id"].astype(str), groups.astype(str), strict=True))
        rules["no_patient_in_two_groups"] = not (
            groups.groupby(table["patient_id"]).nunique() > 1
        ).any()
        rules["no_pair_in_two_groups"] = all(
            by_image.get(pair.left_id) == by_image.get(pair.right_id) for pair in audited.pairs
        )
    new = table.assign(group=groups)
    rules |= dict.fromkeys(broken_rules(new, images.contract, added_by="s3_audit"), False)
    _settle("s3_audit to s4_split", len(table), rules, context)


def partitions_made(
    images: ImageSet, groups: "pd.Series[str]", partition: "pd.Series[str]", context: RunContext
) -> None:
    """Check the division before anything is packed: no group divided, the columns it adds sound.

    Args:
        images: All images.
        groups: Group of each row.
        partition: Partition of each row that is used, on the table's index.
        context: Context of the run.

    Raises:
        DataError: A rule does not hold.
    """
    divided = images.table.loc[partition.index].assign(
        group=groups.loc[partition.index], partition=partition
    )
    rules = {
        "no_group_in_two_partitions": not (
            divided.groupby("group")["partition"].nunique() > 1
        ).any(),
        **dict.fromkeys(broken_rules(divided, images.contract, added_by="s4_split"), False),
    }
    _settle("s4_split to s5_train", len(divided), rules, context)


def views_packed(images: ImageSet, split: SplitImages, context: RunContext) -> None:
    """Check what s4 hands to s5: each view has its partition's images, each under its own name.

    Raises:
        DataError: A rule does not hold.
    """
    table = images.table
    row = dict(zip(table["image_id"].astype(str), range(len(table)), strict=True))
    patient = dict(zip(table["image_id"].astype(str), table["patient_id"].astype(str), strict=True))
    recorded = {one.partition: one for one in context.folder.need(SplitRecord).partitions}
    views = {TRAINING: split.training, TUNING: split.tuning}
    leaves = split.sealed_test.leaves
    counts = {**{name: len(view) for name, view in views.items()}, TEST: len(leaves)}
    patients: list[set[str]] = [
        *(set(view.patient_ids) for view in views.values()),
        {str(leaf.patient) for leaf in leaves},
    ]

    def own_pictures(view: ImageView) -> bool:
        rows = [row.get(image_id, -1) for image_id in view.image_ids]
        return min(rows, default=0) >= 0 and np.array_equal(images.pixels[rows], view.pixels)

    rules = {
        "counts_as_on_record": all(counts[name] == recorded[name].n_images for name in counts),
        "one_label_a_picture": all(_is_aligned(view) for view in views.values()),
        "each_picture_under_its_name": all(own_pictures(view) for view in views.values()),
        "each_patient_of_its_image": all(
            patient.get(image_id) == owner
            for view in views.values()
            for image_id, owner in zip(view.image_ids, view.patient_ids, strict=False)
        ),
        "no_patient_in_two_partitions": len(set.union(*patients)) == sum(len(p) for p in patients),
    }
    _settle("s4_split to s5_train, packed", sum(counts.values()), rules, context)


def samples_drawn(trained: TrainedGenerator, context: RunContext) -> None:
    """Check what s5 hands to s6: the checkpoint and the images that are on record.

    Raises:
        EvidenceError: A rule does not hold.
    """
    record, samples = context.folder.need(TrainingRecord), context.folder.need(SampleSet)
    checkpoint = context.store.run_dir / trained.checkpoint_path
    digests = [sha256_bytes(image.tobytes()) for image in trained.synthetic]
    size_px = record.image_size_px
    rules = {
        "checkpoint_is_the_recorded_one": trained.checkpoint_path == record.checkpoint_path
        and trained.checkpoint_sha256 == record.checkpoint_sha256 == sha256_file(checkpoint),
        "pictures_as_on_record": digests == [pixels for _, _, pixels in samples.files],
        "paths_as_on_record": list(trained.sample_paths) == [path for path, _, _ in samples.files],
        "size_as_on_record": trained.synthetic.shape[1:] == (size_px, size_px)
        and trained.synthetic.dtype == np.uint8,
    }
    _settle("s5_train to s6_evaluate", len(trained.synthetic), rules, context, EvidenceError)


def boundary_checks(journal: Journal) -> BoundaryChecks | None:
    """Return the results of all boundaries so far, from the journal; None if there are none.

    A boundary that a resumed run passed again stands once, with its last result.
    """
    found = [BoundaryCheck.model_validate(e.body) for e in journal.events() if e.type == _HANDED_ON]
    latest = {check.boundary: check for check in found}
    return BoundaryChecks(checks=tuple(latest.values())) if latest else None


def _image_rules(images: ImageSet, context: RunContext) -> dict[str, bool]:
    """Return the rules of a table with its pictures: rule -> whether it holds."""
    table, n = images.table, len(images.table)
    recorded = pd.read_parquet(io.BytesIO(context.folder.read(IMAGE_TABLE) or b""))
    digest = context.folder.need(DatasetIdentity).content_sha256
    pictures = (images.pixels, images.thumbnails)
    return {
        "table_as_on_record": table.reset_index(drop=True).equals(recorded),
        "content_digest_as_on_record": digest == images.content_sha256,
        "one_picture_a_row": all(len(p) == n and p.dtype == np.uint8 for p in pictures),
        "one_metadata_row_a_row": len(images.metadata) == n,
    }


def _is_aligned(view: ImageView) -> bool:
    columns = (view.pixels, view.patient_ids, view.planes, view.machines)
    return all(len(column) == len(view) for column in columns)


def _settle(
    boundary: str,
    n_rows: int,
    rules: Mapping[str, bool],
    context: RunContext,
    damage: type[MedisynthGovError] = DataError,
) -> None:
    """Write the result to the journal; raise `damage` if a rule is broken."""
    failed = tuple(name for name, holds in rules.items() if not holds)
    found = BoundaryCheck(boundary=boundary, n_rows=n_rows, n_rules=len(rules), failed=failed)
    context.store.journal.append(_HANDED_ON, found.model_dump(mode="json"))
    if failed:
        raise damage(
            f"{boundary}: {', '.join(failed)} {'does' if len(failed) == 1 else 'do'} not hold for "
            f"what was handed on ({n_rows:,} images); this is a fault of the step before or of an "
            "adapter, please report it",
            code="D071" if damage is DataError else None,
        )
