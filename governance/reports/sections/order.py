"""The whole audit report as blocks, which PDF and HTML page both draw."""

from collections.abc import Callable
from dataclasses import replace
from string import ascii_uppercase

from governance.reports import formats
from governance.reports.blocks import Report, Section
from governance.reports.evidence import ReportEvidence
from governance.reports.sections.data import data_section
from governance.reports.sections.front import (
    STATEMENT,
    front_blocks,
    full_titles,
    report_title,
    strip_rows,
    verdict,
)
from governance.reports.sections.hazards import hazards_section
from governance.reports.sections.isolation import isolation_section
from governance.reports.sections.limits_and_plan import (
    environment_section,
    evidence_section,
    limits_section,
    plan_section,
    verify_section,
)
from governance.reports.sections.lineage import lineage_section
from governance.reports.sections.memorisation import memorisation_section
from governance.reports.sections.metrics import metrics_section
from governance.reports.sections.people import declarations_section
from governance.reports.sections.principles import matrix_section, principle_sections
from governance.reports.sections.trace import trace_section
from governance.reports.sections.training import samples_section, training_section

SECTIONS: tuple[Callable[[ReportEvidence], Section], ...] = (
    matrix_section,
    principle_sections,
    data_section,
    isolation_section,
    training_section,
    samples_section,
    metrics_section,
    memorisation_section,
    limits_section,
    environment_section,
    plan_section,
    declarations_section,
    lineage_section,
    hazards_section,
    trace_section,
    evidence_section,
    verify_section,
)


# Sections with a main part, in the order in which a reader asks; the rest is the annex.
MAIN_PART = (
    *("data", "isolation", "training", "samples", "metrics", "memorisation", "limits"),
    *("declarations", "principles", "verify"),
)


def arranged(sections: tuple[Section, ...]) -> tuple[Section, ...]:
    """Return the main part, numbered, then the annex, lettered; no block stands in both."""
    found = {section.key: section for section in sections}
    main = [_main(found[key], str(n)) for n, key in enumerate(MAIN_PART, start=1) if key in found]
    left = [section for section in sections if section.blocks or _annexed(section.sections)]
    annex = [
        _annex(section, letter) for letter, section in zip(ascii_uppercase, left, strict=False)
    ]
    return (*main, *annex)


def _main(section: Section, number: str) -> Section:
    parts = [part for part in section.sections if part.main]
    return replace(
        section,
        key=f"main-{section.key}",
        number=number,
        blocks=section.main,
        main=(),
        sections=tuple(_main(part, f"{number}.{n}") for n, part in enumerate(parts, start=1)),
    )


def _annexed(parts: tuple[Section, ...]) -> tuple[Section, ...]:
    return tuple(part for part in parts if part.blocks)


def _annex(section: Section, number: str) -> Section:
    parts = enumerate(_annexed(section.sections), start=1)
    return replace(
        section,
        number=number,
        main=(),
        sections=tuple(_annex(part, f"{number}.{n}") for n, part in parts),
        is_annex=True,
    )


def build_report(evidence: ReportEvidence) -> Report:
    """Build the report's content from evidence; equal evidence gives an equal report."""
    return Report(
        title=report_title(evidence),
        about=full_titles(evidence),
        subtitle="Audit report, mapped to the ten GMLP principles",
        run_id=evidence.run.run_id,
        evidence_root=evidence.manifest.evidence_root,
        tool_version=evidence.run.tool_version,
        foot=(
            f"Run {evidence.run.run_id} · evidence root "
            f"{formats.short(evidence.manifest.evidence_root)} · medisynth-gov "
            f"{evidence.run.tool_version} · not a medical device · synthetic images · research use"
        ),
        verdict=verdict(evidence),
        strip=strip_rows(evidence),
        front=front_blocks(evidence),
        sections=arranged(tuple(section(evidence) for section in SECTIONS)),
        statement=STATEMENT,
    )
