"""s4 split and seal: by patient; the held-out test set is closed here, before training."""

import hashlib
from typing import Any, Literal

import pandas as pd

from governance.evidence.documents import TEST, TRAINING, TUNING, PartitionSummary, SplitRecord
from governance.isolation.ledger import Ledger
from governance.isolation.seal import AccessLog, Leaf, seal_test_set
from medisynth.data.split import SplitResult, partition_overlaps, split_images
from medisynth.data.views import ImageView
from medisynth.errors import LeakageError
from pipelines.context import AuditedImages, ImageSet, RunContext, SplitImages
from pipelines.coverage import write_coverage


def run(images: ImageSet, audited: AuditedImages, context: RunContext) -> SplitImages:
    """Divide the images and seal the held-out test set.

    Raises:
        LeakageError: A patient or an image is on both sides; data/split.json shows which.
        DataError: A partition would be empty, or the official split was asked for and there is
            none.
    """
    config = context.config.split
    official = images.table["official_partition"]
    source = split_source(config.source, official)
    try:
        result = split_images(
            images.table,
            audited.groups,
            source=source,
            test_fraction=config.test_fraction,
            tuning_fraction=config.tuning_fraction,
            seed=config.seed,
            on_duplicate=config.on_duplicate,
        )
    except LeakageError:
        refused = SplitResult(partition=official, dropped=(), deviations=())
        _write_split(images, refused, source, context)
        raise
    _write_split(images, result, source, context)
    write_coverage(images.table.loc[result.partition.index], result.partition, context.store)
    return _views_and_seal(images, result.partition, context)


def split_source(
    wanted: Literal["auto", "official", "computed"], official: "pd.Series[str]"
) -> Literal["official", "computed"]:
    """The split to use: "auto" is official where the data set brings one; DataError if it must and is not."""
    if wanted == "auto":
        return "official" if official.notna().any() else "computed"
    return wanted


def _write_split(
    images: ImageSet,
    result: SplitResult,
    source: Literal["official", "computed"],
    context: RunContext,
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
        dropped=tuple(f"{image_id}: {reason}" for image_id, reason in result.dropped),
        deviations=result.deviations,
    )
    context.store.write_document("data/split.json", record)


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
        must_refuse={
            "sealed image": str(images.root / str(test["path"].iloc[0])),
            "data folder": str(images.root),
            "metadata file": str(images.root / images.metadata_file),
        },
    )


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
