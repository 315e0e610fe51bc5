"""scripts/chaos.py: what counts as held, failed and not judged, and how its figures are made."""

from collections import Counter

import pytest

from scripts.stress.outcome import SHORT, WHOLE, Outcome
from scripts.stress.soak import slope_of
from scripts.stress.traffic import Counts


def test_a_trial_without_faults_has_held() -> None:
    assert Outcome("a").to_json() == {"trial": "a", "verdict": "held"}


def test_a_fault_is_in_the_verdict_and_in_the_json() -> None:
    outcome = Outcome("a", {"kills": 2}, ["a worker was not replaced"], unjudged="the slope")
    assert outcome.to_json() == {
        "trial": "a", "verdict": "failed", "kills": 2, "faults": ["a worker was not replaced"],
    }  # fmt: skip


def test_what_the_short_form_does_not_judge_is_said() -> None:
    assert Outcome("a", unjudged=SHORT.unjudged("the slope")).verdict == "held, the slope not judged"
    assert Outcome("a", unjudged=WHOLE.unjudged("the slope")).verdict == "held"


def test_refusals_for_overload_are_no_failures_and_no_answers() -> None:
    counts = Counts(Counter({"200": 10, "503": 5, "500": 2, "504": 1, "429": 3, "broken": 4}), 2.0)
    assert (counts.answers_per_s, counts.failed) == (5.0, 3)


def test_the_slope_is_that_of_the_second_half() -> None:
    assert slope_of([0, 1, 2, 3], [100, 500, 10, 12]) == 2.0
    with pytest.raises(ValueError, match="at least four"):
        slope_of([0, 1], [1, 2])
