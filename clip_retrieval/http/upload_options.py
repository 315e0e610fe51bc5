"""What the URL or the form of an upload says beside the image: how many results, and which.

Each may stand in either, not in both.
"""

from http import HTTPStatus
from typing import Annotated, NamedTuple

from fastapi import Depends, Form, Request
from fastapi import Query as QueryParameter
from starlette.exceptions import HTTPException

from clip_retrieval.contract.base import DEFAULT_K, MAX_K
from clip_retrieval.contract.conditions import Conditions, read_conditions

FIELDS = frozenset({"k", "where", "min_confidence"})
"""The names of these options."""
WHERE = "Which images may be found: `year >= 2020 and not place = Paris`, or the JSON of a `where`."
LEAST = "The least `confidence` that a result may have."


class UploadOptions(NamedTuple):
    """The options of a search with an upload."""

    k: int
    where: Conditions | None
    min_confidence: float | None


async def _options(
    request: Request,
    k: Annotated[int, QueryParameter(ge=1, le=MAX_K, description="How many results.")] = DEFAULT_K,
    where: Annotated[str | None, QueryParameter(description=WHERE)] = None,
    min_confidence: Annotated[float | None, QueryParameter(ge=0, lt=1, description=LEAST)] = None,
    form_k: Annotated[
        int | None, Form(alias="k", ge=1, le=MAX_K, description="How many results, if the URL does not say it.")
    ] = None,
    form_where: Annotated[str | None, Form(alias="where", description=f"{WHERE} If the URL does not say it.")] = None,
    form_min_confidence: Annotated[
        float | None, Form(alias="min_confidence", ge=0, lt=1, description=f"{LEAST} If the URL does not say it.")
    ] = None,
) -> UploadOptions:
    for name, in_form in (("k", form_k), ("where", form_where), ("min_confidence", form_min_confidence)):
        if in_form is not None and name in request.query_params:
            raise HTTPException(
                HTTPStatus.UNPROCESSABLE_ENTITY, f"{name}: give it in the URL or in the form, not in both"
            )
    text = where if form_where is None else form_where
    return UploadOptions(
        k if form_k is None else form_k,
        None if text is None else read_conditions(text),
        min_confidence if form_min_confidence is None else form_min_confidence,
    )


Options = Annotated[UploadOptions, Depends(_options)]
