"""Evaluation of a collection: galleries, misses, indexes apart, reports; on the squares of ``samples.py``."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.check import read_source
from clip_retrieval.build.pipeline import Options
from clip_retrieval.datasets.file_blob import FileBlob
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import ModelUnavailable, SourceError
from clip_retrieval.evaluation.direction import chance
from clip_retrieval.evaluation.embedded_dataset import EmbeddedDataset, of_artifact, of_source
from clip_retrieval.evaluation.evaluate import evaluate
from clip_retrieval.evaluation.index_report import index_quality
from clip_retrieval.evaluation.misses_page import page
from clip_retrieval.evaluation.recall import image_to_text, text_to_image
from clip_retrieval.evaluation.recall_plot import plot
from clip_retrieval.indexes.base import SearchHits
from clip_retrieval.indexes.faiss_index import FaissIndex
from clip_retrieval.progress import Silent
from clip_retrieval.records import SPLITS
from tests.samples import NAMES, write_collection


@pytest.fixture(scope="module")
def squares(fake_artifact: Artifact, collection: Path) -> EmbeddedDataset:
    return of_artifact("squares", fake_artifact, collection)


class TestGalleries:
    def test_the_gallery_of_a_split_is_that_split_alone(self, squares: EmbeddedDataset) -> None:
        quality = evaluate(squares, "all", Silent(), resamples=10)
        assert [one.gallery for one in quality.galleries] == [*SPLITS, "all"]
        for one in quality.galleries:
            rows = [i.row for i in squares.images if one.gallery in (i.split, "all")]
            assert (one.images, one.captions) == (len(rows), 2 * len(rows))
            assert (one.text_to_image.queries, one.text_to_image.candidates) == (2 * len(rows), len(rows))
            assert (one.image_to_text.queries, one.image_to_text.candidates) == (len(rows), 2 * len(rows))
            assert all(hit.image_row in rows for way in one.ways().values() for miss in way.worst for hit in miss.found)

    @pytest.mark.parametrize("split", SPLITS)
    def test_a_split_gives_the_same_alone_and_among_all(self, squares: EmbeddedDataset, split: str) -> None:
        (alone,) = evaluate(squares, split, Silent(), resamples=10).galleries  # type: ignore[arg-type]
        assert alone in evaluate(squares, "all", Silent(), resamples=10).galleries

    def test_images_without_captions_stay_and_ask_nothing(self, squares: EmbeddedDataset) -> None:
        kept = [caption for caption in squares.captions if caption.image_row < 6]
        fewer = dataclasses.replace(squares, captions=kept)
        one = evaluate(fewer, "all", Silent(), resamples=10).galleries[-1]
        assert (one.text_to_image.queries, one.text_to_image.candidates) == (12, 24)
        assert (one.image_to_text.queries, one.image_to_text.candidates) == (6, 12)

    def test_repeats_are_counted_and_are_misses(self, squares: EmbeddedDataset) -> None:
        one = evaluate(squares, "all", Silent(), resamples=10).galleries[-1]
        assert (one.repeated_images, one.repeated_captions) == (0, 24)
        # "a red square" is said of three images; two of the three times another one comes first.
        assert one.text_to_image.metrics.recall_at_1 < 1

    def test_a_split_without_captions_is_refused_with_those_that_have_some(self, squares: EmbeddedDataset) -> None:
        only = [caption for caption in squares.captions if squares.images[caption.image_row].split == "train"]
        with pytest.raises(SourceError, match=r"the split test of .* has no captions; splits with captions: train"):
            evaluate(dataclasses.replace(squares, captions=only), "test", Silent())
        with pytest.raises(SourceError, match="has no captions; evaluate a collection with captions"):
            evaluate(dataclasses.replace(squares, captions=[]), "all", Silent())

    def test_a_broken_model_is_refused_and_not_praised(self, squares: EmbeddedDataset) -> None:
        broken = np.full_like(squares.image_vectors, np.nan)
        with pytest.raises(ModelUnavailable, match="contain NaN or infinity; export or train the model again"):
            evaluate(dataclasses.replace(squares, image_vectors=broken), "test", Silent())


class TestMisses:
    def test_are_the_queries_of_the_greatest_ranks(self, squares: EmbeddedDataset) -> None:
        one = evaluate(squares, "all", Silent(), resamples=10, worst=5).galleries[-1]
        image_of = np.array([caption.image_row for caption in squares.captions])
        for way, rank in ((one.text_to_image, text_to_image), (one.image_to_text, image_to_text)):
            ranks = rank(squares.caption_vectors, squares.image_vectors, image_of).values
            expected = sorted((r for r in ranks.tolist() if r > 1), reverse=True)[:5]
            assert [miss.rank for miss in way.worst] == expected

    def test_say_what_came_first_instead(self, squares: EmbeddedDataset) -> None:
        one = evaluate(squares, "all", Silent(), resamples=10).galleries[-1]
        assert one.text_to_image.worst
        for miss in one.text_to_image.worst:
            assert miss.caption is not None
            first = miss.found[0]
            assert first.image_row != miss.image_row
            assert first.score >= miss.score
            assert first.image_path == squares.images[first.image_row].image_path


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
def test_chance_is_what_random_order_gives(candidates: int, relevant: int, k: int) -> None:
    relevant = min(relevant, candidates)
    rng = np.random.default_rng(0)
    orders = rng.permuted(np.tile(np.arange(candidates), (4000, 1)), axis=1)
    hit = (orders[:, :k] < relevant).any(axis=1).mean()
    assert chance(candidates, np.array([relevant]), k) == pytest.approx(hit, abs=0.04)


class TestSource:
    def test_gives_what_its_artifact_gives(
        self, squares: EmbeddedDataset, collection: Path, encoder_folder: Path, tmp_path: Path
    ) -> None:
        data = of_source(read_source(collection, Silent()), encoder_folder, tmp_path, Options(), Silent())
        assert data.images == squares.images
        assert data.captions == squares.captions
        one, two = (evaluate(each, "all", Silent(), resamples=10).galleries for each in (data, squares))
        assert one == two
        assert data.blobs[3] == FileBlob(collection / NAMES[3], NAMES[3])

    def test_is_embedded_once(
        self, collection: Path, encoder_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = of_source(read_source(collection, Silent()), encoder_folder, tmp_path, Options(), Silent())
        monkeypatch.setattr(FakeEncoder, "encode_texts", None)
        monkeypatch.setattr(FakeEncoder, "encode_pixels", None)
        again = of_source(read_source(collection, Silent()), encoder_folder, tmp_path, Options(), Silent())
        assert (again.image_vectors == first.image_vectors).all()
        assert (again.caption_vectors == first.caption_vectors).all()

    def test_other_data_is_embedded_anew(self, collection: Path, encoder_folder: Path, tmp_path: Path) -> None:
        of_source(read_source(collection, Silent()), encoder_folder, tmp_path / "cache", Options(), Silent())
        other = write_collection(tmp_path / "other", ("red-dull.png", "blue-soft.png"))
        data = of_source(read_source(other, Silent()), encoder_folder, tmp_path / "cache", Options(), Silent())
        assert data.image_vectors.shape[0] == 2
        assert len(list((tmp_path / "cache").iterdir())) == 2


class TestIndexes:
    def test_an_exact_index_loses_nothing(self, fake_artifact: Artifact, squares: EmbeddedDataset) -> None:
        images, captions = index_quality(fake_artifact, squares, Silent())
        assert (images.index, images.query_kind, images.queries, images.rows) == ("images", "captions", 48, 24)
        assert (captions.index, captions.query_kind, captions.queries, captions.rows) == (
            "captions",
            "images",
            24,
            48,
        )
        for one in (images, captions):
            assert (one.recall_at_1, one.recall_at_10, one.recall_at_50) == (1, 1, 1)
            assert [slow.ms for slow in one.slowest] == sorted((slow.ms for slow in one.slowest), reverse=True)
            assert one.p50_ms <= one.p99_ms <= one.slowest[0].ms
        assert {slow.query for slow in images.slowest} <= {caption.text for caption in squares.captions}

    def test_what_an_index_misses_is_seen(
        self, fake_artifact: Artifact, squares: EmbeddedDataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def forgetful(self: FaissIndex, queries: np.ndarray, k: int) -> SearchHits:
            scores, rows = self.exact_search(queries, k)
            rows[:, 5:] = -1
            return SearchHits(scores, rows)

        monkeypatch.setattr(FaissIndex, "search", forgetful)
        images, _ = index_quality(fake_artifact, squares, Silent())
        assert (images.recall_at_1, images.recall_at_10, images.recall_at_50) == (1, 0.5, 5 / 24)

    def test_without_captions_there_is_nothing_to_judge_with(
        self, fake_artifact: Artifact, squares: EmbeddedDataset
    ) -> None:
        assert index_quality(fake_artifact, dataclasses.replace(squares, captions=[]), Silent()) == ()


class TestPage:
    def test_shows_images_inside_itself_and_reaches_for_nothing(self, squares: EmbeddedDataset) -> None:
        text = page(evaluate(squares, "all", Silent(), resamples=10), squares)
        assert "data:image/jpeg;base64," in text
        assert "http://" not in text
        assert "https://" not in text
        assert "<script" not in text

    def test_names_and_captions_are_escaped(self, squares: EmbeddedDataset) -> None:
        evil = '<script>alert("x")</script>&'
        images = [dataclasses.replace(image, image_path=f"{evil}{image.row}") for image in squares.images]
        captions = [dataclasses.replace(caption, text=f"{evil}{caption.row}") for caption in squares.captions]
        data = dataclasses.replace(squares, name=evil, images=images, captions=captions)
        text = page(evaluate(data, "all", Silent(), resamples=10), data)
        assert "<script>" not in text
        assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&amp;" in text

    def test_an_image_that_changed_or_went_is_left_out(self, squares: EmbeddedDataset, tmp_path: Path) -> None:
        quality = evaluate(squares, "all", Silent(), resamples=10)
        swapped = {image.row: squares.blobs[(image.row + 1) % 24] for image in squares.images}
        gone = dict.fromkeys(swapped, FileBlob(tmp_path / "gone.png", "gone.png"))
        for blobs in (swapped, gone, {}):
            text = page(quality, dataclasses.replace(squares, blobs=blobs))
            assert "base64" not in text
            assert "image not available" in text


def test_the_plot_is_a_png_whatever_the_name(squares: EmbeddedDataset, tmp_path: Path) -> None:
    quality = evaluate(squares, "test", Silent(), resamples=10).model_copy(update={"name": "$_{[bold]"})
    plot(quality, tmp_path / "recall.png")
    assert (tmp_path / "recall.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
class TestIndependently:
    """The same embeddings give the recalls of LAION's clip-benchmark."""

    @pytest.mark.parametrize(("images", "per_image"), [(40, 1), (60, 5), (25, 12)])
    def test_recalls_are_those_of_clip_benchmark(self, squares: EmbeddedDataset, images: int, per_image: int) -> None:
        theirs = pytest.importorskip(
            "clip_benchmark.metrics.zeroshot_retrieval", reason="pip install --no-deps clip-benchmark==1.6.2"
        )
        torch = pytest.importorskip("torch")
        rng = np.random.default_rng(images)
        owners = np.repeat(np.arange(images), per_image)
        vectors = rng.standard_normal((images, 32)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        texts = vectors[owners] + 0.35 * rng.standard_normal((len(owners), 32)).astype(np.float32)
        texts /= np.linalg.norm(texts, axis=1, keepdims=True)

        class Model:
            """Hands out the vectors whose numbers it is given."""

            def encode_image(self, rows: object) -> object:
                return torch.tensor(vectors)[rows]

            def encode_text(self, rows: object) -> object:
                return torch.tensor(texts)[rows]

        batches = [
            (torch.arange(start, stop), [[row * per_image + n for n in range(per_image)] for row in range(start, stop)])
            for start, stop in zip(range(0, images, 16), [*range(16, images, 16), images], strict=True)
        ]
        expected = theirs.evaluate(Model(), batches, torch.tensor, "cpu", amp=False, recall_k_list=[1, 5, 10])
        data = dataclasses.replace(
            squares,
            images=[dataclasses.replace(squares.images[0], row=row) for row in range(images)],
            captions=[dataclasses.replace(squares.captions[0], row=n, image_row=int(o)) for n, o in enumerate(owners)],
            image_vectors=vectors,
            caption_vectors=texts,
        )
        one = evaluate(data, "all", Silent(), resamples=10).galleries[-1]
        assert 0.1 < one.text_to_image.metrics.recall_at_1 < 0.95, "the test would show nothing"
        for k in (1, 5, 10):
            ours = {"image": one.text_to_image, "text": one.image_to_text}
            for name, way in ours.items():
                assert way.metrics.model_dump()[f"recall_at_{k}"] == pytest.approx(
                    expected[f"{name}_retrieval_recall@{k}"], abs=1e-6
                )


def test_the_json_of_a_report_can_be_read_again(squares: EmbeddedDataset) -> None:
    quality = evaluate(squares, "test", Silent(), resamples=10)
    assert type(quality).model_validate(json.loads(quality.model_dump_json())) == quality
