"""Policies: what people review, as data."""
