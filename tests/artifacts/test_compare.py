"""Two artifacts side by side: each kind of change is named, and nothing else."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.compare import Caption, compare
from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.indexes.base import BuiltIndex
from clip_retrieval.progress import Silent
from tests.artifacts.test_words import without_words
from tests.samples import NAMES, captions_of, image_of, png, square, write_collection, write_images

Make = Callable[[Path], Artifact]


@pytest.fixture
def make(encoder_folder: Path, tmp_path: Path) -> Make:
    def make(source: Path) -> Artifact:
        return build(source, encoder_folder, tmp_path / "builds", Options(), Silent()).artifact

    return make


def test_an_artifact_equals_itself(fake_artifact: Artifact) -> None:
    comparison = compare(fake_artifact, fake_artifact)
    assert not comparison
    assert comparison.to_json()["equal"] is True


def test_the_columns_that_words_come_from_are_compared(artifact_copy: Artifact, fake_artifact: Artifact) -> None:
    assert compare(fake_artifact, without_words(artifact_copy)).data == {"words": ("all of text", None)}


def test_images_added_and_removed_are_named_with_their_captions(make: Make, tmp_path: Path) -> None:
    first = make(write_collection(tmp_path / "a" / "squares", NAMES[:4]))
    second = make(write_collection(tmp_path / "b" / "squares", NAMES[1:6]))
    comparison = compare(first, second)
    assert comparison.images_added == NAMES[4:6]
    assert comparison.images_removed == NAMES[:1]
    assert comparison.images_changed == ()
    assert set(comparison.captions_added) == {Caption(n, t) for n in NAMES[4:6] for t in captions_of(n)}
    assert set(comparison.captions_removed) == {Caption(NAMES[0], text) for text in captions_of(NAMES[0])}
    assert comparison.image_index["rows"] == (4, 5)
    assert comparison.caption_index["rows"] == (8, 10)
    assert comparison.encoder == {}


def test_the_other_way_round_everything_is_the_other_way_round(make: Make, tmp_path: Path) -> None:
    first = make(write_collection(tmp_path / "a" / "squares", NAMES[:4]))
    second = make(write_collection(tmp_path / "b" / "squares", NAMES[1:6]))
    there, back = compare(first, second), compare(second, first)
    assert (there.images_added, there.images_removed) == (back.images_removed, back.images_added)
    assert (there.captions_added, there.captions_removed) == (back.captions_removed, back.captions_added)
    assert {name: (b, a) for name, (a, b) in there.image_index.items()} == back.image_index


def test_other_pixels_under_the_same_id_are_a_change(make: Make, tmp_path: Path) -> None:
    first = make(write_collection(tmp_path / "a" / "squares", NAMES[:4]))
    source = write_collection(tmp_path / "b" / "squares", NAMES[:4])
    (source / NAMES[2]).write_bytes(png(square("red", size=20)))
    comparison = compare(first, make(source))
    assert comparison.images_changed == (NAMES[2],)
    assert (comparison.images_added, comparison.images_removed) == ((), ())
    assert (comparison.captions_added, comparison.captions_removed) == ((), ())


def test_another_language_of_the_same_words_is_a_change(make: Make, tmp_path: Path) -> None:
    def collection(folder: Path, language: str) -> Path:
        write_images(folder, NAMES[:1])
        (folder / "captions.csv").write_text(f"image,caption,lang\n{NAMES[0]},Panda,{language}")
        return folder

    comparison = compare(make(collection(tmp_path / "a" / "one", "de")), make(collection(tmp_path / "b" / "one", "fi")))
    assert comparison.captions_removed == (Caption(NAMES[0], "Panda", "de"),)
    assert comparison.captions_added == (Caption(NAMES[0], "Panda", "fi"),)
    assert str(comparison.captions_added[0]) == f"{NAMES[0]}: Panda (fi)"


def test_a_field_of_another_type_is_named(make: Make, tmp_path: Path) -> None:
    def collection(folder: Path, head: str, cells: list[str]) -> Path:
        write_images(folder, NAMES[:2])
        rows = [f"{name},a caption,{cell}" for name, cell in zip(NAMES, cells, strict=False)]
        (folder / "captions.csv").write_text("\n".join([f"image,caption,{head}", *rows]))
        return folder

    first = make(collection(tmp_path / "a" / "squares", "year,place", ["2001,Oslo", "2002,Rome"]))
    second = make(collection(tmp_path / "b" / "squares", "year,month", ["2001,1", "about 2002,2"]))
    comparison = compare(first, second)
    assert comparison
    assert comparison.fields == {"year": ("number", "text"), "place": ("text", None), "month": (None, "number")}
    assert comparison.to_json()["fields"] == comparison.fields


def test_another_file_of_the_same_pixels_is_no_change(make: Make, tmp_path: Path) -> None:
    first = make(write_collection(tmp_path / "a" / "squares", NAMES[:4]))
    source = write_collection(tmp_path / "b" / "squares", NAMES[:4])
    image = square("black", "dull")
    image.save(source / NAMES[2], "PNG", compress_level=0)
    assert not compare(first, make(source))


def with_ids(folder: Path, *files: str, head: str = "shade", cells: tuple[str, ...] = ("x", "y")) -> Path:
    """A collection whose images are ``one`` and ``two``, whatever their files are called."""
    folder.mkdir(parents=True)
    rows = []
    for identity, name, file, cell in zip(("one", "two"), NAMES, files, cells, strict=False):
        (folder / file).write_bytes(png(image_of(name)))
        rows.append(f"{identity},{file},a caption,{cell}")
    (folder / "captions.csv").write_text("\n".join([f"image_id,image,caption,{head}", *rows]))
    return folder


def test_another_name_of_the_file_is_a_change_and_another_version(make: Make, tmp_path: Path) -> None:
    first = make(with_ids(tmp_path / "a" / "squares", "a.png", "b.png"))
    second = make(with_ids(tmp_path / "b" / "squares", "zebra.png", "b.png"))
    assert compare(first, second).images_changed == ("one",)
    assert first.manifest.version != second.manifest.version


def test_another_value_of_a_field_is_a_change(make: Make, tmp_path: Path) -> None:
    first = make(with_ids(tmp_path / "a" / "squares", "a.png", "b.png"))
    second = make(with_ids(tmp_path / "b" / "squares", "a.png", "b.png", cells=("x", "z")))
    assert compare(first, second).images_changed == ("two",)


def test_other_splits_are_named(make: Make, tmp_path: Path) -> None:
    first = make(with_ids(tmp_path / "a" / "squares", "a.png", "b.png", head="split", cells=("train", "test")))
    second = make(with_ids(tmp_path / "b" / "squares", "a.png", "b.png", head="split", cells=("test", "train")))
    comparison = compare(first, second)
    assert (comparison.images_changed, comparison.splits_changed) == ((), ("one", "two"))


def test_a_reworded_caption_is_one_removed_and_one_added(make: Make, tmp_path: Path) -> None:
    first = make(write_collection(tmp_path / "a" / "squares", NAMES[:4]))
    source = write_collection(tmp_path / "b" / "squares", NAMES[:4])
    rows = list(csv.reader((source / "captions.csv").read_text().splitlines()))
    old, rows[1][1] = rows[1][1], "something new"
    with (source / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    comparison = compare(first, make(source))
    assert comparison.captions_added == (Caption(NAMES[0], "something new"),)
    assert comparison.captions_removed == (Caption(NAMES[0], old),)


def test_another_model_precision_and_index_are_named(fake_artifact: Artifact) -> None:
    manifest = fake_artifact.manifest
    other = Artifact(
        fake_artifact.path,
        manifest.model_copy(
            update={
                "encoder": manifest.encoder.model_copy(update={"name": "other", "precisions": ("f32", "int8")}),
                "images": BuiltIndex(
                    spec=manifest.images.spec.model_copy(
                        update={"factory": "HNSW16,SQ8", "search_parameters": {"efSearch": 64}}
                    ),
                    measured=manifest.images.measured.model_copy(update={"recalls": {1: 1.0, 10: 0.995, 50: 0.999}}),
                ),
            }
        ),
    )
    comparison = compare(fake_artifact, other)
    assert comparison.encoder == {"name": ("fake", "other"), "precisions": (("f32",), ("f32", "int8"))}
    assert comparison.image_index == {
        "factory": ("Flat", "HNSW16,SQ8"),
        "search_parameters": ({}, {"efSearch": 64}),
        "recalls": ({"1": 1.0, "10": 1.0, "50": 1.0}, {"1": 1.0, "10": 0.995, "50": 0.999}),
        "recall": (1.0, 0.995),
        "recall_at_10": (1.0, 0.995),
    }
    assert comparison.caption_index == {}
