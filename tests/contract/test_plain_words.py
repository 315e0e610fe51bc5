"""What a person reads of a value that is wrong: no word of pydantic's."""

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clip_retrieval.contract.base import describe
from clip_retrieval.contract.plain_words import in_plain_words


class Sample(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str = Field("a", min_length=1, max_length=3, pattern=r"\S")
    number: int = Field(1, ge=1, le=50)
    share: float = Field(0.5, gt=0, lt=1, allow_inf_nan=False)
    names: list[str] = Field(["a"], min_length=1, max_length=2)
    fields: dict[str, int] = {}
    flag: bool = True
    size: Literal["small", "large"] = "small"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"text": 5}, "text: must be a text"),
        ({"text": ""}, "text: must not be empty"),
        ({"text": "abcd"}, "text: must have at most 3 characters"),
        ({"text": " "}, "text: must have a character that is not white space"),
        ({"number": "x"}, "number: must be a whole number"),
        ({"number": 1.5}, "number: must be a whole number"),
        ({"number": 0}, "number: must be at least 1"),
        ({"number": 51}, "number: must be at most 50"),
        ({"share": 0}, "share: must be more than 0"),
        ({"share": 1}, "share: must be less than 1"),
        ({"share": "much"}, "share: must be a number"),
        ({"share": float("nan")}, "share: must be a finite number"),
        ({"names": "a"}, "names: must be a list"),
        ({"names": []}, "names: must have at least 1 item, not 0"),
        ({"names": ["a"] * 3}, "names: must have at most 2 items, not 3"),
        ({"fields": 5}, "fields: must be an object"),
        ({"flag": "perhaps"}, "flag: must be true or false"),
        ({"size": "medium"}, "size: must be 'small' or 'large'"),
        ({"colour": "red"}, "colour: there is no such field"),
    ],
)
def test_a_problem_is_told_in_plain_words(given: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Sample.model_validate(given)
    assert describe(caught.value.errors()) == words


def test_a_missing_value() -> None:
    assert in_plain_words("Field required") == "is missing"


def test_a_sentence_of_our_own_stays_as_it_is() -> None:
    assert in_plain_words("Value error, give exactly one of text and image") == "give exactly one of text and image"
    assert in_plain_words("no such thing") == "no such thing"


def test_what_two_readers_of_one_parameter_say_is_said_once() -> None:
    problem = {"loc": ("query", "limit"), "msg": "Field required"}
    other = {**problem, "loc": ("query", "after")}
    assert describe([problem, problem, other]) == "limit: is missing; after: is missing"
