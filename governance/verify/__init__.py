"""Comparing a finished run with its record, years later."""
