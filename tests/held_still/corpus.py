"""The stored run folders, by name, and the answers stored about them.

finished        DSR-GAN, unsigned, every gate item passed, fidelity measured with the FID weights
signed          TB-GAN, signed and time-stamped with throw-away keys, every gate item passed
blocked_at_s2   the data break a contract; the run stopped there and still left card and reports
resumed         killed in training after three committed states, then resumed to its end
hostile_names   markup, right-to-left letters, templates and very long words wherever people and
                data may give text

A run is kept as one archive, `runs/<name>.tar.xz`, so that a search of the repository does not find
a thousand files of evidence. `ledger/` holds the ledgers that the runs wrote to, `signing_key.pub`
the key that signed one of them, `authority.pem` the authority that time-stamped it, `runs.json` the
id of each run. To look at one: tar xf tests/held_still/runs/finished.tar.xz
"""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ANSWERS = HERE / "answers"
PUBLIC_KEY, AUTHORITY = HERE / "signing_key.pub", HERE / "authority.pem"
OUTPUTS = ("model_card.md", "model_card.json", "report.pdf", "report.html")
NAMES = ("finished", "signed", "blocked_at_s2", "resumed", "hostile_names")


class Corpus:
    """The stored runs, unpacked into one workspace with their ledgers."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.ids: dict[str, str] = json.loads((HERE / "runs.json").read_bytes())
        shutil.copytree(HERE / "ledger", workspace / "ledger")
        for name in NAMES:
            with tarfile.open(HERE / "runs" / f"{name}.tar.xz") as archive:
                archive.extractall(workspace / "runs", filter="data")

    def run(self, name: str) -> Path:
        """Folder of a run, to be read and not written to."""
        return self.workspace / "runs" / self.ids[name]

    def copy(self, name: str, workspace: Path) -> Path:
        """A copy of a run, with the ledgers, in a workspace of its own."""
        shutil.copytree(self.workspace / "ledger", workspace / "ledger")
        return Path(shutil.copytree(self.run(name), workspace / "runs" / self.ids[name]))


def stored(answer: str) -> Any:
    """What is stored under a name, e.g. "verify"; `tests.held_still.renew` writes it."""
    return json.loads((ANSWERS / f"{answer}.json").read_bytes())
