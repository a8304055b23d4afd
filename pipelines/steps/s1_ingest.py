"""s1 ingest: reads folder and metadata file, decodes each image once, computes digests."""

import io
import os
import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd

from governance.records.dataset import AbsentAttribute, DatasetIdentity, Findings
from governance.records.errors import DataError, Finding, SettingsError
from medisynth.data.adapters import DatasetAdapter, Listing, load_adapter, locate_data_set
from medisynth.data.adapters.selection import (
    UNKNOWN,
    absence_explained,
    missing_images,
    missing_images_error,
    select_planes,
)
from medisynth.data.adapters.unread import find_unread
from medisynth.data.audit.coverage import flow_step
from medisynth.data.content.scan import turned
from medisynth.data.contract.contract import DataContract, load_contract, warm_up
from medisynth.data.contract.variants import level_variants
from medisynth.data.phantom import PhantomSettings, phantom_key, write_phantoms
from medisynth.data.reading.converted_set import convert_set, remove_others
from medisynth.data.reading.csv_table import folded
from medisynth.data.reading.ingest import Ingested, content_digest, ingest_images
from medisynth.models.registry import load_generator
from pipelines.config.sections import DataConfig
from pipelines.current_run.context import IMAGE_TABLE, ImageSet, ListedData, RunContext
from pipelines.current_run.lock import folder_lock
from pipelines.fetch.cache import NO_CACHE, cache_dir, image_cache
from pipelines.fetch.data_sets import NOTE_FILE

N_EXAMPLES = 20
_REASONS_SHOWN = 8
_LONGEST_SIMULATION_S = 3600.0
OWN_CONTRACT = "data_contract.yaml"


def find_data_set(data: DataConfig) -> tuple[DatasetAdapter, Path | None]:
    """Return the adapter of the configured data and the data set's folder, None for phantoms.

    The folder is the configured one or, where that has no layout, the one folder below that has.

    Raises:
        DataError: The folder is missing, empty, or has no known layout.
        SettingsError: The named adapter does not exist.
    """
    if data.folder is None:
        return load_adapter("phantom"), None
    return locate_data_set(data.folder, data.adapter)


def list_data(context: RunContext) -> ListedData:
    """Find the data set, read its listing and select the images of the wanted planes.

    Raises:
        DataError: The folder or the metadata file cannot be used.
        SettingsError: The data contract cannot be used.
    """
    adapter, found = find_data_set(context.config.data)
    root = found or data_root(context)
    if found is not None and found != context.config.data.folder:
        context.console.say(f"the data set lies one folder deeper and is read from {found}")
    listing = adapter.list_images(root)
    selected = select_planes(listing, context.config.data.planes)
    contract = _contract(root, listing, context.config.data)
    unread = find_unread(
        root,
        listing,
        adapter,
        files=(OWN_CONTRACT, NOTE_FILE),
        columns=contract.metadata_columns,
    ).sentences(listing.metadata_file)
    missing = missing_images(root, listing.table)
    convert = context.config.data.convert.over(listing.convert)
    listed = ListedData(root, listing, selected, missing, contract, unread, convert)
    for sentence in unread:
        context.console.warn(sentence)
    for reason, n in listed.not_selected.items():
        if UNKNOWN in reason:
            context.console.warn(f"{n:,} rows are not selected: {reason}")
    _write_identity(listed, context, content_sha256=None)
    return listed


def run(context: RunContext) -> ImageSet:
    """List the data set and decode every selected image once; errors as in the two parts."""
    listed = list_data(context)
    if left_out := left_out_sentence(listed.not_selected):
        context.console.say(left_out)
    return decode_all(listed, context)


def left_out_sentence(not_selected: dict[str, int]) -> str:
    """Count the rows that are not selected, by the reason; empty where all are selected."""
    if not not_selected:
        return ""
    named = [f"{reason} {n:,}" for reason, n in list(not_selected.items())[:_REASONS_SHOWN]]
    if len(not_selected) > _REASONS_SHOWN:
        named.append(f"and {len(not_selected) - _REASONS_SHOWN} more")
    return f"not selected: {sum(not_selected.values()):,} rows ({', '.join(named)})"


def decode_all(listed: ListedData, context: RunContext) -> ImageSet:
    """Decode every selected image once.

    Raises:
        DataError: Levels are written in two ways, listed images are missing and may not be dropped,
            nothing is selected, or an image is not what it must be; all findings are in
            data/findings.json.
    """
    _refuse_variants(listed, context)
    _refuse_missing(listed, context)
    unit = listed.listing.info.split_unit
    if unit != "patient":
        context.console.warn(
            f"this data set names {unit}s, not patients: P4-01 cannot pass, and the gate with it "
            "(exit code 9 at best); everything else is evaluated"
        )
    warm_up()  # start the slow import of the next step while images are decoded
    present = listed.present
    if present.empty:
        told = absence_explained(listed.root, listed.selected)
        raise DataError(
            f"{listed.root}: none of the {len(listed.selected):,} selected images is there; "
            f"{f'{told}; ' if told else ''}complete the folder, or choose other planes with data.planes",
            code="D033",
        )
    generator = load_generator(context.config.model.name)
    size_px = generator.image_size_px(context.config.generator_settings())
    if context.config.data.cache == "auto" and cache_dir() is None:
        context.console.warn(f"decoded images are not kept for the next time: {NO_CACHE}")
    started = time.monotonic()
    root, present = _plain_images(listed, present, context)
    ingested = ingest_images(
        root,
        present,
        size_px=size_px,
        fit=context.config.data.fit,
        n_workers=os.cpu_count() or 1,
        processes=True,
        cache=image_cache(context.config.data),
        progress=lambda done, total: context.console.progress("decoding images", done, total),
    )
    decode_s = time.monotonic() - started
    if ingested.findings:
        raise _unusable(ingested.findings, len(present), context)
    ingested = _with_sources(ingested)
    write_findings((), context)  # record that there were no faults
    if ingested.n_from_cache:
        context.console.say(
            f"{ingested.n_from_cache:,} of {len(present):,} images unchanged since an earlier "
            "decoding, which was used again"
        )
    if names := turned(ingested.table):
        context.console.warn(
            f"{len(names):,} images ask by EXIF to be turned and are used as they are stored "
            f"({', '.join(names[:3])}{', …' if len(names) > 3 else ''}); turn their pixels if they "
            "must be"
        )
    digest = content_digest(ingested.table)
    _write_identity(
        listed, context, content_sha256=digest, ingested=ingested, decode_s=round(decode_s, 3)
    )
    buffer = io.BytesIO()
    ingested.table.to_parquet(buffer, index=False)
    context.store.write_bytes(IMAGE_TABLE, buffer.getvalue())
    return ImageSet(
        root=root,
        source=listed.root,
        info=listed.listing.info,
        metadata_file=listed.listing.metadata_file,
        table=ingested.table,
        metadata=_metadata(listed.listing, ingested.table),
        pixels=ingested.pixels,
        thumbnails=ingested.thumbnails,
        content_sha256=digest,
        contract=listed.contract,
    )


def _unusable(findings: tuple[Finding, ...], n_images: int, context: RunContext) -> DataError:
    """Put findings about images on record; return their error."""
    write_findings(findings, context)
    return DataError(
        f"{len(findings):,} of {n_images:,} images cannot be used; first: {findings[0]}",
        code=findings[0].code,
        findings=findings,
    )


def _plain_images(
    listed: ListedData, present: pd.DataFrame, context: RunContext
) -> tuple[Path, pd.DataFrame]:
    """Return folder and table of plain PNG images: those of the data set, or converted ones.

    Raises:
        DataError: An image cannot be converted; all findings are in data/findings.json.
    """
    if not listed.needs_conversion:
        return listed.root, present
    folder = context.converted_images(listed.root, listed.convert.model_dump(mode="json"))
    with folder_lock(folder.parent, wait_s=_LONGEST_SIMULATION_S):
        remove_others(folder, frozenset(listed.listing.table["image_id"].astype(str)))
        converted = convert_set(
            listed.root,
            present,
            folder,
            listed.convert,
            n_workers=os.cpu_count() or 1,
            progress=lambda done, total: context.console.progress("converting images", done, total),
        )
    if converted.findings:
        raise _unusable(converted.findings, len(present), context)
    ways = Counter(converted.table["conversion"])
    said = "; ".join(f"{n:,} {how}" for how, n in ways.most_common(_REASONS_SHOWN))
    context.console.say(f"{len(present):,} images as 8-bit PNG ({converted.n_new:,} new): {said}")
    return folder, converted.table


def _with_sources(ingested: Ingested) -> Ingested:
    """Add to converted images what their original files say of themselves."""
    table = ingested.table
    if "source_metadata" not in table:
        return ingested
    table = table.assign(
        png_metadata=table["source_metadata"],
        synthetic_mark=table["synthetic_mark"] | table["source_is_synthetic"],
    ).drop(columns=["source_metadata", "source_is_synthetic", "listed_sha256"])
    return replace(ingested, table=table)


def write_findings(findings: tuple[Finding, ...], context: RunContext) -> None:
    """Write every finding to data/findings.json; only some are printed."""
    context.store.write_document(Findings(findings=findings))


def _contract(root: Path, listing: Listing, data: DataConfig) -> DataContract:
    """Return the data set's contract, with the user's own rules if there are any.

    Raises:
        SettingsError: The contract cannot be used, or a file beside the data nearly has its name.
    """
    if data.contract is not None:
        return load_contract(listing.info.name, Path(data.contract).expanduser())
    beside = root / OWN_CONTRACT
    if os.path.lexists(beside):  # also what is no regular file, which reading refuses
        return load_contract(listing.info.name, beside)
    for name in sorted(path.name for path in root.iterdir()):
        if folded(name).replace(".yml", ".yaml") == OWN_CONTRACT:
            raise SettingsError(
                f"{root}: {name!a} would not be read; rename it to {OWN_CONTRACT}, or name it in "
                "data.contract"
            )
    return load_contract(listing.info.name)


def _refuse_variants(listed: ListedData, context: RunContext) -> None:
    """Raise DataError if a column writes one level in two ways that nobody declared as two."""
    findings = level_variants(listed.listing, listed.contract)
    if findings:
        write_findings(findings, context)
        more = f" (and {len(findings) - 1:,} more)" if len(findings) > 1 else ""
        raise DataError(f"{findings[0]}{more}", code=findings[0].code, findings=findings)


def _metadata(listing: Listing, table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the metadata file in the order of the image table."""
    if listing.metadata.empty:
        return pd.DataFrame(index=table.index)
    place = pd.Series(range(len(listing.table)), index=listing.table["image_id"].astype(str))
    rows = place[table["image_id"].astype(str)].to_numpy()
    return listing.metadata.iloc[rows].reset_index(drop=True)


def data_root(context: RunContext) -> Path:
    """Return the data folder; simulate the phantoms first if they are not there yet."""
    data = context.config.data
    if (folder := data.folder) is not None:  # gone where a run is resumed: its caller says so
        return locate_data_set(folder, data.adapter)[1] if folder.is_dir() else folder
    settings = PhantomSettings(
        n_patients=data.phantom.n_patients,
        seed=data.phantom.seed,
        image_height_px=data.phantom.image_height_px,
    )
    root = context.workspace / "data" / f"phantom-{phantom_key(settings)}"
    if not root.exists():
        _simulate(root, settings, context)
    return root


def _simulate(root: Path, settings: PhantomSettings, context: RunContext) -> None:
    """Make the phantoms under a lock: of several runs one makes them, the others wait."""
    with folder_lock(root.parent, wait_s=_LONGEST_SIMULATION_S):
        if root.exists():
            return
        for left in root.parent.glob(f".{root.name}.*.part"):  # by a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        context.console.say(f"simulating {settings.n_patients} phantom patients in {root}")
        started = time.monotonic()
        write_phantoms(
            root,
            settings,
            progress=lambda done, total: context.console.progress("simulating", done, total),
        )
    facts = {"n_patients": settings.n_patients, "duration_s": round(time.monotonic() - started, 3)}
    context.store.journal.append("phantoms simulated", facts)


def _refuse_missing(listed: ListedData, context: RunContext) -> None:
    """Raise DataError if a selected image has no file, unless such images are to be dropped."""
    n_needed = len(listed.selected) - len(listed.present)
    if n_needed == 0 or context.config.data.missing_images == "drop":
        return
    error = missing_images_error(
        listed.root,
        listed.listing.table,
        listed.missing,
        metadata_file=listed.listing.metadata_file,
    )
    write_findings(error.findings, context)
    raise error


def _write_identity(
    listed: ListedData,
    context: RunContext,
    *,
    content_sha256: str | None,
    ingested: Ingested | None = None,
    decode_s: float | None = None,
) -> None:
    info, data, listing = listed.listing.info, context.config.data, listed.listing
    missing = listing.table[listed.missing]
    n_dropped = len(listed.selected) - len(listed.present)
    planes = data.planes if isinstance(data.planes, str) else ", ".join(data.planes)
    if planes == "default":
        planes = f"default ({', '.join(info.default_planes) or 'all'})"
    note = f"{n_dropped:,} selected images have no file" if n_dropped else ""
    ways = Counter(ingested.table["conversion"]) if ingested and listed.needs_conversion else {}
    flow = (
        flow_step("listed", listing.table, f"rows of {listing.metadata_file}"),
        flow_step(
            "selected",
            listed.selected,
            "; ".join(filter(None, (f"planes: {planes}", left_out_sentence(listed.not_selected)))),
        ),
        flow_step("present", listed.present, note),
    )
    identity = DatasetIdentity(
        name=info.name,
        title=info.title,
        version=info.version,
        doi=info.doi,
        licence=info.licence,
        citation=info.citation,
        is_simulated=info.is_simulated,
        split_unit=info.split_unit,
        split_unit_note=info.split_unit_note,
        metadata_file=listing.metadata_file,
        metadata_sha256=listing.metadata_sha256,
        content_sha256=content_sha256,
        pinned_sha256=data.digest,
        n_listed=len(listing.table),
        n_missing=len(missing),
        missing_policy=data.missing_images,
        missing_examples=tuple(missing["path"].astype(str).head(N_EXAMPLES)),
        planes=planes,
        absent_attributes=tuple(
            AbsentAttribute(name=name, consequence=consequence)
            for name, consequence in info.absent_attributes.items()
        ),
        flow=flow,
        notes=info.notes,
        n_decoded=ingested.n_decoded if ingested else 0,
        n_from_cache=ingested.n_from_cache if ingested else 0,
        decode_s=decode_s,
        unread=listed.unread,
        mapping_sha256=listing.mapping_sha256,
        convert=listed.convert.model_dump(mode="json") if listed.needs_conversion else None,
        conversions=dict(sorted(ways.items())),
    )
    context.store.write_document(identity)
