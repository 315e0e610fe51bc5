"""What a log line looks like in JSON."""

import json
import logging
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import pytest

from clip_retrieval.serving.json_logs import JsonFormatter, use_json
from clip_retrieval.serving.request_id import CURRENT

Failure = tuple[type[BaseException], BaseException, TracebackType | None]


def line(
    name: str, message: str, *arguments: object, trace: str = "", failure: Failure | None = None
) -> dict[str, Any]:
    """The fields of the one line that a record becomes."""
    record = logging.LogRecord(name, logging.INFO, __file__, 1, message, arguments, failure)
    record.trace_msg = trace
    written = JsonFormatter().format(record)
    assert "\n" not in written
    fields: dict[str, Any] = json.loads(written)
    return fields


ACCESS = {
    "method": "POST",
    "path": "/search/images",
    "status": 200,
    "duration_ms": 19.336,
    "request_bytes": 28,
    "response_bytes": 339,
    "client": "10.0.0.7:48912",
}


def access(**changed: object) -> dict[str, Any]:
    record = logging.LogRecord("bentoml.access", logging.INFO, __file__, 1, "POST …", (), None)
    record.access = {**ACCESS, **changed}
    written = JsonFormatter().format(record)
    assert "\n" not in written
    fields: dict[str, Any] = json.loads(written)
    return fields


def test_an_access_line_has_its_numbers_as_numbers() -> None:
    fields = access()
    del fields["time"]
    assert fields == {
        "level": "info",
        "logger": "bentoml.access",
        "message": "POST /search/images 200",
        **ACCESS,
    }


def test_a_line_of_the_record_of_changes_has_its_facts() -> None:
    facts = {"what": "put", "image_id": "a\nb", "sequence": 3, "who": "key:anna"}
    record = logging.makeLogRecord({"name": "bentoml.audit", "msg": "put …", "audit": facts})
    fields = json.loads(JsonFormatter().format(record))
    assert {**fields, **facts, "message": "put"} == fields


def test_a_line_within_a_request_has_its_id() -> None:
    before = CURRENT.set("abc")
    try:
        assert line("bentoml", "searching")["request_id"] == "abc"
    finally:
        CURRENT.reset(before)
    assert "request_id" not in line("bentoml", "waiting")


@pytest.mark.parametrize("path", ["/a,b=c", "/line\nbreak", '/"quoted"', "/ü"])
def test_any_path_is_kept_as_it_was(path: str) -> None:
    assert access(path=path)["path"] == path


def test_the_time_says_its_zone() -> None:
    assert line("bentoml", "ready")["time"].endswith("+00:00")


def test_a_line_within_a_request_names_its_trace() -> None:
    fields = line("bentoml", "searching", trace=" (trace=2ff6,span=4cfb,sampled=0,service.name=clip-retrieval)")
    assert (fields["trace"], fields["span"]) == ("2ff6", "4cfb")


def test_an_exception_is_in_the_same_line() -> None:
    try:
        raise ValueError("no such thing")
    except ValueError:
        failure = sys.exc_info()
    assert failure[0] is not None
    fields = line("bentoml", "failed", failure=failure)
    assert fields["message"] == "failed"
    assert fields["exception"].endswith("ValueError: no such thing")


@pytest.fixture
def handler() -> Iterator[logging.Handler]:
    """A handler of BentoML's logger, as BentoML sets one up."""
    logger, handler = logging.getLogger("bentoml"), logging.StreamHandler()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logging.captureWarnings(False)


def test_bentomls_own_handlers_write_json_from_then_on(handler: logging.Handler) -> None:
    use_json()
    assert isinstance(handler.formatter, JsonFormatter)
