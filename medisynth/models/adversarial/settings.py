"""Sizes of the discriminators of whole images. Imports no torch."""

SMALLEST_SIDE = 4  # of a discriminator's features, in pixels


def n_levels(side: int) -> int:
    """Levels of a discriminator of images of a side: 4, 8, … side / 2 pixels.

    The side is a power of two from 8 on.
    """
    return (side // SMALLEST_SIDE).bit_length() - 1
