"""The description of the API in OpenAPI 3.1: FastAPI's, with what it cannot know.

Middleware answers too, before any handler: the table of routes says with which status. BentoML's own routes are not
FastAPI's. An upload has ``format: binary``, which generators of clients take for a file; FastAPI writes only the
``contentMediaType`` of JSON Schema.
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from clip_retrieval.contract.base import ErrorBody
from clip_retrieval.contract.embeddings import OpenAiErrorBody
from clip_retrieval.contract.queries import TextToEncode
from clip_retrieval.http.described_keys import describe_keys
from clip_retrieval.http.described_operations import in_groups
from clip_retrieval.http.error_response import OPENAI
from clip_retrieval.http.policy import JSON, ROUTES, RoutePolicy
from clip_retrieval.serving.native_inputs import MAX_NATIVE_BATCH

TEXT = "text/plain"
_BINARY = "application/octet-stream"

STATUSES: Mapping[int, str] = {
    400: "The request is malformed, or brings two different API keys.",
    401: "No API key came where one is needed, or one that is not accepted.",
    403: "The API key allows too little, the service is read-only, or the page of another site asks for a change.",
    408: "The body did not come in time.",
    413: "The body is over the limit of bytes.",
    415: "The body is not of the kind that is read here, or the upload is not an image.",
    422: "A value is out of range.",
    429: "The caller's limit is reached; Retry-After says when the same request would be taken.",
    500: "The service failed; its log says why.",
    503: "The service starts, or has more requests than it can serve; Retry-After says when to come back.",
    504: "There was no answer in time.",
}
"""What middleware answers. A route that has its own words for a status keeps them."""

ABOUT = (
    "Every answer of 400 and above is JSON with `error` and `detail`; below `/v1/`, with `error.message`. Beside the "
    "answers of each operation, any request may get 400 for a head that is malformed or too long, 404 for a path that "
    "is not served, 405 with `Allow` for another method, and 421 for the name of another host."
)

_EXAMPLES = {
    "texts": "a red panda",
    "images": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGM4AQAAygDJmcpdfgAAAABJRU5ErkJggg==",
}
"""The image is a grey pixel as a PNG file."""
_PROBES = {"/livez": "Whether the process lives", "/readyz": "Whether queries are answered", "/healthz": "As /livez"}
_ANSWER_WHILE_STARTING = {"/health", "/stats", "/metrics", "/livez", "/healthz"}


def complete(schema: dict[str, Any]) -> dict[str, Any]:
    """Add to FastAPI's description what middleware answers, BentoML's routes and the format of uploads; returns it."""
    schema["info"]["description"] = ABOUT
    schema["paths"].update(_routes_of_bentoml())
    schemas = schema["components"]["schemas"]
    schemas["ErrorBody"] = ErrorBody.model_json_schema()
    schemas["OpenAiErrorBody"] = OpenAiErrorBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= schemas["OpenAiErrorBody"].pop("$defs")
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            _add_statuses(operation["responses"], path, method.upper())
            if path.startswith(OPENAI):
                _answer_as_openai(operation["responses"])
    for model in ("HTTPValidationError", "ValidationError"):  # no answer has this form
        schemas.pop(model, None)
    for name, form in schemas.items():
        if name.startswith("Body_"):
            _mend_form(form)
    return in_groups(schema)


def describe_api(app: FastAPI, *, asks_for_keys: Callable[[], bool]) -> None:
    """Have ``app`` serve the whole description; ``asks_for_keys`` is asked when a client first wants it."""
    fastapi_s_own = app.openapi

    def whole() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe_keys(complete(fastapi_s_own()), asks_for_keys=asks_for_keys())
        return app.openapi_schema

    app.openapi = whole  # type: ignore[method-assign] # https://fastapi.tiangolo.com/how-to/extending-openapi/


def statuses_of(path: str, method: str, policy: RoutePolicy) -> set[int]:
    """The statuses of 400 and above that the middleware may give to a request for a route."""
    statuses = {500}
    if path not in _ANSWER_WHILE_STARTING:
        statuses.add(503)
    if not policy.always_answers:
        statuses |= {429, 504}
    if method != "GET":
        statuses |= {408, 413, 415}  # 415: a Content-Encoding that is not read
    if policy.media_type is not None:
        statuses |= {400, 413, 415, 422}
    if policy.query is not None:
        statuses.add(422)
    if policy.needs != "nothing":
        statuses |= {400, 401, 403}
    return statuses


def _add_statuses(responses: dict[str, Any], path: str, method: str) -> None:
    if "HTTPValidationError" in str(responses.get("422")):
        responses["422"] = _error(STATUSES[422])
    for status in sorted(statuses_of(path, method, ROUTES[path][method])):
        responses.setdefault(str(status), _error(STATUSES[status]))


def _error(text: str) -> dict[str, Any]:
    return {"description": text, "content": {JSON: {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}}


def _answer_as_openai(responses: dict[str, Any]) -> None:
    for status, answer in responses.items():
        if int(status) >= HTTPStatus.BAD_REQUEST:
            answer["content"] = {JSON: {"schema": {"$ref": "#/components/schemas/OpenAiErrorBody"}}}


def _mend_form(form: dict[str, Any]) -> None:
    """A form has files, and no null: a field that is empty counts as left out, as browsers send it."""
    for name, field in form["properties"].items():
        if field.get("contentMediaType") == _BINARY:
            field["format"] = "binary"
        if {"type": "null"} in field.get("anyOf", ()):
            [value] = [one for one in field.pop("anyOf") if one != {"type": "null"}]
            field.update({**value, **field})
        if field.get("type") == "array":  # a form cannot tell a list of one from the one
            field["anyOf"] = [{"type": field.pop("type"), "items": field.pop("items")}, {"type": "string"}]
        if name not in form.get("required", ()):
            field.pop("minLength", None)
            if "enum" in field:
                field["enum"] = [*field["enum"], ""]


def _routes_of_bentoml() -> dict[str, Any]:
    vectors = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
    texts = TextToEncode.model_json_schema()
    image = {"type": "string", "minLength": 1, "description": "The bytes of an image file in base64."}
    return {
        "/encode_texts": {"post": _native("Texts to their vectors, in BentoML's form", "texts", texts, vectors)},
        "/encode_images": {"post": _native("Images to their vectors, in BentoML's form", "images", image, vectors)},
        "/metrics": {"get": _get("The metrics, for Prometheus")},
        **{path: {"get": _get(summary)} for path, summary in _PROBES.items()},
    }


def _native(summary: str, name: str, item: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    items = {"type": "array", "items": item, "minItems": 1, "maxItems": MAX_NATIVE_BATCH}
    body = {
        "type": "object",
        "properties": {name: items},
        "required": [name],
        "title": f"Encode{name.title()}",
        "examples": [{name: [_EXAMPLES[name]]}],
    }
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {JSON: {"schema": body}}},
        "responses": {"200": {"description": "A row each, in order.", "content": {JSON: {"schema": answer}}}},
    }


def _get(summary: str) -> dict[str, Any]:
    answer = {"description": "Successful Response", "content": {TEXT: {"schema": {"type": "string"}}}}
    return {"summary": summary, "responses": {"200": answer}}
