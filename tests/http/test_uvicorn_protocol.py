"""Private names of uvicorn and httptools that ``http/uvicorn_protocol.py`` uses.

If a test fails after an upgrade, its message says what no longer works. tests/e2e/test_bad_input.py shows the same from
outside.
"""

import inspect
import resource

import pytest
from httptools import HttpParserInvalidMethodError, HttpParserUpgrade
from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from clip_retrieval.http import uvicorn_protocol


def test_uvicorn_takes_the_protocol_by_its_name() -> None:
    assert "auto" in HTTP_PROTOCOLS, "uvicorn reads HTTP with its own protocol, whose errors are plain text"
    before = HTTP_PROTOCOLS["auto"]
    try:
        uvicorn_protocol.use_in_this_process(uvicorn_protocol.Wire())
        assert HTTP_PROTOCOLS["auto"].endswith(":JsonErrorsProtocol")
    finally:
        HTTP_PROTOCOLS["auto"] = before


@pytest.mark.parametrize(
    ("name", "consequence"),
    [
        ("_should_upgrade", "a request with an Upgrade header loses its body"),
        ("_get_upgrade", "a request with an Upgrade header loses its body"),
        ("handle_websocket_upgrade", "a connection is not handed over"),
        ("send_400_response", "a 400 is plain text"),
        ("on_message_begin", "the head of a request is not bounded"),
        ("on_header", "trailers become headers"),
        ("on_headers_complete", "the head of a request is not bounded"),
        ("data_received", "the head of a request is not bounded"),
        ("connection_made", "a connection that sends nothing is not closed"),
        ("connection_lost", "time limits outlive their connection"),
        ("on_message_complete", "the rest of a body is not bounded after the answer"),
        ("on_response_complete", "the rest of a body is not bounded after the answer"),
        ("pause_writing", "a client that does not read its answer holds a place"),
        ("resume_writing", "a client that reads slowly loses its answer"),
        ("timeout_keep_alive_handler", "a connection is not closed before its client has read all"),
        ("shutdown", "a stop waits for bodies that do not come"),
    ],
)
def test_a_method_that_is_overridden_exists(name: str, consequence: str) -> None:
    assert callable(getattr(HttpToolsProtocol, name, None)), consequence


@pytest.mark.parametrize(
    "name",
    [
        *("cycle", "connections", "server_state", "app_state", "config", "transport", "ws_protocol_class"),
        *("app", "loop", "timeout_keep_alive", "expect_100_continue"),
    ],
)
def test_an_attribute_that_is_read_exists(name: str) -> None:
    assert f"self.{name}" in inspect.getsource(HttpToolsProtocol.__init__), "a connection is not handed over to h11"


def test_there_are_fewer_connections_than_files_may_be_open() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
        assert uvicorn_protocol.most_connections() == 768
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
        assert uvicorn_protocol.most_connections() == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_h11_takes_over_with_the_same_three_things() -> None:
    assert list(inspect.signature(H11Protocol.__init__).parameters)[1:4] == ["config", "server_state", "app_state"]
    assert callable(H11Protocol.send_400_response)


def test_httptools_stops_with_the_place_of_an_upgrade_and_at_an_unknown_method() -> None:
    assert HttpParserUpgrade(7).args[0] == 7, "what came behind the head is lost"
    assert issubclass(HttpParserInvalidMethodError, Exception)
