"""What BentoML's tools show of an artifact: the file ``model.yaml``. Labels have a small alphabet."""

import re
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clip_retrieval.artifacts.manifest import Manifest

MODEL_YAML = "model.yaml"
SOURCE = "source"
"""The label with the mark of the source."""
_TIME = re.compile(r"(?m)^creation_time: .*$")


class _Described(Exception):
    """BentoML has written its file; the rest is not left to it."""


def describe(tag: str, manifest: "Manifest", folder: Path, source: str | None, *, after: float = 0) -> None:
    """Put BentoML's own file into ``folder``; ``source`` is the mark of the source, if it is known.

    Its time is now, and later than ``after``, in seconds since 1970, also where the clock was put back: by it BentoML
    tells which model is the newest.
    """
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
    if datetime.now(UTC).timestamp() <= after:
        later = datetime.fromtimestamp(after, UTC) + timedelta(milliseconds=1)
        file = folder / MODEL_YAML
        text = _TIME.sub(f"creation_time: '{later.isoformat()}'", file.read_text(encoding="utf-8"))
        file.write_text(text, encoding="utf-8")


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
