"""s4 split and seal: by patient; the held-out test set is closed here, before training."""

import hashlib
from dataclasses import asdict
from typing import Any, Literal

import pandas as pd

from governance.evidence.documents import (
    TEST,
    TRAINING,
    TUNING,
    FlowStep,
    PartitionSummary,
    SplitRecord,
)
from governance.isolation.ledger import Ledger
from governance.isolation.seal import AccessLog, Leaf, seal_test_set
from medisynth.data.duplicates import across_partitions
from medisynth.data.flow_count import flow_step
from medisynth.data.split import SplitResult, partition_overlaps, split_images
from medisynth.data.views import ImageView
from medisynth.errors import LeakageError
from pipelines.audit_documents import complete_audits
from pipelines.boundaries import hand_over
from pipelines.cache import image_cache
from pipelines.context import AuditedImages, ImageSet, RunContext, SplitImages


def run(images: ImageSet, audited: AuditedImages, context: RunContext) -> SplitImages:
    """Divide the images and seal the held-out test set; errors as in `divide`."""
    result = divide(images, audited, context)
    return _views_and_seal(images, result.partition, context)


def divide(images: ImageSet, audited: AuditedImages, context: RunContext) -> SplitResult:
    """Divide the images, put the split on record and complete the audit by partition.

    Raises:
        LeakageError: A patient or an image is on both sides; data/split.json shows which.
        DataError: A partition would be empty, or the official split was asked for and there is
            none.
    """
    config = context.config.split
    grouped = images.table.assign(group=audited.groups)
    hand_over(grouped, images.contract, "s3_audit to s4_split", context)
    official = images.table["official_partition"]
    source = split_source(config.source, official)
    try:
        result = split_images(
            images.table,
            audited.groups,
            pairs=audited.pairs,
            source=source,
            test_fraction=config.test_fraction,
            tuning_fraction=config.tuning_fraction,
            seed=config.seed,
            on_duplicate=config.on_duplicate,
        )
    except LeakageError as error:
        refused = SplitResult(partition=official, dropped=(), deviations=())
        _write_split(
            images, audited, refused, source, context, refused=str(error).split("; set ", 1)[0]
        )
        raise
    _write_split(images, audited, result, source, context)
    divided = grouped.loc[result.partition.index].assign(partition=result.partition)
    hand_over(divided, images.contract, "s4_split to s5_train", context)
    complete_audits(images, audited, result.partition, context)
    return result


def split_source(
    wanted: Literal["auto", "official", "computed"], official: "pd.Series[str]"
) -> Literal["official", "computed"]:
    """The split to use: "auto" is official where the data set brings one; DataError if it must and is not."""
    if wanted == "auto":
        return "official" if official.notna().any() else "computed"
    return wanted


def _write_split(
    images: ImageSet,
    audited: AuditedImages,
    result: SplitResult,
    source: Literal["official", "computed"],
    context: RunContext,
    *,
    refused: str = "",
) -> None:
    table = images.table.loc[result.partition.index]
    shared_patients, shared_content = partition_overlaps(table, result.partition)
    official_available = bool(images.table["official_partition"].notna().any())
    record = SplitRecord(
        source=source,
        official_available=official_available,
        seed=context.config.split.seed,
        unit=images.info.split_unit,
        partitions=tuple(
            _summary(table[result.partition == name], name) for name in (TRAINING, TUNING, TEST)
        ),
        shared_patients=shared_patients,
        shared_content=shared_content,
        shared_near=across_partitions(audited.pairs, _by_image(images, result.partition)),
        flow=FlowStep.model_validate(asdict(flow_step("divided", table))),
        refused=refused,
        dropped=tuple(f"{image_id}: {reason}" for image_id, reason in result.dropped),
        deviations=result.deviations,
    )
    context.store.write_document("data/split.json", record)


def _by_image(images: ImageSet, partition: "pd.Series[str]") -> dict[str, str]:
    known = partition[partition.notna()]
    names = images.table["image_id"].loc[known.index].astype(str)
    return dict(zip(names, known.astype(str), strict=True))


def _summary(table: pd.DataFrame, partition: str) -> PartitionSummary:
    digest = hashlib.sha256()
    columns = ["image_id", "file_sha256", "pixel_sha256"]
    for row in table[columns].sort_values("image_id").itertuples(index=False):
        digest.update("\x00".join(map(str, row)).encode() + b"\n")
    return PartitionSummary(
        partition=partition,
        n_images=len(table),
        n_patients=int(table["patient_id"].nunique()),
        sha256=digest.hexdigest(),
    )


def _views_and_seal(
    images: ImageSet, partition: "pd.Series[str]", context: RunContext
) -> SplitImages:
    ledger = Ledger(context.workspace / "ledger", images.content_sha256)
    test = images.table.loc[partition.index[partition == TEST]]
    sealed = seal_test_set(
        [_leaf(row) for _, row in test.iterrows()],
        store=context.store,
        ledger=ledger,
        data_root=images.root,
    )
    access_log = AccessLog()
    access_log.start([images.root / str(path) for path in test["path"]])
    context.console.say(
        f"sealed {len(test):,} test images of {test['patient_id'].nunique():,} "
        f"{images.info.split_unit}s, Merkle root {sealed.record.merkle_root[:16]}"
    )
    return SplitImages(
        training=_view(images, partition, TRAINING),
        tuning=_view(images, partition, TUNING),
        sealed_test=sealed,
        access_log=access_log,
        must_refuse=_must_refuse(images, str(test["path"].iloc[0]), context),
    )


def _must_refuse(images: ImageSet, sealed_image: str, context: RunContext) -> dict[str, str]:
    """What the training process must fail to read, by description."""
    refuse = {
        "sealed image": str(images.root / sealed_image),
        "data folder": str(images.root),
        "metadata file": str(images.root / images.metadata_file),
    }
    cache = image_cache(context.config.data)
    if cache is not None and cache.is_dir():
        refuse["cache of decoded images"] = str(cache)
    return refuse


def _view(images: ImageSet, partition: "pd.Series[str]", name: str) -> ImageView:
    rows = images.table.index.get_indexer(partition.index[partition == name])
    table = images.table.iloc[rows]
    return ImageView(
        partition=name,
        pixels=images.pixels[rows],
        image_ids=tuple(table["image_id"]),
        patient_ids=tuple(table["patient_id"]),
        planes=_labels(table["brain_plane"]),
        machines=_labels(table["machine"]),
    )


def _labels(column: "pd.Series[str]") -> tuple[str, ...]:
    return tuple(value if isinstance(value, str) else "" for value in column)


def _leaf(row: "pd.Series[Any]") -> Leaf:
    def text(name: str) -> str | None:
        value = row[name]
        return value if isinstance(value, str) else None

    return Leaf(
        id=str(row["image_id"]),
        path=str(row["path"]),
        file_sha256=str(row["file_sha256"]),
        pixel_sha256=str(row["pixel_sha256"]),
        patient=str(row["patient_id"]),
        plane=text("plane"),
        brain_plane=text("brain_plane"),
        operator=text("operator"),
        machine=text("machine"),
        width=int(str(row["width_px"])),
        height=int(str(row["height_px"])),
    )
