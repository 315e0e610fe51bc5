"""The arrays of an artifact say what its records say."""

from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.artifacts.record_arrays import open_array, write_record_arrays
from clip_retrieval.artifacts.record_store import RecordStore
from clip_retrieval.errors import ArtifactDamaged
from clip_retrieval.records import CaptionRecord, ImageRecord


def test_arrays_say_what_the_records_say(fake_artifact: Artifact) -> None:
    store = fake_artifact.store()
    assert fake_artifact.caption_image_rows().tolist() == [caption.image_row for caption in store.captions()]
    assert fake_artifact.caption_image_rows().dtype == fake_artifact.content_numbers().dtype == np.int32
    names = [column.info.name for column in fake_artifact.columns()]
    assert names == ["shade", "split"]


def test_images_of_equal_content_have_equal_numbers(tmp_path: Path) -> None:
    hashes = ["ff", "00", "aa", "00", "ff", "bb"]
    with RecordStore.create(tmp_path / "records.sqlite") as store:
        store.add(
            [ImageRecord(row, f"{row}", "", of, 1, 1, "train", {}) for row, of in enumerate(hashes)],
            [CaptionRecord(0, "c0", 5, "a"), CaptionRecord(1, "c1", 2, "a")],
        )
    write_record_arrays(tmp_path / "records.sqlite", tmp_path)
    numbers = open_array(tmp_path / "content_numbers.npy", 6)
    for row, number in enumerate(numbers):
        assert [other == number for other in numbers] == [other == hashes[row] for other in hashes]
    assert open_array(tmp_path / "caption_image_rows.npy", 2).tolist() == [5, 2]


def test_a_collection_without_captions_has_an_empty_array(tmp_path: Path) -> None:
    with RecordStore.create(tmp_path / "records.sqlite") as store:
        store.add([ImageRecord(0, "a", "", "00", 1, 1, "train", {})], [])
    write_record_arrays(tmp_path / "records.sqlite", tmp_path)
    assert open_array(tmp_path / "caption_image_rows.npy", 0).shape == (0,)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros(3, dtype=np.int32), r"has int32 \(3,\) instead of int32 \(2,\)"),
        (np.zeros(2, dtype=np.int64), r"has int64 \(2,\) instead of int32 \(2,\)"),
        (None, "cannot be read"),
    ],
)
def test_another_array_is_refused(tmp_path: Path, array: np.ndarray | None, says: str) -> None:
    if array is not None:
        np.save(tmp_path / "a.npy", array)
    with pytest.raises(ArtifactDamaged, match=rf"a\.npy {says}.*; restore or build the artifact again"):
        open_array(tmp_path / "a.npy", 2)
