"""Milvus Lite for tests: a collection of vectors in a folder of the test."""

import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clip_retrieval.encoders.base import Vectors
from clip_retrieval.indexes.base import MIN_DEPTH, IndexSpec
from clip_retrieval.indexes.milvus_engine import ROW, VECTOR
from clip_retrieval.indexes.milvus_index import MilvusIndex
from clip_retrieval.indexes.milvus_writer import MilvusWriter

GRAPH: tuple[str, Mapping[str, int]] = ("HNSW", {"M": 16, "efConstruction": 100})
EXACT: tuple[str, Mapping[str, int]] = ("FLAT", {})
LISTS: tuple[str, Mapping[str, int]] = ("IVF_FLAT", {"nlist": 16})
SEARCH = {"FLAT": {}, "HNSW": {"ef": 128}, "IVF_FLAT": {"nprobe": 14}}
"""How each kind of index is searched."""


def filled(
    engine: MilvusWriter,
    vectors: Vectors,
    index: tuple[str, Mapping[str, int]],
    *,
    name: str = "vectors",
    fields: Mapping[str, tuple[str, str]] | None = None,
    values: Mapping[str, list[Any]] | None = None,
) -> None:
    """Write ``vectors`` with the values of ``fields``, row by row and None where there is none, under ``name``."""
    rows = [
        {ROW: row, VECTOR: vector, **{field: held[row] for field, held in (values or {}).items()}}
        for row, vector in enumerate(vectors)
    ]
    batches = [rows[start : start + 500] for start in range(0, len(rows), 500)]
    engine.fill(name, vectors.shape[1], fields or {}, batches, index, optional=list(fields or {}))


def milvus_index(
    folder: Path,
    vectors: Vectors,
    index: tuple[str, Mapping[str, int]],
    *,
    depth: int = MIN_DEPTH,
    exact_rows: int = 20,
    uri: str | None = None,
    name: str = "vectors",
    are_here: bool = True,
) -> MilvusIndex:
    """``vectors`` behind the Milvus at ``uri``, by default a Milvus Lite in ``folder``.

    Filters of more than ``exact_rows`` rows reach Milvus. The vectors ``are_here`` too, or fetched from there.
    """
    engine = MilvusWriter(uri or str(folder / "index.db"), search_s=20)
    filled(engine, vectors, index, name=name)
    rows, dim = vectors.shape
    parameters = SEARCH[index[0]]
    spec = IndexSpec(
        engine="milvus", name=name, factory=index[0], search_parameters=parameters, depth=depth, rows=rows, dim=dim
    )
    return MilvusIndex(spec, engine, vectors if are_here else None, exact_rows=exact_rows)


SERVER = """
import sys, time
from milvus_lite.adapter.grpc.server import start_server_in_thread
held = start_server_in_thread(sys.argv[1], port=int(sys.argv[2]))
print("ready", flush=True)
time.sleep(600)
"""


class LiteServer:
    """A Milvus Lite in a process of its own, at one port."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._folder = folder
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        command = [sys.executable, "-c", SERVER, str(self._folder), str(self._port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def hang(self) -> None:
        """Stand still with every connection open, until ``stop``."""
        self._process.send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
