"""One line an event: what a log record becomes before it is written, whatever the format.

- A request that is wrong has its access line; BentoML's own report of it, a traceback with the query's text, is left
  out.
- An exception is the name of its type and the places that it came through, innermost first. Its text is left out: it
  may quote a query. ``BENTOML_DEBUG=1`` shows exceptions whole.
- Characters that end a line or move the cursor are escaped: a stranger may have chosen them.
- What uvicorn and circus report is written once. BentoML gives them a handler, and the root logger's besides.
"""

import logging
import re
import traceback
from http import HTTPStatus
from pathlib import Path

from pydantic import ValidationError

LOGGERS = ("", "bentoml", "uvicorn.error", "circus")
"""The loggers to which BentoML gives handlers; the first is the root."""

TRUSTED = frozenset({"uvicorn.error", "circus"})
"""Their texts are their own and those of failed starts, which have several lines."""

MAX_PLACES = 12

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def use_lines() -> None:
    """Have every handler that BentoML has set up write one line an event."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.propagate = False
        for handler in logger.handlers:
            if not any(isinstance(one, OneLine) for one in handler.filters):
                handler.addFilter(OneLine())


def escaped(text: str) -> str:
    """The text with its control characters as ``\\x0a``."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


class OneLine(logging.Filter):
    """Makes one line of a record, or nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name in TRUSTED and not record.exc_info:
            return True
        if record.exc_info and not logging.getLogger("bentoml").isEnabledFor(logging.DEBUG):
            error = record.exc_info[1]
            if error is not None and _is_of_the_request(error):
                return False
            record.exception = None if error is None else places(error)
            record.exc_info = record.exc_text = None
        message = record.getMessage()
        if exception := getattr(record, "exception", None):
            message = f"{message.rstrip()}: {exception}"
        record.msg, record.args = escaped(message) if _CONTROL.search(message) else message, None
        return True


def _is_of_the_request(error: BaseException) -> bool:
    """Whether the request is wrong. BentoML's exceptions have a status."""
    status = getattr(error, "error_code", None)
    is_refused = isinstance(status, HTTPStatus) and status < HTTPStatus.INTERNAL_SERVER_ERROR
    return isinstance(error, ValidationError) or is_refused


def places(error: BaseException) -> str:
    """The type of an exception and where it came through, as one line: ``ValueError at a.py:3 in f < b.py:9 in g``."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    frames = [
        f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} in {frame.name}"
        for frame in reversed(traceback.extract_tb(error.__traceback__))
    ]
    left_out = [f"{len(frames) - MAX_PLACES} more"] if len(frames) > MAX_PLACES else []
    kinds = " caused by ".join(type(one).__name__ for one in chain[:3])
    return f"{kinds} at {' < '.join([*frames[:MAX_PLACES], *left_out])}" if frames else kinds
