"""``bento-clip artifacts``: the model store seen, compared, copied and cleaned from the command line."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.in_use import InUse, unused
from clip_retrieval.artifacts.manifest import Manifest, write_manifest
from clip_retrieval.cli import artifacts
from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.indexes.families import Family
from tests.cli.test_app import Cli, assert_one_sentence, cli  # noqa: F401 - a fixture
from tests.samples import NAMES, write_collection

# The fixture is imported, so its name is also that of parameters.
# ruff: noqa: F811

Tags = Callable[[], list[str]]
COMMANDS = tuple(get_command(artifacts.app).list_commands(None))  # type: ignore[attr-defined]


@pytest.fixture
def newer_tag(cli: Cli, stored_tag: str, tmp_path: Path) -> str:
    """The tag of a second artifact, of fewer images."""
    source = write_collection(tmp_path / "squares", NAMES[:6])
    return cli("build", source, "--model", "fake").out.strip()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_examples(cli: Cli, command: str) -> None:
    done = cli("artifacts", command, "--help")
    assert done.status == 0
    _, _, examples = done.out.partition("Examples:")
    lines = [line.strip() for line in examples.splitlines() if "bento-clip" in line]
    assert lines
    assert all(line.startswith(f"bento-clip artifacts {command}") for line in lines)


class TestList:
    def test_the_newest_is_first(self, cli: Cli, stored_tag: str, newer_tag: str) -> None:
        rows = json.loads(cli("artifacts", "list", "--json").out)
        assert [(row["tag"], row["model"], row["images"], row["captions"]) for row in rows] == [
            (newer_tag, "fake", 6, 12),
            (stored_tag, "fake", 24, 48),
        ]

    def test_sizes_say_what_a_version_takes_alone(
        self, cli: Cli, stored_tag: str, collection: Path, cache_home: Path
    ) -> None:
        (row,) = json.loads(cli("artifacts", "list", "--json").out)
        assert row["own MB"] == row["MB"]
        cli("build", collection, "--model", "fake", "--seed", 1)
        rows = json.loads(cli("artifacts", "list", "--json").out)
        assert [row["MB"] for row in rows] == [row["MB"]] * 2
        assert all(one["own MB"] < one["MB"] for one in rows)

    def test_a_tag_is_shown_whole_on_a_narrow_terminal(
        self, cli: Cli, stored_tag: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("clip_retrieval.cli.app.console.out.width", 60)
        assert stored_tag in cli("artifacts", "list").out

    def test_an_empty_store_says_what_to_do(self, cli: Cli, model_store: Tags) -> None:
        done = cli("artifacts", "list")
        assert (done.status, done.out) == (0, "")
        assert "bento-clip build" in done.err
        assert json.loads(cli("artifacts", "list", "--json").out) == []

    @pytest.mark.parametrize("content", ["{", "[]", "null", "[" * 200_000, '{"manifest": 1}', "\udcff"], ids=len)
    def test_a_damaged_artifact_is_listed_as_one(
        self, cli: Cli, stored_tag: str, store_folder: Path, content: str
    ) -> None:
        (store_folder / "manifest.json").write_bytes(content.encode(errors="surrogateescape"))
        (row,) = json.loads(cli("artifacts", "list", "--json").out)
        assert (row["tag"], row["model"]) == (stored_tag, "damaged")


@pytest.fixture
def store_folder(stored_tag: str) -> Path:
    """The folder of the stored artifact."""
    from clip_retrieval.artifacts import modelstore

    return modelstore.resolve(stored_tag)[1]


class TestInspect:
    def test_json_has_the_manifest_and_every_file_s_size(
        self, cli: Cli, stored_tag: str, store_folder: Path, fake_artifact: Artifact
    ) -> None:
        result = json.loads(cli("artifacts", "inspect", stored_tag, "--json").out)
        assert Manifest.model_validate(result["manifest"]) == fake_artifact.manifest
        assert result["tag"] == stored_tag
        assert result["bytes"].keys() == {*fake_artifact.manifest.files, "manifest.json"}
        assert result["bytes"]["images.npy"] == (store_folder / "images.npy").stat().st_size

    def test_the_tables_show_both(self, cli: Cli, fake_artifact: Artifact) -> None:
        done = cli("artifacts", "inspect", fake_artifact.path)
        assert "squares: 24 images" in done.out
        assert "records.sqlite" in done.out

    def test_a_damaged_file_is_one_sentence(self, cli: Cli, stored_tag: str, store_folder: Path) -> None:
        (store_folder / "images.npy").write_bytes(b"")
        assert_one_sentence(cli("artifacts", "inspect", stored_tag))


class TestCompare:
    def test_what_changed_is_shown(self, cli: Cli, stored_tag: str, newer_tag: str) -> None:
        done = cli("artifacts", "compare", stored_tag, newer_tag)
        assert done.status == 0
        assert "images removed: 18" in done.out
        assert "images added: 0" in done.out
        assert "image index: rows" in done.out
        assert "red-bright.png: a red square" in done.out
        result = json.loads(cli("artifacts", "compare", stored_tag, newer_tag, "--json").out)
        assert result["equal"] is False
        assert result["images_removed"] == list(NAMES[6:])
        assert result["image_index"]["rows"] == [24, 6]

    def test_equal_ones_are_said_to_be(self, cli: Cli, stored_tag: str, fake_artifact: Artifact) -> None:
        assert cli("artifacts", "compare", stored_tag, fake_artifact.path).out.startswith("equal")


def test_what_a_process_has_open_is_deleted_by_force_alone(
    cli: Cli, stored_tag: str, store_folder: Path, model_store: Tags
) -> None:
    serving = InUse(store_folder)
    refused = cli("artifacts", "delete", stored_tag, "--yes")
    assert_one_sentence(refused)
    assert "is in use" in refused.err
    assert model_store() == [stored_tag]
    assert cli("artifacts", "delete", stored_tag, "--yes", "--force").status == 0
    assert model_store() == []
    serving.close()


def test_what_a_command_reads_for_longer_is_deleted_by_no_clean_up(
    cli: Cli, stored_tag: str, store_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(*_: object, **__: object) -> None:
        with unused(store_folder) as is_unused:
            seen.append(is_unused)
        raise ClipRetrievalError("enough was seen")

    for place, *command in (
        ("artifacts.export_artifact", "artifacts", "export", stored_tag, tmp_path / "a.tar"),
        ("artifacts.compare", "artifacts", "compare", stored_tag, stored_tag),
        ("tune.tune", "tune", stored_tag),
        ("evaluate.evaluator.evaluate", "evaluate", stored_tag),
    ):
        monkeypatch.setattr(f"clip_retrieval.cli.{place}", look)
        assert "enough was seen" in cli(*command).err
    assert seen == [False] * 4


class TestExportAndImport:
    def test_an_artifact_goes_to_another_store_and_is_the_same(
        self, cli: Cli, stored_tag: str, model_store: Tags, tmp_path: Path
    ) -> None:
        before = cli("info", stored_tag, "--json").out
        assert cli("artifacts", "export", stored_tag, tmp_path / "a.tar").out == f"{tmp_path / 'a.tar'}\n"
        assert cli("artifacts", "delete", stored_tag, "--yes").status == 0
        assert model_store() == []
        assert cli("artifacts", "import", tmp_path / "a.tar").out == f"{stored_tag}\n"
        assert model_store() == [stored_tag]
        assert cli("info", stored_tag, "--json").out == before

    def test_importing_what_is_there_changes_nothing(
        self, cli: Cli, stored_tag: str, store_folder: Path, tmp_path: Path
    ) -> None:
        cli("artifacts", "export", stored_tag, tmp_path / "a.tar")
        made = (store_folder / "images.npy").stat().st_mtime_ns
        assert cli("artifacts", "import", tmp_path / "a.tar").out == f"{stored_tag}\n"
        assert (store_folder / "images.npy").stat().st_mtime_ns == made

    def test_an_import_of_an_older_one_that_is_there_is_the_latest(
        self, cli: Cli, stored_tag: str, newer_tag: str, tmp_path: Path
    ) -> None:
        cli("artifacts", "export", stored_tag, tmp_path / "a.tar")
        assert modelstore.latest() == newer_tag
        cli("artifacts", "import", tmp_path / "a.tar")
        assert modelstore.latest() == stored_tag

    def test_an_import_mends_a_damaged_artifact(
        self, cli: Cli, stored_tag: str, store_folder: Path, tmp_path: Path
    ) -> None:
        cli("artifacts", "export", stored_tag, tmp_path / "a.tar")
        (store_folder / "images.npy").unlink()
        assert cli("artifacts", "import", tmp_path / "a.tar").status == 0
        assert cli("artifacts", "inspect", stored_tag).status == 0

    @pytest.mark.parametrize("mend", ["import", "build"])
    def test_damaged_original_files_are_mended_as_the_error_says(
        self, cli: Cli, model_store: Tags, collection: Path, tmp_path: Path, mend: str
    ) -> None:
        build = ("build", collection, "--model", "fake", "--keep-originals")
        tag = cli(*build).out.strip()
        cli("artifacts", "export", tag, tmp_path / "a.tar")
        damaged = next((modelstore.resolve(tag)[1] / "originals").iterdir())
        damaged.write_bytes(bytes(damaged.stat().st_size))
        assert "restore or build the artifact again" in cli("artifacts", "inspect", tag).err
        cli(*(build if mend == "build" else ("artifacts", "import", tmp_path / "a.tar")))
        assert cli("artifacts", "inspect", tag).status == 0

    def test_a_damaged_file_is_one_sentence_and_leaves_nothing(
        self, cli: Cli, stored_tag: str, model_store: Tags, cache_home: Path, tmp_path: Path
    ) -> None:
        file = tmp_path / "a.tar"
        cli("artifacts", "export", stored_tag, file)
        cli("artifacts", "delete", stored_tag, "--yes")
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        assert_one_sentence(cli("artifacts", "import", file))
        assert model_store() == []
        assert list((cache_home / "bento-clip" / "imports").iterdir()) == []

    @pytest.mark.usefixtures("model_store")
    def test_a_file_that_is_not_there_is_one_sentence(self, cli: Cli, tmp_path: Path) -> None:
        done = cli("artifacts", "import", tmp_path / "none.tar")
        assert_one_sentence(done)
        assert done.err == f"error: {tmp_path / 'none.tar'}: No such file or directory\n", (
            "without the number of the error"
        )

    @pytest.mark.usefixtures("model_store")
    def test_a_folder_is_refused_with_what_to_do(self, cli: Cli, fake_artifact: Artifact) -> None:
        done = cli("artifacts", "import", fake_artifact.path)
        assert_one_sentence(done)
        assert f"bento-clip artifacts export {fake_artifact.path} FILE" in done.err

    @pytest.mark.parametrize("command", [("import", ""), ("export", "clip-retrieval:latest", "")])
    def test_an_empty_name_is_refused(self, cli: Cli, command: tuple[str, ...]) -> None:
        done = cli("artifacts", *command)
        assert done.status == 2
        assert "it is empty" in done.err

    def test_an_export_without_vectors_is_a_version_of_its_own_of_what_milvus_searches(
        self, cli: Cli, stored_tag: str, artifact_copy: Artifact, cache_home: Path, tmp_path: Path
    ) -> None:
        done = cli("artifacts", "export", stored_tag, tmp_path / "slim.tar", "--without-vectors")
        assert "only what is built with --index milvus can be without" in done.err
        manifest = Artifact.open(modelstore.resolve(stored_tag)[1]).manifest
        place = {"engine": "milvus", "uri": "http://127.0.0.1:1", "name": "c"}
        built = {
            name: one.model_copy(update={"spec": one.spec.model_copy(update=place)})
            for name, one in (("images", manifest.images), ("captions", manifest.captions))
        }
        folder = shutil.copytree(modelstore.resolve(stored_tag)[1], tmp_path / "in-milvus")
        write_manifest(folder, manifest.model_copy(update=built))
        cli("artifacts", "export", folder, tmp_path / "slim.tar", "--without-vectors")
        tag = cli("artifacts", "import", tmp_path / "slim.tar").out.strip()
        assert tag != stored_tag
        files = Artifact.open(modelstore.resolve(tag)[1]).manifest.files
        assert set(manifest.files) - set(files) == {"images.npy", "captions.npy"}

    def test_an_export_does_not_write_over_a_file(self, cli: Cli, stored_tag: str, tmp_path: Path) -> None:
        (tmp_path / "a.tar").write_text("mine")
        assert_one_sentence(cli("artifacts", "export", stored_tag, tmp_path / "a.tar"))
        assert (tmp_path / "a.tar").read_text() == "mine"


class TestBesideAFolderOfNoModel:
    """An older release that was killed left it. BentoML's own ``models list`` fails then."""

    @pytest.fixture(autouse=True)
    def bad(self, store_folder: Path) -> Iterator[str]:
        folder = store_folder.with_name("0123456789abcdef")
        folder.mkdir()
        yield f"clip-retrieval:{folder.name}"
        shutil.rmtree(folder, ignore_errors=True)

    def test_the_list_has_the_good_ones_and_names_the_bad_one(self, cli: Cli, stored_tag: str, bad: str) -> None:
        done = cli("artifacts", "list")
        assert done.status == 0
        assert stored_tag in done.out
        assert f"bento-clip artifacts delete {bad}" in done.err
        good, damaged = json.loads(cli("artifacts", "list", "--json").out)
        assert (good["tag"], good["model"]) == (stored_tag, "fake")
        assert (damaged["tag"], damaged["model"]) == (bad, "damaged")

    def test_it_can_be_deleted(self, cli: Cli, stored_tag: str, bad: str, model_store: Tags) -> None:
        assert cli("artifacts", "delete", bad, "--yes").status == 0
        assert model_store() == [stored_tag]

    def test_every_other_command_works(self, cli: Cli, stored_tag: str, collection: Path, tmp_path: Path) -> None:
        assert cli("info").status == 0
        assert cli("build", collection, "--model", "fake").out == f"{stored_tag}\n"
        assert cli("artifacts", "export", stored_tag, tmp_path / "a.tar").status == 0
        assert cli("artifacts", "import", tmp_path / "a.tar").out == f"{stored_tag}\n"
        assert cli("artifacts", "delete", stored_tag, "--yes").status == 0
        assert cli("artifacts", "import", tmp_path / "a.tar").out == f"{stored_tag}\n"


class Terminal:
    """A standard input at which somebody answers."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self, *_: Any) -> str:
        return f"{self.answer}\n"


class TestPrune:
    @pytest.fixture
    def tags(self, cli: Cli, model_store: Tags, collection: Path) -> list[str]:
        """Three versions from one source, oldest first."""
        return [cli("build", collection, "--model", "fake", "--seed", seed).out.strip() for seed in range(3)]

    def test_a_dry_run_shows_what_would_go(self, cli: Cli, tags: list[str], model_store: Tags) -> None:
        done = cli("artifacts", "prune", "--keep", 2, "--dry-run")
        assert (done.status, done.out) == (0, "")
        assert f"{tags[0]} (squares) would be deleted: " in done.err
        assert len(model_store()) == 3

    def test_json_has_each_version_beyond(self, cli: Cli, tags: list[str], model_store: Tags) -> None:
        rows = json.loads(cli("artifacts", "prune", "--keep", 1, "--yes", "--json").out)
        assert [(row["tag"], row["name"], row["stays"]) for row in rows] == [
            (tags[1], "squares", None),
            (tags[0], "squares", None),
        ]
        assert model_store() == [tags[2]]

    def test_without_a_terminal_it_asks_for_yes(self, cli: Cli, tags: list[str], model_store: Tags) -> None:
        assert_one_sentence(done := cli("artifacts", "prune", "--keep", 1))
        assert "--yes" in done.err
        assert f"{tags[0]} (squares) would be deleted" in done.err
        assert len(model_store()) == 3

    @pytest.mark.parametrize(("answer", "left"), [("y", 1), ("n", 3)])
    def test_a_question_is_asked(
        self, cli: Cli, tags: list[str], model_store: Tags, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
    ) -> None:
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        assert "Delete 2 versions?" in cli("artifacts", "prune", "--keep", 1).err
        assert len(model_store()) == left

    def test_where_there_is_nothing_to_do_it_says_so(self, cli: Cli, tags: list[str]) -> None:
        done = cli("artifacts", "prune", "--keep", 3)
        assert done.status == 0
        assert "no collection has more than 3 versions" in done.err

    def test_tuned_versions_of_two_folders_with_one_name_are_of_two_collections(
        self, cli: Cli, model_store: Tags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("clip_retrieval.artifacts.reindex.families", lambda *_, **__: [Family("flat", "Flat")])
        tuned = []
        for seed, place in enumerate(("here", "there")):
            source = write_collection(tmp_path / place / "squares")
            tag = cli("build", source, "--model", "fake", "--seed", seed).out.strip()
            tuned.append(cli("tune", tag, "--report", tmp_path / "report").out.strip())
        assert cli("artifacts", "prune", "--keep", 1, "--yes").status == 0
        assert sorted(model_store()) == sorted(tuned)

    def test_a_name_that_no_collection_has_is_an_error(self, cli: Cli, tags: list[str]) -> None:
        done = cli("artifacts", "prune", "--keep", 1, "--name", "sqares", "--yes")
        assert_one_sentence(done)
        assert "a collection with the name sqares; there are: squares" in done.err

    @pytest.mark.parametrize("keep", [0, -1])
    def test_a_collection_is_never_deleted_whole(self, cli: Cli, tags: list[str], keep: int) -> None:
        assert cli("artifacts", "prune", "--keep", keep, "--yes").status == 2

    def test_a_build_can_prune_the_versions_of_its_own_source(
        self, cli: Cli, tags: list[str], model_store: Tags, tmp_path: Path
    ) -> None:
        other = write_collection(tmp_path / "squares")
        first = cli("build", other, "--model", "fake", "--seed", 7, "--keep", 1)
        assert "deleted" not in first.err
        second = cli("build", other, "--model", "fake", "--seed", 8, "--keep", 1)
        assert f"{first.out.strip()} (squares) deleted: " in second.err
        assert sorted(model_store()) == sorted([*tags, second.out.strip()])

    def test_a_build_into_a_folder_has_nothing_to_prune(self, cli: Cli, collection: Path, tmp_path: Path) -> None:
        done = cli("build", collection, "--model", "fake", "--output", tmp_path / "new", "--keep", 1)
        assert done.status == 2
        assert "--keep" in done.err


class TestDelete:
    def test_without_a_terminal_it_asks_for_yes(self, cli: Cli, stored_tag: str, model_store: Tags) -> None:
        done = cli("artifacts", "delete", stored_tag)
        assert_one_sentence(done)
        assert "--yes" in done.err
        assert model_store() == [stored_tag]

    @pytest.mark.parametrize(("answer", "kept"), [("y", False), ("n", True), ("", True)])
    def test_a_question_is_asked(
        self,
        cli: Cli,
        stored_tag: str,
        model_store: Tags,
        monkeypatch: pytest.MonkeyPatch,
        answer: str,
        kept: bool,
    ) -> None:
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        done = cli("artifacts", "delete", stored_tag)
        assert "24 images" in done.err
        assert (model_store() == [stored_tag]) is kept
        assert done.status == int(kept)

    def test_what_a_service_opens_while_a_person_is_asked_stays(
        self, cli: Cli, stored_tag: str, store_folder: Path, model_store: Tags, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with ExitStack() as serving:

            class Slow(Terminal):
                def readline(self, *_: Any) -> str:
                    serving.enter_context(closing(InUse(store_folder)))
                    return super().readline()

            monkeypatch.setattr("sys.stdin", Slow("y"))
            assert f"{stored_tag} is in use" in cli("artifacts", "delete", stored_tag).err
            assert model_store() == [stored_tag]

    @pytest.mark.parametrize("tag", ["clip-retrieval:latest", "clip-retrieval", "clip-retrieval:0123456789abcdef"])
    def test_only_a_full_tag_will_do(self, cli: Cli, stored_tag: str, model_store: Tags, tag: str) -> None:
        assert_one_sentence(cli("artifacts", "delete", tag, "--yes"))
        assert model_store() == [stored_tag]

    def test_a_folder_is_never_deleted(self, cli: Cli, stored_tag: str, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        assert_one_sentence(cli("artifacts", "delete", tmp_path / "mine", "--yes"))
        assert (tmp_path / "mine").exists()

    def test_the_newest_of_what_is_left_is_the_latest(self, cli: Cli, stored_tag: str, newer_tag: str) -> None:
        assert cli("artifacts", "delete", newer_tag, "--yes").status == 0
        assert stored_tag in cli("info").out
