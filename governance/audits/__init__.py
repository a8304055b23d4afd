"""Checks on the documents of a run, and how their results add up."""

# Importing a module of checks registers them.
from governance.audits import data_checks, metric_checks, model_checks, run_checks

__all__ = ["data_checks", "metric_checks", "model_checks", "run_checks"]
