"""Bulk embedding keeps row i the vector of item i, resumes where it was, and never holds more than a few batches."""

import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_retrieval.build.embed import ResumableVectors, embed_images, embed_texts
from clip_retrieval.build.validate import validate
from clip_retrieval.datasets import open_source
from clip_retrieval.encoders.base import Pixels, Vectors
from clip_retrieval.encoders.fake import COLOURS, FakeEncoder
from clip_retrieval.errors import SourceError
from clip_retrieval.images.decode import Limits
from clip_retrieval.parallel import map_ahead
from clip_retrieval.records import ValidImage
from tests.samples import NAMES, image_of, png, square, write_collection

TEXTS = [f"{colour} {number}" for number, colour in enumerate(COLOURS * 5)]


class Interrupted(Exception):
    """Stands for whatever may stop a build."""


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


@pytest.fixture
def images(collection: Path) -> list[ValidImage]:
    return validate(open_source(collection)).kept


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "vectors.npy"


class TestAlignment:
    @pytest.mark.parametrize("batch_size", [1, 7, 40, 64])
    def test_row_i_is_the_vector_of_text_i(self, out: Path, batch_size: int) -> None:
        vectors = embed_texts(TEXTS, FakeEncoder(), out, batch_size=batch_size)
        assert vectors.dtype == np.float32
        np.testing.assert_array_equal(vectors, FakeEncoder().encode_texts(TEXTS))

    @pytest.mark.parametrize("batch_size", [1, 5, 24, 32])
    def test_row_i_is_the_vector_of_image_i(self, images: list[ValidImage], out: Path, batch_size: int) -> None:
        vectors = embed_images(images, FakeEncoder(), out, limits=Limits(), batch_size=batch_size)
        np.testing.assert_array_equal(vectors, FakeEncoder().encode_images([image_of(name) for name in NAMES]))

    def test_nothing_to_embed_is_an_empty_matrix(self, out: Path) -> None:
        assert embed_texts([], FakeEncoder(), out).shape == (0, 16)

    def test_progress_counts_every_item_once(self, images: list[ValidImage], out: Path) -> None:
        steps: list[int] = []
        embed_images(images, FakeEncoder(), out, limits=Limits(), batch_size=10, advance=steps.append)
        assert sum(steps) == len(images)


class TestResuming:
    def test_texts_go_on_where_they_were(self, out: Path) -> None:
        with pytest.raises(Interrupted):
            embed_texts(TEXTS, CountingEncoder(fail_at=3), out, batch_size=10)
        encoder, steps = CountingEncoder(), list[int]()
        vectors = embed_texts(TEXTS, encoder, out, batch_size=10, advance=steps.append)
        assert encoder.batches == [10], "30 of 40 were done"
        assert steps == [30, 10]
        np.testing.assert_array_equal(vectors, FakeEncoder().encode_texts(TEXTS))

    def test_images_go_on_where_they_were(self, images: list[ValidImage], out: Path, tmp_path: Path) -> None:
        with pytest.raises(Interrupted):
            embed_images(images, CountingEncoder(fail_at=2), out, limits=Limits(), batch_size=5)
        encoder = CountingEncoder()
        vectors = embed_images(images, encoder, out, limits=Limits(), batch_size=5)
        assert encoder.batches == [5, 5, 4], "10 of 24 were done"
        uninterrupted = embed_images(images, FakeEncoder(), tmp_path / "other.npy", limits=Limits())
        np.testing.assert_array_equal(vectors, uninterrupted)

    def test_what_is_finished_is_not_encoded_again(self, out: Path) -> None:
        embed_texts(TEXTS, FakeEncoder(), out)
        encoder = CountingEncoder()
        embed_texts(TEXTS, encoder, out)
        assert encoder.batches == []

    @settings(max_examples=25, deadline=None)
    @given(rows=st.integers(0, 30), runs=st.lists(st.lists(st.integers(1, 5), max_size=4), max_size=4))
    def test_rows_appended_over_any_number_of_runs_are_all_there(self, rows: int, runs: list[list[int]]) -> None:
        expected = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "vectors.npy"
            written = 0
            for batches in [*runs, [rows]]:
                vectors = ResumableVectors(path, rows, 3)
                assert vectors.done == written
                for size in batches:
                    vectors.append(expected[written : written + size])
                    written = min(rows, written + size)
                    assert vectors.done == written
            np.testing.assert_array_equal(ResumableVectors(path, rows, 3).finish(), expected)

    def test_an_unfinished_matrix_is_not_given_out(self, out: Path) -> None:
        vectors = ResumableVectors(out, 4, 2)
        vectors.append(np.ones((3, 2), np.float32))
        with pytest.raises(ValueError, match="3 of 4 rows"):
            vectors.finish()

    @pytest.mark.parametrize(("rows", "dim"), [(5, 2), (4, 3)])
    def test_a_matrix_of_another_shape_is_begun_anew(self, out: Path, rows: int, dim: int) -> None:
        ResumableVectors(out, 4, 2).append(np.ones((3, 2), np.float32))
        assert ResumableVectors(out, rows, dim).done == 0
        assert ResumableVectors(out, rows, dim).done == 0, "also when it is opened once more"

    def test_a_matrix_without_its_count_is_begun_anew(self, out: Path) -> None:
        ResumableVectors(out, 4, 2).append(np.ones((3, 2), np.float32))
        out.with_suffix(".done").unlink()
        assert ResumableVectors(out, 4, 2).done == 0


class TestChangedImages:
    def test_an_image_that_changed_since_validation_ends_the_run(self, tmp_path: Path, out: Path) -> None:
        folder = write_collection(tmp_path / "data", NAMES[:6])
        images = validate(open_source(folder)).kept
        (folder / NAMES[3]).write_bytes(png(square("white")))
        with pytest.raises(SourceError, match=rf"{NAMES[3]} changed .* run it again"):
            embed_images(images, FakeEncoder(), out, limits=Limits())

    def test_the_same_pixels_in_another_file_format_are_no_change(self, tmp_path: Path, out: Path) -> None:
        folder = write_collection(tmp_path / "data", NAMES[:2])
        images = validate(open_source(folder)).kept
        image_of(NAMES[0]).save(folder / NAMES[0], "BMP")
        assert len(embed_images(images, FakeEncoder(), out, limits=Limits())) == 2

    @pytest.mark.parametrize("content", [b"gone", None], ids=["no image", "no file"])
    def test_an_image_that_is_none_any_more_ends_the_run(
        self, tmp_path: Path, out: Path, content: bytes | None
    ) -> None:
        folder = write_collection(tmp_path / "data", NAMES[:2])
        images = validate(open_source(folder)).kept
        if content is None:
            (folder / NAMES[1]).unlink()
        else:
            (folder / NAMES[1]).write_bytes(content)
        with pytest.raises(SourceError, match=f"{NAMES[1]} changed while the build was running"):
            embed_images(images, FakeEncoder(), out, limits=Limits())


class TestMapAhead:
    """``validate.map_ahead``, by which images are decoded beside the encoder."""

    @given(st.lists(st.integers()), st.integers(1, 10))
    @settings(max_examples=25, deadline=None)
    def test_is_map_in_order(self, items: list[int], ahead: int) -> None:
        assert list(map_ahead(lambda x: x * 2, items, ahead=ahead)) == [x * 2 for x in items]

    def test_a_slow_item_does_not_change_the_order(self) -> None:
        others = threading.Semaphore(0)

        def wait_if_first(item: int) -> int:
            if item == 0:
                assert others.acquire(timeout=10), "later items run beside the first"
            else:
                others.release()
            return item

        assert list(map_ahead(wait_if_first, range(6), ahead=4)) == list(range(6))

    @pytest.mark.parametrize("ahead", [1, 4, 16])
    def test_takes_no_more_than_it_may_be_ahead(self, ahead: int) -> None:
        taken = 0

        def endless() -> Iterator[int]:
            nonlocal taken
            while True:
                taken += 1
                yield taken

        results = map_ahead(lambda x: x, endless(), ahead=ahead)
        for given_out in range(1, 50):
            assert next(results) == given_out
            assert taken < given_out + ahead

    def test_an_error_comes_at_the_place_of_its_item(self) -> None:
        def fail_at_three(item: int) -> int:
            if item == 3:
                raise Interrupted
            return item

        results = map_ahead(fail_at_three, range(10), ahead=8)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(Interrupted):
            next(results)
