"""Real images laid out for an assessment: one table, images by their role, facts of their source."""

import json
from pathlib import Path

from governance.records.base import TEST, TRAINING
from governance.records.errors import DataError
from medisynth.data.adapters import DatasetInfo, Listing
from medisynth.data.adapters.layout import KnownTable
from medisynth.data.adapters.listing_table import listing_table
from medisynth.data.reading.csv_table import filled_fault, name_fault, read_strict

TABLE, FACTS = "assessed_images.csv", "assessed_source.json"
REAL_FOLDER, TRAINING_FOLDER = "real", "training"
COLUMNS = (
    *("image", "path", "patient", "plane", "brain_plane", "operator", "machine", "site"),
    "partition",
)
PARTITIONS = {"training": TRAINING, "real": TEST, "": None}


class Assessed:
    """Adapter of the folder that `medisynth-gov assess` lays out in the workspace."""

    name = "assessed"
    tables = (KnownTable(TABLE, ",", COLUMNS),)
    companions = (FACTS,)

    def detects(self, root: Path) -> bool:
        """Whether the table of an assessment is there."""
        return (root / TABLE).is_file()

    def list_images(self, root: Path) -> Listing:
        """List the images of the table; opens no image.

        Raises:
            DataError: Table or facts are unreadable or malformed.
        """
        metadata = read_strict(root / TABLE, delimiter=",", required=COLUMNS)
        metadata.check("image", name_fault, code="D021")
        metadata.check("patient", filled_fault)
        metadata.check_unique("image")
        metadata.check(
            "partition",
            lambda value: None if value in PARTITIONS else "expected training, real or nothing",
        )
        metadata.findings.raise_if_any()
        values = [record.values for record in metadata.records]
        table = listing_table(
            {
                "image_id": [v["image"] for v in values],
                "path": [v["path"] for v in values],
                "patient_id": [v["patient"] for v in values],
                **{
                    name: [v[name] or None for v in values]
                    for name in ("plane", "brain_plane", "operator", "machine", "site")
                },
                "official_partition": [PARTITIONS[v["partition"]] for v in values],
                "row": [record.line for record in metadata.records],
            }
        )
        return Listing(_info(root), table, TABLE, metadata.sha256, metadata.as_text())


def _info(root: Path) -> DatasetInfo:
    try:
        facts = json.loads((root / FACTS).read_bytes())
        facts["notes"] = tuple(facts["notes"])
        return DatasetInfo(name="assessed", default_planes=(), **facts)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{root / FACTS}: the facts of an assessment cannot be read ({error}); assess again",
            code="D010",
        ) from error
