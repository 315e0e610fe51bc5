"""Where the images stand that people opened: by id or by pixels, the best of several, and only what is still there."""

import numpy as np

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.evaluation.clicked import clicked
from clip_retrieval.evaluation.embedded_dataset import of_artifact
from clip_retrieval.query_log.entry import LoggedClick, LoggedSearch, now


def search(name: str) -> LoggedSearch:
    return LoggedSearch(search_id=name, at=now(), target="images", inputs="texts")


def click(name: str, image_id: str | None = None, content_hash: str | None = None) -> LoggedClick:
    return LoggedClick(search_id=name, at=now(), image_id=image_id, content_hash=content_hash)


def test_the_ranks_of_what_was_opened_are_those_of_exact_search(fake_artifact: Artifact) -> None:
    data = of_artifact("squares", fake_artifact)
    vectors = np.asarray(data.caption_vectors[:4])
    order = np.argsort(-(vectors @ data.image_vectors.T), axis=1, kind="stable")
    first, second, third = (data.images[int(order[row, rank])] for row, rank in ((0, 0), (1, 6), (2, 23)))
    scores = vectors @ data.image_vectors.T
    ranks = [int((scores[row] > scores[row, image.row]).sum()) + 1 for row, image in enumerate((first, second, third))]
    clicks = {
        "a": [click("a", image_id=first.image_id)],
        "b": [click("b", content_hash=second.content_hash), click("b", image_id="gone")],
        "c": [click("c", image_id=third.image_id)],
        "d": [click("d", image_id="gone")],
    }
    found = clicked(data, [search(name) for name in "abcd"], vectors, clicks)
    assert found is not None
    assert found.searches == 3
    assert found.recall == {f"recall_at_{k}": sum(rank <= k for rank in ranks) / 3 for k in (1, 5, 10)}
    assert found.mean_reciprocal_rank == sum(1 / rank for rank in ranks) / 3
    best = {"a": [*clicks["c"], *clicks["a"]]}
    both = clicked(data, [search("a")], vectors[:1], best)
    assert both is not None
    assert both.mean_reciprocal_rank == 1
    assert clicked(data, [search("d")], vectors[3:], clicks) is None
