"""Content on partitions: their size, what they share, departures from the official split."""

from governance.evidence.documents import SplitRecord
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Bullets,
    Heading,
    Table,
    Text,
    cell,
    cells,
    columns,
    mono,
    strong,
)
from governance.reports.data_evidence import more, units

OFFICIAL_SPLIT_UNUSED = "the official split of the data set was not used"
_SAID_BARELY = {OFFICIAL_SPLIT_UNUSED, "the data set's official split was not used"}
_DROPPED_SHOWN = 20


def partition_blocks(split: SplitRecord | None) -> tuple[Block, ...]:
    """Partitions, what they share, and departures from the official split."""
    if split is None:
        return (Heading("Partitions"), Text("The data was not divided."))
    head = columns(
        ("Partition", 0.31),
        ("Images", 0.13, "right"),
        (units(split.unit), 0.16, "right"),
        ("Digest", 0.40),
    )
    rows = tuple(
        (
            cell(strong(part.partition)),
            cell(formats.count(part.n_images)),
            cell(formats.count(part.n_patients)),
            cell(mono(formats.short(part.sha256))),
        )
        for part in split.partitions
    )
    told = tuple(formats.sentence(deviation) for deviation in split_deviations(split))
    return (
        Heading("Partitions"),
        *_refused(split),
        Text(_split_sentence(split)),
        Table(head, rows),
        Text(
            "What any two partitions share. Every number should be 0: whatever stands on both "
            "sides makes a test look better than it is."
        ),
        _shared(split),
        *((Bullets(told),) if told else ()),
        *_dropped(split),
    )


def _refused(split: SplitRecord) -> tuple[Block, ...]:
    """Why the split does not stand; the tables then show the one that was tried."""
    if not split.refused:
        return ()
    told = Text("This split was refused; the tables show the one that was tried.", "lead")
    return (told, Text(formats.sentence(split.refused)))


def _shared(split: SplitRecord) -> Table:
    head = columns(
        ("Pair of partitions", 0.37),
        (f"{units(split.unit)} in both", 0.19, "right"),
        ("Images with equal pixels in both", 0.22, "right"),
        ("Near-duplicate pairs across", 0.22, "right"),
    )
    pairs = sorted({*split.shared_patients, *split.shared_content, *split.shared_near})
    return Table(
        head,
        tuple(
            cells(
                pair,
                formats.count(split.shared_patients.get(pair)),
                formats.count(split.shared_content.get(pair)),
                formats.count(split.shared_near.get(pair)),
            )
            for pair in pairs
        ),
    )


def _dropped(split: SplitRecord) -> tuple[Block, ...]:
    if not split.dropped:
        return ()
    shown = split.dropped[:_DROPPED_SHOWN]
    note = more(len(split.dropped), len(shown), "data/split.json")
    return (
        Text("Taken out of training, each with its reason:"),
        Bullets(shown),
        *((Text(note, "note"),) if note else ()),
    )


def split_deviations(split: SplitRecord) -> tuple[str, ...]:
    """Departures from the official split, each once, without full stops.

    That the split was not used is said barely and by whoever knows more: then only once.
    """
    told = dict.fromkeys(deviation.strip().rstrip(".") for deviation in split.deviations)
    fuller = [deviation for deviation in told if deviation not in _SAID_BARELY]
    if len(fuller) == len(told) or any(d.startswith(OFFICIAL_SPLIT_UNUSED) for d in fuller):
        return tuple(fuller)
    return (OFFICIAL_SPLIT_UNUSED, *fuller)


def _split_sentence(split: SplitRecord) -> str:
    """Who made the split, by what unit, and how many images it cost."""
    official = "brings an" if split.official_available else "brings no"
    return (
        f"Split {split.source}; the data set {official} official split. Divided by {split.unit}, "
        f"seed {split.seed}. Images taken out of training as copies: "
        f"{formats.count(len(split.dropped))}."
    )
