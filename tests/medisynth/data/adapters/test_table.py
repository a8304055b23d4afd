"""A folder with a table becomes a data set by a proposed `dataset.yaml`, without code."""

import io
import json
import re
import zipfile

import jsonschema
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from ruamel.yaml import YAML

from governance.records.errors import DataError
from medisynth.data.adapters import locate_data_set
from medisynth.data.adapters.propose import begin
from medisynth.data.adapters.table import TableAdapter, schema_json

PIXELS = np.tile(np.arange(64, dtype=np.uint8), (64, 1))


def picture(kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, kind)
    return stream.getvalue()


def folder_with(tmp_path, table, images, name="t.csv"):
    for path in images:
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(picture("JPEG" if path.endswith(".jpg") else "PNG"))
    (tmp_path / name).write_bytes(table)
    return tmp_path


SPREADSHEET = (
    "\ufeffBild;Fall;Ebene;Pixelgröße (mm);\r\n"
    "a1 ;P01;Kopf;0,15;\r\n"
    "a2;P01;Bauch ;0,2;\r\n"
    "b1;P02;Kopf;0,15;\r\n"
    ";;;;\r\n\r\n"
).encode()
IN_FOLDERS = ("P01/a1.jpg", "P01/a2.jpg", "P02/b1.jpg")


def listing_of(root):
    return TableAdapter().list_images(root)


def change(root, **values):
    path = root / "dataset.yaml"
    content = YAML(typ="safe").load(path.read_bytes())
    for key, value in values.items():
        *above, last = key.split("__")
        section = content
        for part in above:
            section = section.setdefault(part, {})
        section[last] = value
    with path.open("w") as stream:
        YAML().dump(content, stream)


def fault_of(root):
    with pytest.raises(DataError) as caught:
        listing_of(root)
    return caught.value


def test_the_file_of_a_spreadsheet_program_is_listed_as_it_was_meant(tmp_path):
    root = folder_with(tmp_path, SPREADSHEET, IN_FOLDERS)

    proposal, files = begin(root)
    listing = listing_of(root)

    assert {path.name for path in files} == {"dataset.yaml", "dataset.schema.json"}
    assert proposal.meaning.path == "{Fall}/{Bild}.jpg"
    assert proposal.meaning.convert.read == ("jpeg",)
    table = listing.table
    assert list(table["path"]) == list(IN_FOLDERS)
    assert list(table["patient_id"]) == ["P01", "P01", "P02"]
    assert list(table["plane"]) == ["Fetal brain", "Fetal abdomen", "Fetal brain"]
    assert list(table["pixel_size_mm"]) == [0.15, 0.2, 0.15]
    assert list(table["row"]) == [2, 3, 4]
    assert listing.info.default_planes == ("Fetal brain",)
    assert "operator" in listing.info.absent_attributes


def test_the_adapter_is_found_by_its_file_and_the_proposal_fits_its_schema(tmp_path):
    root = folder_with(tmp_path, SPREADSHEET, IN_FOLDERS)
    begin(root)

    assert locate_data_set(root)[0].name == "table"
    schema = json.loads((root / "dataset.schema.json").read_bytes())
    content = YAML(typ="safe").load((root / "dataset.yaml").read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(content, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**content, "colums": {}}, schema)
    assert schema_json() == schema_json()


def test_nothing_is_overwritten(tmp_path):
    root = folder_with(tmp_path, SPREADSHEET, IN_FOLDERS)
    begin(root)
    before = (root / "dataset.yaml").read_bytes()

    with pytest.raises(DataError, match="nothing is overwritten"):
        begin(root)
    assert (root / "dataset.yaml").read_bytes() == before


@pytest.mark.parametrize("kind", ["parquet", "tsv", "utf-16", "cp1252"])
def test_tables_of_other_kinds_give_the_same_listing(tmp_path, kind):
    rows = pd.DataFrame({"file": ["ä1.png", "ä2.png"], "patient": [7, 8]})
    table = {
        "parquet": lambda: rows.to_parquet(index=False),
        "tsv": lambda: rows.to_csv(index=False, sep="\t").encode(),
        "utf-16": lambda: rows.to_csv(index=False).encode("utf-16"),
        "cp1252": lambda: rows.to_csv(index=False).encode("cp1252"),
    }[kind]()
    name = {"parquet": "t.parquet", "tsv": "t.tsv"}.get(kind, "t.csv")
    root = folder_with(tmp_path, table, ("x/ä1.png", "x/ä2.png"), name)

    begin(root)

    assert list(listing_of(root).table["path"]) == ["x/ä1.png", "x/ä2.png"]
    assert list(listing_of(root).table["patient_id"]) == ["7", "8"]


def test_a_folder_without_a_table_gets_one_and_says_what_it_does_not_know(tmp_path):
    for patient in ("A", "B"):
        (tmp_path / patient).mkdir()
        (tmp_path / patient / "1.png").write_bytes(picture())
        (tmp_path / patient / "1_mask.png").write_bytes(picture())

    proposal, files = begin(tmp_path)
    table = listing_of(tmp_path).table

    assert [path.name for path in files][-1] == "images.csv"
    assert list(table["patient_id"]) == ["A", "B"]
    assert list(table["image_id"]) == ["A_1", "B_1"]
    assert proposal.meaning.masks == ["*_mask.png"]
    assert any("plane" in line for line in proposal.unknown)


def test_a_mapping_that_does_not_fit_names_column_value_row_and_the_nearest(tmp_path):
    root = folder_with(tmp_path, SPREADSHEET.replace(b"Bauch ", b"Bauhc"), IN_FOLDERS)
    begin(root)
    change(root, values={"plane": {"Kopf": "Fetal brain", "Bauch": "Fetal abdomen"}})

    error = fault_of(root)

    assert error.code == "D022"
    assert error.findings[0].row == 3
    assert error.findings[0].column == "Ebene"
    assert "found 'Bauhc'" in str(error)
    assert "nearest is 'Bauch'" in str(error)


@pytest.mark.malformed("csv")
@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"columns__patient": "Fal"}, "D019", "column 'Fal' is missing.*nearest is 'Fall'"),
        ({"columns__pateint": "Fall"}, "D027", "did you mean 'columns.patient'"),
        ({"path": "{Bild"}, "D027", "dataset.yaml:"),
        ({"path": "x.png"}, "D027", "names of columns alone in braces"),
        ({"path": "../{Bild}"}, "D021", "inside the data folder"),
        ({"fixed": {"plane": "Fetal brain"}}, "D027", "columns.plane names a column already"),
        ({"table__header_row": 2}, "D019", "is missing"),
        ({"columns__frame": "Ebene"}, "D022", "the number of a frame"),
    ],
)
def test_a_wrong_dataset_yaml_is_one_clear_line(tmp_path, changes, code, words):
    root = folder_with(tmp_path, SPREADSHEET, IN_FOLDERS)
    begin(root)
    change(root, **changes)

    error = fault_of(root)

    assert error.code == code
    assert re.search(words, str(error)), str(error)


@pytest.mark.malformed("csv")
def test_two_header_rows_are_named_with_what_to_set(tmp_path):
    rows = b"Image,,Person\nfile,kind,patient\na.png,x,1\nb.png,x,2\n"
    root = folder_with(tmp_path, rows, ("a.png", "b.png"))
    proposal, _ = begin(root)

    assert proposal.meaning.table.header_row == 2
    change(root, table__header_row=1)
    error = fault_of(root)
    assert error.code == "D018"
    assert "set table.header_row: 2" in str(error)


@pytest.mark.malformed("csv")
def test_an_image_listed_twice_names_both_rows(tmp_path):
    rows = b"file,patient\na.png,1\nb.png,2\na.png,3\n"
    root = folder_with(tmp_path, rows, ("a.png", "b.png"))
    begin(root)

    error = fault_of(root)

    assert error.code == "D020"
    assert "row 2" in str(error)
    assert error.findings[0].row == 4


def workbook(rows):
    """A minimal Excel file of inline texts and numbers."""
    cells = "".join(
        "<row>"
        + "".join(
            f"<c><v>{v}</v></c>" if isinstance(v, (int, float))
            else f'<c t="inlineStr"><is><t>{v}</t></is></c>'
            for v in row
        )
        + "</row>"
        for row in rows
    )  # fmt: skip
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types"><Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default '
        'Extension="xml" ContentType="application/xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" '
        f'Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets><sheet name="A" '
        'sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="r1" Type="{office}/worksheet" Target="worksheets/sheet1.xml"/>'
        "</Relationships>",
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{cells}</sheetData>'
        "</worksheet>",
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for name, text in parts.items():
            packed.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{text}')
    return stream.getvalue()


def test_an_excel_sheet_is_read_with_its_numbers_as_they_are(tmp_path):
    rows = [["file", "patient", "pixel size"], ["a.png", 7, 0.15], ["b.png", 8, 0.2]]
    root = folder_with(tmp_path, workbook(rows), ("a.png", "b.png"), "t.xlsx")
    begin(root)

    table = listing_of(root).table

    assert list(table["patient_id"]) == ["7", "8"]
    assert list(table["pixel_size_mm"]) == [0.15, 0.2]


@pytest.mark.malformed("csv")
def test_a_damaged_excel_file_is_one_clear_line(tmp_path):
    data = workbook([["file", "patient"], ["a.png", 1]])
    root = folder_with(tmp_path, data, ("a.png",), "t.xlsx")
    begin(root)
    (root / "t.xlsx").write_bytes(data[: len(data) // 2])

    assert fault_of(root).code == "D017"


@pytest.mark.parametrize("path", ["{}", "{Bild:>999999999}.jpg", "{Bild!r}.jpg", "a.jpg", "{Bild"])
def test_a_path_holds_names_of_columns_and_nothing_that_formats(tmp_path, path):
    root = folder_with(tmp_path, SPREADSHEET, IN_FOLDERS)
    begin(root)
    change(root, path=path)

    error = fault_of(root)

    assert error.code == "D027"
    assert len(str(error).splitlines()) == 1


def test_a_column_of_the_path_may_have_dots_and_brackets_in_its_name(tmp_path):
    root = folder_with(tmp_path, SPREADSHEET.replace(b"Bild", b"Bild.Name [1]"), IN_FOLDERS)
    begin(root)
    change(root, path="{Fall}/{Bild.Name [1]}.jpg")

    assert tuple(listing_of(root).table["path"]) == IN_FOLDERS
