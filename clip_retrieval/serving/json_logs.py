"""Logs as JSON, one object a line on standard output, for what collects the output of containers.

    {"time": "2026-11-23T20:51:07.412+00:00", "level": "info", "logger": "bentoml.access",
     "message": "POST /search/images 200", "method": "POST", "path": "/search/images", "status": 200,
     "duration_ms": 19.3, "request_bytes": 28, "response_bytes": 339, "client": "10.0.0.7:48912",
     "trace": "2ff68e6001bb2ada4b7f43e4b600f315", "span": "4cfb9c79d52eb1e2"}

An access line has these fields, every other line those to ``message``, ``trace`` and ``span`` within a request, and
``exception`` with the stack where there was one. BentoML makes the records; this only writes them down.
"""

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

ACCESS = "bentoml.access"
LOGGERS = ("", "bentoml", "uvicorn.error", "circus")
"""The loggers to which BentoML gives handlers; the first is the root."""

_REQUEST = re.compile(r"scheme=[^,]*,method=(?P<method>[^,]*),path=(?P<path>.*),type=.*,length=(?P<length>\d*)", re.S)
_RESPONSE = re.compile(r"status=(?P<status>\d+),type=.*,length=(?P<length>\d*)", re.S)
_TRACE = re.compile(r"trace=(?P<trace>\w+),span=(?P<span>\w+)")


def use_json() -> None:
    """Give every handler that BentoML has set up the JSON format, and have warnings logged too."""
    for name in LOGGERS:
        for handler in logging.getLogger(name).handlers:
            handler.setFormatter(JsonFormatter())
    logging.captureWarnings(True)


def skip_unused_fields() -> None:
    """Do not find out for each record what no format here shows: the caller, the thread and the process.

    The switches are those of "Optimization" in Python's logging HOWTO; an access line pays for each of them.
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
        if record.name == ACCESS:
            line |= _access(record.args)
        if trace := _TRACE.search(getattr(record, "trace_msg", "")):
            line |= trace.groupdict()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _access(parts: object) -> dict[str, Any]:
    """The fields of an access record, whose arguments are client, request, response and milliseconds."""
    if not isinstance(parts, tuple) or len(parts) != 4:
        return {}
    request, response = _REQUEST.fullmatch(str(parts[1])), _RESPONSE.fullmatch(str(parts[2]))
    if not request or not response:
        return {}
    return {
        "message": f"{request['method']} {request['path']} {response['status']}",
        "method": request["method"],
        "path": request["path"],
        "status": int(response["status"]),
        "duration_ms": round(parts[3], 3),
        "request_bytes": int(request["length"] or 0),
        "response_bytes": int(response["length"] or 0),
        "client": str(parts[0]),
    }
