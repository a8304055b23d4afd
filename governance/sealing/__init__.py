"""Isolation: the sealed test set, the ledger of its openings, and confinement of training."""
