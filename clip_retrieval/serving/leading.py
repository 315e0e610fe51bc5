"""What a supervisor has ready for its workers before it starts one. It loads no package: a supervisor is small."""

import os
from collections.abc import Mapping

from clip_retrieval.cores import usable_cores
from clip_retrieval.serving import lifeline, service_folder
from clip_retrieval.serving.shared_state import DESCRIPTOR, SharedState

BOUND = "BENTOCLIP_BOUND"
"""The environment variable of workers with the address that the service listens on. It is no setting."""

IS_SMALL = "BENTOCLIP_SMALL_SUPERVISOR"
"""The environment variable of workers whose supervisor has not read the settings, and leaves warnings to them."""

BENTO = "BENTOCLIP_BENTO"
"""The environment variable of workers with the folder of the Bento that is served, if it is one."""

CORES_PER_WORKER = 4
"""One event loop keeps about so many cores busy with texts: with AMX three, on a slower processor more, since a text
takes the encoder longer there and the event loop as long (docs/serving.md, ``scripts/simulate_cores.py``)."""

SERVICE, SPLIT = "clip_retrieval.service:ClipRetrieval", "clip_retrieval.split_service:ClipRetrieval"
"""What BentoML calls the service, and the one that is two."""


HUGE_PAGES = "glibc.malloc.hugetlb=1"
"""Has the GNU C library ask for huge pages for what is large (its manual, Memory Allocation Tunables). A search right
after the encoder waits for the addresses of the index's codes nearly as long as for the codes: 0.36 ms in place of 0.48
for 40,000 captions, for 6 MB more."""


def said(name: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """What a setting says, in letters of any case; None if it is not set."""
    return next((value for key, value in environment.items() if key.upper() == name), None)


def usual_workers(cores: int | None = None) -> int:
    """How many workers a service has on this machine, or on one with so many ``cores``, unless a setting says so."""
    return max(1, (cores or usable_cores()) // CORES_PER_WORKER)


def lead(workers: int) -> SharedState:
    """Make this process, which has yet to start workers, the leader of a service of so many: what they share is made,
    and named in the environment. They end with this process.
    """
    shared = SharedState.create(2 * workers)  # a worker may begin before the one that it replaces has ended
    os.environ[DESCRIPTOR] = str(shared.descriptor)
    os.environ[service_folder.VARIABLE] = str(service_folder.make_folder())
    os.environ.setdefault("GLIBC_TUNABLES", HUGE_PAGES)
    lifeline.hold(os.environ)
    return shared
