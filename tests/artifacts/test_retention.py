"""Only the oldest versions of a collection go, and none that somebody needs."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import bentoml
import pytest

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.in_use import InUse
from clip_retrieval.artifacts.manifest import read_manifest, write_manifest
from clip_retrieval.artifacts.modelstore import Stored
from clip_retrieval.artifacts.retention import beyond, prune
from clip_retrieval.artifacts.sharing import sizes
from clip_retrieval.build.pipeline import Options, build
from clip_retrieval.errors import ArtifactNotFound
from clip_retrieval.progress import Silent

Tags = Callable[[], list[str]]
Save = Callable[..., str]
HERE, THERE = modelstore.source_mark("/here/squares"), modelstore.source_mark("/there/squares")


@pytest.fixture
def save(model_store: Tags, collection: Path, encoder_folder: Path, tmp_path: Path) -> Save:
    """Saves a version of the collection; the number ``seed`` makes another one. Later ones are newer."""

    def save(seed: int, source: str | None = HERE) -> str:
        made = build(collection, encoder_folder, tmp_path / "builds", Options(seed=seed, thumbnails_mb=0), Silent())
        return modelstore.save(made.artifact, source=source)

    return save


@pytest.fixture
def bento() -> Iterator[Path]:
    """The description of a Bento in BentoML's store."""
    folder = Path(os.environ["BENTOML_HOME"]) / "bentos"
    file = folder / "clip-retrieval" / "1" / "bento.yaml"
    file.parent.mkdir(parents=True)
    yield file
    shutil.rmtree(folder / "clip-retrieval")


def gone(keep: int, **options: object) -> list[str]:
    return [one.tag for one in prune(keep, **options) if one.stays is None]  # type: ignore[arg-type]


def test_each_group_keeps_its_newest() -> None:
    stored = [(Stored(str(number), Path(), float(-number)), (name, "")) for number, name in enumerate("abaab")]
    assert [one.tag for one in beyond(stored, 1)] == ["2", "3", "4"]
    assert [one.tag for one in beyond(stored, 2)] == ["3"]
    assert beyond(stored, 3) == []


def test_the_oldest_versions_are_deleted(save: Save, model_store: Tags) -> None:
    tags = [save(seed) for seed in range(4)]
    assert gone(2) == [tags[1], tags[0]]
    assert sorted(model_store()) == sorted(tags[2:])
    assert gone(2) == []


def test_a_clock_that_was_put_back_makes_no_version_an_old_one(save: Save) -> None:
    """The first was saved while the clock was years ahead."""
    tags = [save(0)]
    file = modelstore.resolve(tags[0])[1] / "model.yaml"
    text = re.sub(r"(?m)^creation_time: '\d{4}", "creation_time: '2099", file.read_text())
    assert "creation_time: '2099" in text
    file.write_text(text)
    tags += [save(1), save(2)]
    assert modelstore.tags() == tags[::-1]
    assert modelstore.resolve("clip-retrieval:latest")[0] == tags[2] == str(bentoml.models.get("clip-retrieval").tag)
    assert gone(1) == [tags[1], tags[0]]


def test_what_another_process_deletes_meanwhile_is_no_error(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as another build with --keep, or a list that is shown."""
    tags = [save(seed) for seed in range(4)]
    folder = modelstore.resolve(tags[1])[1]

    def looked_at(path: Path) -> tuple[int, int]:
        if path == folder:
            modelstore.delete(tags[1])
        return sizes(path)

    monkeypatch.setattr("clip_retrieval.artifacts.retention.sizes", looked_at)
    assert gone(1) == [tags[2], tags[0]]
    assert modelstore.tags() == [tags[3]]


def test_a_version_that_is_deleted_while_this_waits_for_the_store_is_said_to_be_gone(
    save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = save(0)

    def exists(_: str) -> None:
        shutil.rmtree(modelstore.folder_of(tag))

    monkeypatch.setattr(modelstore, "ensure_exists", exists)
    with pytest.raises(ArtifactNotFound, match=f"another process has just deleted {tag}"):
        modelstore.delete(tag)


def test_a_dry_run_says_the_same_and_deletes_nothing(save: Save, model_store: Tags) -> None:
    tags = [save(seed) for seed in range(3)]
    assert gone(1, dry_run=True) == [tags[1], tags[0]]
    assert len(model_store()) == 3
    assert gone(1) == [tags[1], tags[0]]


def test_two_folders_of_the_same_name_are_two_collections(save: Save) -> None:
    here, there, unknown, newer = save(0), save(1, THERE), save(2, None), save(3)
    assert gone(1, dry_run=True) == [here]
    assert gone(1, group=("squares", THERE)) == []
    assert gone(1, name="circles") == []
    assert gone(1, name="squares") == [here]
    assert {there, unknown, newer} == set(modelstore.tags())


def test_the_latest_stays_also_where_it_is_not_the_newest_of_its_source(save: Save) -> None:
    tags = [save(seed) for seed in range(2)]
    home = modelstore.resolve(tags[0])[1].parent
    (home / "latest").write_text(tags[0].removeprefix("clip-retrieval:"))
    assert [(one.tag, one.stays) for one in prune(1)] == [(tags[0], "it is the latest")]


def test_what_a_process_has_open_stays(save: Save) -> None:
    tags = [save(seed) for seed in range(3)]
    with closing(InUse(modelstore.resolve(tags[0])[1])):
        assert [(one.tag, one.stays) for one in prune(1)] == [(tags[1], None), (tags[0], "a process has it open")]
    assert gone(1) == [tags[0]]


def test_what_a_bento_refers_to_stays(save: Save, bento: Path) -> None:
    tags = [save(seed) for seed in range(2)]
    bento.write_text(f"models:\n- tag: {tags[0]}\n  alias: clip-retrieval:latest\n")
    assert [(one.tag, one.stays) for one in prune(1)] == [(tags[0], "a Bento refers to it")]


def test_what_holds_changes_of_a_live_collection_stays_until_a_newer_version_was_made_from_it(save: Save) -> None:
    """Its log has dropped them."""
    tags = [save(seed) for seed in range(3)]
    versions = [tag.removeprefix("clip-retrieval:") for tag in tags]
    live: dict[int, dict[str, Any]] = {0: {"sequence": 10}, 1: {"sequence": 20, "parent": versions[0]}}
    for number, fields in live.items():
        folder = modelstore.resolve(tags[number])[1]
        write_manifest(folder, read_manifest(folder).model_copy(update=fields))
    reason = "it holds changes of a live collection, and no newer version was made from it"
    assert [(one.tag, one.stays) for one in prune(1)] == [(tags[1], reason), (tags[0], None)]


def test_a_damaged_folder_is_left_to_delete(save: Save) -> None:
    tags = [save(seed) for seed in range(2)]
    folder = modelstore.resolve(tags[0])[1]
    (folder / "model.yaml").unlink()
    assert prune(1) == []
    shutil.rmtree(folder)


def test_it_says_how_much_room_a_version_takes_alone(save: Save) -> None:
    tags = [save(seed) for seed in range(2)]
    folder = modelstore.resolve(tags[0])[1]
    ((old),) = prune(1, dry_run=True)
    assert (
        0
        < old.freed
        <= sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        - (folder / "images.npy").stat().st_size
    )


def test_a_version_that_is_saved_again_is_the_newest(save: Save) -> None:
    older, newer = save(0), save(1)
    assert modelstore.save(Artifact.open(modelstore.resolve(older)[1])) == older
    assert modelstore.resolve(modelstore.LATEST)[0] == modelstore.latest() == older
    assert modelstore.tags() == [older, newer]
    assert gone(1) == [newer]


def test_a_version_that_was_just_made_stays_whatever_the_clock_says(save: Save) -> None:
    made, _ = save(0), save(1)
    assert [one.stays for one in prune(1, made=made)] == ["it was just made"]


def test_a_version_that_comes_back_without_its_source_keeps_it(save: Save) -> None:
    assert save(0) == save(0, None)
    (one,) = modelstore.stored()
    assert one.source == HERE


def test_an_artifact_that_is_in_the_store_keeps_its_source(save: Save) -> None:
    tag = save(0)
    modelstore.save(Artifact.open(modelstore.resolve(tag)[1]))
    (one,) = modelstore.stored()
    assert one.source == HERE
