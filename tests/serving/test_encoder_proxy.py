"""Messages to the encoder service: a broken connection is tried once more, every failure becomes words."""

import asyncio
from http import HTTPStatus
from typing import Any

import aiohttp
import pytest
from bentoml.exceptions import BentoMLException, ServiceUnavailable

from clip_retrieval.errors import EncoderAway
from clip_retrieval.serving.encoder_proxy import EncoderProxy


class FakeProxy:
    """BentoML's proxy of the encoder service, which first raises ``errors``, one a call."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.entered = 0

    async def __aenter__(self) -> "FakeProxy":
        self.entered += 1
        return self

    async def call(self, api: str, **inputs: Any) -> object:
        assert self.entered, "BentoML's proxy has no APIs before"
        self.calls.append((api, inputs))
        if self.errors:
            raise self.errors.pop(0)
        return "abc" if api == "fingerprint" else ["a vector"]


def test_messages_and_answers_are_passed_on_by_a_proxy_that_was_entered_once() -> None:
    fake = FakeProxy()
    proxy = EncoderProxy(fake)

    async def run() -> None:
        assert await proxy.fingerprint() == "abc"
        assert await proxy.encode_texts([[1, 2]]) == ["a vector"]
        assert await proxy.encode_images(["pixels"]) == ["a vector"]

    asyncio.run(run())
    assert fake.entered == 1
    assert fake.calls[1:] == [("encode_texts", {"texts": [[1, 2]]}), ("encode_images", {"images": ["pixels"]})]


@pytest.mark.parametrize("error", [aiohttp.ServerDisconnectedError(), aiohttp.ClientOSError(104, "reset")])
def test_a_broken_connection_is_tried_once_more(error: Exception) -> None:
    proxy = FakeProxy(error)
    assert asyncio.run(EncoderProxy(proxy).encode_texts([[1]])) == ["a vector"]
    assert len(proxy.calls) == 2


@pytest.mark.parametrize(
    ("errors", "words", "calls"),
    [
        ([aiohttp.ClientOSError(111, "refused")] * 2, r"does not answer \(.*refused\)", 2),
        ([TimeoutError()], r"does not answer \(TimeoutError\)", 1),
        ([ServiceUnavailable("overloaded")], "answers 503: overloaded; its log says why", 1),
        ([BentoMLException("no", error_code=HTTPStatus.BAD_REQUEST)], "answers 400: no", 1),
    ],
    ids=["refused", "too late", "busy", "not understood"],
)
def test_a_failure_is_words(errors: list[Exception], words: str, calls: int) -> None:
    proxy = FakeProxy(*errors)
    with pytest.raises(EncoderAway, match=words):
        asyncio.run(EncoderProxy(proxy).fingerprint())
    assert len(proxy.calls) == calls
