"""DICOM files: frames as grey or RGB pixels, and what their headers could tell about a person.

Needs the extra `medisynth-gov[dicom]` (pydicom, and pylibjpeg for JPEG, JPEG 2000 and RLE).
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from governance.records.errors import DataError, SettingsError, first_line
from medisynth.data.reading.conversion import Conversion
from medisynth.data.reading.decode import MAX_PIXELS, Converted, chosen_frame, image_fault, windowed
from medisynth.data.reading.views import Pixels

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

_DEFLATED, _META_BYTES = b"1.2.840.10008.1.2.1.99", 4096  # a small file may unpack to a huge one
_MOST_ELEMENTS = 20_000  # of one header
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_MM_OF_UNIT = {3: 10.0}  # PS3.3 C.8.5.5.1.15: 3 is centimetres
_TISSUE, _TWO_DIMENSIONAL = 1, 1

# Attributes of PS3.15 table E.1-1 (Basic Application Level Confidentiality Profile) whose value tells about
# a person, an examination or a place in words or numbers. Every name (VR PN) and date (DA, DT) counts too.
_TELLING_TEXT = """
AccessionNumber AcquisitionComments AdditionalPatientHistory AdmissionID
AdmittingDiagnosesDescription Allergies AuthorObserverSequence BranchOfService
CountryOfResidence CurrentPatientLocation DerivationDescription DetectorID
DeviceSerialNumber EthnicGroup FillerOrderNumberImagingServiceRequest GantryID
IdentifyingComments ImageComments ImagingServiceRequestComments InstitutionAddress
InstitutionCodeSequence InstitutionName InstitutionalDepartmentName
InsurancePlanIdentification IssuerOfPatientID MedicalAlerts MedicalRecordLocator
MilitaryRank ModifiedAttributesSequence NameOfPhysiciansReadingStudy Occupation
OperatorIdentificationSequence OriginalAttributesSequence OtherPatientIDs
OtherPatientIDsSequence PatientAddress PatientComments PatientInsurancePlanCodeSequence
PatientReligiousPreference PatientState PatientTelephoneNumbers
PatientTelecomInformation PerformedLocation PerformedProcedureStepDescription
PerformedProcedureStepID PerformedStationAETitle PerformedStationName PersonAddress
PersonTelephoneNumbers PlacerOrderNumberImagingServiceRequest PlateID ProtocolName
ReasonForStudy ReferringPhysicianAddress ReferringPhysicianTelephoneNumbers
RegionOfResidence RequestAttributesSequence RequestedProcedureComments
RequestedProcedureDescription RequestedProcedureID RequestingService
ResponsibleOrganization ScheduledPerformingPhysicianName
ScheduledProcedureStepDescription SeriesDescription ServiceEpisodeDescription
ServiceEpisodeID SmokingStatus SourceImageSequence SpecialNeeds StationName
StudyComments StudyDescription StudyID TextComments TextString VisitComments
"""
_TELLING = frozenset(_TELLING_TEXT.split())
_PLACEHOLDERS = frozenset(
    {"anon", "anonymous", "anonymized", "anonymised", "deidentified", "removed", "none", "unknown"}
)


def convert_dicom(
    data: bytes, where: str, frames: Sequence[int | None], settings: Conversion
) -> Iterator[Converted]:
    """Decode frames of one DICOM file.

    Grey values go through the file's rescale and the window asked for; MONOCHROME1 is inverted; YBR
    becomes RGB as PS3.3 C.7.6.3.1.2 says.

    Raises:
        DataError: The file has no pixels, is damaged or encrypted, is too large, has an unknown transfer
            syntax or pixels of a kind that is not read, or needs another setting.
    """
    dataset = read_header(data, where)
    _check_pixels(dataset, where)
    n_frames = int(dataset.get("NumberOfFrames") or 1)
    kinds = tuple(dict.fromkeys(_identifying(dataset)))
    burned_in = str(dataset.get("BurnedInAnnotation", "")).strip().upper()
    if burned_in == "YES":
        kinds += ("DICOM BurnedInAnnotation",)
    for frame in frames:
        number = chosen_frame(n_frames, frame, where)
        with _refusals(where):
            pixels, steps = _frame(dataset, number, where, settings)
        if settings.region == "ultrasound":
            left, top, right, bottom = _region_box(dataset, pixels.shape, where)
            pixels = np.ascontiguousarray(pixels[top:bottom, left:right])
            steps.append("cut to its ultrasound region")
        syntax = dataset.file_meta.TransferSyntaxUID.name
        lossy = ", lossy" if str(dataset.get("LossyImageCompression", "")) == "01" else ""
        how = "; ".join([f"DICOM ({syntax}{lossy})", *steps])
        yield Converted(pixels, how, kinds, False, burned_in if burned_in in ("YES", "NO") else "")


def read_header(data: bytes, where: str, *, pixels: bool = True) -> "FileDataset":
    """Read a DICOM file without decoding its pixels.

    Args:
        data: Bytes of the file.
        where: Name of the file for messages.
        pixels: Whether the pixel data are kept; without them the start of the file is enough.

    Raises:
        DataError: It is damaged or cut short.
        SettingsError: pydicom is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise SettingsError(
            "DICOM files need pydicom; install the extra: pip install 'medisynth-gov[dicom]'"
        ) from error
    if not pixels and _DEFLATED in data[:_META_BYTES]:
        raise image_fault("D065", where, "is deflated, so its header is not looked at beforehand")
    with _refusals(where):
        dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=not pixels)
        dataset.decode()
    return dataset


@contextmanager
def _refusals(where: str) -> Iterator[None]:
    """Turn whatever a damaged file makes its reader raise into the one error of that file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (DataError, SettingsError):
        raise
    except MemoryError as error:
        raise image_fault("D062", where, "needs too much memory to be decoded") from error
    except Exception as error:  # a decoder's own errors have no common base
        raise image_fault(
            "D063",
            where,
            f"is a damaged or cut DICOM file ({first_line(error)[:120]}); restore it from the source",
        ) from error


def _check_pixels(dataset: "FileDataset", where: str) -> None:
    """Refuse what must not reach a decoder."""
    if "EncryptedAttributesSequence" in dataset:
        raise image_fault(
            "D065",
            where,
            "holds encrypted attributes, which nobody can audit; export it without them",
        )
    if "PixelData" not in dataset:
        raise image_fault("D065", where, "is a DICOM file without pixels; take it out of the table")
    if "TransferSyntaxUID" not in dataset.file_meta:
        raise image_fault("D063", where, "names no transfer syntax; restore it from the source")
    wanted = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PhotometricInterpretation")
    lacking = [name for name in wanted if not dataset.get(name)]
    if lacking:
        raise image_fault(
            "D063", where, f"is a DICOM file without {lacking[0]}; restore it from the source"
        )
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if rows * columns > MAX_PIXELS:
        raise image_fault(
            "D062", where, f"is {columns} x {rows} pixels, expected at most {MAX_PIXELS:,} in all"
        )
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_transfer_syntax and not syntax.is_compressed:
        n_samples = int(dataset.get("SamplesPerPixel") or 1)
        n_frames = int(dataset.get("NumberOfFrames") or 1)
        expected = rows * columns * n_samples * n_frames * int(dataset.BitsAllocated) // 8
        if "422" in str(dataset.PhotometricInterpretation):
            expected = expected * 2 // 3
        found = len(dataset.PixelData)
        if found < expected:
            raise image_fault(
                "D063",
                where,
                f"has {found:,} bytes of pixels, its header says {expected:,}; restore it from the "
                "source",
            )
    elif not _has_decoder(syntax):
        name = syntax.name if syntax.name != str(syntax) else "an unknown transfer syntax"
        raise image_fault(
            "D065",
            where,
            f"is compressed as {name} ({syntax}), which cannot be decoded here; install "
            "medisynth-gov[dicom], or export it uncompressed (Explicit VR Little Endian)",
        )


def _has_decoder(syntax: Any) -> bool:
    from pydicom.pixels.decoders.base import get_decoder

    try:
        return bool(get_decoder(syntax).is_available)
    except (NotImplementedError, ValueError):  # unknown, or no transfer syntax at all
        return False


def _frame(
    dataset: "FileDataset", number: int, where: str, settings: Conversion
) -> tuple[Pixels, list[str]]:
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    photometric = str(dataset.PhotometricInterpretation)
    values = pixel_array(dataset, index=number - 1)
    if photometric.startswith("MONOCHROME") and values.ndim == 2:
        return _grey(dataset, values, where, settings)
    if photometric == "PALETTE COLOR" and values.ndim == 2:
        if settings.palette == "refuse":
            raise image_fault(
                "D065",
                where,
                "has a palette of colours; to use the colours, set data.convert.palette: expand",
            )
        colours = apply_color_lut(values, dataset)
        if colours.dtype == np.uint16:
            colours = (colours >> 8).astype(np.uint8)
        return np.ascontiguousarray(colours), ["palette expanded"]
    if photometric in _COLOURS and values.ndim == 3 and values.dtype == np.uint8:
        steps = [] if photometric == "RGB" else [f"{photometric} to RGB"]
        return np.ascontiguousarray(values), steps
    raise image_fault(
        "D065",
        where,
        f"has pixels of kind {photometric} with {dataset.BitsStored} bits, which are not read; export "
        "it as grey or 8-bit RGB",
    )


def _grey(
    dataset: "FileDataset", values: Any, where: str, settings: Conversion
) -> tuple[Pixels, list[str]]:
    from pydicom.pixels.processing import apply_rescale

    steps: list[str] = []
    is_rescaled = "ModalityLUTSequence" in dataset or (
        float(dataset.get("RescaleSlope") or 1),
        float(dataset.get("RescaleIntercept") or 0),
    ) != (1.0, 0.0)
    bits, is_signed = int(dataset.BitsStored), bool(dataset.get("PixelRepresentation"))
    is_plain = bits <= 8 and not is_signed and not is_rescaled
    if is_plain and settings.window in ("refuse", "full"):
        levels: Pixels = values.astype(np.uint8)
        if bits < 8:
            levels = np.rint(values * (255 / (2**bits - 1))).astype(np.uint8)
            steps.append(f"{bits} bits scaled to 0 to 255")
    else:
        bounds = np.array(
            [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if is_signed else [0, 2**bits - 1]
        )
        whole = apply_rescale(values, dataset).astype(np.float64)
        if "ModalityLUTSequence" in dataset:
            low, high = float(whole.min()), float(max(whole.max(), whole.min() + 1))
            full = (low, high)
        else:
            ends = sorted(float(v) for v in apply_rescale(bounds.astype(np.float64), dataset))
            full = (ends[0], ends[1])
        if is_rescaled:
            steps.append("rescaled as its header says")
        levels, words = windowed(whole, full, _stored_window(dataset), where, settings)
        steps.append(words)
    if str(dataset.PhotometricInterpretation) == "MONOCHROME1":
        levels = 255 - levels
        steps.append("inverted (MONOCHROME1)")
    return np.ascontiguousarray(levels), steps


def _stored_window(dataset: "Dataset") -> tuple[float, float] | None:
    centre, width = dataset.get("WindowCenter"), dataset.get("WindowWidth")
    if centre is None or width is None or str(dataset.get("VOILUTFunction", "LINEAR")) != "LINEAR":
        return None
    first = [value[0] if hasattr(value, "__len__") else value for value in (centre, width)]
    return float(first[0]), float(first[1])


def _tissue_regions(dataset: "Dataset") -> list["Dataset"]:
    return [
        region
        for region in dataset.get("SequenceOfUltrasoundRegions") or ()
        if region.get("RegionSpatialFormat") == _TWO_DIMENSIONAL
        and region.get("RegionDataType") == _TISSUE
    ]


def _region_box(
    dataset: "Dataset", shape: tuple[int, ...], where: str
) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the first two-dimensional region, the last two excluded."""
    regions = _tissue_regions(dataset)
    if not regions:
        raise image_fault(
            "D065",
            where,
            "names no two-dimensional ultrasound region; set data.convert.region: whole",
        )
    names = ("X0", "Y0", "X1", "Y1")
    x0, y0, x1, y1 = (
        int(regions[0].get(f"RegionLocation{'Min' if end.endswith('0') else 'Max'}{end}", -1))
        for end in names
    )
    if not (0 <= x0 < x1 < shape[1] and 0 <= y0 < y1 < shape[0]):
        raise image_fault(
            "D063",
            where,
            f"has an ultrasound region ({x0}, {y0}) to ({x1}, {y1}) outside its {shape[1]} x "
            f"{shape[0]} pixels; set data.convert.region: whole",
        )
    return x0, y0, x1 + 1, y1 + 1


def pixel_size_mm(dataset: "Dataset") -> float | None:
    """Return the size of a square pixel in mm, of the first ultrasound region or of the whole image.

    None where the header says nothing, or pixels are not square (by more than 1 %).
    """
    pairs = [
        (region.get("PhysicalDeltaX"), region.get("PhysicalDeltaY"), _MM_OF_UNIT.get(unit))
        for region in _tissue_regions(dataset)
        if (unit := region.get("PhysicalUnitsXDirection")) == region.get("PhysicalUnitsYDirection")
    ]
    spacing = dataset.get("PixelSpacing")
    if spacing is not None and len(spacing) == 2:
        pairs.append((spacing[1], spacing[0], 1.0))
    for x, y, factor in pairs:
        if x and y and factor and abs(abs(float(x) / float(y)) - 1) <= 0.01:
            return abs(float(x)) * factor
    return None


def _identifying(dataset: "Dataset") -> Iterator[str]:
    """Yield the kinds of attributes that could identify somebody and are not empty."""
    n_seen = 0
    for element in dataset.iterall():
        n_seen += 1
        if n_seen > _MOST_ELEMENTS:
            yield "DICOM header too long to be audited"
            return
        if element.tag.is_private:
            if not element.tag.is_private_creator and not element.is_empty:
                yield "DICOM private tags"
            continue
        keyword = str(element.keyword)
        if element.is_empty or keyword == "PatientID":
            continue
        if element.VR in ("DA", "DT"):
            is_birth = "Birth" in keyword
            yield f"DICOM {keyword}" if is_birth else "DICOM dates of the examination"
        elif (element.VR == "PN" or keyword in _TELLING) and not _is_placeholder(element.value):
            yield f"DICOM {keyword}"


def _is_placeholder(value: Any) -> bool:
    letters = "".join(c for c in str(value).casefold() if c.isalpha())
    return letters in _PLACEHOLDERS
