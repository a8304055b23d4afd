"""Simulated fetal head planes in FETAL_PLANES_DB's layout, marked by a file `phantom.json`."""

from pathlib import Path

from medisynth.data.adapters import DatasetInfo
from medisynth.data.adapters.fetal_planes_db import METADATA_FILE, PHANTOM_FILE, FetalPlanesDb

_NO_PATIENT = "simulated images have no person behind them"

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
        "site": "the simulator has no hospitals: independence of sites cannot be shown",
        "date": "the simulator has no time: a shift over time cannot be shown",
        "gestational age": f"{_NO_PATIENT}: results per gestational age cannot be computed",
        "maternal age": f"{_NO_PATIENT}: results per maternal age cannot be computed",
        "ethnicity": f"{_NO_PATIENT}: results per ethnic group cannot be computed",
        "body mass index": f"{_NO_PATIENT}: results per body mass index cannot be computed",
        "parity": f"{_NO_PATIENT}: results per parity cannot be computed",
        "fetal sex": f"{_NO_PATIENT}: results per fetal sex cannot be computed",
        "findings": "the simulator draws normal anatomy only: abnormal anatomy is not covered",
        "pixel spacing": "sizes in millimetres cannot be checked from the table",
    },
    notes=(
        "No image shows a patient. Results say that the flow works, nothing about real ultrasound.",
        "Planes, machines and operators are settings of the simulator, true by construction.",
    ),
    is_simulated=True,
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
