"""The model card: Markdown with Hugging Face front matter, and the same content as JSON."""

import json
from collections.abc import Mapping
from io import StringIO
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from governance.records.dataset import DatasetIdentity
from governance.records.evaluation import EvaluationRecord, MetricResult
from governance.records.people import SigningRecord
from governance.records.training import TrainingRecord
from governance.reports import formats
from governance.reports.blocks import Block, Bullets, Cell, Facts, Heading, Table, Text, Verdict
from governance.reports.card.fields import CardSection, Field, card_sections
from governance.reports.draw.markdown import (
    line_text,
    markdown_block,
    markdown_paragraph,
    markdown_text,
)
from governance.reports.evidence import ReportEvidence
from governance.reports.sections.front import (
    STATEMENT,
    conditions,
    full_titles,
    gate_sentences,
    report_title,
    verdict,
)
from governance.reports.sections.limits_and_plan import DRAFT_NOTE
from governance.reports.sections.metrics import metric_texts
from governance.reports.sections.people import waiver_sentences

CARD_FORMAT = "medisynth-gov/model-card/1"
_TASK = "unconditional-image-generation"
_JSON_TEXT_CHARACTERS = 12_000


class Completeness(NamedTuple):
    """Numbers of fields that are filled or give a reason instead, and ids of empty ones."""

    n_filled: int
    n_reasoned: int
    empty: tuple[str, ...]


def write_model_card(evidence: ReportEvidence) -> tuple[bytes, bytes]:
    """Write the card; equal evidence gives equal bytes.

    Args:
        evidence: Evidence whose digests were checked.

    Returns:
        Markdown and JSON files, both UTF-8, with the same content. The JSON file validates
        against `model_card.schema.json`.
    """
    sections = card_sections(evidence)
    matter = _front_matter(evidence)
    card = _as_json(evidence, sections, matter)
    text = json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return _as_markdown(evidence, sections, matter).encode(), text.encode()


def completeness(card_json: bytes | str | Mapping[str, Any]) -> Completeness:
    """Count the fields that are filled or give a reason instead, and name the empty ones.

    A field that is marked as filled but holds no word is empty.

    Args:
        card_json: The card's JSON file, as bytes, text or parsed.
    """
    card = card_json if isinstance(card_json, Mapping) else json.loads(card_json)
    n_filled = n_reasoned = 0
    empty = []
    for section in card["sections"]:
        for field in section["fields"]:
            if field["state"] == "filled" and _has_words(field["content"]):
                n_filled += 1
            elif field["state"] != "filled" and field["reason"].strip():
                n_reasoned += 1
            else:
                empty.append(f"{section['id']}.{field['id']}")
    return Completeness(n_filled, n_reasoned, tuple(empty))


def _has_words(content: Any) -> bool:
    """Whether a field's content holds a text that is not blank; block types do not count."""
    if isinstance(content, Mapping):
        return any(_has_words(part) for key, part in content.items() if key != "type")
    if isinstance(content, list | tuple):
        return any(_has_words(part) for part in content)
    return isinstance(content, str) and bool(content.strip())


def card_head(evidence: ReportEvidence) -> dict[str, Any]:
    """Return the head of the card: title, sentences to know first, Hugging Face metadata."""
    return {
        "title": report_title(evidence),
        "conditions": list(_to_know(evidence)),
        "front_matter": _front_matter(evidence),
    }


def _front_matter(evidence: ReportEvidence) -> dict[str, Any]:
    """Return the Hugging Face metadata; the weights' licence is given as not declared."""
    evaluation = evidence.get(EvaluationRecord)
    data = evidence.get(DatasetIdentity)
    measured = [
        metric for metric in (evaluation.metrics if evaluation else ()) if metric.value is not None
    ]
    tags = ["synthetic-images", "not-a-medical-device", "research-use", evidence.run.generator]
    matter: dict[str, Any] = {
        "license": "other",
        "license_name": "not-declared",
        "library_name": "medisynth-gov",
        "tags": tags + (["simulated-data"] if data and data.is_simulated else []),
        "datasets": [data.name] if data else [],
        "metrics": sorted({_metric_type(metric) for metric in measured}),
        "model-index": [{"name": report_title(evidence), "results": _results(evidence, measured)}],
    }
    return matter


def _metric_type(metric: MetricResult) -> str:
    return metric.id.split("-", 1)[0]


def _results(evidence: ReportEvidence, measured: list[MetricResult]) -> list[dict[str, Any]]:
    """Return one result for each subgroup, with numbers rounded as the card prints them."""
    data = evidence.get(DatasetIdentity)
    if data is None or not measured:
        return []
    results = []
    for subgroup in dict.fromkeys(metric.subgroup for metric in measured):
        part = [metric for metric in measured if metric.subgroup == subgroup]
        results.append(
            {
                "task": {"type": _TASK, "name": "Unconditional image generation"},
                "dataset": {
                    "type": data.name,
                    "name": f"{data.title} ({subgroup})" if subgroup else data.title,
                    "split": part[0].partition,
                    "revision": formats.short(data.content_sha256),
                },
                "metrics": [
                    {
                        "type": _metric_type(metric),
                        "name": f"{metric.title} ({metric.id})",
                        "value": printed_number(metric),
                    }
                    for metric in part
                ],
            }
        )
    return results


def printed_number(metric: MetricResult) -> float:
    """Return a metric's value rounded as reports print it."""
    text = metric_texts(metric)[0].replace("\u2212", "-").replace(",", "")
    return float(text)


def _represent_float(representer: RoundTripRepresenter, value: float) -> ScalarNode:
    """Write floats without exponent: YAML 1.1 readers take 1e-05 for text."""
    plain = f"{value:.12f}".rstrip("0")
    text = f"{plain}0" if plain.endswith(".") else plain
    return representer.represent_scalar("tag:yaml.org,2002:float", text)


class _Representer(RoundTripRepresenter):
    """Round-trip representer with its own format of floats; the library's is not changed."""


_Representer.add_representer(float, _represent_float)


def _yaml(value: Any) -> str:
    """Return YAML in which every text is quoted, so that none is read as another type."""
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.width = 100_000
    stream = StringIO()
    yaml.dump(_quoted(value), stream)
    return stream.getvalue()


def _quoted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _quoted(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_quoted(entry) for entry in value]
    if isinstance(value, str):
        return DoubleQuotedScalarString(formats.clean(value, _JSON_TEXT_CHARACTERS))
    return value


def _as_markdown(
    evidence: ReportEvidence, sections: tuple[CardSection, ...], matter: dict[str, Any]
) -> str:
    shown = verdict(evidence)
    parts = [
        f"---\n{_yaml(matter)}---",
        f"# {markdown_text(report_title(evidence))}",
        markdown_paragraph(full_titles(evidence)),
        f"**{STATEMENT}**",
        _verdict_markdown(shown),
        "\n".join(f"- {markdown_paragraph(sentence)}" for sentence in _to_know(evidence)),
    ]
    for place, section in enumerate(sections, start=1):
        parts.append(f"## {place}. {section.title}")
        parts.extend(_field_markdown(field) for field in section.fields)
    parts.append(f"---\n\n{markdown_paragraph(DRAFT_NOTE)}")
    return "\n\n".join(parts) + "\n"


def _verdict_markdown(shown: Verdict) -> str:
    """Return the boxes as a list, worst first, then the sentence of the whole."""
    if not shown.boxes:
        return f"**{shown.mark} {markdown_text(shown.headline)}.** {markdown_text(shown.sentence)}"
    lines = [
        f"- **{box.status.mark} {markdown_text(box.title)}: {markdown_text(box.status.text)}.** "
        f"{markdown_text(box.sentence)}"
        for box in shown.boxes
    ]
    return "\n".join(lines) + f"\n\n{markdown_text(shown.sentence)}"


def _to_know(evidence: ReportEvidence) -> tuple[str, ...]:
    """Return gate items that are not passed, waivers, then the conditions of page 1."""
    return (*gate_sentences(evidence), *waiver_sentences(evidence), *conditions(evidence))


def _field_markdown(field: Field) -> str:
    parts = [f"### {markdown_text(field.title)}"]
    if field.state != "filled":
        parts.append(f"*{field.state}*: {markdown_text(field.reason)}")
    else:
        parts.extend(markdown_block(block) for block in field.content)
        if field.reason:
            parts.append(f"*{markdown_text(field.reason)}*")
    return "\n\n".join(part for part in parts if part)


def _as_json(
    evidence: ReportEvidence, sections: tuple[CardSection, ...], matter: dict[str, Any]
) -> dict[str, Any]:
    evaluation = evidence.get(EvaluationRecord)
    training = evidence.get(TrainingRecord)
    shown, manifest, data = verdict(evidence), evidence.manifest, evidence.get(DatasetIdentity)
    card: dict[str, Any] = {
        "format": CARD_FORMAT,
        "title": report_title(evidence),
        "statement": STATEMENT,
        "based_on": DRAFT_NOTE,
        "run_id": manifest.run_id,
        "tool_version": evidence.run.tool_version,
        "verdict": {
            "headline": shown.headline,
            "sentence": shown.sentence,
            "boxes": [
                {"title": box.title, "result": box.status.text, "sentence": box.sentence}
                for box in shown.boxes
            ],
            "gate": evidence.summary.gate.value,
            "exit_code": evidence.summary.exit_code,
        },
        "conditions": list(_to_know(evidence)),
        "waivers": [line.model_dump(mode="json") for line in evidence.summary.waivers],
        "front_matter": matter,
        "sections": [_section_json(place, part) for place, part in enumerate(sections, start=1)],
        "metrics": [_metric_json(metric) for metric in (evaluation.metrics if evaluation else ())],
        "principles": [
            line.model_dump(mode="json", exclude={"gaps"}) for line in evidence.summary.principles
        ],
        "hashes": {
            "evidence_root": manifest.evidence_root,
            "journal_head": manifest.journal_head,
            "journal_events": manifest.journal_events,
            "previous_run": manifest.previous_run,
            "commit": evidence.run.code_commit,
            "config": evidence.run.config_sha256,
            "data_content": data.content_sha256 if data else None,
            "checkpoint": training.checkpoint_sha256 if training else None,
        },
        "signing": _signing_json(evidence.get(SigningRecord) or SigningRecord()),
    }
    card = _cleaned(card)
    return card | {"completeness": completeness(card)._asdict()}


def _signing_json(signing: SigningRecord) -> dict[str, Any]:
    """Return who was to sign; the signature itself is written after the card."""
    facts = signing.model_dump(include={"key_id", "identity", "timestamp_url"})
    return {"sentence": signing.sentence, **facts}


def _section_json(place: int, section: CardSection) -> dict[str, Any]:
    return {
        "number": place,
        "id": section.id,
        "title": section.title,
        "fields": [
            {
                "id": field.id,
                "title": field.title,
                "origin": field.origin,
                "state": field.state,
                "reason": field.reason,
                "content": [_block_json(block) for block in field.content],
            }
            for field in section.fields
        ],
    }


# Fields of metrics that documents of older versions lack.
_LATER_FIELDS = ("interval_method", "synthetic_from")


def _metric_json(metric: MetricResult) -> dict[str, Any]:
    """Return the exact numbers of a metric, and the same as reports print them.

    Fields that a document of an older version lacks are left out, so that its card stays the same.
    """
    value, interval, floor, floor_interval = metric_texts(metric)
    printed = {
        "value": value,
        "ci95": interval,
        "floor": floor,
        "floor_ci95": floor_interval,
    }
    lacking = {name for name in _LATER_FIELDS if name not in metric.model_fields_set}
    return metric.model_dump(mode="json", exclude=lacking) | {"printed": printed}


def _block_json(block: Block) -> dict[str, Any]:
    if isinstance(block, Text | Heading):
        return {"type": "text", "text": block.text}
    if isinstance(block, Bullets):
        return {"type": "list", "items": list(block.items)}
    if isinstance(block, Facts):
        rows = [{"name": name, "value": _cell_text(value)} for name, value in block.rows]
        return {"type": "facts", "rows": rows}
    if isinstance(block, Table):
        return {
            "type": "table",
            "columns": [column.title for column in block.columns],
            "rows": [[_cell_text(value) for value in row] for row in block.rows],
            "note": block.note,
        }
    raise TypeError(f"a card holds no {type(block).__name__}")


def _cell_text(cell: Cell) -> str:
    return "; ".join(line_text(line) for line in cell)


def _cleaned(value: Any) -> Any:
    """Return a JSON value in which every text is cleaned for display."""
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(entry) for entry in value]
    return formats.clean(value, _JSON_TEXT_CHARACTERS) if isinstance(value, str) else value
