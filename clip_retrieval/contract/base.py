"""What every request and answer of the API is made of: bounds, scores, the error body."""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MAX_K = 50


DEFAULT_K = 5


MAX_TEXT = 1000


MAX_PROBLEMS = 8


K = Annotated[int, Field(ge=1, le=MAX_K, description="How many results; fewer come back if there are fewer.")]


Text = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_TEXT,
        pattern=r"\S",
        description="What is looked for. The model reads a limited number of tokens; `truncated` says if that cut it.",
    ),
]


Score = Annotated[float, Field(description="Cosine of query and result in [-1, 1]; higher is better.")]


Confidence = Annotated[
    float,
    Field(
        description="Softmax of the returned scores at the model's own logit scale: each result's share among those "
        "returned, not a probability of being right."
    ),
]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class ErrorBody(Frozen):
    """Every answer of 400 and above."""

    error: str = Field(description="The kind of error, in words.")
    detail: str = Field(description="What is wrong, and what to do about it.")


def describe(problems: Iterable[Any]) -> str:
    """Pydantic's list of errors as one sentence a field, without the name of the request's part in front."""
    sentences = []
    for problem in problems:
        if not isinstance(problem, dict):
            sentences.append(str(problem))
            continue
        where = [str(part) for part in problem.get("loc", ())]
        if len(where) > 1 and where[0] in {"body", "query"}:
            where = where[1:]
        what = str(problem.get("msg", "")).removeprefix("Value error, ")
        sentences.append(f"{'.'.join(where)}: {what}".lstrip(": "))
    if len(sentences) > MAX_PROBLEMS:
        sentences[MAX_PROBLEMS:] = [f"and {len(sentences) - MAX_PROBLEMS} more"]
    return "; ".join(sentences)
