"""Every way of asking gives the same answer, on every index family: one rule of depth, one search.

On a compressed index ``/search/images`` and ``/search`` once had other results for the same text, because how many
candidates were looked at followed from k.
"""

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_retrieval.artifacts.artifact import RECORDS, Artifact
from clip_retrieval.artifacts.manifest import DataInfo
from clip_retrieval.artifacts.record_store import RecordStore
from clip_retrieval.artifacts.writer import write_artifact
from clip_retrieval.client import text
from clip_retrieval.encoders.base import Tokens, Vectors, unit_rows
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.indexes.base import BuiltIndex
from clip_retrieval.indexes.choose import build_family
from clip_retrieval.indexes.families import families
from clip_retrieval.records import CaptionRecord, ImageRecord
from clip_retrieval.search.retriever import Retriever
from tests.http.in_process import Api
from tests.samples import png, square

IMAGES, CAPTIONS_EACH, DIM = 1200, 2, 64
WORDS = ("red", "a blue square", "something green", "white and black")
KS = (1, 5, 24, 50)


class WideEncoder(FakeEncoder):
    """The fake encoder in 64 dimensions, as compressed indexes need them: its vectors, turned by a fixed rotation."""

    def __init__(self) -> None:
        super().__init__()
        self.info = self.info.model_copy(update={"dim": DIM, "fingerprint": "w" * 64})
        self._rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((DIM, DIM)))[0].astype(np.float32)

    def _wide(self, vectors: Vectors) -> Vectors:
        padded = np.zeros((len(vectors), DIM), np.float32)
        padded[:, : vectors.shape[1]] = vectors
        return unit_rows(padded @ self._rotation)

    def encode_tokens(self, texts: Sequence[Tokens]) -> Vectors:
        narrow = FakeEncoder().encode_tokens(texts)
        return self._wide(narrow)

    def encode_pixels(self, pixels: Any) -> Vectors:
        return self._wide(FakeEncoder().encode_pixels(pixels))


def artifact_with(family_name: str, folder: Path) -> Artifact:
    """An artifact of random vectors near each other, whose two indexes are of this family, searched narrowly."""
    rng = np.random.default_rng(1)
    sizes = {"images": IMAGES, "captions": IMAGES * CAPTIONS_EACH}
    vectors = {name: unit_rows(rng.standard_normal((rows, DIM)) + 0.5) for name, rows in sizes.items()}
    built = {}
    for name, rows in vectors.items():
        family = next(one for one in families(*rows.shape, in_memory=True) if one.name == family_name)
        built[name] = build_family(family, rows).index

    def fill(partial: Path) -> None:
        for name, index in built.items():
            np.save(partial / f"{name}.npy", vectors[name])
            index.save(partial / f"{name}.faiss")
        with RecordStore.create(partial / RECORDS) as store:
            store.add(
                [ImageRecord(r, f"{r}.png", f"{r}.png", f"{r:064x}", 9, 9, "train", {}) for r in range(IMAGES)],
                [CaptionRecord(r, f"{r}", r // CAPTIONS_EACH, f"caption {r}") for r in range(sizes["captions"])],
            )

    data = DataInfo(
        name="random",
        fingerprint="0" * 64,
        images=IMAGES,
        captions=sizes["captions"],
        rejected=0,
        splits={"train": IMAGES},
        split_ratios=(1, 0, 0),
        split_seed=0,
    )
    return write_artifact(
        folder / "artifact",
        version="0" * 16,
        encoder=WideEncoder().info,
        data=data,
        images=BuiltIndex(spec=built["images"].spec),
        captions=BuiltIndex(spec=built["captions"].spec),
        fill=fill,
    )


FAMILIES = [family.name for family in families(IMAGES, DIM, in_memory=True)]


@pytest.fixture(scope="module", params=FAMILIES)
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    api = Api(Retriever(artifact_with(request.param, tmp_path_factory.mktemp("family")), WideEncoder()), cache_size=0)
    yield api
    api.close()


def of(answer: Any) -> list[tuple[str, float]]:
    return [(result.get("caption_id", result["image_id"]), result["similarity_score"]) for result in answer["results"]]


def test_every_family_is_tried() -> None:
    assert len(FAMILIES) >= 11, "the test has dimensions and rows enough for the compressed families"


@pytest.mark.parametrize("words", WORDS)
def test_the_short_route_the_composed_one_and_a_batch_agree_at_every_k(api: Api, words: str) -> None:
    longest = of(api.search(words, KS[-1]))
    for k in KS:
        query = {"queries": [{"text": words}], "k": k}
        assert of(api.search(words, k)) == longest[:k]
        assert of(api.post("/search", json=query)) == longest[:k]
        [item] = api.post("/search/batch", json={"searches": [query]})["answers"]
        assert of(item["answer"]) == longest[:k]


@pytest.mark.parametrize(("path", "target"), [("/search/text", "captions"), ("/search/similar", "images")])
def test_an_upload_and_a_part_of_a_query_agree(api: Api, path: str, target: str) -> None:
    red = png(square("red"))
    part = {"image": base64.b64encode(red).decode()}
    for k in KS:
        composed = api.post("/search", json={"queries": [part], "target": target, "k": k})
        assert of(api.upload(path, red, k)) == of(composed)


def test_python_and_http_agree(api: Api) -> None:
    retriever = api.state.require_service().retriever
    for k in KS:
        found = of(api.search("red", k))
        assert [hit.image.image_id for hit in retriever.search_images("red", k)] == [name for name, _ in found]
        page = retriever.search([text("red")], k=k)
        assert [(hit.image.image_id, hit.score) for hit in page.images] == found


def test_pages_go_on_where_the_first_ended(api: Api) -> None:
    whole = of(api.search("red", 50))
    for offset in range(0, 48, 12):
        page = api.post("/search", json={"queries": [{"text": "red"}], "k": 12, "offset": offset})
        assert of(page) == whole[offset : offset + 12]
