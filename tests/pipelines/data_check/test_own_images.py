"""A data check of images that are no PNG: from a proposed `dataset.yaml` to its verdict."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipelines.cli.app import app

pydicom = pytest.importorskip("pydicom", reason="the extra medisynth-gov[dicom] is not installed")
from pydicom import uid  # noqa: E402
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402

runner = CliRunner()


def frame(number):
    generator = np.random.default_rng(number)
    coarse = generator.integers(0, 255, (12, 16), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((96, 72), Image.Resampling.BICUBIC))


def dicom(path, number, **attributes):
    pixels, made = frame(number), Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = uid.UltrasoundImageStorage
    instance = uid.generate_uid(entropy_srcs=[str(number)])
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = instance
    made.PatientID, made.Modality, made.BurnedInAnnotation = f"X{number}", "US", "NO"
    made.Rows, made.Columns = pixels.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    made.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        setattr(made, name, value)
    made.save_as(path, enforce_file_format=True)


def checked(folder, *more):
    command = ["data", "check", str(folder), "--json", "-o", "data.cache=off", *more]
    return runner.invoke(app, command)


def test_dicom_files_that_name_somebody_stop_the_check_until_mended(tmp_path):
    for number in range(24):
        dicom(tmp_path / f"{number}.dcm", number)
    dicom(tmp_path / "3.dcm", 3, PatientName="Doe^Jane")
    dicom(tmp_path / "5.dcm", 5, BurnedInAnnotation="YES")
    assert runner.invoke(app, ["data", "init", str(tmp_path)]).exit_code == 0

    stopped = checked(tmp_path)
    reviewed = checked(
        tmp_path,
        *("-o", "audit.reviewed=['DICOM PatientName: invented', '5: looked at, shows depth only', "
          "'DICOM BurnedInAnnotation: looked at, shows depth only']"),
    )  # fmt: skip
    dicom(tmp_path / "3.dcm", 3)
    dicom(tmp_path / "5.dcm", 5)
    mended = checked(tmp_path)

    assert stopped.exit_code == 3
    assert "D072" in stopped.output
    assert "DICOM PatientName in 1 images, first 3.dcm" in stopped.output
    assert "DICOM BurnedInAnnotation in 1 images, first 5.dcm" in stopped.output
    assert "Jane" not in stopped.output
    assert reviewed.exit_code == 0
    assert mended.exit_code == 0


def test_a_jpeg_set_is_checked_with_its_conversion_on_record(tmp_path):
    rows = []
    for number in range(24):
        stream = io.BytesIO()
        Image.fromarray(frame(number)).save(stream, "JPEG", quality=95)
        folder = tmp_path / f"P{number // 2}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(stream.getvalue())
        rows.append(f"{number}.jpg;P{number // 2};Kopf")
    (tmp_path / "Export.csv").write_text("\ufeffBild;Fall;Ebene\r\n" + "\r\n".join(rows))
    assert runner.invoke(app, ["data", "init", str(tmp_path)]).exit_code == 0

    done = checked(tmp_path)

    assert done.exit_code == 0
    facts = json.loads(done.stdout[done.stdout.index("{\n") :])
    [(how, n)] = facts["dataset"]["conversions"].items()
    assert how.startswith("JPEG (lossy)")
    assert n == 24
    assert facts["dataset"]["convert"]["read"] == ["jpeg"]


@pytest.mark.malformed("png")
def test_a_patient_on_both_sides_of_the_official_split_is_refused(tmp_path):
    for number in range(24):
        Image.fromarray(frame(number)).save(tmp_path / f"{number}.png")
    rows = [f"{n}.png,{n // 2},{'train' if n % 2 else 'test'}" for n in range(24)]
    (tmp_path / "t.csv").write_text("\n".join(["file,patient,split", *rows]))
    assert runner.invoke(app, ["data", "init", str(tmp_path)]).exit_code == 0

    done = checked(tmp_path)

    assert done.exit_code == 4
    assert "patient 0 is on both sides" in done.output
