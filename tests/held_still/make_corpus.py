"""How the run folders beside this file were made; kept so that a reader can see it.

    python -m tests.held_still.make_corpus /tmp/w

makes a workspace, carries out five runs in it and packs them into this folder, with what
verification needs besides. It is not meant to be run again: the stored runs are the format 1 of
their day, and tests ask whether later code still reads and verifies them and draws the same card
and reports. A corpus of a later format goes beside this one.

Everything about a run is in `configurations` and in the files that `hostile_data`, `failing_data`
and `hostile_people` write. The private keys stay in the workspace.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.governance.signing.time_stamp_authority import local_authority, served

HERE = Path(__file__).resolve().parent
NAMES = ("finished", "signed", "blocked_at_s2", "resumed", "hostile_names")

# A browser would run the first two; a table of Markdown, a template and a shell would act on others.
MARKUP = "<script>alert('x')</script>"
ATTRIBUTE = '"><img src=x onerror=alert(1)>'
TABLE = "a | b || c |---| `code` **bold** [link](javascript:alert(1)) <!-- end"
TEMPLATE = "${HOME} $(id) {{ 7*7 }} {% raw %} %s %(x)s {0} \\n \\u0041 \\"
RIGHT_TO_LEFT = "\u05d0\u05d1\u05d2 \u0645\u0631\u062d\u0628\u0627 (1)"
COMBINED = "e\u0301\u0302\u0303 \u00df\u0130\ufb01 \u65e5\u672c \U0001f476\U0001f3fd \u2028 \u00a0|"
LONG = "Donaudampfschifffahrtselektrizitaeten" * 4
EVERYTHING = " ".join((MARKUP, ATTRIBUTE, TABLE, TEMPLATE, RIGHT_TO_LEFT, COMBINED, LONG))

PHANTOMS = {"phantom": {"n_patients": 16, "seed": 0, "image_height_px": 64}, "cache": "off"}
# Of the simulator that made the stored runs, version 1.0; a corpus made anew has another.
PHANTOM_DIGEST = "8b3c7179e1933b9b7e2b21013c85cffe4c5de192e5cfbad51acc26a54bbc6668"
TINY_DSR_GAN = {
    "name": "dsr-gan",
    "settings": {
        "score_images": 16,
        "diffusion": {
            **{"size": 8, "channels": [8, 8], "steps": 30, "warm_up_steps": 5},
            **{"batch_size": 8, "sampler_steps": 4},
        },
        "super_resolution": {
            **{"to": 16, "channels": 8, "blocks": 1, "discriminator_channels": 8},
            **{"steps": 20, "batch_size": 8, "crop": 16},
        },
    },
}
TINY_TB_GAN = {
    "name": "tb-gan",
    "settings": {
        **{"widths": [16, 16], "tail_width": 16, "discriminator_widths": [16, 16, 16]},
        "schedule": [{"name": "adversarial", "plane": "all", "steps": 20}],
    },
}
EVALUATION = {"n_synthetic": 16, "max_real": 16, "n_bootstrap": 50}
COMMON = {
    "preset": "smoke",
    "data": PHANTOMS,
    "model": TINY_DSR_GAN,
    "evaluation": EVALUATION | {"extractor": "none"},
    "tracking": {"enabled": False},
    "training": {"preview_every": 0},
}


def configurations(workspace: Path, authority: str) -> dict[str, dict[str, Any]]:
    """What each run asks for, by the name of the run."""
    common = COMMON | {"workspace": str(workspace)}
    return {
        "finished": common
        | {
            "data": PHANTOMS | {"digest": PHANTOM_DIGEST},
            "evaluation": EVALUATION | {"extractor": "inception"},
            "training": {"preview_every": 20},
        },
        "signed": common
        | {
            "data": PHANTOMS | {"digest": PHANTOM_DIGEST},
            "model": TINY_TB_GAN,
            "signing": {
                "key": str(workspace / "signer" / "signing_key.pem"),
                "identity": "A. Person, University Hospital",
                "timestamp_url": authority,
            },
        },
        "blocked_at_s2": common
        | {"data": {"path": str(workspace / "data" / "failing"), "cache": "off"}},
        "resumed": common | {"training": {"preview_every": 0, "commit_every": 5}},
        "hostile_names": common
        | {
            "data": {"path": str(workspace / "data" / "hostile"), "cache": "off"},
            "declarations": str(workspace / "people" / "declarations.yaml"),
            "hazards": [f"{EVERYTHING.replace(':', ' ')}: P6-04, P7-H2"],
            "criteria": {"P3-03": 3},
            "audit": {
                "target_population": str(workspace / "people" / "target.yaml"),
                "reviewed": [f"Ward: {EVERYTHING}", f"labels: {EVERYTHING}"],
                "smallest_cell": 2,
            },
            "evidence": {
                "vulnerability_scan": str(workspace / "people" / "scan.json"),
                "accepted_vulnerabilities": [f"PYSEC-1: {EVERYTHING}"],
            },
            "lineage": {
                "parent": "auto",
                "reason": EVERYTHING[:1000],
                "change_plan": [f"config: {EVERYTHING}", "data: *"],
            },
            "tracking": {"enabled": False, "experiment": EVERYTHING},
        },
    }


def failing_data(workspace: Path) -> None:
    """Phantoms with a contract of their own that none of them keeps: the run stops at s2."""
    folder = _copy_phantoms(workspace, "failing")
    contract = {
        "name": "our-hospital",
        "version": 1,
        "columns": {
            "width_px": {
                **{"min": 400, "max": 2000, "severity": "critical"},
                "reason": "Our scanners export frames between 400 and 2000 pixels wide.",
            }
        },
    }
    _write_yaml(folder / "data_contract.yaml", contract)


def hostile_data(workspace: Path) -> None:
    """Phantoms whose operators, machines and wards have hostile names, with a hostile contract."""
    folder = _copy_phantoms(workspace, "hostile")
    table = folder / "FETAL_PLANES_DB_data.csv"
    head, *rows = table.read_text("utf-8").splitlines()
    names = {"Op. 1": MARKUP, "Op. 2": ATTRIBUTE, "Op. 3": RIGHT_TO_LEFT}
    machines = {"Voluson E6": TABLE, "Voluson S10": LONG, "Aloka": TEMPLATE}
    wards = (MARKUP, ATTRIBUTE, TABLE, TEMPLATE, RIGHT_TO_LEFT)
    lines = [f"{head.rstrip()};Ward"]
    for row in rows:
        cells = row.rstrip().split(";")
        cells[4] = names.get(cells[4], cells[4])
        cells[5] = machines.get(cells[5], cells[5])
        quoted = [_quoted(cell) for cell in (*cells, wards[int(cells[1]) % len(wards)])]
        lines.append(";".join(quoted))
    table.write_text("\n".join(lines) + "\n", "utf-8")
    contract = {
        "name": "hostile",
        "version": 1,
        "metadata": {
            "Ward": {"pattern": "[A-Z][0-9]", "severity": "warning", "reason": EVERYTHING}
        },
        "demographics": [
            {
                **{"name": "ward", "column": "Ward", "kind": "category"},
                **{"levels": list(wards[:4]), "note": EVERYTHING},
            }
        ],
    }
    _write_yaml(folder / "data_contract.yaml", contract)


def hostile_people(workspace: Path) -> None:
    """Declarations, a waiver, a target population and a scan that are as hostile as may be."""
    folder = workspace / "people"
    folder.mkdir()
    short = {"owner_name": f"{MARKUP} {RIGHT_TO_LEFT}", "owner_role": f"{ATTRIBUTE} {TABLE}"}
    entry = {
        **{"statement": EVERYTHING, "reference": f"{LONG} {TEMPLATE[:30]}", "date": "2026-10-01"},
        **{"meaning": "approver", "expires": "2999-12-31", "applies_to": {"model": "dsr-gan"}},
        **short,
    }
    scope = {
        "planes": ["Fetal brain", MARKUP],
        "machines": [TABLE, ATTRIBUTE, RIGHT_TO_LEFT],
        "image_size_px": {"min": 1, "max": 64},
        "output_roles": ["education"],
    }
    card = {"primary_uses": EVERYTHING, "out_of_scope": TABLE, "caveats": f"{LONG}\n\n# {MARKUP}"}
    known = _card_fields()
    first = {"id": "P1-H1", "scope": scope, "card": {k: v for k, v in card.items() if k in known}}
    first["card"] |= dict.fromkeys(known[:3], EVERYTHING)
    waiver = {
        **{"id": "P5-01", "author": f"{MARKUP} {LONG[:80]}", "reason": EVERYTHING},
        **{"expires": "2999-12-31", "applies_to": {"model": "dsr-gan"}},
    }
    _write_yaml(
        folder / "declarations.yaml",
        {
            "declarations": [entry | first, entry | {"id": "P1-H2"}, entry | {"id": "P7-H2"}],
            "waivers": [waiver],
        },
    )
    shares = {MARKUP: 0.5, ATTRIBUTE: 0.2, TABLE: 0.2, TEMPLATE: 0.1}
    target = {"name": EVERYTHING, "attributes": {"ward": {"shares": shares, "source": EVERYTHING}}}
    _write_yaml(folder / "target.yaml", target)
    found = [
        {"id": "PYSEC-1", "fix_versions": [MARKUP], "aliases": [TABLE], "severity": "high"},
        {"id": f"{MARKUP} {RIGHT_TO_LEFT} {LONG[:120]}", "fix_versions": [TEMPLATE]},
    ]
    scan = [{"name": "numpy", "version": "2.0", "vulns": found}]
    scan += [{"name": MARKUP, "skip_reason": EVERYTHING[:290]}]
    (folder / "scan.json").write_text(json.dumps({"dependencies": scan}), "utf-8")


def make(workspace: Path) -> None:
    """Carry out every run in a new workspace, and keep it in this folder."""
    workspace.mkdir()
    _command(workspace, "keygen", "--out", str(workspace / "signer"))
    found: dict[str, str] = {}
    authority = local_authority()
    with served(authority) as server:
        for name, asked in configurations(workspace, server.address).items():
            if name == "blocked_at_s2":
                failing_data(workspace)
                hostile_data(workspace)
                hostile_people(workspace)
            _write_yaml(workspace / f"{name}.yaml", asked)
            before = set(_runs(workspace))
            arguments = ("run", str(workspace / f"{name}.yaml"), "--json")
            if name == "resumed":
                _kill_in_training(workspace, arguments, before)
                (folder,) = set(_runs(workspace)) - before
                arguments = ("run", "--resume", str(folder), "--json")
            _command(workspace, *arguments)
            (folder,) = set(_runs(workspace)) - before
            found[name] = folder.name
    keep(workspace, found, authority.root_pem)


def keep(workspace: Path, found: dict[str, str], authority_pem: bytes) -> None:
    """Put every run and what verification needs besides into this folder.

    Args:
        workspace: Where the runs were made.
        found: Name of each run and its id.
        authority_pem: Certificate of the time-stamp authority.
    """
    (HERE / "runs").mkdir()
    for name, run_id in found.items():
        with tarfile.open(HERE / "runs" / f"{name}.tar.xz", "w:xz", preset=9) as archive:
            archive.add(workspace / "runs" / run_id, run_id, filter=_of_nobody)
    shutil.copytree(workspace / "ledger", HERE / "ledger")
    shutil.copyfile(workspace / "signer" / "signing_key.pub", HERE / "signing_key.pub")
    (HERE / "authority.pem").write_bytes(authority_pem)
    (HERE / "runs.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def _of_nobody(file: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the name and number of the user who made it."""
    file.uid = file.gid = 0
    file.uname = file.gname = ""
    return file


def _runs(workspace: Path) -> Iterable[Path]:
    return sorted((workspace / "runs").glob("*"))


def _start(workspace: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    """The command as its console script would start it, so that a run's record names no folder."""
    code = "import sys; sys.argv[0] = 'medisynth-gov'; from pipelines.cli.app import main; main()"
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", code, *arguments],
        cwd=workspace,
        stdout=sys.stderr,
        start_new_session=True,
        env=os.environ | {"NO_PROXY": "*"},
    )


def _command(workspace: Path, *arguments: str) -> None:
    code = _start(workspace, *arguments).wait()
    if code not in (0, 3, 9):  # done, data refused, a gate item open
        raise SystemExit(f"medisynth-gov {' '.join(arguments)}: exit {code}")


def _kill_in_training(workspace: Path, arguments: tuple[str, ...], before: set[Path]) -> None:
    """Start a run and end it and its training process at once after three committed states."""
    process = _start(workspace, *arguments)
    while process.poll() is None:
        journals = [folder / "journal.jsonl" for folder in set(_runs(workspace)) - before]
        texts = [path.read_bytes() for path in journals if path.is_file()]
        if any(text.count(b'"step committed"') >= 3 for text in texts):
            break
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for group in (process.pid, *map(int, children)):
        os.killpg(group, signal.SIGKILL)
    process.wait()


def _copy_phantoms(workspace: Path, name: str) -> Path:
    (phantoms,) = (workspace / "data").glob("phantom-*")
    folder = workspace / "data" / name
    shutil.copytree(phantoms, folder)
    return folder


def _card_fields() -> list[str]:
    from governance.reports.card.fields import DECLARABLE_FIELDS

    return list(DECLARABLE_FIELDS)


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def _write_yaml(path: Path, content: dict[str, Any]) -> None:
    writer = YAML(typ="safe", pure=True)
    writer.representer.ignore_aliases = lambda _: True
    with path.open("w", encoding="utf-8") as stream:
        writer.dump(content, stream)


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve())
