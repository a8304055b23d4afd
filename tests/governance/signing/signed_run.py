"""A small run folder with every kind of file, signed or not, for tests of verifiers."""

from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from reportlab.pdfgen.canvas import Canvas

from governance.evidence.manifest import close_evidence
from governance.evidence.store import EvidenceStore
from governance.records.people import SigningRecord
from governance.records.run import RunIdentity
from governance.sealing.ledger import Ledger
from governance.sealing.seal import Leaf, seal_test_set
from governance.signing.keys import RunSigner
from pipelines.steps.s8_report import write_outputs

RUN_ID = "20260304T101112Z-0a1b2c3d"
NOW = datetime(2026, 3, 4, 10, 11, 12, 123456, tzinfo=UTC)
STEPS = ("data", "seal", "train", "evaluate", "report")


def small_pdf() -> bytes:
    """A PDF of one line; the same bytes every time."""
    stream = BytesIO()
    canvas = Canvas(stream, invariant=1)
    canvas.drawString(100, 100, "a report")
    canvas.showPage()
    canvas.save()
    return stream.getvalue()


def make_leaf(number: int) -> Leaf:
    return Leaf(
        id=f"image {number}",
        path=f"Ä {number}.png",
        file_sha256=f"{number}" * 64,
        pixel_sha256="a" * 64,
        patient=f"patient {number}",
        plane="Fetal brain",
        brain_plane=None,
        operator=None,
        machine=None,
        width=8,
        height=6,
    )


def make_store(
    folder: Path, signer: RunSigner | None, steps: tuple[str, ...] = STEPS
) -> EvidenceStore:
    """A run folder whose evidence is not closed."""
    store = EvidenceStore.create(folder, RUN_ID, tool_version="0.1.0")
    identity = RunIdentity(
        run_id=RUN_ID,
        started_utc=NOW,
        tool_version="0.1.0",
        code_commit=None,
        code_clean=None,
        command=("medisynth-gov", "run", "Ärger"),
        preset="smoke",
        generator="dsr-gan",
        seed=1,
        config_sha256="0" * 64,
    )
    store.write_bytes("config.yaml", b"seed: 1\n")
    store.write_document(identity)
    store.write_document(signer.record if signer else SigningRecord())
    if "data" in steps:
        store.write_bytes("data/dataset.json", b"{}\n")
        store.write_bytes("data/split.json", b"{}\n")
    if "seal" in steps:
        seal_test_set(
            [make_leaf(number) for number in range(3)],
            store=store,
            ledger=Ledger(folder / "ledger", "d" * 64),
            data_root=folder,
        )
    if "train" in steps:
        store.write_bytes("checkpoints/last.safetensors", bytes(range(64)))
        store.write_bytes("metrics/training.json", b'{"loss": 1e-07}\n')
    if "evaluate" in steps:
        # Numbers that other writers of JSON put differently: 1e-07, 100.0, 1e+21.
        store.journal.append(
            "opened", {"small": 1e-7, "whole": 100.0, "large": 1e21, "Ä": "\u2028"}
        )
        store.write_bytes("metrics/evaluation.json", b"{}\n")
    return store


def make_signed_run(
    folder: Path, signer: RunSigner | None, steps: tuple[str, ...] = STEPS, n_events: int = 0
) -> Path:
    """A closed run folder with outputs.

    Args:
        folder: Where the run folder is made.
        signer: Key; None leaves it unsigned.
        steps: Steps that it came to.
        n_events: Events of its journal at least.
    """
    store = make_store(folder, signer, steps)
    while store.journal.n_events < n_events - 1:
        store.journal.append("step", {"number": store.journal.n_events, "note": 'é \u0001 "x"'})
    close_evidence(
        store.run_dir,
        run_id=RUN_ID,
        tool_version="0.1.0",
        journal=store.journal,
        previous_run="e" * 64,
        now=NOW,
    )
    outputs = {"model_card.md": b"card\n", "report.pdf": small_pdf()}
    write_outputs(store.run_dir, outputs, signer)
    return store.run_dir
