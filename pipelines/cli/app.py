"""The command line: parse, call, print, exit code. Heavy imports happen inside the commands."""

import gc
import io
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli import data as cli_data
from pipelines.cli import seal as cli_seal
from pipelines.cli import selftest as cli_selftest
from pipelines.cli import verify as cli_verify
from pipelines.cli.options import Json, Run, RunsIn, Workspace
from pipelines.cli.options import errors as _errors
from pipelines.cli.runs import add_commands, print_result

app = typer.Typer(
    name="medisynth-gov",
    help="Train and evaluate generators of synthetic fetal ultrasound images, with evidence an "
    "auditor can verify.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
weights_app = typer.Typer(help="Weights of the FID feature extractor.", no_args_is_help=True)
app.add_typer(cli_data.app, name="data")
app.add_typer(weights_app, name="weights")
app.add_typer(cli_seal.app, name="seal")


def main() -> None:
    """Entry point of the console script."""
    # Read by the thread library when torch loads it: threads that wait must sleep, not spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        Path.home()
    except RuntimeError:  # libraries ask for a home when they are imported
        os.environ["HOME"] = "/nonexistent"
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character still gets text.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _errors(False):
            _refuse_environment()
            app()  # ends by SystemExit; what else comes out is a bug of ours
    except typer.Exit as stopped:
        sys.exit(stopped.exit_code)
    except Exception:  # noqa: BLE001
        typer.echo(
            f"error[B000] a fault of medisynth-gov itself; please report {_write_crash()}", err=True
        )
        sys.exit(1)
    finally:
        _flush_or_leave()
        # The interpreter would look for cycles among a million objects that all go in a moment; a
        # second of every `data check`.
        gc.freeze()


def _refuse_environment() -> None:
    """Refuse what no command can work in: a removed folder, an interpreter without docstrings."""
    from governance.records.errors import ConfigError

    if sys.flags.optimize > 1:
        raise ConfigError(
            "PYTHONOPTIMIZE=2 (python -OO) removes docstrings, which libraries read when they are "
            "imported; set it to 1, or leave it out"
        )
    Path.cwd()  # raises an error if the folder was removed


def _flush_or_leave() -> None:
    """Flush the output; drop what cannot be written, which the interpreter would try again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with Path(os.devnull).open("wb") as nothing:
                os.dup2(nothing.fileno(), stream.fileno())


def _write_crash() -> str:
    """Keep the traceback in a file, for us rather than the screen; return its name.

    Where no file can be written, return the traceback itself.
    """
    import tempfile
    import traceback

    from governance.records.credentials import without_credentials

    text = without_credentials(traceback.format_exc())
    try:
        descriptor, name = tempfile.mkstemp(prefix="medisynth-gov-crash-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
    except OSError:
        return text
    return name


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version, and the commit of a checkout.")
    ] = False,
) -> None:
    """Options of the tool itself."""
    if version:
        from pipelines.current_run.identity import code_identity, tool_version

        commit, clean = code_identity()
        source = f" (commit {commit[:12]}{'' if clean else ', changed since'})" if commit else ""
        typer.echo(f"medisynth-gov {tool_version()}{source}")
        raise typer.Exit


@app.command()
def run(
    config: Annotated[Path | None, typer.Argument(help="Configuration file (YAML).")] = None,
    preset: Annotated[
        str | None, typer.Option(help="smoke, laptop (the default), workstation or paper.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Data folder; none simulates phantoms.")] = None,
    adapter: Annotated[str | None, typer.Option(help="Data set adapter; detected if left out.")] = (
        None
    ),
    model: Annotated[str | None, typer.Option(help="Generator, e.g. dsr-gan.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of training and sampling.")] = None,
    workspace: Annotated[
        str | None, typer.Option("--workspace", "-w", help="Folder for runs/, mlflow/, ledger/.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("-o", help="KEY=VALUE, e.g. -o data.planes=all.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Go on with a run that was cut short (id or folder)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run every step and write evidence, model card and report."""
    from pipelines.config.model import changed_config, load_config
    from pipelines.current_run.console import Console

    flags = {
        "data.path": data,
        "data.adapter": adapter,
        "model.name": model,
        "seed": seed,
        "workspace": workspace,
    }
    with _errors(as_json):
        console = Console(json_lines=as_json)
        if resume is not None:
            from pipelines.finished_runs.find import find_run
            from pipelines.flow import resume_flow

            folder = find_run(resume, Path(workspace or "."))
            asked = partial(
                changed_config, file=config, preset=preset, flags=flags, overrides=override or ()
            )
            with console.stop.listening(), console.live():
                result = resume_flow(folder, asked, sys.argv, console)
        else:
            resolved = load_config(config, preset=preset, flags=flags, overrides=override or ())
            from pipelines.flow import run_flow

            with console.stop.listening(), console.live():
                result = run_flow(resolved, sys.argv, console)
        print_result(result, as_json)
    raise typer.Exit(result.exit_code)


@app.command()
def assess(
    real: Annotated[Path, typer.Option(help="Folder of real images to compare with.")],
    synthetic: Annotated[Path, typer.Option(help="Folder of synthetic images (PNG).")],
    training: Annotated[
        Path | None,
        typer.Option(help="Folder of the images that the generator was trained on, if known."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration file (YAML) for everything else.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Side to bring all images to; none is the synthetic ones'.")
    ] = None,
    fit: Annotated[str, typer.Option(help="How a frame becomes square: pad or stretch.")] = "pad",
    planes: Annotated[
        str, typer.Option(help="Planes of a known data set: default, all or a name.")
    ] = "default",
    seed: Annotated[int, typer.Option(help="Seed of draws and resampling.")] = 0,
    workspace: Annotated[
        str | None, typer.Option("--workspace", "-w", help="Folder for runs/, mlflow/, ledger/.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("-o", help="KEY=VALUE, e.g. -o evaluation.max_real=300.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Evaluate images made anywhere, with controls, report and evidence; nothing is trained."""
    from pipelines.current_run.console import Console

    with _errors(as_json):
        console = Console(json_lines=as_json)
        from pipelines.assess import Asked, assessment_config
        from pipelines.flow import run_flow

        asked = Asked(
            real=real,
            synthetic=synthetic,
            training=training,
            size=size,
            fit=fit,
            planes=planes,
            config=config,
            workspace=workspace,
            seed=seed,
            overrides=tuple(override or ()),
        )
        with console.stop.listening(), console.live():
            result = run_flow(assessment_config(asked), sys.argv, console)
        print_result(result, as_json)
    raise typer.Exit(result.exit_code)


@app.command()
def report(
    run_name: Run,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the copies; none checks against the run's own.")
    ] = None,
    workspace: RunsIn = None,
) -> None:
    """Render card and reports again from the evidence; the same evidence gives the same bytes."""
    with _errors(False):
        from governance.records.files import write_atomic
        from governance.reports.audit_report import drawn_outputs
        from pipelines.finished_runs.find import named_folder

        if out is not None:
            from pipelines.current_run.places import refuse_in_data

            refuse_in_data("--out", out)
        run_dir = named_folder(run_name, workspace)
        outputs = drawn_outputs(run_dir)
        different = []
        for name, rendered in outputs.items():
            if out is not None:
                write_atomic(out / name, rendered)
            same = (run_dir / name).is_file() and (run_dir / name).read_bytes() == rendered
            typer.echo(f"{name}: {'same bytes' if same else 'differs from the copy in the run'}")
            if not same:
                different.append(name)
    raise typer.Exit(5 if different else 0)


@weights_app.command("fetch")
def weights_fetch(
    source: Annotated[
        Path | None, typer.Option("--from", help="A file got by other means.")
    ] = None,
) -> None:
    """Get the FID network's weights, check their pinned digest and keep them in the cache."""
    with _errors(False):
        from pipelines.fetch.weights import fetch_weights

        path = fetch_weights(lambda text: typer.echo(text, err=True), from_file=source)
        typer.echo(f"FID weights: {path}")


@app.command()
def ui(
    workspace: Workspace = Path(),
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Open the workspace's MLflow UI on 127.0.0.1."""
    with _errors(False):
        from pipelines.cli.doctor import serve

        code = serve(workspace.resolve(), port)
    raise typer.Exit(code)


@app.command()
def doctor(workspace: Workspace = Path(), as_json: Json = False) -> None:
    """Say what this machine can do: versions, weights, confinement, disk."""
    with _errors(as_json):
        from pipelines.cli.doctor import examine

        lines = examine(workspace.resolve())
        if as_json:
            typer.echo(json.dumps([line._asdict() for line in lines], indent=1))
        else:
            width = max(len(line.subject) for line in lines)
            for line in lines:
                typer.echo(f"{line.mark:4}  {line.subject:<{width}}  {line.finding}")


@app.command("reproduction-audit")
def reproduction_audit(
    table: Annotated[Path, typer.Option(help="FETAL_PLANES_DB_data.csv.")],
    logs: Annotated[Path, typer.Option(help="Folder with the published loss and FID logs.")],
    images: Annotated[
        list[Path] | None, typer.Option(help="Folder of real frames (PNG); may be given again.")
    ] = None,
    synthetic: Annotated[
        Path | None, typer.Option(help="Folder of synthetic pictures named after real ones.")
    ] = None,
    networks: Annotated[
        bool, typer.Option("--networks", help="Build the published upscaler and count gradients.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Markdown page to write.")] = None,
    as_json: Json = False,
) -> None:
    """Recompute what the MIDL 2023 paper reports from its public table and logs."""
    with _errors(as_json):
        from medisynth.studies.midl2023 import audit as page
        from pipelines.fetch.weights import find_weights

        if out is not None:
            from pipelines.current_run.places import refuse_in_data

            refuse_in_data("--out", out)
        folders = tuple(images or ())
        weights = find_weights() if folders else None
        result = page.audit(page.Inputs(table, logs, folders, synthetic, networks, weights))
        typer.echo(page.as_json(result) if as_json else page.as_text(result))
        if out is not None:
            page.write_page(result, out)
            if not as_json:
                typer.echo(f"\npage  {out}")


@app.command()
def sample(
    run_name: Run,
    n: Annotated[int, typer.Option("-n", help="Images to draw.")],
    plane: Annotated[str | None, typer.Option(help="Plane that the images shall show.")] = None,
    machine: Annotated[str | None, typer.Option(help="Machine that they shall look like.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; none is the run's.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="New folder; none is samples/<run>-<time>.")
    ] = None,
    workspace: RunsIn = None,
    visible_mark: Annotated[
        bool, typer.Option("--visible-mark", help="Burn SYNTHETIC into the lower edge.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or mps; none is what the run trained on.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw more images from a run's checkpoint, each marked as synthetic in its file."""
    from pipelines.current_run.console import Console

    with _errors(as_json):
        from medisynth.generator import Condition
        from pipelines.finished_runs.sample import SampleRequest, sample_run

        request = SampleRequest(
            run=run_name,
            n=n,
            workspace=workspace,
            condition=Condition(plane=plane, machine=machine),
            seed=seed,
            out=out,
            visible_mark=visible_mark,
            compute_device=device,
        )
        console = Console(json_lines=as_json)
        with console.stop.listening(), console.live():
            sampled = sample_run(request, console)
    if as_json:
        facts = {**vars(sampled), "folder": str(sampled.folder)}
        typer.echo(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        typer.echo(
            f"{sampled.n_images:,} synthetic images of run {sampled.run_id}, "
            f"{sampled.n_marks_read_back:,} marks read back, seed {sampled.seed}\n{sampled.folder}"
        )


@app.command()
def mark(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Image files.")],
    as_json: Json = False,
) -> None:
    """Print what each image file says about being synthetic; exit 3 if one has no mark of ours."""
    from dataclasses import asdict

    from pipelines.cli.marks import read_marks

    found = read_marks(files)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=1, ensure_ascii=False))
    else:
        for one in found:
            typer.echo(f"{one.path}: {one.words}")
    raise typer.Exit(0 if all(one.kind == "mark" for one in found) else 3)


@app.command("init")
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write into.")] = Path(),
    minimal: Annotated[
        bool, typer.Option("--minimal", help="Only the five declarations that matter most.")
    ] = False,
) -> None:
    """Write a starting configuration and a declarations file to fill in; overwrites nothing."""
    with _errors(False):
        from pipelines.current_run.places import refuse_in_data
        from pipelines.people.template import write_templates

        refuse_in_data("DIR", folder)
        for path in write_templates(folder, minimal=minimal):
            typer.echo(str(path))


cli_verify.add_commands(app)
add_commands(app)
cli_selftest.add_commands(app)

if __name__ == "__main__":
    main()
