"""Commands on signatures and verification: verify, timestamp, keygen, sign-declaration."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import Json, Run, RunsIn, errors

_MISMATCH = 5


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(verify)
    app.command()(timestamp)
    app.command()(keygen)
    app.command("sign-declaration")(sign)


def verify(
    run_name: Run,
    key: Annotated[
        Path | None, typer.Option(help="Public key that must have signed the run.")
    ] = None,
    head: Annotated[
        str | None, typer.Option(metavar="HEX", help="Journal head, as kept elsewhere.")
    ] = None,
    evidence_root: Annotated[
        str | None, typer.Option("--root", metavar="HEX", help="Evidence root, as kept elsewhere.")
    ] = None,
    require_signature: Annotated[
        bool, typer.Option("--require-signature", help="An unsigned run fails.")
    ] = False,
    tsa_certificate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Time-stamp authority that must have stamped the run."),
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of ledgers; none is the run's own.")
    ] = None,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Compare with MLflow, too; exit 6 when it is away.")
    ] = False,
    workspace: RunsIn = None,
    as_json: Json = False,
) -> None:
    """Recompute digests, chain and roots, check signatures; exit 5 names what does not fit."""
    with errors(as_json):
        from governance.verify.signatures import read_anchors
        from pipelines.finished_runs.find import named_folder
        from pipelines.finished_runs.verify import verify_all

        anchors = read_anchors(
            key=key,
            head=head,
            root=evidence_root,
            require_signature=require_signature,
            tsa_certificate=tsa_certificate,
        )
        found = verify_all(
            named_folder(run_name, workspace), anchors, ledger_dir=ledger, with_mirror=mirror
        )
    if as_json:
        typer.echo(json.dumps(found.facts, indent=1))
    else:
        if found.faults:
            n = len(found.faults)
            typer.echo(f"NOT VERIFIED: {n:,} {'fault' if n == 1 else 'faults'}", err=True)
        for fault in found.faults:
            typer.echo(f"error[G031] {fault}", err=True)
        if not found.faults:
            typer.echo(found.text)
    raise typer.Exit(_MISMATCH if found.faults else 0)


def timestamp(
    run_name: Run,
    url: Annotated[
        str | None, typer.Option(help="Time-stamp authority; none is the run's own.")
    ] = None,
    tsa_certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate to check its answer with.")
    ] = None,
    workspace: RunsIn = None,
) -> None:
    """Ask a time-stamp authority (RFC 3161) when this run's manifest existed; exit 7 if away."""
    with errors(False):
        from pipelines.current_run.keys import stamp_later
        from pipelines.finished_runs.find import named_folder

        run_dir = named_folder(run_name, workspace)
        authority = stamp_later(run_dir, url, tsa_certificate)
        typer.echo(f"{run_dir / 'manifest.tsr'}: time-stamp by {authority}")


def keygen(
    out: Annotated[
        Path | None, typer.Option(help="Folder; none is your configuration folder.")
    ] = None,
) -> None:
    """Make an Ed25519 key that signs runs; nothing is overwritten."""
    with errors(False):
        from pipelines.current_run.keys import make_keys

        _, words = make_keys(out)
        typer.echo(words)


def sign(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Declarations file.")],
    item_id: Annotated[str, typer.Option("--id", help="Declared or waived item, e.g. P1-H1.")],
    key: Annotated[str, typer.Option(help="Your private key, as keygen makes it.")],
) -> None:
    """Sign one entry of a declarations file with your own key; a later change voids it."""
    with errors(False):
        from pipelines.people.sign import sign_declaration

        key_id = sign_declaration(file, item_id, key)
        typer.echo(f"{file}: {item_id} signed by key id {key_id}, identity not vouched for")
