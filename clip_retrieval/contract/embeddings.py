"""Embeddings in the form of OpenAI's API, and the models that are served (https://platform.openai.com/docs/api-reference).

Images come as data URIs: in the content parts of OpenAI's chat, as other servers of CLIP take them (``image_url``), as
Jina's API takes them (``image``), or as plain strings.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from clip_retrieval.contract.base import MAX_TEXT, Frozen, Int, Strict, Text

MAX_INPUTS = 1024
"""Texts and images of one request."""
MAX_USER = 1000
DATA_URI = "data:image/"

TOKENS = (
    "lists of token ids are not read, since each model has a tokenizer of its own; send texts "
    "(in LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"
)

ImageText = Annotated[
    str, Field(min_length=1, description="An image file as a data URI (`data:image/png;base64,…`) or in base64.")
]


class TextPart(Strict):
    """A text as a content part."""

    type: Literal["text"] = "text"
    text: Text


class ImageUrl(Strict):
    """Where an image is: in the URL itself, since this service fetches nothing."""

    url: ImageText
    detail: Literal["auto", "low", "high"] = Field("auto", description="Has no effect: a model has one size of images.")


class ImageUrlPart(Strict):
    """An image as a content part."""

    type: Literal["image_url"] = "image_url"
    image_url: ImageUrl


class ImagePart(Strict):
    """An image, as Jina's API has it."""

    image: ImageText


def _kind(given: Any) -> str:
    if not isinstance(given, dict | Strict):
        return "<string>"
    names = given if isinstance(given, dict) else type(given).model_fields
    return next((f"<{name}>" for name in ("image_url", "image") if name in names), "<text>")


String = Annotated[
    str,
    Field(
        min_length=1,
        description=f"A text of at most {MAX_TEXT} characters; or an image, if it is a data URI of one or if "
        "`modality` says so.",
    ),
]
Item = Annotated[
    Annotated[String, Tag("<string>")]
    | Annotated[TextPart, Tag("<text>")]
    | Annotated[ImageUrlPart, Tag("<image_url>")]
    | Annotated[ImagePart, Tag("<image>")],
    Discriminator(_kind),
]


def _one_or_many(given: Any) -> str:
    return "<many>" if isinstance(given, list) else "<one>"


class Content(NamedTuple):
    """One input: a text, or an image in base64 or as a data URI."""

    kind: Literal["text", "image"]
    value: str


class EmbeddingsRequest(Strict):
    """Texts and images to encode."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"input": ["a red panda", "an owl"], "encoding_format": "float"}]}
    )

    input: Annotated[
        Annotated[Item, Tag("<one>")]
        | Annotated[list[Item], Field(min_length=1, max_length=MAX_INPUTS), Tag("<many>")],
        Discriminator(_one_or_many),
    ]
    model: str | None = Field(
        None, min_length=1, description="An `id` of `GET /v1/models`; without it, the model that is served."
    )
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="`base64`: float32, little-endian, as OpenAI's clients ask for it by themselves."
    )
    dimensions: Int | None = Field(None, ge=1, description="Must be the model's own, if it is given.")
    modality: Literal["text", "image"] = Field("text", description="What the plain strings of `input` are.")
    user: str | None = Field(None, max_length=MAX_USER, description="Has no effect: the API key says who asks.")

    @field_validator("input", mode="before")
    @classmethod
    def _no_tokens(cls, given: Any) -> Any:
        if isinstance(given, list) and given:
            first = given[0]
            if isinstance(first, list | int) and not isinstance(first, bool):
                raise ValueError(TOKENS)
        return given

    @model_validator(mode="after")
    def _texts_are_short(self) -> Self:
        for place, content in enumerate(self.contents()):
            where = f"input.{place}" if isinstance(self.input, list) else "input"
            if content.kind == "text" and len(content.value) > MAX_TEXT:
                raise ValueError(f"{where}: a text must have at most {MAX_TEXT} characters, not {len(content.value)}")
            if not content.value.strip():
                raise ValueError(f"{where}: must have a character that is not white space")
        return self

    def contents(self) -> Iterator[Content]:
        """Every input, in order."""
        for item in self.input if isinstance(self.input, list) else [self.input]:
            match item:
                case TextPart():
                    yield Content("text", item.text)
                case ImageUrlPart():
                    yield Content("image", item.image_url.url)
                case ImagePart():
                    yield Content("image", item.image)
                case _:
                    is_image = self.modality == "image" or item[: len(DATA_URI)].lower() == DATA_URI
                    yield Content("image" if is_image else "text", item)


class Embedding(Frozen):
    """The unit vector of one input."""

    object: Literal["embedding"] = "embedding"
    index: int = Field(description="The place of the input, from 0.")
    embedding: list[float] | str = Field(description="The vector; a text in base64 if that was asked for.")
    truncated: bool = Field(False, description="Whether the model read only the beginning of the text.")


class Usage(Frozen):
    """The tokens of all texts that the model reads; an image has none."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(Frozen):
    """A vector for each input, in order."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class Model(Frozen):
    """The model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When the artifact was built, in seconds since 1970.")
    owned_by: str
    dimensions: int = Field(description="The length of its vectors.")


class ModelList(Frozen):
    """The models that are served: one."""

    object: Literal["list"] = "list"
    data: list[Model]


class OpenAiError(Frozen):
    """What is wrong, as OpenAI's clients read it."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class OpenAiErrorBody(Frozen):
    """The body of every answer of 400 and above below ``/v1/``."""

    error: OpenAiError
