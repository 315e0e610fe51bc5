"""Milvus Lite hangs up on who asks too often whether it is there, in the middle of a call; nobody here does."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.common.paths import ROOT

CALL_S = 75
"""A call that takes so long, as the index of a large collection does, and during which no byte comes. The server
hangs up at the fifth ping of pymilvus, after 50 s."""

ASK = f"""
import sys, time
from milvus_lite.adapter.grpc.servicer import MilvusServicer
from pymilvus import MilvusClient
from clip_retrieval.indexes.milvus_engine import MilvusEngine

answer = MilvusServicer.ShowCollections
def slowly(*arguments):
    time.sleep({CALL_S})
    return answer(*arguments)
MilvusServicer.ShowCollections = slowly

# gRPC holds the pings of a client back after the second, and the hang-up would come after minutes.
channel = {{"grpc.http2.max_pings_without_data": 0}}
kind, uri = sys.argv[1:]
def ask(client):
    return client.list_collections(timeout={2 * CALL_S})
if kind == "ours":
    print(MilvusEngine(uri, channel=channel).asked(ask))
else:
    print(ask(MilvusClient(uri, dedicated=True, grpc_options=channel)))
"""


@pytest.mark.slow
def test_a_call_that_takes_long_is_not_hung_up_on(tmp_path: Path) -> None:
    asking = {}
    for kind in ("ours", "pymilvus"):
        log = (tmp_path / f"{kind}.log").open("wb")
        command = [sys.executable, "-c", ASK, kind, str(tmp_path / f"{kind}.db")]
        asking[kind] = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        log.close()
    try:
        assert asking["ours"].wait(2 * CALL_S) == 0
    finally:
        for process in asking.values():
            process.kill()
            process.wait()
    assert (tmp_path / "ours.log").read_text() == "[]\n"
    assert "too_many_pings" in (tmp_path / "pymilvus.log").read_text(), "what this is about does not happen any more"
