"""Fixtures of the tests of live collections."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from clip_retrieval.live.log import ChangeLog
from tests.live.samples import open_log


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    """Where a log can be; neither file nor folder are there."""
    return tmp_path / "changes" / "changes.sqlite"


@pytest.fixture
def log(log_path: Path) -> Iterator[ChangeLog]:
    """An empty log at ``log_path``."""
    with closing(open_log(log_path)) as opened:
        yield opened
