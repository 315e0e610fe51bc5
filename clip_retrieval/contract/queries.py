"""Requests: composed searches, and the short requests with one text. ``answers.py`` has the answers.

    search([text("a dog"), image("park.jpg"), text("snow", -0.5)], where={"year": {"gte": 2020}})

This is the same call on the client and on the retriever. Needs pydantic only.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clip_retrieval.contract.base import (
    DEFAULT_K,
    Bool,
    Float,
    ImageId,
    Int,
    K,
    Language,
    MinConfidence,
    SearchMode,
    Strict,
    Text,
    describe,
)
from clip_retrieval.contract.conditions import MAX_NAME, Filter
from clip_retrieval.contract.image_input import ImageInput, read_image_input
from clip_retrieval.errors import InvalidQuery
from clip_retrieval.records import Modality, Mode

MAX_PARTS = 16
MAX_WEIGHT = 10.0
MAX_OFFSET = 10_000
MAX_SEARCHES = 64

Where = Mapping[str, Any] | str
"""Conditions as ``POST /search`` takes them: by field, a value or a mapping of operators; or as a text."""

M = TypeVar("M", bound=BaseModel)


class Part(Strict):
    """One text, one uploaded image or one image of the collection, with its weight in the query."""

    text: Text | None = None
    image: str | None = Field(None, min_length=1, description="The bytes of an image file in base64.")
    image_id: ImageId | None = None
    weight: Float = Field(
        1.0,
        ge=-MAX_WEIGHT,
        le=MAX_WEIGHT,
        allow_inf_nan=False,
        description="Must not be 0; a negative weight subtracts.",
    )
    language: Language | None = None

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        given = [name for name in ("text", "image", "image_id") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of text, image and image_id, not {' and '.join(given) or 'none of them'}"
            )
        if self.language is not None and self.text is None:
            raise ValueError(f"language is that of a text, and this part has {given[0]}; leave language out")
        if self.weight == 0:
            raise ValueError("a weight of 0 has no effect; leave this part out")
        return self


EXAMPLE: Any = {
    "queries": [
        {"text": "a dog"},
        {"image_id": "images/animals-owl.jpg", "weight": 0.5},
        {"text": "snow", "weight": -0.5},
    ],
    "k": 5,
}


def _by_name(given: Any) -> Any:
    return {"field": given} if isinstance(given, str) else given


class Sort(Strict):
    """An order for images that no query ranks. Images without a value come last."""

    field: str | None = Field(
        default=None, max_length=MAX_NAME, description="A field of `GET /fields`; null for the ids, by code points."
    )
    descending: Bool = False

    _named = model_validator(mode="before")(_by_name)


class SearchRequest(Strict):
    """A search for images or captions with any mix of texts and images; without `queries`, a look at the images."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    queries: list[Part] = Field(
        default_factory=list,
        max_length=MAX_PARTS,
        description="May be left out where `where` or `sort` says which images to show in which order.",
    )
    target: Modality = "images"
    k: K = DEFAULT_K
    offset: Int = Field(0, ge=0, le=MAX_OFFSET, description="How many results to skip; see `next_offset`.")
    min_score: Float | None = Field(
        None, ge=-1, le=1, allow_inf_nan=False, description="The lowest score that a result may have."
    )
    min_confidence: MinConfidence | None = None
    mode: SearchMode = "vector"
    dedupe: Bool = Field(False, description="Whether near-duplicates are folded into the best of them.")
    where: Filter | None = None
    sort: Sort | None = Field(None, description="The order of images without `queries`: an object, or a field's name.")
    state: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_NAME,
        description="The `state` of an earlier page: this page comes from the same state of the collection.",
    )

    @model_validator(mode="after")
    def _ranked_or_not(self) -> Self:
        if self.queries:
            if self.sort is not None:
                raise ValueError(
                    "sort: is for a search without queries; results of queries are in the order of their scores"
                )
            return self
        if self.where is None and self.sort is None:
            raise ValueError("queries: must have at least 1 item, unless where or sort asks for images without a query")
        asked = (self.min_score is not None, self.min_confidence, self.dedupe)
        given = [
            name for name, is_given in zip(("min_score", "min_confidence", "dedupe"), asked, strict=True) if is_given
        ]
        if self.target != "images":
            raise ValueError("target: a search without queries finds images; give queries, or leave it out")
        if self.mode != "vector":
            raise ValueError(f"mode: {self.mode} needs a text; give queries, or leave it out")
        if given:
            raise ValueError(f"{given[0]}: needs scores, and a search without queries has none; leave it out")
        return self


class SearchBatchRequest(Strict):
    """Several searches. Each is checked on its own, so that a wrong search does not fail the others."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"searches": [{"queries": [{"text": "a dog"}]}]}]})

    searches: list[Any] = Field(min_length=1, max_length=MAX_SEARCHES, description="Each is a body of `POST /search`.")


def text(words: str, weight: float = 1.0, language: str | None = None) -> Part:
    """A text as a part of a query; ``language`` is a code such as ``deu_Latn``, for models that mark texts with it.

    Raises InvalidQuery if the text is blank or too long or the weight is out of bounds.
    """
    return checked(Part, text=words, weight=weight, language=language)


def image(given: ImageInput, weight: float = 1.0) -> Part:
    """An image as a part of a query: a path, the bytes of an image file, an open file or a PIL image.

    Raises InvalidQuery if it is empty or the weight is out of bounds, and OSError if a file cannot be read.
    """
    return checked(Part, image=base64.b64encode(read_image_input(given)[1]).decode(), weight=weight)


def image_id(identity: str, weight: float = 1.0) -> Part:
    """An image of the collection, by its id, as a part of a query. Raises InvalidQuery as ``text`` does."""
    return checked(Part, image_id=identity, weight=weight)


def search_request(
    queries: Sequence[Part],
    *,
    target: Modality = "images",
    k: int = DEFAULT_K,
    offset: int = 0,
    min_score: float | None = None,
    min_confidence: float | None = None,
    dedupe: bool = False,
    where: Where | None = None,
    state: str | None = None,
    mode: Mode = "vector",
) -> SearchRequest:
    """A search. Raises InvalidQuery if a value is out of bounds, or if there are no queries: see ``browse_request``."""
    if not queries:
        raise InvalidQuery("queries: must have at least 1 item; browse shows images without a query")
    return checked(
        SearchRequest,
        queries=list(queries),
        target=target,
        k=k,
        offset=offset,
        min_score=min_score,
        min_confidence=min_confidence,
        dedupe=dedupe,
        where=where,
        state=state,
        mode=mode,
    )


def browse_request(
    *,
    k: int = DEFAULT_K,
    offset: int = 0,
    where: Where | None = None,
    sort: Sort | str | None = None,
    state: str | None = None,
) -> SearchRequest:
    """A look at the images that fulfil ``where``, in the order of ``sort``: a field, by default the id.

    Raises InvalidQuery if a value is out of bounds.
    """
    order = Sort() if sort is None else sort
    return checked(SearchRequest, queries=[], k=k, offset=offset, where=where, sort=order, state=state)


def checked(model: Callable[..., M], **values: Any) -> M:
    """``model(**values)``. Raises InvalidQuery that names each field that pydantic found wrong."""
    try:
        return model(**values)
    except ValidationError as error:
        raise InvalidQuery(describe(error.errors())) from None


class SearchImagesRequest(Strict):
    """A search for images with one text."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "a red panda", "k": 5}]})

    text: Text
    k: K = DEFAULT_K
    language: Language | None = None
    where: Filter | None = None
    min_confidence: MinConfidence | None = None
    mode: SearchMode = "vector"


class EncodeTextRequest(Strict):
    """A text to encode."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "a red panda"}]})

    text: Text
    language: Language | None = None


def _or_a_string(schema: dict[str, Any]) -> None:
    form = dict(schema)
    schema.clear()
    schema["anyOf"] = [form["properties"]["text"], form]


class TextToEncode(EncodeTextRequest):
    """A text, alone or with its language."""

    model_config = ConfigDict(json_schema_extra=_or_a_string)

    @model_validator(mode="before")
    @classmethod
    def _of_a_string(cls, given: Any) -> Any:
        return {"text": given} if isinstance(given, str) else given
