"""Whether a service answers as the in-process retriever does: the same results in the same order.

The encoder's last bits depend on the batch that a query is in, so two results that are all but equal may change
places. That is measured and not assumed: where the scores of an answer differ from the retriever's by at most ``d``,
only results within ``2 d`` of each other can have changed places, and only those may.
"""

from collections.abc import Sequence
from dataclasses import dataclass

TOLERANCE = 1e-3

Scored = tuple[str, float]
"""The id of a result and its score."""


@dataclass(frozen=True)
class Comparison:
    """``problem`` is empty if the answers agree; ``swapped`` counts the places with another result of like score."""

    difference: float
    swapped: int
    problem: str = ""


def compare(served: Sequence[Scored], expected: Sequence[Scored], tolerance: float = TOLERANCE) -> Comparison:
    """Compare an answer, best first, with a longer list of the retriever's for the same query."""
    scores = dict(expected)
    if missing := [name for name, _ in served if name not in scores]:
        return Comparison(0, 0, f"{missing[0]} is not among the retriever's best {len(expected)}")
    if not served or len({name for name, _ in served}) != len(served):
        return Comparison(0, 0, "the answer is empty or repeats a result")
    difference = max(abs(score - scores[name]) for name, score in served)
    if difference > tolerance:
        return Comparison(difference, 0, f"a score differs by {difference:.2g}, more than {tolerance:g}")
    swapped = 0
    for (name, _), (at_its_place, score) in zip(served, expected, strict=False):
        if name != at_its_place:
            swapped += 1
            if abs(scores[name] - score) > 2 * difference:
                return Comparison(difference, swapped, f"{name} is at the place of {at_its_place}")
    return Comparison(difference, swapped)
