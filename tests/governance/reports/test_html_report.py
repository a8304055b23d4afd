import base64
from html.parser import HTMLParser
from pathlib import Path

import pytest

from governance.reports.audit_report import write_html
from governance.reports.evidence import load_evidence
from governance.reports.sections.order import build_report
from tests.stored_run.stored import HOSTILE, Variant, write_run

_VOID = {"meta", "img", "br", "link", "polyline", "rect"}


class _Page(HTMLParser):
    """Collects elements, attributes and text, and notes tags that do not nest."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.faults: list[str] = []
        self._open: list[str] = []
        self.feed(page.decode("utf-8"))
        self.close()
        self.faults += [f"never closed: {tag}" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            return
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"closed out of order: {tag}")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("complete"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("hostile"), Variant(odd=HOSTILE))


def test_the_page_runs_no_script_and_loads_nothing(hostile):
    page = _Page(write_html(load_evidence(hostile)))
    tags = {tag for tag, _ in page.elements}
    attributes = [pair for _, attrs in page.elements for pair in attrs.items()]

    assert tags.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    assert not [name for name, _ in attributes if name.startswith("on")]
    assert all(
        (value or "").startswith(("data:image/", "#"))
        for name, value in attributes
        if name in {"src", "href"}
    )
    policy = next(attrs["content"] for _, attrs in page.elements if "http-equiv" in attrs)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_names_are_text_and_never_elements(hostile):
    data = write_html(load_evidence(hostile))
    page = _Page(data)

    assert "b" not in {tag for tag, _ in page.elements}
    assert any('<b>bold</b> <img src="/etc/passwd"> &' in text for text in page.text)
    assert "\u202e" not in data.decode()


def test_elements_nest(complete, hostile):
    for run_dir in (complete, hostile):
        assert _Page(write_html(load_evidence(run_dir))).faults == []


def test_the_page_has_every_section_of_the_report_in_order(complete):
    evidence = load_evidence(complete)
    page = _Page(write_html(evidence))
    keys = [attrs["id"] for tag, attrs in page.elements if tag == "details"]
    expected = []
    for section in build_report(evidence).sections:
        expected += [section.key, *(child.key for child in section.sections)]

    assert keys == expected
    assert len([key for key in keys if key and key.startswith("principle-")]) == 10


def test_pictures_are_the_evidence_itself(complete):
    page = _Page(write_html(load_evidence(complete)))
    pictures = [
        base64.b64decode((attrs["src"] or "").removeprefix("data:image/png;base64,"))
        for tag, attrs in page.elements
        if tag == "img"
    ]

    assert pictures == [
        (complete / path).read_bytes() for path in ("figures/real.png", "figures/synthetic.png")
    ]


def test_a_stopped_run_has_a_page_that_says_so(tmp_path):
    run_dir = write_run(tmp_path, Variant(blocked=True))
    text = " ".join(_Page(write_html(load_evidence(run_dir))).text)

    assert "Stopped at s2_validate; nothing was trained" in text
    assert "This run left no trained model." in text
