"""One worker as a process: BentoML's command for one, without what no worker of this service needs.

python -m clip_retrieval.serving.work clip_retrieval.service:ClipRetrieval --fd 3 --worker-id 1 …
"""

import gc
import os
from collections.abc import Mapping
from pathlib import Path

from clip_retrieval.serving.leading import BENTO, IS_SMALL, said

ARTIFACT = "BENTO_CLIP_ARTIFACT"


def finds_artifact(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a worker finds what it serves without BentoML, which it is not sure to where a Bento names a tag."""
    if IS_SMALL not in environment:
        return False
    bento, source = environment.get(BENTO), said(ARTIFACT, environment)
    if bento is None or (source is not None and Path(source).is_dir()):
        return True
    return source is None and Path(bento, "models", "clip-retrieval", "latest").is_file()


if __name__ == "__main__":
    gc.disable()  # until the heap is frozen: nearly all that a start makes stays, and would be looked at in vain
    if finds_artifact():
        from clip_retrieval.serving.beginning import begin

        begin()
    from clip_retrieval.serving.without_cloud import run_worker

    run_worker()
