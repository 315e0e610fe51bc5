"""The service with an encoder of texts that falls ill when the test says so: by a file, named in ``SICK_ENCODER``.

``raises`` and ``hangs`` last as long as the file says so; ``hangs once`` lasts for the life of one process.
"""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from clip_retrieval.encoders.base import Tokens, Vectors
from clip_retrieval.encoders.fake import FakeEncoder
from clip_retrieval.service import ClipRetrieval

__all__ = ["ClipRetrieval"]

SWITCH = Path(os.environ["SICK_ENCODER"])

_well = FakeEncoder.encode_tokens


def _illness() -> str:
    return SWITCH.read_text() if SWITCH.exists() else ""


def _encode_tokens(self: FakeEncoder, texts: Sequence[Tokens]) -> Vectors:
    if (illness := _illness()) == "raises":
        raise RuntimeError("out of memory")
    if illness == "hangs once":
        SWITCH.unlink()
        threading.Event().wait()
    while _illness() == "hangs":
        time.sleep(0.05)
    return _well(self, texts)


FakeEncoder.encode_tokens = _encode_tokens  # type: ignore[method-assign]
