"""An index finds what brute force finds: the largest cosines, best first, ties in row order."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clip_retrieval.encoders.base import Vectors, unit_rows
from clip_retrieval.errors import ArtifactDamaged
from clip_retrieval.indexes.base import MIN_DEPTH, IndexSpec
from clip_retrieval.indexes.faiss_index import FaissIndex, FilterLimits, exact_search, merged_hits


def random_units(rows: int, dim: int, seed: int = 0) -> Vectors:
    return unit_rows(np.random.default_rng(seed).standard_normal((rows, dim)))


FEW_EXACT_ROWS = FilterLimits(exact_rows=20, scan_exact_rows=20)
"""Limits under which these small collections are searched by their codes, also where few rows are allowed."""


def built(
    vectors: Vectors,
    factory: str,
    build: dict[str, int] | None = None,
    search: dict[str, int] | None = None,
    limits: FilterLimits = FEW_EXACT_ROWS,
) -> FaissIndex:
    rows, dim = vectors.shape
    spec = IndexSpec(factory=factory, build_parameters=build or {}, search_parameters=search or {}, rows=rows, dim=dim)
    return FaissIndex.build(spec, vectors, filter_limits=limits)


def flat(vectors: Vectors) -> FaissIndex:
    return built(vectors, "Flat")


def hnsw(vectors: Vectors, ef_search: int = 64, limits: FilterLimits = FEW_EXACT_ROWS) -> FaissIndex:
    return built(vectors, "HNSW16,SQ8", {"efConstruction": 200}, {"efSearch": ef_search}, limits)


def cells(vectors: Vectors) -> FaissIndex:
    return built(vectors, "PCAR8,IVF4,RaBitQ", search={"nprobe": 2})


def refined(vectors: Vectors) -> FaissIndex:
    return built(vectors, "IVF4,SQ4,Refine(SQfp16)", search={"nprobe": 2, "k_factor_rf": 3})


def codes(vectors: Vectors) -> FaissIndex:
    return built(vectors, "SQ8")


def scan(vectors: Vectors) -> FaissIndex:
    return built(vectors, f"HR{vectors.shape[1]},PQ{vectors.shape[1]}x4fs")


ALL = [flat, hnsw, cells, refined, codes, scan]


def brute_force(vectors: Vectors, queries: Vectors, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Every cosine in double precision, sorted; numpy alone."""
    cosines = queries.astype(np.float64) @ vectors.astype(np.float64).T
    rows = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(cosines, rows, axis=1), rows


@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(1, 60),
    dim=st.integers(2, 24),
    queries=st.integers(1, 30),
    k=st.integers(1, 70),
    seed=st.integers(0, 10**6),
)
def test_a_flat_index_finds_what_brute_force_finds(rows: int, dim: int, queries: int, k: int, seed: int) -> None:
    vectors, asked = random_units(rows, dim, seed), random_units(queries, dim, seed + 1)
    scores, found = flat(vectors).search(asked, k)
    true_scores, true_rows = brute_force(vectors, asked, k)
    assert found.shape == scores.shape == (queries, min(k, rows))
    np.testing.assert_allclose(scores, true_scores, atol=1e-6)
    clear = np.abs(np.diff(true_scores, axis=1, prepend=np.inf, append=-np.inf)) > 1e-5
    settled = clear[:, :-1] & clear[:, 1:]  # no other score as near as rounding
    np.testing.assert_array_equal(found[settled], true_rows[settled])


def test_equal_rows_stand_in_row_order() -> None:
    east, north = [1, 0], [0, 1]
    vectors = np.array([north, east, north, east, east], dtype=np.float32)
    scores, rows = flat(vectors).search(np.array([east], dtype=np.float32), 5)
    assert rows.tolist() == [[1, 3, 4, 0, 2]]
    assert scores.tolist() == [[1, 1, 1, 0, 0]]


def test_of_more_equal_rows_than_asked_for_the_first_are_found() -> None:
    vectors = np.tile(random_units(1, 16), (100, 1))
    for k in (1, 3, 10, 50):
        assert flat(vectors).search(vectors[:1], k)[1].tolist() == [list(range(k))]


@pytest.mark.parametrize("build", [flat, hnsw, codes])
def test_scores_are_cosines_also_after_rounding(build: Callable[[Vectors], FaissIndex]) -> None:
    vectors = random_units(300, 7)
    queries = np.concatenate([vectors, -vectors])
    scores, rows = build(vectors).search(queries, 300)
    assert scores.dtype == np.float32
    assert scores.min() >= -1
    assert scores.max() <= 1
    assert (np.diff(scores, axis=1) <= 0).all(), "best first"
    assert rows[:300, 0].tolist() == list(range(300)), "every vector finds itself"


def test_asking_for_more_than_there_is_gives_all_there_is() -> None:
    vectors = random_units(3, 4)
    scores, rows = flat(vectors).search(vectors[:2], 10)
    assert scores.shape == (2, 3)
    assert sorted(rows[0].tolist()) == [0, 1, 2]


def test_an_empty_index_finds_nothing() -> None:
    scores, rows = flat(np.empty((0, 4), np.float32)).search(random_units(2, 4), 5)
    assert scores.shape == rows.shape == (2, 0)


def test_no_query_gets_no_answer() -> None:
    scores, rows = flat(random_units(5, 4)).search(np.empty((0, 4), np.float32), 2)
    assert scores.shape == rows.shape == (0, 2)


@pytest.mark.parametrize("build", ALL)
def test_a_saved_index_gives_the_same_answers(build: Callable[[Vectors], FaissIndex], tmp_path: Path) -> None:
    vectors, queries = random_units(500, 16), random_units(40, 16, seed=1)
    index = build(vectors)
    index.save(tmp_path / "index.faiss")
    loaded = FaissIndex.load(index.spec, tmp_path / "index.faiss", vectors)
    for before, after in zip(index.search(queries, 10), loaded.search(queries, 10), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_flat_index_needs_no_file(tmp_path: Path) -> None:
    flat(random_units(5, 4)).save(tmp_path / "index.faiss")
    assert list(tmp_path.iterdir()) == []


def test_equal_rows_that_a_graph_finds_stand_in_row_order() -> None:
    vectors = np.tile(random_units(20, 16), (3, 1))
    rows = hnsw(vectors, ef_search=60).search(vectors[:20], 3)[1]
    assert rows.tolist() == [[row, row + 20, row + 40] for row in range(20)]


def test_a_wider_graph_search_finds_more() -> None:
    vectors, queries = random_units(1000, 64), random_units(100, 64, seed=1)
    _, truth = exact_search(vectors, queries, 10)

    def found(index: FaissIndex) -> float:
        rows = index.search(queries, 10)[1]
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows.tolist(), truth.tolist(), strict=True)]))

    narrow = hnsw(vectors, ef_search=10)
    first = found(narrow)
    wide = narrow.with_search({"efSearch": 400}, depth=100)
    assert (wide.spec.search_parameters, wide.spec.depth) == ({"efSearch": 400}, 100)
    assert first < 0.95 < found(wide)
    assert found(narrow) == first, "the narrow search stays as it was: both share the graph, neither changes it"


def test_where_the_graph_finds_nothing_the_row_is_minus_one_and_stands_last() -> None:
    # Sixty copies of each vector link to each other and to hardly anything else, so that a walk cannot reach them all.
    vectors = np.repeat(random_units(10, 8), 60, axis=0)
    scores, rows = hnsw(vectors, ef_search=1).search(random_units(5, 8, seed=1), 600)
    missing = rows < 0
    assert missing.any()
    assert (scores[missing] <= -1).all(), "below every row that was found"
    assert (np.diff(missing.astype(int), axis=1) >= 0).all()


@pytest.mark.parametrize("build", [hnsw, cells, refined, codes, scan])
def test_the_scores_are_the_exact_cosines_whatever_the_codes_are(build: Callable[[Vectors], FaissIndex]) -> None:
    vectors, queries = random_units(500, 16), random_units(30, 16, seed=1)
    scores, rows = build(vectors).search(queries, 10)
    np.testing.assert_allclose(scores, np.einsum("nkd,nd->nk", vectors[rows], queries), atol=1e-6)


@pytest.mark.parametrize("build", [hnsw, refined, codes, scan])
@pytest.mark.parametrize("queries", [1, 30])
def test_equal_scores_of_candidates_stand_in_row_order(build: Callable[[Vectors], FaissIndex], queries: int) -> None:
    vectors = np.repeat(random_units(40, 16), 3, axis=0)[np.random.default_rng(0).permutation(120)]
    scores, rows = build(vectors).search(random_units(queries, 16, seed=1), 50)
    equal = np.diff(scores, axis=1) == 0
    assert equal.sum() >= 30 * queries, "each row has two equals"
    assert (np.diff(rows, axis=1)[equal] > 0).all()


def test_vectors_are_read_where_they_are() -> None:
    """An upgrade of FAISS that copies them, or a view that ends with what made it, would be seen here."""
    vectors, query = random_units(500, 16), random_units(1, 16, seed=1)
    index = scan(vectors)
    before = index.search(query, 10)
    vectors *= np.float32(0.5)
    after = index.search(query, 10)
    np.testing.assert_array_equal(after.rows, before.rows)
    np.testing.assert_allclose(after.scores, before.scores / 2, atol=1e-6)


def test_merged_lists_are_one_list_in_order() -> None:
    first, second = [0.9, 0.5, 0.2], [0.5, 0.4, -1]
    scores = np.array([[*first, *second]], dtype=np.float32)
    rows = np.array([[2, -1, 0, 7, 9, -1]])
    for lines in (1, 2):
        hits = merged_hits(scores.repeat(lines, axis=0), rows.repeat(lines, axis=0), 5)
        assert hits.rows.tolist() == [[2, 7, 9, 0, -1]] * lines
        np.testing.assert_allclose(hits.scores, [[0.9, 0.5, 0.4, 0.2, -1]] * lines)


class TestAllowedRows:
    """A search that is kept to some rows finds these and no others, and comes back full whenever it can."""

    @settings(max_examples=50, deadline=None)
    @given(
        rows=st.integers(1, 60),
        k=st.integers(1, 70),
        share=st.floats(0, 1),
        queries=st.integers(0, 25),
        seed=st.integers(0, 10**6),
    )
    def test_few_rows_are_searched_as_by_brute_force(
        self, rows: int, k: int, share: float, queries: int, seed: int
    ) -> None:
        vectors, asked = random_units(rows, 8, seed), random_units(queries, 8, seed + 1)
        allowed = np.random.default_rng(seed).random(rows) < share
        scores, found = flat(vectors).search(asked, k, allowed=allowed)
        true_scores, _ = brute_force(vectors[allowed], asked, k)
        assert scores.shape == found.shape == (queries, min(k, allowed.sum()))
        assert allowed[found].all()
        np.testing.assert_allclose(scores, true_scores, atol=1e-6)
        assert all(len(set(line)) == len(line) for line in found.tolist())

    @pytest.mark.parametrize("build", ALL)
    @pytest.mark.parametrize("count", [3, 10, 60, 400])
    def test_k_rows_come_back_whenever_so_many_are_allowed(
        self, build: Callable[[Vectors], FaissIndex], count: int
    ) -> None:
        vectors, queries = random_units(1000, 16), random_units(30, 16, seed=1)
        allowed = np.zeros(1000, dtype=np.bool_)
        allowed[np.argsort(vectors @ queries[0])[:count]] = True  # the worst there are for the first query
        scores, rows = build(vectors).search(queries, 10, allowed=allowed)
        assert rows.shape == (30, min(10, count))
        assert allowed[rows].all()
        assert (np.diff(scores, axis=1) <= 0).all(), "best first"
        np.testing.assert_allclose(scores, np.einsum("nkd,nd->nk", vectors[rows], queries), atol=1e-6)

    @pytest.mark.parametrize("build", ALL)
    def test_what_is_found_is_as_near_as_without_the_limit(self, build: Callable[[Vectors], FaissIndex]) -> None:
        vectors, queries = random_units(1000, 16), random_units(100, 16, seed=1)
        allowed = np.arange(1000) % 4 == 0
        index = build(vectors)

        def recall(rows: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
            return float(np.mean([len({*a} & {*b}) for a, b in zip(rows.tolist(), truth.tolist(), strict=True)])) / 10

        limited = recall(
            index.search(queries, 10, allowed=allowed)[1], 4 * brute_force(vectors[allowed], queries, 10)[1]
        )
        assert limited >= recall(index.search(queries, 10)[1], brute_force(vectors, queries, 10)[1]) - 0.02

    def test_a_graph_that_comes_back_short_is_helped_by_brute_force(self) -> None:
        vectors = np.repeat(random_units(10, 8), 60, axis=0)  # copies link to each other and to hardly anything else
        allowed = np.arange(600) % 60 < 30
        index = hnsw(vectors, ef_search=1, limits=FilterLimits(exact_rows=20, max_breadth_factor=1))
        _, rows = index.search(random_units(5, 8, seed=1), 200)
        assert (rows < 0).any()
        _, rows = index.search(random_units(5, 8, seed=1), 200, allowed=allowed)
        assert (rows >= 0).all()
        assert allowed[rows].all()

    @pytest.mark.parametrize("build", ALL)
    def test_every_row_allowed_is_the_plain_search(self, build: Callable[[Vectors], FaissIndex]) -> None:
        vectors, queries = random_units(300, 16), random_units(20, 16, seed=1)
        index = build(vectors)
        for plain, limited in zip(
            index.search(queries, 5), index.search(queries, 5, allowed=np.ones(300, dtype=np.bool_)), strict=True
        ):
            np.testing.assert_array_equal(plain, limited)

    @pytest.mark.parametrize("build", ALL)
    def test_no_row_allowed_finds_nothing(self, build: Callable[[Vectors], FaissIndex]) -> None:
        scores, rows = build(random_units(300, 16)).search(
            random_units(2, 16), 5, allowed=np.zeros(300, dtype=np.bool_)
        )
        assert scores.shape == rows.shape == (2, 0)

    def test_a_limit_of_another_length_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"\(4,\).*5 rows"):
            flat(random_units(5, 4)).search(random_units(1, 4), 1, allowed=np.ones(4, dtype=np.bool_))


@pytest.mark.parametrize(
    ("factory", "build", "search", "message"),
    [
        ("HNSW16,Nonsense", {}, {}, "FAISS does not build HNSW16,Nonsense"),
        ("HNSW16", {"nprobe": 3}, {}, "could not set parameter nprobe"),
        ("HNSW16", {}, {"nprobe": 3}, "does not know the search parameters nprobe"),
        ("SQ8", {}, {"nonsense": 1}, "does not know the search parameters nonsense"),
        ("IVF4,Flat", {}, {"quantizer_efSearch": 8}, "does not know the search parameters quantizer_efSearch"),
    ],
)
def test_what_faiss_does_not_know_is_refused(
    factory: str, build: dict[str, int], search: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        built(random_units(20, 4), factory, build, search)


def test_building_tells_how_far_it_is() -> None:
    vectors, done = random_units(100, 8), list[int]()
    index = FaissIndex.build(IndexSpec(factory="SQ8", rows=100, dim=8), vectors, advance=done.append, block_rows=30)
    assert done == [30, 30, 30, 10]
    np.testing.assert_array_equal(index.search(vectors, 1)[1][:, 0], np.arange(100))


@pytest.mark.parametrize("queries", [1, 5, 30])
@pytest.mark.parametrize("build", ALL)
def test_the_exact_search_is_brute_force(build: Callable[[Vectors], FaissIndex], queries: int) -> None:
    vectors, asked = random_units(200, 32), random_units(queries, 32, seed=1)
    scores, rows = brute_force(vectors, asked, 10)
    for hits in (exact_search(vectors, asked, 10), build(vectors).exact_search(asked, 10)):
        np.testing.assert_array_equal(hits.rows, rows)
        np.testing.assert_allclose(hits.scores, scores, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    k=st.integers(0, 220), share=st.sampled_from([0, 0.01, 0.5, 1]), copies=st.integers(1, 4), seed=st.integers(0, 99)
)
def test_the_exact_search_is_a_prefix_of_every_longer_one_with_ties_in_row_order(
    k: int, share: float, copies: int, seed: int
) -> None:
    vectors = np.tile(random_units(50, 7, seed), (copies, 1))
    allowed = np.random.default_rng(seed).random(len(vectors)) < share
    query = random_units(1, 7, seed + 1)
    for limit in (None, allowed):
        every = hnsw(vectors).exact_search(query, len(vectors), allowed=limit)
        assert sorted(every.rows[0]) == (
            list(range(len(vectors))) if limit is None else np.flatnonzero(allowed).tolist()
        )
        np.testing.assert_array_equal(np.lexsort((every.rows[0], -every.scores[0])), np.arange(every.rows.shape[1]))
        part = hnsw(vectors).exact_search(query, k, allowed=limit)
        np.testing.assert_array_equal(part.rows, every.rows[:, :k])
        np.testing.assert_array_equal(part.scores, every.scores[:, :k])


@pytest.mark.parametrize("build", ALL)
def test_an_index_hands_out_the_vectors_of_its_rows(build: Callable[[Vectors], FaissIndex]) -> None:
    vectors = random_units(300, 16)
    np.testing.assert_array_equal(build(vectors).vectors_of(np.array([7, 7, 299])), vectors[[7, 7, 299]])


@pytest.mark.parametrize("shape", [(1, 3), (1, 5), (4,)])
@pytest.mark.parametrize("build", ALL)
def test_queries_of_another_length_are_refused(build: Callable[[Vectors], FaissIndex], shape: tuple[int, ...]) -> None:
    index, queries = build(random_units(300, 8)), np.zeros(shape, np.float32)
    for search in (index.search, index.exact_search):
        with pytest.raises(ValueError, match=r"queries have shape .* takes \(n, 8\)"):
            search(queries, 1)


class TestDepth:
    """An approximate index finds max(depth, k) candidates, so results of any k up to the depth are of one list."""

    @pytest.mark.parametrize("build", ALL)
    @pytest.mark.parametrize("share", [None, 0.3])
    def test_results_are_prefixes_of_one_list(
        self, build: Callable[[Vectors], FaissIndex], share: float | None
    ) -> None:
        vectors, queries = random_units(900, 16), random_units(20, 16, seed=1)
        index, allowed = build(vectors), None if share is None else np.random.default_rng(0).random(900) < share
        whole = index.search(queries, MIN_DEPTH, allowed=allowed)
        for k in range(1, MIN_DEPTH):
            part = index.search(queries, k, allowed=allowed)
            np.testing.assert_array_equal(part.rows, whole.rows[:, :k])
            np.testing.assert_array_equal(part.scores, whole.scores[:, :k])

    def test_a_filtered_search_that_comes_back_short_is_exact_for_every_k(self) -> None:
        vectors = np.repeat(random_units(10, 8), 60, axis=0)  # copies link to each other and to hardly anything else
        index = hnsw(vectors, ef_search=1, limits=FilterLimits(exact_rows=20, max_breadth_factor=1))
        query = random_units(1, 8, seed=1)
        # Without the nearest copies, the walk finds 40 rows: enough for a short page, too few for the depth.
        allowed = (np.arange(600) % 60 < 30) & (np.arange(600) // 60 != np.argmax(vectors[::60] @ query[0]))
        whole = index.search(query, MIN_DEPTH, allowed=allowed)
        np.testing.assert_array_equal(whole.rows, index.exact_search(query, MIN_DEPTH, allowed=allowed).rows)
        for k in (1, 5, 50):
            np.testing.assert_array_equal(index.search(query, k, allowed=allowed).rows, whole.rows[:, :k])

    def test_a_depth_below_the_longest_page_is_refused(self) -> None:
        with pytest.raises(ValueError, match="depth"):
            IndexSpec(rows=1, dim=1, depth=MIN_DEPTH - 1)


class TestScoresByCodes:
    """Short codes find candidates and 8-bit codes score them, so a search reads no vector."""

    @pytest.fixture(params=["IVF4,SQ4,Refine(SQ8)", "HR16,PQ16x4fs,Refine(HR16,SQ8)"])
    def index(self, request: pytest.FixtureRequest) -> FaissIndex:
        vectors = random_units(900, 16)
        vectors[700:705] = vectors[5]
        search = {"k_factor_rf": 4} | ({"nprobe": 3} if "IVF" in request.param else {})
        spec = IndexSpec(factory=request.param, search_parameters=search, scores="codes", rows=900, dim=16)
        return FaissIndex.build(spec, vectors, filter_limits=FEW_EXACT_ROWS)

    def test_scores_are_near_the_cosines_and_in_order(self, index: FaissIndex) -> None:
        queries = random_units(10, 16, seed=1)
        for query, scores, rows in zip(queries, *index.search(queries, 50), strict=True):
            np.testing.assert_allclose(scores, index.vectors_of(rows) @ query, atol=0.01)
            assert (np.diff(scores) <= 0).all()
        assert index.search(index.vectors_of(np.array([5])), 6).rows[0].tolist() == [5, 700, 701, 702, 703, 704]

    def test_no_vector_is_read(self, index: FaissIndex, tmp_path: Path) -> None:
        index.save(tmp_path / "codes.faiss")
        spoiled = np.full((900, 16), np.nan, np.float32)
        blind = FaissIndex.load(index.spec, tmp_path / "codes.faiss", spoiled)
        queries = random_units(10, 16, seed=2)
        for found, expected in zip(blind.search(queries, 50), index.search(queries, 50), strict=True):
            np.testing.assert_array_equal(found, expected)

    def test_a_filtered_search_scores_alike(self, index: FaissIndex) -> None:
        allowed = np.arange(900) % 3 > 0
        query = random_units(1, 16, seed=3)
        scores, rows = index.search(query, 50, allowed=allowed)
        assert allowed[rows].all()
        everywhere = dict(zip(*(line[0].tolist() for line in reversed(index.search(query, 200))), strict=True))
        shared = [row for row in rows[0].tolist() if row in everywhere]
        assert len(shared) > 40
        assert [scores[0][list(rows[0]).index(row)] for row in shared] == [everywhere[row] for row in shared]

    def test_an_exact_search_is_by_the_vectors(self, index: FaissIndex) -> None:
        query, every = random_units(1, 16, seed=4), index.vectors_of(np.arange(900))
        np.testing.assert_allclose(
            index.exact_search(query, 9).scores[0], np.sort(every @ query[0])[:-10:-1], atol=1e-6
        )

    def test_an_index_without_such_codes_is_refused(self, tmp_path: Path) -> None:
        vectors = random_units(300, 16)
        graph = built(vectors, "HNSW16,SQ8")
        graph.save(tmp_path / "graph.faiss")
        with pytest.raises(ValueError, match=r"HNSW16,SQ8 has no codes that give scores: name them by Refine"):
            FaissIndex.build(graph.spec.model_copy(update={"scores": "codes"}), vectors)
        with pytest.raises(ArtifactDamaged, match="Refine"):
            FaissIndex.load(graph.spec.model_copy(update={"scores": "codes"}), tmp_path / "graph.faiss", vectors)


def test_vectors_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(4, 4\)"):
        FaissIndex.build(IndexSpec(rows=4, dim=4), random_units(3, 4))


@pytest.mark.parametrize("content", [b"", b"not an index", None], ids=["empty", "other content", "no file"])
def test_what_is_no_index_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    if content is not None:
        path.write_bytes(content)
    vectors = random_units(20, 4)
    with pytest.raises(ArtifactDamaged, match=r"index\.faiss is not a readable index"):
        FaissIndex.load(IndexSpec(factory="HNSW16,SQ8", rows=20, dim=4), path, vectors)


@pytest.mark.parametrize(("rows", "dim"), [(21, 4), (20, 5)])
def test_an_index_that_disagrees_with_its_description_is_refused(rows: int, dim: int, tmp_path: Path) -> None:
    hnsw(random_units(20, 4)).save(tmp_path / "index.faiss")
    with pytest.raises(ArtifactDamaged, match="the manifest says"):
        FaissIndex.load(
            IndexSpec(factory="HNSW16,SQ8", rows=rows, dim=dim), tmp_path / "index.faiss", random_units(rows, dim)
        )


@pytest.mark.parametrize("factory", ["Flat", "HNSW16,SQ8"])
@pytest.mark.parametrize(("rows", "dim"), [(21, 4), (20, 5)])
def test_vectors_that_disagree_with_the_description_are_refused(
    factory: str, rows: int, dim: int, tmp_path: Path
) -> None:
    hnsw(random_units(20, 4)).save(tmp_path / "index.faiss")
    with pytest.raises(ArtifactDamaged, match="another shape than the manifest says"):
        FaissIndex.load(IndexSpec(factory=factory, rows=20, dim=4), tmp_path / "index.faiss", random_units(rows, dim))
