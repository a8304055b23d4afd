"""Where the repository lies, and the kit of real data beside it, which may be absent."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KIT = ROOT.parent / "shared" / "data"
