"""Usable cores: the quota of either version of Linux control groups, over files as the kernel writes them."""

import os
from pathlib import Path

import pytest

from clip_retrieval.cores import usable_cores

MANY = 64


@pytest.fixture(autouse=True)
def large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(MANY)), raising=False)


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, MANY),
        ({"cpu_dot_max": "max 100000\n"}, MANY),
        ({"cpu_dot_max": "200000 100000\n"}, 2),
        ({"cpu_dot_max": "250000 100000\n"}, 2),
        ({"cpu_dot_max": "50000 100000\n"}, 1),
        ({"cpu_dot_max": "9900000 100000\n"}, MANY),
        ({"cpu__cpu_dot_cfs_quota_us": "-1\n", "cpu__cpu_dot_cfs_period_us": "100000\n"}, MANY),
        ({"cpu__cpu_dot_cfs_quota_us": "400000\n", "cpu__cpu_dot_cfs_period_us": "100000\n"}, 4),
        ({"cpu_dot_max": "nonsense"}, MANY),
    ],
)
def test_the_smallest_limit_counts(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert usable_cores(write(tmp_path, **files)) == expected


def test_a_process_that_is_pinned_has_no_more_than_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert usable_cores(write(tmp_path, cpu_dot_max="400000 100000")) == 1
