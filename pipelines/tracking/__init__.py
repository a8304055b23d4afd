"""The mirror of a run in MLflow, and the only package that imports it.

MLflow is a window: records in it stay editable, so nothing is proved from there. A tracking
server that fails in the middle of a run never stops it: the mirror goes silent, once, in words,
and what it missed is written later, from the run folder alone.
"""

from pipelines.tracking.live import Tracker
from pipelines.tracking.store import metric_name, open_store, store_uri

__all__ = ["Tracker", "metric_name", "open_store", "store_uri"]
