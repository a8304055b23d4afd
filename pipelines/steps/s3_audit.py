"""s3 audit: attributes and their confounding, image quality, duplicates, burned-in text."""

import numpy as np

from governance.records.audit import DatasetAudit
from governance.records.content import ContentScan
from governance.records.duplicates import CopyRecall, DuplicateAudit, DuplicatePair
from governance.records.errors import DataError
from governance.records.run import Figure
from medisynth.data.audit.confounding import confounding
from medisynth.data.audit.coverage import concentration
from medisynth.data.audit.quality import image_quality
from medisynth.data.content.scan import is_dicom, scan_content
from medisynth.data.duplicates.calibration import calibrate, chosen_rows
from medisynth.data.duplicates.exact import in_partitions, leakage_groups
from medisynth.data.duplicates.search import DuplicateSearch, find_duplicates
from medisynth.data.reading.contact_sheet import contact_sheet
from medisynth.data.reading.decode import decode_bytes
from medisynth.data.reading.folder import DataFolder
from pipelines.current_run.context import AuditedImages, ImageSet, RunContext, add_figures
from pipelines.steps import boundaries
from pipelines.steps.data_audit import n_across

_MAX_PAIRS = 1000
_MAX_PICTURES = 60
_TILE_PX = 240


def run(images: ImageSet, context: RunContext) -> AuditedImages:
    """Audit the image table and search for duplicates.

    A duplicate is no error here: it joins its images' patients into one group, which the split
    never divides. The split step writes the findings, because it knows the partitions.

    Raises:
        DataError: The images are not those on record, or DICOM files are not de-identified.
    """
    boundaries.images_validated(images, context)
    audit = _dataset_audit(images, context)
    search = find_duplicates(
        images.table,
        images.thumbnails,
        distinct=context.config.audit.distinct(),
        progress=lambda done, total: context.console.progress("comparing images", done, total),
    )
    groups = leakage_groups(images.table, search.pairs)
    duplicates = _duplicate_audit(search, images, context)
    _scan_content(images, context)
    if search.pairs:
        n = len(search.pairs)
        context.console.warn(
            f"images that occur twice: {n:,} {'pair' if n == 1 else 'pairs'}, {duplicates.n_near:,} "
            f"of them near-duplicates, {duplicates.n_pairs_across_patients:,} under different "
            f"{images.info.split_unit}s"
        )
    return AuditedImages(search.pairs, groups, duplicates, audit)


def _dataset_audit(images: ImageSet, context: RunContext) -> DatasetAudit:
    n_resamples, seed = context.config.audit.n_resamples, context.config.seed
    return DatasetAudit(
        concentration=concentration(images.table),
        confounding=confounding(images.table, n_resamples=n_resamples, seed=seed),
        quality=image_quality(images.table),
        n_resamples=n_resamples,
        seed=seed,
    )


def _scan_content(images: ImageSet, context: RunContext) -> None:
    scan = scan_content(
        images.root,
        images.table,
        images.metadata,
        n_text_images=context.config.audit.n_text_images,
        reviewed=context.config.audit.reviews(),
        seed=context.config.seed,
        progress=lambda done, total: context.console.progress(
            "reading burned-in text", done, total
        ),
    )
    context.store.write_document(scan)
    _refuse_identified(images, scan)


def _refuse_identified(images: ImageSet, scan: ContentScan) -> None:
    """Raise DataError where a DICOM file holds what could identify somebody and nobody looked at it.

    No value is repeated. Other files are judged by P2-13 alone: a DICOM file comes from a hospital's
    archive, where names are the rule.
    """
    dicom = set(images.table["image_id"][is_dicom(images.table)])
    found = [
        f"{kind.kind} in {kind.n_images:,} images, first {images.place(kind.image_ids[0])}"
        for kind in scan.file_metadata
        if dicom.intersection(kind.image_ids)
    ]
    marked = {m.image_id: m.kind for m in scan.marks if m.kind != "time" and m.image_id in dicom}
    found += [f"a {kind} burned into {images.place(name)}" for name, kind in marked.items()]
    if found:
        raise DataError(
            f"DICOM files hold what could identify somebody: {'; '.join(found)}; de-identify the files, "
            "or name in audit.reviewed what a person has looked at, and why it is harmless",
            code="D072",
            findings=[f"not de-identified: {sentence}" for sentence in found],
        )


def _duplicate_audit(
    search: DuplicateSearch, images: ImageSet, context: RunContext
) -> DuplicateAudit:
    table = images.table
    known = table[table["official_partition"].notna()]
    official = dict(zip(known["image_id"], known["official_partition"], strict=True))
    pairs = in_partitions(search.pairs, official)
    # the most important first: other patients, then other partitions, then the rest
    ordered = sorted(
        pairs,
        key=lambda p: (
            p.is_one_patient,
            p.left_partition == p.right_partition,
            p.left_id,
            p.right_id,
        ),
    )
    drawn = _draw_pairs(ordered[:_MAX_PICTURES], images, context)
    across = {(p.left_patient, p.right_patient) for p in pairs if not p.is_one_patient}
    return DuplicateAudit(
        method=search.method,
        n_images=len(table),
        n_pairs=len(pairs),
        n_near=sum(pair.is_near for pair in pairs),
        n_pairs_across_patients=sum(not pair.is_one_patient for pair in pairs),
        n_pairs_across_partitions=n_across(search.pairs, official),
        n_groups=_n_groups(across),
        pairs=(*drawn, *ordered[_MAX_PICTURES:_MAX_PAIRS]),
        null=search.null,
        distinct=context.config.audit.distinct_pairs,
        calibration=_calibration(images, context),
    )


def _calibration(images: ImageSet, context: RunContext) -> tuple[CopyRecall, ...]:
    """Try the search on changed copies of some of the images, read again at their own size."""
    folder, seed = DataFolder(images.root), context.config.seed
    rows = chosen_rows(len(images.table), context.config.audit.n_calibrated, seed)
    paths = images.table["path"].iloc[rows]
    frames = [decode_bytes(folder.read(path), path).grey for path in paths]
    return calibrate(frames, seed)


def _n_groups(ties: set[tuple[str, str]]) -> int:
    """Count the groups of two or more patients that are connected by pairs."""
    group_of: dict[str, set[str]] = {}
    for left, right in ties:
        merged = group_of.get(left, {left}) | group_of.get(right, {right})
        group_of.update(dict.fromkeys(merged, merged))
    return len({id(group) for group in group_of.values()})


def _draw_pairs(
    pairs: list[DuplicatePair], images: ImageSet, context: RunContext
) -> list[DuplicatePair]:
    """Draw both images of each pair side by side; return the pairs with their figure's path."""
    row_of = {name: row for row, name in enumerate(images.table["image_id"])}
    unit = images.info.split_unit
    drawn, figures, sheets = [], [], {}
    for number, pair in enumerate(pairs, start=1):
        both = [images.pixels[row_of[name]] for name in (pair.left_id, pair.right_id)]
        words = pair.kind if pair.similarity is None else f"{pair.kind} {pair.similarity:.3f}"
        path = f"figures/duplicates/{number:03d}.png"
        sheets[path] = contact_sheet(
            [(words, [np.asarray(picture) for picture in both], [pair.left_id, pair.right_id])],
            tile_px=_TILE_PX,
        )
        figures.append(
            Figure(
                path=path,
                title=f"{pair.left_id} and {pair.right_id}",
                caption=f"{words}, {pair.transform}; {unit}s {pair.left_patient} and "
                f"{pair.right_patient}.",
            )
        )
        drawn.append(pair.model_copy(update={"figure": path}))
    if figures:
        context.store.write_files(sheets)
        add_figures(figures, context.store)
    return drawn
