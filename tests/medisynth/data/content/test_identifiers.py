"""What looks like a name, date, time or number is told from what a scanner writes."""

import time

import pandas as pd
import pytest

from medisynth.data.content.identifiers import identifying_columns, masked, text_kind
from medisynth.data.phantom import LEAKS, PhantomSettings, write_phantoms
from tests.places import KIT

needs_kit = pytest.mark.skipif(not KIT.is_dir(), reason="the real data kit is not here")

IDENTIFYING = {
    "name": "SMITH^ANNA|SMITH ANNA|Smith, Anna|Name: X|Name:|DOB|Pat. ID|Paciente: Maria|Dr Jones|"
    "Anna Maria Lopez|Garcia-Lopez Pilar",
    "date": "12/03/2020|2020-03-12|12.03.20|03-Mar-2021|20201103|Mar 3, 2021|GEB. 12.03.1980|"
    "DOB 01/02/1990|12 de enero de 2019",
    "time": "09:13:15|14:05|3:15 PM|1459.20",
    "number": "1234567|Pat. ID: 1234567|ID 1234567|MRN 00123|NHC: 44512|943 476 5919",
}
SCANNER = (
    "Voluson|Har-mid|MI 1.1|TIs 0.2|12.5 cm|26Hz|1/2|583/601|5837601|1447154|40741|60°/ 25Hz|"
    "HM PI 6.80 - 2.80|3. Trim|2/3 Trim. Cardiac/OB|1.Trim Rout|Fetal Head|90dB T2/+1/3/ 6|"
    "Gncia= 20dB|PARED ART|\\lmacenando}|Dist = 0.058cm|C6 / M7|SRI II 3 / CRI 2|General|GA=20w3d|"
    "#105|FC= 76lpm|Cine 425|12 sec|IM: 0,4|10200,|A|OFD|BPD|Voluson E6|3.50 cm|SIMULATED|"
    "19Hz/14.2cm|AO 98%|Har-intermedia 97||  "
)

COLUMNS = (
    "Patient_name|patientName|SURNAME|Apellidos|Vorname|nom|DOB|date_of_birth|Geburtsdatum"
    "|Address|Straße|phone_number|E-Mail|MRN|hospital_id|Hospital ID|accession_number|NHS|"
    "BSN|ssn|passport_no|fecha de nacimiento|mother_name|given-name|zip"
)


@pytest.mark.parametrize(
    ("kind", "text"),
    [(kind, text) for kind, all_ in IDENTIFYING.items() for text in all_.split("|")],
)
def test_identifying_text_is_recognised(kind, text):
    assert text_kind(text) == kind


@pytest.mark.parametrize("text", SCANNER.split("|"))
def test_scanner_words_are_not_taken_for_identifiers(text):
    assert text_kind(text) is None


@pytest.mark.parametrize("text", ["99/99/2020", "31.13.2020", "25:61", "32/01/1999"])
def test_impossible_dates_and_times_are_none(text):
    assert text_kind(text) is None


def test_masked_text_keeps_its_shape_and_no_letter_or_digit():
    assert masked("Smith Änna 12/03/1980") == "Aaaaa Aaaa 00/00/0000"
    assert masked("李小龙 ٣٤") == "aaa 00"
    assert masked("x" * 200) == "a" * 80


def test_long_texts_are_judged_quickly():
    begin = time.perf_counter()
    for text in ("1" * 5000, "A" * 5000, "Aa " * 2000, "1-" * 2500, "name " * 1000):
        text_kind(text)
        identifying_columns(pd.DataFrame({"x": [text]}))
    assert time.perf_counter() - begin < 5


def columns_of(**columns):
    return {found.column: found for found in identifying_columns(pd.DataFrame(columns))}


@pytest.mark.parametrize("name", COLUMNS.split("|"))
def test_columns_named_like_identifiers_are_flagged(name):
    assert name in columns_of(**{name: ["1", "2"]})


@pytest.mark.parametrize(
    "values",
    [
        ["a.b@hospital.org", "", ""],
        ["+34 600 111 222", "+34 600 111 223", "+34 93 111 2233"],
        ["1980-02-03", "1981-03-04", "1990-12-31"],
        ["Anna Smith", "Bert Jones", "Carla Weber"],
        ["1234567", "1234568", "2234569"],
        ["1.2.840.113619.2.1.3", "1.2.840.113619.2.1.4", "1.2.840.113619.2.1.5"],
    ],
)
def test_columns_with_identifying_values_are_flagged_and_no_value_is_repeated(values):
    found = columns_of(remark=values)["remark"]
    assert found.n_values == sum(value != "" for value in values)
    assert not any(value in found.reason for value in values if value)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("operator", ["Op. 1", "Op. 2", "Other"]),
        ("birth_weight", ["3000", "3100", "2900"]),
        ("Plane", ["Fetal brain", "Maternal cervix", "Fetal femur"]),
        ("gestational_age", ["20", "21", "22"]),
        ("image_number", ["1000001", "1000002", "1000003"]),
        ("DOB", ["", "", ""]),
        ("ip_address", ["x", "y", "z"]),
    ],
)
def test_ordinary_columns_are_not_flagged(name, values):
    assert columns_of(**{name: values}) == {}


@needs_kit
@pytest.mark.parametrize(
    ("path", "separator"),
    [
        ("fetal_planes_db/FETAL_PLANES_DB_data.csv", ";"),
        ("hc18/metadata.csv", ","),
        ("hc18/training_set_pixel_size_and_HC.csv", ","),
        ("african_planes/metadata.csv", ","),
    ],
)
def test_no_column_of_the_published_tables_is_flagged(path, separator):
    table = pd.read_csv(KIT / path, sep=separator, dtype=str, keep_default_na=False)
    assert len(table) > 400
    assert identifying_columns(table) == ()


def test_the_planted_column_is_flagged(tmp_path):
    assert "identifying-column" in LEAKS
    settings = PhantomSettings(
        n_patients=3, max_images_per_patient=1, image_height_px=64, leaks=("identifying-column",)
    )
    write_phantoms(tmp_path / "phantoms", settings)
    (file,) = (tmp_path / "phantoms").glob("*.csv")
    table = pd.read_csv(file, sep=";", dtype=str)
    assert [found.column for found in identifying_columns(table)] == ["Patient_name"]
