"""The training loop, updates, guards and resumable states."""
