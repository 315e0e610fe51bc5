"""The users that a deployment meets. Runs against any host, headless, with Locust's page, or in many processes:

    locust -f loadtests/locustfile.py --host http://localhost:3000 --web-host 127.0.0.1
    locust -f loadtests/locustfile.py --host http://localhost:3000 --headless -u 16 -t 1m TextSearch
    locust -f loadtests/locustfile.py --host http://localhost:3000 --headless -u 16 -t 1m --processes 2 \
      --master-bind-host 127.0.0.1 TextSearch

Without these addresses its page and its master listen to everybody.

``Visitor`` does what all of them do, request by request in a fixed proportion, so that the mix is the same at one user
and at a hundred. Choose by class, or by tag with ``--tags`` and ``--exclude-tags``: text, composed, image, similar,
encode, rude, large.
"""

from typing import ClassVar

from locust import tag, task

from clip_retrieval.contract.answers import CaptionsAnswer, ImageEmbedding, ImagesAnswer, SearchAnswer, TextEmbedding
from clip_retrieval.contract.base import ErrorBody
from clip_retrieval.contract.collection import Examples, FieldsAnswer
from loadtests import composed
from loadtests.bad_input import MALFORMED, Bad, too_large
from loadtests.composed import Body, Offered
from loadtests.samples import Kind
from loadtests.service_user import ServiceUser


class TextSearch(ServiceUser):
    """Text → images, by the short route."""

    weight = 300

    @tag("text")
    @task(300)
    def search(self) -> None:
        self.ask(Kind.search_images, "/search/images", {"text": self.texts.next()}, ImagesAnswer)


class ComposedSearch(ServiceUser):
    """What a visitor of the search page does: words, their next pages, parts with weights, filters."""

    weight = 250
    offered: ClassVar[Offered | None] = None
    """What the collection offers to ask for, the same for all users of a process."""
    following: Body | None = None
    """The next page of the last search, if there is one."""

    def on_start(self) -> None:
        super().on_start()
        if ComposedSearch.offered is None:
            options = self.environment.parsed_options
            ComposedSearch.offered = (
                Offered.from_json(options.offered)
                if options is not None and options.offered
                else Offered.by(self.look_up("/examples", Examples), self.look_up("/fields", FieldsAnswer))
            )

    @tag("composed")
    @task(110)
    def words(self) -> None:
        self.find("words", composed.request(composed.text(self.texts.next())))

    @tag("composed")
    @task(40)
    def next_page(self) -> None:
        if self.following is None:
            self.words()
        else:
            self.find("next page", self.following)

    @tag("composed")
    @task(20)
    def without(self) -> None:
        self.find("words subtracted", composed.without(self.texts.next(), self.texts.next(), self.random))

    @tag("composed")
    @task(15)
    def with_image(self) -> None:
        """Like the page, asks for captions too as soon as a part is an image."""
        assert self.offered is not None
        body = composed.with_image(self.texts.next(), self.offered, self.random)
        self.find("captions", composed.request(*body["queries"], target="captions"))
        self.find("image of the collection", body)

    @tag("composed")
    @task(40)
    def filtered(self) -> None:
        assert self.offered is not None
        self.find("filtered", composed.filtered(self.texts.next(), self.offered, self.random))

    @tag("composed")
    @task(25)
    def folded(self) -> None:
        self.find("near-duplicates folded", composed.folded(self.texts.next()))

    def find(self, name: str, body: Body) -> None:
        answer = self.ask(Kind.search, "/search", body, SearchAnswer, f"/search ({name})")
        offset = None if answer is None else answer.next_offset
        self.following = None if offset is None else {**body, "offset": offset}


class ImageUpload(ServiceUser):
    """Image → captions."""

    weight = 150

    @tag("image")
    @task(150)
    def captions(self) -> None:
        self.upload(Kind.search_text, "/search/text", self.images.next(), CaptionsAnswer)


class SimilarImages(ServiceUser):
    """Image → images."""

    weight = 100

    @tag("similar")
    @task(100)
    def similar(self) -> None:
        self.upload(Kind.search_similar, "/search/similar", self.images.next(), ImagesAnswer)


class Encode(ServiceUser):
    """Texts and images → vectors."""

    weight = 130

    @tag("encode")
    @task(70)
    def text(self) -> None:
        self.ask(Kind.encode_text, "/encode/text", {"text": self.texts.next()}, TextEmbedding)

    @tag("encode")
    @task(60)
    def image(self) -> None:
        self.upload(Kind.encode_image, "/encode/image", self.images.next(), ImageEmbedding)


class RudeClient(ServiceUser):
    """Sends requests that must be refused, and expects the right 4xx with an error body."""

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


class Visitor(TextSearch, ComposedSearch, ImageUpload, SimilarImages, Encode, RudeClient):
    """All of them in one. The weights of their tasks are parts of a thousand of its requests, but for the captions."""

    weight = 1000
