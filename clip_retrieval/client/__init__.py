"""The typed client of the HTTP API. Needs httpx and pydantic only.

retries.py        httpx transports that send a request again after an overload or a failed connection
endpoints.py      one call per endpoint: its request, and how its answer is read
change_calls.py   those that change the collection
change_methods.py the methods of both clients for these
clients.py        ``Client`` and ``AsyncClient``
"""

import warnings

from clip_retrieval.client.clients import DEFAULT_TIMEOUT, AsyncClient, Client, Retries, image, image_id, text
from clip_retrieval.contract.changes import delete, patch, put
from clip_retrieval.contract.image_input import ImageInput
from clip_retrieval.contract.queries import Part, search_request

__all__ = [
    "DEFAULT_TIMEOUT",
    "AsyncClient",
    "Client",
    "ImageInput",
    "Retries",
    "delete",
    "image",
    "image_id",
    "patch",
    "put",
    "search_request",
    "text",
]


def picture(given: ImageInput, weight: float = 1.0) -> Part:
    """The former name of ``image``."""
    warnings.warn("clip_retrieval.client.picture is now called image", DeprecationWarning, stacklevel=2)
    return image(given, weight)
