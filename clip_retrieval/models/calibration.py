"""The samples with which a model is quantised."""

from collections.abc import Sequence
from typing import TypeAlias

from PIL import Image

Calibration: TypeAlias = tuple[Sequence[Image.Image], Sequence[str]]
"""RGB images and texts of the kind that will be served, some hundred of each."""
