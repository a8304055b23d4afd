"""Signing keys, signed statements, the signed PDF and time-stamps."""
