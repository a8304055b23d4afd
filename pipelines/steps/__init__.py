"""The eight steps of a run, in order."""
