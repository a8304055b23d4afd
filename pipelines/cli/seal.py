"""Commands on sealed test sets and their ledger: seal status, seal show."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import Json, Run, Workspace, errors

app = typer.Typer(help="The sealed test sets and their ledger.", no_args_is_help=True)


@app.command("status")
def status(
    workspace: Workspace = Path(),
    ledger: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of ledgers, as in seal.ledger_dir.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print every sealing and opening of each data set's held-out test set."""
    with errors(as_json):
        from pipelines.finished_runs import seal as seal_commands

        found = seal_commands.seal_status(workspace, ledger)
        facts = json.dumps(found.facts, indent=1, ensure_ascii=False)
        typer.echo(facts if as_json else found.text)


@app.command("show")
def show(
    run_name: Run,
    image_id: Annotated[str, typer.Argument(metavar="ID", help="Id of a test image.")],
    workspace: Workspace = Path(),
    as_json: Json = False,
) -> None:
    """Prove that one image is among the sealed ones: leaf, audit path, root."""
    with errors(as_json):
        from pipelines.finished_runs.seal import prove_inclusion

        proof = prove_inclusion(run_name, image_id, workspace)
        facts = json.dumps(proof.facts, indent=1, ensure_ascii=False)
        typer.echo(facts if as_json else proof.text)
