"""Import of torchvision where its compiled part does not fit the installed torch.

pytorch-fid builds its network from torchvision's Inception blocks, which are plain Python. Where
torch and torchvision were built for different releases or devices, torchvision's compiled operators
do not load and `import torchvision` itself fails, because it registers shapes for two of them,
`nms` and `qnms` (non-maximum suppression of detection boxes). Neither is used here. This module
declares the two names without an implementation, and only after a plain import has failed in that
way: calling them still raises, and a working torchvision is not touched.
"""

import sys

import torch

_PLACEHOLDERS = ("nms", "qnms")
_SYMPTOM = "operator torchvision::nms does not exist"

WORKS = "works"
WORKS_WITH_PLACEHOLDERS = "works with two placeholder operators"

# An operator library lives as long as its Python object: kept here so that it is never collected.
_library: torch.library.Library | None = None


def import_torchvision() -> str:
    """Import torchvision, working around the failure described above; safe to call again.

    Returns:
        "works", or "works with two placeholder operators" after the failure described above.

    Raises:
        RuntimeError: torchvision fails in another way.
        ImportError: torchvision is not installed.
    """
    global _library
    if _library is not None:
        return WORKS_WITH_PLACEHOLDERS
    try:
        _import()
    except RuntimeError as error:
        if _SYMPTOM not in str(error):
            raise
    else:
        return WORKS
    # A failed import leaves submodules behind that the next import would take for finished ones.
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    _library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for operator in _PLACEHOLDERS:
        schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        _library.define(schema)  # type: ignore[no-untyped-call]
    _import()
    return WORKS_WITH_PLACEHOLDERS


def _import() -> None:
    import torchvision  # type: ignore[import-untyped] # noqa: F401
