"""Audits: checks that compute items, and the roll-up of items to principles and gate."""
