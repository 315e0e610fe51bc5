"""What the benchmark of the service reports beside what it measures."""

from typing import Any

import pytest

from scripts.bench.matrix_peak import matrix_peak_gflops
from scripts.bench_serving import compared, image_gflops


def test_the_operations_of_an_image_are_those_of_the_table_of_models() -> None:
    assert image_gflops("ViT-B-32 (random.pt)") == 8.8
    assert image_gflops("ViT-B-32") == 8.8
    assert image_gflops("a model of one's own (x.pt)") is None


def test_the_peak_of_matrix_products_is_that_of_the_best_of_several() -> None:
    peak = matrix_peak_gflops(1, 0.05)
    assert 1 < peak < 100_000, "a core does some billions a second"


def test_the_service_is_compared_with_its_encoder_and_that_with_the_peak() -> None:
    def run(per_s: float) -> list[dict[str, Any]]:
        found = {"requests": per_s, "seconds": 1.0, "failed": 0, "latencies_ms": [1.0], "search_ms": [0.1]}
        return [found | {"mean_batch": 8.0}]

    rounds: dict[str, list[dict[str, Any]]] = {
        **{f"{side} text 64": run(speed) for side, speed in (("auto", 90), ("reference", 10))},
        **{f"{side} image 16": run(speed) for side, speed in (("auto", 40), ("reference", 5))},
        **{f"{side} text 1": run(20) for side in ("auto", "reference")},
        "auto composed 64": run(50),
        "encoder alone auto": [{"text_per_s": 100.0, "image_per_s": 50.0, "matrix_peak_gflops": 880.0}],
    }
    facts = {side: [{"ready_s": 3.0, "rss_mb": 700.0, "anonymous_mb": 600.0}] for side in ("auto", "reference")}
    found = compared("auto", rounds, facts, "ViT-B-32 (random.pt)")
    assert found["served_to_encoder_ratio"] == pytest.approx(0.9)
    assert found["served_to_encoder_image_ratio"] == pytest.approx(0.8)
    assert found["image_of_peak_ratio"] == pytest.approx(50 * 8.8 / 880)
    assert compared("auto", rounds, facts, "another")["image_of_peak_ratio"] is None
