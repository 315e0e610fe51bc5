"""A query log as vectors: texts for every encoder, vectors for the one that made them."""

from datetime import UTC, datetime

import numpy as np
import pytest

from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import QueryLogError
from clip_retrieval.progress import Silent
from clip_retrieval.query_log.entry import Inputs, LoggedPart, LoggedSearch, now, packed
from clip_retrieval.query_log.reader import CollectionLog
from clip_retrieval.records import Modality
from clip_retrieval.search.compose import compose
from clip_retrieval.search.logged import LoggedQueries, logged_queries

ENCODER = FakeEncoder()
MINE = ENCODER.info.fingerprint


def search(
    *parts: LoggedPart,
    target: Modality = "images",
    inputs: Inputs = "texts",
    encoder: str | None = None,
    vector: str | None = None,
) -> LoggedSearch:
    return LoggedSearch(
        search_id="ab" * 16, at=now(), target=target, inputs=inputs, parts=parts, encoder=encoder, vector=vector
    )


def read(*searches: LoggedSearch, skipped: int = 0) -> LoggedQueries:
    log = CollectionLog("squares", list(searches), skipped=skipped)
    return logged_queries(log, MINE, lambda: ENCODER, Silent())


def test_a_search_has_the_vector_that_it_was_searched_with() -> None:
    red, blue = ENCODER.encode_texts(["red", "blue"])
    found = read(
        search(LoggedPart(text="red")),
        search(LoggedPart(text="red"), LoggedPart(text="blue", weight=-0.5)),
        search(encoder=MINE, vector=packed(blue), target="captions", inputs="images"),
    )
    expected = np.stack([red, compose(np.stack([red, blue]), [1, -0.5])])
    assert found.by_target["images"].vectors == pytest.approx(expected, abs=1e-6)
    assert found.by_target["captions"].vectors == pytest.approx(blue[None], abs=1e-3)
    assert found.by_target["images"].names == ["red", "red + -0.5 × blue"]
    assert found.by_target["captions"].names == ["search abababab"]
    assert [found.by_target[target].kind for target in ("images", "captions")] == ["captions", "images"]
    assert found.left_out == ()


def test_vectors_of_another_encoder_are_left_out_and_counted() -> None:
    other = search(encoder="f" * 64, vector=packed(ENCODER.encode_texts(["red"])[0]))
    found = read(search(LoggedPart(text="red")), other, other, skipped=3)
    assert len(found.by_target["images"].searches) == 1
    assert found.left_out == ("3 lines are not whole", "2 vectors are those of another encoder (ffffffffffff)")
    with pytest.raises(
        QueryLogError, match=r"1 vectors are those of another encoder \(ffffffffffff\); .*KEEP=text logs"
    ):
        read(other)


def test_a_text_that_somebody_went_on_typing_is_left_out_and_counted() -> None:
    def typed(words: str, second: int) -> LoggedSearch:
        at = datetime(2026, 1, 1, 12, 0, second, tzinfo=UTC)
        return search(LoggedPart(text=words)).model_copy(update={"at": at})

    found = read(
        typed("r", 0), typed("re", 1), typed("red", 2), typed("red", 3), typed("blue", 3), typed("red fish", 30)
    )
    assert found.by_target["images"].names == ["red", "red", "blue", "red fish"]
    assert found.left_out == ("2 texts are the beginning of one that came at once",)


def test_what_means_nothing_to_the_encoder_is_left_out_and_counted() -> None:
    found = read(
        search(LoggedPart(text="red")),
        search(LoggedPart(text="red"), LoggedPart(text="red", weight=-1)),
        search(LoggedPart(text="rot", language="deu_Latn")),
        search(encoder=MINE, vector="not base64!"),
        search(),
    )
    assert len(found.by_target["images"].searches) == 1
    assert found.left_out == (
        "1 texts have a language that the model does not mark",
        "4 searches cannot be read, or mean nothing to this encoder",
    )


def test_a_log_of_vectors_loads_no_encoder() -> None:
    log = CollectionLog("squares", [search(encoder=MINE, vector=packed(ENCODER.encode_texts(["red"])[0]))])

    def load() -> FakeEncoder:
        raise AssertionError("vectors need no encoder")

    assert len(logged_queries(log, MINE, load, Silent()).by_target["images"].searches) == 1
