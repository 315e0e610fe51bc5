"""A body that is read whole, and given on to who reads it next."""

from starlette.types import Message, Receive


async def read_whole(receive: Receive) -> bytes | None:
    """The whole body of a request; None if its client left before it was complete."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def give_again(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives ``body`` and then goes on as the given one."""
    left = [body]

    async def again() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return again
