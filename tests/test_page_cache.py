"""What of files is in the page cache, asked of the kernel itself."""

import mmap
import os
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.page_cache import (
    HUGE_PAGE,
    HUGE_PAGES,
    copy_to_huge_pages,
    drop_pages,
    read_at_random,
    read_through,
)
from tests.cached import flags_at, flags_of, is_cached

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other kernels are not asked")
SIZE = 4 * 2**20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file whose pages can be dropped: they are on the disk."""
    path = tmp_path / "data"
    with path.open("wb") as opened:
        opened.write(os.urandom(SIZE))
        opened.flush()
        os.fsync(opened.fileno())
    return path


def test_pages_are_dropped_and_read(file: Path) -> None:
    assert is_cached(file, SIZE // 2)
    drop_pages([file, file.with_name("missing")])
    assert not is_cached(file, SIZE // 2)
    read_through(file)
    assert all(is_cached(file, offset) for offset in (0, SIZE // 2, SIZE - 16))


def test_nothing_is_raised_for_a_file_that_is_missing(tmp_path: Path) -> None:
    read_through(tmp_path / "missing")


def test_the_kernel_knows_that_rows_of_a_mapped_file_are_read_at_random(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(file.read_bytes())
    mapped, beside = np.memmap(file, np.uint8, "r"), np.memmap(other, np.uint8, "r")
    read_at_random([file])
    assert (mapped == beside).all()
    assert "rr" in flags_of(file)
    assert "rr" not in flags_of(other)


def test_only_the_row_is_read_then(file: Path) -> None:
    with file.open("rb") as opened, closing(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)) as mapped:
        read_at_random([file])
        drop_pages([file])
        assert mapped[SIZE // 2] >= 0
        assert is_cached(file, SIZE // 2)
        assert not is_cached(file, SIZE // 2 + 2 * mmap.PAGESIZE)


class TestCopies:
    pytestmark = pytest.mark.skipif(
        not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="this kernel gives no huge pages"
    )

    @pytest.mark.parametrize("start", [0, mmap.ALLOCATIONGRANULARITY])
    def test_what_is_mapped_of_a_large_file_is_copied(self, file: Path, start: int) -> None:
        with file.open("ab") as opened:
            opened.write(b"no whole page")
        content = np.fromfile(file, np.uint8, offset=start)
        mapped = np.memmap(file, np.uint8, "r", offset=start)
        copy_to_huge_pages([file])
        assert (mapped == content).all()
        assert str(file) not in Path("/proc/self/maps").read_text()
        file.write_bytes(bytes(len(content)))
        assert (mapped == content).all()

    def test_it_lies_in_huge_pages(self, file: Path) -> None:
        mapped = np.memmap(file, np.uint8, "r")
        copy_to_huge_pages([file])
        assert "hg" in flags_at(mapped.ctypes.data)

    def test_small_ones_and_others_stay_mapped(self, file: Path) -> None:
        small = file.with_name("small")
        small.write_bytes(bytes(HUGE_PAGE - mmap.PAGESIZE))
        kept = [np.memmap(file, np.uint8, "r"), np.memmap(small, np.uint8, "r")]
        copy_to_huge_pages([small, file.with_name("missing")])
        maps = Path("/proc/self/maps").read_text()
        assert all(str(path) in maps for path in (file, small))
        assert kept

    @pytest.mark.parametrize("said", ["always madvise [never]", None])
    def test_a_kernel_without_huge_pages_keeps_the_mapping(self, file: Path, said: str | None) -> None:
        mapped, setting = np.memmap(file, np.uint8, "r"), file.with_name("enabled")
        if said is not None:
            setting.write_text(said)
        copy_to_huge_pages([file], setting=setting)
        assert str(file) in Path("/proc/self/maps").read_text()
        assert len(mapped) == SIZE

    def test_a_file_that_has_become_shorter_is_an_error(self, file: Path) -> None:
        mapped = np.memmap(file, np.uint8, "r")
        os.truncate(file, SIZE // 2)
        with pytest.raises(OSError, match="shorter"):
            copy_to_huge_pages([file])
        assert len(mapped) == SIZE
