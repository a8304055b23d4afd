"""Check the drafted card and report before the evidence is closed.

Four questions: is every field filled or explained, which files does each part come from, is every
limit listed, and do card, JSON twin and page agree, without forbidden words?
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import cache, partial
from html import unescape
from typing import Any, Literal

from pydantic import BaseModel

from governance.evidence.folder import D
from governance.evidence.manifest import MANIFEST
from governance.records.base import Document
from governance.records.dataset import DatasetIdentity
from governance.records.item import CardCheck, FoundWord, TracedPart
from governance.records.rollup import RollUp
from governance.records.run import Figures, Plan
from governance.reports import formats
from governance.reports.blocks import Report, Section, block_texts, section_texts
from governance.reports.card.fields import FIELD_IDS, card_field
from governance.reports.card.write import card_head, completeness, write_model_card
from governance.reports.draw.html import html_page
from governance.reports.draw.markdown import markdown_paragraph, markdown_text
from governance.reports.evidence import ReportEvidence
from governance.reports.items import ItemView, item_views
from governance.reports.sections.front import front_blocks, strip_rows, verdict
from governance.reports.sections.limits_and_plan import limits_section
from governance.reports.sections.order import SECTIONS, build_report

RECORDS = "records/"
# Files that hold what a report reads besides documents.
_PATHS = {
    "summary": RollUp.PATH,
    "records": RECORDS,
    "manifest": MANIFEST,
    "digests": MANIFEST,
    "policy": Plan.PATH,
    "pictures": Figures.PATH,
}
# Written after the check, from the objects that it read; the manifest lists their digests.
_WRITTEN_LATER = frozenset({RECORDS, RollUp.PATH, MANIFEST})
_NUMBER = re.compile(r"(?<![\w.,-])\d+(?:,\d{3})*(?:\.\d+)?(?!\w)")
_TIME = re.compile(r"(?<=\d)T(?=\d)")  # 2026-11-02T09:30 is printed with a blank
_MOST_PLACES = 6
_AROUND_CHARACTERS = 40
_WORDS = {
    "compliant": re.compile(r"\b(?:non-?)?complian(?:t|ce)\b", re.I),
    "certified": re.compile(r"\bcertified\b", re.I),
    "ground truth": re.compile(r"\bground[ -]truth\b", re.I),
    # Data validation is a step of its own; what a checkpoint is chosen on is called tuning.
    "validation": re.compile(
        r"\bvalidation[ -](?:set|loss|images?|patients?|partition|split|curves?|accuracy|scores?|"
        r"fold|view|error|metrics?|performance)\b|\btrain(?:ing)?(?:,| and|/) ?validation\b",
        re.I,
    ),
}
_WORD_ITEM = "P9-08"
Output = Literal["card", "report"]


def check_card(evidence: ReportEvidence) -> CardCheck:
    """Draft card and report from evidence and check them; the PDF is not drawn.

    Args:
        evidence: Evidence as far as it is on record; `draft_evidence` reads it.
    """
    markdown, card = (part.decode() for part in write_model_card(evidence))
    report = build_report(evidence)
    page = html_page(report).decode()
    return check_outputs(evidence, report, markdown=markdown, card=json.loads(card), page=page)


def check_outputs(
    evidence: ReportEvidence, report: Report, *, markdown: str, card: Mapping[str, Any], page: str
) -> CardCheck:
    """Check a rendered card and report.

    Args:
        evidence: What they were rendered from.
        report: Content of the report.
        markdown: The card.
        card: Its JSON twin.
        page: The report as HTML.
    """
    n_filled, n_reasoned, empty = completeness(card)
    items = item_views(evidence)
    parts, untraced = _trace(evidence)
    n_limits, unlisted = _limits(evidence, items, card)
    n_compared, disagreements = _compare(report, markdown, card, page_text(page))
    return CardCheck(
        n_filled=n_filled,
        n_reasoned=n_reasoned,
        empty_fields=empty,
        parts=parts,
        untraced=untraced,
        n_limits=n_limits,
        unlisted=unlisted,
        n_compared=n_compared,
        disagreements=disagreements,
        words=_found_words(evidence, card, page_text(page)),
    )


# ---------------------------------------------------------------- which files are behind a part


_Part = str | type[Document]  # a name in _PATHS, or the class of a document


class _Reading(ReportEvidence):
    """Evidence that records which of its parts were read."""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name in _PATHS and value is not None:
            super().__getattribute__("seen").add(name)
        return value

    def get(self, kind: type[D]) -> D | None:
        document = super().get(kind)
        if document is not None:
            super().__getattribute__("seen").add(kind)
        return document


def _reading(evidence: ReportEvidence) -> tuple[ReportEvidence, set[_Part]]:
    reader, seen = object.__new__(_Reading), set[_Part]()
    object.__setattr__(reader, "seen", seen)
    for field in fields(evidence):
        object.__setattr__(reader, field.name, getattr(evidence, field.name))
    return reader, seen


def _parts() -> Iterator[tuple[Output, str, Callable[[ReportEvidence], Iterator[str]]]]:
    """Yield every part of card and report, and the function that writes its texts."""
    yield "card", "head", lambda evidence: _strings(card_head(evidence))
    for field_id in FIELD_IDS:
        yield "card", field_id, partial(_field_texts, field_id)
    yield "report", "page_1", _page_one
    for section in SECTIONS:
        name = re.sub(r"_sections?$", "", section.__name__)
        yield "report", name, partial(_written, section)


def _field_texts(field_id: str, evidence: ReportEvidence) -> Iterator[str]:
    field = card_field(evidence, field_id)
    yield field.reason
    for block in field.content:
        yield from block_texts(block)


def _written(
    section: Callable[[ReportEvidence], Section], evidence: ReportEvidence
) -> Iterator[str]:
    return section_texts(section(evidence))


def _page_one(evidence: ReportEvidence) -> Iterator[str]:
    yield verdict(evidence).sentence
    for name, text in strip_rows(evidence):
        yield from (name, text)
    for block in front_blocks(evidence):
        yield from block_texts(block)


def _trace(evidence: ReportEvidence) -> tuple[tuple[TracedPart, ...], tuple[str, ...]]:
    """Return parts that print numbers with the files read for them, and untraced numbers."""
    parts, untraced = [], []
    known = {*evidence.digests, *_WRITTEN_LATER}

    @cache
    def printed(part: _Part) -> frozenset[str]:
        value = getattr(evidence, part) if isinstance(part, str) else evidence.get(part)
        return _printed_numbers(value)

    for output, part, texts in _parts():
        reader, seen = _reading(evidence)
        numbers = [n for text in texts(reader) for n in _NUMBER.findall(text)]
        if not numbers:
            continue
        sources = sorted({_PATHS[x] if isinstance(x, str) else x.PATH for x in seen})
        if faults := [path for path in sources if path not in known] or (
            not sources and ["no file"]
        ):
            untraced.append(
                f"{output}, {part}: {formats.counted(len(numbers), 'number')} from {faults[0]}, "
                "which has no digest"
            )
        there = {number for x in seen for number in printed(x)}
        parts.append(
            TracedPart(
                output=output,
                part=part,
                n_numbers=len(numbers),
                computed=tuple(dict.fromkeys(n for n in numbers if n not in there)),
                sources=tuple(sources),
            )
        )
    return tuple(parts), (*untraced, *_untraced_items(evidence))


def _untraced_items(evidence: ReportEvidence) -> Iterator[str]:
    """Yield observed values of items whose artifact is missing or has another digest."""
    for record in evidence.records.values():
        if record.observed is None or record.observed.value is None:
            continue
        artifact = record.artifact
        if artifact is None or evidence.digests.get(artifact.path) != artifact.sha256:
            path = artifact.path if artifact else "no artifact"
            yield f"{record.id}: observed {record.observed.value}, {path} has no such digest"


def _printed_numbers(value: Any) -> frozenset[str]:
    """Return the numbers of a document in every form in which reports print them."""
    found: set[str] = set()
    for leaf in _leaves(value):
        if isinstance(leaf, str):
            found.update(_NUMBER.findall(_TIME.sub(" ", leaf)))
        elif isinstance(leaf, int):
            found.add(f"{abs(leaf):,}")
        elif isinstance(leaf, float):
            number = abs(leaf)
            found.update(f"{number:,.{places}f}" for places in range(_MOST_PLACES + 1))
            found.add(f"{100 * number:.1f}")
    return frozenset(found)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, BaseModel):
        yield from _leaves(value.model_dump(mode="json"))
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _leaves(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield value


# ---------------------------------------------------------------- limits


def _limits(
    evidence: ReportEvidence, items: tuple[ItemView, ...], card: Mapping[str, Any]
) -> tuple[int, tuple[str, ...]]:
    """Return the number of limits, and those that card or report leave out."""
    dataset = evidence.get(DatasetIdentity)
    in_card = " ".join(_strings([_field(card, "limits"), _field(card, "absent_attributes")]))
    in_report = " ".join(section_texts(limits_section(evidence)))
    gaps = [item.id for item in items if item.is_gap]
    absent = [a.name for a in dataset.absent_attributes] if dataset else []
    unlisted = [
        f"{name} in the {output}"
        for name in (*gaps, *absent)
        for output, text in (("card", in_card), ("report", in_report))
        if not re.search(rf"(?<!\w){re.escape(formats.clean(name))}(?!\w)", text)
    ]
    return len(gaps) + len(absent), tuple(unlisted)


def _field(card: Mapping[str, Any], field_id: str) -> Mapping[str, Any]:
    found = (f for section in card["sections"] for f in section["fields"] if f["id"] == field_id)
    return next(found, {})


# ---------------------------------------------------------------- agreement


def _compare(
    report: Report, markdown: str, card: Mapping[str, Any], page: str
) -> tuple[int, tuple[str, ...]]:
    """Return the number of texts looked for, and those that card or page lack."""
    found = [*_card_and_twin(markdown, card), *_page_and_content(report, page)]
    return len(found), tuple(dict.fromkeys(words for is_there, words in found if not is_there))


def _card_and_twin(markdown: str, card: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    """Look for every text of the JSON file in the Markdown under the heading of its field."""
    boxes = (text for box in card["verdict"]["boxes"] for text in box.values())
    verdict = (card["verdict"]["headline"], card["verdict"]["sentence"])
    for text in (card["title"], card["statement"], *verdict, *boxes, *card["conditions"]):
        if isinstance(text, str):
            yield _in_markdown(text, markdown), f"card without: {text[:60]}"
    written = re.split(r"^### ", markdown, flags=re.M)[1:]
    listed = [field for section in card["sections"] for field in section["fields"]]
    yield len(written) == len(listed), f"{len(written)} of {len(listed)} fields in the card"
    for field, text in zip(listed, written, strict=False):
        yield text.startswith(markdown_text(field["title"])), f"card, {field['id']}: title"
        for part in (field["reason"], *_strings(field["content"], skip=("type",))):
            lines = part.split("; ") if not _in_markdown(part, text) else [part]
            is_there = all(_in_markdown(line, text) for line in lines)
            yield is_there, f"card, {field['id']}: not as in the JSON file: {part[:60]}"


def _in_markdown(text: str, markdown: str) -> bool:
    return markdown_text(text) in markdown or markdown_paragraph(text) in markdown


def _page_and_content(report: Report, page: str) -> Iterator[tuple[bool, str]]:
    """Look for every text of the report's content on the page."""
    verdict = report.verdict
    texts = [report.title, report.about, report.statement, verdict.sentence]
    texts += [] if verdict.boxes else [f"{verdict.mark} {verdict.headline}"]
    for box in verdict.boxes:
        texts += [f"{box.title} {box.status.mark} {box.status.text}", box.sentence]
    texts += [text for row in report.strip for text in row]
    texts += [text for block in report.front for text in block_texts(block)]
    texts += [text for section in report.sections for text in section_texts(section)]
    for text in dict.fromkeys(texts):
        yield _plain(text) in page, f"report without: {text[:60]}"


def page_text(page: str) -> str:
    """Return the text of an HTML page, any run of blanks as one space."""
    body = re.sub(r"<style>.*?</style>", " ", page, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def _plain(text: str) -> str:
    return " ".join(formats.clean(text, 6_000).split())


# ---------------------------------------------------------------- words


def _found_words(
    evidence: ReportEvidence, card: Mapping[str, Any], page: str
) -> tuple[FoundWord, ...]:
    record = evidence.records.get(_WORD_ITEM)
    title = formats.clean(record.title) if record else ""
    outputs = {"card": "\n".join(_strings(card)), "report": page}
    found = []
    for output, text in outputs.items():
        said = text.replace(title, " ") if title else text
        for word, pattern in _WORDS.items():
            for match in pattern.finditer(said):
                start = max(0, match.start() - _AROUND_CHARACTERS)
                context = " ".join(said[start : match.end() + _AROUND_CHARACTERS].split())
                found.append(FoundWord(output=output, word=word, context=context))
    return tuple(dict.fromkeys(found))


def _strings(value: Any, skip: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield every text inside JSON data, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            if key not in skip:
                yield from _strings(part, skip)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _strings(part, skip)
