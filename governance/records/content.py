"""Documents of the search for what identifies somebody, in images and in metadata."""

from typing import Literal

from governance.records.base import Document

TextKind = Literal["name", "date", "time", "number"]


class TextMark(Document):
    """Burned-in text that looks as if it could identify somebody.

    Attributes:
        image_id: Image.
        kind: "name", "date", "time" or "number".
        text: The text as read, at most 80 characters; letters and digits of a name or number
            replaced, so that the report repeats no identifier.
        confidence: Confidence of the reading, 0 to 1.
    """

    image_id: str
    kind: TextKind
    text: str
    confidence: float


class IdentifyingColumn(Document):
    """A column of the metadata file that looks as if it could identify somebody.

    Attributes:
        column: Its name.
        reason: Why it looks identifying; no value is repeated.
        n_values: Values that are not empty.
    """

    column: str
    reason: str
    n_values: int


class FileMetadata(Document):
    """A kind of metadata in image files that is not known to be harmless.

    Attributes:
        kind: "EXIF", "XMP", "ICC profile", "tIME", "chunk xxxx", or the keyword of a text.
        reason: Why it is found; no value is repeated.
        n_images: Images whose files have it, those a person reviewed left out.
        image_ids: The first of them, at most 20.
    """

    kind: str
    reason: str
    n_images: int
    image_ids: tuple[str, ...]


class ContentScan(Document):
    """Text and marks in images and metadata that could identify somebody (data/content.json).

    Attributes:
        engine: Tool that looked for burned-in text, e.g. "tesseract 5.3.0" or "overlay detector".
        reads_text: Whether the engine reads letters; else it only finds overlays.
        n_images: Images of the table.
        n_scanned: Images that the engine looked at to the end.
        n_with_overlay: Images of the table with a burned-in overlay (text, callipers, marks).
        n_with_text: Scanned images in which text was read, or, without a reader, found.
        n_with_callipers: Scanned images with measuring callipers.
        marks: Text that looks identifying; at most 200.
        n_images_with_marks: Images with such text, those a person reviewed left out.
        text_chunks: Keyword of PNG text chunks -> number of images, values never repeated.
        n_columns: Columns of the metadata file that were looked at.
        columns: Columns that look identifying.
        file_metadata: Metadata in image files that is not known to be harmless.
        n_images_with_metadata: Images with such metadata.
        reviewed: Columns, images and kinds of metadata that a person declared reviewed, with the
            reason given.
        limitations: What the scan cannot see, and what it did not look at.
    """

    PATH = "data/content.json"
    ABSENCE = "the audit step did not run to its end"

    engine: str
    reads_text: bool
    n_images: int
    n_scanned: int
    n_with_overlay: int
    n_with_text: int
    n_with_callipers: int
    marks: tuple[TextMark, ...]
    n_images_with_marks: int
    text_chunks: dict[str, int]
    n_columns: int
    columns: tuple[IdentifyingColumn, ...]
    file_metadata: tuple[FileMetadata, ...] = ()
    n_images_with_metadata: int = 0
    reviewed: tuple[str, ...] = ()
    limitations: str = ""
