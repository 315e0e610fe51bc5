"""The stages of a start, over processes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clip_retrieval.serving import start_profile
from clip_retrieval.serving.start_profile import Stage, born, mark, stages, write


def line(process: str, pid: int, stage: str, born: float, until: float, processor: float) -> str:
    return json.dumps(locals())


def test_a_stage_begins_with_the_one_before_it_in_its_process_or_with_the_process() -> None:
    lines = [
        line("command", 10, "imports", 100.0, 100.5, 0.4),
        line("supervisor", 11, "imports", 100.6, 101.0, 0.3),
        line("worker", 13, "imports", 101.25, 102.0, 0.7),
        line("worker", 12, "imports", 101.2, 102.1, 0.7),
        line("supervisor", 11, "verifying", 100.6, 101.1, 0.6),
        line("worker", 12, "ready", 101.2, 102.5, 1.5),
        line("command", 10, "ready", 100.0, 102.51, 0.5),
    ]
    assert stages(lines) == [
        Stage("command", 10, "imports", 0.0, 0.5, 0.4),
        Stage("command", 10, "ready", 0.5, 2.51, 0.1),
        Stage("supervisor", 11, "imports", 0.6, 1.0, 0.3),
        Stage("supervisor", 11, "verifying", 1.0, 1.1, 0.3),
        Stage("worker", 12, "imports", 1.2, 2.1, 0.7),
        Stage("worker", 12, "ready", 2.1, 2.5, 0.8),
        Stage("worker", 13, "imports", 1.25, 2.0, 0.7),
    ]


def test_a_process_knows_when_it_was_made() -> None:
    before = time.monotonic()
    code = "from clip_retrieval.serving.start_profile import born; print(born())"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert before - 0.02 <= float(said) <= time.monotonic()


def test_where_the_kernel_does_not_say_it_a_process_is_as_old_as_its_processor_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(start_profile, "STAT", tmp_path / "none")
    assert time.monotonic() - born() == pytest.approx(time.process_time(), abs=0.05)


def test_stages_are_noted_where_the_environment_names_a_file_and_while_it_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "profile"
    monkeypatch.delenv(start_profile.VARIABLE, raising=False)
    mark("worker", "nobody asked")
    monkeypatch.setenv(start_profile.VARIABLE, str(file))
    mark("worker", "the command has ended its profile")
    assert not file.exists()
    file.touch()
    mark("worker", "asked")
    write(file, "command", "named")
    found = stages(file.read_text().splitlines())
    assert [(stage.process, stage.pid, stage.stage) for stage in found] == [
        ("command", os.getpid(), "named"),
        ("worker", os.getpid(), "asked"),
    ]
