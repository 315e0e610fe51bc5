"""``bento-clip sync`` to an artifact of the model store: what differs is built, and nothing else is encoded."""

import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.cli.sync import folders_of
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.errors import how_to_install
from clip_retrieval.indexes.milvus_engine import engine_at
from clip_retrieval.indexes.milvus_writer import MilvusWriter
from tests.cli.test_app import Cli, assert_one_sentence, cli  # noqa: F401 - a fixture
from tests.cli.test_artifacts import Terminal
from tests.cli.test_processes import Start, start  # noqa: F401 - a fixture
from tests.samples import NAMES, image_of, png, square, write_collection, write_images

# The fixtures are imported, so their names are also those of parameters.
# ruff: noqa: F811

Tags = Callable[[], list[str]]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_collection(tmp_path / "squares", NAMES[:8])


@pytest.fixture
def tag(cli: Cli, source: Path, model_store: Tags) -> str:
    return cli("build", source, "--model", "fake", "--seed", 3).out.strip()


def write_equal_images(folder: Path) -> Path:
    """Images of the same pixels, of which one is given for training and one for a test, and one that is not given."""
    folder.mkdir()
    for name in ("a.png", "a2.png", "a3.png"):
        (folder / name).write_bytes(png(square("red")))
    (folder / "captions.csv").write_text("image,caption,split\na.png,x,train\na2.png,y,test\na3.png,z,\n")
    return folder


def change(source: Path) -> None:
    """One image less, one new, one with other pixels, one with another caption."""
    write_collection(source, (*NAMES[1:8], NAMES[20]))
    (source / NAMES[0]).unlink()
    (source / NAMES[2]).write_bytes(png(square("white", size=13)))
    table = source / "captions.csv"
    caption = NAMES[4].removesuffix(".png").replace("-", " ")
    text = table.read_text(encoding="utf-8")
    colour, shade = caption.split()
    table.write_text(text.replace(f"{NAMES[4]},a {shade} {colour} square", f"{NAMES[4]},another one"), encoding="utf-8")


PLAN = {
    "added": [NAMES[20]],
    "changed": {NAMES[2]: ["image"], NAMES[4]: ["captions"]},
    "removed": [NAMES[0]],
    "unchanged": 5,
    "unreadable": [],
}


def test_a_dry_run_shows_the_plan_and_changes_nothing(cli: Cli, tag: str, source: Path, model_store: Tags) -> None:
    change(source)
    done = cli("sync", source, "--dry-run", "--json")
    assert done.status == 0
    assert json.loads(done.out) == {"plan": PLAN, "done": None, "rejected": []}
    shown = cli("sync", source, "--dry-run")
    assert shown.out.splitlines() == [f"+ {NAMES[20]}", f"~ {NAMES[2]}", f"~ {NAMES[4]}", f"- {NAMES[0]}"]
    assert "1 added, 2 changed, 1 removed, 5 unchanged" in shown.err
    assert model_store() == [tag]


def test_the_next_version_is_that_of_a_build_and_only_what_is_new_is_encoded(
    cli: Cli, tag: str, source: Path, model_store: Tags
) -> None:
    change(source)
    done = cli("sync", source)
    assert done.status == 0
    assert "vectors of 2 images and 3 captions were encoded" in done.err
    made = done.out.strip()
    assert made == cli("build", source, "--model", "fake", "--seed", 3, "--fresh").out.strip()
    assert sorted(model_store()) == sorted([tag, made])
    assert cli("sync", source).out.strip() == made


def test_the_columns_that_words_come_from_stay(cli: Cli, source: Path, model_store: Tags) -> None:
    cli("build", source, "--model", "fake", "--words-from", "shade")
    change(source)
    made = cli("sync", source).out.strip()
    assert Artifact.open(modelstore.resolve(made)[1]).word_columns() == ("shade",)
    assert made == cli("build", source, "--model", "fake", "--words-from", "shade", "--fresh").out.strip()


def test_what_milvus_searches_stays_in_milvus(cli: Cli, source: Path, tmp_path: Path, model_store: Tags) -> None:
    lite = str(tmp_path / "index.db")
    old = cli("build", source, "--model", "fake", "--index", "milvus", "--index-uri", lite).out.strip()
    change(source)
    made = cli("sync", source, "--keep", 1).out.strip()
    assert Artifact.open(modelstore.resolve(made)[1]).milvus == lite
    assert model_store() == [made]
    engine = MilvusWriter(lite)
    assert engine.count(f"bento_clip_{old.partition(':')[2]}_images") is None
    assert engine.count(f"bento_clip_{made.partition(':')[2]}_images") == 8
    engine.close()


def test_a_milvus_that_does_not_answer_stops_it_before_anything_is_encoded(
    cli: Cli, source: Path, tmp_path: Path, model_store: Tags, monkeypatch: pytest.MonkeyPatch
) -> None:
    lite = str(tmp_path / "index.db")
    tag = cli("build", source, "--model", "fake", "--index", "milvus", "--index-uri", lite).out.strip()
    engine_at(lite).close()
    change(source)
    monkeypatch.setenv("BENTO_CLIP_INDEX_URI", "http://127.0.0.1:1")
    done = cli("sync", source)
    assert_one_sentence(done)
    assert "Milvus at http://127.0.0.1:1 does not answer" in done.err
    assert "kept" not in done.err
    assert model_store() == [tag]


def test_a_collection_that_is_equal_is_not_built_again(cli: Cli, tag: str, source: Path, model_store: Tags) -> None:
    done = cli("sync", source, "--to", tag, "--json")
    result = json.loads(done.out)
    assert result["plan"]["unchanged"] == 8
    assert result["done"] == {"place": tag, "sequence": None, "pruned": []}
    assert model_store() == [tag]


def test_equal_images_of_different_given_splits_need_no_change(cli: Cli, tmp_path: Path, model_store: Tags) -> None:
    source = write_equal_images(tmp_path / "equal")
    tag = cli("build", source, "--model", "fake").out.strip()
    done = cli("sync", source)
    assert "0 added, 0 changed, 0 removed, 3 unchanged" in done.err
    assert (done.out.strip(), model_store()) == (tag, [tag])


def test_old_versions_can_go(cli: Cli, tag: str, source: Path, model_store: Tags) -> None:
    change(source)
    made = cli("sync", source, "--keep", 1)
    assert f"{tag} (squares) deleted" in made.err
    assert model_store() == [made.out.strip()]


@pytest.mark.parametrize(
    "command", [("build", "--model", "fake", "--seed", "3", "--keep", "1"), ("sync", "--keep", "1")]
)
def test_a_source_that_is_as_it_was_before_is_the_latest_again(
    cli: Cli, tag: str, source: Path, model_store: Tags, command: tuple[str, ...]
) -> None:
    table = (source / "captions.csv").read_bytes()
    write_collection(source, NAMES[:9])
    newer = cli("sync", source).out.strip()
    (source / NAMES[8]).unlink()
    (source / "captions.csv").write_bytes(table)
    name, *options = command
    done = cli(name, source, *options)
    assert done.out.strip() == tag
    assert f"{newer} (squares) deleted" in done.err
    assert model_store() == [tag]
    assert modelstore.latest() == tag
    assert "0 added, 0 changed, 0 removed, 8 unchanged" in cli("sync", source).err


class TestRemovingMost:
    @pytest.fixture(autouse=True)
    def mostly_gone(self, tag: str, source: Path) -> None:
        write_collection(source, NAMES[:3])

    def test_is_refused_with_the_numbers(self, cli: Cli, source: Path, model_store: Tags) -> None:
        done = cli("sync", source)
        assert_one_sentence(done)
        assert "lacks 5 of the collection's 8 images" in done.err
        assert "--force" in done.err
        assert len(model_store()) == 1

    @pytest.mark.parametrize(("answer", "versions"), [("y", 2), ("n", 1)])
    def test_is_asked_at_a_terminal(
        self, cli: Cli, source: Path, model_store: Tags, monkeypatch: pytest.MonkeyPatch, answer: str, versions: int
    ) -> None:
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        assert "lacks 5 of the collection's 8 images. Remove them?" in cli("sync", source).err
        assert len(model_store()) == versions

    def test_is_done_where_it_is_wanted(self, cli: Cli, source: Path, model_store: Tags) -> None:
        assert cli("sync", source, "--force").status == 0
        assert len(model_store()) == 2

    def test_half_is_not_most(self, cli: Cli, source: Path) -> None:
        write_collection(source, NAMES[:4])
        assert cli("sync", source).status == 0


class TestASourceThatCannotBeReadWhole:
    @pytest.fixture
    def tag(self, cli: Cli, source: Path, tmp_path: Path, model_store: Tags) -> str:
        """Built with two images behind a link to another folder, which leads nowhere now."""
        (source / "captions.csv").unlink()
        (source / "nas").symlink_to(write_images(tmp_path / "mounted", NAMES[20:22]), target_is_directory=True)
        tag = cli("build", source, "--model", "fake").out.strip()
        (tmp_path / "mounted").rename(tmp_path / "elsewhere")
        return tag

    def test_removes_nothing_and_says_what_to_do(self, cli: Cli, tag: str, source: Path, model_store: Tags) -> None:
        done = cli("sync", source)
        assert_one_sentence(done)
        assert "lacks 2 of the collection's 10 images" in done.err
        assert "(nas: the link leads nowhere)" in done.err
        assert "--force" in done.err
        assert model_store() == [tag]

    def test_is_asked_about_at_a_terminal(
        self, cli: Cli, tag: str, source: Path, model_store: Tags, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.stdin", Terminal("n"))
        assert "(nas: the link leads nowhere). Remove them?" in cli("sync", source).err
        assert model_store() == [tag]

    def test_removes_where_that_is_wanted(self, cli: Cli, tag: str, source: Path, model_store: Tags) -> None:
        done = cli("sync", source, "--force")
        assert "0 added, 0 changed, 2 removed, 8 unchanged" in done.err
        assert len(model_store()) == 2

    def test_adds_and_changes_what_it_shows(self, cli: Cli, tag: str, source: Path, tmp_path: Path) -> None:
        write_images(source / "nas2", NAMES[20:22])
        (tmp_path / "elsewhere").rename(tmp_path / "mounted")
        (source / "broken").symlink_to(tmp_path / "nothing")
        assert "2 added, 0 changed, 0 removed, 10 unchanged" in cli("sync", source).err


def test_a_source_without_an_image_changes_nothing(
    cli: Cli, tag: str, source: Path, model_store: Tags, tmp_path: Path
) -> None:
    """An unmounted folder looks like that."""
    shutil.rmtree(source)
    source.mkdir()
    assert_one_sentence(cli("sync", source, "--force"))
    assert model_store() == [tag]


def test_a_reject_is_said_and_the_status_is_1(cli: Cli, tag: str, source: Path) -> None:
    (source / NAMES[1]).write_bytes(b"hello")
    done = cli("sync", source)
    assert done.status == 1
    assert f"rejected {NAMES[1]}: not an image" in done.err
    assert Artifact.open(modelstore.resolve(done.out.strip())[1]).manifest.data.images == 7


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--watch", "--dry-run"), "dry run"),
        (("--to", "http://localhost:1", "--keep", "2"), "service has no versions"),
        (("--to", "http://localhost:1", "--recall", "0.9"), "--recall: it is for a tag"),
        (("--to", "http://localhost:1", "--no-wait"), "--wait: it is for a tag"),
        (("--keep", "0"), "--keep"),
    ],
)
def test_options_that_do_not_fit_each_other_are_refused(
    cli: Cli, source: Path, options: tuple[str, ...], words: str
) -> None:
    done = cli("sync", source, *options)
    assert done.status == 2
    assert words in done.err


def test_a_source_in_a_store_cannot_be_watched(cli: Cli) -> None:
    assert cli("sync", "s3://bucket/photos", "--watch").status == 2


def test_watching_without_its_package_says_what_to_install(
    cli: Cli, tag: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra ``serve`` has sync, and not what watches."""
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    done = cli("sync", source, "--watch")
    assert_one_sentence(done)
    assert how_to_install("build") in done.err


def test_what_to_sync_to_must_exist(cli: Cli, source: Path, model_store: Tags, fake_artifact: Artifact) -> None:
    assert_one_sentence(cli("sync", source))
    done = cli("sync", source, "--to", fake_artifact.path)
    assert_one_sentence(done)
    assert "--to takes a tag" in done.err


def test_a_service_that_does_not_answer_is_one_sentence(cli: Cli, source: Path) -> None:
    assert_one_sentence(cli("sync", source, "--to", "http://127.0.0.1:9"))


def test_a_source_is_watched_where_its_images_lie(tmp_path: Path) -> None:
    table = tmp_path / "an" / "annotations" / "captions.csv"
    for folder in (table.parent, tmp_path / "an" / "images" / "x"):
        folder.mkdir(parents=True)
    for name in ("images/a.png", "images/x/b.png"):
        (table.parent.parent / name).write_bytes(png(square("red")))
    table.write_text("image,caption\na.png,a\nx/b.png,b\n", encoding="utf-8")
    assert folders_of(table) == folders_of(table.parent) == {table.parent}
    assert folders_of(table, open_source(table)) == {table.parent, tmp_path / "an" / "images"}


@pytest.mark.slow
def test_a_folder_is_watched(start: Start, source: Path, tmp_path: Path) -> None:
    first, _ = start("build", source, "--model", "fake").communicate(timeout=120)
    watching = start("sync", source, "--watch", "--json", PYTHONUNBUFFERED="1")
    assert watching.stdout is not None
    assert json.loads(watching.stdout.readline())["done"]["place"] == first.strip()
    change(source)
    while not (added := json.loads(watching.stdout.readline())["plan"]["added"]):
        pass
    assert added == [NAMES[20]]
    assert _becomes_equal(start, source)
    os.kill(watching.pid, signal.SIGINT)
    _, err = watching.communicate(timeout=60)
    assert watching.returncode == 0, err
    assert "Traceback" not in err
    assert "stopped" in err


def _becomes_equal(start: Start, source: Path) -> bool:
    """Whether the changes, which may be seen in several parts, all arrive."""
    for _ in range(20):
        out, _ = start("sync", source, "--dry-run", "--json").communicate(timeout=60)
        plan = json.loads(out)["plan"]
        if plan["unchanged"] == 8 and not (plan["added"] or plan["changed"] or plan["removed"]):
            return True
    return False


def test_an_original_file_that_was_written_anew_is_a_change_where_originals_are_kept(
    cli: Cli, source: Path, tag: str, model_store: Tags
) -> None:
    """Such as a photograph whose EXIF lost a place: the pixels are the same, and the file is not."""
    kept = cli("build", source, "--model", "fake", "--keep-originals").out.strip()
    assert "0 added, 0 changed, 0 removed, 8 unchanged" in cli("sync", source).err
    image_of(NAMES[2]).save(source / NAMES[2], "PNG", compress_level=0)
    assert "8 unchanged" in cli("sync", source, "--to", tag).err
    done = cli("sync", source, "--to", kept, "--json")
    assert json.loads(done.out)["plan"]["changed"] == {NAMES[2]: ["original"]}
    originals = Artifact.open(modelstore.resolve(json.loads(done.out)["done"]["place"])[1]).originals()
    assert originals is not None
    assert hashlib.sha256((source / NAMES[2]).read_bytes()).hexdigest() in originals.hashes()
    assert "8 unchanged" in cli("sync", source).err


def test_the_next_version_keeps_original_files_where_the_one_before_does(
    cli: Cli, source: Path, model_store: Tags
) -> None:
    built = cli("build", source, "--model", "fake", "--keep-originals")
    assert "originals: 8 files, " in built.err
    change(source)
    tag = cli("sync", source).out.split()[-1]
    originals = Artifact.open(modelstore.resolve(tag)[1]).originals()
    assert originals is not None
    assert len({digest for digest in originals.hashes() if digest is not None}) == 8
    assert cli("artifacts", "inspect", tag).status == 0
    bucket = next((modelstore.resolve(tag)[1] / "originals").iterdir())
    bucket.write_bytes(b"damaged")
    assert "differs from its hash" in cli("artifacts", "inspect", tag).err
