"""Images that occur more than once in the data."""

from collections.abc import Mapping

from governance.records.duplicates import DuplicateAudit, DuplicatePair, SimilarityNull
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Bullets,
    Cell,
    Facts,
    Gallery,
    Heading,
    Histogram,
    Picture,
    Table,
    Text,
    Tile,
    cell,
    columns,
    mono,
    small,
    strong,
)
from governance.reports.evidence import Evidence, PictureFile
from governance.reports.sections.data_tables import beyond, more

_PAIRS_SHOWN = 40
_DISTINCT_SHOWN = 20


def duplicate_blocks(evidence: Evidence) -> tuple[Block, ...]:
    """Show the search, the similarity between different patients, and every pair found."""
    audit, unit = evidence.get(DuplicateAudit), evidence.unit
    heading = Heading("Images that occur more than once")
    if audit is None:
        return (heading, Text("Duplicates were not looked for."))
    text = Text(
        "Pairs of images with the same picture. Look for pairs across partitions, which make a "
        f"test look better than it is, and across {unit}s, which show that the same {unit} may "
        "count twice."
    )
    return (
        heading,
        text,
        Facts(duplicate_rows(audit, unit)),
        *_null(audit, unit),
        *_calibration(audit),
        *_pairs(audit, unit),
        *_gallery(audit, unit, evidence.pictures),
        *_distinct(audit),
    )


def duplicate_rows(audit: DuplicateAudit, unit: str) -> tuple[tuple[str, Cell], ...]:
    """Return names and values of the search for duplicates."""
    exact = audit.n_pairs - audit.n_near
    return (
        ("Images searched", cell(formats.count(audit.n_images))),
        (
            "Pairs found",
            cell(
                strong(formats.count(audit.n_pairs)),
                small(
                    f"{formats.count(exact)} equal, {formats.count(audit.n_near)} near-duplicate"
                ),
            ),
        ),
        (f"Pairs across {unit}s", cell(formats.count(audit.n_pairs_across_patients))),
        ("Pairs across partitions", cell(formats.count(audit.n_pairs_across_partitions))),
        (f"Groups of {unit}s tied together", cell(formats.count(audit.n_groups))),
        ("Method", cell(audit.method)),
    )


def _null(audit: DuplicateAudit, unit: str) -> tuple[Block, ...]:
    null = audit.null
    if null is None or not null.nearest:
        told = f"How alike images of different {unit}s are was not measured."
        return (Text(told, "note"),)
    found = tuple(p.similarity for p in audit.pairs if p.similarity is not None)
    return (Text(_null_sentence(null, unit)), similarity_chart(null, found, unit))


def _null_sentence(null: SimilarityNull, unit: str) -> str:
    highest = (
        f"; the most alike pair below it has {null.highest:.3f}" if null.highest is not None else ""
    )
    return (
        f"How alike images of different {unit}s are, over {formats.counted(null.n_pairs, 'pair')}: "
        f"for each image the most similar image of another {unit}. A pair counts as a "
        f"near-duplicate from {null.threshold:.3f} on{highest}. The threshold is good when it lies "
        "clear of the outline. Pairs far right of the curve are certain copies."
    )


def similarity_chart(null: SimilarityNull, found: tuple[float, ...], unit: str) -> Histogram:
    """Chart the similarity between different patients, the threshold and confirmed pairs."""
    return Histogram(
        title=f"Similarity to the most similar image of another {unit}",
        x_label="similarity (correlation after alignment; 1 is the same picture)",
        y_label="share of images (%)",
        reference=(f"images of different {unit}s", null.nearest),
        subject=(f"confirmed near-duplicates ({formats.counted(len(found), 'pair')})", found),
        threshold=(f"threshold {null.threshold:.3f}", null.threshold),
        as_strokes=True,
    )


def _calibration(audit: DuplicateAudit) -> tuple[Block, ...]:
    """Show what the search finds of copies of these images that were changed in known ways."""
    if not audit.calibration:
        return ()
    text = Text(
        "What this search can find in these images: some of them were copied and changed, and the "
        "search was asked to pair the copies with their originals. Copies of a kind that it misses "
        "here may lie in the data unseen."
    )
    head = columns(("Copies", 0.60), ("Planted", 0.20, "right"), ("Found", 0.20, "right"))
    rows = tuple(
        (
            cell(one.kind),
            cell(formats.count(one.n_planted)),
            cell(
                formats.count(one.n_found)
                if one.n_found == one.n_planted
                else beyond(formats.count(one.n_found))
            ),
        )
        for one in audit.calibration
    )
    return (text, Table(head, rows))


def _pairs(audit: DuplicateAudit, unit: str) -> tuple[Block, ...]:
    if not audit.pairs:
        return (Text("No pair was found."),)
    shown = audit.pairs[:_PAIRS_SHOWN]
    head = columns(("Kind", 0.20), ("Image", 0.40), ("Same as", 0.40))
    rows = tuple(
        (
            cell(strong(pair.kind), *(small(text) for text in _how(pair))),
            cell(pair.left_id, small(_who(unit, pair.left_patient, pair.left_partition))),
            cell(pair.right_id, small(_who(unit, pair.right_patient, pair.right_partition))),
        )
        for pair in shown
    )
    text = Text(f"Every pair with both identities, pairs across {unit}s first.")
    return (text, Table(head, rows, more(audit.n_pairs, len(shown), DuplicateAudit.PATH)))


def _how(pair: DuplicatePair) -> tuple[str, ...]:
    """Return similarity and transform of a pair, where they are informative."""
    similarity = "" if pair.similarity is None else f"similarity {pair.similarity:.3f}"
    return (similarity, "" if pair.transform == "as is" else pair.transform)


def _who(unit: str, name: str, partition: str | None) -> str:
    return f"{unit} {name}{f', {partition}' if partition else ''}"


def duplicate_figures(audit: DuplicateAudit | None) -> frozenset[str]:
    """Return the paths of the pictures that belong to pairs."""
    return frozenset(pair.figure for pair in audit.pairs if pair.figure) if audit else frozenset()


def _gallery(
    audit: DuplicateAudit, unit: str, pictures: Mapping[str, PictureFile]
) -> tuple[Block, ...]:
    drawn = [pair for pair in audit.pairs if pair.figure in pictures]
    if not drawn:
        return ()
    tiles = tuple(_tile(pair, pictures[pair.figure], unit) for pair in drawn)
    text = Text("The pictures, left and right image side by side, so that anybody can judge.")
    return (text, Gallery(tiles))


def _tile(pair: DuplicatePair, file: PictureFile, unit: str) -> Tile:
    how = ", ".join(part for part in (pair.kind, *_how(pair)) if part)
    picture = Picture(
        f"{pair.left_id} and {pair.right_id}",
        how,
        pair.figure,
        file.data,
        file.media_type,
        file.width_px,
        file.height_px,
    )
    return Tile(
        picture,
        cell(
            strong(how),
            f"left: {pair.left_id}",
            small(_who(unit, pair.left_patient, pair.left_partition)),
            f"right: {pair.right_id}",
            small(_who(unit, pair.right_patient, pair.right_partition)),
            mono(pair.figure),
        ),
    )


def _distinct(audit: DuplicateAudit) -> tuple[Block, ...]:
    if not audit.distinct:
        return ()
    shown = audit.distinct[:_DISTINCT_SHOWN]
    note = more(len(audit.distinct), len(shown), DuplicateAudit.PATH)
    return (
        Text("Pairs that a person declared to be different images; they are not counted above:"),
        Bullets(shown),
        *((Text(note, "note"),) if note else ()),
    )
