"""What BentoML's tools show of an artifact: the file ``model.yaml``. Labels have a small alphabet."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clip_retrieval.artifacts.manifest import Manifest

MODEL_YAML = "model.yaml"
SOURCE = "source"
"""The label with the mark of the source."""


class _Described(Exception):
    """BentoML has written its file; the rest is not left to it."""


def describe(tag: str, manifest: "Manifest", folder: Path, source: str | None) -> None:
    """Put BentoML's own file into ``folder``; ``source`` is the mark of the source, if it is known."""
    import bentoml

    before = tempfile.tempdir
    tempfile.tempdir = str(folder)  # where BentoML makes its folder; so a kill leaves none elsewhere
    try:
        with bentoml.models.create(
            tag,
            labels=labels(manifest) | ({SOURCE: source} if source else {}),
            metadata={
                "encoder": manifest.encoder.model_dump(mode="json", exclude_none=True),
                "data": manifest.data.model_dump(mode="json", exclude_none=True),
                "images": manifest.images.facts(exclude_none=True),
                "captions": manifest.captions.facts(exclude_none=True),
            },
        ) as model:
            model.flush()  # type: ignore[no-untyped-call]
            made = Path(model.path)
            (made / MODEL_YAML).replace(folder / MODEL_YAML)
            made.rmdir()
            raise _Described
    except _Described:
        pass
    finally:
        tempfile.tempdir = before


def labels(manifest: "Manifest") -> dict[str, str]:
    """BentoML labels that say what an artifact is made of."""
    return {
        "model": _label(manifest.encoder.name),
        "data": manifest.data.fingerprint[:16],
        "images": str(manifest.data.images),
        "captions": str(manifest.data.captions),
    }


def _label(text: str) -> str:
    """A BentoML label value: at most 63 characters of a small alphabet."""
    allowed = "".join(c if c.isalnum() or c in "-_." else "-" for c in text)
    return allowed.strip("-_.")[:63].strip("-_.")
