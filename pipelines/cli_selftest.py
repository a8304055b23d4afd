"""The command `selftest`: plant faults, and see whether the guards catch them."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli_errors import errors

_Json = Annotated[bool, typer.Option("--json", help="Write JSON for machines.")]


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(selftest)


def selftest(
    out: Annotated[Path | None, typer.Option(help="Folder for selftest.json.")] = None,
    as_json: _Json = False,
) -> None:
    """Plant faults on purpose and see that the guards catch each; exit 4 or 5 when one does not."""
    with errors(as_json):
        raise typer.Exit(_planted_faults(out, as_json))


def _planted_faults(out: Path | None, as_json: bool) -> int:
    """Try every plant and print the table; return the exit code."""
    from pipelines.console import Console
    from pipelines.selftest.table import as_text, exit_code, write_record
    from pipelines.selftest.trials import run_selftest

    console = Console(json_lines=as_json)
    with console.stop.listening(), console.live():
        record = run_selftest("full", console)
    typer.echo(record.model_dump_json(indent=1) if as_json else as_text(record))
    if out is not None:
        path = write_record(record, out)
        if not as_json:
            typer.echo(f"\nrecord  {path}")
    return exit_code(record)
