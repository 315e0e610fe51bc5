"""The files of an exported model, and ``runtime.json``, which describes them.

A folder holds ``runtime.json`` (a ``RuntimeSpec``), the files of ``Tokenizer.save``, and for each tower and precision a
graph (``text.xml``, ``image.int8.xml``) with its weights (``.bin``).
"""

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from clip_retrieval.encoders.openvino.layouts import Layout
from clip_retrieval.encoders.preprocess import Preprocess
from clip_retrieval.errors import ModelUnavailable

SPEC_FILE = "runtime.json"
TOWERS = ("text", "image")


class Check(BaseModel):
    """The comparison of an exported tower with torch in float32 on the same inputs."""

    model_config = ConfigDict(frozen=True)

    inputs: int
    """The number of compared vectors."""
    min_cosine: float
    mean_cosine: float
    max_difference: float
    """The largest difference of a component of the unit vectors."""


class RuntimeSpec(BaseModel):
    """The content of ``runtime.json``."""

    model_config = ConfigDict(frozen=True)

    precisions: tuple[Literal["f32", "int8"], ...]
    """The precisions for which the folder holds the graphs of both towers."""
    text_layout: Layout = Field(validation_alias=AliasChoices("text_layout", "text_length"))
    """Artifacts that were built before the layout ``prefixes`` existed call it ``text_length``."""
    preprocess: Preprocess
    checks: dict[str, Check]
    """By the file name of a graph: the comparison that was made when the graph was exported."""


def graph_file(tower: str, precision: str) -> str:
    """The file name of a tower's graph: ``text.xml`` for f32, ``text.int8.xml`` for int8."""
    return f"{tower}.xml" if precision == "f32" else f"{tower}.{precision}.xml"


def read_spec(folder: Path) -> RuntimeSpec:
    """The description of the exported model in ``folder``. Raises ModelUnavailable if it is missing or damaged."""
    try:
        return RuntimeSpec.model_validate_json((folder / SPEC_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise ModelUnavailable(
            f"{folder} holds no exported model: {SPEC_FILE} cannot be read ({error}); build the artifact again"
        ) from error
