"""What a run has while it runs: identity, context, lock, console, software."""
