"""BentoML's parts for services, loaded without its client of BentoCloud, which no server asks for anything.

``bentoml.service`` imports the whole client, with httpx, a library of WebSockets and 150 schemas, for four classes with
which models are pushed and pulled: a third of what it costs. Here these are stand-ins while it is imported. The client
itself is untouched: who imports it later gets it. This file uses these private names of bentoml; bentoml is pinned, and
tests/serving/test_without_cloud.py says what breaks:

    bentoml._internal.cloud                       what is left out
    _bentoml_sdk.models                           what imports these classes from it:
    .client.RestApiClient                         the type of a parameter
    .schemas.modelschemas.LabelItemSchema, ModelManifestSchema, .schemas.schemasv1.CreateModelSchema   for a push
"""

import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

CLOUD = "bentoml._internal.cloud"
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
