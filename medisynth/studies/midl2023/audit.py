"""The whole audit: the paper's claims beside recomputed values, as text, JSON and page."""

import json
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path

from governance.records.files import sha256_file, write_atomic
from medisynth.studies.midl2023.findings import CODE, PAPER, Finding, Value, Verdict
from medisynth.studies.midl2023.log_files import FILES, Logs, read_logs
from medisynth.studies.midl2023.logs import (
    images_an_epoch,
    logged_fids,
    pseudo_augmentation,
    smallest_of_many,
    still_discriminator,
    two_different_fids,
)
from medisynth.studies.midl2023.table import (
    patients_on_both_sides,
    pretraining_images,
    read_table,
    training_images,
)
from medisynth.studies.midl2023.upscaler import upscaler_wiring, upscaler_wiring_missing

READ_IN_THE_CODE = (
    "TB-GAN's learning rates are 2e-4 for the discriminator and 5e-5 for the generator; the paper "
    "says 1e-4 and 1e-5.",
    "TB-GAN has neither an R1 penalty nor an averaged generator nor spectral normalisation; "
    "pseudo-real images are not augmented.",
    "The diffusion network starts from one trained on faces.",
)
"""Deviations read in the notebooks of the published code; no log or table shows them."""

CHANNELS, BLOCKS = 64, 5
"""Channels and residual blocks of the published upscaler, 128 to 256 pixels."""

_TITLE = "Reproduction audit"
_WIDTH = 100


@dataclass(frozen=True)
class Inputs:
    """Inputs of the audit.

    Attributes:
        table: Metadata table of FETAL_PLANES_DB.
        logs: Folder with the five published logs.
        images: Folders of real frames, PNG; none leaves findings 3 and 7 out.
        synthetic: Folder of synthetic pictures; None leaves finding 7 out.
        networks: Whether to build the published upscaler (imports torch).
        weights: Inception weights; None leaves finding 3 out.
    """

    table: Path
    logs: Path
    images: tuple[Path, ...] = ()
    synthetic: Path | None = None
    networks: bool = False
    weights: Path | None = None


@dataclass(frozen=True)
class Audit:
    """Findings, and the files that they come from.

    Attributes:
        findings: In order of their numbers.
        files: Name and SHA-256 of the table and of each log.
    """

    findings: tuple[Finding, ...]
    files: tuple[tuple[str, str], ...]


def audit(inputs: Inputs) -> Audit:
    """Recompute every finding that the inputs allow; the others state what is missing.

    Raises:
        DataError: An input is missing, damaged or of another kind.
        WeightsError: The weights are not the pinned ones.
    """
    table, logs = read_table(inputs.table), read_logs(inputs.logs)
    scales, black, copy = _pictures(inputs, logs)
    findings = (
        training_images(table),
        pretraining_images(table),
        logged_fids(logs),
        two_different_fids(table, logs, scales),
        black,
        smallest_of_many(logs),
        still_discriminator(logs),
        images_an_epoch(table, logs),
        _wiring(asked=inputs.networks),
        pseudo_augmentation(table, logs),
        patients_on_both_sides(table),
        copy,
    )
    digests = [(name, sha256_file(inputs.logs / name)) for name in FILES]
    return Audit(findings, ((table.file, table.sha256), *digests))


def _pictures(inputs: Inputs, logs: Logs) -> tuple[tuple[Value, ...], Finding, Finding]:
    """Return values for finding 2.2, and findings 3 and 7."""
    from medisynth.studies.midl2023 import images as pictures

    copy = pictures.known_positive_missing("needs --images and --synthetic")
    if not inputs.images:
        return (), pictures.black_reference_missing("needs --images, folders of real frames"), copy
    if inputs.synthetic is not None:
        small = pictures.thumbnail
        real = [f for folder in inputs.images for f in pictures.read_frames(folder, small)]
        copy = pictures.known_positive(pictures.read_frames(inputs.synthetic, small), real)
    if inputs.weights is None:
        reason = "the Inception weights are not there; run `medisynth-gov weights fetch`"
        return (), pictures.black_reference_missing(reason), copy
    from medisynth.studies.midl2023.networks import early_layers

    extract = early_layers(inputs.weights)
    measured = []
    for folder in inputs.images:
        frames = pictures.read_frames(folder, pictures.square, pictures.MAX_FRAMES)
        found = pictures.distances(_folder_name(folder), frames, extract)
        if found is not None:
            measured.append(found)
    if not measured:
        reason = "no folder has four frames of two patients or more"
        return (), pictures.black_reference_missing(reason), copy
    return pictures.layer_scales(measured), pictures.black_reference(logs, measured), copy


def _folder_name(folder: Path) -> str:
    """Name a folder by the last two parts of its path, since many are called "images"."""
    return "/".join(folder.resolve().parts[-2:])


def _wiring(*, asked: bool) -> Finding:
    if not asked:
        return upscaler_wiring_missing()
    from medisynth.studies.midl2023.dsr_gan_published.classic_srgan import ClassicEnlarger
    from medisynth.studies.midl2023.networks import parameters_without_gradient

    return upscaler_wiring(
        *(
            parameters_without_gradient(ClassicEnlarger(CHANNELS, BLOCKS, 2, broken=broken))
            for broken in (True, False)
        )
    )


def as_json(result: Audit) -> str:
    """Encode the audit as JSON; numbers unrounded, non-finite ones as null."""
    facts = {
        "paper": PAPER,
        "code": CODE,
        "files": [{"name": name, "sha256": digest} for name, digest in result.files],
        "findings": [asdict(finding) for finding in result.findings],
        "read_in_the_code": list(READ_IN_THE_CODE),
    }
    return json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False)


def as_text(result: Audit) -> str:
    """Format the audit as text for the screen."""
    blocks = [_text_block(finding) for finding in result.findings]
    heard = [_wrapped("read, not recomputed", line) for line in READ_IN_THE_CODE]
    return "\n\n".join([f"{_TITLE} of {PAPER}", *blocks, "\n".join(heard), _tally(result)])


def _text_block(finding: Finding) -> str:
    lines = [f"{finding.number}  {finding.title}: {finding.verdict}"]
    lines.append(_wrapped("claim", f"{finding.claim} ({finding.where})"))
    for value in finding.values:
        lines.append(_wrapped("found", f"{value.name}: {value.shown} [{value.rule}]"))
    lines.append(_wrapped("because", finding.because))
    lines.append(_wrapped("source", finding.source))
    if finding.read:
        lines.append(_wrapped("read in the code, not recomputed", finding.read))
    return "\n".join(lines)


def _wrapped(label: str, text: str) -> str:
    return textwrap.fill(
        f"{label}: {text}",
        _WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _tally(result: Audit) -> str:
    counts = {verdict: sum(f.verdict is verdict for f in result.findings) for verdict in Verdict}
    return "; ".join(f"{n} {verdict}" for verdict, n in counts.items() if n)


def as_page(result: Audit) -> bytes:
    """Format the audit as Markdown, without date or path: the same data give the same bytes."""
    lines = [
        f"# {_TITLE}",
        "",
        f"What Iskandar et al., *Towards Realistic Ultrasound Fetal Brain Imaging Synthesis* (MIDL 2023, {PAPER}),",
        "report, beside what the public metadata table and the published logs give. Written by",
        "`medisynth-gov reproduction-audit`; every number carries the rule to compute it by hand. A verdict is on",
        "a number or a statement, not on its authors; what only the published code shows is marked as read, not recomputed.",
        "",
        f"Result: {_tally(result)}.",
        "",
        "| Finding | Claim | Verdict |",
        "|---|---|---|",
        *(
            f"| [{f.number}](#{_anchor(f)}) {f.title} | {_cell(f.claim)} | {f.verdict} |"
            for f in result.findings
        ),
        "",
    ]
    for finding in result.findings:
        lines += _page_section(finding)
    lines += ["## Read in the published code, not recomputed", ""]
    lines += [f"- {line}" for line in READ_IN_THE_CODE]
    lines += ["", f"Code: {CODE}.", "", "## Files", "", "| File | SHA-256 |", "|---|---|"]
    lines += [f"| {name} | `{digest}` |" for name, digest in result.files]
    return ("\n".join(lines) + "\n").encode()


def _page_section(finding: Finding) -> list[str]:
    lines = [
        f"## {finding.number} {finding.title}",
        "",
        f"**{str(finding.verdict).capitalize()}.** {finding.because}",
        "",
        f"Claim: {finding.claim}; {finding.where}.",
        "",
    ]
    if finding.values:
        lines += ["| Recomputed | Value | Rule |", "|---|---|---|"]
        lines += [
            f"| {_cell(v.name)} | {_cell(v.shown)} | {_cell(v.rule)} |" for v in finding.values
        ]
        lines.append("")
    lines += [f"Source: {finding.source}.", ""]
    if finding.read:
        lines += [f"Read in the published code, not recomputed here: {finding.read}.", ""]
    return lines


def _anchor(finding: Finding) -> str:
    """Anchor of a finding's heading, as code hosts generate it."""
    heading = f"{finding.number} {finding.title}".lower()
    return "".join(c for c in heading if c.isalnum() or c in " -").replace(" ", "-")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def write_page(result: Audit, path: Path) -> None:
    """Write the Markdown page to a file.

    Raises:
        RecordWriteError: The file cannot be written.
    """
    write_atomic(path, as_page(result))
