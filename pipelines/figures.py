"""Pictures of the run: each step adds its own to one list, in the order of the flow."""

from collections.abc import Sequence

from governance.evidence.documents import Figure, Figures
from governance.evidence.store import EvidenceStore

FIGURES = "figures/figures.json"


def add_figures(figures: Sequence[Figure], store: EvidenceStore) -> None:
    """Put figures, whose files are written, on the list of the run."""
    path = store.run_dir / FIGURES
    before = Figures.model_validate_json(path.read_bytes()).figures if path.exists() else ()
    new = {figure.path for figure in figures}  # drawn again by a resumed run
    kept = tuple(figure for figure in before if figure.path not in new)
    store.write_document(FIGURES, Figures(figures=(*kept, *figures)))
