"""DICOM files of any usual transfer syntax give their pixels; their headers are audited."""

import io

import numpy as np
import pytest
from PIL import Image

from governance.records.errors import DataError
from medisynth.data.adapters.propose import begin
from medisynth.data.adapters.table import TableAdapter
from medisynth.data.reading.conversion import Conversion, Window
from medisynth.data.reading.pictures import convert

pydicom = pytest.importorskip("pydicom", reason="the extra medisynth-gov[dicom] is not installed")
from pydicom import uid  # noqa: E402
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402

GREY = (np.add.outer(np.arange(48), 2 * np.arange(40)) % 251).astype(np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=2)
ASKED = {"read": ("dicom",)}


def dataset(pixels=GREY, *, photometric="MONOCHROME2", frames=1, **attributes):
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = uid.UltrasoundImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid(
        entropy_srcs=["a"]
    )
    made.PatientID, made.Modality = "X1", "US"
    is_colour = pixels.ndim - (frames > 1) == 3
    made.Rows, made.Columns = pixels.shape[-3:-1] if is_colour else pixels.shape[-2:]
    made.SamplesPerPixel, made.PhotometricInterpretation = 3 if is_colour else 1, photometric
    if is_colour:
        made.PlanarConfiguration = 0
    if frames > 1:
        made.NumberOfFrames = frames
    made.BitsAllocated = made.BitsStored = 8 * pixels.itemsize
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = np.ascontiguousarray(pixels).tobytes()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def written(made):
    stream = io.BytesIO()
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def image_of(made, frame=None, **settings):
    data = made if isinstance(made, bytes) else written(made)
    [image] = convert(data, "a.dcm", [frame], Conversion(**{**ASKED, **settings}))
    return image


def refusal(made, frame=None, **settings):
    with pytest.raises(DataError) as caught:
        image_of(made, frame, **settings)
    return caught.value.code, str(caught.value)


@pytest.mark.parametrize(
    "syntax", [None, uid.RLELossless, uid.JPEG2000Lossless, uid.DeflatedExplicitVRLittleEndian]
)
@pytest.mark.parametrize(
    ("pixels", "photometric"), [(GREY, "MONOCHROME2"), (COLOUR, "RGB")], ids=["grey", "colour"]
)
def test_lossless_transfer_syntaxes_keep_every_pixel(syntax, pixels, photometric):
    made = dataset(pixels, photometric=photometric)
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        made.file_meta.TransferSyntaxUID = syntax
    elif syntax is not None:
        made.compress(syntax)

    image = image_of(made)

    assert np.array_equal(image.pixels, pixels)
    assert "lossy" not in image.how


def test_lossy_jpeg_gives_the_pixels_of_its_decoder_and_is_named_so():
    stream = io.BytesIO()
    Image.fromarray(GREY).save(stream, "JPEG", quality=95)
    made = dataset(LossyImageCompression="01")
    made.PixelData = encapsulate([stream.getvalue()])
    made["PixelData"].is_undefined_length = True
    made.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit

    image = image_of(made)

    expected = np.asarray(Image.open(io.BytesIO(stream.getvalue())))
    assert np.abs(image.pixels.astype(int) - expected).max() <= 1
    assert "lossy" in image.how


def test_monochrome1_is_inverted():
    image = image_of(dataset(255 - GREY, photometric="MONOCHROME1"))

    assert np.array_equal(image.pixels, GREY)
    assert image.how.endswith("inverted (MONOCHROME1)")


def test_ybr_becomes_rgb_as_another_implementation_computes_it():
    ycc = np.asarray(Image.fromarray(COLOUR).convert("YCbCr"))

    image = image_of(dataset(ycc, photometric="YBR_FULL"))

    expected = np.asarray(Image.fromarray(ycc, "YCbCr").convert("RGB"))
    assert np.abs(image.pixels.astype(int) - expected).max() <= 1


def test_a_film_gives_the_frame_asked_for_and_nothing_without_a_number():
    film = dataset(np.stack([GREY, GREY[::-1], 255 - GREY]), frames=3)

    assert np.array_equal(image_of(film, 2).pixels, GREY[::-1])
    assert refusal(film)[0] == "D066"
    assert refusal(film, 4)[0] == "D066"


def test_rescale_and_window_follow_the_header_or_what_is_asked():
    values = (GREY.astype(np.int16) - 100) * 10
    made = dataset(values, RescaleSlope=2, RescaleIntercept=-50, WindowCenter=0, WindowWidth=1001)
    rescaled = values * 2.0 - 50

    def by_formula(centre, width):
        return np.clip(np.rint(((rescaled - centre + 0.5) / (width - 1) + 0.5) * 255), 0, 255)

    assert refusal(made)[0] == "D065"
    assert np.array_equal(image_of(made, window="stored").pixels, by_formula(0, 1001))
    own = image_of(made, window=Window(centre=300, width=500))
    assert np.array_equal(own.pixels, by_formula(300, 500))
    assert "rescaled" in own.how
    assert "centre 300" in own.how


def region(**box):
    made = Dataset()
    made.RegionSpatialFormat = made.RegionDataType = 1
    made.PhysicalUnitsXDirection = made.PhysicalUnitsYDirection = 3
    made.PhysicalDeltaX = made.PhysicalDeltaY = 0.025
    for name, value in box.items():
        setattr(made, f"RegionLocation{name}", value)
    return [made]


def test_the_ultrasound_region_cuts_the_frame():
    made = dataset(SequenceOfUltrasoundRegions=region(MinX0=4, MinY0=6, MaxX1=23, MaxY1=41))

    assert np.array_equal(image_of(made, region="ultrasound").pixels, GREY[6:42, 4:24])
    assert refusal(dataset(), region="ultrasound")[0] == "D065"
    outside = dataset(SequenceOfUltrasoundRegions=region(MinX0=0, MinY0=0, MaxX1=99, MaxY1=9))
    assert refusal(outside, region="ultrasound")[0] == "D063"


def without(made, name):
    delattr(made, name)
    return made


def encrypted():
    return dataset(EncryptedAttributesSequence=[Dataset()])


def unknown_syntax():
    made = dataset()
    made.compress(uid.RLELossless)
    data = written(made)
    assert data.count(b"1.2.840.10008.1.2.5\0") == 1
    return data.replace(b"1.2.840.10008.1.2.5\0", b"1.2.840.10008.9.9.9\0")


@pytest.mark.malformed("png")
@pytest.mark.parametrize(
    ("made", "code", "words"),
    [
        (without(dataset(), "PixelData"), "D065", "without pixels"),
        (encrypted(), "D065", "encrypted attributes"),
        (dataset(Rows=46_000, Columns=46_000), "D062", "46000 x 46000 pixels"),
        (dataset(Rows=4_000, Columns=4_000), "D063", "its header says 16,000,000"),
        (written(dataset())[:-200], "D063", ""),
        (written(dataset())[:150], "D065", "without pixels"),
        (unknown_syntax(), "D065", "1.2.840.10008.9.9.9"),
        (b"\0" * 128 + b"DICM" + b"\xff" * 400, "D065", "without pixels"),
    ],
    ids=["no pixels", "encrypted", "2 GB", "16 MB", "cut", "stump", "syntax", "garbage"],
)
def test_bad_files_are_refused_in_one_line(made, code, words):
    found, message = refusal(made)

    assert found == code
    assert words in message
    assert "\n" not in message


def test_identifying_attributes_are_named_by_keyword_and_never_by_value():
    nested = Dataset()
    nested.PersonName = "Doe^Jane"
    made = dataset(
        PatientName="Doe^Jane",
        PatientBirthDate="19900102",
        StudyDate="20240506",
        InstitutionName="St. Elsewhere",
        BurnedInAnnotation="YES",
        OperatorIdentificationSequence=[nested],
    )
    block = made.private_block(0x0011, "MAKER", create=True)
    block.add_new(1, "LO", "Jane")

    image = image_of(made)

    assert set(image.metadata) == {
        "DICOM PatientName",
        "DICOM PatientBirthDate",
        "DICOM dates of the examination",
        "DICOM InstitutionName",
        "DICOM OperatorIdentificationSequence",
        "DICOM PersonName",
        "DICOM private tags",
        "DICOM BurnedInAnnotation",
    }
    assert image.burned_in == "YES"
    assert "Jane" not in repr((image.how, image.metadata))


def test_a_header_without_telling_values_has_nothing_to_report():
    made = dataset(PatientName="ANONYMOUS", PatientBirthDate="", BurnedInAnnotation="NO")

    assert image_of(made).metadata == ()


def test_data_init_reads_headers_and_numbers_patients_anew(tmp_path):
    film = dataset(np.stack([GREY, GREY[::-1]]), frames=2, PatientID="secret-2")
    single = dataset(
        PatientID="secret-1",
        ManufacturerModelName="Voluson E6",
        SequenceOfUltrasoundRegions=region(MinX0=0, MinY0=0, MaxX1=39, MaxY1=47),
    )
    (tmp_path / "a").write_bytes(written(single))
    (tmp_path / "b.dcm").write_bytes(written(film))

    proposal, files = begin(tmp_path)
    table = TableAdapter().list_images(tmp_path).table

    assert list(table["patient_id"]) == ["P00001", "P00002", "P00002"]
    assert list(table["image_id"]) == ["a", "b_frame0001", "b_frame0002"]
    assert proposal.meaning.convert.read == ("dicom",)
    assert all(b"secret" not in path.read_bytes() for path in files)
    assert b"0.25" in (tmp_path / "images.csv").read_bytes()  # 0.025 cm
