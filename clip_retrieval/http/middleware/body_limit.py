"""A request body that is counted while it is read, and refused once it is too large."""

from starlette.types import Message, Receive, Send

DRAIN_BYTES = 64 * 2**20
"""How much of a body that is too large is read and dropped, so that the client gets to see the answer."""


class BodyTooLarge(Exception):
    """Raised into the reader of a body that is over its limit."""


class LimitedBody:
    """Wraps ``receive`` and ``send`` of one request.

    Frameworks swallow an exception of the body's reader and answer something else, so nothing is sent any more once
    the body is too large: the answer is up to the owner of this object.
    """

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self._receive = receive
        self._send = send
        self._limit = limit
        self._read = 0
        self._is_complete = False
        self.is_too_large = False
        self.is_answered = False
        """Whether an answer has begun."""

    async def receive(self) -> Message:
        """The next message. Raises BodyTooLarge."""
        message = await self._receive()
        self._read += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)
        if self._read > self._limit:
            self.is_too_large = True
            raise BodyTooLarge
        return message

    async def send(self, message: Message) -> None:
        if not self.is_too_large:
            self.is_answered = True
            await self._send(message)

    async def drain(self) -> None:
        """Read and drop the rest of the body, or as much of it as a client may be expected to send in vain."""
        left = DRAIN_BYTES - self._read
        while not self._is_complete and left > 0:
            message = await self._receive()
            if message["type"] != "http.request":
                return
            left -= len(message.get("body", b""))
            self._is_complete = not message.get("more_body", False)
