"""A value of another type than the description of the API gives is refused: pydantic alone would take many."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from clip_retrieval.contract.changes import Change, PatchRequest
from clip_retrieval.contract.queries import SearchImagesRequest, SearchRequest
from clip_retrieval.contract.status import SwapRequest

QUERIES = [{"text": "red"}]


@pytest.mark.parametrize(
    "values",
    [
        {"k": "5"},
        {"k": True},
        {"offset": "0"},
        {"min_score": "0.5"},
        {"dedupe": 0},
        {"dedupe": "yes"},
        {"queries": [{"text": "red", "weight": "1"}]},
        {"where": {"year": "1" * 10_001}},
        {"where": {"year": {"gt": "1" * 10_001}}},
        {"where": {"year": {"gt": True}}},
    ],
)
def test_a_search_takes_no_text_for_a_number_and_no_number_for_a_truth_value(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SearchRequest.model_validate({"queries": QUERIES, **values})


def test_the_short_requests_and_a_swap_do_not_either() -> None:
    with pytest.raises(ValidationError, match="give a number, not a text"):
        SearchImagesRequest.model_validate({"text": "red", "k": "5"})
    with pytest.raises(ValidationError, match="give true or false"):
        SwapRequest.model_validate({"artifact": "a", "force": 1})


def test_a_field_takes_no_long_text_for_a_number() -> None:
    with pytest.raises(ValidationError):
        PatchRequest.model_validate({"metadata": {"year": "1" * 10_001}})
    assert PatchRequest.model_validate({"metadata": {"year": "1" * 100}}).metadata == {"year": "1" * 100}


def test_numbers_of_json_and_of_numpy_are_taken() -> None:
    one = SearchRequest.model_validate({"queries": QUERIES, "k": 5.0, "offset": np.int64(3), "min_score": 0})
    assert (one.k, one.offset, one.min_score) == (5, 3, 0)


@pytest.mark.parametrize("model", [PatchRequest, Change])
def test_the_description_of_a_change_allows_no_null_that_is_refused(model: type[PatchRequest | Change]) -> None:
    properties = model.model_json_schema()["properties"]
    for name in ("captions", "metadata", "split"):
        assert "null" not in str({key: part for key, part in properties[name].items() if key == "anyOf"})
        assert "default" not in properties[name]
