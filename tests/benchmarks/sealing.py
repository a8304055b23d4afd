"""Seconds to seal, open and verify a test set of published sizes.

    python -m tests.benchmarks.sealing FETAL_PLANES_DB_data.csv FOLDER [--n 12400]

Writes one file of random bytes for each row of the table, as long as a published file of its
machine (0.35 bytes a pixel at the commonest size; what is in a file costs sealing nothing), seals
all of them as one test set, opens it, closes the evidence and verifies the run folder with the
command. The files are read once before, so that all comes from a warm file cache; FOLDER then holds
twice their size. It must be new, and is removed at the end.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from governance.evidence.manifest import close_evidence
from governance.evidence.store import EvidenceStore
from governance.records.run import RunIdentity
from governance.sealing.ledger import Ledger
from governance.sealing.seal import Leaf, SealedTestSet, seal_test_set
from governance.sealing.vault import Vault
from medisynth.data.reading.csv_table import read_strict
from pipelines.steps.s8_report import write_outputs
from tests.benchmarks.published_sizes import SIZES

BYTES_PER_PIXEL = 0.35
RUN = "20260101T000000Z-00000000"


def write_files(table: Path, folder: Path, n: int) -> list[Leaf]:
    folder.mkdir(parents=True)
    leaves = []
    for record in read_strict(table, delimiter=";", required=("Image_name",)).records[:n]:
        row = record.values
        width, height = SIZES.get(row["US_Machine"], SIZES["Other"])
        data = os.urandom(int(BYTES_PER_PIXEL * width * height))
        name = row["Image_name"]
        (folder / f"{name}.png").write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        leaves.append(
            Leaf(
                id=name,
                path=f"{name}.png",
                file_sha256=sha256,
                pixel_sha256=sha256,
                patient=row["Patient_num"],
                plane=row["Plane"],
                brain_plane=row["Brain_plane"],
                operator=row["Operator"],
                machine=row["US_Machine"],
                width=width,
                height=height,
            )
        )
    return leaves


def begin(folder: Path) -> EvidenceStore:
    store = EvidenceStore.create(folder / "runs", RUN, tool_version="0")
    identity = RunIdentity(
        run_id=RUN,
        started_utc=datetime.now(UTC),
        tool_version="0",
        code_commit=None,
        code_clean=None,
        command=("benchmark",),
        preset="none",
        generator="none",
        seed=0,
        config_sha256="0" * 64,
    )
    store.write_document(identity)
    return store


def finish(store: EvidenceStore) -> None:
    close_evidence(
        store.run_dir,
        run_id=RUN,
        tool_version="0",
        journal=store.journal,
        previous_run=None,
        now=datetime.now(UTC),
    )
    write_outputs(store.run_dir, {"report.pdf": b"none"})


def seal(folder: Path, leaves: list[Leaf], store: EvidenceStore) -> SealedTestSet:
    return seal_test_set(
        leaves,
        store=store,
        ledger=Ledger(folder / "ledger", "a" * 64),
        data_root=folder / "data",
        vault=Vault(folder / "vault" / "run.vault", folder / "keys" / "run.key"),
    )


def timed(what: str, started: float) -> float:
    now = time.perf_counter()
    print(f"{what:<44}{now - started:8.2f} s", flush=True)
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=12_400)
    given = parser.parse_args()
    leaves = write_files(given.table, given.folder / "data", given.n)
    n_bytes = sum((given.folder / "data" / leaf.path).stat().st_size for leaf in leaves)
    print(f"{len(leaves):,} files, {n_bytes / 1e9:.2f} GB")
    try:
        store = begin(given.folder)
        for leaf in leaves:
            (given.folder / "data" / leaf.path).read_bytes()
        os.sync()
        at = time.perf_counter()
        sealed = seal(given.folder, leaves, store)
        at = timed("seal: digests, Merkle root, encrypted copy", at)
        sealed.open(
            purpose="benchmark",
            plan_sha256="b" * 64,
            model_sha256="c" * 64,
            read=lambda data, leaf: None,
        )
        at = timed("open: decrypt, compare with the leaves", at)
        finish(store)
        at = timed("close the evidence", at)
        command = [sys.executable, "-m", "pipelines.cli.app", "verify", str(store.run_dir)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        at = timed("verify, the whole command", at)
        script = [sys.executable, "-I", "verify_run.py"]
        subprocess.run(script, check=True, stdout=subprocess.DEVNULL, cwd=store.run_dir)
        timed("verify_run.py, which every run holds", at)
    finally:
        shutil.rmtree(given.folder)


if __name__ == "__main__":
    main()
