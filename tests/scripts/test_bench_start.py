"""What the benchmark of starts makes of its runs."""

from pathlib import Path
from typing import Any

from scripts.bench_start import drop_files, result


def run(first_answer_s: float, seconds: float) -> dict[str, Any]:
    stages = [
        {"process": "command", "stage": "imports", "from_s": 0.0, "seconds": 0.5, "processor_s": 0.25},
        {"process": "worker", "stage": "imports", "from_s": 1.0, "seconds": seconds, "processor_s": 0.75},
    ]
    return {"ready_s": first_answer_s - 0.1, "first_answer_s": first_answer_s, "stages": stages}


def test_the_medians_of_runs_that_took_turns_are_compared() -> None:
    imports = [{"import_bentoml_s": s, "import_service_parts_s": 2 * s} for s in (0.5, 9.0, 0.4)]
    runs = {"imports": imports, "demo": [run(2.0, 1.0), run(3.0, 2.0), run(1.5, 0.5)], "other": [run(4.0, 1.0)] * 3}
    found = result(runs)
    assert (found["collection"], found["import_bentoml_s"], found["import_service_parts_s"]) == ("demo", 0.5, 1.0)
    assert (found["ready_s"], found["first_answer_s"], found["ratio"], found["ratio_parts"]) == (1.9, 2.0, 4.0, 2.0)
    assert found["processor_s"] == 1.0
    assert found["stages"]["worker: imports"] == {"from_s": 1.0, "seconds": 1.0, "processor_s": 0.75}
    assert found["other"]["first_answer_s"] == 4.0


def test_dropping_pages_leaves_the_files_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"content")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    drop_files([tmp_path])
    assert (tmp_path / "folder" / "file").read_bytes() == b"content"
