"""Locust's load shape that carries out a plan and notes when each step ran.

Give it to Locust together with the users, as ``python -m loadtests.run`` does:

    locust -f loadtests/locustfile.py,loadtests/shapes.py --plan "$(python -m loadtests.run --print-plan)"

Options, which the environment can give too: ``--plan`` (LOADTEST_PLAN), the plan as JSON, by default the steps of
``plan.py`` with ``--step-seconds`` (LOADTEST_STEP_SECONDS).
"""

import time
from pathlib import Path

from locust import LoadTestShape, events
from locust.argument_parser import LocustArgumentParser

from loadtests import plan
from loadtests.plan import Step, Window


@events.init_command_line_parser.add_listener
def options(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("load shape")
    group.add_argument("--plan", env_var="LOADTEST_PLAN", default="", help="The plan of steps, as JSON")
    group.add_argument(
        "--step-seconds", env_var="LOADTEST_STEP_SECONDS", type=float, default=20, help="Seconds a step, without --plan"
    )


class PlannedLoad(LoadTestShape):
    """Keeps the users of the current step. Locust asks once a second, so a step lasts up to a second longer."""

    def __init__(self) -> None:
        super().__init__()
        self._steps: list[Step] = []
        self._index: int | None = None
        self._started = 0.0

    def tick(self) -> tuple[int, float] | None:
        if not self._steps:
            self._steps = self._plan()
        now = time.time()
        if self._index is None:
            self._begin(0, now)
        elif now - self._started >= self._steps[self._index].seconds:
            self._note(now)
            if self._index + 1 == len(self._steps):
                self._index = None  # Locust's page can start it again
                return None
            self._begin(self._index + 1, now)
        assert self._index is not None
        users = self._steps[self._index].users
        return users, float(max(step.users for step in self._steps))

    def _plan(self) -> list[Step]:
        assert self.runner is not None
        parsed = self.runner.environment.parsed_options
        if parsed is not None and parsed.plan:
            return plan.from_json(parsed.plan)
        return plan.step_plan(plan.FULL_STEPS, parsed.step_seconds if parsed is not None else 20)

    def _begin(self, index: int, now: float) -> None:
        self._index, self._started = index, now

    def _note(self, now: float) -> None:
        assert self.runner is not None
        assert self._index is not None
        parsed = self.runner.environment.parsed_options
        if parsed is not None and parsed.record:
            settled = min(self._started + self._steps[self._index].settle_s, now)
            users = self.get_current_user_count()
            plan.note_window(Path(parsed.record), Window(self._index, self._started, settled, now, users))
