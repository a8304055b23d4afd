"""Ask today's code what the stored answers hold: each function returns JSON data.

No answer holds a time, a duration or a path of this machine.
"""

import ast
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import judge_items
from governance.evidence import verify_run as independent_verifier
from governance.evidence.folder import RunFolder
from governance.records.base import document_kinds
from governance.records.item import ItemRecord
from governance.records.manifest import Manifest
from governance.records.people import Declarations
from governance.records.policy import Policy
from governance.records.run import Outcome, Plan
from governance.verdict.rollup import roll_up, waiver_lines
from medisynth.data.phantom import PhantomSettings, write_phantoms
from pipelines.cli.app import app
from tests.held_still.corpus import AUTHORITY, HERE, NAMES, OUTPUTS, PUBLIC_KEY, Corpus

ROOT = HERE.parents[1]
PACKAGES = ("governance", "medisynth", "pipelines")
LIST_OF_CODES = ROOT / "governance" / "records" / "error_codes.py"  # explains codes, gives none
CHANGED = (
    ("finished", "data/split.json"),
    ("finished", "report.pdf"),
    ("finished", "journal.jsonl"),
    ("finished", "checkpoints/*.safetensors"),
    ("signed", "report-signed.pdf"),
    ("signed", "attestations/train.json"),
    ("signed", "manifest.json"),
    ("signed", "manifest.sig"),
    ("signed", "manifest.tsr"),
    ("blocked_at_s2", "data/validation.json"),
    ("hostile_names", "declarations.yaml"),
)
PHANTOMS = {
    "8 patients, seed 0": PhantomSettings(n_patients=8, seed=0),
    "5 patients, seed 3, 64 pixels high": PhantomSettings(n_patients=5, seed=3, image_height_px=64),
}
_WIDTH = 100
_STYLE = re.compile(r"\x1b\[[0-9;]*m")
_CODE = re.compile(r"[A-Z]\d{3}")
_CODE_IN_A_MESSAGE = re.compile(r"error\[([A-Z]\d{3})\]")


def verify(run: Path, *options: str) -> dict[str, Any]:
    """Exit code and JSON of `medisynth-gov verify RUN --json`, without the place of the folder."""
    found = CliRunner().invoke(app, ["verify", str(run), "--json", *options])
    return {
        "exit_code": found.exit_code,
        "found": json.loads(_placeless(found.stdout, run) or "null"),
        "stderr": _placeless(found.stderr, run),
    }


def verify_alone(run: Path, script: Path | None = None) -> dict[str, Any]:
    """Exit code and output of the stand-alone verifier; without a script the one in the folder."""
    command = [sys.executable, "-I", str(script or run / "verify_run.py"), str(run)]
    found = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, check=False, cwd=run
    )
    return {
        "exit_code": found.returncode,
        "found": _placeless(found.stdout, run).splitlines(),
        "stderr": _placeless(found.stderr, run),
    }


def standalone_verifier() -> Path:
    """The stand-alone verifier that a run of today would get."""
    return Path(independent_verifier.__file__)


def _placeless(text: str, run: Path) -> str:
    for place in (run, run.resolve()):
        text = text.replace(str(place.parent.parent), "WORKSPACE")
    return text.replace(str(HERE), "HELD_STILL")


def verifications(corpus: Corpus) -> dict[str, Any]:
    """What both verifiers say of every stored run, and `verify` given what somebody else holds."""
    answers: dict[str, Any] = {}
    for name in NAMES:
        run = corpus.run(name)
        answers[name] = {
            "verify": verify(run),
            "verify_run.py": verify_alone(run),
            "verify_run.py of today": verify_alone(run, standalone_verifier()),
        }
    key = ("--key", str(PUBLIC_KEY))
    signed, unsigned = corpus.run("signed"), corpus.run("finished")
    answers["signed, its key given"] = {"verify": verify(signed, *key)}
    answers["finished, that key given"] = {"verify": verify(unsigned, *key)}
    authority = ("--tsa-certificate", str(AUTHORITY))
    answers["finished, an authority given"] = {"verify": verify(unsigned, *authority)}
    return answers


def of_a_changed_byte(corpus: Corpus, name: str, pattern: str, workspace: Path) -> dict[str, Any]:
    """What both verifiers say when the middle byte of one file of a run is another.

    Args:
        corpus: The stored runs.
        name: Name of the run.
        pattern: Which file; exactly one fits.
        workspace: Empty folder for a changed copy.
    """
    run = corpus.copy(name, workspace)
    (path,) = run.glob(pattern)
    flip_middle_byte(path)
    return {
        "path": path.relative_to(run).as_posix(),
        "verify": verify(run),
        "verify_run.py": verify_alone(run),
        "verify_run.py of today": verify_alone(run, standalone_verifier()),
    }


def flip_middle_byte(path: Path) -> None:
    """Change one bit of the byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def of_changed_bytes(corpus: Corpus) -> dict[str, Any]:
    """The same of every file in CHANGED, by run and file."""
    answers = {}
    for name, pattern in CHANGED:
        with TemporaryDirectory() as folder:
            found = of_a_changed_byte(corpus, name, pattern, Path(folder))
        answers[f"{name} {pattern}"] = found
    return answers


def reports(run: Path, into: Path) -> dict[str, Any]:
    """Exit code of `medisynth-gov report RUN`, and how each output compares with the run's own.

    An output reads "as in the run folder", or the SHA-256 that it has since a commit that changed
    its words or its layout on purpose.
    """
    found = CliRunner().invoke(app, ["report", str(run), "--out", str(into)])
    drawn = {name: (into / name).read_bytes() for name in OUTPUTS}
    return {
        "exit_code": found.exit_code,
        **{
            name: "as in the run folder"
            if data == (run / name).read_bytes()
            else hashlib.sha256(data).hexdigest()
            for name, data in drawn.items()
        },
    }


def all_reports(corpus: Corpus) -> dict[str, Any]:
    """The same of every stored run, by name."""
    answers = {}
    for name in NAMES:
        with TemporaryDirectory() as folder:
            run = corpus.copy(name, Path(folder))
            answers[name] = reports(run, Path(folder) / "again")
    return answers


def judged_otherwise(run: Path) -> dict[str, Any]:
    """What today's checks say otherwise of a stored run, judged again at its own time.

    By item: status, reason and every other field that differs, as it is now; and the parts of the
    roll-up that differ.
    """
    folder = RunFolder.closed(run)
    policy = Policy.model_validate(folder.need(Plan).policy)
    before = stored_records(run)
    now = datetime.fromisoformat(before[policy.items[0].id]["time_utc"])
    records = judge_items(policy, folder, now=now, artifacts=folder.digests)
    declarations, facts = folder.get(Declarations), JudgedRun(folder, now).facts
    waivers = waiver_lines(policy, records, declarations, facts, now.date())
    summary = roll_up(policy, records, folder.need(Outcome), waivers=waivers)
    again = {record.id: record.model_dump(mode="json") for record in records}
    if again.keys() != before.keys():
        raise ValueError(f"{run}: other items than those stored")
    items = {item: _differing(before[item], again[item]) for item in before}
    whole = json.loads((run / "summary.json").read_bytes())
    return {
        "items": {item: found for item, found in items.items() if found},
        "summary": _differing(whole, summary.model_dump(mode="json")),
    }


def stored_records(run: Path) -> dict[str, Any]:
    """The records of a stored run by item."""
    paths = (run / "records").glob("*.json")
    return {path.stem: json.loads(path.read_bytes()) for path in paths}


def _differing(before: Any, again: Any) -> dict[str, Any]:
    """Values that differ, as they are now, by key; parts of equally long lists by their place."""
    one, other = (dict(enumerate(x)) if isinstance(x, list) else x for x in (before, again))
    found: dict[str, Any] = {}
    for key in sorted({*one, *other}, key=str):
        old, new = one.get(key), other.get(key)
        if old == new:
            continue
        both = [type(x) for x in (old, new)]
        is_nested = both == [dict, dict] or (both == [list, list] and len(old) == len(new))
        found[str(key)] = _differing(old, new) if is_nested and old and new else new
    return found


def document_schemas() -> dict[str, Any]:
    """JSON Schema of every document of a run folder, by path; words about fields left out."""
    kinds = {**document_kinds(), "manifest.json": Manifest, "records/<item>.json": ItemRecord}
    return {path: _shape(kind.model_json_schema()) for path, kind in sorted(kinds.items())}


def _shape(schema: Any) -> Any:
    """A schema without titles and descriptions: better words are no change of a format."""
    if isinstance(schema, list):
        return [_shape(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        # Under these two keys stand names of fields and of classes, which may be "title".
        key: {name: _shape(part) for name, part in value.items()}
        if key in ("properties", "$defs")
        else _shape(value)
        for key, value in schema.items()
        if not (key in ("title", "description") and isinstance(value, str))
    }


def help_texts() -> dict[str, list[str]]:
    """Lines of `--help` of the tool and of each command, 100 columns wide, without colours."""
    texts = {}
    for words in _commands(get_command(app), ()):
        environment = {"COLUMNS": str(_WIDTH), "NO_COLOR": "1", "TERM": "xterm"}
        found = CliRunner().invoke(
            app, [*words, "--help"], prog_name="medisynth-gov", env=environment
        )
        plain = _STYLE.sub("", found.stdout)
        texts[" ".join(("medisynth-gov", *words))] = [line.rstrip() for line in plain.splitlines()]
    return texts


def _commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield words
    for name, child in sorted(getattr(command, "commands", {}).items()):
        yield from _commands(child, (*words, name))


def error_codes() -> dict[str, Any]:
    """Error codes in the source, and code and exit code of every class of errors.

    Read from the source, not from the imported packages: a code counts wherever it stands. Which
    code a fault gets is not held here; the tests of each fault hold that.
    """
    codes: set[str] = set()
    classes: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for package in PACKAGES:
        for path in sorted({*(ROOT / package).rglob("*.py")} - {LIST_OF_CODES}):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    codes.update(_CODE_IN_A_MESSAGE.findall(node.value))
                    codes.update({node.value} if _CODE.fullmatch(node.value) else ())
                if isinstance(node, ast.ClassDef):
                    bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                    classes[node.name] = bases, _constants(node)
    found = {name: _code_and_exit_code(name, classes) for name in sorted(classes)}
    return {"codes": sorted(codes), "classes": {name: pair for name, pair in found.items() if pair}}


def _constants(node: ast.ClassDef) -> dict[str, Any]:
    return {
        statement.targets[0].id: statement.value.value
        for statement in node.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Name)
        and statement.targets[0].id in ("code", "exit_code")
        and isinstance(statement.value, ast.Constant)
    }


def _code_and_exit_code(
    name: str, classes: Mapping[str, tuple[list[str], dict[str, Any]]]
) -> dict[str, Any]:
    if name not in classes:
        return {}
    bases, own = classes[name]
    inherited: dict[str, Any] = {}
    for base in reversed(bases):
        if base != name:
            inherited |= _code_and_exit_code(base, classes)
    return inherited | own


def phantom_digests() -> dict[str, dict[str, str]]:
    """SHA-256 of the table and of all pictures of phantoms, by settings.

    Pixels are digested, not files: how a PNG is compressed is the affair of a library.
    """
    found = {}
    for name, settings in PHANTOMS.items():
        with TemporaryDirectory() as folder:
            root = Path(folder) / "phantoms"
            write_phantoms(root, settings, n_workers=1)
            pictures = hashlib.sha256()
            for path in sorted(root.rglob("*.png")):
                with Image.open(path) as picture:
                    pixels = np.asarray(picture)
                pictures.update(f"{path.name} {pixels.shape} {pixels.dtype}\n".encode())
                pictures.update(pixels.tobytes())
            (table,) = root.glob("*.csv")
            found[name] = {
                "table": hashlib.sha256(table.read_bytes()).hexdigest(),
                "pictures": pictures.hexdigest(),
            }
    return found
