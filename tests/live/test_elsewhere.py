"""A live collection whose base is searched by an engine elsewhere: what it is asked, and that it is watched."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.errors import IndexAway
from clip_retrieval.live.change import LogEntry
from clip_retrieval.live.live_collection import LiveCollection
from clip_retrieval.records import Scalar
from clip_retrieval.search.collection import Collection
from clip_retrieval.search.filters import Wanted
from tests.indexes.fake_engine import Asked, FakeEngine
from tests.live.bases import ArtifactElsewhere, live_image, units, write_base

IMAGES = 300
EVEN: Wanted = {"year": 0.0}


@pytest.fixture
def base(tmp_path: Path) -> ArtifactElsewhere:
    images = [live_image(f"base-{n}", n, metadata={"year": n % 2}) for n in range(IMAGES)]
    written = write_base(tmp_path / "base", images)
    return ArtifactElsewhere(written.path, written.manifest)


@pytest.fixture
def live(base: ArtifactElsewhere) -> Iterator[LiveCollection]:
    with closing(Collection(base)) as collection:
        yield LiveCollection.of(collection)


def engine_of(live: LiveCollection) -> FakeEngine:
    assert isinstance(live.artifact, ArtifactElsewhere)
    return live.artifact.engines["images"]


def added(live: LiveCollection, **metadata: Scalar) -> LiveCollection:
    return live.with_changes([LogEntry(live.sequence + 1, "new", live_image("new", 5000, metadata=metadata))])


def removed(live: LiveCollection, count: int) -> LiveCollection:
    return live.with_changes([LogEntry(live.sequence + 1 + n, f"base-{2 * n}", None) for n in range(count)])


def search(live: LiveCollection, where: Wanted | None, k: int = 5) -> tuple[list[str], list[Asked]]:
    """The ids that are found, and what the engine was asked."""
    engine = engine_of(live)
    engine.asked.clear()
    index, allowed = live.searched("images", where)
    rows = index.search(units(1, 7), k, allowed=allowed).rows[0].tolist()
    return [image.image_id for image, _ in live.images(rows)], engine.asked


def test_conditions_on_fields_of_the_base_reach_the_engine_and_added_rows_are_searched_here(
    live: LiveCollection,
) -> None:
    engine_of(live).passes = np.arange(IMAGES) % 2 == 0
    before, asked = search(live, EVEN)
    [(limit, _, expression)] = asked
    assert limit == 64
    assert "column_" in expression
    changed = added(live, year=0, only_here="a")
    assert search(changed, EVEN) == (before, asked)
    both = {**EVEN, "only_here": None}
    assert search(changed, both) == (before, asked)
    index, allowed = changed.searched("images", EVEN)
    assert index.search(units(1, 5000), 1, allowed=allowed).rows.tolist() == [[IMAGES]]


def test_rows_that_were_removed_since_are_made_up_for_by_asking_for_more(live: LiveCollection) -> None:
    engine_of(live).passes = np.arange(IMAGES) % 2 == 0
    changed = removed(live, 30)
    found, [asked] = search(changed, EVEN)
    assert asked.limit == 100  # 64 rows · 150 / 120 rows that are left · 1.25
    index, allowed = changed.searched("images", EVEN)
    exact = index.exact_search(units(1, 7), 5, allowed=allowed).rows[0].tolist()
    assert found == [image.image_id for image, _ in changed.images(exact)]


def test_a_search_says_that_the_engine_is_away_and_what_was_added_alone_is_no_answer(live: LiveCollection) -> None:
    changed = added(live)
    engine_of(changed).trouble = "Milvus does not answer"
    with pytest.raises(IndexAway, match="Milvus does not answer"):
        search(changed, None)
    assert changed.get("new") is not None
    assert changed.engine is not None
    assert changed.engine.trouble == "Milvus does not answer"


def test_the_engine_that_is_watched_is_that_of_the_base(live: LiveCollection) -> None:
    changed = removed(added(live), 3)
    assert changed.engine is live.engine
    assert changed.engine is live.base.engine is not None
    assert changed.index("images").spec.is_elsewhere
