"""Metrics: pure functions of features and images, each with its interval."""
