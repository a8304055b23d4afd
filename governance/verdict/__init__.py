"""From items to principles, gate and exit code, and the sentence that says it."""
