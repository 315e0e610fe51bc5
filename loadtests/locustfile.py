"""The users that a deployment meets. Runs against any host, headless, with Locust's page, or on many processes:

    locust -f loadtests/locustfile.py --host http://localhost:3000
    locust -f loadtests/locustfile.py --host http://localhost:3000 --headless -u 16 -t 1m --processes 2 TextSearch

``Visitor`` does what all of them do, request by request in a fixed proportion, so that the mix is the same at one user
and at a hundred. Choose by class, or by tag with ``--tags`` and ``--exclude-tags``: text, image, similar, encode,
rude, large. Every answer is checked against the service's schema. One that is turned away is counted apart, and waits
as ``Retry-After`` says, as the project's own client does. Stages from ``Server-Timing`` are rows of their own.
"""

import json
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from locust import FastHttpUser, constant, events, tag, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from pydantic import BaseModel, ValidationError

from clip_retrieval.contract.answers import CaptionsAnswer, ImageEmbedding, ImagesAnswer, TextEmbedding
from clip_retrieval.contract.base import ErrorBody
from loadtests import queries
from loadtests.bad_input import JSON, MALFORMED, Bad, too_large
from loadtests.queries import MULTIPART, ImageFile, Mix
from loadtests.recorder import Recorder
from loadtests.samples import Kind, Outcome, outcome_of, parse_server_timing

MAX_BACKOFF_S = 5.0


@events.init_command_line_parser.add_listener
def _options(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("users")
    group.add_argument(
        "--repeats", env_var="LOADTEST_REPEATS", type=float, default=0.3, help="Share of repeated queries, from 0 to 1"
    )
    group.add_argument(
        "--seed", env_var="LOADTEST_SEED", default="", help="Seed of the queries; by default the time, so they are new"
    )
    group.add_argument("--record", env_var="LOADTEST_RECORD", default="", help="Folder for the samples of each request")


@events.init.add_listener
def _start_recording(environment: Environment, **_: object) -> None:
    options = environment.parsed_options
    folder = Path(options.record) if options is not None and options.record else None
    ServiceUser.recorder = Recorder(environment, folder)


class ServiceUser(FastHttpUser):
    """Sends requests and judges the answers; what to ask is up to its kinds."""

    abstract = True
    wait_time = constant(0)
    network_timeout = 40.0  # longer than the service's own limit, which answers 504
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

    def ask(self, kind: Kind, path: str, body: dict[str, object], answer: type[BaseModel]) -> None:
        self.send(kind, path, json.dumps(body).encode(), JSON, answer)

    def upload(self, kind: Kind, path: str, image: ImageFile, answer: type[BaseModel]) -> None:
        self.send(kind, path, queries.multipart(*image), MULTIPART, answer)

    def send(
        self,
        kind: Kind,
        path: str,
        body: bytes | None,
        media_type: str,
        answer: type[BaseModel],
        expected: int = HTTPStatus.OK,
        name: str | None = None,
    ) -> None:
        """Send, judge and record one request; ``name`` is its row in Locust's statistics, if not ``path``."""
        response = self.client.request(
            "GET" if body is None else "POST",
            path,
            name=name or path,
            data=body,  # type: ignore[arg-type] # bytes are sent as they are
            headers={"Content-Type": media_type, "Accept": JSON},
            catch_response=True,
        )
        meta = response.request_meta
        headers: Mapping[str, Any] = response.headers or {}
        timing = parse_server_timing(str(headers.get("Server-Timing", "")))
        retry_after = headers.get("Retry-After")
        status = response.status_code
        outcome = outcome_of(status, retry_after=retry_after is not None, cached=timing.cached, expected=expected)
        if outcome in {Outcome.answered, Outcome.cached, Outcome.refused}:
            meta["exception"] = None
            try:
                answer.model_validate_json(response.content or b"")
            except ValidationError as error:
                outcome, meta["exception"] = Outcome.failed, error
        elif outcome is Outcome.failed and (meta["exception"] is None or status >= HTTPStatus.BAD_REQUEST):
            meta["exception"] = AssertionError(f"{status} instead of {int(expected)}")
        self.recorder.add(time.time(), kind, outcome, meta["response_time"], timing)
        if outcome is Outcome.turned_away:
            time.sleep(min(float(str(retry_after)), MAX_BACKOFF_S) if str(retry_after).isdecimal() else 1.0)
        else:
            self.environment.events.request.fire(**meta)


class TextSearch(ServiceUser):
    """Text → images."""

    weight = 500

    @tag("text")
    @task(500)
    def search(self) -> None:
        self.ask(Kind.search_images, "/search/images", {"text": self.texts.next()}, ImagesAnswer)


class ImageUpload(ServiceUser):
    """ImageFile → captions."""

    weight = 150

    @tag("image")
    @task(150)
    def captions(self) -> None:
        self.upload(Kind.search_text, "/search/text", self.images.next(), CaptionsAnswer)


class SimilarImages(ServiceUser):
    """ImageFile → images."""

    weight = 100

    @tag("similar")
    @task(100)
    def similar(self) -> None:
        self.upload(Kind.search_similar, "/search/similar", self.images.next(), ImagesAnswer)


class Encode(ServiceUser):
    """Texts and images → vectors."""

    weight = 180

    @tag("encode")
    @task(120)
    def text(self) -> None:
        self.ask(Kind.encode_text, "/encode/text", {"text": self.texts.next()}, TextEmbedding)

    @tag("encode")
    @task(60)
    def image(self) -> None:
        self.upload(Kind.encode_image, "/encode/image", self.images.next(), ImageEmbedding)


class RudeClient(ServiceUser):
    """Sends what must be refused, and expects the right 4xx with an error body."""

    weight = 70

    @tag("rude")
    @task(68)
    def malformed(self) -> None:
        self.refuse(self.random.choice(MALFORMED))

    @tag("rude", "large")
    @task(2)
    def large(self) -> None:
        self.refuse(too_large())

    def refuse(self, bad: Bad) -> None:
        name = f"{bad.path} ({bad.name})"
        self.send(Kind.bad, bad.path, bad.body, bad.media_type, ErrorBody, bad.expected, name)


class Visitor(TextSearch, ImageUpload, SimilarImages, Encode, RudeClient):
    """All of them in one; their tasks' weights are parts of a thousand of its requests."""

    weight = 1000
