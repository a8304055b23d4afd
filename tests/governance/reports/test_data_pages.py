"""What the pages on data say, and the page of a data check alone."""

from dataclasses import fields, replace
from io import BytesIO
from typing import Any

import pytest
from PIL import Image
from reportlab.graphics.shapes import String

from governance.evidence.folder import RunFolder
from governance.records.audit import DemographicsAudit, MissingCombination
from governance.records.base import ItemClass, ItemStatus
from governance.records.content import ContentScan
from governance.records.dataset import DatasetIdentity
from governance.records.duplicates import DuplicateAudit
from governance.records.item import ItemRecord
from governance.records.partition import SplitRecord
from governance.records.run import Figure, Figures
from governance.reports.audit_report import write_audit_report
from governance.reports.blocks import (
    Block,
    Bullets,
    Cell,
    Facts,
    Gallery,
    Heading,
    Histogram,
    Picture,
    Section,
    ShareBars,
    Table,
    Text,
)
from governance.reports.draw.charts import chart_drawing
from governance.reports.evidence import Evidence, PictureFile, ReportEvidence, load_evidence
from governance.reports.sections.data import completeness_blocks, data_parts
from governance.reports.sections.data_check import (
    DataCheckEvidence,
    build_data_check,
    write_data_check_html,
)
from governance.reports.sections.data_coverage import demographics_blocks
from governance.reports.sections.data_duplicates import duplicate_blocks
from governance.reports.sections.data_tables import partition_order
from governance.reports.sections.order import build_report
from governance.reports.sections.training import samples_section
from tests.stored_run.stored import HOSTILE, START, Variant, showing, write_run

_PARTS = ["identity", "correctness", "completeness", "coverage", "consistency", "content"]


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> ReportEvidence:
    return load_evidence(write_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> ReportEvidence:
    run_dir = write_run(tmp_path_factory.mktemp("hostile"), Variant(odd=HOSTILE))
    return load_evidence(run_dir)


def _check(evidence: ReportEvidence, **changes: Any) -> DataCheckEvidence:
    """The data check that would have found what a run found."""
    names = {field.name for field in fields(DataCheckEvidence)}
    shared = {name: getattr(evidence, name) for name in names if hasattr(evidence, name)}
    own = {"tool_version": "0.1.0", "folder": "data/x", "exit_code": 0, "sentence": "Fine."}
    return DataCheckEvidence(**(shared | own | changes))


def _empty(**changes: Any) -> DataCheckEvidence:
    """A data check that stopped before anything was known."""
    nothing = {"documents": RunFolder.of(), "policy": None, "pictures": {}, "records": {}}
    own = {"tool_version": "0.1.0", "folder": "x"}
    stop = {"exit_code": 3, "sentence": "The folder cannot be read."}
    return DataCheckEvidence(**(nothing | own | stop | changes))


def _record(item_id: str, status: ItemStatus) -> ItemRecord:
    return ItemRecord(
        id=item_id,
        title=f"title of {item_id}",
        principle=item_id.split("-")[0],
        item_class=ItemClass.REQUIRED,
        kind="computed",
        status=status,
        reason=f"reason of {item_id}",
        time_utc=START,
    )


def _png(width: int, height: int) -> PictureFile:
    stream = BytesIO()
    Image.new("L", (width, height), 90).save(stream, "PNG")
    return PictureFile(stream.getvalue(), "image/png", width, height)


def _text(cell: Cell) -> str:
    return " / ".join(line.text for line in cell)


def _said(blocks: tuple[Block, ...]) -> str:
    """Every word of some blocks, pictures and charts left out."""
    parts: list[str] = []
    for block in blocks:
        if isinstance(block, Text | Heading):
            parts.append(block.text)
        elif isinstance(block, Bullets):
            parts.extend(block.items)
        elif isinstance(block, Facts):
            parts.extend(f"{name}: {_text(cell)}" for name, cell in block.rows)
        elif isinstance(block, Table):
            parts.append(" | ".join(column.title for column in block.columns))
            parts.extend(" | ".join(_text(cell) for cell in row) for row in block.rows)
            parts.append(block.note)
    return "\n".join(parts)


def _part(evidence: Evidence, key: str) -> Section:
    return next(part for part in data_parts(evidence, 3) if part.key == f"data-{key}")


def test_run_and_data_check_show_the_same_parts_in_the_order_of_the_four_words(evidence):
    section = next(part for part in build_report(evidence).sections if part.key == "data")
    check = build_data_check(_check(evidence))

    assert [part.key for part in section.sections] == [f"data-{key}" for key in _PARTS]
    assert [part.number for part in section.sections] == [f"B.{n}" for n in range(1, 7)]
    assert [part.number for part in check.sections] == [str(n) for n in range(1, 8)]
    parts = data_parts(evidence)
    assert [p.blocks for p in section.sections] == [p.blocks for p in parts]
    assert [p.blocks for p in check.sections[1:]] == [(*p.main, *p.blocks) for p in parts]


def test_every_part_of_a_check_that_knows_nothing_says_so_and_counts_nothing():
    parts = data_parts(_empty(), 3)

    for part in parts:
        said = _said(part.blocks)
        assert " not " in said or "Not " in said, part.key
        assert not [block for block in part.blocks if isinstance(block, Table | Gallery)]
    assert b"A run on this data stops" in write_data_check_html(_empty())


def test_every_table_on_data_follows_a_sentence(evidence):
    for part in data_parts(evidence, 3):
        for before, block in zip(part.blocks, part.blocks[1:], strict=False):
            assert not (isinstance(before, Heading) and isinstance(block, Table)), part.key


def test_flow_is_shown_by_level_with_the_share_kept(evidence):
    table = next(
        block
        for block in _part(evidence, "identity").blocks
        if isinstance(block, Table) and block.columns[-1].title == "Kept"
    )
    rows = {_text(row[0]): [_text(cell) for cell in row[1:]] for row in table.rows}

    assert rows["machine: Voluson E6"] == ["5,862 / 807", "111 / 52", "111 / 52", "1.9 %"]
    assert rows["machine: Aloka"] == ["5,114 / 776", "0 / 0", "0 / 0", "0.0 %"]


def test_completeness_tells_absent_partly_proxy_and_recorded_apart(evidence):
    table = next(block for block in completeness_blocks(evidence) if isinstance(block, Table))
    states = {_text(row[0]): (_text(row[1]), _text(row[2])) for row in table.rows}

    assert states["ethnicity"] == ("absent", "none")
    assert states["operator"] == ("partly recorded", "91.4 %")
    assert states["gestational age"] == ("by proxy", "100.0 %")
    assert states["machine"] == ("recorded", "100.0 %")
    assert "who is left out cannot be shown" in _said(completeness_blocks(evidence))


def test_levels_have_patients_images_share_and_interval(evidence):
    said = _said(_part(evidence, "coverage").blocks)

    assert "Voluson S10 | 1 / 1 / 2.6 % (0.5 to 13.5)" in said
    assert "plane: Other | 5 | 8 | 3.6 | 37.5 %, above the limit / patient 12" in said


def test_suppressed_cells_are_never_shown_as_numbers(evidence):
    said = _said(demographics_blocks(evidence))

    assert "parity and BMI | nulliparous, below 25 | 21 / 39.6 % (27.6 to 53.1)" in said
    assert said.count("< 5 / suppressed") == 3
    assert "Cells with fewer than 5 patients are shown as “< 5”" in said
    assert "parity | 11.0 % (2.0 to 24.0) | 56" in said


def with_charts(evidence, **changes):
    """The demographics of the stored run as a run of today writes them."""
    changes = {"missing_combinations": (), **changes}
    return showing(evidence, evidence.get(DemographicsAudit).model_copy(update=changes))


def charts_of(evidence) -> dict[str, ShareBars]:
    found = [b for b in demographics_blocks(evidence) if isinstance(b, ShareBars)]
    return {chart.title.split(",")[0]: chart for chart in found}


def test_each_attribute_with_levels_has_a_chart_beside_its_target(evidence):
    (distance,) = evidence.get(DemographicsAudit).distances
    distance = distance.model_copy(update={"shares": {"nulliparous": 0.461}})
    charts = charts_of(with_charts(evidence, distances=(distance,)))

    assert list(charts) == ["parity", "BMI", "gestational age (by proxy)"]
    assert charts["parity"].title == "parity, known for 96.6 % of patients"
    assert charts["parity"].groups == ("all together", "target population")
    _, (here, target) = charts["parity"].rows[0]
    assert (round(here.value, 3), here.ci95 is not None) == (0.571, True)
    assert (target.value, target.ci95) == (0.461, None)
    assert charts["BMI"].groups == ("all together",)


def test_a_withheld_share_is_no_bar_and_says_that_it_is_withheld(evidence):
    record = evidence.get(DemographicsAudit)
    hidden = {"n_patients": None, "share": None, "share_ci95": None}
    cells = tuple(c.model_copy(update=hidden) for c in record.cells)
    chart = charts_of(with_charts(evidence, cells=cells))["parity"]

    assert all(bars == (None,) for _, bars in chart.rows)
    drawn = chart_drawing(chart, 240.0).contents
    words = [shape.text for shape in drawn if isinstance(shape, String)]
    assert words.count("withheld, to protect few patients") == len(chart.rows)


def test_missing_combinations_are_named_and_an_older_audit_says_nothing_of_them(evidence):
    gap = MissingCombination(
        attributes=("site", "group"),
        levels=("A", "B"),
        partition="training",
        expected=8.1,
        p_value=1e-5,
    )

    assert "No patient in training has site A together with group B; were the two" in _said(
        demographics_blocks(with_charts(evidence, missing_combinations=(gap,)))
    )
    assert "No combination of two levels lacks patients" in _said(
        demographics_blocks(with_charts(evidence))
    )
    assert "Combinations" not in _said(demographics_blocks(evidence))
    assert charts_of(evidence) == {}


def test_without_declared_attributes_demographics_are_not_evaluated(evidence):
    nothing = DemographicsAudit(
        declared=(),
        undeclared=("ethnicity",),
        cells=(),
        numbers=(),
        smallest_cell=5,
        n_suppressed=0,
    )
    said = _said(demographics_blocks(showing(evidence, nothing)))

    assert "Not evaluated: the data contract declares no attribute of the patients" in said
    assert "Not evaluated: no target population is declared" in said


def test_shift_and_confounding_above_their_limits_are_marked(evidence):
    said = _said(_part(evidence, "consistency").blocks)

    assert "22.4 % (2.0 to 47.0) / above the limit | 23.0 % | none" in said
    assert "machine | training | tuning | 22.4 % (1.0 to 52.0) | 27.0 %" in said
    assert "operator and machine | 0.61 / above the limit | 0.001 | 112 / 53" in said
    assert "operator Op. 3 only with machine Voluson E6" in said
    assert "machine and plane | 0.13 | 0.214" in said


def test_a_limit_comes_from_the_policy_in_force(evidence):
    without = replace(evidence, policy=None, records={})

    assert "above the limit" not in _said(_part(without, "consistency").blocks)
    frozen = _part(replace(evidence, policy=None), "consistency")
    assert "above the limit" in _said(frozen.blocks)


def test_the_similarity_figure_has_threshold_null_and_confirmed_pairs(evidence):
    (chart,) = (b for b in duplicate_blocks(evidence) if isinstance(b, Histogram))
    alone = evidence.get(DuplicateAudit).model_copy(update={"pairs": (), "n_pairs": 0, "n_near": 0})
    blocks = duplicate_blocks(showing(evidence, alone))
    (empty,) = (b for b in blocks if isinstance(b, Histogram))

    assert chart.threshold == ("threshold 0.920", 0.92)
    assert len(chart.reference[1]) == 500
    assert chart.subject[1] == (0.9712,)
    assert empty.subject[1] == ()
    assert "No pair was found." in _said(blocks)


def test_pictures_of_pairs_stand_beside_both_identities_and_not_among_the_samples(evidence):
    figure = next(pair.figure for pair in evidence.get(DuplicateAudit).pairs if pair.figure)
    drawn = _with_picture(evidence, figure)
    (gallery,) = (b for b in duplicate_blocks(drawn) if isinstance(b, Gallery))
    samples = [b.path for b in samples_section(drawn).main if isinstance(b, Picture)]

    assert [_text(tile.lines) for tile in gallery.tiles] == [
        "near-duplicate, similarity 0.971, mirrored left to right / "
        "left: Patient00786_Plane3_2_of_3 / patient 786, training / "
        f"right: Patient00799_Plane3_1_of_3 / patient 799, training / {figure}"
    ]
    assert samples == ["figures/real.png", "figures/synthetic.png"]
    assert b"figures/duplicates" in write_data_check_html(_check(drawn))
    assert write_audit_report(drawn) == write_audit_report(drawn)


def test_a_pair_without_a_picture_is_in_the_table_alone(evidence):
    without = replace(evidence, pictures={})
    blocks = duplicate_blocks(without)

    assert not [b for b in blocks if isinstance(b, Gallery)]
    assert "same pixels | Patient00010_Plane3_1_of_1 / patient 10, training" in _said(blocks)


def _with_picture(evidence: ReportEvidence, path: str) -> ReportEvidence:
    listed = evidence.get(Figures).figures
    figure = Figure(path=path, title="pair", caption="pair")
    rest = tuple(entry for entry in listed if entry.path != path)
    pictures = {**evidence.pictures, path: _png(516, 256)}
    return showing(replace(evidence, pictures=pictures), Figures(figures=(figure, *rest)))


def test_pages_count_the_unit_that_the_data_set_records(evidence):
    data = evidence.get(DatasetIdentity).model_copy(
        update={"split_unit": "examination", "split_unit_note": "", "notes": ()}
    )
    split = evidence.get(SplitRecord).model_copy(update={"unit": "examination"})
    parts = data_parts(showing(evidence, data, split), 3)
    fixed = ("patient images", "patient_id", "by patient;")  # kind, a column, a method's own words
    said = "\n".join(_said(part.blocks) for part in parts).replace("Patient000", "")
    for words in fixed:
        said = said.replace(words, "")

    assert "Examinations with a value" in said
    assert "patient " not in said
    assert "patients" not in said.lower()


def test_an_engine_that_reads_no_letters_says_not_evaluated(evidence):
    scan = evidence.get(ContentScan).model_copy(
        update={"reads_text": False, "engine": "overlay detector", "marks": ()}
    )
    said = _said(_part(showing(evidence, scan), "content").blocks)

    assert "With text: not evaluated: overlay detector does not read letters" in said
    assert "With text that looks identifying: not evaluated" in said


def test_long_tables_are_cut_and_say_where_the_rest_is(evidence):
    pair = evidence.get(DuplicateAudit).pairs[1]
    many = evidence.get(DuplicateAudit).model_copy(
        update={"pairs": (pair,) * 100, "n_pairs": 1_234}
    )

    assert "1,194 more in data/duplicates.json." in _said(duplicate_blocks(showing(evidence, many)))


def test_a_refused_split_says_why(evidence):
    split = evidence.get(SplitRecord).model_copy(
        update={"refused": "5 groups lie in two partitions"}
    )

    assert "This split was refused; the tables show the one that was tried.\n5 groups lie" in _said(
        _part(showing(evidence, split), "identity").blocks
    )


def test_the_check_page_lists_failed_items_before_unknown_and_passed_ones(evidence):
    records = {
        record.id: record
        for record in (
            _record("P3-02", ItemStatus.PASSED),
            _record("P3-10", ItemStatus.FAILED),
            _record("P3-04", ItemStatus.NOT_EVALUATED),
            _record("P3-01", ItemStatus.FAILED),
        )
    }
    report = build_data_check(_check(evidence, records=records))
    (table,) = (block for block in report.sections[0].blocks if isinstance(block, Table))

    assert [_text(row[0]) for row in table.rows] == ["P3-01", "P3-10", "P3-04", "P3-02"]
    assert report.verdict.headline == "Nothing stops a run on this data"
    assert report.verdict.tone == "unsure"
    assert "2 items failed all the same" in report.verdict.sentence


def test_the_check_page_says_what_stops_a_run_and_the_exit_code(evidence):
    report = build_data_check(_check(evidence, exit_code=4, sentence="5 pairs cross the split."))

    assert (report.verdict.tone, report.verdict.sentence) == ("bad", "5 pairs cross the split.")
    assert ("Exit code", "4 (a leak between partitions, or isolation broken)") in report.strip


def test_a_long_reason_that_the_verdict_gives_is_not_repeated_in_every_item(evidence):
    reason = f"the official split shares images: {', '.join(f'pair {n}' for n in range(20))}"
    record = _record("P3-03", ItemStatus.NOT_EVALUATED).model_copy(update={"reason": reason})
    check = _check(evidence, records={"P3-03": record}, exit_code=4, sentence=reason)
    table = next(b for b in build_data_check(check).sections[0].blocks if isinstance(b, Table))

    assert build_data_check(check).verdict.sentence.startswith("The official split shares images")
    assert _text(table.rows[0][3]) == (
        "the run stops before it could be judged; the reason stands above"
    )


def test_the_check_page_is_safe_repeatable_and_never_dark(hostile):
    page = write_data_check_html(_check(hostile, folder=HOSTILE, sentence=HOSTILE))
    text = page.decode()

    assert page == write_data_check_html(_check(hostile, folder=HOSTILE, sentence=HOSTILE))
    assert "<b>bold" not in text
    assert '<img src="/etc' not in text
    assert "\u202e" not in text
    assert "<script" not in text
    assert "http://" not in text.replace("http-equiv", "")
    assert "prefers-color-scheme" not in text
    assert '<details id="data-coverage" open>' in text


def test_partitions_stand_in_the_order_of_the_report():
    assert partition_order({"all", "held-out test set", "training", "other"}) == (
        "training",
        "held-out test set",
        "other",
        "all",
    )
