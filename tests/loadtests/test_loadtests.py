"""The load test's own arithmetic: plans, queries, samples, steps, thresholds and the report. No service is loaded."""

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clip_retrieval.contract.base import MAX_TEXT
from loadtests import plan, queries, report, thresholds
from loadtests.bad_input import MALFORMED, too_large
from loadtests.plan import Step, Window
from loadtests.queries import Mix
from loadtests.samples import SAMPLES_FILE, STAGES, Kind, Outcome, Timing, outcome_of, pack, parse_server_timing
from loadtests.summary import (
    ROW,
    Machine,
    Measures,
    Percentiles,
    Result,
    StepResult,
    kinds_of,
    percentiles,
    read_samples,
    summarise,
)
from loadtests.swapping import Swaps
from loadtests.thresholds import Limit, Thresholds, evaluate

TOKENS = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789!#$%&'*+-.^_`|~", min_size=1, max_size=12)
DURATIONS = st.floats(0, 1e6, allow_nan=False).map(lambda value: round(value, 3))


# Plans


def test_a_step_plan_warms_up_rises_and_comes_back_to_a_former_step() -> None:
    steps = plan.step_plan([1, 4, 16, 64], 5)
    assert [step.phase for step in steps] == ["warm-up", "up", "up", "up", "up", "recovery"]
    assert [step.users for step in steps] == [4, 1, 4, 16, 64, 1]
    assert plan.step_plan([1, 4, 16, 64], 5, recovery_users=4)[-1].users == 4
    assert plan.step_plan(plan.FULL_STEPS, 20)[-1].users == 16


@pytest.mark.parametrize(
    ("users", "seconds", "recovery"),
    [([], 5, None), ([0, 1], 5, None), ([4, 2], 5, None), ([1, 2], 0.5, None), ([1, 2], 5, 3)],
)
def test_a_plan_without_rising_users_a_step_to_recover_to_or_time_is_refused(
    users: list[int], seconds: float, recovery: int | None
) -> None:
    with pytest.raises(ValueError, match=r"users|second"):
        plan.step_plan(users, seconds, recovery)


def test_a_soak_has_windows_of_equal_length_and_at_least_two() -> None:
    assert [step.seconds for step in plan.soak_plan(8, 5)[1:]] == [60.0] * 5
    assert len(plan.soak_plan(8, 1)) == 3


@given(st.floats(0, 30))
def test_the_current_step_follows_from_the_elapsed_seconds(elapsed: float) -> None:
    steps = plan.step_plan([1, 2, 4], 5)
    expected = int(elapsed // 5)
    assert plan.at(steps, elapsed) == (expected if expected < len(steps) else None)


def test_a_plan_and_its_windows_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    steps = plan.step_plan([1, 2], 3)
    assert plan.from_json(plan.to_json(steps)) == steps
    assert plan.read_windows(tmp_path) == {}
    window = Window(1, 10.0, 11.0, 13.0, users_seen=2)
    plan.note_window(tmp_path, window)
    assert plan.read_windows(tmp_path) == {1: window}


# Queries


def texts(seed: str, repeats: float, count: int = 2000) -> list[str]:
    mix = Mix(queries.captions(), queries.new_text, repeats=repeats, seed=seed)
    return [mix.next() for _ in range(count)]


def test_a_mix_is_determined_by_its_seed() -> None:
    assert texts("a", 0.5) == texts("a", 0.5)
    assert texts("a", 0.5) != texts("b", 0.5)


def test_the_share_of_repeated_queries_is_the_one_given() -> None:
    pool = set(queries.captions())
    assert all(text in pool for text in texts("a", 1))
    assert not any(text in pool for text in texts("a", 0))
    assert sum(text in pool for text in texts("a", 0.3)) == pytest.approx(600, abs=80)


def test_repeated_queries_follow_zipf() -> None:
    pool = queries.captions()
    drawn = texts("a", 1, 20_000)
    harmonic = sum(1 / rank for rank in range(1, len(pool) + 1))
    for rank in (1, 2, 4):
        assert drawn.count(pool[rank - 1]) / len(drawn) == pytest.approx(1 / rank / harmonic, rel=0.1)


def test_new_texts_differ_from_each_other_are_within_the_service_s_bounds_and_as_long_as_captions() -> None:
    made = texts("a", 0)
    assert len(set(made)) > 0.99 * len(made)
    assert all(0 < len(text) <= MAX_TEXT for text in made)
    usual = np.median([len(text.split()) for text in queries.captions()])
    assert np.median([len(text.split()) for text in made]) == pytest.approx(usual, abs=2)


def test_a_new_image_has_other_bytes_and_the_same_pixels() -> None:
    pool = queries.images()
    mix = Mix(pool, queries.new_image, repeats=0, seed="a")
    originals = dict(pool)
    made = [mix.next() for _ in range(5)]
    assert len({data for _, data in made} | set(originals.values())) == 5 + len(pool)
    for name, data in made:
        before, after = (np.asarray(Image.open(BytesIO(file))) for file in (originals[name], data))
        np.testing.assert_array_equal(before, after)


def test_a_share_outside_of_zero_to_one_is_refused() -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        Mix(queries.captions(), queries.new_text, repeats=1.5, seed="a")


def test_each_bad_input_expects_a_4xx_and_has_a_row_of_its_own() -> None:
    assert all(400 <= bad.expected < 500 for bad in MALFORMED)
    assert len({(bad.path, bad.name) for bad in MALFORMED}) == len(MALFORMED)
    assert len(too_large().body or b"") > 10 * 2**20 + 64 * 1024


# Server-Timing, outcomes, samples


@given(
    st.dictionaries(TOKENS, st.tuples(DURATIONS, st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]))))
)
def test_what_a_server_timing_header_says_is_read(metrics: dict[str, tuple[float, str]]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(f"{name};dur={dur} ; desc={quoted(desc)}" for name, (dur, desc) in metrics.items())
    assert parse_server_timing(header) == Timing(
        {name: dur for name, (dur, _) in metrics.items()}, {name: desc for name, (_, desc) in metrics.items()}
    )


@given(st.text())
def test_any_header_is_read_without_an_error_into_finite_durations(header: str) -> None:
    timing = parse_server_timing(header)
    assert all(math.isfinite(value) and value >= 0 for value in timing.durations.values())


def test_the_service_s_own_headers_are_read() -> None:
    fresh = parse_server_timing("decode;dur=0.000, encode;dur=18.204, search;dur=0.437, total;dur=21.001")
    assert not fresh.cached
    assert [fresh.stage(name) for name in STAGES[1:]] == [18.204, 0.437, 21.001]
    assert math.isnan(fresh.stage("decode")), "a stage that took nothing did not happen"
    assert parse_server_timing("total;dur=0.195, cache;desc=hit").cached
    assert parse_server_timing("search;dur=abc, search;dur=2").durations == {"search": 2.0}
    assert parse_server_timing("search;dur=1;dur=2, search;dur=3").durations == {"search": 1.0}
    assert parse_server_timing("") == Timing()


@pytest.mark.parametrize(
    ("status", "retry_after", "cached", "expected", "outcome"),
    [
        (200, False, False, 200, Outcome.answered),
        (200, False, True, 200, Outcome.cached),
        (503, True, False, 200, Outcome.rejected),
        (429, True, False, 422, Outcome.rejected),
        (503, False, False, 200, Outcome.failed),
        (504, True, False, 200, Outcome.failed),
        (0, False, False, 200, Outcome.failed),
        (422, False, False, 422, Outcome.refused),
        (400, False, False, 422, Outcome.failed),
        (200, False, False, 422, Outcome.failed),
    ],
)
def test_the_outcome_follows_from_the_status_and_the_headers(
    status: int, retry_after: bool, cached: bool, expected: int, outcome: Outcome
) -> None:
    assert outcome_of(status, retry_after=retry_after, cached=cached, expected=expected) is outcome


def test_samples_keep_microseconds_and_only_fresh_answers_have_stages(tmp_path: Path) -> None:
    timing = parse_server_timing("encode;dur=18.204, search;dur=0.437, total;dur=21.001")
    rows = [pack(1.5, Kind.search_images, outcome, 25.25, timing) for outcome in Outcome]
    (tmp_path / SAMPLES_FILE).write_bytes(b"".join(rows) + rows[0][:7])
    samples = read_samples(tmp_path)
    assert samples["outcome"].tolist() == list(Outcome)
    assert samples["search"][0] == pytest.approx(0.437, abs=1e-6)
    assert np.isnan(samples["search"][1:]).all()
    assert read_samples(tmp_path / "nowhere").size == 0


# Steps


@given(st.lists(st.floats(0, 1e5, allow_nan=False, width=32), min_size=1, max_size=300))
def test_percentiles_are_those_of_numpy_and_times_of_real_requests(values: list[float]) -> None:
    found = percentiles(np.array([*values, math.nan], np.float32))
    assert found is not None
    assert found.count == len(values)
    ordered = sorted(values)
    for share, value in ((50, found.p50), (95, found.p95), (99, found.p99), (100, found.max)):
        rank = ordered[max(0, -(-share * len(ordered) // 100) - 1)]
        assert value == pytest.approx(rank, abs=1e-4)
        assert np.percentile(values, share, method="lower") - 1e-4 <= value
        assert value <= np.percentile(values, share, method="higher") + 1e-4


def test_without_samples_there_are_no_percentiles() -> None:
    assert percentiles(np.array([], np.float32)) is None
    assert percentiles(np.array([math.nan], np.float32)) is None


def samples_of(*rows: tuple[float, Kind, Outcome, float, str]) -> "np.ndarray[tuple[int], np.dtype[np.void]]":
    packed = [pack(at, kind, outcome, ms, parse_server_timing(header)) for at, kind, outcome, ms, header in rows]
    return np.frombuffer(b"".join(packed), ROW)


def test_a_request_belongs_to_the_step_in_which_it_ended() -> None:
    steps = [Step("warm-up", 1, 4), Step("up", 1, 4), Step("up", 2, 4)]
    windows = {0: Window(0, 0, 1, 4, 1), 1: Window(1, 4, 5, 8, 1)}
    timing = "encode;dur=10, search;dur=0.5, total;dur=11"
    warm_up, first, *rest = summarise(
        steps,
        windows,
        samples_of(
            (3.9, Kind.search_images, Outcome.answered, 99.0, timing),  # the warm-up's
            (4.5, Kind.search_images, Outcome.answered, 99.0, timing),  # while the step settles
            (4.6, Kind.search_images, Outcome.failed, 1.0, ""),
            (4.7, Kind.search_images, Outcome.rejected, 1.0, ""),
            (5.0, Kind.search_images, Outcome.answered, 12.0, timing),
            (6.0, Kind.encode_text, Outcome.answered, 14.0, "encode;dur=13, total;dur=13.5"),
            (7.0, Kind.search_text, Outcome.cached, 0.5, "total;dur=0.1, cache;desc=hit"),
            (7.5, Kind.bad, Outcome.refused, 0.5, ""),
            (8.0, Kind.search_images, Outcome.answered, 99.0, timing),  # after it
        ),
    )
    assert warm_up.answered == 1
    assert rest == [], "a step that was not carried out has no result"
    assert (first.answered, first.cached, first.refused, first.rejected, first.failed) == (2, 1, 1, 1, 1)
    assert first.throughput_rps == 1.0
    assert first.measures["response"].max == 14.0
    assert first.measures["search"] == Percentiles(count=1, p50=0.5, p95=0.5, p99=0.5, max=0.5)
    assert "decode" not in first.measures
    assert set(first.kinds) == {"search_images", "encode_text"}


def test_the_search_stage_of_composed_searches_is_a_measure_of_its_own() -> None:
    samples = samples_of(
        (2.0, Kind.search_images, Outcome.answered, 12.0, "search;dur=0.5, total;dur=11"),
        (2.1, Kind.search_similar, Outcome.answered, 12.0, "search;dur=0.25, total;dur=11"),
        (2.2, Kind.search, Outcome.answered, 12.0, "search;dur=3, total;dur=11"),
        (2.3, Kind.search, Outcome.cached, 0.5, "total;dur=0.1, cache;desc=hit"),
    )
    [found] = summarise([Step("up", 1, 4)], {0: Window(0, 0, 1, 4, 1)}, samples)
    assert found.measures["search"] == Percentiles(count=2, p50=0.25, p95=0.5, p99=0.5, max=0.5)
    assert found.measures["composed_search"] == Percentiles(count=1, p50=3, p95=3, p99=3, max=3)
    assert found.measures["total"].count == 3
    assert "composed_search" not in found.kinds["search_images"]
    assert "search" not in found.kinds["search"]


def test_the_kinds_that_were_asked_count_however_they_ended() -> None:
    samples = samples_of(
        (2.0, Kind.search, Outcome.rejected, 1.0, ""),
        (2.1, Kind.bad, Outcome.refused, 1.0, ""),
        (2.2, Kind.search_images, Outcome.cached, 1.0, ""),
    )
    assert kinds_of(samples) == ["search_images", "bad", "search"]
    assert kinds_of(samples[:0]) == []


# Thresholds


def one(value: float) -> Percentiles:
    return Percentiles(count=9, p50=value, p95=value, p99=value, max=value)


def step(
    index: int,
    phase: plan.Phase,
    users: int,
    rps: float,
    *,
    search: float = 0.4,
    composed: float = 0.5,
    total: float = 10.0,
) -> StepResult:
    searches: Measures = {"search": one(search), "composed_search": one(composed)}
    measures: Measures = {**searches, "total": one(total), "response": one(total + 1), "encode": one(5)}
    return StepResult(
        index=index,
        phase=phase,
        users=users,
        users_seen=users,
        seconds=5.0,
        answered=round(rps * 4),
        cached=round(rps),
        refused=1,
        rejected=0,
        failed=0,
        throughput_rps=rps,
        measures=measures,
        kinds={},
    )


def result(steps: Sequence[StepResult], planned: Sequence[tuple[plan.Phase, int]] | None = None) -> Result:
    return Result(
        machine=Machine(cpu="Some CPU", cores=2),
        commit="abc1234",
        service=None,
        options={},
        generator_cores=0.3,
        asked=[kind.name for kind in Kind],
        planned=[("warm-up", 4), *(planned or [(s.phase, s.users) for s in steps])],
        steps=[step(0, "warm-up", 4, 100, search=9), *steps],
        violations=[],
    )


GOOD = (
    step(1, "up", 1, 50),
    step(2, "up", 8, 200, total=40),
    step(3, "up", 64, 190, search=1.4, total=300),
    step(4, "recovery", 8, 200, total=44),
)
SEARCH = Limit(measure="search", percentile=99, steps="to saturation", max_ms=1)
COMPOSED = Limit(measure="composed_search", percentile=99, steps="to saturation", max_ms=1)
BY_USERS = Limit(measure="total", percentile=95, steps="all", max_ms_by_users={1: 20, 64: 400})


def test_the_limit_on_search_ends_at_saturation() -> None:
    assert result(GOOD).saturation == GOOD[1]
    assert evaluate(result(GOOD), Thresholds(limits=[SEARCH, BY_USERS], recovery_factor=1.5)) == []


@pytest.mark.parametrize(
    ("changed", "thresholds", "violation"),
    [
        (step(2, "up", 8, 200, search=1.5), Thresholds(limits=[SEARCH]), "search p99 at 8 users: 1.500 ms, limit 1 ms"),
        (
            step(2, "up", 8, 200, composed=1.5),
            Thresholds(limits=[SEARCH, COMPOSED]),
            "composed_search p99 at 8 users: 1.500 ms, limit 1 ms",
        ),
        (step(1, "up", 1, 50, total=25), Thresholds(limits=[BY_USERS]), "total p95 at 1 users: 25.000 ms, limit 20 ms"),
        (
            step(4, "recovery", 8, 200, total=99),
            Thresholds(recovery_factor=1.5),
            "recovery at 8 users: response p95 100.0 ms, limit 1.5 × 41.0 ms",
        ),
        (
            step(2, "up", 8, 200).model_copy(update={"failed": 3}),
            Thresholds(),
            "failures at 8 users: 3, limit 0 (locust_failures.csv says which)",
        ),
        (
            step(2, "up", 8, 200).model_copy(update={"measures": {}}),
            Thresholds(limits=[SEARCH]),
            "search p99 at 8 users: no samples",
        ),
        (
            step(2, "up", 8, 0).model_copy(update={"measures": {}}),
            Thresholds(),
            "step at 8 users: no request was answered",
        ),
        (
            step(3, "up", 64, 190).model_copy(update={"users_seen": 40}),
            Thresholds(),
            "step at 64 users: only 40 of 64 users were running",
        ),
        (
            step(4, "recovery", 8, 200).model_copy(update={"measures": {}}),
            Thresholds(recovery_factor=1.5),
            "recovery: no samples to compare",
        ),
    ],
)
def test_a_violation_names_the_step_the_number_and_the_limit(
    changed: StepResult, thresholds: Thresholds, violation: str
) -> None:
    steps = [changed if changed.index == kept.index else kept for kept in GOOD]
    assert violation in evaluate(result(steps), thresholds)


def test_rejected_requests_are_no_failures() -> None:
    rejected = [kept.model_copy(update={"rejected": 50}) for kept in GOOD]
    assert evaluate(result(rejected), Thresholds(limits=[SEARCH])) == []


def test_a_limit_on_searches_that_no_user_asked_for_does_not_apply() -> None:
    fast = [kept.model_copy(update={"measures": {"search": one(0.4)}}) for kept in GOOD]
    limits = Thresholds(limits=[SEARCH, COMPOSED])
    short = result(fast).model_copy(update={"asked": ["search_images", "encode_text"]})
    assert evaluate(short, limits) == []
    assert evaluate(short.model_copy(update={"asked": ["search_images", "search"]}), limits) == [
        "composed_search p99 at 1 users: no samples",
        "composed_search p99 at 8 users: no samples",
    ]


def test_a_missing_step_is_a_violation() -> None:
    planned: list[tuple[plan.Phase, int]] = [(kept.phase, kept.users) for kept in GOOD]
    found = evaluate(result(GOOD[:-1], planned), Thresholds(recovery_factor=1.5))
    assert found == [
        "step at 8 (recovery) users: it was not carried out",
        "recovery: no samples to compare",
    ]
    assert evaluate(result([]).model_copy(update={"planned": []}), Thresholds()) == ["steps: the plan has none"]


def test_of_the_warm_up_only_failures_count() -> None:
    warm_up = step(0, "warm-up", 4, 900, search=9).model_copy(update={"failed": 1})
    kept = result(GOOD).model_copy(update={"steps": [warm_up, *GOOD]})
    assert kept.saturation == GOOD[1]
    assert evaluate(kept, Thresholds(limits=[SEARCH])) == [
        "failures at 4 (warm-up) users: 1, limit 0 (locust_failures.csv says which)"
    ]


def test_more_users_than_any_limit_lists_are_a_violation() -> None:
    limit = BY_USERS.model_copy(update={"max_ms_by_users": {1: 20.0, 8: 60.0}})
    found = evaluate(result(GOOD), Thresholds(limits=[limit]))
    assert found == ["total p95 at 64 users: max_ms_by_users ends at 8 users"]


def test_a_soak_is_judged_in_every_window_and_by_its_drift() -> None:
    windows = [step(1, "soak", 8, 100), step(2, "soak", 8, 100, search=1.2, total=80)]
    assert evaluate(result(windows), Thresholds(limits=[SEARCH], soak_factor=2)) == [
        "search p99 at 8 (soak) users: 1.200 ms, limit 1 ms",
        "soak at 8 users: response p95 81.0 ms, limit 2 × 11.0 ms",
    ]


def test_the_thresholds_of_the_project_hold_search_below_a_millisecond_at_every_step_of_the_plan() -> None:
    kept = thresholds.load(thresholds.DEFAULT)
    assert kept.max_failures == 0
    assert kept.recovery_factor is not None
    assert SEARCH in kept.limits
    assert COMPOSED in kept.limits
    total = next(limit for limit in kept.limits if limit.measure == "total")
    assert all(total.of(users) for users in (*plan.FULL_STEPS, *plan.SHORT_STEPS))


def test_a_misspelt_threshold_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "thresholds.toml"
    file.write_text("max_failure = 0\n")
    with pytest.raises(ValueError, match="max_failure"):
        thresholds.load(file)


# Report


@pytest.mark.parametrize(
    ("swaps", "said"),
    [
        (Swaps(wanted=3, made=3), []),
        (Swaps(wanted=3, made=2), ["swaps: 2 of 3 were made before the load ended; make it longer (--soak)"]),
        (Swaps(wanted=3, made=1, error="Conflict: too slow"), ["swaps: number 2 failed: Conflict: too slow"]),
    ],
)
def test_swaps_that_were_not_made_are_a_violation(swaps: Swaps, said: list[str]) -> None:
    assert evaluate(result(GOOD).model_copy(update={"swaps": swaps}), Thresholds()) == said


def test_the_line_has_the_machine_the_commit_saturation_and_every_step() -> None:
    kept = result(GOOD).model_copy(update={"violations": ["search p99 …"]})
    said = json.loads(report.line(kept))
    assert said["machine"] == {"cpu": "Some CPU", "cores": 2}
    assert said["commit"] == "abc1234"
    assert said["saturation_users"] == 8
    assert said["throughput_rps"] == 200
    assert said["search_p99_ms"] == 0.4, "up to saturation"
    assert said["composed_search_p99_ms"] == 0.5
    assert said["violations"] == ["search p99 …"]
    assert [row["search_p99_ms"] for row in said["steps"]] == [0.4, 0.4, 1.4, 0.4]
    assert [row["composed_search_p99_ms"] for row in said["steps"]] == [0.5] * 4


@pytest.mark.parametrize("steps", [GOOD, [step(1, "up", 1, 0).model_copy(update={"measures": {}})], []])
def test_a_result_read_from_its_file_is_plotted_and_tabled(steps: Sequence[StepResult], tmp_path: Path) -> None:
    source = tmp_path / "load.json"
    source.write_text(result(steps).model_dump_json())
    kept = Result.model_validate_json(source.read_text())
    assert kept == result(steps)
    report.plot(kept, tmp_path / report.PLOT_FILE)
    with Image.open(tmp_path / report.PLOT_FILE) as image:
        assert image.format == "PNG"
    assert report.table(kept).row_count == len(steps) + 1
    assert json.loads(report.line(kept))["failed"] == 0


# What loads what


@pytest.mark.slow
def test_the_load_generator_loads_nothing_heavy_and_the_report_no_locust() -> None:
    def loaded(code: str) -> set[str]:
        script = f"import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
        root = Path(__file__).parents[2]
        done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    assert not loaded("import loadtests.locustfile, loadtests.shapes") & {"numpy", "torch", "faiss", "bentoml", "PIL"}
    assert not loaded("import loadtests.run") & {"gevent", "locust", "torch", "faiss", "bentoml"}
