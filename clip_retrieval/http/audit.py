"""The record of changes: a line for each, with who made it. It is written whatever the access log does.

put image_id="park.jpg" sequence=12 created=true who="key:anna" address="10.0.0.7" request_id="5f2c…"
"""

import json
import logging
from dataclasses import dataclass

from starlette.types import Scope

from clip_retrieval.access.caller import NOBODY
from clip_retrieval.http.request_context import RequestContext, request_id_of

LOGGER = "bentoml.audit"
"""A child of the logger that BentoML gives a handler."""

log = logging.getLogger(LOGGER)


@dataclass(frozen=True, slots=True)
class Auditor:
    """Writes down what one request changes, in any thread."""

    who: str
    address: str
    request_id: str

    @classmethod
    def of(cls, scope: Scope) -> "Auditor":
        context = RequestContext.of(scope)
        caller = NOBODY if context is None else context.caller
        return cls(caller.name, caller.address, request_id_of(scope))

    def note(self, what: str, **facts: str | int | None) -> None:
        """A line that says ``what`` was done, with its facts. Values are JSON, so that none looks like another line."""
        if not log.isEnabledFor(logging.INFO):
            return
        fields = facts | {"who": self.who, "address": self.address, "request_id": self.request_id}
        words = " ".join(f"{name}={json.dumps(value)}" for name, value in fields.items())
        log.info("%s %s", what, words, extra={"audit": {"what": what, **fields}})
