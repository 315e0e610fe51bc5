"""When a worker may begin to load what it serves before BentoML is imported."""

from collections.abc import Callable
from pathlib import Path

import pytest

from clip_retrieval.serving.leading import BENTO, IS_SMALL
from clip_retrieval.serving.work import ARTIFACT, finds_artifact


@pytest.fixture
def bento(tmp_path: Path) -> Path:
    """The folder of a Bento that brings an artifact, as that of an image does."""
    models = tmp_path / "bento" / "models" / "clip-retrieval"
    models.mkdir(parents=True)
    (models / "latest").write_text("0123456789abcdef")
    return tmp_path / "bento"


@pytest.mark.parametrize(
    ("environment", "finds"),
    [
        (lambda _: {IS_SMALL: "1"}, True),
        (lambda _: {IS_SMALL: "1", ARTIFACT: "clip-retrieval:0123456789abcdef"}, True),
        (lambda bento: {IS_SMALL: "1", BENTO: str(bento)}, True),
        (lambda bento: {IS_SMALL: "1", BENTO: str(bento), ARTIFACT: str(bento)}, True),
        (lambda bento: {IS_SMALL: "1", BENTO: str(bento), ARTIFACT.lower(): "clip-retrieval:another"}, False),
        (lambda bento: {IS_SMALL: "1", BENTO: str(bento), ARTIFACT: "s3://bucket/photos"}, False),
        (lambda bento: {IS_SMALL: "1", BENTO: str(bento / "models")}, False),
        (lambda bento: {BENTO: str(bento)}, False),
        (lambda _: {}, False),
    ],
)
def test_what_a_worker_finds_without_bentoml(
    bento: Path, environment: Callable[[Path], dict[str, str]], finds: bool
) -> None:
    assert finds_artifact(environment(bento)) == finds
