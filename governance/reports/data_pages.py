"""Content of the data section: six parts, four of them in the words of FDA's DataCard."""

from governance.evidence.documents import DatasetIdentity, FlowStep
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Bullets,
    Cell,
    Facts,
    Heading,
    Section,
    Table,
    Text,
    cell,
    cells,
    columns,
    mono,
    small,
    strong,
)
from governance.reports.completeness_pages import completeness_blocks
from governance.reports.consistency_pages import consistency_blocks
from governance.reports.content_pages import content_blocks
from governance.reports.correctness_pages import correctness_blocks
from governance.reports.coverage_pages import coverage_blocks
from governance.reports.data_evidence import DataEvidence, more, units
from governance.reports.partition_pages import partition_blocks

_LEVELS_SHOWN = 40
_READING = (
    "Six parts say what is known of the data: which images went in and which were lost "
    "(identity and flow); whether what is recorded is right (correctness); what is not recorded "
    "(completeness); who is in the data (coverage); whether its parts fit together (consistency); "
    "and what stands in the pictures besides anatomy (image content). Unknown is said to be "
    "unknown; it is never counted as good."
)


def data_section(evidence: DataEvidence) -> Section:
    """What data went in and what is known of it."""
    return Section("data", "3", "Data", blocks=(Text(_READING),), sections=data_parts(evidence, 3))


def data_parts(evidence: DataEvidence, number: int | None = None) -> tuple[Section, ...]:
    """The six parts: children of section `number`, or sections of their own from 2 on."""
    parts = (
        ("identity", "Identity and flow", _identity_blocks(evidence)),
        ("correctness", "Correctness", correctness_blocks(evidence)),
        ("completeness", "Completeness", completeness_blocks(evidence)),
        ("coverage", "Coverage", coverage_blocks(evidence)),
        ("consistency", "Consistency", consistency_blocks(evidence)),
        ("content", "Image content", content_blocks(evidence)),
    )
    return tuple(
        Section(
            f"data-{key}", f"{number}.{place}" if number else str(place + 1), title, blocks=blocks
        )
        for place, (key, title, blocks) in enumerate(parts, start=1)
    )


def _identity_blocks(evidence: DataEvidence) -> tuple[Block, ...]:
    data = evidence.dataset
    if data is None:
        return (Text("The data set was not read."), *partition_blocks(evidence.split))
    notes = (Bullets(data.notes),) if data.notes else ()
    steps = (
        *data.flow,
        *((evidence.split.flow,) if evidence.split and evidence.split.flow else ()),
    )
    return (
        Facts(dataset_rows(data)),
        *notes,
        *_flow(data, steps),
        *_flow_by_level(steps, evidence.unit),
        *partition_blocks(evidence.split),
    )


def dataset_rows(data: DatasetIdentity) -> tuple[tuple[str, Cell], ...]:
    """Names and values that identify a data set."""
    kind = "simulated; no patient is behind any image" if data.is_simulated else "patient images"
    pinned = {
        True: "equal to the digest pinned in the configuration",
        False: "differs from the digest pinned in the configuration",
    }
    state = (
        pinned[data.pinned_sha256 == data.content_sha256]
        if data.pinned_sha256
        else "not pinned in the configuration"
    )
    read = (("Images read", cell(_decoded(data))),) if data.n_decoded or data.n_from_cache else ()
    return (
        ("Data set", cell(f"{data.title} ({data.name})")),
        ("Version", cell(data.version or "the publisher gives none")),
        ("DOI", cell(data.doi or "none")),
        ("Licence", cell(data.licence or formats.NOT_AVAILABLE)),
        ("Citation", cell(data.citation or formats.NOT_AVAILABLE)),
        ("Kind", cell(kind)),
        ("Planes selected", cell(data.planes or "all")),
        ("Unit never divided", cell(data.split_unit, small(data.split_unit_note))),
        ("Metadata file", cell(data.metadata_file, mono(data.metadata_sha256))),
        ("Content digest", cell(mono(data.content_sha256 or formats.NOT_AVAILABLE), small(state))),
        *read,
    )


def _decoded(data: DatasetIdentity) -> str:
    return (
        f"{formats.counted(data.n_decoded, 'file')} decoded in this run; "
        f"{formats.count(data.n_from_cache)} unchanged since an earlier run, whose numbers were "
        "used again"
    )


def _flow(data: DatasetIdentity, steps: tuple[FlowStep, ...]) -> tuple[Block, ...]:
    rows = []
    before: int | None = None
    for step in steps:
        lost = "" if before is None else formats.count(step.n_images - before)
        rows.append(
            (
                cell(strong(step.step)),
                *cells(formats.count(step.n_images), lost, formats.count(step.n_patients)),
                cell(step.note),
            )
        )
        before = step.n_images
    head = columns(
        ("Step", 0.25),
        ("Images", 0.12, "right"),
        ("Change", 0.12, "right"),
        (units(data.split_unit), 0.17, "right"),
        ("Note", 0.34),
    )
    text = Text(
        "Images left after each step, from the publisher's list to the images used. Look for large "
        "losses: images are seldom lost at random, so who is left may differ from who was listed."
    )
    blocks: list[Block] = [Heading("Flow of images"), text, Table(head, tuple(rows))]
    if data.n_missing:
        blocks.append(Text(missing_sentence(data), "note"))
    return tuple(blocks)


def _flow_by_level(steps: tuple[FlowStep, ...], unit: str) -> tuple[Block, ...]:
    """What each step left of each level, with the share kept of the first step's images."""
    steps = tuple(step for step in steps if step.levels)
    if not steps:
        return ()
    found = [{(e.attribute, e.level): e for e in step.levels} for step in steps]
    names = list(dict.fromkeys(key for levels in found for key in levels))
    share = 0.54 / len(steps)
    head = columns(
        ("Level", 0.34), *((s.step, share, "right") for s in steps), ("Kept", 0.12, "right")
    )
    rows = []
    for attribute, level in names[:_LEVELS_SHOWN]:
        entries = [levels.get((attribute, level)) for levels in found]
        images = [entry.n_images if entry else 0 for entry in entries]
        rows.append(
            (
                cell(f"{attribute}: {level}"),
                *(
                    cell(f"{formats.count(e.n_images)} / {formats.count(e.n_patients)}")
                    if e
                    else cell("0 / 0")
                    for e in entries
                ),
                cell(formats.percent(images[-1], images[0])),
            )
        )
    text = Text(
        f"The same by subgroup, as images / {unit}s, and the share of images kept. The images of "
        "one attribute's levels add up to the step. Look for a level that keeps much less than "
        "the others: the data then says less about it than the publisher's list does."
    )
    note = more(len(names), len(rows), "data/dataset.json")
    return (Heading("Flow by subgroup"), text, Table(head, tuple(rows), note))


def missing_sentence(data: DatasetIdentity) -> str:
    """How many listed images have no file, and what followed.

    The count is over the whole listing. Where missing images are errors, a run that came to know
    the content of its images had selected none of those without a file.
    """
    n = f"{formats.count(data.n_missing)} of {formats.count(data.n_listed)} listed images"
    if data.missing_policy == "drop":
        return f"{n} have no file and were dropped, as the configuration asks."
    if data.content_sha256 is not None:
        return f"{n} have no file; none of them was selected."
    return f"{n} are missing."
