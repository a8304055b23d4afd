"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Write JSON for machines.")]
Workspace = Annotated[
    Path, typer.Option("--workspace", "-w", help="Folder that holds runs/, mlflow/ and ledger/.")
]
