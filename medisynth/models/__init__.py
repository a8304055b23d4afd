"""Generators of synthetic images, found by name in the registry."""
