"""Logs as JSON, one object a line on standard output, for what collects the output of containers.

    {"time": "2026-11-23T20:51:07.412+00:00", "level": "info", "logger": "bentoml.access",
     "message": "POST /search/images 200", "method": "POST", "path": "/search/images", "status": 200,
     "duration_ms": 19.3, "request_bytes": 28, "response_bytes": 339, "client": "10.0.0.7:48912",
     "trace": "2ff68e6001bb2ada4b7f43e4b600f315", "span": "4cfb9c79d52eb1e2"}

An access line has these fields, and ``request_id`` and the name of the ``key``. Every other line has those to
``message``, within a request also ``request_id``, ``trace`` and ``span``, and ``exception`` with the stack where there
was one. A record's ``access`` attribute, a mapping, holds the fields of an access line, its ``audit`` attribute those
of a change; ``http/middleware/access_log.py`` and ``http/audit.py`` set them.
"""

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

from clip_retrieval.serving.log_lines import LOGGERS
from clip_retrieval.serving.request_id import CURRENT, NameRequest

_TRACE = re.compile(r"trace=(?P<trace>\w+),span=(?P<span>\w+)")


def use_json() -> None:
    """Give every handler that BentoML has set up the JSON format, and have warnings logged too."""
    for name in LOGGERS:
        for handler in logging.getLogger(name).handlers:
            handler.setFormatter(JsonFormatter())
    logging.captureWarnings(True)


def name_requests() -> None:
    """Have every warning and error of a plain log end with the id of the request that it is about."""
    for name in LOGGERS:
        for handler in logging.getLogger(name).handlers:
            if not any(isinstance(one, NameRequest) for one in handler.filters):  # several loggers share a handler
                handler.addFilter(NameRequest())


def skip_unused_fields() -> None:
    """Have records made without the caller, the thread and the process, which no format here shows.

    The switches are those of "Optimization" in Python's logging HOWTO. Every access line would pay for these fields.
    """
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if access := getattr(record, "access", None):
            line |= {"message": f"{access['method']} {access['path']} {access['status']}", **access}
        elif request_id := CURRENT.get():
            line["request_id"] = request_id
        if audit := getattr(record, "audit", None):
            line |= {"message": audit["what"], **audit}
        if trace := _TRACE.search(getattr(record, "trace_msg", "")):
            line |= trace.groupdict()
        if places := getattr(record, "exception", None):
            line["exception"] = places
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
