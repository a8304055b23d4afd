"""Simulated fetal head planes in FETAL_PLANES_DB's layout, marked by a file `phantom.json`."""

from pathlib import Path

import pandas as pd

import medisynth.data.phantom
from governance.records.errors import DataError
from medisynth.data.adapters import DatasetInfo, Listing
from medisynth.data.adapters.fetal_planes_db import METADATA_FILE, PHANTOM_FILE, FetalPlanesDb
from medisynth.data.phantom.cohort import PERSON_COLUMNS

_SITE_COLUMN = "Site"

INFO = DatasetInfo(
    name="phantom",
    title="Simulated fetal head phantoms",
    version="",
    doi="",
    licence="Apache-2.0, as the simulator",
    citation="Written by `medisynth-gov data phantom`; no publication.",
    split_unit="patient",
    split_unit_note="A simulated patient: images of one patient share one simulated anatomy.",
    absent_attributes={
        "date": "the simulator has no time: a shift over time cannot be shown",
        "parity": "the simulator has no parity: results per parity cannot be computed",
        "findings": "the simulator draws normal anatomy only: abnormal anatomy is not covered",
        "pixel spacing": "sizes in millimetres cannot be checked from the table",
    },
    notes=(
        "No image shows a patient. Results say that the flow works, nothing about real ultrasound.",
        "Planes, machines and operators are settings of the simulator, true by construction.",
        "Site, country, age, body mass, sex and group belong to simulated patients. Gestational age "
        "changes head size and anatomy, body mass changes depth, gain and shadowing; the others "
        "change nothing in an image.",
    ),
    is_simulated=True,
    target_population=Path(medisynth.data.phantom.__file__).with_name("target_population.yaml"),
)


class Phantom(FetalPlanesDb):
    """Adapter of a phantom folder: FETAL_PLANES_DB's reader with its own facts."""

    name = "phantom"

    def detects(self, root: Path) -> bool:
        """Whether the layout is FETAL_PLANES_DB's and `phantom.json` says it is simulated."""
        return (root / METADATA_FILE).is_file() and (root / PHANTOM_FILE).is_file()

    def info(self, root: Path) -> DatasetInfo:
        """Facts about the phantoms."""
        return INFO

    def list_images(self, root: Path) -> Listing:
        """Read the metadata file as the published one; sites, which only phantoms have, besides.

        Raises:
            DataError: The metadata file is unreadable or malformed, all findings are attached; or the
                phantoms are of an older simulator, without patients.
        """
        listing = super().list_images(root)
        lacking = [name for name in PERSON_COLUMNS if name not in listing.metadata]
        if lacking:
            raise DataError(
                f"{root / METADATA_FILE}: no column {lacking[0]!r}, which phantoms have since "
                "simulator 1.1; simulate them anew into another folder (medisynth-gov data phantom)",
                code="D019",
            )
        sites = listing.metadata[_SITE_COLUMN].replace("", pd.NA)
        listing.table["site"] = sites.astype("string")
        return listing
