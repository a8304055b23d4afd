"""The command `selftest`: plant faults, and see whether the guards catch them."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import Json, errors


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(selftest)


def selftest(
    non_interference: Annotated[
        bool,
        typer.Option(
            "--non-interference",
            help="Instead: replace test pixels by noise; training must give the same bits. Exit 4 "
            "when it does not.",
        ),
    ] = False,
    seeds: Annotated[
        int, typer.Option(min=1, help="With --non-interference: seeds a generator.")
    ] = 3,
    model: Annotated[
        list[str] | None,
        typer.Option(help="With --non-interference: generator; none is dsr-gan and tb-gan."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the record (JSON).")] = None,
    as_json: Json = False,
) -> None:
    """Plant faults on purpose and see that the guards catch each; exit 4 or 5 when one does not."""
    with errors(as_json):
        if non_interference:
            raise typer.Exit(_non_interference(seeds, model, out, as_json))
        raise typer.Exit(_planted_faults(out, as_json))


def _non_interference(seeds: int, models: list[str] | None, out: Path | None, as_json: bool) -> int:
    """Compare runs on test images and on noise and print the table; return the exit code."""
    from pipelines.current_run.console import Console
    from pipelines.selftest.non_interference import MODELS, prove, write_record

    console = Console(json_lines=as_json)
    with console.stop.listening(), console.live():
        proof = prove(console, seeds=range(seeds), models=models or MODELS)
    typer.echo(json.dumps(proof.facts, indent=1) if as_json else proof.text)
    if out is not None:
        path = write_record(proof, out)
        if not as_json:
            typer.echo(f"\nrecord  {path}")
    return proof.exit_code


def _planted_faults(out: Path | None, as_json: bool) -> int:
    """Try every plant and print the table; return the exit code."""
    from pipelines.current_run.console import Console
    from pipelines.selftest.trials import as_text, exit_code, run_selftest, write_record

    console = Console(json_lines=as_json)
    with console.stop.listening(), console.live():
        record = run_selftest("full", console)
    typer.echo(record.model_dump_json(indent=1) if as_json else as_text(record))
    if out is not None:
        path = write_record(record, out)
        if not as_json:
            typer.echo(f"\nrecord  {path}")
    return exit_code(record)
