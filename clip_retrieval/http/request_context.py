"""What the middleware knows of a request and passes on to what is inside of it."""

from dataclasses import dataclass

from starlette.types import Scope

from clip_retrieval.access.caller import NOBODY, Caller
from clip_retrieval.access.limits import Account
from clip_retrieval.http.policy import RoutePolicy

_KEY = "bento_clip"


@dataclass(slots=True)
class RequestContext:
    """One request: the row of its route, who sent it, and what it has paid."""

    policy: RoutePolicy
    caller: Caller = NOBODY
    account: Account | None = None
    """What it has paid of its caller's limit; None where there is no limit, or nothing to pay."""

    @staticmethod
    def of(scope: Scope) -> "RequestContext | None":
        """The context of a request that ``RouteCheck`` has let in; None for any other connection."""
        context: RequestContext | None = scope.get(_KEY)
        return context

    def put(self, scope: Scope) -> None:
        scope[_KEY] = self


async def charge(scope: Scope, cost: int) -> None:
    """Have a request pay what it costs in all, in the units of ``access/cost.py``.

    What its row costs it has paid before it was read. Raises LimitReached, and InvalidQuery if it is over the limit.
    """
    context = RequestContext.of(scope)
    if context is not None and context.account is not None:
        await context.account.settle(cost)


def caller_name(scope: Scope) -> str:
    """Whom limits count a request for; empty for one that no middleware has seen."""
    context = RequestContext.of(scope)
    return "" if context is None else context.caller.name


REQUEST_ID = "bento_clip_request_id"


def request_id_of(scope: Scope) -> str:
    """The id of a request; empty where ``RequestIds`` has not seen it."""
    given: str = scope.get(REQUEST_ID, "")
    return given


def header(scope: Scope, name: bytes) -> bytes:
    """The last header of this name, which is in lower case; empty if there is none."""
    return next((value for key, value in reversed(scope["headers"]) if key == name), b"")


def whole_list(scope: Scope, name: bytes) -> str:
    """All lines of a header whose value is a list, as one line (RFC 9110, section 5.3); empty if there is none.

    Who reads one line alone may read another one than who decides by it.
    """
    return ", ".join(value.decode("latin-1") for key, value in scope["headers"] if key == name)
