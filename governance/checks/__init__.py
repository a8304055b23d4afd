"""Checks on the documents of a run, and how their results add up."""

# Importing a module of checks registers them.
from governance.checks import (
    consistency_checks,
    declaration_checks,
    design_checks,
    independence_checks,
    information_checks,
    metric_checks,
    model_checks,
    monitoring_checks,
    reference_checks,
    representation_checks,
    run_checks,
    selftest_checks,
    software_checks,
    testing_checks,
    trace,
    validation_checks,
)

__all__ = [
    "consistency_checks",
    "declaration_checks",
    "design_checks",
    "independence_checks",
    "information_checks",
    "metric_checks",
    "model_checks",
    "monitoring_checks",
    "reference_checks",
    "representation_checks",
    "run_checks",
    "selftest_checks",
    "software_checks",
    "testing_checks",
    "trace",
    "validation_checks",
]
