"""One worker as a process: BentoML's command for one, without what no worker of this service needs.

python -m clip_retrieval.serving.work clip_retrieval.service:ClipRetrieval --fd 3 --worker-id 1 …
"""

import gc
import os
import sys

from clip_retrieval.serving.leading import IS_SMALL, SERVICE

if __name__ == "__main__":
    gc.disable()  # until the heap is frozen: nearly all that a start makes stays, and would be looked at in vain
    if IS_SMALL in os.environ and SERVICE in sys.argv:  # for a Bento, BentoML says first where its artifact is
        from clip_retrieval.serving.beginning import begin

        begin()
    from clip_retrieval.serving.without_cloud import run_worker

    run_worker()
