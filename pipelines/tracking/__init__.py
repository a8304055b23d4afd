"""The mirror of a run in MLflow, and the only package that imports it.

Records in MLflow stay editable, so they are no evidence. A tracking server that fails during a run
never stops it: mirroring ends with one warning, and the missing part is written later from the run
folder.
"""

from pipelines.tracking.live import Tracker
from pipelines.tracking.store import metric_name, open_store, store_uri

__all__ = ["Tracker", "metric_name", "open_store", "store_uri"]
