"""The base of all users: sends one request, judges its answer, records it. Its options are those of every user class.

An answer is checked against the service's schema. A rejected request (429, 503) is counted apart, and its user waits as
``Retry-After`` says, as the project's own client does. Stages from ``Server-Timing`` are rows of their own.
"""

import json
import os
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from random import Random
from typing import Any, ClassVar, TypeVar

from locust import FastHttpUser, constant, events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from pydantic import BaseModel, ValidationError

from clip_retrieval.client.endpoints import key_header
from loadtests import queries
from loadtests.bad_input import JSON
from loadtests.queries import MULTIPART, ImageFile, Mix
from loadtests.recorder import Recorder
from loadtests.samples import Kind, Outcome, outcome_of, parse_server_timing

MAX_BACKOFF_S = 5.0
LOOK_UPS = 30
"""How often a user asks, a second apart, for what it must know before its first request."""

M = TypeVar("M", bound=BaseModel)


@events.init_command_line_parser.add_listener
def _options(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("users")
    group.add_argument(
        "--repeats", env_var="LOADTEST_REPEATS", type=float, default=0.3, help="Share of repeated queries, from 0 to 1"
    )
    group.add_argument(
        "--seed", env_var="LOADTEST_SEED", default="", help="Seed of the queries; by default the time, so they are new"
    )
    group.add_argument(
        "--offered",
        env_var="LOADTEST_OFFERED",
        default="",
        help="Ids and conditions to ask for, as JSON; by default what the service offers at the start",
    )
    group.add_argument("--record", env_var="LOADTEST_RECORD", default="", help="Folder for the samples of each request")


@events.init.add_listener
def _start_recording(environment: Environment, **_: object) -> None:
    options = environment.parsed_options
    folder = Path(options.record) if options is not None and options.record else None
    ServiceUser.recorder = Recorder(environment, folder)


class ServiceUser(FastHttpUser):
    """Sends requests and judges the answers; its subclasses decide what to ask."""

    abstract = True
    wait_time = constant(0)
    default_headers = key_header(os.environ.get("BENTO_CLIP_KEY"))
    network_timeout = 40.0  # longer than the service's own limit, after which it answers 504
    recorder: ClassVar[Recorder]
    _made: ClassVar[int] = 0

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        ServiceUser._made += 1
        options = environment.parsed_options
        assert options is not None
        worker = getattr(environment.runner, "worker_index", 0)
        seed = f"{options.seed or time.time_ns()}:{worker}:{ServiceUser._made}"
        self.random = Random(seed)
        self.texts = Mix(queries.captions(), queries.new_text, repeats=options.repeats, seed=seed)
        self.images = Mix(queries.images(), queries.new_image, repeats=options.repeats, seed=seed)

    def ask(self, kind: Kind, path: str, body: dict[str, Any], answer: type[M], name: str | None = None) -> M | None:
        return self.send(kind, path, json.dumps(body).encode(), JSON, answer, name=name)

    def upload(self, kind: Kind, path: str, image: ImageFile, answer: type[BaseModel]) -> None:
        self.send(kind, path, queries.multipart(*image), MULTIPART, answer)

    def look_up(self, path: str, answer: type[M]) -> M:
        """The answer of a GET that is part of no statistics. Raises RuntimeError if there is none."""
        for _ in range(LOOK_UPS):
            response = self.client.request("GET", path, headers={"Accept": JSON}, catch_response=True)
            if response.status_code == HTTPStatus.OK:
                return answer.model_validate_json(response.content or b"")
            time.sleep(1)
        raise RuntimeError(f"GET {path} gave {response.status_code} instead of 200, {LOOK_UPS} times")

    def send(
        self,
        kind: Kind,
        path: str,
        body: bytes | None,
        media_type: str,
        answer: type[M],
        expected: int = HTTPStatus.OK,
        name: str | None = None,
    ) -> M | None:
        """Send, judge and record one request; returns the answer if it is the right one.

        No body means GET. ``name`` is the request's row in Locust's statistics, by default ``path``.
        """
        response = self.client.request(
            "GET" if body is None else "POST",
            path,
            name=name or path,
            data=body,  # type: ignore[arg-type] # Locust's own type lacks bytes
            headers={"Content-Type": media_type, "Accept": JSON},
            catch_response=True,
        )
        meta = response.request_meta
        headers: Mapping[str, Any] = response.headers or {}
        timing = parse_server_timing(str(headers.get("Server-Timing", "")))
        retry_after = headers.get("Retry-After")
        status = response.status_code
        outcome = outcome_of(status, retry_after=retry_after is not None, cached=timing.cached, expected=expected)
        found: M | None = None
        if outcome in {Outcome.answered, Outcome.cached, Outcome.refused}:
            meta["exception"] = None
            try:
                found = answer.model_validate_json(response.content or b"")
            except ValidationError as error:
                outcome, meta["exception"] = Outcome.failed, error
        elif outcome is Outcome.failed and (meta["exception"] is None or status >= HTTPStatus.BAD_REQUEST):
            meta["exception"] = AssertionError(f"{status} instead of {int(expected)}")
        self.recorder.add(time.time(), kind, outcome, meta["response_time"], timing)
        if outcome is Outcome.rejected:
            time.sleep(min(float(str(retry_after)), MAX_BACKOFF_S) if str(retry_after).isdecimal() else 1.0)
        else:
            self.environment.events.request.fire(**meta)
        return found
