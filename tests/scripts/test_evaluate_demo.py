"""scripts/evaluate_demo.py: galleries of drawings in which every name is one drawing's, and the figures of a report."""

from pathlib import Path

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.check import check
from clip_retrieval.evaluation.embedded_dataset import of_artifact
from clip_retrieval.evaluation.evaluate import evaluate
from clip_retrieval.images.decode import DEFAULT_LIMITS
from clip_retrieval.progress import Silent
from scripts.demo_head.materials import Drawing
from scripts.evaluate_demo import figures, write_gallery
from tests.samples import NAMES, write_images


def test_a_gallery_has_one_drawing_a_name_and_is_all_test(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "drawings", NAMES)
    drawings = [Drawing(folder / name, name.split("-")[0]) for name in NAMES]  # three drawings a name
    report = check(write_gallery(drawings, tmp_path / "all.jsonl", 99, seed=0), DEFAULT_LIMITS, Silent())
    assert sorted(image.captions[0].text for image in report.kept) == sorted({drawing.name for drawing in drawings})
    assert {image.split for image in report.kept} == {"test"}
    assert {image.blob.name.rsplit("/")[-1] for image in report.kept} == set(NAMES[::3]), "the first of each name"


def test_a_gallery_is_drawn_by_its_seed(tmp_path: Path) -> None:
    drawings = [Drawing(Path(f"/{n}.png"), str(n)) for n in range(30)]
    one, same, other = (
        write_gallery(drawings, tmp_path / f"{n}.jsonl", 10, seed).read_text() for n, seed in enumerate((1, 1, 2))
    )
    assert one == same != other
    assert one.count("\n") == 10


def test_figures_are_those_of_the_report_with_their_intervals(fake_artifact: Artifact) -> None:
    quality = evaluate(of_artifact("squares", fake_artifact), "test", Silent(), resamples=20)
    (gallery,) = quality.galleries
    found = figures(quality)
    low, high = gallery.text_to_image.intervals["recall_at_1"].low, gallery.text_to_image.intervals["recall_at_1"].high
    assert found["text → image"]["recall_at_1"] == [
        round(value, 3) for value in (gallery.text_to_image.metrics.recall_at_1, low, high)
    ]
    assert found["images"] == gallery.images
