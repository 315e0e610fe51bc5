"""A running service becomes equal to a source by the API for changes, and nobody else's change is lost."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.check import check
from clip_retrieval.build.plan import Plan, plan, states_of_source
from clip_retrieval.cli.sync_service import Applied, Served, apply, served
from clip_retrieval.client import Client, Retries
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import Overloaded, RequestRejected
from clip_retrieval.images.decode import Limits
from clip_retrieval.progress import Silent
from clip_retrieval.records import Split, ValidImage
from clip_retrieval.search.retriever import Retriever
from tests.http.in_process import Api
from tests.samples import NAMES, MemoryBlob, png, square, write_collection

LIMITS = Limits()


class ToApi(httpx.BaseTransport):
    """Sends requests to an API in this process; remembers the bodies of changes, and may answer in its place."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.batches: list[list[dict[str, Any]]] = []
        self.instead: Callable[[httpx.Request], httpx.Response | None] = lambda _: None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/changes":
            self.batches.append(json.loads(request.read())["changes"])
        if (answer := self.instead(request)) is not None:
            return answer
        done = self._api.request(
            request.method, request.url.raw_path.decode(), content=request.read(), headers=dict(request.headers)
        )
        return httpx.Response(done.status_code, headers=done.headers, content=done.content)


@pytest.fixture
def to_api(fake_artifact: Artifact, tmp_path: Path) -> Iterator[ToApi]:
    """A service of the 24 squares that takes changes."""
    with closing(Api(Retriever(fake_artifact, FakeEncoder()), changes=tmp_path / "changes")) as api:
        yield ToApi(api)


@pytest.fixture
def client(to_api: ToApi) -> Iterator[Client]:
    with Client("http://service", transport=to_api, retries=Retries(attempts=1)) as client:
        yield client


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_collection(tmp_path / "squares")


def images_of(source: Path) -> dict[str, ValidImage]:
    return {image.image_id: image for image in check(source, LIMITS, Silent()).kept}


def planned(client: Client, wanted: dict[str, ValidImage]) -> tuple[Plan, Served]:
    held = served(client, Silent())
    return plan(states_of_source(list(wanted.values())), held.states), held


def synced(client: Client, wanted: dict[str, ValidImage], *, batch_s: float = 1) -> Applied:
    """Apply a plan by a clock on which each batch takes ``batch_s`` seconds."""
    changes, held = planned(client, wanted)
    clock = count(0, batch_s)
    return apply(client, changes, wanted, held, LIMITS, Silent(), clock=lambda: next(clock))


def test_a_source_that_the_artifact_was_built_from_needs_no_change(client: Client, to_api: ToApi, source: Path) -> None:
    changes, _ = planned(client, images_of(source))
    assert changes == Plan((), {}, (), 24)
    assert synced(client, images_of(source)) == Applied(0, [])
    assert to_api.batches == []


def test_what_differs_is_changed_and_then_nothing_does(client: Client, to_api: ToApi, source: Path) -> None:
    write_collection(source, (*NAMES[2:24],))
    (source / NAMES[3]).write_bytes(png(square("white", size=13)))
    (source / "new.png").write_bytes(png(square("red", size=40)))
    table = source / "captions.csv"
    text = table.read_text(encoding="utf-8").replace(f"{NAMES[5]},a dull", f"{NAMES[5]},a very dull")
    table.write_text(f"{text}new.png,a ruby,odd\n", encoding="utf-8")
    wanted = images_of(source)
    applied = synced(client, wanted)
    assert (applied.done, applied.refused, applied.sequence) == (5, [], 5)
    (batch,) = to_api.batches
    assert [(one["op"], one["image_id"]) for one in batch] == [
        ("put", "new.png"),
        ("put", NAMES[3]),
        ("patch", NAMES[5]),
        ("delete", NAMES[0]),
        ("delete", NAMES[1]),
    ]
    assert batch[2].keys() == {"op", "image_id", "captions", "if_match"}, "no image is sent for a caption"
    assert planned(client, wanted)[0] == Plan((), {}, (), 23)
    assert client.search_images("ruby").results[0].similarity_score <= 1
    assert client.image("new.png").image_path == "new.png"
    assert client.image("new.png").metadata == {"shade": "odd"}


def test_a_file_with_another_name_under_the_same_id_is_put(client: Client, to_api: ToApi, source: Path) -> None:
    wanted = images_of(source)
    blob = MemoryBlob("zebra.png", (source / NAMES[1]).read_bytes())
    wanted[NAMES[1]] = replace(wanted[NAMES[1]], blob=blob)
    assert planned(client, wanted)[0].changed == {NAMES[1]: ("path",)}
    assert synced(client, wanted).done == 1
    assert client.image(NAMES[1]).image_path == "zebra.png"
    assert planned(client, wanted)[0].is_empty


def test_fields_that_the_source_has_no_more_are_removed(client: Client, source: Path) -> None:
    client.patch_image(NAMES[0], metadata={"extra": "x", "shade": "wrong"})
    assert planned(client, images_of(source))[0].changed == {NAMES[0]: ("metadata",)}
    synced(client, images_of(source))
    assert client.image(NAMES[0]).metadata == {"shade": "bright"}


def test_a_split_that_the_source_gives_is_set(client: Client, source: Path) -> None:
    wanted = images_of(source)
    other: Split = "val" if client.image(NAMES[0]).split != "val" else "test"
    wanted[NAMES[0]] = replace(wanted[NAMES[0]], split=other)
    assert synced(client, wanted).done == 1
    assert client.image(NAMES[0]).split == other


def test_somebody_else_s_change_in_the_meantime_is_not_overwritten(client: Client, source: Path) -> None:
    wanted = images_of(source)
    for name in NAMES[:3]:
        del wanted[name]
    changes, held = planned(client, wanted)
    client.patch_image(NAMES[1], captions=["mine"])
    applied = apply(client, changes, wanted, held, LIMITS, Silent())
    assert applied.done == 2
    ((refused),) = applied.refused
    assert refused.where == NAMES[1]
    assert "changed by someone else" in refused.reason
    assert client.image(NAMES[1]).captions == ["mine"]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (MemoryBlob("bad.png", b"hello"), "not an image"),
        (MemoryBlob("bad.png", None), "it is gone"),
    ],
)
def test_an_image_that_is_refused_is_reported_and_the_others_are_added(
    client: Client, source: Path, bad: MemoryBlob, words: str
) -> None:
    """It was whole when the source was read."""
    wanted = images_of(source)
    one = wanted[NAMES[0]]
    wanted["bad"] = replace(one, image_id="bad", blob=bad, content_hash="0" * 64)
    wanted["good"] = replace(one, image_id="good", content_hash="1" * 64)
    applied = synced(client, wanted)
    assert applied.done == 1
    ((refused),) = applied.refused
    assert refused.where == "bad"
    assert words in refused.reason
    assert client.image("good").captions == list(client.image(NAMES[0]).captions)


def test_a_value_out_of_bounds_is_reported(client: Client, source: Path) -> None:
    wanted = images_of(source)
    wanted["x"] = replace(wanted[NAMES[0]], image_id="x", metadata={"n": float("inf")})
    applied = synced(client, wanted)
    assert (applied.done, [one.where for one in applied.refused]) == (0, ["x"])


def many(source: Path, number: int, size: int = 0) -> dict[str, ValidImage]:
    """The images of the source and ``number`` more, each file with ``size`` bytes behind its end."""
    wanted = images_of(source)
    one = wanted[NAMES[0]]
    blob = MemoryBlob("x.png", png(square("red")) + bytes(size))
    for new in range(number):
        wanted[f"n{new}"] = replace(one, image_id=f"n{new}", blob=blob)
    return wanted


def test_batches_grow_while_the_service_is_quick_and_never_beyond_64(
    client: Client, to_api: ToApi, source: Path
) -> None:
    assert synced(client, many(source, 16 + 32 + 64 + 64 + 5)).done == 181
    assert [len(batch) for batch in to_api.batches] == [16, 32, 64, 64, 5]


def test_batches_become_smaller_where_the_service_is_slow(client: Client, to_api: ToApi, source: Path) -> None:
    assert synced(client, many(source, 16 + 8 + 4), batch_s=11).done == 28
    assert [len(batch) for batch in to_api.batches] == [16, 8, 4]


def test_a_request_stays_within_the_limit_of_a_body(client: Client, to_api: ToApi, source: Path) -> None:
    assert synced(client, many(source, 5, size=2 * 2**20)).done == 5
    assert [len(batch) for batch in to_api.batches] == [2, 2, 1]


def test_a_request_stays_within_the_limit_of_captions(client: Client, to_api: ToApi, source: Path) -> None:
    wanted = images_of(source)
    (caption, *_) = wanted[NAMES[0]].captions
    for name in NAMES[:24]:
        wanted[name] = replace(wanted[name], captions=(caption,) * 90)
    assert synced(client, wanted).done == 24
    assert [len(batch) for batch in to_api.batches] == [11, 11, 2]


@pytest.mark.parametrize("status", [413, 504])
def test_a_batch_that_is_too_much_is_sent_in_parts(client: Client, to_api: ToApi, source: Path, status: int) -> None:
    """A service may have a lower limit for bodies, or a slower encoder."""

    def refuse(request: httpx.Request) -> httpx.Response | None:
        is_many = request.url.path == "/changes" and len(json.loads(request.read())["changes"]) > 4
        return httpx.Response(status, json={"error": "too much", "detail": "", "status": status}) if is_many else None

    to_api.instead = refuse
    assert synced(client, many(source, 30)).done == 30
    assert [len(batch) for batch in to_api.batches] == [16, 8, 4, 4, 8, 4, 4, 4, 4, 4, 2], (
        "and the limit is kept in mind"
    )


@pytest.mark.parametrize(("status", "kind"), [(409, RequestRejected), (429, Overloaded)])
def test_a_service_that_takes_no_changes_ends_it(
    client: Client, to_api: ToApi, source: Path, status: int, kind: type[Exception]
) -> None:
    body = {"error": "no", "detail": "set BENTO_CLIP_CHANGES", "status": status}
    to_api.instead = lambda request: httpx.Response(status, json=body) if request.method == "POST" else None
    with pytest.raises(kind, match="BENTO_CLIP_CHANGES"):
        synced(client, many(source, 3))


def test_a_service_that_takes_no_more_ends_it_and_run_again_it_goes_on(
    fake_artifact: Artifact, tmp_path: Path, source: Path
) -> None:
    """The images are not to blame: what was taken stays, and none is reported as rejected."""
    with (
        closing(Api(Retriever(fake_artifact, FakeEncoder()), changes=tmp_path / "changes", max_added=3)) as api,
        Client("http://service", transport=ToApi(api), retries=Retries(attempts=1)) as client,
    ):
        with pytest.raises(Overloaded, match="3 images were added or changed"):
            synced(client, many(source, 5))
        assert planned(client, many(source, 5))[0].added == ("n3", "n4")


@pytest.mark.parametrize("status", [429, 503, 507])
def test_a_refusal_that_is_not_about_the_image_is_that_of_all(
    client: Client, to_api: ToApi, source: Path, status: int
) -> None:
    item = {"status": status, "result": None, "error": {"error": "no", "detail": "there is no room"}}
    answer = {"sequence": 1, "results": [item] * 3}
    to_api.instead = lambda request: httpx.Response(200, json=answer) if request.method == "POST" else None
    with pytest.raises(Overloaded, match="there is no room"):
        synced(client, many(source, 3))
