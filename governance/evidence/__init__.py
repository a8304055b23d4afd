"""Evidence of a run: event log, writing and reading of its folder, manifest, verifier."""
