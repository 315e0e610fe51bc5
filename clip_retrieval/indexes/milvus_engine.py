"""Milvus (https://milvus.io): connections, deadlines and searches.

A URI is that of a cluster, ``http://user:password@host:19530``, or a path that ends in ``.db``: then Milvus Lite runs
inside this process, or in the one that has opened the folder first. Nothing is asked before the first search, so a
service starts while its engine is away. Every call has a deadline; until it, pymilvus tries again by itself. After a
call that failed, others fail at once for ``PAUSE_S``, so that a dead engine does not hold the threads of a server.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from grpc import Call, RpcError
from numpy.typing import NDArray
from pymilvus import MilvusClient, MilvusException
from pymilvus.client.types import LoadState

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.errors import IndexAway
from clip_retrieval.indexes.milvus_lite import lite_address
from clip_retrieval.indexes.milvus_place import is_file, is_on_this_host, without_secrets

SEARCH_S = 2.0
"""Seconds that a search may take, its retries included."""
WRITE_S = 60.0
"""Seconds that one batch of rows, or one step of a build, may take."""
PAUSE_S = 1.0
"""For so many seconds after a call that failed, the engine is not asked again."""

QUIET = {"grpc.keepalive_time_ms": 600_000}
"""Milvus Lite hangs up on a client that asks every ten seconds whether it is there, as pymilvus does. The client asks
because a peer behind a network may go without a word; a process of this host cannot."""

METRIC = "IP"
"""The inner product: of unit vectors, their cosine."""
ROW, VECTOR = "row", "vector"

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
        channel: Mapping[str, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``channel`` has settings of gRPC's channel, beside those that this class needs."""
        self._uri, self._channel = uri, channel or {}
        self._search_s, self._pause_s, self._clock = search_s, pause_s, clock
        self._client: MilvusClient | None = None
        self._is_lent = False
        self.loaded: set[str] = set()
        """The names of collections that are loaded."""
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
        for line, found in zip(rows, self.asked(ask, name, is_patient=False), strict=True):
            line[: len(found)] = found.ids
        return rows

    def fetch(self, name: str, rows: NDArray[np.int64], dim: int) -> Vectors:
        """The vectors of these rows, which differ: float32 (len(rows), dim). Raises IndexAway."""

        def ask(client: MilvusClient) -> Any:
            return client.get(
                name,
                ids=rows.tolist(),
                output_fields=[ROW, VECTOR],
                consistency_level="Bounded",
                timeout=self._search_s,
            )

        found = self.asked(ask, name, is_patient=False)
        vectors = np.empty((len(rows), dim), np.float32)
        if len(found) != len(rows):
            raise self._noted(ValueError(f"{name} has {len(found)} of {len(rows)} rows; build the artifact again"))
        places = {row: place for place, row in enumerate(rows.tolist())}
        for one in found:
            vectors[places[one[ROW]]] = one[VECTOR]
        return vectors

    def probe(self, name: str) -> None:
        """Ask for nothing but whether the collection is there. Raises IndexAway."""
        self.asked(lambda client: client.describe_collection(name, timeout=self._search_s), name)

    def close(self) -> None:
        """Close the connection; the next call opens another one."""
        with self._lock:
            client, self._client = self._client, None
            self.loaded.clear()
        if client is not None:
            client.close()

    def asked(self, ask: Callable[[MilvusClient], _T], name: str | None = None, *, is_patient: bool = True) -> _T:
        """What ``ask`` answers; with ``name``, the collection of that name is loaded first.

        A call that is not ``is_patient``, which is a search, fails at once where another one has just failed, and is
        made again where the process has ended that had a Milvus Lite open. Raises IndexAway.
        """
        client = self._connected(is_patient=is_patient)
        try:
            answer = self._answer(client, ask, name)
        except _FAILURES as error:
            failure = self._noted(error)
            # A restarted engine has loaded nothing, and a cluster may be behind another address now.
            if client is self._client:
                self.close()
            if is_patient or not self._is_lent:  # what writes may have done half of its work
                raise failure from error
            answer = self._asked_again(ask, name)
        self._trouble = None
        return answer

    def _asked_again(self, ask: Callable[[MilvusClient], _T], name: str | None) -> _T:
        """The answer of a Milvus Lite whose process has just ended: the folder is opened here, or by another one."""
        client = self._connected(is_patient=True)
        try:
            return self._answer(client, ask, name)
        except _FAILURES as error:
            if client is self._client:
                self.close()
            raise self._noted(error) from error

    def _answer(self, client: MilvusClient, ask: Callable[[MilvusClient], _T], name: str | None) -> _T:
        if name is not None and name not in self.loaded:
            self._load(client, name)
        return ask(client)

    def _connected(self, *, is_patient: bool) -> MilvusClient:
        if not is_patient:
            self._check_pause()
        with self._lock:
            if self._client is None:
                if not is_patient:  # the thread that had the lock may have tried in vain
                    self._check_pause()
                try:
                    uri = self._uri
                    if is_file(uri):
                        uri, self._is_lent = lite_address(Path(uri).resolve())
                    channel = {**self._channel, **(QUIET if is_on_this_host(uri) else {})}
                    self._client = MilvusClient(uri, timeout=self._search_s, dedicated=True, grpc_options=channel)
                except _FAILURES as error:
                    raise self._noted(error) from error
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
        self.loaded.add(name)


def _reason(error: Exception) -> str:
    details = error.details() if isinstance(error, Call) else ""
    message = str(details or getattr(error, "message", "") or error)
    return message.splitlines()[0][:300] if message else type(error).__name__
