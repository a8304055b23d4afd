"""Every error code: its class, its meaning, what to do, and the page that lists them.

`python -m governance.records.error_codes docs/errors.md` writes the page.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from governance.records.errors import (
    AnchorError,
    ConfigError,
    DataError,
    DeclarationsError,
    EvidenceError,
    EvidenceTamperedError,
    InterruptedByUser,
    IsolationError,
    LeakageError,
    MachineError,
    MedisynthGovError,
    MetricUndefinedError,
    NotRunError,
    PolicyError,
    ProcessError,
    PromotionError,
    RecordWriteError,
    ResourceError,
    SealError,
    SettingsError,
    SigningKeyError,
    TimeStampError,
    TrackingError,
    TrainingError,
    WeightsError,
)

# Class (which sets the exit code) -> code -> meaning, what to do.
CODES: Mapping[type[MedisynthGovError], Mapping[str, tuple[str, str]]] = {
    MedisynthGovError: {
        "B000": (
            "Medisynth-gov has a fault of its own.",
            "Report it with the file that the message names.",
        ),
    },
    ProcessError: {
        "T900": (
            "The training process ended without a result.",
            "Read the last line of its log in the message, and resume the run.",
        ),
        "T901": (
            "The generator's own code failed, or drew something else than images.",
            "Mend the generator, or report it if it is one of ours.",
        ),
        "T902": (
            "The training process sent something that is no message.",
            "Let the generator's code leave standard output and open descriptors alone, then resume "
            "the run.",
        ),
    },
    SettingsError: {
        "M010": (
            "A setting of a model, a metric, a data contract or a target population is unusable.",
            "Correct the setting that the message names.",
        ),
    },
    ConfigError: {
        "C000": (
            "A key, a value, an option or the name of a run is unusable.",
            "Correct what the message names; docs/configuration.md lists every key.",
        ),
    },
    DeclarationsError: {
        "C010": (
            "The declarations file cannot be read, or entries of it are unusable.",
            "Correct the lines listed under the error; docs/declarations.md shows the form.",
        ),
    },
    PolicyError: {
        "G010": (
            "A policy cannot be read, or a limit is set that may not be set so.",
            "Correct the policy file or `criteria` of the configuration.",
        ),
    },
    AnchorError: {
        "G042": (
            "A key, certificate or digest to compare a run with is none.",
            "Give the file or the whole digest as its holder gave it to you.",
        ),
    },
    DataError: {
        "D000": (
            "Data or a working file made from it is not what it must be.",
            "Do what the message says; it names the file or the table.",
        ),
        "D001": ("There is no such data folder.", "Give the folder of the data set."),
        "D002": ("The data folder is a file.", "Give the folder that holds the data set."),
        "D003": ("The data folder is empty.", "Put the data set there, or give another folder."),
        "D004": (
            "The folder has the layout of no known data set.",
            "Compare it with docs/data_sets.md.",
        ),
        "D005": ("The folder fits several layouts.", "Choose one with --adapter."),
        "D010": (
            "The metadata file is no regular file or cannot be read.",
            "Check file and permissions.",
        ),
        "D011": ("The metadata file is too large for a table.", "Give the right file."),
        "D012": ("The metadata file is empty.", "Restore it from the source."),
        "D013": ("The metadata file is not UTF-8 text.", "Save it again as UTF-8."),
        "D014": (
            "The metadata file starts with a byte-order mark.",
            "Save it as UTF-8 without that mark.",
        ),
        "D015": ("The metadata file holds NUL bytes.", "Download it again."),
        "D016": (
            "A row is no row of the table: other number of fields, or bad quotes.",
            "Mend or remove the row.",
        ),
        "D017": (
            "The metadata file is no text but of another kind: a web page, a pointer or an archive.",
            "Do what the message says, or download the data set again.",
        ),
        "D018": ("The header names a column twice or unusably.", "Correct the header."),
        "D019": (
            "A column is missing.",
            "Restore the column; check which character separates fields.",
        ),
        "D020": ("An image is listed twice.", "Remove one of the two rows."),
        "D021": ("The name of an image is unusable.", "Correct the name in the row."),
        "D022": ("A value is not what its column holds.", "Correct the value."),
        "D023": ("A value holds an invisible or control character.", "Write it as plain text."),
        "D024": ("The table has a header but no rows.", "Restore the file from the source."),
        "D025": (
            "A row and the name of its image name different patients.",
            "Find out which is right, and mend the row.",
        ),
        "D026": (
            "Two values of one column differ only by letter case, blanks or Unicode form.",
            "Write both alike, or declare both as levels in data_contract.yaml.",
        ),
        "D027": (
            "The file dataset.yaml cannot be used, or does not fit its table.",
            "Correct the line that the message names, or make a new one with data init.",
        ),
        "D030": (
            "A listed image is missing.",
            "Complete the folder, or set data.missing_images=drop.",
        ),
        "D031": ("No image shows the default planes.", "Set data.planes."),
        "D032": ("A folder of the data set cannot be listed.", "Check its permissions."),
        "D033": (
            "None of the selected images is there.",
            "Complete the folder, or choose other planes with data.planes.",
        ),
        "D040": (
            "The folder for phantoms is not empty.",
            "Choose a new folder; nothing is overwritten.",
        ),
        "D041": ("The folder for phantoms is a file.", "Choose a new folder."),
        "D050": (
            "The official split is missing, incomplete or has unknown parts.",
            "Set split.source=computed.",
        ),
        "D051": (
            "Too few groups of patients are left for training and tuning.",
            "Select more images.",
        ),
        "D052": (
            "The selected images form fewer than 3 groups of patients.",
            "Select more images.",
        ),
        "D060": ("An image lies outside the data folder.", "Put it into the folder."),
        "D061": (
            "An image is a link, no regular file or cannot be read.",
            "Put the image itself there, and check its permissions.",
        ),
        "D062": ("An image is too large, or has no pixels.", "Leave it out or restore it."),
        "D063": ("An image file is damaged, cut short or empty.", "Restore it from the source."),
        "D064": (
            "An image is no PNG file.",
            "Name its format in data.convert.read, or convert it to 8-bit grey or RGB PNG.",
        ),
        "D065": (
            "An image has another kind of pixels than 8-bit grey or RGB.",
            "Set what data.convert names, or convert it to 8-bit grey or RGB.",
        ),
        "D066": (
            "An image file holds several frames, or not the frame that is named.",
            "Name a column with the number of the frame, or save one frame as PNG.",
        ),
        "D067": (
            "An image has transparent pixels.",
            "Set data.convert.alpha, or save it without transparency.",
        ),
        "D068": (
            "An image has another digest than the metadata file lists.",
            "Restore it from the source.",
        ),
        "D069": (
            "An image takes too long to decode, or ends the process that decodes it.",
            "Restore it from the source, or leave it out.",
        ),
        "D070": (
            "A critical rule of the data contract does not hold for the images, or their "
            "thumbnails do not fit the table.",
            "Mend the data or the contract; data/validation.json lists the values; for "
            "thumbnails, ingest the images again.",
        ),
        "D071": (
            "What one step hands to the next is not what is on record, which is a fault of a step "
            "or an adapter.",
            "Report it; with an adapter of your own, mend it.",
        ),
        "D072": (
            "DICOM files hold what could identify somebody, in their header or burned in.",
            "De-identify the files, or declare what a person has looked at in audit.reviewed.",
        ),
        "D080": ("The training images do not differ from each other.", "Check the images."),
        "D081": (
            "There are too few images to train with.",
            "Give more data or choose another split.",
        ),
        "D082": (
            "The packed images have another size than the generator asks for.",
            "Pack them again at that size.",
        ),
        "D083": (
            "A part of the schedule has too few images of its plane.",
            "Name another plane in the schedule, or give more images of it.",
        ),
        "D084": (
            "There are too many labels to tell the network.",
            'Merge labels, or set conditioning to "none".',
        ),
        "D090": ("The archive is no readable ZIP file.", "Fetch it again."),
        "D091": (
            "A name in the archive leads out of its folder, is too long or cannot be shown.",
            "Do not use this archive; get it from its publisher.",
        ),
        "D092": (
            "The archive holds a link, a special file, encryption or unknown packing.",
            "Get it from its publisher, or unpack it by hand if you trust it.",
        ),
        "D093": (
            "Two members of the archive have one name on some systems.",
            "Get it from its publisher, or unpack it by hand.",
        ),
        "D094": (
            "The archive would unpack to more than the limits allow.",
            "Do not unpack it unless you trust it.",
        ),
        "D095": ("A member of the archive is damaged.", "Fetch the archive again."),
        "D096": (
            "What came is not the published file.",
            "Fetch it again; if it happens again, see whether the publisher changed it.",
        ),
        "D097": (
            "The unpacked files have not the expected layout.",
            "Compare them with docs/data_sets.md.",
        ),
        "D099": (
            "The folder to fetch or unpack into holds something else.",
            "Choose a new folder; nothing is overwritten.",
        ),
        "D101": (
            "The public table of the reproduction audit has not the images of the paper.",
            "Give the table of FETAL_PLANES_DB.",
        ),
        "D102": (
            "A log of the reproduction audit is missing or cannot be read.",
            "Complete the folder of logs, and check permissions.",
        ),
        "D103": (
            "A log of the reproduction audit has another form than expected.",
            "Fetch the logs again.",
        ),
        "D104": (
            "An array holds Python objects, which only pickle can read; it was not read.",
            "Give an array of plain floating-point numbers.",
        ),
        "D105": (
            "A folder of images of the reproduction audit is missing, has no PNG file or holds "
            "one that cannot be read.",
            "Give a folder of readable PNG files.",
        ),
    },
    LeakageError: {
        "L000": (
            "A patient, or a group tied together by duplicates, is on both sides of the split.",
            "Correct the official split, or set split.source=computed.",
        ),
    },
    IsolationError: {
        "G020": (
            "Training could reach or tried to reach what it must not, or nothing shows that it "
            "could not.",
            "Move the data out of what training may read, mend the generator, or see "
            "`medisynth-gov doctor`; docs/isolation.md explains.",
        ),
    },
    WeightsError: {
        "W000": (
            "Weights, a checkpoint or a training state are missing, damaged or others than pinned.",
            "Fetch the weights again, or restore the file.",
        ),
    },
    EvidenceError: {
        "G030": (
            "Evidence of a run is missing, unreadable or contradicts itself.",
            "Restore the run folder from a copy.",
        ),
    },
    EvidenceTamperedError: {
        "G031": (
            "A file is not the one whose digest is on record.",
            "Restore the file, or rerun the step that wrote it.",
        ),
    },
    NotRunError: {
        "G033": (
            "A run has no document that is asked for: the step that writes it did not come to its "
            "end.",
            "Go on with the run, or use another one.",
        ),
    },
    SealError: {
        "G032": (
            "The sealed test set is not what was sealed, or may not be opened.",
            "Restore the run folder and the workspace; docs/seal.md explains.",
        ),
    },
    TrackingError: {
        "S000": (
            "The MLflow store cannot be used or lacks the run.",
            "Mend the store, then `medisynth-gov sync`.",
        ),
    },
    MachineError: {
        "X000": (
            "Room, a permission or a lock is lacking, or the system ended a process.",
            "Do what the message says, then give the same command again or resume the run.",
        ),
    },
    ResourceError: {
        "R000": (
            "Memory, disk space, a network or a device is lacking.",
            "Make room, choose a smaller size or another device, or try again later.",
        ),
        "R001": (
            "There was not enough memory to train.",
            "Take the smaller batch that the message names.",
        ),
    },
    RecordWriteError: {
        "G040": (
            "A record cannot be written.",
            "Check permission and free space, or choose another folder.",
        ),
    },
    SigningKeyError: {
        "G041": (
            "A signing key, its public key or its certificate cannot be read, made or used.",
            "Correct `signing`, or make a key with `medisynth-gov keygen`.",
        ),
    },
    TimeStampError: {
        "G043": (
            "The time-stamp authority gave no usable time-stamp.",
            "Try again with `medisynth-gov timestamp RUN`, or name another authority.",
        ),
    },
    TrainingError: {
        "T000": (
            "Training produced numbers that are not finite, diverged or collapsed.",
            "Lower the learning rates, set precision to fp32, or train on more images.",
        ),
    },
    MetricUndefinedError: {
        "E000": (
            "A metric has no value for these images.",
            "Give at least as many images as the message asks for.",
        ),
    },
    PromotionError: {
        "P010": (
            "The run may not be promoted or published; one that does not verify brings exit "
            "code 5.",
            "Mend what is listed under the error and run anew.",
        ),
    },
    InterruptedByUser: {
        "I000": (
            "You stopped the command; 129, 130 and 143 stand for SIGHUP, SIGINT (Ctrl-C) and "
            "SIGTERM.",
            "Resume the run with the command that was printed.",
        ),
    },
}

_HEAD = """# Error codes

Where something goes wrong, the command line prints `error[CODE]` and a sentence: what, where, expected, found, what to do.
Findings below it name single files, rows or keys, at most 20. This page lists every code by the exit code that it brings.
A run that stopped has its code in `outcome.json` and in the report. The classes are those of `governance.records.errors`, all below
`MedisynthGovError`; the lists are made from them and from `governance/records/error_codes.py`.
"""


def page() -> str:
    """Return the page in Markdown: a table for each branch of the tree, in order of the tree."""
    branches: list[type[MedisynthGovError]]
    branches = [MedisynthGovError, *MedisynthGovError.__subclasses__()]
    return "\n".join([_HEAD, *map(_section, branches)])


def _section(branch: type[MedisynthGovError]) -> str:
    rows = [
        f"| {code} | `{kind.__name__}` | {meaning} | {what_to_do} |"
        for kind, codes in CODES.items()
        if kind is branch or (branch is not MedisynthGovError and issubclass(kind, branch))
        for code, (meaning, what_to_do) in codes.items()
    ]
    about = (branch.__doc__ or "").partition("\n")[0].rstrip(".")
    heading = f"## Exit code {branch.exit_code}: {about[0].lower()}{about[1:]}"
    table = ["| code | class | meaning | what to do |", "|---|---|---|---|", *rows]
    return "\n".join([heading, "", *table, ""])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), "utf-8")
