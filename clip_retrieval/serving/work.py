"""One worker as a process: BentoML's command for one, without what no worker of this service needs.

python -m clip_retrieval.serving.work clip_retrieval.service:ClipRetrieval --fd 3 --worker-id 1 …
"""

import gc

from clip_retrieval.serving.without_cloud import run_worker

if __name__ == "__main__":
    gc.disable()  # until the heap is frozen: nearly all that a start makes stays, and would be looked at in vain
    run_worker()
