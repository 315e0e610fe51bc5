"""The service as two of BentoML's: a search on CPUs, and an encoder that it depends on, on a GPU where one is.

    bentoml serve clip_retrieval.split_service:ClipRetrieval

The search is all of ``service.py`` without an encoder: the same routes, the same answers. ``BENTO_CLIP_ENCODER_URL``
names an encoder that somebody else started; without it BentoML starts one beside the search.

A worker of the encoder loads this file too, for that is how BentoML finds it. It gets the encoder alone.
"""

from typing import Any

import bentoml

from clip_retrieval.encoder_service import ClipEncoder
from clip_retrieval.serving.bento_worker import ENCODER, service_of_worker


def _search() -> Any:
    from clip_retrieval import service
    from clip_retrieval.serving import process

    @bentoml.service(
        resources={"cpu": "1", "memory": "1Gi"},
        traffic={"concurrency": 2 * service.settings.max_batch_size},
        runner_probe={"enabled": False},  # without its encoder it goes on with what needs none
        **service.options,
    )
    @bentoml.asgi_app(service.app, path="/")
    class ClipRetrieval(service.ClipRetrieval.inner):  # type: ignore[misc, name-defined]
        """Text and images to images and captions, by the vectors of another service."""

        encoder = bentoml.depends(ClipEncoder, url=service.settings.encoder_url)

        @bentoml.on_deployment
        @staticmethod
        def check() -> None:
            beside = {} if service.settings.encoder_url else {ENCODER: process.ENCODER_WORKERS}
            process.prepare(service.settings, service.begun.tag, service.begun.folder, beside)

    service.add_middleware(ClipRetrieval)
    return ClipRetrieval


def _only_encoder() -> Any:
    @bentoml.service(name="clip-retrieval")
    class ClipRetrieval:
        encoder = bentoml.depends(ClipEncoder)

    return ClipRetrieval


ClipRetrieval = _only_encoder() if service_of_worker() == ENCODER else _search()
