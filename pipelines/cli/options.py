"""Options that several commands share, and errors as they are printed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from governance.records.errors import MedisynthGovError

_SHOWN_FINDINGS = 20


@contextmanager
def errors(as_json: bool) -> Iterator[None]:
    """Turn every error a user can cause into one line and its exit code."""
    from governance.records.errors import MedisynthGovError, refusals_named

    try:
        with refusals_named():
            yield
    except MedisynthGovError as error:
        with suppress(OSError):  # nowhere to print it: the exit code still tells
            print_error(error, as_json)
        raise typer.Exit(error.exit_code) from error


def print_error(error: "MedisynthGovError", as_json: bool) -> None:
    """Write an error with its findings."""
    print_failure(error.code, str(error), tuple(map(str, error.findings)), as_json)


def print_failure(code: str, message: str, findings: tuple[str, ...], as_json: bool) -> None:
    """Write a failure: its code, one sentence, and the first findings."""
    if as_json:
        facts = {
            "error": code,
            "message": message,
            "findings": findings[:_SHOWN_FINDINGS],
            "n_findings": len(findings),
        }
        typer.echo(json.dumps(facts, ensure_ascii=False), err=True)
        return
    from pipelines.current_run.console import folded

    typer.echo(folded(f"error[{code}] {message}"), err=True)
    for finding in findings[:_SHOWN_FINDINGS]:
        typer.echo(folded(f"  {finding}"), err=True)
    if len(findings) > _SHOWN_FINDINGS:
        typer.echo(f"  … and {len(findings) - _SHOWN_FINDINGS:,} more", err=True)


Json = Annotated[bool, typer.Option("--json", help="Write JSON for machines.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="Run folder, or id of a run.")]
RunsIn = Annotated[Path | None, typer.Option("--workspace", "-w", help="Folder that holds runs/.")]
Workspace = Annotated[
    Path, typer.Option("--workspace", "-w", help="Folder that holds runs/, mlflow/ and ledger/.")
]
