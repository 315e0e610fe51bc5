"""What the description of the API calls each operation, and the order in which it shows them: search first.

An id is what generators of clients name a method by. Where the typed client has such a method, it is its name.
"""

from collections.abc import Mapping
from typing import Any

from fastapi.routing import APIRoute

GROUPS: Mapping[str, tuple[str, Mapping[tuple[str, str], str]]] = {
    "Search": (
        "Words and images to images and captions.",
        {
            ("/search/images", "post"): "search_images",
            ("/search/text", "post"): "search_captions",
            ("/search/similar", "post"): "search_similar",
            ("/search", "post"): "search",
            ("/search/batch", "post"): "search_batch",
            ("/clicks", "post"): "click",
        },
    ),
    "Collection": (
        "What is searched.",
        {
            ("/", "get"): "info",
            ("/fields", "get"): "fields",
            ("/examples", "get"): "examples",
            ("/images", "get"): "images_page",
            ("/images/{image_id}", "get"): "image",
            ("/thumbnails/{size}/{image_id}", "get"): "thumbnail",
            ("/originals/{image_id}", "get"): "original",
        },
    ),
    "Vectors": (
        "Texts and images to unit vectors.",
        {
            ("/encode/text", "post"): "encode_text",
            ("/encode/image", "post"): "encode_image",
            ("/encode_texts", "post"): "encode_texts",
            ("/encode_images", "post"): "encode_images",
        },
    ),
    "OpenAI": (
        "The same for OpenAI's clients; errors have their form.",
        {
            ("/v1/embeddings", "post"): "create_embeddings",
            ("/v1/models", "get"): "list_models",
            ("/v1/models/{model}", "get"): "get_model",
        },
    ),
    "Changes": (
        "Images are added, changed and removed while the collection is served.",
        {
            ("/images", "post"): "add_image",
            ("/images/{image_id}", "put"): "put_image",
            ("/images/{image_id}", "patch"): "patch_image",
            ("/images/{image_id}", "delete"): "delete_image",
            ("/changes", "post"): "change",
        },
    ),
    "Operation": (
        "How the service does, and what it serves.",
        {
            ("/health", "get"): "health",
            ("/stats", "get"): "stats",
            ("/metrics", "get"): "metrics",
            ("/livez", "get"): "livez",
            ("/readyz", "get"): "readyz",
            ("/healthz", "get"): "healthz",
            ("/artifact", "get"): "artifact",
            ("/artifact", "post"): "swap",
            ("/compact", "post"): "compact",
            ("/cache/clear", "post"): "clear_cache",
        },
    ),
}
"""By the name of a group: what it is, and the id of each operation by path and method."""

IDS = {place: name for _, operations in GROUPS.values() for place, name in operations.items()}


def operation_id(route: APIRoute) -> str:
    """The id of a route's operation; FastAPI's own has the path and the method in it."""
    places = [(route.path_format, method.lower()) for method in route.methods or ()]
    return next((IDS[place] for place in places if place in IDS), route.name)


def in_groups(description: dict[str, Any]) -> dict[str, Any]:
    """The description with its operations in their groups, by name and in this order."""
    described = description["paths"]
    paths: dict[str, dict[str, Any]] = {path: {} for _, operations in GROUPS.values() for path, _ in operations}
    for group, (_, operations) in GROUPS.items():
        for (path, method), name in operations.items():
            paths[path][method] = described[path][method] | {"tags": [group], "operationId": name}
    tags = [{"name": group, "description": about} for group, (about, _) in GROUPS.items()]
    ordered = {path: described[path] | operations for path, operations in paths.items()}
    return {**description, "paths": {**ordered, **_without(described, ordered)}, "tags": tags}


def _without(all_: Mapping[str, Any], some: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in all_.items() if name not in some}
