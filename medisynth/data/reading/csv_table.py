"""Strict reading of metadata files: every fault is reported, none is guessed away.

A lenient reader accepts a byte-order mark inside the first name, NUL bytes, doubled headers, short
rows and a web page saved as a table. Here each of these is a finding with its line and column.
"""

import csv
import hashlib
import io
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

import pandas as pd

from governance.records.errors import DataError, Finding
from medisynth.data.reading.kinds import kind_of_content, obstacle

MAX_TABLE_BYTES = 64 * 1024 * 1024
MAX_FINDINGS = 10_000  # a hopeless file is reported up to here, not until memory ends
_MAX_SHOWN_CHARACTERS = 80
_MAX_NAME_BYTES = 200
_DIFFERENCES_SHOWN = 4

Check = Callable[[str], str | None]


def shown(value: str) -> str:
    """Quote a value for a message: control characters escaped, at most 80 characters."""
    escaped = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii")
        for c in value[: _MAX_SHOWN_CHARACTERS + 1]
    )
    if len(escaped) > _MAX_SHOWN_CHARACTERS:
        escaped = escaped[: _MAX_SHOWN_CHARACTERS - 1] + "…"
    return f"'{escaped}'"


def folded(text: str) -> str:
    """A text without regard to letter case, blanks, dashes and the form in which Unicode writes it.

    Two values of one column that agree in it are probably one value.
    """
    plain = re.sub(r"\s+", "", unicodedata.normalize("NFKC", text))
    return "".join("-" if unicodedata.category(c) == "Pd" else c for c in plain).casefold()


class Findings:
    """Collects the faults of one file and raises them together."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.found: list[Finding] = []

    def add(
        self, code: str, message: str, *, row: int | None = None, column: str | None = None
    ) -> None:
        """Add one fault.

        Raises:
            DataError: The limit of findings is reached.
        """
        self.found.append(Finding(code, self.where, message, row, column))
        if len(self.found) >= MAX_FINDINGS:
            self.raise_if_any()

    def stop(self, code: str, message: str, *, row: int | None = None) -> NoReturn:
        """Add a fault that makes reading on useless, and raise all findings.

        Raises:
            DataError: Always.
        """
        self.found.append(Finding(code, self.where, message, row))
        raise data_error(self.found)

    def raise_if_any(self) -> None:
        """Raise one error for all findings so far.

        Raises:
            DataError: There is at least one finding; all are attached.
        """
        if self.found:
            raise data_error(self.found)


def data_error(findings: Sequence[Finding]) -> DataError:
    """Return one error that names the first finding and counts the rest; all are attached."""
    first, n_more = findings[0], len(findings) - 1
    more = f" (and {n_more:,} more finding{'s' if n_more > 1 else ''})" if n_more else ""
    return DataError(f"{first}{more}", code=first.code, findings=findings)


@dataclass(frozen=True)
class Record:
    """One row of a metadata file.

    Attributes:
        line: Line number where the row starts; 1 is the header.
        values: Value of each column, blanks at both ends removed.
    """

    line: int
    values: dict[str, str]


@dataclass(frozen=True)
class StrictTable:
    """A metadata file that was read without a structural fault.

    Attributes:
        columns: Column names in file order, blanks at both ends removed.
        records: Rows in file order.
        sha256: Digest of the file's bytes.
        findings: Collector for faults of single values; call `raise_if_any` when done.
        required: Columns that had to be there.
    """

    columns: tuple[str, ...]
    records: tuple[Record, ...]
    sha256: str
    findings: Findings = field(compare=False)
    required: tuple[str, ...] = ()

    def check(self, column: str, check: Check, *, code: str = "D022") -> None:
        """Apply a check to every value of a column; a returned message becomes a finding.

        Raises:
            DataError: The limit of findings is reached.
        """
        for record in self.records:
            message = check(record.values[column])
            if message is not None:
                self.findings.add(code, message, row=record.line, column=column)

    def check_unique(self, column: str) -> None:
        """Find values that occur more than once.

        Raises:
            DataError: The limit of findings is reached.
        """
        first: dict[str, Record] = {}
        for record in self.records:
            value = record.values[column]
            earlier = first.setdefault(value, record)
            if earlier is not record:
                self.findings.add(
                    "D020",
                    f"{shown(value)} is listed already in line {earlier.line}"
                    f"{self._difference(earlier, record)}; expected each image once, remove one of the "
                    "two rows",
                    row=record.line,
                    column=column,
                )

    def _difference(self, one: Record, other: Record) -> str:
        """Say in which columns two rows of one image differ; both values of required columns."""
        differing = [name for name, value in one.values.items() if value != other.values[name]]
        if not differing:
            return ", and the two rows are equal"
        known = [name for name in differing if name in self.required]
        named = [
            f"{name} {shown(one.values[name])} there and {shown(other.values[name])} here"
            for name in known[:_DIFFERENCES_SHOWN]
        ]
        rest = len(differing) - len(named)
        named += [f"{rest} other column{'s' if rest > 1 else ''} differing"] if rest else []
        return f" with {', '.join(named)}"

    def as_text(self) -> pd.DataFrame:
        """The whole table: every column under its own name, "string" dtype, "" where empty."""
        return pd.DataFrame(
            {
                name: pd.array([record.values[name] for record in self.records], dtype="string")
                for name in self.columns
            }
        )


def read_strict(
    path: Path, *, delimiter: str, required: Sequence[str], max_bytes: int = MAX_TABLE_BYTES
) -> StrictTable:
    """Read a delimited text file strictly.

    Args:
        path: File to read.
        delimiter: Field separator, one character.
        required: Columns that must be there; further columns are kept.
        max_bytes: Largest file that is read.

    Returns:
        All rows as text; no value is converted or treated as missing.

    Raises:
        DataError: The file is unreadable or malformed; every structural finding is attached.
    """
    findings = Findings(path.name)
    data = read_bytes(path, findings, max_bytes)
    text = _decode(data, findings)
    rows = text_rows(text, delimiter, findings)
    return strict_table(
        rows, data, required, findings, separated=f"separated by {shown(delimiter)}"
    )


def strict_table(
    rows: Iterator[tuple[int, list[str]]],
    data: bytes,
    required: Sequence[str],
    findings: Findings,
    *,
    separated: str = "",
) -> StrictTable:
    """Check header and rows of a table that was split into fields.

    Args:
        rows: Line and fields of each row, the header first.
        data: Bytes of the file.
        required: Columns that must be there.
        findings: Collector of the file.
        separated: How fields are separated, for a message.

    Raises:
        DataError: A column is missing or a row is malformed; every finding is attached.
    """
    columns = _header(next(rows, None), separated, required, findings)
    records = tuple(_records(rows, columns, findings))
    if not records and not findings.found:
        findings.add("D024", "has a header but no rows; expected one row an image")
    findings.raise_if_any()
    digest = hashlib.sha256(data).hexdigest()
    return StrictTable(columns, records, digest, findings, tuple(required))


def read_bytes(path: Path, findings: Findings, max_bytes: int = MAX_TABLE_BYTES) -> bytes:
    """Read a metadata file; what is no regular file, too large or empty stops with a finding."""
    try:
        kind = obstacle(path)
        if kind is not None:
            findings.stop(
                "D010", f"is {kind.what}, expected the metadata file of the data set; {kind.remedy}"
            )
        with path.open("rb") as stream:
            data = stream.read(max_bytes + 1)
    except FileNotFoundError:
        findings.stop("D010", "is missing; expected the metadata file of the data set")
    except OSError as error:
        findings.stop("D010", f"cannot be read ({error.strerror}); check its permissions")
    if len(data) > max_bytes:
        findings.stop(
            "D011", f"is larger than {max_bytes:,} bytes; expected a metadata table, not this"
        )
    if not data.strip():
        findings.stop("D012", "is empty; expected a header and one row an image")
    return data


def _decode(data: bytes, findings: Findings) -> str:
    """Decode the file to text; faults of the whole file end the reading, as rows would mislead."""
    kind = kind_of_content(data)
    if kind is not None:
        findings.stop("D017", f"is {kind.what}, expected a table; {kind.remedy}")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        findings.stop("D013", "is UTF-16 text, expected UTF-8; save it again as UTF-8")
    if data.startswith(b"\xef\xbb\xbf"):
        findings.add(
            "D014", "starts with a byte-order mark; save it again as UTF-8 without it", row=1
        )
        data = data[3:]
    if b"\0" in data:
        row = data[: data.index(b"\0")].count(b"\n") + 1
        findings.stop("D015", "holds NUL bytes, expected text; download the file again", row=row)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        row, byte = data[: error.start].count(b"\n") + 1, data[error.start]
        findings.stop("D013", f"byte 0x{byte:02x} is not UTF-8; save it again as UTF-8", row=row)


def text_rows(text: str, delimiter: str, findings: Findings) -> Iterator[tuple[int, list[str]]]:
    """Yield the line where each row starts and its raw fields."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for fields in reader:
            yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        findings.add("D016", f"cannot be split into fields ({error}); mend the row", row=line)


def _header(
    row: tuple[int, list[str]] | None,
    separated: str,
    required: Sequence[str],
    findings: Findings,
) -> tuple[str, ...]:
    columns = tuple(name.strip(" ") for name in row[1]) if row else ()
    for name in dict.fromkeys(columns):
        if columns.count(name) > 1:
            findings.add(
                "D018",
                f"the header names {shown(name)} {columns.count(name)} times; expected once",
                row=1,
            )
        if not name:
            findings.add(
                "D018",
                f"column {columns.index(name) + 1} has no name; name it, or remove it if it only "
                "counts the rows",
                row=1,
            )
        elif not name.isprintable():
            findings.add("D018", f"the header holds the unusable name {shown(name)}", row=1)
    missing = [name for name in required if name not in columns]
    line = row[0] if row else 1
    for name in missing:
        known = ", ".join(shown(c) for c in columns[:12])
        expected = (
            f"; expected fields {separated}, found {known}" if separated else f", found {known}"
        )
        near = get_close_matches(name, columns, n=1)
        told = f"; nearest is {shown(near[0])}" if near and not separated else ""
        findings.add("D019", f"column {shown(name)} is missing{expected}{told}", row=line)
    if missing:  # without its columns every row would be a finding of its own
        findings.raise_if_any()
    return columns


def _records(
    rows: Iterator[tuple[int, list[str]]], columns: tuple[str, ...], findings: Findings
) -> Iterator[Record]:
    for line, fields in rows:
        if len(fields) != len(columns):
            found = "an empty line" if not fields else f"{len(fields)} fields"
            findings.add(
                "D016", f"{found}, expected {len(columns)} fields; mend or remove the row", row=line
            )
            continue
        values = {name: value.strip(" ") for name, value in zip(columns, fields, strict=True)}
        for name, value in values.items():
            if not value.isprintable():
                findings.add(
                    "D023",
                    f"{shown(value)} holds a control or invisible character, expected plain text",
                    row=line,
                    column=name,
                )
        yield Record(line, values)


def name_fault(value: str) -> str | None:
    """Message if a text cannot be the name of an image file, else None."""
    expected = "expected a plain file name"
    if not value:
        return f"is empty, {expected}"
    if value.startswith("."):
        return f"{shown(value)} starts with a dot, {expected}"
    if any(c in value for c in '/\\:*?"<>|'):
        return f"{shown(value)} holds a path separator or reserved character, {expected}"
    if any(unicodedata.category(c)[0] == "C" or c in "\u2028\u2029" for c in value):
        return f"{shown(value)} holds a control or formatting character, {expected}"
    if len(value.encode()) > _MAX_NAME_BYTES:
        return f"{shown(value)} is longer than {_MAX_NAME_BYTES} bytes, {expected}"
    return None


def filled_fault(value: str) -> str | None:
    """Message if a text is empty, else None."""
    return None if value else "is empty, expected a value"


def flag_fault(value: str) -> str | None:
    """Message if a text is neither "0" nor "1", else None."""
    return None if value in {"0", "1"} else f"found {shown(value)}, expected 0 or 1"


def count_fault(value: str) -> str | None:
    """Message if a text is not a whole number of at most 12 digits, else None."""
    if re.fullmatch(r"[0-9]{1,12}", value):
        return None
    return f"found {shown(value)}, expected a whole number"


def positive_fault(value: str) -> str | None:
    """Message if a text is not a plain decimal number above 0, else None."""
    plain = re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,30})?([eE][-+]?[0-9]{1,2})?", value)
    if plain and float(value) > 0:
        return None
    return f"found {shown(value)}, expected a number above 0"


def canonical_number(value: str) -> str:
    """Patient or examination number without leading zeros, so that "0001" and "1" are one."""
    return value.lstrip("0") or "0" if re.fullmatch(r"[0-9]+", value) else value
