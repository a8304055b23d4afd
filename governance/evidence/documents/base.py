"""What all documents share: frozen, closed, collections are tuples."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

TRAINING, TUNING, TEST = "training", "tuning", "held-out test set"
PARTITIONS = (TRAINING, TUNING, TEST)


class Document(BaseModel):
    """Base of all documents: frozen, closed, collections are tuples."""

    model_config = ConfigDict(frozen=True, extra="forbid")
