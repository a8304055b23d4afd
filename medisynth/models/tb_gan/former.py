"""Recognition of weights of the former architecture."""

from collections.abc import Collection

from governance.records.errors import WeightsError

_OF_FORMER = "levels.0.to_image.weight"  # image skips have had a layer of their own since


def require_present(names: Collection[str], prefix: str, what: str) -> None:
    """Refuse tensors of the former generator, which added a fixed position grid at a fixed gain.

    Args:
        names: Names of all tensors.
        prefix: Prefix of the generator's own names.
        what: Name of the tensors for the message.

    Raises:
        WeightsError: They are of the former architecture.
    """
    if prefix + _OF_FORMER in names:
        raise WeightsError(
            f"{what}: expected a generator with learned positions, found one of the architecture "
            "before them, in which positions had a fixed position_gain; read it with a version of "
            "medisynth-gov whose settings of tb-gan still have position_gain, or train again"
        )
