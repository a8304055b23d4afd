"""Packaged files to fill in."""

from importlib import resources


def target_population_template() -> str:
    """A target population with all usual attributes, shares and sources left to fill in (YAML)."""
    folder = resources.files("pipelines") / "configs" / "templates"
    return (folder / "target_population.yaml").read_text(encoding="utf-8")
