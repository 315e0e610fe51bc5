"""What follows from the records and grows with them, as arrays: written once, memory-mapped when an artifact opens."""

from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clip_retrieval.artifacts.array_file import mapped
from clip_retrieval.artifacts.columns import write_columns
from clip_retrieval.artifacts.record_store import RecordStore
from clip_retrieval.errors import ArtifactDamaged

CAPTION_IMAGE_ROWS = "caption_image_rows.npy"
CONTENT_NUMBERS = "content_numbers.npy"
COLUMNS = "columns"


def write_record_arrays(records: Path, folder: Path) -> None:
    """Write the arrays and columns of the records in the file ``records`` into ``folder``.

    Records are read in blocks, so memory holds the arrays but not the records. Raises ArtifactDamaged when the rows of
    the records have gaps.
    """
    with closing(RecordStore.open(records)) as store:
        store.check()
        images, captions = store.counts()
        np.save(folder / CAPTION_IMAGE_ROWS, np.fromiter(store.caption_image_rows(), np.int32, captions))
        np.save(folder / CONTENT_NUMBERS, _content_numbers(store, images))
        write_columns(folder / COLUMNS, store.splits_and_metadata())


def open_array(path: Path, rows: int) -> NDArray[np.int32]:
    """An int32 array of shape (rows,), memory-mapped for reading. Raises ArtifactDamaged when the file has another."""
    try:
        array = mapped(path)
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactDamaged(f"{path} cannot be read ({error}); restore or build the artifact again") from error
    if array.dtype != np.int32 or array.shape != (rows,):
        raise ArtifactDamaged(
            f"{path} has {array.dtype} {array.shape} instead of int32 ({rows},); restore or build the artifact again"
        )
    return np.asarray(array)  # without the cost of the class memmap at each access


def _content_numbers(store: RecordStore, images: int) -> NDArray[np.int32]:
    """The place of each image's hash among the distinct hashes in order."""
    numbers = np.empty(images, dtype=np.int32)
    number, last = -1, None
    for row, content_hash in store.rows_by_content():
        if content_hash != last:
            number, last = number + 1, content_hash
        numbers[row] = number
    return numbers
