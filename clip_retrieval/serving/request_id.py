"""The id of the request that is being answered, for the lines that are logged meanwhile."""

import logging
from contextvars import ContextVar

CURRENT: ContextVar[str] = ContextVar("request_id", default="")
"""Empty outside of a request, and in work that several requests share."""


class NameRequest(logging.Filter):
    """Puts the id of the request at the end of a warning or an error in a plain log."""

    def filter(self, record: logging.LogRecord) -> bool:
        request_id = CURRENT.get()
        if request_id and record.levelno >= logging.WARNING and not getattr(record, "is_named", False):
            record.is_named = True  # several handlers may see it
            record.msg, record.args = f"{record.getMessage()} (request {request_id})", ()
        return True
