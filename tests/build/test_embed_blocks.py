"""Shards of blocks, made in any order and by anyone, become the artifact of a build in one process."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from clip_retrieval.artifacts.artifact import Artifact
from clip_retrieval.build.blocks import Block, EmbedJob, cut, embed_block, require_same_packages, versions
from clip_retrieval.build.embed_blocks import BlockEngine
from clip_retrieval.build.pipeline import BuildOutcome, Options, building
from clip_retrieval.build.shard_place import ShardFolder
from clip_retrieval.build.shards import ShardDamaged, ShardManifest, read_shard
from clip_retrieval.datasets.base import Source
from clip_retrieval.datasets.detect import open_source
from clip_retrieval.encoders import load_encoder
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.errors import ClusterFailed, SourceError
from clip_retrieval.images.decode import Limits
from clip_retrieval.images.shrink import PLANS
from clip_retrieval.progress import Silent
from clip_retrieval.records import CaptionedImage, Reject, SourceCaption
from tests.build.test_pipeline import assert_equal_but_for_the_time
from tests.samples import MemoryBlob, MemorySource, image_of, png, write_collection

Outcome = Callable[..., BuildOutcome]


class Interrupted(Exception):
    """Stands for anything that may stop a build."""


class Workers:
    """Workers in this process, which finish their blocks in a random order; they stop before block ``stop_at``."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.made: list[str] = []
        self._stop_at = stop_at

    def __call__(self, job: EmbedJob, blocks: Sequence[Block]) -> Iterator[ShardManifest]:
        encoder = load_encoder(job.encoder)
        for block in Random(7).sample(list(blocks), len(blocks)):
            if len(self.made) == self._stop_at:
                raise Interrupted
            self.made.append(block.key)
            yield embed_block(block, job, encoder, workers=2)


@pytest.fixture
def run(encoder_folder: Path, tmp_path: Path) -> Outcome:
    """Build a source with an engine, in a workspace of a name; the artifact is kept in a folder of its own."""

    def run(source: Path | Source, engine: BlockEngine | None, name: str = "builds", **given: Any) -> BuildOutcome:
        data = open_source(source) if isinstance(source, Path) else source
        fresh, reuse, place = given.pop("fresh", False), given.pop("reuse", ()), given.pop("place", "a place")
        options, workspace = Options(**given), tmp_path / name
        with building(
            data,
            "a name",
            encoder_folder,
            workspace,
            options,
            Silent(),
            place=place,
            engine=engine,
            fresh=fresh,
            reuse=reuse,
        ) as outcome:
            number = len([*tmp_path.glob("kept-*")])
            kept = Path(shutil.copytree(outcome.artifact.path, tmp_path / f"kept-{number}"))
        return replace(outcome, artifact=Artifact.open(kept))

    return run


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A collection that a test may change."""
    return write_collection(tmp_path / "own")


def job_of(encoder_folder: Path, place: Path) -> EmbedJob:
    info = FakeEncoder().info
    return EmbedJob(
        encoder_folder, info.fingerprint, info.runtime, info.dim, Limits(), PLANS[0], 8, str(place), versions()
    )


class TestEqual:
    @pytest.mark.parametrize("size", [1, 5, 24, 100])
    def test_the_artifact_is_that_of_one_process(self, collection: Path, run: Outcome, size: int) -> None:
        alone = run(collection, None)
        spread = run(collection, BlockEngine(Workers(), size=size))
        assert_equal_but_for_the_time(spread.artifact, alone.artifact)
        assert spread.report == alone.report
        assert spread.artifact.manifest.version == alone.artifact.manifest.version

    def test_rejects_stay_in_source_order_and_captions_keep_their_ids(self, run: Outcome) -> None:
        good = png(image_of("red-bright.png"))
        items: list[CaptionedImage | Reject] = [
            CaptionedImage("a", MemoryBlob("a", good), (SourceCaption("one", "1"), SourceCaption(" ", "2"))),
            Reject("line 2", "odd"),
            CaptionedImage("b", MemoryBlob("b", b"damaged"), (SourceCaption("two", "1"),)),
            CaptionedImage("c", MemoryBlob("c", good), (SourceCaption("three", "1"), SourceCaption("one", "3"))),
            Reject("line 2", "odd"),
        ]
        alone = run(MemorySource(items), None)
        spread = run(MemorySource(items), BlockEngine(Workers(), size=1))
        assert spread.report == alone.report
        assert [reject.where for reject in spread.report.rejects] == ["a, caption 1", "line 2", "b", "line 2"]
        assert [c.caption_id for image in spread.report.kept for c in image.captions] == ["a#1", "c#1", "3"]
        assert_equal_but_for_the_time(spread.artifact, alone.artifact)

    def test_without_thumbnails_shards_have_none(self, collection: Path, run: Outcome, tmp_path: Path) -> None:
        spread = run(collection, BlockEngine(Workers(), str(tmp_path / "shards"), 8), thumbnails_mb=0)
        assert spread.artifact.thumbnails() is None
        for manifest in (tmp_path / "shards").glob("*/*.json"):
            shard = read_shard(ShardFolder(tmp_path / "shards"), manifest.stem, FakeEncoder().info.fingerprint)
            assert shard.thumbnails == {}

    def test_counts_say_what_was_encoded(self, collection: Path, run: Outcome) -> None:
        alone, spread = run(collection, None), run(collection, BlockEngine(Workers(), size=5))
        assert spread.embedding == alone.embedding
        assert spread.embedding.images_encoded == 24

    def test_vectors_of_earlier_artifacts_are_taken(self, collection: Path, run: Outcome) -> None:
        first = run(collection, None)
        again = run(collection, BlockEngine(Workers(), size=5), reuse=[first.artifact], seed=3)
        assert again.embedding.images_encoded == again.embedding.captions_encoded == 0


class TestResuming:
    def test_a_job_that_was_stopped_makes_only_what_is_missing(self, collection: Path, run: Outcome) -> None:
        stopped, going_on = Workers(stop_at=3), Workers()
        with pytest.raises(Interrupted):
            run(collection, BlockEngine(stopped, size=4))
        resumed = run(collection, BlockEngine(going_on, size=4))
        assert (len(stopped.made), len(going_on.made)) == (3, 3)
        assert not {*stopped.made} & {*going_on.made}
        assert_equal_but_for_the_time(resumed.artifact, run(collection, None).artifact)

    def test_the_folder_of_the_build_ends_with_it(self, collection: Path, run: Outcome, tmp_path: Path) -> None:
        run(collection, BlockEngine(Workers(), size=4))
        assert not [*(tmp_path / "builds").rglob("*.npz")]

    def test_shards_in_a_place_of_their_own_serve_the_next_build(self, own: Path, run: Outcome, tmp_path: Path) -> None:
        place = str(tmp_path / "shards")
        run(own, BlockEngine(Workers(), place, 4))
        again = Workers()
        outcome = run(own, BlockEngine(again, place, 4), "other")
        assert again.made == []
        assert outcome.embedding.images_reused == 24

    def test_a_changed_file_costs_its_block_alone(self, own: Path, run: Outcome, tmp_path: Path) -> None:
        place = str(tmp_path / "shards")
        run(own, BlockEngine(Workers(), place, 4))
        (own / "red-soft.png").write_bytes(png(image_of("green-dull.png", size=20)))
        again = Workers()
        outcome = run(own, BlockEngine(again, place, 4), "other")
        assert len(again.made) == 1
        assert_equal_but_for_the_time(outcome.artifact, run(own, None, "third").artifact)

    def test_other_limits_of_decoding_use_no_shard(self, own: Path, run: Outcome, tmp_path: Path) -> None:
        place = str(tmp_path / "shards")
        run(own, BlockEngine(Workers(), place, 4))
        again = Workers()
        run(own, BlockEngine(again, place, 4), "other", limits=Limits(max_pixels=100_000))
        assert len(again.made) == 6

    def test_a_fresh_build_uses_no_shard(self, collection: Path, run: Outcome, tmp_path: Path) -> None:
        place = str(tmp_path / "shards")
        run(collection, BlockEngine(Workers(), place, 4))
        again = Workers()
        run(collection, BlockEngine(again, place, 4), "other", fresh=True)
        assert len(again.made) == 6

    @pytest.mark.parametrize(
        "damage", ["cut", "flipped", "removed", "no manifest", "foreign manifest", "torn manifest"]
    )
    def test_a_damaged_shard_is_made_again(self, collection: Path, run: Outcome, tmp_path: Path, damage: str) -> None:
        place = tmp_path / "shards"
        whole = run(collection, BlockEngine(Workers(), str(place), 4))
        file = sorted(place.glob("*/*.npz"))[2]
        data, manifest = file.read_bytes(), file.with_suffix(".json")
        if damage == "cut":
            file.write_bytes(data[: len(data) // 2])
        elif damage == "flipped":
            file.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
        elif damage == "removed":
            file.unlink()
        elif damage == "no manifest":
            manifest.unlink()
        elif damage == "foreign manifest":
            manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"encoder": "another"}))
        else:
            manifest.write_text(manifest.read_text()[:50])
        again = Workers()
        outcome = run(collection, BlockEngine(again, str(place), 4), "other")
        assert again.made == [file.stem]
        assert_equal_but_for_the_time(outcome.artifact, whole.artifact)

    def test_a_shard_that_does_not_arrive_is_named(self, collection: Path, run: Outcome, tmp_path: Path) -> None:
        def elsewhere(job: EmbedJob, blocks: Sequence[Block]) -> Iterator[ShardManifest]:
            yield from Workers()(replace(job, place=str(tmp_path / "another machine")), blocks)

        with pytest.raises(ClusterFailed, match=r"it is missing.*must be the same place on every machine"):
            run(collection, BlockEngine(elsewhere, size=4))

    def test_blocks_that_workers_leave_out_are_counted(self, collection: Path, run: Outcome) -> None:
        def lazy(job: EmbedJob, blocks: Sequence[Block]) -> Iterator[ShardManifest]:
            yield from Workers()(job, blocks[:2])

        with pytest.raises(ClusterFailed, match="4 of 6 blocks were not made; run the same command again"):
            run(collection, BlockEngine(lazy, size=4))

    def test_strict_still_refuses_a_reject(self, own: Path, run: Outcome) -> None:
        (own / "red-soft.png").write_bytes(b"damaged")
        with pytest.raises(SourceError, match=r"1 rejected, and --strict allows none; first red-soft.png"):
            run(own, BlockEngine(Workers(), size=4), strict=True)


class TestWorker:
    def test_a_worker_that_sees_other_files_says_so(self, own: Path, encoder_folder: Path, tmp_path: Path) -> None:
        job = job_of(encoder_folder, tmp_path / "shards")
        block = next(cut(list(open_source(own)), 8, job))
        (own / "black-soft.png").unlink()
        with pytest.raises(ClusterFailed, match=r"another file black-soft.png than the build; every machine needs"):
            embed_block(block, job, FakeEncoder(), workers=1)
        assert not [*(tmp_path / "shards").rglob("*.npz")]

    def test_a_block_whose_shard_is_there_is_not_made_again(
        self, collection: Path, encoder_folder: Path, tmp_path: Path
    ) -> None:
        job = job_of(encoder_folder, tmp_path / "shards")
        block = next(cut(list(open_source(collection)), 8, job))
        first = embed_block(block, job, FakeEncoder(), workers=1)
        assert embed_block(block, job, FakeEncoder(), workers=1) == first

    def test_the_manifest_says_what_was_made_and_how_long_it_took(
        self, collection: Path, encoder_folder: Path, tmp_path: Path
    ) -> None:
        job = job_of(encoder_folder, tmp_path / "shards")
        made = embed_block(next(cut(list(open_source(collection)), 8, job)), job, FakeEncoder(), workers=1)
        assert (made.images, made.rejects, made.image_vectors, made.caption_vectors) == (8, 0, 8, 11)
        assert made.encoder == FakeEncoder().info.fingerprint
        assert 0 < made.encoder_seconds < made.seconds

    def test_other_packages_are_named(self, encoder_folder: Path, tmp_path: Path) -> None:
        job = job_of(encoder_folder, tmp_path)
        require_same_packages(job)
        with pytest.raises(ClusterFailed, match=r"has pillow \S+, and the build has 1\.0; install the same packages"):
            require_same_packages(replace(job, versions={**job.versions, "pillow": "1.0"}))

    def test_a_file_that_is_no_shard_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ShardDamaged, match="it is missing"):
            read_shard(ShardFolder(tmp_path), "00" * 32, "fingerprint")
