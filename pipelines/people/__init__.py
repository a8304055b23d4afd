"""Declarations files: template, reading, signing."""
