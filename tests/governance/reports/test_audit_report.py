import hashlib
import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from reportlab.graphics.shapes import (
    Circle,
    Group,
    Hatching,
    Line,
    PolyLine,
    Rect,
    String,
)
from reportlab.lib.pagesizes import A4

from governance.records.base import ItemStatus
from governance.records.dataset import DatasetIdentity, ValidationRecord
from governance.records.errors import EvidenceError, EvidenceTamperedError
from governance.records.evaluation import EvaluationRecord
from governance.reports.audit_report import write_audit_report, write_html
from governance.reports.blocks import (
    Bullets,
    Heading,
    Histogram,
    LineChart,
    RangeBars,
    Series,
    Share,
    ShareBars,
    Table,
)
from governance.reports.card.write import write_model_card
from governance.reports.draw.charts import chart_drawing, chart_svg, ticks
from governance.reports.draw.pdf_layout import MARGIN, drawable
from governance.reports.evidence import ReportEvidence, load_evidence
from governance.reports.items import item_views
from governance.reports.sections.order import build_report
from governance.verify.folder import verify_run
from tests.governance.reports.report_tools import digests_in_another_process, pdf_text, pdf_words
from tests.stored_run.stored import (
    HOSTILE,
    LONG,
    PIN_LINE,
    RUN_ID,
    Variant,
    change,
    showing,
    write_run,
)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("complete"))


@pytest.fixture(scope="module")
def blocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    example = Variant(blocked=True)
    return write_run(tmp_path_factory.mktemp("blocked"), example)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    example = Variant(odd=HOSTILE + LONG, fid=False, openings=3, gate_passed=False)
    return write_run(tmp_path_factory.mktemp("hostile"), example)


@pytest.fixture(scope="module")
def complete_pdf(complete: Path) -> bytes:
    return write_audit_report(load_evidence(complete))


@pytest.fixture(scope="module")
def hostile_pdf(hostile: Path) -> bytes:
    return write_audit_report(load_evidence(hostile))


def test_the_stored_run_is_intact(complete, blocked):
    for run_dir in (complete, blocked):  # evidence alone: card and reports are not written yet
        assert verify_run(run_dir, is_ended=False).faults == ()
        (fault,) = verify_run(run_dir).faults
        assert "the run did not come to its end" in fault


def test_all_reports_have_the_same_bytes_whatever_hash_seed_time_zone_and_locale(
    complete, complete_pdf
):
    evidence = load_evidence(complete)
    parts = (*write_model_card(evidence), complete_pdf, write_html(evidence))
    here = [hashlib.sha256(part).hexdigest() for part in parts]

    there = digests_in_another_process(complete, PYTHONHASHSEED="1", TZ="Asia/Tokyo", LC_ALL="C")

    assert here == there


def test_page_one_says_verdict_bad_news_and_conditions_before_identity(
    complete, complete_pdf, tmp_path
):
    evidence = load_evidence(complete)
    page = pdf_text(complete_pdf, tmp_path, last_page=1)

    assert "✓ Gate passed" in page
    assert page.index("Gate passed") < page.index("P3-01")
    assert "KID by feature extractor, beside real images and the best control" in page
    assert "Identity of this run" in pdf_text(complete_pdf, tmp_path, last_page=2)
    assert page.count("The official split of the data set was not used.") == 1
    assert page.count("Deviation from the official split:") == 1
    assert "12,280 of 12,400 listed images have no file and were dropped, as the" in page
    assert "First use of this test set, descriptive: no limit was frozen before it." in page
    assert "The images are no better than simple controls on the tuning images: KID 0.364" in page
    assert "Isolation level in force: 4 of 5" in page
    assert evidence.manifest.evidence_root in page
    assert evidence.manifest.journal_head in page
    assert "Not a medical device. Synthetic images, for research use." in page
    assert "mapped to the ten" in page


def test_page_one_of_a_stopped_run_says_where_why_and_that_nothing_was_trained(blocked, tmp_path):
    page = pdf_text(write_audit_report(load_evidence(blocked)), tmp_path, last_page=1)

    assert "✗ Stopped at s2_validate; nothing was trained" in page
    assert "FETAL_PLANES_DB_data.csv: 12,280 of 12,400 listed images are missing" in page
    assert "The run ended with error D012." in page
    assert page.count("12,280 of 12,400 listed images are missing") == 2
    assert "✗ failed" in page
    assert "P2-12" in page
    assert "? not evaluated" in page
    assert "No image quality was measured" in page


def test_page_one_names_simulated_data_exploratory_opening_and_missing_fid(hostile):
    report = build_report(_simulated(load_evidence(hostile)))
    bullets = next(
        block.items
        for block in report.front
        if isinstance(block, Bullets) and "Simulated" in block.items[0]
    )

    assert bullets[0] == "Simulated data: no patient is behind any image."
    assert not [sentence for sentence in bullets if "not pinned" in sentence]  # the gate says so
    assert any("exploratory, opening 3" in sentence for sentence in bullets)
    assert (
        "Fréchet Inception distance (FID) not evaluated: the Inception weights are not in the "
        "cache." in bullets
    )


def test_page_one_has_short_title_whole_names_and_whole_digests_under_the_verdict(
    complete, complete_pdf, tmp_path
):
    evidence = load_evidence(complete)
    page = pdf_text(complete_pdf, tmp_path, last_page=1)
    parts = [
        " DSR-GAN on FETAL_PLANES_DB ",
        "Generator: DSR-GAN (diffusion, histogram matching, super-resolution GAN); data set: "
        "FETAL_PLANES_DB: Common maternal fetal planes ",
        "Gate passed",
        f"Run {RUN_ID} Evidence root {evidence.manifest.evidence_root}",
        evidence.manifest.journal_head,
        "What failed or is unknown",
    ]

    places = [page.index(part) for part in parts]
    assert places == sorted(places)


@pytest.mark.parametrize("policy", ["drop", "error"])
def test_missing_images_are_said_as_what_followed_from_them(complete, policy):
    evidence = load_evidence(complete)
    data = change(evidence.get(DatasetIdentity), missing_policy=policy)
    front = build_report(showing(evidence, data)).front
    said = [s for block in front if isinstance(block, Bullets) for s in block.items]
    followed = {
        "drop": "have no file and were dropped, as the configuration asks.",
        "error": "have no file; none of them was selected.",
    }

    assert f"12,280 of 12,400 listed images {followed[policy]}" in said


def test_the_line_to_pin_stands_whole_on_page_one_and_the_verdict_is_short(tmp_path):
    run_dir = write_run(tmp_path, Variant(gate_passed=False, fid=False, openings=3))
    evidence = _simulated(load_evidence(run_dir))
    page = pdf_text(write_audit_report(evidence), tmp_path, last_page=1)

    assert all(part in page for part in PIN_LINE.split())  # key and digest, neither cut
    assert PIN_LINE in write_html(evidence).decode()
    assert [PIN_LINE in part.decode() for part in write_model_card(evidence)] == [True, True]
    assert "✗ Gate not passed: 7" in page
    assert "P5-01 Dataset identity: not evaluated." in page
    assert page.count("if it is the one you mean") == 1
    assert "Simulated data: no patient is behind any image." in page
    assert "This test set has been used before, 2 times (exploratory, opening 3)" in page
    assert "(FID) not evaluated: the Inception weights are not in the cache." in page


def test_validation_is_one_table_with_broken_rules_first_and_columns_in_one_row(blocked):
    rows = _validation_rows(load_evidence(blocked))

    assert rows[0] == [
        "machine: all or none / 3 rows have no machine / Examples: row 7: Voluson E6",
        "critical",
        "failed / 3 of 120 against",
        "failed / 3 of 120 against",
        "120",
    ]
    assert rows[1:] == [
        ["whole table / row count", "critical", "passed", "passed", "1"],
        ["image_id / exists, unique", "critical", "passed", "passed", "1 or 120"],
        ["patient_id / not null", "critical", "passed", "passed", "120"],
        ["width_px / exists, range", "critical / warning: range", "passed", "passed", "1 or 120"],
    ]


def test_a_rule_that_had_nothing_to_judge_is_not_evaluated(complete):
    evidence = load_evidence(complete)
    record = evidence.get(ValidationRecord)
    rules = [change(r, n_evaluated=0) if r.column == "machine" else r for r in record.rules]
    rows = _validation_rows(showing(evidence, change(record, rules=tuple(rules))))

    assert [
        "machine / all or none",
        "critical",
        "not evaluated / nothing recorded",
        "not evaluated / nothing recorded",
        "0",
    ] in rows


def _simulated(evidence: ReportEvidence) -> ReportEvidence:
    """The same evidence of phantoms."""
    return showing(evidence, change(evidence.documents.need(DatasetIdentity), is_simulated=True))


def _validation_rows(evidence: ReportEvidence) -> list[list[str]]:
    report = build_report(evidence)
    data = next(section for section in report.sections if section.key == "data")
    blocks = next(part for part in data.sections if part.key == "data-correctness").blocks
    start = blocks.index(Heading("Data validation"))
    table = next(block for block in blocks[start:] if isinstance(block, Table))
    return [[" / ".join(line.text for line in cell) for cell in row] for row in table.rows]


def test_every_principle_item_and_evidence_file_is_in_the_report(complete, complete_pdf, tmp_path):
    evidence = load_evidence(complete)
    text = pdf_text(complete_pdf, tmp_path)
    words = set(text.split())

    assert evidence.policy is not None
    assert {item.id for item in evidence.policy.items} <= words
    for line in evidence.summary.principles:
        tally = (
            f"verified by this run {line.n_passed}/{line.n_computed} · declared 0/{line.n_human}"
        )
        assert tally in text
    alike = [
        file
        for file in evidence.manifest.evidence
        if re.fullmatch(r"samples/.*\.png|records/.*\.json", file.path)
    ]
    assert {f.sha256 for f in evidence.manifest.evidence if f not in alike} <= words
    assert words.isdisjoint(file.sha256 for file in alike)
    assert f"{len(evidence.records)} files" in text
    assert "digests in samples/manifest.json and manifest.json" in text
    assert "(January 2025, draft)" in text
    assert f"medisynth-gov verify runs/{RUN_ID}" in text


def test_statuses_have_word_and_mark_and_unknown_is_never_passed(complete):
    views = {item.id: item for item in item_views(load_evidence(complete))}

    assert views["P2-03"].status is ItemStatus.NOT_EVALUATED
    assert views["P2-03"].reason == "not implemented yet"
    assert views["P2-03"].value == ""
    assert views["P1-H1"].status is ItemStatus.MISSING
    assert views["P4-01"].criterion == (
        "patients in both partitions of any pair: = 0 patients (project default)"
    )
    assert views["P8-03"].interval == "0.0312 to 0.0611"


def test_counts_of_items_agree_with_the_roll_up(complete, blocked):
    for run_dir in (complete, blocked):
        evidence = load_evidence(run_dir)
        seen = Counter((item.principle, item.status) for item in item_views(evidence))
        for line in evidence.summary.principles:
            assert seen[line.id, ItemStatus.FAILED] == line.n_failed
            assert seen[line.id, ItemStatus.MISSING] == line.n_missing
            assert seen[line.id, ItemStatus.NOT_EVALUATED] == line.n_not_evaluated


def test_text_stays_inside_the_margins_even_with_names_that_never_end(hostile_pdf, tmp_path):
    words = pdf_words(hostile_pdf, tmp_path)

    assert len(words) > 3000
    assert min(word[0] for word in words) >= MARGIN - 1
    assert max(word[2] for word in words) <= A4[0] - MARGIN + 1
    assert max(word[3] for word in words) <= A4[1]


def test_names_are_text_and_never_markup(hostile_pdf, tmp_path):
    text = pdf_text(hostile_pdf, tmp_path)

    assert '<b>bold</b> <img src="/etc/passwd"> & Ångström Жанна' in text
    assert "\u202e" not in text
    assert "\\u202eevil\\u202c" in text


def test_letters_that_the_font_lacks_or_would_reverse_are_written_out():
    assert drawable("胎 é") == "\\u80ce é"
    assert drawable("א") == "\\u05d0"
    assert drawable("a\x00b\nc") == "a\\u0000b c"


def test_pages_are_numbered_and_sections_bookmarked(complete_pdf, tmp_path):
    text = pdf_text(complete_pdf, tmp_path)
    pages = [(int(page), int(total)) for page, total in re.findall(r"page (\d+) of (\d+)", text)]

    assert pages == [(n, len(pages)) for n in range(1, len(pages) + 1)]
    assert complete_pdf.count(b"/FontFile2") == 3
    assert b"/Outlines" in complete_pdf


def test_a_run_without_policy_still_gets_a_report_from_its_records(blocked):
    evidence = load_evidence(blocked)

    assert evidence.policy is None
    assert [item.id for item in item_views(evidence)][:3] == ["P1-01", "P1-02", "P1-H1"]
    assert write_audit_report(evidence).startswith(b"%PDF-")


def test_a_changed_file_is_refused_by_name(tmp_path):
    run_dir = write_run(tmp_path)
    path = run_dir / "metrics/evaluation.json"
    path.write_bytes(path.read_bytes().replace(b"0.04567", b"0.00567"))

    with pytest.raises(EvidenceTamperedError, match=r"evaluation\.json: recorded as sha256:"):
        load_evidence(run_dir)


def test_a_missing_file_is_refused_by_name(tmp_path):
    run_dir = write_run(tmp_path)
    (run_dir / "figures/real.png").unlink()

    with pytest.raises(EvidenceError, match=r"figures/real\.png: cannot be read"):
        load_evidence(run_dir)


def test_a_file_that_the_manifest_does_not_list_is_not_read(tmp_path):
    run_dir = write_run(tmp_path, Variant(blocked=True))
    (run_dir / "metrics").mkdir()
    (run_dir / "metrics/evaluation.json").write_text("{}")

    assert load_evidence(run_dir).get(EvaluationRecord) is None


def test_a_manifest_with_another_root_is_refused(tmp_path):
    run_dir = write_run(tmp_path)
    path = run_dir / "manifest.json"
    manifest = json.loads(path.read_bytes())
    path.write_bytes(path.read_bytes().replace(manifest["evidence_root"].encode(), b"0" * 64))

    with pytest.raises(EvidenceError, match="evidence root is not that of the files it lists"):
        load_evidence(run_dir)


def test_axis_ticks_are_round_and_span_the_values():
    assert ticks(0, 10) == (0, 2, 4, 6, 8, 10)
    assert ticks(0.12, 0.47) == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert ticks(3, 3)[0] < 3 < ticks(3, 3)[-1]


def shapes_of(chart, kind, width=300):
    return [shape for shape in chart_drawing(chart, width).contents if isinstance(shape, kind)]


def texts_of(chart, width=300):
    return [shape.text for shape in shapes_of(chart, String, width)]


def legend_of(chart):
    """Texts that stand right of a line or bar of the legend."""
    drawn = chart_drawing(chart, 300).contents
    pairs = pairwise(drawn)
    return [x.text for key, x in pairs if isinstance(key, Group) and isinstance(x, String)]


def marks_of(chart):
    """Places of the marks of the axis across."""
    return {s.text: s.x for s in shapes_of(chart, String) if s.text.isdigit()}


def test_a_line_chart_puts_values_where_its_axes_say():
    chart = LineChart("t", "step", "loss", (Series("a", (0.0, 10.0), (0.0, 10.0)),))
    (curve,) = shapes_of(chart, PolyLine)
    lines = shapes_of(chart, Line)
    left, right = min(s.x1 for s in lines), max(s.x2 for s in lines)
    low, high = min(s.y1 for s in lines if s.y1 == s.y2), max(s.y1 for s in lines)

    assert curve.points == [left, low, right, high]


def test_a_line_chart_leaves_a_gap_at_a_value_that_is_not_finite():
    values = (1.0, 2.0, float("nan"), 3.0, 4.0)
    chart = LineChart("t", "step", "loss", (Series("a", (0.0, 1.0, 2.0, 3.0, 4.0), values),))

    assert [len(curve.points) / 2 for curve in shapes_of(chart, PolyLine)] == [2, 2]


def test_a_value_without_neighbours_is_drawn_as_a_dot():
    series = (Series("a", (0.0, 1.0), (1.0, 2.0)), Series("b", (1.0,), (1.5,)))

    assert len(shapes_of(LineChart("t", "step", "loss", series), Circle)) == 1


def test_a_chart_without_a_finite_value_says_so():
    chart = LineChart("t", "step", "loss", (Series("a", (1.0,), (float("nan"),)),))

    assert texts_of(chart) == ["t", "no finite value"]


def test_a_histogram_shows_shares_of_each_set_and_the_threshold():
    chart = Histogram(
        "t", "distance", "share", ("real", (0.0, 0.0)), ("synthetic", (0.0, 1.0)), ("limit", 0.5)
    )
    bars = shapes_of(chart, Rect)

    assert len(bars) == 2
    assert bars[0].height == bars[1].height
    assert legend_of(chart) == ["real", "synthetic", "limit"]
    assert {"distance", "0", "100"} <= set(texts_of(chart))


@pytest.mark.parametrize(
    ("reference", "subject", "missing"),
    [((0.2, 0.3), (), "pairs"), ((), (0.97,), "others"), ((), (), "pairs")],
)
def test_a_histogram_leaves_an_empty_set_out_of_picture_and_legend(reference, subject, missing):
    chart = Histogram(
        "t", "x", "y", ("others", reference), ("pairs", subject), ("limit", 0.9), as_strokes=True
    )

    assert missing not in legend_of(chart)
    assert "limit" in legend_of(chart)
    assert shapes_of(chart, Rect) == []


def test_a_few_values_are_strokes_that_do_not_scale_the_shares():
    values = tuple(n / 100 for n in range(30))
    chart = Histogram(
        "t", "x", "y", ("others", values), ("pairs", (0.97, 0.99)), ("limit", 0.9), as_strokes=True
    )
    upright = [s for s in shapes_of(chart, PolyLine) if s.points[0] == s.points[2]]

    assert len([s for s in upright if len(s.points) == 4]) == 3  # two pairs and the threshold
    assert "100" not in texts_of(chart)


def test_share_bars_put_shares_and_intervals_where_the_axis_says():
    rows = (("Aloka", (Share(0.5, (0.25, 0.75)), None)), ("Other", (Share(0.0), Share(1.0))))
    chart = ShareBars("machine", "share (%)", ("training", "test"), rows)
    axis = marks_of(chart)
    (interval,) = (s for s in shapes_of(chart, Line) if s.y1 == s.y2)
    left, right = (
        min(s.x for s in shapes_of(chart, Rect)),
        max(s.x1 for s in shapes_of(chart, Line)),
    )

    assert len(axis) == 6
    assert [round(s.width / (right - left), 2) for s in shapes_of(chart, Rect)] == [0.5, 1.0]
    ends = [round((x - left) / (right - left), 2) for x in (interval.x1, interval.x2)]
    assert ends == [0.25, 0.75]
    assert "not known" in texts_of(chart)


def test_range_bars_show_quartiles_median_and_range():
    chart = RangeBars("size", "mm", (("all", (0.0, 25.0, 50.0, 75.0, 100.0)),))
    (box,) = shapes_of(chart, Rect)
    *_, across, median = shapes_of(chart, Line)
    width = across.x2 - across.x1

    assert round((box.x - across.x1) / width, 2) == 0.25
    assert round(box.width / width, 2) == 0.5
    assert round((median.x1 - across.x1) / width, 2) == 0.5


def test_names_of_rows_are_cut_to_their_room():
    rows = (("a name that is far too long for the room left of the bars", (Share(0.5),)),)
    chart = ShareBars("t", "x", ("all",), rows)

    assert [text[-1] for text in texts_of(chart) if "name" in text] == ["…"]


ONE_OF_EACH = (
    LineChart("loss", "step", "y", (Series("a", (0.0, 1.0), (1.0, 2.0)),) * 5),
    Histogram("pairs", "x", "y", ("real", (0.1, 0.2)), ("synthetic", (0.3,)), ("limit", 0.5)),
    ShareBars("site", "x", ("a", "b", "c", "d"), (("one", (Share(0.5), None) * 2),)),
    RangeBars("size", "mm", (("all", (0.0, 25.0, 50.0, 75.0, 100.0)),)),
)


@pytest.mark.parametrize("chart", ONE_OF_EACH, ids=lambda chart: chart.title)
def test_no_text_of_a_chart_is_smaller_than_eight_points_or_out_of_its_frame(chart):
    drawing = chart_drawing(chart, 240)

    for text in (shape for shape in drawing.contents if isinstance(shape, String)):
        left, _, right, _ = text.getBounds()
        assert text.fontSize >= 8
        assert left >= -1, text.text
        assert right <= drawing.width + 1, text.text


@pytest.mark.parametrize("chart", ONE_OF_EACH, ids=lambda chart: chart.title)
def test_a_chart_of_the_page_repeats_and_has_a_title_and_a_description(chart):
    svg = chart_svg(chart, 360)

    assert svg == chart_svg(chart, 360)
    assert f"<title>{chart.title}</title>" in svg
    assert "<desc>" in svg
    assert " id=" not in svg


def test_bars_and_lines_differ_without_colours():
    lines, bars = ONE_OF_EACH[0], ONE_OF_EACH[2]
    dashes = [str(s.strokeDashArray) for s in shapes_of(lines, PolyLine)[:4]]
    hatches = [tuple(s.angles) for s in shapes_of(bars, Hatching)]

    assert len(set(dashes)) == 4
    assert hatches == [(135,)]  # the first bar is plain; the others are not known


def test_markup_in_the_names_of_a_chart_stays_text():
    chart = ShareBars("<b>&", "x", ("all",), (("</svg><script>", (Share(0.5),)),))

    assert "<script>" not in chart_svg(chart, 360)
    assert "<title>&lt;b&gt;&amp;</title>" in chart_svg(chart, 360)
