"""How the server reads HTTP: uvicorn's httptools, with what cannot be read answered as every other error is.

httptools parses in C: with h11, which is Python, a quarter of the event loop's time went into parsing. What it cannot
parse, an unknown method among it, never becomes a request, so that no middleware can give it the API's error body.
"""

from http import HTTPStatus

from uvicorn.config import HTTP_PROTOCOLS
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from clip_retrieval.middleware import error_response

HINT = "Its method is unknown, or there is a mistake in its first line, in a header or in how its body is sent."


class JsonErrorsProtocol(HttpToolsProtocol):
    """uvicorn's own protocol but for the body of its 400."""

    def send_400_response(self, msg: str) -> None:
        """Answer and close: where the next request would begin is not known."""
        response = error_response(HTTPStatus.BAD_REQUEST, f"{msg} {HINT}", {"Connection": "close"})
        head = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n%b\r\n%b" % (head, bytes(response.body)))
        self.transport.close()


def use_in_this_process() -> None:
    """Have uvicorn take it where nobody says which protocol to use; BentoML does not."""
    HTTP_PROTOCOLS["auto"] = f"{__name__}:{JsonErrorsProtocol.__name__}"
