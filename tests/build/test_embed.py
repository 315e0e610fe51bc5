"""One pass over a source: row i is the vector of item i, and each distinct item is encoded once, also after a kill."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.build.check import records_of
from clip_retrieval.build.embed import Embedder, embed_images
from clip_retrieval.build.known import KnownArtifacts
from clip_retrieval.build.report import Report
from clip_retrieval.build.validate import validate
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.encoders.base import Encoder, Pixels, Vectors
from clip_retrieval.encoders.fake import COLOURS, FakeEncoder
from clip_retrieval.images.decode import Limits
from clip_retrieval.records import CaptionedImage, CaptionRecord, Reject
from tests.samples import NAMES, MemoryBlob, image_of, png

TEXTS = [f"{colour} {number}" for number, colour in enumerate(COLOURS * 10)]


Items = list[CaptionedImage | Reject]


class Interrupted(Exception):
    """Stands for anything that may stop a build."""


class CountingEncoder(FakeEncoder):
    """The fake encoder; remembers the size of each batch and fails at the batch with the number ``fail_at``."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.batches: list[int] = []
        self._fail_at = fail_at

    def _count(self, size: int) -> None:
        if len(self.batches) == self._fail_at:
            raise Interrupted
        self.batches.append(size)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        self._count(len(texts))
        return super().encode_texts(texts)

    def encode_pixels(self, pixels: Pixels) -> Vectors:
        self._count(len(pixels))
        return super().encode_pixels(pixels)


def never() -> Encoder:
    raise AssertionError("the encoder is not needed")


@contextmanager
def embedder(work: Path, load: Callable[[], Encoder] = FakeEncoder, batch: int = 32) -> Iterator[Embedder]:
    info = FakeEncoder().info
    work.mkdir(exist_ok=True)
    with closing(Embedder(load, info.dim, work, KnownArtifacts((), info), batch)) as opened:
        yield opened


@pytest.fixture
def items(collection: Path) -> Items:
    return list(open_source(collection))


def image_vectors(report: Report, embedder: Embedder, out: Path) -> Vectors:
    images, _ = records_of(report.kept, ["test"] * len(report.kept))
    return embedder.gather_images(images, out)


def caption_vectors(texts: Sequence[str], embedder: Embedder, out: Path) -> Vectors:
    return embedder.gather_captions([CaptionRecord(row, str(row), 0, text) for row, text in enumerate(texts)], out)


class TestAlignment:
    @pytest.mark.parametrize("batch", [1, 5, 24, 32])
    def test_row_i_is_the_vector_of_image_i(self, items: Items, tmp_path: Path, batch: int) -> None:
        with embedder(tmp_path, batch=batch) as ready:
            report = embed_images(items, ready, Limits())
            vectors = image_vectors(report, ready, tmp_path / "out.npy")
        assert vectors.dtype == np.float32
        np.testing.assert_array_equal(vectors, FakeEncoder().encode_images([image_of(name) for name in NAMES]))

    def test_row_i_is_the_vector_of_caption_i(self, tmp_path: Path) -> None:
        with embedder(tmp_path) as ready:
            ready.embed_captions(TEXTS)
            vectors = caption_vectors(TEXTS, ready, tmp_path / "out.npy")
        np.testing.assert_array_equal(vectors, FakeEncoder().encode_texts(TEXTS))

    def test_the_report_is_that_of_a_validation_alone(self, items: Items, tmp_path: Path) -> None:
        items = [*items[:3], Reject("line 4", "odd"), CaptionedImage("b", MemoryBlob("b", b"bad")), *items[3:]]
        with embedder(tmp_path) as ready:
            assert embed_images(items, ready, Limits()) == validate(items)

    def test_progress_counts_every_item_once(self, items: Items, tmp_path: Path) -> None:
        steps: list[int] = []
        with embedder(tmp_path, batch=10) as ready:
            embed_images([*items, Reject("line 9", "odd")], ready, Limits(), advance=steps.append)
            assert sum(steps) == len(items)
            steps.clear()
            ready.embed_captions([*TEXTS, *TEXTS], steps.append)
            assert sum(steps) == 2 * len(TEXTS)


class TestOnce:
    def test_equal_images_are_encoded_once(self, tmp_path: Path) -> None:
        names = [NAMES[0], NAMES[1], NAMES[0], NAMES[0]]
        items = [CaptionedImage(str(n), MemoryBlob(str(n), png(image_of(name)))) for n, name in enumerate(names)]
        encoder = CountingEncoder()
        with embedder(tmp_path, lambda: encoder) as ready:
            report = embed_images(items, ready, Limits())
            vectors = image_vectors(report, ready, tmp_path / "out.npy")
            counts = ready.counts(report)
        assert encoder.batches == [2]
        assert (counts.images_encoded, counts.images_reused) == (2, 2)
        np.testing.assert_array_equal(vectors, FakeEncoder().encode_images([image_of(name) for name in names]))

    def test_equal_captions_are_encoded_once(self, tmp_path: Path) -> None:
        encoder = CountingEncoder()
        with embedder(tmp_path, lambda: encoder) as ready:
            ready.embed_captions([*TEXTS, *TEXTS[::-1]])
            vectors = caption_vectors([*TEXTS, *TEXTS[::-1]], ready, tmp_path / "out.npy")
        assert sum(encoder.batches) == len(TEXTS)
        np.testing.assert_array_equal(vectors, FakeEncoder().encode_texts([*TEXTS, *TEXTS[::-1]]))

    def test_each_image_is_read_once(self, tmp_path: Path) -> None:
        class CountingBlob(MemoryBlob):
            def read(self, limit: int) -> bytes:
                reads.append(self.name)
                return super().read(limit)

        reads: list[str] = []
        items = [CaptionedImage(name, CountingBlob(name, png(image_of(name)))) for name in NAMES]
        with embedder(tmp_path) as ready:
            embed_images(items, ready, Limits())
        assert sorted(reads) == sorted(NAMES)


class TestResuming:
    def test_images_that_were_encoded_before_a_stop_are_not_encoded_again(self, items: Items, tmp_path: Path) -> None:
        with pytest.raises(Interrupted), embedder(tmp_path, lambda: CountingEncoder(2), batch=5) as ready:
            embed_images(items, ready, Limits())
        encoder = CountingEncoder()
        with embedder(tmp_path, lambda: encoder, batch=5) as ready:
            report = embed_images(items, ready, Limits())
            resumed = image_vectors(report, ready, tmp_path / "out.npy")
        assert encoder.batches == [5, 5, 4], "10 of 24 were done"
        with embedder(tmp_path / "other") as ready:
            whole = image_vectors(embed_images(items, ready, Limits()), ready, tmp_path / "whole.npy")
        np.testing.assert_array_equal(resumed, whole)
        assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()

    def test_captions_that_were_encoded_before_a_stop_are_not_encoded_again(self, tmp_path: Path) -> None:
        with pytest.raises(Interrupted), embedder(tmp_path, lambda: CountingEncoder(1)) as ready:
            ready.embed_captions(TEXTS)
        encoder, steps = CountingEncoder(), list[int]()
        with embedder(tmp_path, lambda: encoder) as ready:
            ready.embed_captions(TEXTS, steps.append)
        assert encoder.batches == [16], "64 of 80 were done"
        assert steps == [64, 16]

    def test_a_source_in_another_order_reuses_what_is_there(self, items: Items, tmp_path: Path) -> None:
        with embedder(tmp_path) as ready:
            embed_images(items, ready, Limits())
        with embedder(tmp_path, never) as ready:
            report = embed_images(items[::-1], ready, Limits())
            vectors = image_vectors(report, ready, tmp_path / "out.npy")
        np.testing.assert_array_equal(vectors, FakeEncoder().encode_images([image_of(name) for name in NAMES[::-1]]))

    def test_the_encoder_is_not_loaded_if_everything_is_there(self, items: Items, tmp_path: Path) -> None:
        with embedder(tmp_path) as ready:
            embed_images(items, ready, Limits())
            ready.embed_captions(TEXTS)
        with embedder(tmp_path, never) as ready:
            embed_images(items, ready, Limits())
            ready.embed_captions(TEXTS)
