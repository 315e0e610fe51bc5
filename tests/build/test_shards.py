"""Images in Parquet files and tars become the same artifact as the same images in files."""

import json
from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.progress import Silent
from tests.datasets.test_webdataset import Files, tar_bytes
from tests.samples import NAMES, captions_of, image_of, png


def row(name: str) -> dict[str, object]:
    shade = name.removesuffix(".png").split("-")[1]
    return {"image_id": name, "captions": list(captions_of(name)), "shade": shade}


def built(source: Path, encoder_folder: Path, workspace: Path) -> Artifact:
    return build(source, encoder_folder, workspace, Options(strict=True), Silent()).artifact


def differences(artifact: Artifact, other: Artifact) -> set[str]:
    """The files of the collection whose bytes are not the same."""
    names = ("images.npy", "captions.npy", "records.sqlite", "thumbnails.sqlite")
    return {name for name in names if artifact.manifest.files[name] != other.manifest.files[name]}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    return folder


def test_parquet(source: Path, fake_artifact: Artifact, encoder_folder: Path, tmp_path: Path) -> None:
    rows = [{"image": {"bytes": png(image_of(name)), "path": name}, **row(name)} for name in NAMES]
    for number, part in enumerate((rows[:10], rows[10:])):
        pq.write_table(pa.Table.from_pylist(part), source / f"{number:05}-of-00002.parquet", row_group_size=4)
    artifact = built(source, encoder_folder, tmp_path / "work")
    assert differences(artifact, fake_artifact) == set()


def test_tars(source: Path, fake_artifact: Artifact, encoder_folder: Path, tmp_path: Path) -> None:
    for number, part in enumerate((NAMES[:10], NAMES[10:])):
        files: Files = {}
        for name in part:
            stem = name.removesuffix(".png")
            files = {**files, name: png(image_of(name)), f"{stem}.json": json.dumps(row(name))}
        (source / f"{number}.tar").write_bytes(tar_bytes(files))
    artifact = built(source, encoder_folder, tmp_path / "work")
    # The records name the tar that an image is in.
    assert differences(artifact, fake_artifact) == {"records.sqlite"}
    with artifact.store() as store:
        paths = [image.image_path for image in store.images([0, 23])]
    assert paths == [f"0.tar/{NAMES[0]}", f"1.tar/{NAMES[23]}"]
