"""Identity, context, lock, console and software of the run in progress."""
