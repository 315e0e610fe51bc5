"""The order of the middleware: what each refuses is seen by what is outside of it, and costs nothing inside."""

import pytest
from starlette.responses import PlainTextResponse

from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.http.stack import middleware
from clip_retrieval.serving.settings import Settings
from clip_retrieval.serving.state import ServerState

GUARDED = {
    "trusted_proxies": ("10.0.0.0/8",),
    "hosts": ("a.example",),
    "cors_origins": ("https://app.example",),
    "limit": "60/minute",
}


def stack(**settings: object) -> list[str]:
    state = ServerState.of(Settings.model_validate(settings))
    try:
        built = middleware(state, own=PlainTextResponse(""), before_scrape=state.publish, on_request=lambda _: True)
        return [kind.__name__ for kind, _ in built]
    finally:
        state.decoders.shutdown()


def test_with_every_setting_the_order_is_this() -> None:
    assert stack(**GUARDED) == [
        "RequestIds",
        "AccessLog",
        "CancelOnDisconnect",
        "Proxies",  # the log, which is outside, shows the client, since it writes its line last
        "Cors",  # outside of all that refuses, so that a page can read every refusal
        "ErrorEnvelope",
        "HostCheck",
        "RouteCheck",
        "Authentication",
        "Limits",  # outside of what reads the body: a refusal costs no more than its head
        "BodyLimit",
        "BodyMemory",  # of complete bodies: what is on its way holds nobody's place and nobody's memory
        "Admission",
        "JsonCheck",
        "FormCheck",
        "Beforehand",
        "NativeImages",
        "NativeTexts",
        "UntilDone",
        "RootPath",  # inside of all that compares paths with the table as they are
        "OwnRoutes",
    ]


def test_what_no_setting_asks_for_is_not_there() -> None:
    assert not {"Proxies", "Cors", "HostCheck", "Limits", "NativeTexts", "RootPath"} & set(stack())


def test_a_prefix_that_is_a_path_of_the_service_is_refused() -> None:
    with pytest.raises(ClipRetrievalError, match="with which a path of this service begins; choose another"):
        stack(root_path="/search")
