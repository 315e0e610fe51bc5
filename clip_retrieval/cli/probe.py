"""The requests with which the command asks the service that it has started. They need no package: the start waits."""

import http.client
import json
import ssl
from collections.abc import Mapping
from contextlib import closing
from urllib.parse import urlsplit

READY_TIMEOUT_S = 2
QUERY_TIMEOUT_S = 60
QUERY = {"text": "a red panda", "k": 3}
"""The query that is shown to try, and whose answer ends the profile of a start."""


def is_ready(url: str, *, asks_clients: bool) -> bool:
    """Whether the service at ``url`` answers that it is ready.

    Over TLS that is all that is asked: the certificate is for the names by which others reach it. A service that
    ``asks_clients`` for a certificate ends the connection, since we have none; before its workers are ready nobody
    does.
    """
    try:
        return _status(url, "GET", "/readyz", READY_TIMEOUT_S) < http.client.BAD_REQUEST
    except (ssl.SSLError, ConnectionResetError, ConnectionAbortedError, http.client.BadStatusLine):
        return asks_clients
    except (OSError, http.client.HTTPException):
        return False


def first_answer(url: str, key: str | None) -> int:
    """The status of the answer to ``QUERY``. Raises OSError and http.client.HTTPException if none comes."""
    headers = {"Content-Type": "application/json", **({"X-API-Key": key} if key else {})}
    return _status(url, "POST", "/search/images", QUERY_TIMEOUT_S, json.dumps(QUERY), headers)


def _status(
    url: str, method: str, path: str, timeout_s: float, body: str | None = None, headers: Mapping[str, str] = {}
) -> int:
    parts = urlsplit(url)
    assert parts.hostname is not None, "the URL is one that we made"
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
    if parts.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout_s, context=context)
    with closing(connection):
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        answer.read()
        return answer.status
