"""A version follows from the inputs of a build alone, and a manifest survives the way through JSON."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_retrieval.artifacts.manifest import DataInfo, Manifest, artifact_version, tuned_version
from clip_retrieval.encoders.base import EncoderInfo
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.indexes.base import BuiltIndex, IndexSpec, Measurement

ENCODER = FakeEncoder().info
DATA = DataInfo(
    name="squares",
    fingerprint="ab" * 32,
    images=3,
    captions=5,
    rejected=1,
    splits={"train": 1, "val": 1, "test": 1},
    split_ratios=(0.7, 0.15, 0.15),
    split_seed=0,
)


class TestVersion:
    def test_is_the_same_for_the_same_inputs(self) -> None:
        version = artifact_version(ENCODER, DATA, 0.99)
        assert version == artifact_version(ENCODER.model_copy(), DATA.model_copy(), 0.99)
        assert len(version) == 16
        assert set(version) <= set("0123456789abcdef")

    @pytest.mark.parametrize("field", sorted(DataInfo.model_fields))
    def test_changes_with_each_fact_of_the_data(self, field: str) -> None:
        other: dict[str, object] = {
            "name": "circles",
            "fingerprint": "cd" * 32,
            "splits": {"train": 3, "val": 0, "test": 0},
            "split_ratios": (0.8, 0.1, 0.1),
            "vectors": "taken as they are",
            "embedded": "on a GPU",
        }
        changed = DATA.model_copy(update={field: other.get(field, 99)})
        assert artifact_version(ENCODER, changed, 0.99) != artifact_version(ENCODER, DATA, 0.99)

    @pytest.mark.parametrize("field", sorted(EncoderInfo.model_fields))
    def test_changes_with_each_fact_of_the_encoder(self, field: str) -> None:
        other: dict[str, object] = {
            "name": "other",
            "runtime": "torch",
            "precisions": ("f32", "int8"),
            "image_size": (9, 9),
            "fingerprint": "cd" * 32,
        }
        changed = ENCODER.model_copy(update={field: other.get(field, 99)})
        assert artifact_version(changed, DATA, 0.99) != artifact_version(ENCODER, DATA, 0.99)

    def test_changes_with_the_recall_that_is_asked_for(self) -> None:
        assert artifact_version(ENCODER, DATA, 0.9) != artifact_version(ENCODER, DATA, 0.99)

    def test_of_a_tuned_artifact_follows_from_indexes_and_thumbnails(self) -> None:
        flat = BuiltIndex(spec=IndexSpec(rows=3, dim=8))
        other = BuiltIndex(spec=IndexSpec(factory="HNSW16,SQ8", rows=3, dim=8))
        measured = BuiltIndex(spec=other.spec, measured=Measurement(p50_ms=1.0))
        version = tuned_version(ENCODER, DATA, flat, other)
        assert version == tuned_version(ENCODER, DATA, flat, measured)
        others = [
            tuned_version(ENCODER, DATA, other, flat),
            tuned_version(ENCODER, DATA, flat, other, thumbnails="ab" * 32),
            tuned_version(ENCODER, DATA, flat, other, thumbnails="cd" * 32),
            tuned_version(ENCODER, DATA, flat, other, form_of_curves=2),
        ]
        assert len({version, *others}) == 5


counts = st.integers(0, 2**40)
figures = st.none() | st.floats(0, 1e6)
built_indexes = st.builds(
    BuiltIndex,
    spec=st.builds(
        IndexSpec,
        factory=st.sampled_from(["Flat", "HNSW16,SQ8"]),
        build_parameters=st.dictionaries(st.sampled_from(["efConstruction"]), counts),
        search_parameters=st.dictionaries(st.sampled_from(["efSearch", "nprobe"]), counts),
        depth=st.integers(64, 1000),
        rows=counts,
        dim=counts,
    ),
    measured=st.builds(
        Measurement,
        recalls=st.dictionaries(st.sampled_from([1, 10, 50]), st.floats(0, 1)),
        queries=counts,
        query_kind=st.sampled_from(["captions", "images", None]),
        p50_ms=figures,
        p99_ms=figures,
        build_s=figures,
        memory_mb=figures,
    ),
)
texts = st.text(max_size=20)
manifests = st.builds(
    Manifest,
    version=texts,
    created=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    product_version=texts,
    encoder=st.builds(
        EncoderInfo,
        name=texts,
        runtime=st.sampled_from(["torch", "openvino", "fake"]),
        dim=counts,
        context_length=counts,
        image_size=st.tuples(counts, counts),
        logit_scale=st.floats(0, 1e6),
        fingerprint=texts,
    ),
    data=st.builds(
        DataInfo,
        name=texts,
        fingerprint=texts,
        images=counts,
        captions=counts,
        rejected=counts,
        splits=st.dictionaries(texts, counts, max_size=3),
        split_ratios=st.tuples(*[st.floats(0, 1)] * 3),
        split_seed=st.integers(-(2**40), 2**40),
    ),
    images=built_indexes,
    captions=built_indexes,
    libraries=st.dictionaries(texts, texts, max_size=3),
    files=st.dictionaries(texts, texts, max_size=3),
)


@settings(max_examples=40, deadline=None)
@given(manifests)
def test_any_manifest_comes_back_from_json_as_it_was(manifest: Manifest) -> None:
    assert Manifest.model_validate(json.loads(json.dumps(manifest.model_dump(mode="json")))) == manifest
