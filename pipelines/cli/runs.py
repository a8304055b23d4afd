"""Commands about runs of a workspace: runs, lineage, promote, card, compare, sync; a run's end."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.options import Json, Run, RunsIn, errors, print_error

if TYPE_CHECKING:
    from pipelines.finished_runs.promote import Promoted
    from pipelines.finished_runs.sync import Synced

_NOT_FOUND, _NOT_MIRRORED = 3, 6


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(runs)
    app.command()(lineage)
    app.command()(promote)
    app.command()(card)
    app.command()(compare)
    app.command()(sync)


def runs(workspace: RunsIn = None, as_json: Json = False) -> None:
    """List the runs of a workspace, newest first, with gate, KID, quality and stage."""
    with errors(as_json):
        from pipelines.finished_runs.listing import as_table, list_runs

        found = list_runs(workspace or Path())
    if as_json:
        typer.echo(json.dumps([asdict(line) for line in found], indent=1, ensure_ascii=False))
    else:
        typer.echo(as_table(found) if found else "no run in this workspace; name another with -w")


def lineage(
    digest: Annotated[
        str, typer.Option("--digest", help="SHA-256 of a file or image, or its first digits.")
    ],
    workspace: RunsIn = None,
    as_json: Json = False,
) -> None:
    """Find in which runs a digest is on record: a file, an image, a root. Exit 3 if in none."""
    with errors(as_json):
        from pipelines.finished_runs.listing import find_digest

        places, n_unread = find_digest(workspace or Path(), digest)
    if as_json:
        facts = {"places": [asdict(place) for place in places], "n_not_searched": n_unread}
        typer.echo(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        for place in places:
            typer.echo(f"{place.run_id}  {place.what}")
        if not places:
            typer.echo("in no run on record")
        if n_unread:
            typer.echo(f"not searched: {n_unread:,} that did not end or are damaged", err=True)
    raise typer.Exit(0 if places else _NOT_FOUND)


def promote(
    run_name: Run,
    to: Annotated[str, typer.Option("--to", help="candidate or released.")],
    by: Annotated[
        str | None, typer.Option(help="Who promotes; none is the user of the system.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    accept_waivers: Annotated[
        bool, typer.Option("--accept-waivers", help="Let waived gate items stand; needs --reason.")
    ] = False,
    workspace: RunsIn = None,
    as_json: Json = False,
) -> None:
    """Verify a run anew and promote its model; exit 5 or 9 names what stands in the way."""
    with errors(as_json):
        from pipelines.finished_runs.find import find_run
        from pipelines.finished_runs.promote import Request
        from pipelines.finished_runs.promote import promote as promote_run

        request = Request(to, by, reason, accept_waivers)
        run_dir = find_run(run_name, workspace)
        done = promote_run(run_dir, request, _warn)
    if as_json:
        facts = {
            **asdict(done.promotion),
            "is_new": done.is_new,
            "card": str(done.card) if done.card else None,
            "mirror": done.mirror.state,
        }
        typer.echo(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        _print_promoted(done, run_dir)


def _print_promoted(done: "Promoted", run_dir: Path) -> None:
    from governance.records.files import typed

    line = done.promotion
    name = f"{line.model} version {line.version}, run {line.run_id}"
    if done.is_new:
        typer.echo(f"{name}: {line.came_from} -> {line.to}, by {line.by}")
        if line.replaces:
            typer.echo(f"in place of run {line.replaces}")
    else:
        typer.echo(f"{name}: is {line.to} already, since {line.time_utc} by {line.by}")
    typer.echo(f"evidence root  {line.evidence_root}")
    if done.card is not None:
        typer.echo(f"model card     {done.card}")
    words = {
        "complete": f"{line.to} points at this version",
        "off": "none: tracking is off for this run; promotions.jsonl is the record",
    }
    later = f"not moved yet ({done.mirror.words}); later: medisynth-gov sync {typed(run_dir)}"
    typer.echo(f"MLflow alias   {words.get(done.mirror.state, later)}")


def card(
    run_name: Run,
    to: Annotated[Path, typer.Option("--to", help="Folder of published cards.")] = Path(
        "model_cards"
    ),
    workspace: RunsIn = None,
    as_json: Json = False,
) -> None:
    """Verify a run anew and publish its card as that of a reference run; it is not promoted."""
    with errors(as_json):
        from pipelines.current_run.places import refuse_in_data
        from pipelines.finished_runs.find import find_run
        from pipelines.finished_runs.published_cards import publish_reference_card

        refuse_in_data("--to", to)
        done = publish_reference_card(find_run(run_name, workspace), to)
    if as_json:
        typer.echo(json.dumps({**asdict(done), "path": str(done.path)}, indent=1))
        return
    typer.echo(f"model card     {done.path}{'' if done.is_new else ' (was there already)'}")
    typer.echo(f"evidence root  {done.evidence_root}")
    typer.echo(f"journal head   {done.journal_head}")


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Run folder, or id of a run.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Run folder, or id of a run.")],
    workspace: RunsIn = None,
    as_json: Json = False,
) -> None:
    """Show what differs between two runs, and whether their results can be compared at all."""
    with errors(as_json):
        from pipelines.finished_runs.compare import as_text, compare_runs
        from pipelines.finished_runs.find import find_run

        found = compare_runs(find_run(a, workspace), find_run(b, workspace))
        text = json.dumps(found.facts(), indent=1, ensure_ascii=False)
        typer.echo(text if as_json else as_text(found))


def sync(
    run_name: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Run folder or id; none is all that wait.")
    ] = None,
    workspace: RunsIn = None,
    as_json: Json = False,
) -> None:
    """Mirror to MLflow what could not be mirrored earlier; nothing is doubled. Exit 0 or 6."""
    with errors(as_json):
        from governance.records.errors import ConfigError
        from pipelines.finished_runs import sync as outbox
        from pipelines.finished_runs.find import find_run

        done: tuple[Synced, ...]
        if run_name is None:
            folder = (workspace or Path()).resolve()
            if not folder.is_dir():
                raise ConfigError(f"--workspace: {folder}: no such folder")
            done = outbox.sync(folder, _warn)
        else:
            done = (outbox.sync_run(find_run(run_name, workspace), _warn),)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in done], indent=1, ensure_ascii=False))
    else:
        for one in done:
            typer.echo(f"{one.run_id}: {one.words}")
        if not done:
            typer.echo("no run waits to be mirrored")
    raise typer.Exit(_NOT_MIRRORED if any(one.is_left_over for one in done) else 0)


def _warn(text: str) -> None:
    typer.echo(text, err=True)


def print_result(result: Any, as_json: bool) -> None:
    """The end of a run on one screen: verdict, worst findings, KID, paths, what to type next."""
    from governance.records.files import typed
    from pipelines.current_run.console import program

    folder = result.run_dir
    if as_json:
        if result.error is not None:
            _print_stop(result.error, folder, as_json)
        facts = {
            "run_id": folder.name,
            "run_dir": str(folder),
            "verdict": result.rollup.verdict,
            **_headline_facts(result.headline),
            "gate": result.rollup.gate.value,
            "exit_code": result.exit_code,
            "evidence_root": result.manifest.evidence_root,
            "journal_head": result.manifest.journal_head,
            "principles": {p.id: p.status.value for p in result.rollup.principles},
            "waivers": {w.item_id: w.state for w in result.rollup.waivers},
            "resume": result.resume_command or None,
        }
        typer.echo(json.dumps(facts, indent=1, ensure_ascii=False))
        return
    if result.error is not None:
        _print_stop(result.error, folder, as_json)
    else:
        from pipelines.current_run.console import folded

        for box in result.headline.boxes:
            typer.echo(f"{box.title}: {box.words}")
            typer.echo(folded(f"  {box.sentence}"))
        if result.headline.findings:
            typer.echo("Worst findings")
        for finding in result.headline.findings:
            typer.echo(folded(f"  {finding}"))
        for waived in result.rollup.waivers:
            typer.echo(f"  waiver of {waived.item_id}: {waived.state}; effect: {waived.effect}")
        typer.echo(result.rollup.verdict)
        for name, words in (
            ("KID", result.headline.kid or "not measured"),
            *result.headline.further,
        ):
            typer.echo(f"{name:<14} {words}")
    typer.echo(f"report         {folder / 'report.pdf'}")
    typer.echo(f"model card     {folder / 'model_card.md'}")
    typer.echo(f"evidence root  {result.manifest.evidence_root}")
    typer.echo(f"journal head   {result.manifest.journal_head}")
    typer.echo(f"verify         {program()} verify {typed(folder)}")
    typer.echo(f"MLflow UI      {program()} ui -w {typed(folder.parent.parent)}")
    if result.resume_command:
        typer.echo(f"resume         {result.resume_command}")


def _headline_facts(found: Any) -> dict[str, Any]:
    """The headline of a run as JSON data; empty lists and "" where it did not finish."""
    from dataclasses import asdict

    nothing = {"boxes": [], "findings": [], "kid": "", "further": []}
    return asdict(found) if found is not None else nothing


def _print_stop(error: Exception, folder: Path, as_json: bool) -> None:
    """What stopped a run: its own sentence, or for a bug where the details are."""
    from governance.records.errors import MedisynthGovError

    if not isinstance(error, MedisynthGovError):
        details = folder / "crash.txt"
        error = MedisynthGovError(f"a fault of medisynth-gov itself; please report {details}")
    print_error(error, as_json)
