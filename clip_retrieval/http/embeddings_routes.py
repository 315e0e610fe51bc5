"""Embeddings and models in the form of OpenAI's API, for tools that speak it.

What is encoded goes through the same batches and the same cache of vectors as every query.
"""

import base64
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from clip_retrieval.access import cost
from clip_retrieval.contract.embeddings import (
    Content,
    EmbeddingsAnswer,
    EmbeddingsRequest,
    Model,
    ModelList,
)
from clip_retrieval.encoders.base import Vectors
from clip_retrieval.errors import ImageRejected, InvalidQuery
from clip_retrieval.http.any_text import MODEL
from clip_retrieval.http.exchange import Exchange
from clip_retrieval.http.request_context import caller_name, charge
from clip_retrieval.search.query import Base64Image
from clip_retrieval.search.searchable import SearchableCollection
from clip_retrieval.serving.large_bodies import read_by_size
from clip_retrieval.serving.query_service import EncodedInputs
from clip_retrieval.serving.state import ServerState

NO_MODEL: Mapping[int | str, dict[str, Any]] = {404: {"description": "Another model is served; the message names it."}}
JSON_BYTES_OF_VALUE = 20
"""What a number of a vector takes as JSON."""


def add_embeddings_routes(app: FastAPI, state: ServerState) -> None:
    @app.post(
        "/v1/embeddings",
        response_model=EmbeddingsAnswer,
        responses={**NO_MODEL},
        summary="Texts and images to their vectors, as OpenAI's clients ask",
    )
    async def embeddings(body: EmbeddingsRequest, request: Request) -> Response:
        exchange = Exchange(state, "embeddings")
        served = _model_of(exchange.collection)
        _check(body, served)
        contents = list(body.contents())
        texts = [content.value for content in contents if content.kind == "text"]
        images = [Base64Image(content.value) for content in contents if content.kind == "image"]
        await charge(request.scope, cost.TEXT * len(texts) + cost.IMAGE * len(images))
        with state.traffic.places(texts=len(set(texts)), images=len(images), caller=caller_name(request.scope)):
            encoded = await exchange.service.encode_all(texts, images)
        vectors, cut = _in_order(contents, images, encoded, is_list=isinstance(body.input, list))
        tokens = sum(encoded.texts[text].tokens for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        head: dict[str, object] = {"object": "list", "model": served.id, "usage": usage}
        size = JSON_BYTES_OF_VALUE * vectors.size
        answer = await read_by_size(size, partial(_render, head, vectors, cut, body.encoding_format == "base64"))
        return exchange.respond(answer, encoded.stages)

    @app.get("/v1/models", response_model=ModelList, summary="The model that is served, as OpenAI's clients ask")
    async def models() -> ModelList:
        return ModelList(data=[_model_of(state.require_service().retriever.collection)])

    @app.get(
        f"/v1/models/{MODEL}",
        response_model=Model,
        responses={**NO_MODEL},
        summary="Whether this model is served",
    )
    async def model(model: str) -> Model:
        served = _model_of(state.require_service().retriever.collection)
        _require(model, served)
        return served


def _model_of(collection: SearchableCollection) -> Model:
    manifest = collection.manifest
    encoder = manifest.encoder
    created = int(manifest.created.timestamp())
    return Model(id=encoder.name, created=created, owned_by="bento-clip", dimensions=encoder.dim)


def _require(name: str, served: Model) -> None:
    """Raises 404 for another model than is served: its vectors would be others than were asked for."""
    if name != served.id:
        raise HTTPException(
            HTTPStatus.NOT_FOUND, f"the model {name!r} is not served here; {served.id!r} is (GET /v1/models)"
        )


def _check(body: EmbeddingsRequest, served: Model) -> None:
    """Raises 404 for another model, and InvalidQuery for other dimensions."""
    if body.model is not None:
        _require(body.model, served)
    if body.dimensions not in {None, served.dimensions}:
        raise InvalidQuery(
            f"dimensions: the vectors of {served.id} have {served.dimensions}; they cannot be shortened to "
            f"{body.dimensions}, so leave it out"
        )


def _in_order(
    contents: list[Content], images: list[Base64Image], encoded: EncodedInputs, *, is_list: bool
) -> tuple[Vectors, list[bool]]:
    """The vector of each input, float32 (n, dim), and whether it is a text that was cut. Raises InvalidQuery."""
    vectors, cut = [], []
    next_image = iter(images)
    for place, content in enumerate(contents):
        if content.kind == "text":
            text = encoded.texts[content.value]
            vectors.append(text.encoded.vector)
            cut.append(text.is_cut)
            continue
        found = encoded.images[next(next_image).key]
        if isinstance(found, ImageRejected):
            raise InvalidQuery(f"{f'input.{place}' if is_list else 'input'}: {found}")
        vectors.append(found.vector)
        cut.append(False)
    return np.stack(vectors), cut


def _render(head: dict[str, object], vectors: Vectors, cut: list[bool], as_base64: bool) -> bytes:
    rows = vectors.astype("<f4")
    data = [
        {
            "object": "embedding",
            "index": place,
            "embedding": base64.b64encode(row.tobytes()).decode() if as_base64 else row.tolist(),
            "truncated": is_cut,
        }
        for place, (row, is_cut) in enumerate(zip(rows, cut, strict=True))
    ]
    return to_json({**head, "data": data})
