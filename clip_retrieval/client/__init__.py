"""The typed client of the HTTP API. Needs httpx and pydantic only.

endpoints.py      one call an endpoint: its request, how its answer is read, when it is tried again
clients.py        ``Client`` and ``AsyncClient``
"""

from clip_retrieval.client.clients import AsyncClient, Client, image, image_id, text

__all__ = ["AsyncClient", "Client", "image", "image_id", "text"]
