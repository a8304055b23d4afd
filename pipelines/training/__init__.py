"""The confined training process: its parent, its child, and the repeat of its first steps."""
