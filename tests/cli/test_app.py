"""The command line: results on standard output, everything else on standard error, errors in one sentence."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.main import get_command

from clip_retrieval import __version__
from clip_retrieval.artifacts import modelstore
from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.manifest import Manifest
from clip_retrieval.cli import console
from clip_retrieval.cli.app import app, main
from clip_retrieval.cli.evaluate import encoder_if_any
from clip_retrieval.contract.queries import image, text
from clip_retrieval.encoders.base import Encoder
from clip_retrieval.errors import MissingExtra, ModelUnavailable
from clip_retrieval.indexes.milvus_engine import engine_at
from clip_retrieval.indexes.milvus_writer import MilvusWriter
from clip_retrieval.search.retriever import Retriever
from tests.samples import NAMES, png, square, write_collection, write_images

COMMANDS = tuple(get_command(app).list_commands(None))  # type: ignore[attr-defined]
README = Path(__file__).parents[2] / "README.md"


@dataclass
class Done:
    """How a command ended and what it printed."""

    status: int
    out: str
    err: str


Cli = Callable[..., Done]
Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache_home: Path) -> Cli:
    """Runs ``bento-clip`` with these arguments, on a wide terminal and with a cache of its own."""
    monkeypatch.setenv("COLUMNS", "200")
    for output in (console.out, console.err):
        monkeypatch.setattr(output, "width", 200)

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["bento-clip", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    return run


def assert_one_sentence(done: Done) -> None:
    """The command failed with status 1 and one line on standard error, with no traceback."""
    assert done.status == 1
    assert done.out == ""
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert done.err.splitlines()[-1] == errors[0], "the error is the last thing that is said"
    assert "Traceback" not in done.err


class TestHelp:
    def test_there_is_a_command_a_stage(self) -> None:
        assert COMMANDS == (
            "demo",
            "check",
            "models",
            "build",
            "sync",
            "info",
            "search",
            "browse",
            "serve",
            "swap",
            "compact",
            "add",
            "edit",
            "remove",
            "mcp",
            "evaluate",
            "tune",
            "finetune",
            "artifacts",
            "keys",
            "queries",
        )

    def test_without_arguments_the_commands_are_listed(self, cli: Cli) -> None:
        done = cli()
        assert all(command in done.out + done.err for command in COMMANDS)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_shows_examples_one_a_line(self, cli: Cli, command: str) -> None:
        done = cli(command, "--help")
        assert done.status == 0
        _, _, examples = done.out.partition("Examples:")
        lines = [line.strip() for line in examples.splitlines() if "bento-clip" in line]
        assert lines
        assert all(line.startswith(f"bento-clip {command}") for line in lines)
        assert all(line.count("bento-clip ") == 1 for line in lines)

    def test_the_version_is_the_package_s(self, cli: Cli) -> None:
        assert cli("--version").out == f"{__version__}\n"

    @pytest.mark.skipif(not README.exists(), reason="there is no README here")
    @pytest.mark.parametrize("command", COMMANDS)
    def test_every_command_is_in_the_readme_or_the_docs(self, command: str) -> None:
        pages = [README, *(README.parent / "docs").glob("*.md")]
        assert any(re.search(rf"\bbento-clip {command}\b", page.read_text(encoding="utf-8")) for page in pages)


class TestCheck:
    def test_json_is_the_whole_report(self, cli: Cli, tmp_path: Path) -> None:
        source = write_collection(tmp_path / "data", NAMES[:4])
        (source / NAMES[1]).write_bytes(b"hello")
        (source / NAMES[3]).write_bytes((source / NAMES[0]).read_bytes())
        done = cli("check", source, "--json")
        assert done.status == 0
        report = json.loads(done.out)
        assert report["counts"] == {"images": 3, "captions": 6, "rejects": 1, "duplicate_groups": 1}
        assert report["rejects"][0]["where"] == NAMES[1]
        assert report["duplicates"] == [[NAMES[0], NAMES[3]]]

    def test_tables_say_what_was_left_out(self, cli: Cli, tmp_path: Path) -> None:
        source = write_collection(tmp_path / "data", NAMES[:3])
        (source / NAMES[1]).write_bytes(b"hello")
        done = cli("check", source)
        assert (done.status, done.out) == (0, "")
        assert "kept 2 images with 4 captions, rejected 1" in done.err
        assert NAMES[1] in done.err
        assert "not an image" in done.err

    def test_strict_fails_on_a_reject_and_shows_it(self, cli: Cli, tmp_path: Path) -> None:
        source = write_collection(tmp_path / "data", NAMES[:3])
        assert cli("check", source, "--strict").status == 0
        (source / NAMES[1]).write_bytes(b"hello")
        done = cli("check", source, "--strict")
        assert done.status == 1
        assert NAMES[1] in done.err

    def test_limits_can_be_set(self, cli: Cli, collection: Path) -> None:
        assert_one_sentence(cli("check", collection, "--max-pixels", 100))
        assert cli("check", collection, "--max-pixels", 144).status == 0

    @pytest.mark.parametrize("command", [("check",), ("build", "--model", "fake")])
    def test_an_image_that_is_cut_off_is_kept_if_that_is_asked_for(
        self, cli: Cli, tmp_path: Path, command: tuple[str, ...]
    ) -> None:
        source = write_collection(tmp_path / "data", NAMES[:3])
        data = BytesIO()
        Image.effect_noise((64, 64), 50).save(data, "PNG")
        (source / NAMES[1]).write_bytes(data.getvalue()[:2000])
        done = cli(*command, source)
        assert done.status == 0
        assert "kept 2 images" in done.err
        assert "it is truncated, and pixels are missing" in " ".join(done.err.split())
        assert "kept 3 images" in cli(*command, source, "--allow-truncated").err

    def test_names_are_shown_as_they_are(self, cli: Cli, tmp_path: Path) -> None:
        names = ["[bold] a[/red].png", ":smile:.png"]
        source = write_images(tmp_path / "data", NAMES[:1])
        for name in names:
            (source / name).parent.mkdir(exist_ok=True)
            (source / name).write_bytes(b"hello")
        done = cli("check", source)
        assert all(name in done.err for name in names)

    @pytest.mark.parametrize("name", ["nothing", "empty", "x" * 300])
    def test_what_is_no_source_is_refused(self, cli: Cli, tmp_path: Path, name: str) -> None:
        (tmp_path / "empty").mkdir()
        assert_one_sentence(cli("check", tmp_path / name))


@pytest.mark.usefixtures("model_store")
class TestBuild:
    def test_the_tag_is_the_last_thing_on_standard_output(
        self, cli: Cli, collection: Path, fake_artifact: Artifact, model_store: Callable[[], list[str]]
    ) -> None:
        done = cli("build", collection, "--model", "fake")
        assert done.status == 0
        assert done.out == f"clip-retrieval:{fake_artifact.manifest.version}\n"
        assert model_store() == [done.out.strip()]
        assert "kept 24 images" in done.err

    def test_words_come_from_the_columns_that_are_named(
        self, cli: Cli, collection: Path, model_store: Callable[[], list[str]], tmp_path: Path
    ) -> None:
        usual = cli("build", collection, "--model", "fake", "--output", tmp_path / "usual")
        named = cli("build", collection, "--model", "fake", "--words-from", "shade", "--output", tmp_path / "named")
        assert (usual.status, named.status) == (0, 0), named.err
        artifacts = [Artifact.open(tmp_path / name) for name in ("usual", "named")]
        assert [artifact.word_columns() for artifact in artifacts] == [None, ("shade",)]
        assert artifacts[0].manifest.version != artifacts[1].manifest.version
        wrong = cli("build", collection, "--model", "fake", "--words-from", "colour")
        assert_one_sentence(wrong)
        assert "there is no column colour to take words from; the columns are shade" in wrong.err

    def test_building_again_gives_the_same_tag(
        self, cli: Cli, collection: Path, model_store: Callable[[], list[str]]
    ) -> None:
        first = cli("build", collection, "--model", "fake")
        again = cli("build", collection, "--model", "fake")
        assert again.out == first.out
        assert "vectors of 24 images and 32 captions were encoded" in first.err
        assert "vectors of 0 images and 0 captions were encoded, of 24 images and 48 captions reused" in again.err
        assert len(model_store()) == 1

    def test_json_has_the_tag_and_the_report(self, cli: Cli, collection: Path, fake_artifact: Artifact) -> None:
        result = json.loads(cli("build", collection, "--model", "fake", "--json").out)
        assert result["tag"] == f"clip-retrieval:{fake_artifact.manifest.version}"
        assert result["report"]["counts"]["images"] == 24
        assert result["embedding"]["images_encoded"] == 24

    def test_it_says_what_changed_since_the_version_before(
        self, cli: Cli, tmp_path: Path, model_store: Callable[[], list[str]]
    ) -> None:
        source = write_collection(tmp_path / "squares", NAMES[:6])
        first = cli("build", source, "--model", "fake")
        assert "images since" not in first.err
        write_collection(source, (*NAMES[2:6], NAMES[9]))
        (source / NAMES[3]).write_bytes(png(square("white", size=13)))
        second = cli("build", source, "--model", "fake", "--json")
        since = json.loads(second.out)["since"]
        assert since == {
            "tag": first.out.strip(),
            "added": [NAMES[9]],
            "changed": {NAMES[3]: ["image"]},
            "removed": list(NAMES[:2]),
            "unchanged": 3,
            "unreadable": [],
        }
        tag = json.loads(second.out)["tag"]
        third = cli("build", source, "--model", "fake")
        assert f"images since {tag}: 0 added, 0 changed, 0 removed, 5 unchanged" in third.err

    def test_another_folder_of_the_same_name_is_not_the_version_before(
        self, cli: Cli, tmp_path: Path, model_store: Callable[[], list[str]]
    ) -> None:
        cli("build", write_collection(tmp_path / "a" / "squares", NAMES[:6]), "--model", "fake")
        done = cli("build", write_collection(tmp_path / "b" / "squares", NAMES[3:9]), "--model", "fake")
        assert "images since" not in done.err

    def test_a_fresh_build_encodes_everything_and_gives_the_same(
        self, cli: Cli, collection: Path, model_store: Callable[[], list[str]]
    ) -> None:
        first = cli("build", collection, "--model", "fake")
        done = cli("build", collection, "--model", "fake", "--fresh")
        assert "vectors of 24 images and 32 captions were encoded" in done.err
        assert done.out == first.out
        assert len(model_store()) == 1

    def test_an_artifact_can_be_written_to_a_folder(
        self, cli: Cli, collection: Path, tmp_path: Path, model_store: Callable[[], list[str]]
    ) -> None:
        output = tmp_path / "new" / "artifact"
        done = cli("build", collection, "--model", "fake", "--output", output)
        assert done.out == f"{output}\n"
        assert Artifact.open(output).manifest.data.images == 24
        assert model_store() == []

    def test_an_artifact_of_the_store_is_copied_to_a_folder_and_stays_in_the_store(
        self, cli: Cli, collection: Path, tmp_path: Path, model_store: Callable[[], list[str]]
    ) -> None:
        tag = cli("build", collection, "--model", "fake").out.strip()
        done = cli("build", collection, "--model", "fake", "--output", tmp_path / "copy")
        assert "vectors of 0 images and 0 captions were encoded" in done.err
        assert Artifact.open(tmp_path / "copy").manifest.data.images == 24
        assert model_store() == [tag]
        assert cli("info", tag).status == 0

    def test_a_folder_that_exists_is_not_written_to(self, cli: Cli, collection: Path, tmp_path: Path) -> None:
        done = cli("build", collection, "--model", "fake", "--output", tmp_path)
        assert done.status == 2
        assert "exists already" in done.err

    @pytest.mark.parametrize("options", [("--pretrained", "openai"), ("--quick-gelu",), ("--no-quick-gelu",)])
    def test_what_the_demo_model_would_not_use_is_refused(
        self, cli: Cli, collection: Path, options: tuple[str, ...]
    ) -> None:
        done = cli("build", collection, "--model", "demo", *options)
        assert_one_sentence(done)
        assert "demo has its own" in done.err
        assert options[0] in done.err

    @pytest.mark.parametrize("split", [(0.5, 0.5, 0.5), (1.2, -0.1, -0.1)])
    def test_shares_that_do_not_add_up_are_refused(
        self, cli: Cli, collection: Path, split: tuple[float, float, float]
    ) -> None:
        done = cli("build", collection, "--model", "fake", "--split", *split)
        assert done.status == 2
        assert "add up to 1" in done.err
        assert "Traceback" not in done.err

    def test_options_reach_the_build(self, cli: Cli, collection: Path, tmp_path: Path) -> None:
        options = ["--split", 0.5, 0.25, 0.25, "--seed", 7, "--output", tmp_path / "artifact"]
        cli("build", collection, "--model", "fake", *options)
        data = Artifact.open(tmp_path / "artifact").manifest.data
        assert (data.split_ratios, data.split_seed) == ((0.5, 0.25, 0.25), 7)
        assert data.splits == {"train": 12, "val": 6, "test": 6}

    def test_a_folder_whose_name_is_no_text_is_a_source_like_any_other(
        self, cli: Cli, tmp_path: Path, model_store: Callable[[], list[str]]
    ) -> None:
        source = write_collection(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")), NAMES[:3])
        tag = cli("build", source, "--model", "fake").out.strip()
        assert model_store() == [tag]
        assert Artifact.open(modelstore.resolve(tag)[1]).manifest.data.name == r"caf\xe9"
        assert "3 unchanged" in cli("sync", source).err
        assert "3 unchanged" in cli("build", source, "--model", "fake").err

    def test_the_index_can_be_in_milvus(
        self, cli: Cli, collection: Path, tmp_path: Path, model_store: Callable[[], list[str]], fake_artifact: Artifact
    ) -> None:
        lite = tmp_path / "index.db"
        done = cli("build", collection, "--model", "fake", "--index", "milvus", "--index-uri", lite)
        assert done.status == 0, done.err
        (tag,) = model_store()
        assert done.out == f"{tag}\n"
        assert tag != f"clip-retrieval:{fake_artifact.manifest.version}"
        again = cli("build", collection, "--model", "fake", "--index", "milvus", "--index-uri", lite)
        assert again.out == done.out
        assert "vectors of 0 images and 0 captions were encoded" in again.err
        found = cli("search", "a red square", "--in", tag, "--json", "-k", 3)
        assert [one["image_id"] for one in json.loads(found.out)] == ["red-bright.png", "red-soft.png", "red-dull.png"]
        engine_at(str(lite)).close()

    def test_a_version_that_is_not_kept_goes_from_milvus_too(
        self, cli: Cli, collection: Path, tmp_path: Path, model_store: Callable[[], list[str]]
    ) -> None:
        options = ["--model", "fake", "--index", "milvus", "--index-uri", tmp_path / "index.db"]
        first = cli("build", collection, *options).out.strip().partition(":")[2]
        last = cli("build", collection, *options, "--seed", 7, "--keep", 1).out.strip()
        assert model_store() == [last]
        engine = MilvusWriter(str(tmp_path / "index.db"))
        assert engine.count(f"bento_clip_{first}_images") is None
        assert engine.count(f"bento_clip_{last.partition(':')[2]}_images") == 24
        engine.close()

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--index", "milvus"], "say where the Milvus is"),
            (["--index-uri", "http://milvus:19530"], "it is for --index milvus"),
            (["--index", "milvus", "--index-uri", "milvus"], "is no place of a Milvus; write http"),
        ],
    )
    def test_a_milvus_that_is_not_named_well_is_refused(
        self, cli: Cli, collection: Path, options: list[str], words: str
    ) -> None:
        done = cli("build", collection, "--model", "fake", *options)
        assert done.status == 2
        assert words in " ".join(done.err.replace("│", " ").split())

    def test_a_milvus_that_does_not_answer_stops_the_build_before_anything_is_encoded(
        self, cli: Cli, collection: Path
    ) -> None:
        done = cli("build", collection, "--model", "fake", "--index", "milvus", "--index-uri", "http://127.0.0.1:1")
        assert_one_sentence(done)
        assert "Milvus at http://127.0.0.1:1 does not answer" in done.err
        assert "kept" not in done.err

    def test_strict_stops_at_a_reject(self, cli: Cli, tmp_path: Path) -> None:
        source = write_collection(tmp_path / "data", NAMES[:3])
        (source / NAMES[1]).write_bytes(b"hello")
        done = cli("build", source, "--model", "fake", "--strict")
        assert_one_sentence(done)
        assert NAMES[1] in done.err

    def test_a_model_that_cannot_be_had_is_one_sentence(
        self, cli: Cli, collection: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unavailable(model: str, pretrained: str | None, **_: object) -> Path:
            raise ModelUnavailable(f"{model} ({pretrained}) cannot be had [here]; use --model demo")

        monkeypatch.setattr("clip_retrieval.cli.build.prepare_encoder", unavailable)
        done = cli("build", collection, "--model", "ViT-B-32", "--pretrained", "openai")
        assert_one_sentence(done)
        assert "error: ViT-B-32 (openai) cannot be had [here]; use --model demo" in done.err


class TestInfo:
    def test_json_is_the_manifest(self, cli: Cli, stored_tag: str, fake_artifact: Artifact) -> None:
        assert Manifest.model_validate_json(cli("info", "--json").out) == fake_artifact.manifest

    def test_the_table_says_what_the_artifact_is_made_of(self, cli: Cli, stored_tag: str) -> None:
        done = cli("info", stored_tag)
        assert done.status == 0
        assert stored_tag in done.out
        assert "squares: 24 images, 48 captions" in done.out
        assert "exact, 24 rows, recall@10 1.0000 with 24 captions" in done.out

    def test_a_folder_will_do(self, cli: Cli, fake_artifact: Artifact) -> None:
        assert cli("info", fake_artifact.path).status == 0

    def test_a_damaged_artifact_is_one_sentence(self, cli: Cli, artifact_copy: Artifact) -> None:
        (artifact_copy.path / "images.npy").unlink()
        done = cli("info", artifact_copy.path)
        assert_one_sentence(done)
        assert "images.npy is missing" in done.err

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells where memory is")
    def test_memory_is_that_of_the_artifact_as_a_worker_opens_it(self, cli: Cli, stored_tag: str) -> None:
        table = cli("info", stored_tag, "--memory")
        assert table.status == 0
        assert all(word in table.out for word in ("interpreter", "vectors", "private", "shared", "total"))
        found = json.loads(cli("info", stored_tag, "--memory", "--json").out)
        assert [process["role"] for process in found["processes"]] == ["artifact"]
        assert found["total"]["total_mb"] == pytest.approx(
            sum(part["private_mb"] + part["shared_mb"] for part in found["parts"].values()), abs=1
        )

    def test_the_memory_of_a_service_is_asked_for_by_its_process_alone(self, cli: Cli, stored_tag: str) -> None:
        without = cli("info", "--pid", "1")
        assert (without.status, "it needs --memory" in without.err) == (2, True)
        both = cli("info", stored_tag, "--memory", "--pid", "1")
        assert (both.status, f"leave {stored_tag} out" in both.err) == (2, True)
        assert_one_sentence(cli("info", "--memory", "--pid", "4194304"))

    @pytest.mark.usefixtures("model_store")
    @pytest.mark.parametrize("command", ["info", "serve"])
    @pytest.mark.parametrize("source", ["clip-retrieval:latest", "x" * 300])
    def test_without_an_artifact_it_says_how_to_make_one(self, cli: Cli, command: str, source: str) -> None:
        done = cli(command, source)
        assert_one_sentence(done)
        assert "bento-clip build" in done.err


class TestEvaluate:
    def test_an_artifact_and_its_source_give_the_same_figures(
        self, cli: Cli, stored_tag: str, collection: Path, tmp_path: Path
    ) -> None:
        first = cli("evaluate", stored_tag, "--split", "all", "--json", "--output", tmp_path / "a")
        second = cli("evaluate", collection, "--model", "fake", "--split", "all", "--json", "--output", tmp_path / "b")
        assert (first.status, second.status) == (0, 0), first.err + second.err
        one, two = json.loads(first.out), json.loads(second.out)
        assert one["quality"]["galleries"] == two["quality"]["galleries"]
        assert [index["index"] for index in one["index"]] == ["images", "captions"]
        assert two["index"] == [], "a source has no index"

    @pytest.mark.parametrize("made", [False, True])
    def test_a_folder_that_has_none_of_the_images_is_refused(
        self, cli: Cli, stored_tag: str, tmp_path: Path, made: bool
    ) -> None:
        folder = tmp_path / "elsewhere"
        if made:
            folder.mkdir()
        done = cli("evaluate", stored_tag, "--split", "all", "--images", folder, "--output", tmp_path / "out")
        assert done.status == 2
        assert "--images" in done.err
        assert not (tmp_path / "out").exists()

    def test_an_output_that_is_a_file_is_refused_before_any_work(
        self, cli: Cli, stored_tag: str, tmp_path: Path
    ) -> None:
        (tmp_path / "out").touch()
        assert cli("evaluate", stored_tag, "--output", tmp_path / "out").status == 2

    def test_reports_are_written_and_the_two_kinds_are_apart(
        self, cli: Cli, stored_tag: str, collection: Path, tmp_path: Path
    ) -> None:
        done = cli("evaluate", stored_tag, "--split", "all", "--images", collection, "--output", tmp_path)
        assert done.status == 0
        assert {file.name for file in tmp_path.iterdir()} >= {"quality.json", "index.json", "recall.png", "misses.html"}
        assert "recall@10" in done.out
        assert "slowest searches" in done.out
        assert "searches for images by vectors, by words and by both" in done.out
        assert "48 captions" in done.out
        assert "p99" not in (tmp_path / "quality.json").read_text()
        assert "data:image/jpeg" in (tmp_path / "misses.html").read_text()
        cli("evaluate", collection, "--model", "fake", "--output", tmp_path)
        assert not (tmp_path / "index.json").exists(), "what another evaluation left would be taken for this one's"

    def test_without_its_encoder_an_artifact_is_measured_but_for_words(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def load() -> Encoder:
            raise MissingExtra("the runtime torch", "build")

        assert encoder_if_any(load) is None
        assert "searches by words are not measured" in capsys.readouterr().err

    def test_recall_by_language_is_shown_and_written(self, cli: Cli, collection: Path, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(collection, tmp_path / "data"))
        rows = [line.split(",") for line in (folder / "captions.csv").read_text().splitlines()]
        marked = [
            ",".join([*row, "lang" if not number else "fi" if number % 2 else "de"]) for number, row in enumerate(rows)
        ]
        (folder / "captions.csv").write_text("\n".join(marked))
        done = cli("evaluate", folder, "--model", "fake", "--split", "all", "--output", tmp_path / "out")
        assert done.status == 0, done.err
        assert "all: recall by language" in done.out
        assert "few captions: de (24), fi (24); quality.json has the intervals" in " ".join(done.err.split())
        written = json.loads((tmp_path / "out" / "quality.json").read_text())["galleries"][-1]["languages"]
        assert [(one["language"], one["captions"]) for one in written] == [("de", 24), ("fi", 24)]

    def test_a_model_is_for_sources_alone(self, cli: Cli, stored_tag: str) -> None:
        done = cli("evaluate", stored_tag, "--model", "fake")
        assert done.status == 2
        assert "an artifact has its own model" in done.err

    @pytest.mark.usefixtures("model_store")
    @pytest.mark.parametrize("source", ["nothing", "x" * 300])
    def test_what_is_neither_is_one_sentence(self, cli: Cli, source: str, tmp_path: Path) -> None:
        assert_one_sentence(cli("evaluate", source, "--output", tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    def test_a_source_without_captions_is_one_sentence(self, cli: Cli, tmp_path: Path) -> None:
        source = write_images(tmp_path / "data", NAMES[:3])
        assert_one_sentence(cli("evaluate", source, "--model", "fake", "--output", tmp_path / "out"))


class TestTune:
    def test_the_new_artifact_s_tag_is_the_only_result(
        self, cli: Cli, stored_tag: str, model_store: Callable[[], list[str]], tmp_path: Path
    ) -> None:
        done = cli("tune", stored_tag, "--recall", 0.9, "--report", tmp_path / "report")
        assert done.status == 0
        tag = done.out.strip()
        assert tag != stored_tag
        assert set(model_store()) == {tag, stored_tag}
        assert "confirmed with 24 held-out queries: recall@10 1.0000" in done.err
        for name in ("front-images.png", "front-captions.png"):
            assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")

    def test_json_has_every_trial_and_the_choice(self, cli: Cli, artifact_copy: Artifact, tmp_path: Path) -> None:
        done = cli("tune", artifact_copy.path, "--memory-mb", 1, "--report", tmp_path / "report", "--json")
        found = json.loads(done.out)
        assert found["budget"] == {"recall": 0.99, "p99_ms": None, "memory_mb": 1, "resident_mb": None}
        assert set(found["indexes"]) == {"images", "captions"}
        for index in found["indexes"].values():
            assert index["chosen"]["factory"] == "Flat"
            assert index["held_out"]["recall_at_10"] == 1
            assert [trial["family"] for trial in index["trials"]] == ["flat"]

    def test_where_nothing_meets_the_budget_the_nearest_is_told_and_the_status_is_1(
        self, cli: Cli, stored_tag: str, model_store: Callable[[], list[str]], tmp_path: Path
    ) -> None:
        done = cli("tune", stored_tag, "--memory-mb", 0.000001, "--report", tmp_path / "report")
        assert done.status == 1
        assert done.out == ""
        assert "no index of the images meets the budget; nearest: Flat: " in done.err
        assert model_store() == [stored_tag]


class TestSearch:
    def test_json_is_a_list_of_results(self, cli: Cli, stored_tag: str) -> None:
        results = json.loads(cli("search", "a red square", "-k", 2, "--json").out)
        assert [(r["rank"], r["image_path"]) for r in results] == [(1, "red-bright.png"), (2, "red-soft.png")]
        assert results[0]["captions"] == ["a red square", "a bright red square"]

    def test_the_table_has_a_row_a_result(self, cli: Cli, fake_artifact: Artifact) -> None:
        done = cli("search", "blue", "--in", fake_artifact.path, "--count", 1)
        assert done.status == 0
        curves = fake_artifact.curves()
        assert curves is not None
        assert curves.text_to_image is not None
        share = re.escape(f"{curves.text_to_image.share(1.0):.2f}")
        assert re.search(rf"1 .* 1\.0000 .* {share} .* blue-bright\.png .* a blue square", done.out)
        assert "blue-soft.png" not in done.out

    def test_words_find_and_the_table_says_what_found(self, cli: Cli, fake_artifact: Artifact) -> None:
        search = ("search", "dull red", "--in", fake_artifact.path)
        found = json.loads(cli(*search, "--mode", "words", "--json", "-k", 1).out)
        assert [(one["image_path"], one["found_by"]) for one in found] == [("red-dull.png", "words")]
        both = cli(*search, "--mode", "both")
        assert "found by" in both.out
        assert re.search(r"1 .* red-dull\.png .* both", both.out)
        captions = cli("search", "soft blue", "--in", fake_artifact.path, "--mode", "words", "--captions", "-k", 1)
        assert "a soft blue square" in captions.out
        refused = cli(*search, "--mode", "words", "--min-confidence", 0.5)
        assert_one_sentence(refused)
        assert "min_confidence: what has the words is found whatever its vector" in refused.err

    def test_paths_alone_are_for_other_programs(self, cli: Cli, fake_artifact: Artifact, tmp_path: Path) -> None:
        search = ("search", "blue", "--in", fake_artifact.path, "-k", 2, "--paths")
        paths = cli(*search).out.splitlines()
        assert paths == ["blue-bright.png", "blue-soft.png"]
        (tmp_path / paths[0]).write_bytes(b"")
        done = cli(*search, "--root", tmp_path)
        assert done.out == f"{tmp_path / paths[0]}\n"
        assert f"there is no file {tmp_path / paths[1]}" in done.err

    def test_paths_that_would_be_ignored_are_refused(self, cli: Cli, fake_artifact: Artifact, tmp_path: Path) -> None:
        search = ("search", "blue", "--in", fake_artifact.path)
        for options, words in ((("--root", tmp_path), "give --paths too"), (("--paths", "--json"), "one of the two")):
            done = cli(*search, *options)
            assert (done.status, done.out) == (2, "")
            assert words in done.err

    def test_an_image_finds_images(self, cli: Cli, fake_artifact: Artifact, tmp_path: Path) -> None:
        (tmp_path / "query.png").write_bytes(png(square("green", "dull")))
        results = json.loads(cli("search", tmp_path / "query.png", "--in", fake_artifact.path, "-k", 1, "--json").out)
        assert [r["image_path"] for r in results] == ["green-dull.png"]

    def test_an_image_finds_captions(self, cli: Cli, fake_artifact: Artifact, tmp_path: Path) -> None:
        (tmp_path / "query.png").write_bytes(png(square("green")))
        arguments = ("search", tmp_path / "query.png", "--in", fake_artifact.path, "--captions", "-k", 1)
        (result,) = json.loads(cli(*arguments, "--json").out)
        assert (result["caption"], result["image_id"]) == ("a green square", "green-bright.png")
        assert "a green square" in cli(*arguments).out

    def test_a_text_may_be_longer_than_a_file_name(self, cli: Cli, fake_artifact: Artifact) -> None:
        done = cli("search", "yellow " * 100, "--in", fake_artifact.path, "--json")
        assert done.status == 0
        assert json.loads(done.out)[0]["image_path"] == "yellow-bright.png"

    @pytest.mark.parametrize("word", ["windmil.png", "windmil.PNG", "my windmil.jpg", "photos/windmil", "a.heic"])
    def test_a_word_that_looks_like_a_file_and_is_none_is_an_error(
        self, cli: Cli, fake_artifact: Artifact, word: str
    ) -> None:
        for arguments in (["search", word], ["search", "a dog", "--minus", word]):
            done = cli(*arguments, "--in", fake_artifact.path)
            assert_one_sentence(done)
            assert f"there is no file {word}" in done.err
            assert "--text" in done.err

    def test_near_names_of_its_folder_are_named(self, cli: Cli, fake_artifact: Artifact, tmp_path: Path) -> None:
        for name in ("Windmill.png", "owl.png"):
            (tmp_path / name).write_bytes(png(square("green")))
        done = cli("search", tmp_path / "windmil.png", "--in", fake_artifact.path)
        assert f"did you mean {tmp_path / 'Windmill.png'}?" in done.err
        assert "owl" not in done.err

    def test_a_folder_is_no_query(self, cli: Cli, fake_artifact: Artifact, tmp_path: Path) -> None:
        done = cli("search", tmp_path, "--in", fake_artifact.path)
        assert_one_sentence(done)
        assert f"{tmp_path} is a folder" in done.err

    @pytest.mark.parametrize(
        "arguments", [["red and/or green"], ["--text", "red.png"], ["--text", "red/green"], ["3.5"], ["a red sq. v2"]]
    )
    def test_texts_that_are_no_names_stay_texts(self, cli: Cli, fake_artifact: Artifact, arguments: list[str]) -> None:
        assert cli("search", *arguments, "--in", fake_artifact.path, "--json").status == 0

    def test_captions_need_an_image(self, cli: Cli, fake_artifact: Artifact) -> None:
        done = cli("search", "no such file", "--in", fake_artifact.path, "--captions")
        assert_one_sentence(done)
        assert "no such file" in done.err

    def test_an_empty_text_is_refused(self, cli: Cli, fake_artifact: Artifact) -> None:
        assert_one_sentence(cli("search", " ", "--in", fake_artifact.path))

    @pytest.mark.parametrize("k", [0, 51])
    def test_k_has_the_bounds_of_the_service(self, cli: Cli, fake_artifact: Artifact, k: int) -> None:
        done = cli("search", "red", "--in", fake_artifact.path, "-k", k)
        assert done.status == 2
        assert "Invalid value for '-k'" in done.err

    def test_a_file_that_is_no_image_is_one_sentence(self, cli: Cli, fake_artifact: Artifact, tmp_path: Path) -> None:
        (tmp_path / "query.txt").write_text("hello")
        assert_one_sentence(cli("search", tmp_path / "query.txt", "--in", fake_artifact.path))

    def test_captions_are_shown_as_they_are(self, cli: Cli, tmp_path: Path) -> None:
        source = write_images(tmp_path / "data", NAMES[:1])
        (source / "captions.csv").write_text(f"image,caption\n{NAMES[0]},a [/red] :smile: [bold]\n")
        cli("build", source, "--model", "fake", "--output", tmp_path / "artifact")
        assert "a [/red] :smile: [bold]" in cli("search", "red", "--in", tmp_path / "artifact").out


class TestComposedSearch:
    @pytest.fixture
    def ask(self, cli: Cli, fake_artifact: Artifact) -> Ask:
        """The JSON results of ``search`` with these arguments over the artifact."""

        def ask(*arguments: object) -> list[dict[str, Any]]:
            every = () if "--min-confidence" in arguments else ("--min-confidence", 0)
            done = cli("search", *arguments, *every, "--in", fake_artifact.path, "--json")
            assert done.status == 0, done.err
            results: list[dict[str, Any]] = json.loads(done.out)
            return results

        return ask

    def test_several_texts_and_images_are_added_up(self, ask: Ask, retriever: Retriever, tmp_path: Path) -> None:
        path = tmp_path / "query.png"
        path.write_bytes(png(square("green", "dull")))
        expected = retriever.search([text("red"), image(path), text("blue", -0.5)], k=24).images
        found = ask("red", path, "--minus", "blue", "-k", 24)
        assert [r["image_id"] for r in found] == [hit.image.image_id for hit in expected]
        assert [r["similarity_score"] for r in found] == pytest.approx([hit.score for hit in expected])

    def test_like_finds_what_is_like_an_image_of_the_collection_but_not_that_one(self, ask: Ask) -> None:
        names = [r["image_id"] for r in ask("--like", "red-bright.png", "-k", 2)]
        assert names == ["red-soft.png", "red-dull.png"]
        assert ask("--like", "red-bright.png", "--captions", "-k", 1)[0]["image_id"] == "red-bright.png"

    @pytest.mark.parametrize(
        ("conditions", "shades"),
        [
            (["shade=soft"], {"soft"}),
            (["shade=soft", "shade=dull"], {"soft", "dull"}),
            (["shade~UL"], {"dull"}),
            (["shade>bright"], {"soft", "dull"}),
            (["shade>=dull", "shade<soft"], {"dull"}),
            (["shade="], set()),
            (["shade = soft or shade = dull"], {"soft", "dull"}),
            (["not shade in (soft, dull)"], {"bright"}),
            (["shade=soft", "shade=dull", "shade ~ u"], {"dull"}),
            (["shade > bright", "shade != soft"], {"dull"}),
        ],
    )
    def test_where_keeps_to_images(self, ask: Ask, conditions: list[str], shades: set[str]) -> None:
        options = [option for condition in conditions for option in ("--where", condition)]
        found = ask("red", "-k", 50, *options)
        assert {r["metadata"]["shade"] for r in found} == shades
        assert len(found) == 8 * len(shades)

    def test_pages_least_score_and_folding(self, ask: Ask) -> None:
        page, everything = ask("red", "-k", 3, "--offset", 4), ask("red", "-k", 10)
        assert [(r["rank"], r["image_id"]) for r in page] == [(r["rank"], r["image_id"]) for r in everything[4:7]]
        assert {r["similarity_score"] >= 0.5 for r in ask("red", "--min-score", 0.5)} == {True}
        assert sum(1 + r["duplicates"] for r in ask("red", "-k", 50, "--dedupe")) == 24

    def test_the_table_says_how_to_get_more(self, cli: Cli, fake_artifact: Artifact) -> None:
        every = ["--min-confidence", 0, "--in", fake_artifact.path]
        assert "next page: --offset 5" in cli("search", "red", *every).err
        assert "more with" not in cli("search", "red", "-k", 24, "--in", fake_artifact.path).err

    @pytest.mark.parametrize("condition", ["shade", "=soft", "~x", ""])
    def test_a_condition_that_is_none_is_refused(self, cli: Cli, fake_artifact: Artifact, condition: str) -> None:
        done = cli("search", "red", "--where", condition, "--in", fake_artifact.path)
        assert done.status == 2
        assert "--where" in done.err

    def test_a_wrong_condition_is_shown_with_its_place(self, cli: Cli, fake_artifact: Artifact) -> None:
        done = cli("search", "red", "--where", "shade = soft and (split", "--in", fake_artifact.path)
        assert done.status == 2
        assert "position 24: an operator must follow split, not the end" in " ".join(done.err.replace("│", "").split())

    def test_the_same_condition_twice_is_refused(self, cli: Cli, fake_artifact: Artifact) -> None:
        done = cli("search", "red", "--where", "shade>a", "--where", "shade>b", "--in", fake_artifact.path)
        assert done.status == 2
        assert "shade>b: give this condition on shade once" in " ".join(done.err.replace("│", "").split())

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["red", "--where", "colour=red"], "there is no field colour; the fields are shade, split"),
            (["--like", "nobody.png"], "there is no image nobody.png in this collection"),
            (["red", "--minus", "red", "--minus", "red"], "cancel each other out"),
            (["red"] * 17, "at most 16 items"),
        ],
    )
    def test_what_cannot_be_searched_is_one_sentence(
        self, cli: Cli, fake_artifact: Artifact, arguments: list[str], says: str
    ) -> None:
        done = cli("search", *arguments, "--in", fake_artifact.path)
        assert_one_sentence(done)
        assert says in " ".join(done.err.split())

    def test_the_language_is_that_of_every_text(self, cli: Cli, fake_artifact: Artifact, tmp_path: Path) -> None:
        path = tmp_path / "query.png"
        path.write_bytes(png(square("green")))
        for arguments in (["rot", path], ["--text", "rot"], [path, "--minus", "rot"]):
            done = cli("search", *arguments, "--language", "deu_Latn", "--in", fake_artifact.path)
            assert_one_sentence(done)
            assert "the model fake does not mark texts with their language: leave it out" in " ".join(done.err.split())
        done = cli("search", path, "--language", "deu_Latn", "--in", fake_artifact.path)
        assert done.status == 2
        assert "the query has no text; leave it out" in done.err

    def test_what_is_not_near_enough_is_not_shown_and_its_number_is_said(
        self, cli: Cli, fake_artifact: Artifact
    ) -> None:
        """A red square is no blue one: of 24 the three shades of red are near to the word."""
        done = cli("search", "red", "-k", 24, "--in", fake_artifact.path, "--json")
        shades = ("bright", "soft", "dull")
        assert {result["image_id"] for result in json.loads(done.out)} == {f"red-{shade}.png" for shade in shades}
        assert "21 results have a confidence below 0.5; --min-confidence 0 shows them" in " ".join(done.err.split())
        done = cli("search", "red", "--where", "shade = dull", "--min-confidence", 0.9999, "--in", fake_artifact.path)
        assert "nothing here is near enough: 5 results" in " ".join(done.err.split())
        assert done.out == ""

    @pytest.mark.parametrize(
        "arguments",
        [("search", "red", "--where", "shade = none"), ("browse", "--offset", 99), ("search", "red", "--offset", 99)],
    )
    def test_a_search_that_finds_nothing_says_so_and_draws_no_table(
        self, cli: Cli, fake_artifact: Artifact, arguments: tuple[object, ...]
    ) -> None:
        done = cli(*arguments, "--in", fake_artifact.path)
        assert (done.status, done.out) == (0, "")
        assert "nothing found" in done.err

    def test_images_are_browsed_by_a_filter_alone(self, cli: Cli, fake_artifact: Artifact) -> None:
        options = ["--where", "shade = soft or shade = dull", "--sort", "shade", "--descending", "--in"]
        done = cli("browse", "-k", 9, *options, fake_artifact.path, "--json")
        assert [image["metadata"]["shade"] for image in json.loads(done.out)] == ["soft"] * 8 + ["dull"]
        done = cli("browse", "-k", 9, *options, fake_artifact.path)
        assert "next page: --offset 9" in done.err
        assert done.out.count("soft") >= 8
        done = cli("browse", "--sort", "colour", "--in", fake_artifact.path)
        assert_one_sentence(done)
        assert "there is no field colour" in done.err

    def test_a_query_is_needed(self, cli: Cli, fake_artifact: Artifact) -> None:
        done = cli("search", "--in", fake_artifact.path)
        assert done.status == 2
        assert "give a text, an image or --like" in done.err
