"""Policies, checks, evidence, seals and reports that govern any image generator."""
