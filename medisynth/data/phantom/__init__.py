"""Phantoms: simulated fetal head planes in the layout of FETAL_PLANES_DB; no patient is involved.

settings       the user's choices, and their digest
cohort         who the patients are, partition, scanner, operator and planes
anatomy        one head in its own frame
geometry       positions of probe, head, beams and image frame
profiles       differences between scanners and between operators; effect of body mass
acquisition    beams, speckle, attenuation, compression, sector
overlay        burned-in marks, PNG encoding
planted_leaks  faults planted on purpose
writer         the folder, whole or not at all
"""

from medisynth.data.phantom.settings import (
    BRAIN_PLANES,
    IMBALANCES,
    LEAKS,
    MACHINES,
    OPERATORS,
    SIMULATOR_VERSION,
    PhantomReport,
    PhantomSettings,
    PlantedLeak,
    phantom_key,
)
from medisynth.data.phantom.writer import (
    METADATA_FILE,
    plant_in_copy,
    simulate_image,
    write_phantoms,
)

__all__ = [
    "BRAIN_PLANES",
    "IMBALANCES",
    "LEAKS",
    "MACHINES",
    "METADATA_FILE",
    "OPERATORS",
    "SIMULATOR_VERSION",
    "PhantomReport",
    "PhantomSettings",
    "PlantedLeak",
    "phantom_key",
    "plant_in_copy",
    "simulate_image",
    "write_phantoms",
]
