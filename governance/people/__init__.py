"""Declarations by people: intended use, items, waivers, and when a signature counts."""
