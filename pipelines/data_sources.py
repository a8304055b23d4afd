"""Where the public data sets are published, with size and checksum of each file.

Size and MD5 are those of the publisher's record; MD5 is what the record offers. Where neither is
pinned here, both are read from the record itself when the data set is fetched.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from medisynth.data.adapters import DatasetInfo, african_planes, fetal_planes_db, hc18
from pipelines.download import RemoteFile

_ZENODO = "https://zenodo.org/api/records"


@dataclass(frozen=True)
class Source:
    """Where a data set is published.

    Attributes:
        info: What is known of the data set.
        record: Address of the publisher's record, JSON.
        files: Files to fetch; a ZIP archive is unpacked, others are kept as they are.
        max_files: Most members of an archive.
        max_bytes: Most bytes of an archive, unpacked.
        test_files: Files of a test set, fetched only on request.
        by_hand: What remains for the user; empty when nothing does.
    """

    info: DatasetInfo
    record: str
    files: tuple[RemoteFile, ...]
    max_files: int = 20_000
    max_bytes: int = 8_000_000_000
    test_files: tuple[RemoteFile, ...] = ()
    by_hand: str = ""


def _zenodo(record: int, name: str, n_bytes: int | None, md5: str | None) -> RemoteFile:
    return RemoteFile(name, f"{_ZENODO}/{record}/files/{name}/content", n_bytes, md5)


SOURCES: Mapping[str, Source] = {
    "fetal-planes-db": Source(
        info=fetal_planes_db.INFO,
        record=f"{_ZENODO}/3904280",
        files=(
            _zenodo(
                3904280,
                "FETAL_PLANES_ZENODO.zip",
                2_088_522_169,
                "2a5fcc2cefb789bcc0f6c1f73e0ea43f",
            ),
        ),
    ),
    "hc18": Source(
        info=hc18.INFO,
        record=f"{_ZENODO}/1327317",
        files=(
            _zenodo(1327317, "training_set.zip", 132_926_838, "00eb8198b9a505b2b3a6dfc740382497"),
            _zenodo(1327317, hc18.PUBLISHED_FILE, 33_688, "c0761518fece2bd2d2ad4218f2cd9777"),
        ),
        test_files=(
            _zenodo(1327317, "test_set.zip", 43_518_463, "8402af5d137ef40a2888c1011ef3fe7e"),
            _zenodo(1327317, "test_set_pixel_size.csv", 9_096, "8476dc198cc6542f26c57e87faeee033"),
        ),
    ),
    "african-planes": Source(
        info=african_planes.INFO,
        record=f"{_ZENODO}/7540448",
        files=(_zenodo(7540448, "Zenodo_dataset.tar.xz", None, None),),
        by_hand=(
            "the publisher gives a .tar.xz archive, which is not unpacked here: unpack it by hand "
            "and bring it into the layout of docs/data_sets.md (metadata.csv and images/)"
        ),
    ),
}
