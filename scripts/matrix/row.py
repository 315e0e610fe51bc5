"""One row of the matrix: a model with random weights, exported and loaded in this process."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clip_retrieval.encoders.open_clip import open_folder
from clip_retrieval.encoders.openvino.spec import read_spec
from clip_retrieval.encoders.tokenizer import Tokenizer
from clip_retrieval.errors import ModelUnavailable
from clip_retrieval.models.local_dir import WEIGHTS_FILE
from clip_retrieval.models.prepare import prepare_encoder
from scripts.common.paths import ROOT
from scripts.matrix.random_model import write_random_model

TEXTS = ("", "a photo of a red panda", "ein roter Panda", "two dogs run across the meadow", "word " * 100)


@dataclass(frozen=True)
class Row:
    """What came of one model. All but ``model`` and ``result`` is None if it was refused."""

    model: str
    result: str
    """``exported``, or the reason why not."""
    text_layout: str | None = None
    text_cosine: float | None = None
    image_cosine: float | None = None
    """The least cosine of a vector to that of torch in float32, before the runtime's own rounding."""
    same_tokens: bool | None = None
    """Whether the texts have the token ids that open_clip's tokenizer gives."""
    files_mb: float | None = None
    memory_mb: float | None = None
    memory_f32_mb: float | None = None
    """Memory that the loaded encoder adds and that is no file's, with bfloat16 where the processor has it and with
    float32; None if not measured. MB are 10⁶ bytes."""
    image_ms: float | None = None
    text_ms: float | None = None
    """The median time of one image and of one short text, alone, without decoding; None if not measured."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def export_row(name: str, folder: Path, *, layers: int | None = None) -> Row:
    """Export the model ``name`` with random weights in ``folder``, which is made and removed again.

    A model with only so many ``layers`` (see ``config_of``) is not measured.
    """
    source = folder / "source"
    source.mkdir(parents=True)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    try:
        write_random_model(name, source, layers=layers)
        # Names whose tokenizer is in open_clip go the way of a checkpoint file, the others that of a folder.
        as_name = layers is None and not (source / "tokenizer.json").exists()
        named = (name, str(source / WEIGHTS_FILE)) if as_name else (f"local-dir:{source}", None)
        prepared = prepare_encoder(*named)
        return _row(name, prepared, prepare_encoder(*named, runtime="torch"), measure=layers is None)
    except ModelUnavailable as error:
        return Row(name, f"refused: {error}")
    finally:
        with suppress(OSError):
            shutil.rmtree(folder)


def _row(name: str, prepared: Path, reference: Path, *, measure: bool) -> Row:
    spec, tokenizer = read_spec(prepared), Tokenizer.load(prepared)
    _, _, of_torch = open_folder(reference)
    ids = tokenizer.pad([tokenizer.tokenize(text).ids for text in TEXTS], tokenizer.rules.context_length)
    same = bool((ids == of_torch(list(TEXTS)).numpy()).all())
    files = sum(file.stat().st_size for file in prepared.iterdir()) / 1e6
    row = Row(
        model=name,
        result="exported",
        text_layout=spec.text_layout,
        text_cosine=spec.checks["text.xml"].min_cosine,
        image_cosine=spec.checks["image.xml"].min_cosine,
        same_tokens=same,
        files_mb=files,
    )
    return row if not measure else Row(**(row.to_json() | _measured(prepared)))


def _measured(prepared: Path) -> dict[str, float]:
    """From processes of their own: the export left torch and freed memory in this one."""
    usual, exact = (_in_a_process(prepared, precision) for precision in ("auto", "f32"))
    return usual | {"memory_f32_mb": exact["memory_mb"]}


def _in_a_process(prepared: Path, precision: str) -> dict[str, float]:
    command = [sys.executable, "-m", "scripts.matrix.measured", str(prepared), precision]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    fields: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return fields
