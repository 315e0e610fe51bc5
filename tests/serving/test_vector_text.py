"""Arrays of float32 travel between services as text and are the same bits on the other side."""

import json

import numpy as np
import pytest

from clip_retrieval.serving.vector_text import as_text, from_text, vectors_from


@pytest.mark.parametrize("shape", [(5,), (3, 4, 2), (0,)])
def test_an_array_comes_out_as_it_went_in(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    text = json.loads(json.dumps(as_text(values)))
    found = from_text(text, shape)
    assert found.dtype == np.float32
    assert np.array_equal(found, values)


def test_a_view_that_is_not_contiguous_comes_out_in_its_own_order() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4).T
    assert np.array_equal(from_text(as_text(values), (4, 3)), values)


def test_vectors_stand_in_order() -> None:
    values = np.eye(3, dtype=np.float32)
    assert np.array_equal(vectors_from([as_text(row) for row in values], 3), values)


@pytest.mark.parametrize(
    ("text", "reason"), [("AAAA", "multiple of element size"), ("AAAAAA==", "reshape"), ("no base64", "not base64")]
)
def test_what_is_no_such_array_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        from_text(text, (3,))
