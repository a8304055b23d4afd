"""The model card: its fields, its text and what is checked before it is published."""
