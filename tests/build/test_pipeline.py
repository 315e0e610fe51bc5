"""From a source to an artifact: rows stay aligned whatever is rejected, and a build that was stopped goes on."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build import pipeline as builder
from clip_retrieval.build.embed import embed_images
from clip_retrieval.build.pipeline import Options, build, check
from clip_retrieval.build.validate import Report
from clip_retrieval.encoders.base import Pixels, Vectors
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import SourceError
from clip_retrieval.images.decode import Limits
from clip_retrieval.progress import Silent
from clip_retrieval.search.retriever import Retriever
from tests.samples import NAMES, captions_of, image_of, png, square, write_collection, write_images

Build = Callable[..., tuple[Artifact, Report]]


@pytest.fixture
def run(encoder_folder: Path, tmp_path: Path) -> Build:
    """Build a source with the fake encoder; keywords are Options, or ``find``."""

    def run(source: Path, *, find: Callable[[str], Path | None] = lambda _: None, **options: object) -> object:
        return build(source, lambda _: encoder_folder, tmp_path / "builds", Options(**options), Silent(), find=find)  # type: ignore[arg-type]

    return run  # type: ignore[return-value]


def write_jsonl(folder: Path, rows: Sequence[object]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "captions.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return folder


def assert_aligned(artifact: Artifact, source: Path) -> None:
    """Every row of both matrices is what the encoder makes of the record with the row's number."""
    encoder = FakeEncoder()
    with artifact.store() as store:
        images, captions = store.images(), store.captions()
    shown = []
    for record in images:
        with Image.open(source / record.image_path) as opened:
            shown.append(opened.convert("RGB"))
    np.testing.assert_array_equal(artifact.vectors("images"), encoder.encode_images(shown))
    np.testing.assert_array_equal(artifact.vectors("captions"), encoder.encode_texts([c.text for c in captions]))


class TestAlignment:
    def test_every_vector_is_that_of_its_record(self, fake_artifact: Artifact, collection: Path) -> None:
        assert_aligned(fake_artifact, collection)

    def test_every_caption_belongs_to_its_image(self, fake_artifact: Artifact) -> None:
        with fake_artifact.store() as store:
            assert [image.image_path for image in store.images()] == list(NAMES)
            found = store.captions_of(range(len(NAMES)))
        assert [tuple(c.text for c in found[row]) for row in range(len(NAMES))] == [captions_of(n) for n in NAMES]

    @settings(max_examples=10, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["good", "damaged", "missing", "no image"]),
                st.lists(st.sampled_from(["a red dog", "the blue one", " \t", ""]), max_size=3),
            ),
            max_size=12,
        )
    )
    def test_rejects_never_shift_rows(self, items: list[tuple[str, list[str]]]) -> None:
        items = [*items, ("good", ["a green end"])]  # a collection needs one usable image
        with tempfile.TemporaryDirectory() as temporary:
            folder, encoder = Path(temporary) / "data", Path(temporary) / "encoder"
            folder.mkdir()
            encoder.mkdir()
            (encoder / "encoder.json").write_text(FakeEncoder().info.model_dump_json())
            for number, (kind, _) in enumerate(items):
                whole = png(image_of(NAMES[number], size=40))
                content = {"good": whole, "damaged": whole[: len(whole) // 2], "no image": b"hello"}.get(kind)
                if content is not None:
                    (folder / f"{number}.png").write_bytes(content)
            write_jsonl(folder, [{"image": f"{n}.png", "caption": texts} for n, (_, texts) in enumerate(items)])
            artifact, report = build(folder, lambda _: encoder, Path(temporary) / "builds", Options(), Silent())

            good = [(f"{n}.png", texts) for n, (kind, texts) in enumerate(items) if kind == "good"]
            with artifact.store() as store:
                assert [image.image_path for image in store.images()] == [name for name, _ in good]
                assert [(c.image_row, c.text) for c in store.captions()] == [
                    (row, text) for row, (_, texts) in enumerate(good) for text in texts if text.strip()
                ]
            assert_aligned(artifact, folder)
            empty = sum(not text.strip() for _, texts in good for text in texts)
            assert len(report.rejects) == len(items) - len(good) + empty == artifact.manifest.data.rejected

    def test_a_caption_that_repeats_is_a_record_each_time(self, run: Build, tmp_path: Path) -> None:
        rows = [{"image": name, "caption": ["a square", "a square"]} for name in NAMES[:3]]
        source = write_jsonl(write_images(tmp_path / "data", NAMES[:3]), rows)
        artifact, _ = run(source)
        with artifact.store() as store:
            captions = store.captions()
        assert [(c.text, c.image_row) for c in captions] == [("a square", row) for row in (0, 0, 1, 1, 2, 2)]
        assert len({c.caption_id for c in captions}) == 6

    def test_columns_of_the_source_are_kept_as_metadata(self, fake_artifact: Artifact) -> None:
        with fake_artifact.store() as store:
            assert [image.metadata["shade"] for image in store.images([0, 1, 2])] == ["bright", "soft", "dull"]


class TestSources:
    def test_a_collection_without_captions_is_searched_by_image_alone(self, run: Build, tmp_path: Path) -> None:
        artifact, _ = run(write_images(tmp_path / "data", NAMES[:6]))
        assert (artifact.manifest.data.images, artifact.manifest.data.captions) == (6, 0)
        assert artifact.manifest.images.measured.query_kind == "images"
        assert artifact.manifest.captions.measured.recall is None
        retriever = Retriever(artifact, FakeEncoder())
        assert retriever.search_images(square("black"))[0].image.image_path == "black-bright.png"
        assert retriever.search_captions(square("black")) == []

    def test_recall_is_measured_with_queries_of_the_other_modality(self, fake_artifact: Artifact) -> None:
        images, captions = fake_artifact.manifest.images.measured, fake_artifact.manifest.captions.measured
        assert (images.query_kind, images.queries) == ("captions", 24)
        assert (captions.query_kind, captions.queries) == ("images", 12)

    def test_a_source_without_a_usable_image_is_refused_with_the_reasons(self, run: Build, tmp_path: Path) -> None:
        source = write_jsonl(tmp_path / "data", [{"image": "gone.png", "caption": "a red square"}])
        with pytest.raises(SourceError, match=r"no usable image \(gone\.png: "):
            run(source)

    def test_an_empty_table_is_refused(self, run: Build, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="it is empty"):
            run(write_jsonl(tmp_path / "data", []))

    def test_strict_allows_no_reject(self, run: Build, tmp_path: Path) -> None:
        source = write_collection(tmp_path / "data", NAMES[:4])
        (source / NAMES[2]).write_bytes(b"hello")
        run(source)
        with pytest.raises(SourceError, match=rf"1 rejected, and --strict allows none; first {NAMES[2]}"):
            run(source, strict=True)

    def test_strict_accepts_a_clean_source(self, run: Build, collection: Path, fake_artifact: Artifact) -> None:
        assert run(collection, strict=True)[0].manifest.files == fake_artifact.manifest.files

    def test_checking_alone_gives_the_report_of_a_build(self, run: Build, collection: Path) -> None:
        assert check(collection, Limits(), Silent()).to_json() == run(collection)[1].to_json()


class TestVersion:
    def test_the_same_inputs_make_the_same_files(self, run: Build, collection: Path, fake_artifact: Artifact) -> None:
        artifact, _ = run(collection)
        assert artifact.path != fake_artifact.path
        assert artifact.manifest.version == fake_artifact.manifest.version
        assert artifact.manifest.files == fake_artifact.manifest.files

    @pytest.mark.parametrize("options", [{"seed": 1}, {"recall": 0.9}, {"ratios": (0.5, 0.25, 0.25)}])
    def test_options_change_the_version(
        self, run: Build, collection: Path, fake_artifact: Artifact, options: dict[str, object]
    ) -> None:
        assert run(collection, **options)[0].manifest.version != fake_artifact.manifest.version

    def test_a_changed_image_changes_the_version(self, run: Build, tmp_path: Path) -> None:
        source = write_collection(tmp_path / "data", NAMES[:3])
        before, _ = run(source)
        (source / NAMES[1]).write_bytes(png(square("white", size=13)))
        assert run(source)[0].manifest.version != before.manifest.version

    def test_splits_follow_the_options(self, run: Build, collection: Path) -> None:
        artifact, _ = run(collection, ratios=(0.5, 0.25, 0.25))
        assert artifact.manifest.data.splits == {"train": 12, "val": 6, "test": 6}
        with artifact.store() as store:
            assert sum(image.split == "test" for image in store.images()) == 6


class TestReuse:
    def test_an_artifact_that_is_kept_is_not_built_again(
        self, run: Build, collection: Path, fake_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(builder, "load_encoder")  # no vector can be made
        asked = []

        def find(version: str) -> Path:
            asked.append(version)
            return fake_artifact.path

        artifact, report = run(collection, find=find)
        assert artifact == fake_artifact
        assert asked == [fake_artifact.manifest.version]
        assert len(report.kept) == 24

    def test_a_kept_artifact_that_is_damaged_is_built_again(
        self, run: Build, collection: Path, artifact_copy: Artifact
    ) -> None:
        (artifact_copy.path / "captions.npy").unlink()
        artifact, _ = run(collection, find=lambda _: artifact_copy.path)
        assert artifact.path != artifact_copy.path
        assert Artifact.open(artifact.path).manifest.files == artifact_copy.manifest.files


class CountingEncoder(FakeEncoder):
    """The fake encoder; remembers how much it encoded."""

    def __init__(self) -> None:
        super().__init__()
        self.images = self.texts = 0

    def encode_pixels(self, pixels: Pixels) -> Vectors:
        self.images += len(pixels)
        return super().encode_pixels(pixels)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        self.texts += len(texts)
        return super().encode_texts(texts)


KILLED_BUILD = """
import functools, os, signal, sys
from pathlib import Path
from clip_retrieval.build import pipeline as builder
from clip_retrieval.build import embed
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.progress import Silent
from clip_retrieval.artifacts.record_store import RecordStore

source, encoder_folder, workspace, moment = sys.argv[1:]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

class Killed(FakeEncoder):
    batches = 0
    def encode_pixels(self, pixels):
        self.batches += 1
        return die() if self.batches == 3 and moment == "embedding images" else super().encode_pixels(pixels)
    def encode_texts(self, texts):
        return die() if moment == "embedding captions" else super().encode_texts(texts)

builder.load_encoder = lambda folder: Killed()
builder.embed_images = functools.partial(embed.embed_images, batch_size=5)
if moment == "writing":
    RecordStore.add = die
builder.build(Path(source), lambda _: Path(encoder_folder), Path(workspace), builder.Options(), Silent())
"""


class TestKilled:
    @pytest.mark.parametrize(
        ("moment", "images_left", "captions_left"),
        [("embedding images", 14, 48), ("embedding captions", 0, 48), ("writing", 0, 0)],
    )
    def test_leaves_no_artifact_and_goes_on_where_it_was(
        self,
        collection: Path,
        encoder_folder: Path,
        fake_artifact: Artifact,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        moment: str,
        images_left: int,
        captions_left: int,
    ) -> None:
        workspace = tmp_path / "builds"
        child = subprocess.run(
            [sys.executable, "-c", KILLED_BUILD, collection, encoder_folder, workspace, moment],
            timeout=60,
            check=False,
        )
        assert child.returncode == -signal.SIGKILL
        assert not (workspace / fake_artifact.manifest.version).exists()
        assert not list(workspace.rglob("manifest.json"))

        encoder = CountingEncoder()
        monkeypatch.setattr(builder, "load_encoder", lambda folder: encoder)
        artifact, _ = build(collection, lambda _: encoder_folder, workspace, Options(), Silent())
        assert (encoder.images, encoder.texts) == (images_left, captions_left)
        assert Artifact.open(artifact.path).manifest.files == fake_artifact.manifest.files

    def test_a_finished_build_leaves_only_the_artifact(self, run: Build, collection: Path) -> None:
        artifact, _ = run(collection)
        assert list(artifact.path.parent.iterdir()) == [artifact.path]

    def test_an_image_that_changes_while_it_is_built_stops_the_build(
        self, run: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = write_collection(tmp_path / "data", NAMES[:4])

        def change_first(images: object, *args: object, **more: object) -> object:
            shutil.copy(source / NAMES[0], source / NAMES[2])
            return embed_images(images, *args, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(builder, "embed_images", change_first)
        with pytest.raises(SourceError, match=f"{NAMES[2]} changed"):
            run(source)
