"""A short training of each generator gives the stored weights and samples, bit by bit."""

import pytest

from tests.held_still import train
from tests.held_still.corpus import stored


@pytest.mark.parametrize("generator", list(train.STEPS))
def test_a_short_training_gives_the_stored_weights_and_samples(generator):
    known = stored("training")
    if train.build() not in known:
        pytest.skip(
            f"no digests are stored for torch {train.build()}, only for {', '.join(known)}: "
            "another build or processor may round otherwise"
        )

    assert train.training_digests(generator) == known[train.build()][generator]
