"""A module in a process of its own: its last line is JSON, and its errors are told in one line."""

import asyncio
from pathlib import Path

import pytest

from clip_retrieval.serving.child import ChildFailed, run_module


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that a child process can run."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def run(modules: Path, code: str, *arguments: str, limit_s: float | None = None) -> object:
    (modules / "made.py").write_text(code)
    return asyncio.run(run_module("made", *arguments, limit_s=limit_s))


def test_the_last_line_is_the_result(modules: Path) -> None:
    assert run(modules, "import sys; print('at work'); print('[1, \"' + sys.argv[1] + '\"]')", "two") == [1, "two"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; sys.exit('first\\nerror: the disk is full')", "the disk is full"),
        ("import sys; print('{}'); sys.exit(3)", "exit status 3"),
        ("print('no JSON')", "exit status 0"),
        ("", "exit status 0"),
    ],
    ids=["its own words", "a status alone", "another output", "no output"],
)
def test_what_is_wrong_is_told_in_one_line(modules: Path, code: str, said: str) -> None:
    with pytest.raises(ChildFailed) as caught:
        run(modules, code)
    assert str(caught.value) == said


def test_the_status_tells_the_kind_of_the_error(modules: Path) -> None:
    with pytest.raises(ChildFailed) as caught:
        run(modules, "import sys; sys.exit(73)")
    assert caught.value.status == 73


def test_it_ends_at_the_time_limit(modules: Path) -> None:
    with pytest.raises(TimeoutError):
        run(
            modules,
            "import pathlib, time; time.sleep(1); pathlib.Path(__file__).with_name('done').touch()",
            limit_s=0.3,
        )
    with pytest.raises(TimeoutError):
        run(modules, "import time; time.sleep(60)", limit_s=1.2)
    assert not (modules / "done").exists()
