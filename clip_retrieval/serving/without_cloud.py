"""BentoML's parts for services, loaded without what no server of ours uses: its clients of BentoCloud and of services.

``bentoml.service`` imports the whole client, with httpx, a library of WebSockets and 150 schemas, for four classes with
which models are pushed and pulled: a third of what it costs. Here these are stand-ins while it is imported. The client
itself is untouched: who imports it later gets it. A worker of BentoML's loads the client before it loads the service,
so workers are to begin with ``run_worker``. That also leaves out the client with which a service may call itself or
others and the proxy to a server that a service may start by a command of its own, both with the whole of aiohttp; and
the supervisor. This file uses these private names of bentoml; bentoml is pinned, and
tests/serving/test_without_cloud.py says what breaks:

    bentoml._internal.cloud                       what is left out
    _bentoml_sdk.models                           what imports these classes from it:
    .client.RestApiClient                         the type of a parameter
    .schemas.modelschemas.LabelItemSchema, ModelManifestSchema, .schemas.schemasv1.CreateModelSchema   for a push
    _bentoml_impl.client.RemoteProxy              what a service is called with
    _bentoml_impl.server.proxy.create_proxy_app   what a service with a command of its own is served by
    _bentoml_impl.server.serving.serve_http       the supervisor, which is circus, with ZeroMQ and Tornado
    _bentoml_impl.worker.service.main             the command of a worker
"""

import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, Self

CLOUD = "bentoml._internal.cloud"
CLIENT, PROXY, SERVING = "_bentoml_impl.client", "_bentoml_impl.server.proxy", "_bentoml_impl.server.serving"
STAND_INS: Mapping[str, tuple[str, ...]] = {
    CLOUD: (),
    f"{CLOUD}.client": ("RestApiClient",),
    f"{CLOUD}.schemas": (),
    f"{CLOUD}.schemas.modelschemas": ("LabelItemSchema", "ModelManifestSchema"),
    f"{CLOUD}.schemas.schemasv1": ("CreateModelSchema",),
}
"""The classes of each module that are looked for."""


class NotLoaded:
    """Stands for a class of the client in a process that was to have none."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("this process serves and has no client of BentoCloud; push and pull with BentoML's command")


def run_worker() -> None:
    """Be the worker that the arguments of this process describe, as BentoML's own command for one takes them."""
    load_service_parts()
    for name, (what, stand_in) in OF_OTHERS.items():
        sys.modules[name] = ModuleType(name)
        setattr(sys.modules[name], what, stand_in)
    import_module("_bentoml_impl.worker.service").main()


class NoRemoteProxy:
    """Stands for what a service calls itself with. BentoML makes one for every service; ours never does."""

    to_async = to_sync = None

    def __init__(self, *_: Any, **__: Any) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def close(self) -> None: ...


def no_server(*_: Any, **__: Any) -> Any:
    """Stands for what starts another server, or a proxy to one. Raises RuntimeError."""
    raise RuntimeError("this process is a worker; it starts no other server and is a proxy to none")


OF_OTHERS: Mapping[str, tuple[str, Any]] = {
    CLIENT: ("RemoteProxy", NoRemoteProxy),
    PROXY: ("create_proxy_app", no_server),
    SERVING: ("serve_http", no_server),
}
"""What workers import for processes that they are not, each with the one name that is looked for."""


def load_service_parts() -> None:
    """Import what ``bentoml.service`` needs; does nothing where the client, or these parts, are loaded already."""
    if CLOUD in sys.modules or "_bentoml_sdk.models" in sys.modules:
        return
    import_module("bentoml._internal")
    for name, classes in STAND_INS.items():
        module = ModuleType(name)
        module.__path__ = []
        for each in classes:
            setattr(module, each, type(each, (NotLoaded,), {}))
        sys.modules[name] = module
    try:
        import_module("_bentoml_sdk.models")
    finally:
        for name in STAND_INS:
            del sys.modules[name]
