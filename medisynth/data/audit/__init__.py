"""Audit of a data set: coverage, confounding, quality, shift, labels, demographics."""
