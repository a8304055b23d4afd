"""The checks on the documents of a run, one module for each GMLP principle."""

# Importing a module of checks registers them.
from governance.checks import (
    p1_intended_use,
    p2_software,
    p3_consistency,
    p3_representation,
    p4_independence,
    p5_reference,
    p6_design,
    p6_images,
    p7_human_team,
    p8_testing,
    p9_information,
    p10_monitoring,
    trace,
)

__all__ = [
    "p1_intended_use",
    "p2_software",
    "p3_consistency",
    "p3_representation",
    "p4_independence",
    "p5_reference",
    "p6_design",
    "p6_images",
    "p7_human_team",
    "p8_testing",
    "p9_information",
    "p10_monitoring",
    "trace",
]
