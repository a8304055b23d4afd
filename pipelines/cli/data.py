"""Commands on data sets: data phantom, check, fetch, template."""

import json
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.options import Json, errors, print_failure


def target_population_template() -> str:
    """A target population with all usual attributes, shares and sources left to fill in (YAML)."""
    folder = resources.files("pipelines.config") / "templates"
    return (folder / "target_population.yaml").read_text(encoding="utf-8")


app = typer.Typer(help="Fetch, simulate or check a data set.", no_args_is_help=True)


@app.command("phantom")
def phantom(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder to write.")],
    patients: Annotated[int, typer.Option(help="Simulated patients.")] = 64,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    machines: Annotated[
        str | None, typer.Option(help="Machines, separated by commas; none is all.")
    ] = None,
    leaks: Annotated[
        str | None, typer.Option(help="Faults to plant, separated by commas; 'all' is all.")
    ] = None,
    imbalances: Annotated[
        str | None,
        typer.Option(help="Gaps to plant among the patients, separated by commas; 'all' is all."),
    ] = None,
) -> None:
    """Simulate fetal head images in the layout of FETAL_PLANES_DB."""
    from pipelines.current_run.console import Console

    with errors(False):
        from medisynth.data.phantom import (
            IMBALANCES,
            LEAKS,
            MACHINES,
            PhantomSettings,
            write_phantoms,
        )
        from pipelines.current_run.places import refuse_in_data

        refuse_in_data("DIR", folder.resolve().parent)
        given: dict[str, Any] = {"n_patients": patients, "seed": seed}
        chosen = {"machines": (machines, MACHINES), "leaks": (leaks, LEAKS)}
        chosen["imbalances"] = (imbalances, IMBALANCES)
        for key, (text, known) in chosen.items():
            if text:
                names = tuple(name.strip() for name in text.split(","))
                given[key] = known if names == ("all",) else names
        console = Console()
        with console.stop.listening(), console.live():
            written = write_phantoms(
                folder,
                PhantomSettings(**given),
                progress=lambda done, total: console.progress("simulating", done, total),
            )
        typer.echo(f"{written.n_images:,} images of {written.n_patients:,} phantoms in {folder}")
        for leak in written.leaks:
            typer.echo(f"planted {leak}")


@app.command("init")
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Data folder.")],
) -> None:
    """Look at a folder and propose its dataset.yaml: columns, levels, paths, conversions."""
    from pipelines.current_run.console import Console

    with errors(False):
        from medisynth.data.adapters import refuse_known_layout
        from medisynth.data.adapters.propose import begin

        console = Console()
        with console.stop.listening(), console.live():
            refuse_known_layout(folder)
            proposal, files = begin(
                folder, lambda done, total: console.progress("reading headers", done, total)
            )
        for sentence in proposal.known:
            typer.echo(f"found      {sentence}")
        for sentence in proposal.unknown:
            typer.echo(f"not known  {sentence}")
        typer.echo(f"written    {', '.join(path.name for path in files)} in {folder}")
        typer.echo(f"next       correct {files[0].name}, then: medisynth-gov data check {folder}")


@app.command("check")
def check(
    folder: Annotated[Path, typer.Argument(metavar="PATH", help="Data folder.")],
    adapter: Annotated[str | None, typer.Option(help="Adapter; detected if left out.")] = None,
    override: Annotated[
        list[str] | None, typer.Option("-o", help="KEY=VALUE, e.g. -o data.planes=all.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for data_check.html, data_check.json and data_check.junit.xml."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ingest, validate and audit a data set without training; exit 0, 3 or 4."""
    from pipelines.config.model import load_config
    from pipelines.current_run.console import Console, folded

    with errors(as_json):
        config = load_config(
            preset="laptop",
            flags={"data.path": str(folder), "data.adapter": adapter},
            overrides=override or (),
        )
        from pipelines.current_run.places import refuse_check_in_data
        from pipelines.data_check.check import CheckMemory

        refuse_check_in_data(config.data, out)
        console = Console(json_lines=as_json)
        with console.stop.listening(), console.live():
            memory = CheckMemory(
                config, lambda done, total: console.progress("comparing files", done, total)
            )
            checked = memory.recall()
            if checked is None:
                from pipelines.data_check.check import check_data

                checked = check_data(config, console)
                memory.keep(checked)
            else:
                console.say(
                    f"nothing has changed since {checked.checked_utc:%Y-%m-%d %H:%M} UTC: this is "
                    "the result found then; -o data.cache=off checks anew"
                )
        text = json.dumps(checked.facts, indent=1, ensure_ascii=False)
        typer.echo(text if as_json else folded(checked.text))
        if out is not None:
            from governance.records.files import write_atomic

            write_atomic(out / "data_check.html", checked.html)
            write_atomic(out / "data_check.json", text.encode("utf-8", "backslashreplace"))
            write_atomic(out / "data_check.junit.xml", checked.junit)
            if not as_json:
                typer.echo(f"\npage  {out / 'data_check.html'}")
        if checked.error_code is not None:
            print_failure(checked.error_code, checked.sentence, checked.findings, as_json)
            raise typer.Exit(checked.exit_code)


@app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="fetal-planes-db, hc18 or african-planes.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for the data set.")],
) -> None:
    """Fetch a public data set: resumed where it broke off, compared with published checksums."""
    from pipelines.current_run.console import Console

    with errors(False):
        from pipelines.current_run.places import refuse_in_data
        from pipelines.fetch.data_sets import fetch_data_set

        refuse_in_data("DIR", folder.resolve().parent)
        console = Console()
        with console.stop.listening(), console.live():
            fetch_data_set(
                name,
                folder,
                say=console.say,
                progress=lambda now: console.transfer(
                    now.file, str(now), now.done_bytes, now.total_bytes
                ),
                check_stop=console.stop.check,
            )


@app.command("template")
def template() -> None:
    """Print a target population to fill in; give the filled file as audit.target_population."""
    pass

    typer.echo(target_population_template(), nl=False)
