"""scripts/bench_live.py: what counts as lost, half and wrong, and the recall of a live state."""

from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.live.log import LOG_FILE, ChangeLog
from scripts.bench.live_images import NewImages, hash_of
from scripts.bench.live_place import folder_mb, percentile
from scripts.bench.live_prefill import fill_log, nearest, recall_at_10, share_found
from scripts.bench.live_verdicts import SCORE_TOLERANCE, Content, History, base_version, is_whole, results_of

FIRST, SECOND, THIRD = (Content((f"caption {n}",), n, f"{n:064x}") for n in range(3))
AT_REST = [("a", 0.9), ("b", 0.8), ("c", 0.79999), ("d", 0.5)]


class TestAfterAKill:
    def history(self) -> History:
        return History([None, FIRST, SECOND], [THIRD])

    @pytest.mark.parametrize("found", [SECOND, THIRD], ids=["acknowledged", "pending"])
    def test_the_last_acknowledged_change_and_the_pending_one_are_kept(self, found: Content) -> None:
        assert self.history().verdict(found) == "kept"

    @pytest.mark.parametrize("found", [FIRST, None], ids=["earlier state", "no image"])
    def test_an_earlier_state_is_a_lost_change(self, found: Content | None) -> None:
        assert self.history().verdict(found) == "lost"

    def test_an_image_that_was_removed_and_is_back_is_a_lost_change(self) -> None:
        assert History([None, FIRST, None]).verdict(FIRST) == "lost"

    def test_a_mixture_of_two_states_is_half(self) -> None:
        assert self.history().verdict(Content(THIRD.captions, SECOND.number, SECOND.content_hash)) == "half"

    def test_the_history_goes_on_from_what_was_found(self) -> None:
        history = self.history()
        history.settle(THIRD)
        assert history.verdict(THIRD) == "kept"
        assert history.verdict(SECOND) == "lost", "it was seen, so it may not go away"


class TestDuringASwap:
    def test_an_answer_is_whole_if_it_is_the_beginning_of_the_answer_at_rest(self) -> None:
        assert is_whole(AT_REST[:2], AT_REST, 2)

    def test_images_of_nearly_equal_scores_may_change_places(self) -> None:
        assert is_whole([AT_REST[0], AT_REST[2]], AT_REST, 2)

    @pytest.mark.parametrize(
        "answer",
        [
            [("a", 0.9)],
            [("a", 0.9), ("d", 0.5)],
            [("a", 0.9), ("x", 0.8)],
            [("a", 0.9), ("b", 0.8 + 2 * SCORE_TOLERANCE)],
            [("b", 0.8), ("b", 0.8)],
        ],
        ids=["too few", "one left out", "of another version", "another score", "twice the same"],
    )
    def test_any_other_answer_is_wrong(self, answer: list[tuple[str, float]]) -> None:
        assert not is_whole(answer, AT_REST, 2)

    def test_the_version_of_an_artifact_is_that_of_all_its_states(self) -> None:
        assert base_version("4e1f+12") == base_version("4e1f") == "4e1f"

    def test_the_results_of_an_answer_are_ids_and_scores(self) -> None:
        assert results_of({"results": [{"image_id": "a", "similarity_score": 0.9, "rank": 1}]}) == [("a", 0.9)]


class TestTheLogAtTheStart:
    def test_it_has_as_many_added_and_removed_images_as_asked_for(
        self, fake_artifact: Artifact, tmp_path: Path
    ) -> None:
        fill_log(tmp_path, fake_artifact, 3, 2)
        encoder = fake_artifact.manifest.encoder
        log = ChangeLog.open(tmp_path / LOG_FILE, fingerprint=encoder.fingerprint, dim=encoder.dim)
        entries = log.after(0)
        log.close()
        assert [entry.image_id for entry in entries if entry.image] == ["added-0", "added-1", "added-2"]
        assert sum(entry.image is None for entry in entries) == 2
        assert recall_at_10(tmp_path, fake_artifact) == 1, "a small collection is searched exactly"

    def test_more_cannot_be_removed_than_there_is(self, fake_artifact: Artifact, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="removed is 1000"):
            fill_log(tmp_path, fake_artifact, 0, 1000)

    def test_recall_is_the_mean_share_of_the_nearest_rows_that_were_found(self) -> None:
        vectors = np.eye(4, dtype=np.float32)
        queries = np.array([[0.9, 0.4, 0, 0], [0, 0, 0.4, 0.9]], np.float32)
        exact = nearest(queries, vectors, np.array([10, 11, 12, 13]), 2)
        assert exact == [{10, 11}, {12, 13}]
        assert share_found(np.array([[10, 11], [13, 11]]), exact) == 0.75


def test_images_of_different_numbers_have_different_pixels() -> None:
    images = NewImages()
    count = 160
    assert len({hash_of(images.jpeg(number)) for number in (0, count, 256 * count, 2**31 - 2**31 % count)}) == 4


def test_percentiles_need_a_measurement() -> None:
    assert percentile([1, 2, 3], 50) == 2
    with pytest.raises(ValueError, match="nothing was measured"):
        percentile([], 99)


def test_the_size_of_a_folder_is_that_of_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(bytes(2_000_000))
    (tmp_path / "file").write_bytes(bytes(500_000))
    assert folder_mb(tmp_path) == 2.5
