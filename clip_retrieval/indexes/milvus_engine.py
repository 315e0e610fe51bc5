"""Milvus (https://milvus.io): connections, deadlines, and collections that appear complete.

A URI is that of a cluster, ``http://user:password@host:19530``, or a path that ends in ``.db``: then Milvus Lite runs
inside this process, and the folder belongs to this process alone. Nothing is asked before the first search, so a
service starts while its engine is away. Every call has a deadline; until it, pymilvus tries again by itself. After a
call that failed, others fail at once for ``PAUSE_S``, so that a dead engine does not hold the threads of a server.

A collection is filled under a name of its own. It gets the alias under which it is searched when it is complete, so
half a collection is never searched.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from grpc import Call, RpcError
from numpy.typing import NDArray
from pymilvus import DataType, MilvusClient, MilvusException
from pymilvus.client.types import LoadState

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.errors import IndexAway
from clip_retrieval.indexes.milvus_place import is_file, without_secrets

SEARCH_S = 2.0
"""Seconds that a search may take, its retries included."""
WRITE_S = 60.0
"""Seconds that one batch of rows, or one step of a build, may take."""
LOAD_S = 600.0
"""Seconds that Milvus may take to build the index of a whole collection and to load it."""
PAUSE_S = 1.0
"""For so many seconds after a call that failed, the engine is not asked again."""
MAX_FOUND = 16_384
"""Most rows that Milvus gives for one query (its ``limit``)."""
MAX_TEXT_BYTES = 65_535
"""Longest text of a Milvus field. A longer one is cut there; the artifact has the whole text."""

METRIC = "IP"
"""The inner product: of unit vectors, their cosine."""
ROW, VECTOR = "row", "vector"

TYPES = {"text": DataType.VARCHAR, "number": DataType.DOUBLE, "boolean": DataType.BOOL}

# pymilvus writes the stack of every error into the log; the error itself is raised, and told in words.
for _name in ("pymilvus", "pymilvus.decorators", "pymilvus.client.connection_manager"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)
# Milvus Lite tells so of every call that it does not have, and pymilvus does without them.
for _name in ("milvus_lite", "grpc._server"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

# gRPC's own error is a call that took too long; ValueError, one whose connection another thread has given up.
_FAILURES = (MilvusException, RpcError, OSError, ValueError)

_T = TypeVar("_T")
_engines: dict[str, "MilvusEngine"] = {}
_engines_lock = threading.Lock()


def engine_at(uri: str) -> "MilvusEngine":
    """The engine at ``uri``: one for this process."""
    with _engines_lock:
        return _engines.setdefault(uri, MilvusEngine(uri))


class MilvusEngine:
    """A Milvus at one URI. Safe from several threads."""

    def __init__(
        self,
        uri: str,
        *,
        search_s: float = SEARCH_S,
        pause_s: float = PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._uri = uri
        self._search_s, self._pause_s, self._clock = search_s, pause_s, clock
        self._client: MilvusClient | None = None
        self._loaded: set[str] = set()
        self._lock = threading.Lock()
        self._failed_at = -float("inf")
        self._trouble: str | None = None

    @property
    def trouble(self) -> str | None:
        """What was wrong with the last call, as a sentence; None if nothing was."""
        return self._trouble

    def search(
        self, name: str, queries: Vectors, limit: int, parameters: Mapping[str, int], expression: str = ""
    ) -> NDArray[np.int64]:
        """Rows for each query of shape (n, dim), best first: int64 (n, limit), -1 where fewer were found.

        Raises IndexAway.
        """

        def ask(client: MilvusClient) -> Any:
            return client.search(
                name,
                data=list(np.asarray(queries, dtype=np.float32)),
                anns_field=VECTOR,
                limit=limit,
                filter=expression,
                output_fields=[ROW],
                search_params={"metric_type": METRIC, "params": dict(parameters)},
                consistency_level="Bounded",
                timeout=self._search_s,
            )

        rows = np.full((len(queries), limit), -1, dtype=np.int64)
        for line, found in zip(rows, self._asked(ask, name, is_patient=False), strict=True):
            line[: len(found)] = found.ids
        return rows

    def probe(self, name: str) -> None:
        """Ask for nothing but whether the collection is there. Raises IndexAway."""
        self._asked(lambda client: client.describe_collection(name, timeout=self._search_s), name)

    def count(self, name: str) -> int | None:
        """How many rows the collection has, None without one of that name. Raises IndexAway."""

        def ask(client: MilvusClient) -> int | None:
            if not client.has_collection(name, timeout=WRITE_S):
                return None
            client.load_collection(name, timeout=LOAD_S)
            found = client.query(
                name, filter="", output_fields=["count(*)"], consistency_level="Strong", timeout=WRITE_S
            )
            return int(found[0]["count(*)"])

        return self._asked(ask)

    def fill(
        self,
        alias: str,
        dim: int,
        fields: Mapping[str, tuple[str, str]],
        batches: Iterable[Sequence[Mapping[str, Any]]],
        index: tuple[str, Mapping[str, int]],
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Write rows into a new collection, which gets the name ``alias`` when all of them are there.

        ``fields`` maps the name of each field, beside row and vector, to its type (a key of ``TYPES``) and to words for
        people. ``index`` is its kind and the parameters of its build. What had the alias is dropped afterwards, and so
        is what a build that was killed has left. ``advance`` gets the number of rows just written. Raises IndexAway.
        """
        self._asked(lambda client: self._fill(client, alias, dim, fields, batches, index, advance))

    def _fill(
        self,
        client: MilvusClient,
        alias: str,
        dim: int,
        fields: Mapping[str, tuple[str, str]],
        batches: Iterable[Sequence[Mapping[str, Any]]],
        index: tuple[str, Mapping[str, int]],
        advance: Callable[[int], None],
    ) -> None:
        before = _aliased(client, alias)
        name = f"{alias}_b" if before == f"{alias}_a" else f"{alias}_a"
        if client.has_collection(name, timeout=WRITE_S):  # a build that was killed has left it
            client.drop_collection(name, timeout=WRITE_S)
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(ROW, DataType.INT64, is_primary=True)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dim)
        for field, (kind, words) in fields.items():
            length = {"max_length": MAX_TEXT_BYTES} if kind == "text" else {}
            schema.add_field(field, TYPES[kind], nullable=True, description=words[:200], **length)
        client.create_collection(name, schema=schema, consistency_level="Bounded", timeout=WRITE_S)
        for batch in batches:
            if batch:
                client.insert(name, [dict(row) for row in batch], timeout=WRITE_S)
            advance(len(batch))
        client.flush(name, timeout=LOAD_S)
        self._index(client, name, index)
        if before is None:
            client.create_alias(name, alias, timeout=WRITE_S)
        else:
            client.alter_alias(name, alias, timeout=WRITE_S)
            client.drop_collection(before, timeout=WRITE_S)
        self._loaded.discard(alias)

    def index_again(self, alias: str, index: tuple[str, Mapping[str, int]]) -> None:
        """Give the collection another kind of index. Raises IndexAway."""

        def ask(client: MilvusClient) -> None:
            name = _aliased(client, alias) or alias
            client.release_collection(name, timeout=WRITE_S)
            client.drop_index(name, VECTOR, timeout=WRITE_S)
            self._index(client, name, index)

        self._asked(ask)

    def drop(self, alias: str) -> None:
        """Remove the collection that has this alias, and the alias. Raises IndexAway."""

        def ask(client: MilvusClient) -> None:
            if (name := _aliased(client, alias)) is not None:
                client.drop_alias(alias, timeout=WRITE_S)
                client.drop_collection(name, timeout=WRITE_S)
            self._loaded.discard(alias)

        self._asked(ask)

    def close(self) -> None:
        """Close the connection; the next call opens another one."""
        with self._lock:
            client, self._client = self._client, None
            self._loaded.clear()
        if client is not None:
            client.close()

    @staticmethod
    def _index(client: MilvusClient, name: str, index: tuple[str, Mapping[str, int]]) -> None:
        kind, parameters = index
        described = client.prepare_index_params()
        described.add_index(VECTOR, index_type=kind, metric_type=METRIC, params=dict(parameters))
        client.create_index(name, described, timeout=LOAD_S)
        client.load_collection(name, timeout=LOAD_S)

    def _asked(self, ask: Callable[[MilvusClient], _T], name: str | None = None, *, is_patient: bool = True) -> _T:
        """What ``ask`` answers; with ``name``, the collection of that name is loaded first.

        A call that is not ``is_patient`` fails at once where another one has just failed.
        """
        client: MilvusClient | None = None
        try:
            client = self._connected(is_patient=is_patient)
            if name is not None and name not in self._loaded:
                self._load(client, name)
            answer = ask(client)
        except _FAILURES as error:
            failure = self._noted(error)
            # A restarted engine has loaded nothing, and a cluster may be behind another address now.
            if client is not None and client is self._client:
                self.close()
            raise failure from error
        self._trouble = None
        return answer

    def _connected(self, *, is_patient: bool) -> MilvusClient:
        if not is_patient:
            self._check_pause()
        with self._lock:
            if self._client is None:
                if not is_patient:  # the thread that had the lock may have tried in vain
                    self._check_pause()
                uri = str(Path(self._uri).resolve()) if is_file(self._uri) else self._uri
                try:
                    self._client = MilvusClient(uri, timeout=self._search_s, dedicated=not is_file(uri))
                except _FAILURES as error:
                    held = is_file(uri) and Path(uri).is_dir()
                    said = "another process has it open, and only one at a time can, or it is no Milvus Lite"
                    raise self._noted(ValueError(said) if held else error) from error
            return self._client

    def _check_pause(self) -> None:
        if self._trouble is not None and (waited := self._clock() - self._failed_at) < self._pause_s:
            raise IndexAway(f"{self._trouble} (asked {waited:.1f} s ago)")

    def _noted(self, error: Exception) -> IndexAway:
        self._trouble = f"Milvus at {without_secrets(self._uri)} does not answer: {_reason(error)}"
        self._failed_at = self._clock()
        return IndexAway(self._trouble)

    def _load(self, client: MilvusClient, name: str) -> None:
        if not client.has_collection(name, timeout=self._search_s):
            raise ValueError(f"it has no collection {name}; build the artifact again with --index milvus")
        if client.get_load_state(name, timeout=self._search_s)["state"] != LoadState.Loaded:
            client.load_collection(name, timeout=WRITE_S)
        self._loaded.add(name)


def field_text(text: str) -> str:
    """``text`` as a Milvus field takes it: not longer than ``MAX_TEXT_BYTES``."""
    encoded = text.encode("utf-8", "replace")
    return text if len(encoded) <= MAX_TEXT_BYTES else encoded[:MAX_TEXT_BYTES].decode("utf-8", "ignore")


def _aliased(client: MilvusClient, alias: str) -> str | None:
    """The name of the collection that has this alias."""
    try:
        return str(client.describe_alias(alias, timeout=WRITE_S)["collection_name"])
    except MilvusException:
        if client.has_collection(alias, timeout=WRITE_S):
            raise
        return None


def _reason(error: Exception) -> str:
    details = error.details() if isinstance(error, Call) else ""
    message = str(details or getattr(error, "message", "") or error)
    return message.splitlines()[0][:300] if message else type(error).__name__
