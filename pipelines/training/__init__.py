"""The confined training process, seen from both sides."""
