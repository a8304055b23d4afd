"""How much of each class rests on few patients."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from medisynth.data.coverage import ALL
from medisynth.data.patient_levels import coded, image_counts_of, patient_codes

CLASS_ATTRIBUTES = ("plane", "brain_plane")


@dataclass(frozen=True)
class Concentration:
    """How much of one class rests on few patients.

    Attributes:
        attribute: "all", "plane" or "brain_plane".
        level: Level; "all" for the whole table.
        n_patients: Patients with such images.
        n_images: Such images.
        largest_patient: Patient with most of them; the first by name where several have as many.
        largest_share: That patient's share of the images, 0 to 1.
        effective_patients: Inverse Simpson index of images by patient, 1 to n_patients: as many
            patients with equally many images each would be as concentrated.
    """

    attribute: str
    level: str
    n_patients: int
    n_images: int
    largest_patient: str
    largest_share: float
    effective_patients: float


def concentration(table: pd.DataFrame) -> tuple[Concentration, ...]:
    """Concentration of the whole table, of each plane and of each brain plane.

    Args:
        table: Rows with patient_id, plane and brain_plane.

    Returns:
        The whole table first, then levels by name; images without a value are in the first only.
        Empty for a table without rows.

    Source:
        Hill 1973, doi:10.2307/1934352 (effective number of order 2).
    """
    patients = patient_codes(table)
    n_patients = len(patients.names)
    if not n_patients:
        return ()
    whole = np.bincount(patients.codes, minlength=n_patients).astype(np.float64)
    found = [_one(ALL, ALL, whole, patients.names)]
    for attribute in CLASS_ATTRIBUTES:
        if attribute not in table:
            continue
        levels = coded(table[attribute])
        known = levels.codes >= 0
        counts = image_counts_of(
            patients.codes[known], levels.codes[known], n_patients, len(levels.names)
        )
        found += [
            _one(attribute, level, counts[:, place], patients.names)
            for place, level in enumerate(levels.names)
        ]
    return tuple(found)


def _one(
    attribute: str, level: str, images: np.ndarray, patients: tuple[str, ...]
) -> Concentration:
    total, largest = float(images.sum()), int(images.argmax())
    return Concentration(
        attribute=attribute,
        level=level,
        n_patients=int((images > 0).sum()),
        n_images=int(total),
        largest_patient=patients[largest],
        largest_share=float(images[largest]) / total,
        effective_patients=total**2 / float(images @ images),
    )
