"""Milvus behind its door: what is complete when, what is told when it is away, and that it comes back by itself."""

import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.errors import ArtifactDamaged, IndexAway
from clip_retrieval.indexes.base import IndexSpec
from clip_retrieval.indexes.milvus_index import MilvusIndex, open_milvus
from clip_retrieval.indexes.milvus_lite import PORT_FILE
from clip_retrieval.indexes.milvus_place import check_uri, without_secrets
from clip_retrieval.indexes.milvus_writer import MilvusWriter, field_text
from scripts.common.paths import ROOT
from tests.indexes.milvus_lite import EXACT, GRAPH, LiteServer, filled


def vectors_of(rows: int, seed: int = 0) -> Vectors:
    return unit_rows(np.random.default_rng(seed).standard_normal((rows, 8)))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[MilvusWriter]:
    made = MilvusWriter(str(tmp_path / "index.db"), search_s=20)
    yield made
    made.close()


def test_a_collection_has_its_name_only_when_it_is_complete(engine: MilvusWriter) -> None:
    def batches() -> Iterator[list[dict[str, object]]]:
        yield [{"row": 0, "vector": vectors_of(1)[0]}]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.fill("c", 8, {}, batches(), EXACT)
    assert engine.count("c") is None
    filled(engine, vectors_of(30), EXACT, name="c")  # what was left does not stay
    assert engine.count("c") == 30


def test_a_collection_that_has_not_every_row_does_not_get_its_name(engine: MilvusWriter) -> None:
    """Two rows of one key are one row there."""
    row = {"row": 0, "vector": vectors_of(1)[0]}
    with pytest.raises(IndexAway, match=r"it has 1 of the 2 rows that were written to c_a; write them again"):
        engine.fill("c", 8, {}, iter([[row], [row]]), EXACT)
    assert engine.count("c") is None


def test_a_collection_that_is_written_again_takes_the_place_of_the_one_before(engine: MilvusWriter) -> None:
    filled(engine, vectors_of(30), EXACT, name="c")
    assert engine.search("c", vectors_of(30)[4:5], 1, {}).tolist() == [[4]]
    other = vectors_of(40, seed=1)
    filled(engine, other, EXACT, name="c")
    assert engine.count("c") == 40
    assert engine.search("c", other[35:36], 1, {}).tolist() == [[35]]
    engine.drop("c")
    assert engine.count("c") is None


def test_a_collection_gets_another_kind_of_index(engine: MilvusWriter) -> None:
    vectors = vectors_of(300)
    filled(engine, vectors, GRAPH, name="c")
    engine.index_again("c", EXACT)
    found = engine.search("c", vectors[:5], 3, {})
    np.testing.assert_array_equal(found, np.argsort(-(vectors[:5] @ vectors.T), axis=1)[:, :3])


def test_fewer_rows_than_were_asked_for_end_with_minus_one(engine: MilvusWriter) -> None:
    filled(engine, vectors_of(3), EXACT, name="c")
    assert engine.search("c", vectors_of(1), 5, {})[0, 3:].tolist() == [-1, -1]


def test_a_missing_collection_is_told_with_what_to_do(engine: MilvusWriter) -> None:
    with pytest.raises(IndexAway, match=r"it has no collection other; build the artifact again with --index milvus"):
        engine.search("other", vectors_of(1), 5, {})


@pytest.mark.slow
def test_a_folder_that_another_process_has_open_is_asked_of_that_process(engine: MilvusWriter, tmp_path: Path) -> None:
    filled(engine, vectors_of(3), EXACT, name="c")
    code = (
        "import sys, numpy as np\n"
        "from clip_retrieval.indexes.milvus_writer import MilvusWriter\n"
        "from tests.indexes.milvus_lite import EXACT, filled\n"
        "other = MilvusWriter(sys.argv[1])\n"
        "filled(other, np.eye(8, dtype=np.float32), EXACT, name='d')\n"
        "print(other.count('c'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "index.db")], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert (done.stdout, done.stderr) == ("3\n", "")
    assert engine.search("d", vectors_of(1), 8, {}).shape == (1, 8), "what the other one wrote is found here"


@pytest.mark.slow
def test_a_search_is_answered_when_the_process_that_had_the_folder_open_has_ended(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from clip_retrieval.indexes.milvus_writer import MilvusWriter\n"
        "from tests.indexes.milvus_lite import EXACT, filled\n"
        "filled(MilvusWriter(sys.argv[1]), np.eye(8, dtype=np.float32), EXACT, name='c')\n"
        "print('filled', flush=True)\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "index.db")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"filled\n"
        engine = MilvusWriter(str(tmp_path / "index.db"), search_s=1)
        query = np.eye(8, dtype=np.float32)[3:4]
        assert engine.search("c", query, 1, {}).tolist() == [[3]]
        other.kill()
    assert engine.search("c", query, 1, {}).tolist() == [[3]]
    assert engine.trouble is None
    engine.close()


def test_a_folder_that_cannot_be_opened_is_told_in_words(tmp_path: Path) -> None:
    folder = tmp_path / "index.db"
    folder.mkdir()
    with (folder / "LOCK").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        engine = MilvusWriter(str(folder), search_s=1)
        with pytest.raises(IndexAway, match="another process has it open and does not say where"):
            engine.count("c")
        (folder / PORT_FILE).write_text("1")  # of a process that was killed
        with pytest.raises(IndexAway, match=r"index.db does not answer: "):
            engine.count("c")
    with pytest.raises(IndexAway, match=f"there is no folder {tmp_path / 'missing'}"):
        MilvusWriter(str(tmp_path / "missing" / "index.db")).count("c")
    with closing(engine):
        assert engine.count("c") is None, "when the other one has ended it is opened here"


@pytest.mark.slow
def test_an_engine_that_was_away_answers_again_without_a_new_start(tmp_path: Path) -> None:
    server = LiteServer(tmp_path / "data.db")
    server.start()
    vectors = vectors_of(300)
    engine = MilvusWriter(server.uri, search_s=1, pause_s=0.2)
    try:
        filled(engine, vectors, EXACT)
        spec = IndexSpec(engine="milvus", name="vectors", factory="FLAT", rows=300, dim=8)
        index = MilvusIndex(spec, engine, vectors)
        before = index.search(vectors[:2], 5)
        server.stop()
        start = time.monotonic()
        with pytest.raises(IndexAway, match=f"Milvus at {server.uri} does not answer"):
            index.search(vectors[:2], 5)
        assert time.monotonic() - start < 5
        assert index.trouble is not None
        start = time.monotonic()
        with pytest.raises(IndexAway):  # nobody waits for what has just failed
            index.search(vectors[:2], 5)
        assert time.monotonic() - start < 0.1
        np.testing.assert_array_equal(index.exact_search(vectors[:2], 5).rows, before.rows)
        server.start()
        deadline = time.monotonic() + 20
        while True:
            try:
                after = index.search(vectors[:2], 5)
                break
            except IndexAway:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        np.testing.assert_array_equal(after.rows, before.rows)
        assert index.trouble is None
    finally:
        engine.close()
        server.stop()


@pytest.mark.slow
def test_an_engine_that_stands_still_costs_no_more_than_the_deadline(tmp_path: Path) -> None:
    server = LiteServer(tmp_path / "data.db")
    server.start()
    vectors = vectors_of(30)
    engine = MilvusWriter(server.uri, search_s=1)
    try:
        filled(engine, vectors, EXACT)
        engine.search("vectors", vectors[:1], 5, {})
        server.hang()
        start = time.monotonic()
        with pytest.raises(IndexAway, match=r"does not answer: Deadline Exceeded"):
            engine.search("vectors", vectors[:1], 5, {})
        assert time.monotonic() - start < 2.5
        time.sleep(1.1)  # the engine is asked again

        def fails(_: int) -> float:
            start = time.monotonic()
            with pytest.raises(IndexAway, match="does not answer"):
                engine.search("vectors", vectors[:1], 5, {})
            return time.monotonic() - start

        with ThreadPoolExecutor(12) as threads:
            assert max(threads.map(fails, range(12))) < 3, "they do not try one after the other"
    finally:
        server.stop()
        engine.close()


@pytest.mark.parametrize("uri", ["http://milvus:19530", "https://me:secret@host", "tcp://host:1", "my/index.db"])
def test_a_place_of_a_milvus_is_taken(uri: str) -> None:
    assert check_uri(uri) == uri


@pytest.mark.parametrize("uri", ["", "milvus", "my/index", "redis://host", "http://", "http://x.db.db:y@/"])
def test_another_place_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="is no place of a Milvus; write http://milvus:19530"):
        check_uri(uri)


def test_secrets_are_not_shown() -> None:
    assert without_secrets("https://me:se@cret@host:1/db") == "https://host:1/db"
    assert without_secrets("a@b/index.db") == "a@b/index.db"


def test_a_long_text_is_cut_between_characters() -> None:
    assert field_text("short") == "short"
    assert field_text("é" * 40_000) == "é" * 32_767


def test_an_index_of_other_vectors_is_refused() -> None:
    spec = IndexSpec(engine="milvus", name="c", factory="FLAT", rows=3, dim=8)
    with pytest.raises(ArtifactDamaged, match="do not fit"):
        open_milvus(spec, vectors_of(4), "index.db")
