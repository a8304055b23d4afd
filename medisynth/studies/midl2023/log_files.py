"""Reading of the published loss and FID logs, as text and plain arrays without pickle."""

import csv
import io
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.typing import NDArray

from governance.records.errors import DataError
from medisynth.data.reading.csv_table import read_strict, shown

Series = NDArray[np.float64]

FID_FILE = "FID.csv"
LOSS_FILE = "sr_gan_loss.csv"
TB_FID_FILE = "tc_200_2_FID_log.npy"
TB_D_FILE = "tc_200_2_D_loss_log.npy"
TB_G_FILE = "tc_200_2_G_loss_log.npy"
FILES = (FID_FILE, LOSS_FILE, TB_FID_FILE, TB_D_FILE, TB_G_FILE)

_MAX_BYTES = 1_000_000  # the largest has 9,866
_LOSS_COLUMNS = ("Epoch", "Generator_Loss", "Disciminator_Loss", "FID")  # spelt so in the file


@dataclass(frozen=True)
class Logs:
    """The five published logs.

    Attributes:
        fid_epochs: DSR-GAN, epoch of each FID, ascending, int64.
        fid: DSR-GAN, FID at these epochs.
        generator: SRGAN, logged mean generator loss, one an epoch from epoch 0.
        discriminator: SRGAN, logged mean discriminator loss.
        fid_beside_losses: FID written beside the losses, repeated until the next one.
        tb_fid: TB-GAN, FID.
        tb_discriminator: TB-GAN, discriminator loss, one an epoch.
        tb_generator: TB-GAN, generator loss, one an epoch.
    """

    fid_epochs: NDArray[np.int64]
    fid: Series
    generator: Series
    discriminator: Series
    fid_beside_losses: Series
    tb_fid: Series
    tb_discriminator: Series
    tb_generator: Series

    @property
    def tb_epochs_a_fid(self) -> int:
        """Epochs between two FIDs of TB-GAN."""
        return len(self.tb_discriminator) // len(self.tb_fid)


def read_logs(folder: Path) -> Logs:
    """Read the five logs of a folder.

    Raises:
        DataError: A file is missing, is another kind of file, or has another shape; arrays that
            would need pickle are refused unread.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder.name}: is not a folder; expected the one with {', '.join(FILES)}", code="D102"
        )
    epochs, fid = _read_fid(folder / FID_FILE)
    generator, discriminator, beside = _read_losses(folder / LOSS_FILE)
    tb_fid, tb_d, tb_g = (_read_array(folder / name) for name in FILES[2:])
    if len(tb_d) != len(tb_g) or len(tb_d) % len(tb_fid):
        raise DataError(
            f"{TB_D_FILE}, {TB_G_FILE}, {TB_FID_FILE}: have {len(tb_d)}, {len(tb_g)} and "
            f"{len(tb_fid)} values; expected equally many losses and a FID every so many epochs",
            code="D103",
        )
    return Logs(epochs, fid, generator, discriminator, beside, tb_fid, tb_d, tb_g)


def _read_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise DataError(
            f"{path.name}: is missing; expected it beside {', '.join(FILES)}", code="D102"
        )
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise DataError(
            f"{path.name}: cannot be read ({error.strerror}); check its permissions", code="D102"
        ) from error
    if len(data) > _MAX_BYTES:
        raise DataError(
            f"{path.name}: is larger than {_MAX_BYTES:,} bytes; expected a log", code="D103"
        )
    return data


def _read_fid(path: Path) -> tuple[NDArray[np.int64], Series]:
    """Read epochs and FIDs from a spreadsheet's file with empty columns after these two."""
    try:
        text = _read_bytes(path).decode("utf-8")
        rows = [[f.strip() for f in row] for row in csv.reader(io.StringIO(text, newline=""))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path.name}: is not a table in UTF-8 text ({error})", code="D103") from (
            error
        )
    if not rows or rows[0][:2] != ["Epochs", "FID"]:
        found = shown(",".join(rows[0])) if rows else "an empty file"
        raise DataError(
            f"{path.name}: expected a header that starts with Epochs,FID, found {found}",
            code="D103",
        )
    for line, row in enumerate(rows[1:], 2):
        if len(row) < 2 or any(row[2:]):
            raise DataError(
                f"{path.name}:{line}: expected an epoch and a FID, found {shown(','.join(row))}",
                code="D103",
            )
    epochs = [_whole(path.name, line, row[0]) for line, row in enumerate(rows[1:], 2)]
    fid = [_real(path.name, line, row[1]) for line, row in enumerate(rows[1:], 2)]
    if len(epochs) < 3 or any(b <= a for a, b in itertools.pairwise(epochs)):
        raise DataError(
            f"{path.name}: expected three or more epochs in ascending order, found {len(epochs)} "
            "rows",
            code="D103",
        )
    return np.array(epochs), np.array(fid)


def _read_losses(path: Path) -> tuple[Series, Series, Series]:
    _read_bytes(path)  # missing or too large: the same sentence as for the other logs
    table = read_strict(path, delimiter=",", required=_LOSS_COLUMNS, max_bytes=_MAX_BYTES)
    for expected, record in enumerate(table.records):
        found = record.values["Epoch"]
        if found != str(expected):
            raise DataError(
                f"{path.name}:{record.line}: expected epoch {expected}, found {shown(found)}",
                code="D103",
            )
    columns = [
        np.array([_real(path.name, r.line, r.values[name]) for r in table.records])
        for name in _LOSS_COLUMNS[1:]
    ]
    return columns[0], columns[1], columns[2]


def _whole(file: str, line: int, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise DataError(f"{file}:{line}: expected a whole number, found {shown(text)}", code="D103")
    return int(text)


def _real(file: str, line: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"{file}:{line}: expected a finite number, found {shown(text)}", code="D103"
        )
    return value


def _read_array(path: Path) -> Series:
    """Read one row of plain floats, after checking the file's header."""
    stream = io.BytesIO(_read_bytes(path))
    try:
        version = np.lib.format.read_magic(stream)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(stream)
    except (ValueError, EOFError, SyntaxError, TokenError) as error:  # as NumPy's parser raises
        raise DataError(
            f"{path.name}: is not an array in NumPy's format; fetch it again", code="D103"
        ) from error
    if dtype.hasobject:
        raise DataError(
            f"{path.name}: holds Python objects, which only pickle can read; it was not read, as "
            "pickle can run code; expected plain floating-point numbers",
            code="D104",
        )
    rest = stream.read()
    n = shape[0] if len(shape) == 1 else 0
    if dtype.kind != "f" or n == 0 or n * dtype.itemsize != len(rest):
        raise DataError(
            f"{path.name}: expected one row of floating-point numbers, found shape {shape}, "
            f"{dtype} and {len(rest):,} bytes",
            code="D103",
        )
    values = np.frombuffer(rest, dtype).astype(np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"{path.name}: holds a value that is not finite", code="D103")
    return values
