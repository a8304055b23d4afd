"""Compare a finished run with its records, even years later."""
