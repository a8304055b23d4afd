"""Documents of the search for images that occur more than once."""

from typing import Literal

from governance.records.base import Document

AS_IS = "as is"
DuplicateKind = Literal["same file", "same pixels", "near-duplicate"]


class DuplicatePair(Document):
    """Two images with the same content.

    Attributes:
        kind: "same file" for equal bytes, "same pixels" for equal pictures stored differently,
            "near-duplicate" for a confirmed copy that was changed.
        left_id: Image id.
        left_patient: Patient of the left image.
        left_partition: Partition of the left image; None where it is not known.
        right_id: Image id, after `left_id` in order; its patient and partition likewise.
        transform: "as is", "mirrored left to right", "mirrored top to bottom" or "turned by 180
            degrees": what brings the left image onto the right one.
        similarity: Correlation after alignment, at most 1; None for exact pairs.
        figure: Picture of both images side by side, relative to the run folder; "" when not drawn.
    """

    kind: DuplicateKind
    left_id: str
    left_patient: str
    left_partition: str | None
    right_id: str
    right_patient: str
    right_partition: str | None
    transform: str = AS_IS
    similarity: float | None = None
    figure: str = ""

    @property
    def is_one_patient(self) -> bool:
        """Whether both images are listed under one patient."""
        return self.left_patient == self.right_patient

    @property
    def is_near(self) -> bool:
        """Whether the images are alike but not equal."""
        return self.kind == "near-duplicate"

    @property
    def sentence(self) -> str:
        """Describe both images with their patients, and how similar they are."""
        names = (
            f"{self.left_id} (patient {self.left_patient}) and "
            f"{self.right_id} (patient {self.right_patient})"
        )
        if self.similarity is None:
            return f"{names} are the {self.kind}"
        turned = "" if self.transform == AS_IS else f", {self.transform}"
        return f"{names} are near-duplicates (similarity {self.similarity:.2f}{turned})"


class SimilarityNull(Document):
    """Similarity of images of different patients, the null that the threshold is set against.

    Attributes:
        n_pairs: Pairs of images of different patients that were compared.
        nearest: For each image the similarity to the most similar image of another patient,
            confirmed pairs left out, sorted; at most 500 quantiles.
        threshold: Similarity from which a pair is a near-duplicate.
        highest: Largest similarity below the threshold between different patients; None when
            there was no pair.
    """

    n_pairs: int
    nearest: tuple[float, ...]
    threshold: float
    highest: float | None


class CopyRecall(Document):
    """How many changed copies of the data set's own images the search for duplicates finds.

    Attributes:
        kind: How the copies were changed, e.g. "8 % of width and height cropped".
        n_planted: Images that were copied.
        n_found: Copies that were paired with their originals.
    """

    kind: str
    n_planted: int
    n_found: int


class DuplicateAudit(Document):
    """Images that occur more than once (data/duplicates.json).

    Attributes:
        method: How they were searched.
        n_images: Images searched.
        n_pairs: Confirmed pairs, exact and near.
        n_near: Near-duplicates among them.
        n_pairs_across_patients: Pairs under different patients.
        n_pairs_across_partitions: Pairs whose images are in different partitions: the official
            ones, or those of the run once it has divided the images.
        n_groups: Groups of patients tied together by pairs.
        pairs: Pairs across patients first; at most 1,000.
        null: Similarity between different patients; None with fewer than two patients.
        distinct: Pairs that a person declared to be different images, with the reason given; they
            are not in `pairs`.
        calibration: What the search finds of copies of these images that were changed in known
            ways; empty where it was not tried, as in older runs.
    """

    PATH = "data/duplicates.json"
    ABSENCE = "the audit step did not run to its end"

    method: str
    n_images: int
    n_pairs: int
    n_pairs_across_patients: int
    n_pairs_across_partitions: int
    pairs: tuple[DuplicatePair, ...]
    n_near: int = 0
    n_groups: int = 0
    null: SimilarityNull | None = None
    distinct: tuple[str, ...] = ()
    calibration: tuple[CopyRecall, ...] = ()

    @property
    def calibration_sentence(self) -> str:
        """Say of which kinds of changed copies the search found all, and what it missed.

        "" where it was not tried.
        """
        if not self.calibration:
            return ""
        missed = [one for one in self.calibration if one.n_found < one.n_planted]
        n = max(one.n_planted for one in self.calibration)
        kinds = f"{len(self.calibration)} kinds of changed copies of {n} of these images"
        if not missed:
            return f"the search was tried on {kinds} and found all"
        named = ", ".join(f"{one.kind} {one.n_found} of {one.n_planted}" for one in missed)
        n_whole = len(self.calibration) - len(missed)
        return (
            f"the search was tried on {kinds}; it found all of {n_whole} "
            f"kind{'' if n_whole == 1 else 's'}, but of {named}"
        )
