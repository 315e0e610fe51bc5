"""What the description of the API says of keys: the schemes, and what each operation needs."""

from typing import Any

from clip_retrieval.http.policy import ROUTES, RoutePolicy

SCHEMES = {
    "Bearer": {"type": "http", "scheme": "bearer", "description": "An API key, as `Authorization: Bearer KEY`."},
    "X-API-Key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
}


def describe_keys(description: dict[str, Any], *, asks_for_keys: bool) -> dict[str, Any]:
    """An OpenAPI description with security for each operation, by the table of routes.

    ``asks_for_keys``: whether the service lets nobody search without a key.
    """
    description.setdefault("components", {})["securitySchemes"] = SCHEMES
    for path, operations in description["paths"].items():
        rows = ROUTES[path.replace(":path}", "}")]
        for method, operation in operations.items():
            _describe(operation, rows[method.upper()], asks_for_keys=asks_for_keys)
    return description


def _describe(operation: dict[str, Any], row: RoutePolicy, *, asks_for_keys: bool) -> None:
    if row.needs == "nothing":
        return
    ways: list[dict[str, list[str]]] = [{name: []} for name in SCHEMES]
    is_open = row.needs in {"page", "metrics", "docs"} or not asks_for_keys
    operation["security"] = [*ways, {}] if is_open else ways
