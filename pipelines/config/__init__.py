"""The configuration: its model, the presets and the templates."""
