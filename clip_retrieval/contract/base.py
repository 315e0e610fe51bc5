"""The parts that all requests and answers of the API share: base models, bounds, scores, the error body."""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from clip_retrieval.contract.plain_words import in_plain_words
from clip_retrieval.records import MAX_ID_BYTES, Mode

MAX_K = 50
DEFAULT_K = 5
MAX_TEXT = 1000
"""Characters of a text query."""
MAX_LANGUAGE = 50
"""Characters of the code of a language."""
MAX_LISTED = 1000
DEFAULT_LISTED = 100
"""Images of one page of the list of all."""
MAX_PROBLEMS = 8
"""The number of problems of a request that an error names one by one."""


def _a_number(given: Any) -> Any:
    """As the description of the API says; pydantic alone would take "5" and true for numbers."""
    if isinstance(given, str | bool):
        raise ValueError(f"give a number, not {'true or false' if isinstance(given, bool) else 'a text'}")
    return given


def _true_or_false(given: Any) -> Any:
    if isinstance(given, str | int | float) and not isinstance(given, bool):
        raise ValueError("give true or false")
    return given


Int = Annotated[int, BeforeValidator(_a_number)]
Float = Annotated[float, BeforeValidator(_a_number)]
Bool = Annotated[bool, BeforeValidator(_true_or_false)]
"""Values of requests: what JSON calls so, and numpy's."""

DEFAULT_MIN_CONFIDENCE = 0.3
"""The bound of a collection that has the measure and chose none itself: see ``docs/queries.md``."""

MinConfidence = Annotated[
    Float,
    Field(
        ge=0,
        lt=1,
        allow_inf_nan=False,
        description="The least `confidence` that a result may have; 0 leaves nothing out. With it, 0 too, the "
        "`confidence` of a single text takes the nearest caption of the collection into account. Refused where there "
        "is no `confidence`.",
    ),
]

K = Annotated[
    Int,
    Field(
        ge=1,
        le=MAX_K,
        description="How many results to return. There are fewer if the collection has fewer that match.",
    ),
]

Text = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_TEXT,
        pattern=r"\S",
        description="The text to search for. The model reads a limited number of tokens; `truncated` says whether it "
        "reached the end.",
    ),
]

Language = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_LANGUAGE,
        description="The language of the text, for models that mark texts with it (NLLB's): a code of FLORES-200 such "
        "as `deu_Latn`. Without it, the language that the collection was built with. Other models refuse it.",
    ),
]

SearchMode = Annotated[
    Mode,
    Field(
        description="What finds: `vector`; `words`, the literal words of the texts in captions, file names and text "
        "fields; or `both`, in one order. Refused where the artifact has no words, and for queries without a text."
    ),
]

Score = Annotated[float, Field(description="Cosine of query and result in [-1, 1]; higher is better.")]

Confidence = Annotated[
    float | None,
    Field(
        description="The share of right answers at such a score, measured on the collection's own captions: from 0 to "
        "1, of as many right as wrong pairs; with `min_confidence`, for a single text, at such a distance to the "
        "nearest caption too. Null where the collection has no captions to measure it on, or where the "
        "query is not texts to images or images to captions."
    ),
]

Share = Annotated[
    float,
    Field(
        description="Softmax of the returned scores at the model's own logit scale: the weight of each result among "
        "the returned ones. It is not the probability that the result is right."
    ),
]


KINDS = frozenset(
    f"<{kind}>" for kind in ("value", "condition", "filters", "one", "many", "string", "text", "image", "image_url")
)
"""What pydantic names a place by besides where a value may be of several kinds; no person knows these names."""


def check_whole(given: object) -> None:
    """Raise ValueError for a text with half of a surrogate pair, such as ``\\ud800``: it has no UTF-8, not even in an
    error that quotes it."""
    if isinstance(given, str) and not given.isascii():
        try:
            given.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"character {error.start + 1} of {given[:40]!a} is half a character (a lone surrogate)"
            ) from None


def _as_a_path(given: str) -> str:
    check_whole(given)
    if (size := len(given.encode())) > MAX_ID_BYTES:
        raise ValueError(f"must have at most {MAX_ID_BYTES:,} bytes in UTF-8, not {size:,}")
    return given


IdText = Annotated[str, AfterValidator(_as_a_path)]
"""An id as any image of a collection may have it, or a name: as long as a path of a file can be."""
LONGEST_ID = f"At most {MAX_ID_BYTES:,} bytes in UTF-8."
"""For descriptions: JSON Schema counts characters alone."""
ImageId = Annotated[IdText, Field(min_length=1, description=f"The id of an image of the collection. {LONGEST_ID}")]


class Frozen(BaseModel):
    """A message that cannot be changed. Unknown fields are ignored, so that a client can read a newer server."""

    model_config = ConfigDict(frozen=True)


class Strict(Frozen):
    """A request: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid")


class ErrorBody(Frozen):
    """The body of every answer with a status of 400 or above."""

    error: str = Field(description="The kind of error, in words.")
    detail: str = Field(description="What is wrong, and how to correct it.")


def describe(problems: Iterable[Any]) -> str:
    """The errors of a pydantic ``ValidationError`` as one line: ``field: problem; field: problem``.

    The name of the request's part (``body``, ``query``) is left out. What is said twice, since two parts of a route
    read one parameter, is said once. After ``MAX_PROBLEMS`` the rest is counted.
    """
    sentences = []
    for problem in problems:
        if not isinstance(problem, dict):
            sentences.append(str(problem))
            continue
        where = [str(part) for part in problem.get("loc", ()) if part not in KINDS]
        if len(where) > 1 and where[0] in {"body", "query"}:
            where = where[1:]
        elif where == ["body"] and problem.get("type") == "value_error":
            where = []  # a rule about several fields names them itself
        what = in_plain_words(str(problem.get("msg", "")))
        sentences.append(f"{'.'.join(where)}: {what}".lstrip(": "))
    sentences = list(dict.fromkeys(sentences))
    if len(sentences) > MAX_PROBLEMS:
        sentences[MAX_PROBLEMS:] = [f"and {len(sentences) - MAX_PROBLEMS} more"]
    return "; ".join(sentences)
