"""Make torchvision importable beside a torch build that its compiled operators were not made for.

open_clip and timm import torchvision for its image transforms, which are plain Python. A package index may pair the
CPU build of torch with the CUDA build of torchvision; its compiled operators then do not load, and the import stops
where torchvision describes them to torch. Nothing here runs those operators, so naming them is enough.
"""

import sys

import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def ensure_importable() -> None:
    """Import torchvision, with its missing operators named but not implemented if they cannot be loaded.

    Call it before the first import of open_clip or timm. Raises ModuleNotFoundError where torchvision is not installed.
    """
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for operator in ("torchvision::nms", "torchvision::qnms"):
            torch.library.define(operator, _SIGNATURE)
        import torchvision  # noqa: F401
