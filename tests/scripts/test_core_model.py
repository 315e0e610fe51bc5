"""The simulation of cores, held to what can be computed by hand."""

import pytest

from scripts.bench.core_model import Cores, Costs, Loop, Machine, simulate

ANSWERS = 4_000


def test_threads_that_outnumber_the_cores_share_them_equally() -> None:
    cores = Cores(2)
    ends: list[float] = []
    for work_ms in (1.0, 1.0, 2.0):
        cores.run(work_ms, lambda: ends.append(cores.now))
    for _ in range(3):
        cores.step()
    assert ends == pytest.approx([1.5, 1.5, 2.5]), "three at two thirds of a core, then one alone"
    assert cores.busy == pytest.approx(4.0), "the work that was done"


def test_an_event_loop_does_one_thing_at_a_time() -> None:
    cores, ends = Cores(8), list[float]()
    loop = Loop(cores)
    for _ in range(3):
        loop.run(2.0, lambda: ends.append(cores.now))
    for _ in range(3):
        cores.step()
    assert ends == pytest.approx([2.0, 4.0, 6.0])


def test_one_core_does_all_of_the_work() -> None:
    costs = Costs(loop_ms=1.0, text_ms=2.0, batch_ms=0.0)
    found = simulate(costs, Machine(1, 1, 1), 64, answers=ANSWERS)
    assert found.per_s == pytest.approx(1e3 / 3.0, rel=0.03)
    assert found.busy_cores == pytest.approx(1.0)


def test_clients_on_the_same_core_take_their_part_of_it() -> None:
    costs = Costs(loop_ms=1.0, text_ms=2.0, batch_ms=0.0, client_ms=1.0)
    assert simulate(costs, Machine(1, 1, 1, has_clients=True), 64, answers=ANSWERS).per_s == pytest.approx(
        250, rel=0.03
    )


def test_one_event_loop_is_the_limit_of_a_worker_however_many_cores_there_are() -> None:
    costs = Costs(loop_ms=1.0, text_ms=2.0, batch_ms=0.5)
    one = simulate(costs, Machine(32, 1, 32), 256, answers=ANSWERS)
    assert one.per_s == pytest.approx(1_000, rel=0.05)
    four = simulate(costs, Machine(32, 4, 8), 256, answers=ANSWERS)
    assert 3_000 < four.per_s <= 4_100


def test_a_batch_costs_less_than_its_texts_one_by_one() -> None:
    costs = Costs(loop_ms=0.1, text_ms=1.0, batch_ms=5.0)
    alone = simulate(costs, Machine(1, 1, 1), 1, answers=ANSWERS)
    many = simulate(costs, Machine(1, 1, 1), 64, answers=ANSWERS)
    assert alone.mean_batch == 1
    assert many.mean_batch > 16
    assert many.per_s > 3 * alone.per_s


def test_a_lone_client_waits_for_all_that_is_done_for_it() -> None:
    costs = Costs(loop_ms=1.0, text_ms=4.0, batch_ms=0.0)
    found = simulate(costs, Machine(4, 1, 4), 1, answers=ANSWERS)
    assert found.p50_ms == pytest.approx(1.0 + 4.0 / 4, abs=0.1), "all threads compute a single text together"
