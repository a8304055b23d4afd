"""Test sets from other sources: read beside the split, compared after the test set is opened."""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from governance.records.errors import DataError, EvidenceTamperedError, MetricUndefinedError
from governance.records.evaluation import ExternalSet
from governance.records.files import sha256_bytes, write_atomic
from medisynth.data.adapters import locate_data_set
from medisynth.data.adapters.selection import missing_images, missing_images_error, select_planes
from medisynth.data.duplicates.search import find_duplicates
from medisynth.data.reading.ingest import Ingested, content_digest, ingest_images
from medisynth.data.reading.views import Pixels
from medisynth.metrics.features import check_reference
from pipelines.config.sections import ExternalConfig
from pipelines.current_run.context import ImageSet, RunContext
from pipelines.fetch.cache import image_cache

_PACKED = "external test set packed"
_NAMED = 20  # images left out that are named


@dataclass(frozen=True)
class ExternalImages:
    """Images of a test set from another source.

    Attributes:
        facts: What is on record of the set, without metrics.
        pixels: Shape (n, size, size), uint8.
        patients: Patient of each, length n.
    """

    facts: ExternalSet
    pixels: Pixels
    patients: tuple[str, ...]


def folders(context: RunContext) -> dict[str, str]:
    """Return what training must fail to read: description -> folder of each external test set."""
    packed = {"images of external test sets": str(_folder(context))} if _sets(context) else {}
    return packed | {f"external test set {one.name}": str(one.folder) for one in _sets(context)}


def prepare(images: ImageSet, context: RunContext) -> None:
    """Read every external test set, leave out what this run's data hold as well, and pack the rest.

    An image is left out if it equals or nearly equals one of this run's data, in whatever
    partition, and where both come from one data set also if its patient occurs there.

    Raises:
        DataError: A set has no known layout, lacks images, or holds images that cannot be used, or
            nothing of it is left.
    """
    for one in _sets(context):
        packed, facts = _packed(one, images, context)
        path = _folder(context) / f"{one.name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, packed)
        body = {"facts": facts.model_dump(mode="json"), "sha256": sha256_bytes(packed)}
        context.store.journal.append(_PACKED, body)
        left_out = f", {facts.n_left_out:,} left out as this run's data hold them" * bool(
            facts.n_left_out
        )
        context.console.say(
            f"external test set {one.name}: {facts.n_images:,} images of {facts.n_patients:,} "
            f"{facts.unit}s{left_out}"
        )


def read(context: RunContext) -> list[ExternalImages]:
    """Return the packed sets.

    Raises:
        EvidenceTamperedError: A file is not the one that was packed.
    """
    # A step that was cut short is done again, and its sets are packed again: the last one counts.
    packed = [e.body for e in context.store.journal.events() if e.type == _PACKED]
    found = []
    for body in {one["facts"]["name"]: one for one in packed}.values():
        facts = ExternalSet.model_validate(body["facts"])
        path = _folder(context) / f"{facts.name}.npz"
        data = path.read_bytes()
        if (digest := sha256_bytes(data)) != body["sha256"]:
            raise EvidenceTamperedError(path, expected=body["sha256"], found=digest)
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            found.append(ExternalImages(facts, file["pixels"], tuple(map(str, file["patients"]))))
    return found


def unmeasured(context: RunContext) -> tuple[ExternalSet, ...]:
    """Return the sets on record where fidelity was not measured, and so theirs neither."""
    reason = {"reason": "fidelity was not measured in this run"}
    return tuple(one.facts.model_copy(update=reason) for one in read(context))


def fault_of(one: ExternalImages) -> str:
    """Return why a set cannot be the reference of a metric; "" where it can."""
    try:
        check_reference(one.pixels, f"external test set {one.facts.name}")
    except MetricUndefinedError as error:
        return str(error)
    return ""


def _sets(context: RunContext) -> tuple[ExternalConfig, ...]:
    return context.config.evaluation.external


def _folder(context: RunContext) -> Path:
    return context.scratch / "external"


def _packed(
    one: ExternalConfig, images: ImageSet, context: RunContext
) -> tuple[bytes, ExternalSet]:
    adapter, root = locate_data_set(one.folder, one.adapter)
    listing = adapter.list_images(root)
    selected = select_planes(listing, one.planes)
    missing = missing_images(root, selected)
    if missing.any() and context.config.data.missing_images == "error":
        raise missing_images_error(root, selected, missing, metadata_file=listing.metadata_file)
    present = selected[~missing].reset_index(drop=True)
    ingested = _ingested(one, root, present, images.pixels.shape[1], context)
    table = ingested.table
    reasons = _also_here(one, ingested, images, adapter.name == images.info.name, context)
    kept = np.array([name not in reasons for name in table["image_id"].astype(str)])
    if not kept.any():
        raise DataError(
            f"evaluation.external {one.name}: all {len(table):,} images are in this run's data as "
            "well; give a set from another source",
            code="D033",
        )
    rows = np.flatnonzero(kept)
    most = context.config.evaluation.max_real
    if len(rows) > most:
        random = np.random.default_rng([context.config.seed, 7])
        rows = np.sort(random.choice(rows, most, replace=False))
    patients = table["patient_id"].astype(str).to_numpy(dtype=str)[rows]
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, pixels=ingested.pixels[rows], patients=patients)
    facts = ExternalSet(
        name=one.name,
        title=listing.info.title,
        adapter=adapter.name,
        licence=listing.info.licence,
        content_sha256=content_digest(table),
        unit=listing.info.split_unit,
        n_listed=len(table),
        n_left_out=len(reasons),
        left_out=tuple(f"{name}: {why}" for name, why in sorted(reasons.items())[:_NAMED]),
        n_images=len(rows),
        n_patients=len(set(patients.tolist())),
    )
    return stream.getvalue(), facts


def _ingested(
    one: ExternalConfig, root: Path, present: pd.DataFrame, size_px: int, context: RunContext
) -> Ingested:
    name = f"decoding external test set {one.name}"
    found = ingest_images(
        root,
        present,
        size_px=size_px,
        fit=context.config.data.fit,
        n_workers=os.cpu_count() or 1,
        processes=True,
        cache=image_cache(context.config.data),
        progress=lambda done, total: context.console.progress(name, done, total),
    )
    if found.findings:
        raise DataError(
            f"evaluation.external {one.name}: {len(found.findings):,} of {len(present):,} images "
            f"cannot be used; first: {found.findings[0]}",
            code=found.findings[0].code,
            findings=found.findings,
        )
    return found


def _also_here(
    one: ExternalConfig, other: Ingested, images: ImageSet, is_one_set: bool, context: RunContext
) -> dict[str, str]:
    """Return image -> reason for each image that this run's data hold as well."""
    columns = ["image_id", "patient_id", "file_sha256", "pixel_sha256"]
    here, there = (
        _renamed(t[columns], side) for t, side in ((images.table, "here"), (other.table, "there"))
    )
    search = find_duplicates(
        pd.concat([here, there], ignore_index=True),
        np.concatenate([images.thumbnails, other.thumbnails]),
        progress=lambda done, total: context.console.progress(
            f"comparing with external test set {one.name}", done, total
        ),
    )
    reasons: dict[str, str] = {}
    for pair in search.pairs:
        sides = dict(_side(name) for name in (pair.left_id, pair.right_id))
        if len(sides) == 2:
            reasons[sides["there"]] = f"{pair.kind} of {sides['here']}"
    if is_one_set:
        known = set(images.table["patient_id"].astype(str))
        for name, patient in zip(other.table["image_id"], other.table["patient_id"], strict=True):
            if str(patient) in known:
                reasons.setdefault(str(name), f"{images.info.split_unit} {patient} is here as well")
    return reasons


def _renamed(table: pd.DataFrame, side: str) -> pd.DataFrame:
    """Return the table with ids that name their side, so that equal names of two sets differ."""
    own: dict[str, Any] = {
        name: f"{side}/" + table[name].astype(str) for name in ("image_id", "patient_id")
    }
    return table.assign(**own)


def _side(name: str) -> tuple[str, str]:
    side, _, own = name.partition("/")
    return side, own
