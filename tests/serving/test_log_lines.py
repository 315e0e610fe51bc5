"""What a log line never has: a second line, what a stranger wrote as it is, a query's text, a traceback."""

import logging
import sys
from collections.abc import Iterator

import pytest
from bentoml.exceptions import InvalidArgument
from pydantic import ValidationError

from clip_retrieval.contract.queries import EncodeTextRequest
from clip_retrieval.serving.json_logs import JsonFormatter
from clip_retrieval.serving.log_lines import LOGGERS, OneLine, escaped, use_lines

SECRET = "what a person asked for"


def written(
    message: str, *arguments: object, error: Exception | None = None, name: str = "bentoml.serve"
) -> str | None:
    """The plain line that a record becomes; None if it is left out."""
    failure = None
    if error is not None:
        try:
            raise error
        except Exception:  # noqa: BLE001
            failure = sys.exc_info()
    record = logging.LogRecord(name, logging.ERROR, __file__, 1, message, arguments, failure)
    return logging.Formatter("%(message)s").format(record) if OneLine().filter(record) else None


def invalid() -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        EncodeTextRequest(text=SECRET * 100)
    assert SECRET in str(caught.value)
    return caught.value


@pytest.mark.parametrize("error", [invalid(), InvalidArgument(f"no such thing: {SECRET}")], ids=["pydantic", "BentoML"])
def test_a_request_that_is_wrong_has_only_its_access_line(error: Exception) -> None:
    assert written("Exception on %s [%s]", "/encode_texts", "POST", error=error) is None


def test_an_exception_is_its_type_and_its_places_in_one_line_without_its_text() -> None:
    line = written("Exception on %s [%s]", "/encode_texts", "POST", error=RuntimeError(f"{SECRET}\nforged"))
    assert line is not None
    assert line.startswith("Exception on /encode_texts [POST]: RuntimeError at serving/test_log_lines.py:")
    assert line.endswith(" in written")
    assert SECRET not in line
    assert "\n" not in line


def test_a_deep_stack_stays_short_and_names_what_caused_it() -> None:
    def deep(depth: int) -> None:
        if depth:
            deep(depth - 1)
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            raise RuntimeError(SECRET) from error

    with pytest.raises(RuntimeError) as caught:
        deep(200)
    line = written("it failed", error=caught.value)
    assert line is not None
    assert line.startswith("it failed: RuntimeError caused by KeyError at serving/test_log_lines.py:")
    assert line.endswith("191 more")
    assert len(line) < 1000
    assert SECRET not in line


def test_debugging_shows_an_exception_whole() -> None:
    logger = logging.getLogger("bentoml")
    before = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        line = written("it failed", error=RuntimeError("the reason"))
    finally:
        logger.setLevel(before)
    assert line is not None
    assert line.endswith("RuntimeError: the reason")


@pytest.mark.parametrize("end", ["\n", "\r", "\x1b[2K", "\x85", "\u2028", "\0"])
def test_what_a_stranger_wrote_cannot_end_a_line(end: str) -> None:
    line = written("GET %s", f"/a{end}2026-11-28 [INFO] forged")
    assert line is not None
    assert end not in line
    assert line == f"GET /a\\x{ord(end[0]):02x}{end[1:]}2026-11-28 [INFO] forged"
    assert escaped("as it is: ü/é?") == "as it is: ü/é?"


def test_a_failed_start_of_the_server_keeps_its_lines() -> None:
    assert written("Traceback:\n  a\n  b", name="uvicorn.error") == "Traceback:\n  a\n  b"


def test_json_has_the_places_in_a_field_of_their_own() -> None:
    record = logging.LogRecord("bentoml", logging.ERROR, __file__, 1, "it failed", (), None)
    try:
        raise RuntimeError(SECRET)
    except RuntimeError:
        record.exc_info = sys.exc_info()
    assert OneLine().filter(record)
    line = JsonFormatter().format(record)
    assert '"exception": "RuntimeError at serving/test_log_lines.py:' in line
    assert SECRET not in line


@pytest.fixture
def loggers() -> Iterator[None]:
    before = {name: logging.getLogger(name).propagate for name in LOGGERS}
    handler = logging.NullHandler()
    for name in LOGGERS:
        logging.getLogger(name).addHandler(handler)
    yield
    for name, propagate in before.items():
        logger = logging.getLogger(name)
        logger.propagate = propagate
        logger.removeHandler(handler)
        for one in logger.handlers:
            one.filters = [kept for kept in one.filters if not isinstance(kept, OneLine)]


@pytest.mark.usefixtures("loggers")
def test_every_handler_writes_so_and_nothing_is_written_twice() -> None:
    use_lines()
    use_lines()
    for name in LOGGERS:
        logger = logging.getLogger(name)
        assert not logger.propagate, name
        for handler in logger.handlers:
            assert sum(isinstance(one, OneLine) for one in handler.filters) == 1
