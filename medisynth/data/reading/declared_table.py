"""Tables of any origin, read as declared: CSV and TSV of any encoding, XLSX, Parquet.

What a spreadsheet program leaves behind is no fault here, because it was declared: a byte-order mark, blank rows,
empty columns at the right, blanks around values. Every other fault is a finding, as in `csv_table`.
"""

import csv
import datetime
import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from governance.records.errors import first_line
from medisynth.data.reading.csv_table import (
    Findings,
    StrictTable,
    read_bytes,
    shown,
    strict_table,
    text_rows,
)
from medisynth.data.reading.kinds import kind_of_content

Encoding = Literal["utf-8", "cp1252", "utf-16"]
_DELIMITERS = (",", ";", "\t", "|")
_MOST_UNPACKED_BYTES = 1 << 29
_MOST_CELLS = 20_000_000
_SNIFFED_ROWS = 50
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")


class TableFile(BaseModel):
    """Where a table lies and how it is written.

    Attributes:
        file: Name, relative to the data folder.
        delimiter: Field separator of a text file, one character.
        encoding: Of a text file; a byte-order mark of UTF-8 may be there.
        decimal: Decimal sign of numbers in a text file; "," becomes "." when it is read.
        header_row: Row that holds the names of the columns, from 1; rows above it are left out.
        sheet: Sheet of an Excel file; None takes the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    file: str = Field(min_length=1, max_length=500)
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    encoding: Encoding = "utf-8"
    decimal: Literal[".", ","] = "."
    header_row: int = Field(default=1, ge=1, le=1000)
    sheet: str | None = None


def read_table(root: Path, file: TableFile, required: Sequence[str]) -> StrictTable:
    """Read a table as declared.

    Args:
        root: Data folder.
        file: Where it lies and how it is written.
        required: Columns that must be there.

    Returns:
        All rows as text, blanks at both ends removed; `line` is the row in the file.

    Raises:
        DataError: The file is unreadable or is not as declared; every finding is attached.
    """
    findings = Findings(file.file)
    data = read_bytes(root / file.file, findings)
    rows = _trimmed(_rows(data, file, findings), file, findings)
    return strict_table(rows, data, required, findings)


def _rows(data: bytes, file: TableFile, findings: Findings) -> Iterator[tuple[int, list[str]]]:
    if data.startswith(b"PAR1"):
        return _parquet_rows(data, findings)
    kind = kind_of_content(data)
    if kind is not None and "Excel" in kind.what:
        return _sheet_rows(data, file.sheet, findings)
    if kind is not None:
        findings.stop("D017", f"is {kind.what}, expected a table; {kind.remedy}")
    return text_rows(_text(data, file.encoding, findings), file.delimiter, findings)


def _text(data: bytes, encoding: Encoding, findings: Findings) -> str:
    codec = "utf-8-sig" if encoding == "utf-8" else encoding
    try:
        text = data.decode(codec)
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n") + 1
        found = sniffed_encoding(data)
        findings.stop(
            "D013",
            f"byte 0x{data[error.start]:02x} is not {encoding}; set table.encoding in dataset.yaml, "
            f"the file looks like {found}",
            row=row,
        )
    if "\0" in text:
        findings.stop("D015", "holds NUL bytes, expected text; check table.encoding")
    return text


def _trimmed(
    rows: Iterator[tuple[int, list[str]]], file: TableFile, findings: Findings
) -> Iterator[tuple[int, list[str]]]:
    """Yield header and rows without blank rows and without nameless empty columns at the right."""
    kept = [
        (line, [value.strip() for value in fields])
        for line, fields in rows
        if line >= file.header_row and any(value.strip() for value in fields)
    ]
    if not kept or kept[0][0] != file.header_row:
        findings.stop(
            "D018", f"has no header in row {file.header_row}; set table.header_row in dataset.yaml"
        )
    names = kept[0][1]
    n = len(names)
    while (
        n
        and not names[n - 1]
        and not any(fields[n - 1 : n] != [""] for _, fields in kept[1:] if len(fields) >= n)
    ):
        n -= 1
    if "" in names[:n] or len(set(names[:n])) < n:
        lower = next((line for line, fields in kept[1:4] if _is_header(fields[:n])), None)
        hint = (
            f"; the names may stand in row {lower}: set table.header_row: {lower}" if lower else ""
        )
        findings.stop(
            "D018",
            f"the header in row {file.header_row} has a column without a name or a name twice "
            f"({', '.join(shown(name) for name in names[:8])}){hint}",
            row=file.header_row,
        )
    if second := next((line for line, fields in kept[1:2] if _repeats(names, fields)), None):
        findings.stop(
            "D018",
            f"row {second} is a second header row ({', '.join(map(shown, kept[1][1][:4]))} …); remove one, or "
            f"set table.header_row: {second}",
            row=second,
        )
    for line, fields in kept:
        cut = fields[:n] + [value for value in fields[n:] if value]
        if len(fields) < n and all(not value for value in names[len(fields) : n]):
            cut += [""] * (n - len(fields))
        if file.decimal == "," and line != file.header_row:
            cut = [v.replace(",", ".") if _DECIMAL_COMMA.fullmatch(v) else v for v in cut]
        yield line, cut


def _is_header(fields: list[str]) -> bool:
    """Whether a row could name columns: all filled, distinct, none of them a number."""
    return (
        len(fields) > 1
        and all(fields)
        and len(set(fields)) == len(fields)
        and not any(_NUMBER.fullmatch(value) for value in fields)
    )


def _repeats(names: list[str], fields: list[str]) -> bool:
    """Whether a row repeats at least half of the header, as a second header row does."""
    same = sum(
        bool(name) and name.casefold() == value.casefold()
        for name, value in zip(names, fields, strict=False)
    )
    return 2 * same >= len(names) > 0


def _sheet_rows(
    data: bytes, sheet: str | None, findings: Findings
) -> Iterator[tuple[int, list[str]]]:
    from python_calamine import CalamineError, CalamineWorkbook

    if data.startswith(b"PK"):
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as packed:
                n_bytes = sum(member.file_size for member in packed.infolist())
        except zipfile.BadZipFile:
            findings.stop("D017", "is a damaged Excel file; save it again")
        if n_bytes > _MOST_UNPACKED_BYTES:
            findings.stop("D011", f"unpacks to {n_bytes:,} bytes; expected a metadata table")
    try:
        book = CalamineWorkbook.from_filelike(io.BytesIO(data))
        names = book.sheet_names
        if sheet is not None and sheet not in names:
            findings.stop(
                "D019", f"has no sheet {shown(sheet)}; it has {', '.join(map(shown, names[:12]))}"
            )
        page = book.get_sheet_by_name(sheet) if sheet else book.get_sheet_by_index(0)
        if page.height * page.width > _MOST_CELLS:
            findings.stop("D011", "has too many cells for a metadata table")
        cells = page.to_python(skip_empty_area=False)
    except (CalamineError, OSError, ValueError) as error:
        findings.stop("D017", f"is an unreadable Excel file ({first_line(error)}); save it again")
    return ((line, [_cell(value) for value in row]) for line, row in enumerate(cells, start=1))


def _parquet_rows(data: bytes, findings: Findings) -> Iterator[tuple[int, list[str]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(data))
        if file.metadata.num_rows * max(1, file.metadata.num_columns) > _MOST_CELLS:
            findings.stop("D011", "has too many cells for a metadata table")
        table = file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        findings.stop("D017", f"is an unreadable Parquet file ({first_line(error)}); save it again")
    columns = [column.to_pylist() for column in table.columns]
    rows = [list(table.column_names), *(list(row) for row in zip(*columns, strict=True))]
    return ((line, [_cell(value) for value in row]) for line, row in enumerate(rows, start=1))


def _cell(value: Any) -> str:
    """Write a cell of a typed table as text: whole numbers without a point, dates as ISO 8601."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return str(value)


def sniffed(root: Path, name: str) -> TableFile | None:
    """Propose how a table is written; None if the file is no table that can be read.

    Args:
        root: Data folder.
        name: File, relative to it.

    Raises:
        DataError: The file cannot be read at all.
    """
    findings = Findings(name)
    data = read_bytes(root / name, findings)
    kind = kind_of_content(data)
    if data.startswith(b"PAR1"):
        return TableFile(file=name)
    if kind is not None and "Excel" in kind.what:
        return TableFile(file=name, header_row=_header_row(_sheet_rows(data, None, findings)))
    if kind is not None:
        return None
    encoding = sniffed_encoding(data)
    text = _text(data, encoding, findings)
    found: dict[str, tuple[int, int]] = {}
    for delimiter in _DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            lengths = Counter(len(row) for row in islice(reader, _SNIFFED_ROWS))
        except csv.Error:
            continue
        width, n = lengths.most_common(1)[0]
        found[delimiter] = (n if width > 1 else 0, width)
    delimiter = max(found, key=lambda d: found[d], default=",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    cells = [value.strip() for row in islice(reader, _SNIFFED_ROWS) for value in row]
    n_comma = sum(bool(_DECIMAL_COMMA.fullmatch(cell)) for cell in cells)
    n_point = sum(bool(re.fullmatch(r"[+-]?\d+\.\d+", cell)) for cell in cells)
    rows = text_rows(text, delimiter, Findings(name))
    return TableFile(
        file=name,
        delimiter=delimiter,
        encoding=encoding,
        decimal="," if n_comma > n_point else ".",
        header_row=_header_row(rows),
    )


def _header_row(rows: Iterator[tuple[int, list[str]]]) -> int:
    """Return the first of the top rows that names as many columns as the widest of them has."""
    top = [(line, [v.strip() for v in fields]) for line, fields in islice(rows, 10)]
    widest = max((sum(map(bool, fields)) for _, fields in top), default=0)
    for line, fields in top:
        named = fields[: len(fields)]
        while named and not named[-1]:
            named = named[:-1]
        if _is_header(named) and 2 * len(named) > widest:
            return line
    return 1


def sniffed_encoding(data: bytes) -> Encoding:
    """Tell UTF-8, UTF-16 with its mark, and otherwise Windows' Western European code page."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"
