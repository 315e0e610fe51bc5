"""Judges what a service says after it was killed, and what it answers while one artifact takes over from another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

SCORE_TOLERANCE = 0.002
"""A text that is encoded in other batches has another last digit, so two answers of one version may differ a little."""

Verdict = Literal["kept", "lost", "half"]
Result = tuple[str, float]
"""The id and the score of an image that was found."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a change gives an image; ``number`` is a field of its metadata.

    No two changes of a run have the same captions or number, nor the same pixels if they bring any.
    """

    captions: tuple[str, ...]
    number: int
    content_hash: str


@dataclass(slots=True)
class History:
    """What one writer did to one image: the states that were acknowledged, in order, and one that may not have been.

    None is the state of an image that is not there.
    """

    acknowledged: list[Content | None] = field(default_factory=lambda: [None])
    pending: list[Content | None] = field(default_factory=list)

    def verdict(self, found: Content | None) -> Verdict:
        """``kept``: the last acknowledged state or a pending one. ``lost``: an earlier one. ``half``: none of them."""
        if found in (self.acknowledged[-1], *self.pending):
            return "kept"
        return "lost" if found in self.acknowledged else "half"

    def settle(self, found: Content | None) -> None:
        """Go on from what was found."""
        if found != self.acknowledged[-1]:
            self.acknowledged.append(found)
        self.pending.clear()


def results_of(answer: Mapping[str, Any]) -> list[Result]:
    """The ids and scores of an answer to a search for images."""
    return [(result["image_id"], result["similarity_score"]) for result in answer["results"]]


def is_whole(answer: Sequence[Result], at_rest: Sequence[Result], k: int) -> bool:
    """Whether ``answer`` is the first ``k`` of the results that the same version gave ``at_rest``.

    ``at_rest`` has more than ``k``, as images of nearly equal scores may change places.
    """
    scores = dict(at_rest)
    if len(answer) != min(k, len(at_rest)) or len({image_id for image_id, _ in answer}) != len(answer):
        return False
    return all(
        image_id in scores
        and abs(score - scores[image_id]) <= SCORE_TOLERANCE
        and abs(score - expected) <= SCORE_TOLERANCE
        for (image_id, score), (_, expected) in zip(answer, at_rest, strict=False)
    )


def base_version(version: str) -> str:
    """The version of the artifact of a state: a state with changes is called ``version+sequence``."""
    return version.partition("+")[0]
