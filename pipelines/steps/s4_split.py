"""s4 split and seal: divides the images by patient and seals the held-out test set."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from governance.confinement.confine import KEY_TARGET, VAULT_TARGET
from governance.records.audit import CoverageAudit
from governance.records.base import TEST, TRAINING, TUNING
from governance.records.dataset import DatasetIdentity
from governance.records.errors import (
    DataError,
    EvidenceError,
    EvidenceTamperedError,
    LeakageError,
    MedisynthGovError,
)
from governance.records.files import canonical_json, sha256_bytes, write_atomic
from governance.records.partition import PartitionSummary, SplitRecord
from governance.sealing.access_log import AccessLog
from governance.sealing.ledger import Ledger
from governance.sealing.seal import Leaf, reopen_sealed_test_set, seal_test_set
from medisynth.data.audit.attribute_values import levels_by_image
from medisynth.data.audit.coverage import ATTRIBUTES, classes_not_trained, flow_step
from medisynth.data.duplicates.exact import across_partitions
from medisynth.data.reading.views import ImageView, load_view, save_view
from medisynth.data.split import SplitResult, partition_overlaps, split_images
from pipelines.current_run.context import (
    IMAGE_TABLE,
    AuditedImages,
    ImageSet,
    RunContext,
    SplitImages,
    isolation_on_record,
)
from pipelines.fetch.cache import image_cache
from pipelines.steps import boundaries, external
from pipelines.steps.data_audit import write_audits
from pipelines.training.parent import batch_sizes

_PACKED = "views packed"


def run(images: ImageSet, audited: AuditedImages, context: RunContext) -> SplitImages:
    """Divide the images and seal the held-out test set; errors as in `divide`."""
    external.prepare(images, context)  # before a test set is sealed for nothing
    result = divide(images, audited, context)
    _warn_of_large_batches(int((result.partition == TRAINING).sum()), context)
    split = _views_and_seal(images, result.partition, context)
    boundaries.views_packed(images, split, context)
    return split


def _warn_of_large_batches(n_training: int, context: RunContext) -> None:
    settings = context.config.generator_settings().model_dump(mode="json")
    for key, size in batch_sizes(settings).items():
        if size > n_training:
            context.console.warn(
                f"{key}: a batch of {size} holds some of the {n_training} training images twice"
            )


def reload(root: Path, context: RunContext) -> SplitImages:
    """Read this step's result back from a run that was cut short: packed views, sealed test set.

    Raises:
        EvidenceError: A packed view is gone or differs, or the seal does not fit its leaves.
        DataError: The data folder is gone.
    """
    if not root.is_dir():
        raise DataError(f"{root}: the data folder of this run is gone; put it back")
    store = context.store
    identity, isolation = context.folder.need(DatasetIdentity), isolation_on_record(store.journal)
    sealed = reopen_sealed_test_set(
        store=store,
        ledger=Ledger(context.ledger_dir, str(identity.content_sha256)),
        vault=context.vault,
    )
    packed = [e.body for e in store.journal.events() if e.type == _PACKED][-1]
    paths = [leaf.path for leaf in sealed.leaves]
    folder, originals = root, list[str]()
    if identity.convert is not None:
        folder = context.converted_images(root, identity.convert)
        table = pd.read_parquet(store.run_dir / IMAGE_TABLE)
        originals = list(table.loc[table["path"].isin(paths), "source_path"].astype(str))
    files = [*(folder / path for path in paths), *(root / path for path in originals)]
    return SplitImages(
        training=_checked_view(TRAINING, packed["training_view"], context),
        tuning=_checked_view(TUNING, packed["tuning_view"], context),
        sealed_test=sealed,
        access_log=_access_log(
            files, context, n_earlier=isolation.n_sealed_reads if isolation else 0
        ),
        must_refuse=_must_refuse(root, identity.metadata_file, files[0], context),
        levels=_read_levels(packed, context),
    )


def _read_levels(packed: dict[str, Any], context: RunContext) -> dict[str, dict[str, str]]:
    """Read the levels of all images back; an older run packed none."""
    if "levels" not in packed:
        return {}
    path = _levels_file(context)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EvidenceError(
            f"{path}: the levels of the images of this run are gone; start a new run"
        ) from error
    if (found := sha256_bytes(data)) != packed["levels"]:
        raise EvidenceTamperedError(path, expected=packed["levels"], found=found)
    levels: dict[str, dict[str, str]] = json.loads(data)
    return levels


def _levels_file(context: RunContext) -> Path:
    return context.scratch / "levels.json"


def _checked_view(name: str, sha256: str, context: RunContext) -> ImageView:
    path = context.scratch / "views" / f"{name}.npy"
    try:
        view = load_view(path.parent, name)
    except DataError as error:
        raise EvidenceError(
            f"{path}: the packed {name} images of this run are gone or damaged; start a new run"
        ) from error
    if view.digest != sha256:
        raise EvidenceTamperedError(path, expected=sha256, found=view.digest)
    return view


def divide(images: ImageSet, audited: AuditedImages, context: RunContext) -> SplitResult:
    """Divide the images, put the split on record and complete the audit by partition.

    Raises:
        LeakageError: A patient or an image is on both sides; data/split.json has the counts.
        DataError: A partition would be empty, or the official split was asked for and there is
            none.
    """
    try:
        result = _divided(images, audited, context)
    except MedisynthGovError:
        write_audits(images, audited, None, context)  # the findings so far are evidence too
        raise
    write_audits(images, audited, result.partition, context)
    for sentence in classes_not_trained(context.folder.need(CoverageAudit).levels):
        context.console.warn(sentence)
    return result


def _divided(images: ImageSet, audited: AuditedImages, context: RunContext) -> SplitResult:
    config = context.config.split
    boundaries.groups_made(images, audited, context)
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
            tuning_from=config.tuning_from,
        )
    except LeakageError as error:
        refused = SplitResult(partition=official, dropped=(), deviations=())
        _write_split(
            images, audited, refused, source, context, refused=str(error).split("; set ", 1)[0]
        )
        raise
    _write_split(images, audited, result, source, context)
    boundaries.partitions_made(images, audited.groups, result.partition, context)
    return result


def split_source(
    wanted: Literal["auto", "official", "computed"], official: "pd.Series[str]"
) -> Literal["official", "computed"]:
    """Return the split to use; "auto" is the official one if the data set has one."""
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
        flow=flow_step("divided", table),
        refused=refused,
        dropped=tuple(f"{image_id}: {reason}" for image_id, reason in result.dropped),
        deviations=result.deviations,
    )
    context.store.write_document(record)


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
    ledger = Ledger(context.ledger_dir, images.content_sha256)
    test = images.table.loc[partition.index[partition == TEST]]
    sealed = seal_test_set(
        [_leaf(row) for _, row in test.iterrows()],
        store=context.store,
        ledger=ledger,
        data_root=images.root,
        vault=context.vault,
    )
    if note := sealed.take_note():
        context.console.warn(note)
    views = {name: _view(images, partition, name) for name in (TRAINING, TUNING)}
    for view in views.values():
        save_view(view, context.scratch / "views")
    levels = levels_by_image(
        images.table, images.metadata, images.contract.demographics, ATTRIBUTES
    )
    data = canonical_json(levels)
    write_atomic(_levels_file(context), data)
    digests = {f"{name}_view": view.digest for name, view in views.items()}
    context.store.journal.append(_PACKED, {**digests, "levels": sha256_bytes(data)})
    files = [images.root / path for path in test["path"]]
    if "source_path" in test:
        files += [images.source / path for path in test["source_path"]]
    context.console.say(
        f"sealed and encrypted {len(test):,} test images of {test['patient_id'].nunique():,} "
        f"{images.info.split_unit}s, Merkle root {sealed.record.merkle_root[:16]}"
    )
    return SplitImages(
        training=views[TRAINING],
        tuning=views[TUNING],
        sealed_test=sealed,
        access_log=_access_log(files, context),
        must_refuse=_must_refuse(images.source, images.metadata_file, files[0], context),
        levels=levels,
    )


def _access_log(sealed: Iterable[Path], context: RunContext, *, n_earlier: int = 0) -> AccessLog:
    access_log = AccessLog(n_earlier)
    vault = context.vault
    access_log.start([vault.path, vault.key_path, *sealed])
    return access_log


def _must_refuse(
    root: Path, metadata_file: str, sealed_image: Path, context: RunContext
) -> dict[str, str]:
    """Return description -> path that the training process must fail to read."""
    refuse = {
        "sealed image": str(sealed_image),
        "data folder": str(root),
        "metadata file": str(root / metadata_file),
        "levels of all images": str(_levels_file(context)),
        VAULT_TARGET: str(context.vault.path),
        KEY_TARGET: str(context.vault.key_path),
        # also those of other runs on the same data
        "folder of vaults": str(context.vault.path.parent),
        "folder of keys": str(context.vault.key_path.parent),
        **external.folders(context),
    }
    if not sealed_image.is_relative_to(root):
        refuse["folder of converted images"] = str(sealed_image.parent)
    cache = image_cache(context.config.data)
    if cache is not None and cache.is_dir():
        refuse["cache of decoded images"] = str(cache)
    if context.signer is not None and context.signer.key_path is not None:
        refuse["signing key"] = str(context.signer.key_path)
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
