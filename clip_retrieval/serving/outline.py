"""The service as its supervisor sees it: a name, a number of workers, and the check before the start.

``launch.py`` has the supervisor load this file. The workers load ``service.py``, which wires the rest.
"""

import bentoml

from clip_retrieval.errors import ClipRetrievalError
from clip_retrieval.serving import process, start_profile

start_profile.mark("supervisor", "interpreter and imports")
place = process.take_place()
settings = process.read_settings()
try:
    tag, folder = process.find_artifact(settings.artifact)
except ClipRetrievalError as error:
    process.end_service(place.shared, error)
process.use_log_format(settings)


@bentoml.service(name="clip-retrieval", workers=process.share_cores(settings)[0])
class ClipRetrieval:
    """Text and images to images and captions."""

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        process.prepare(settings, tag, folder)
