"""The rules of the architecture: imports point one way, and heavy libraries load only where they are used."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

from clip_retrieval.artifact import Artifact

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "clip_retrieval"

ORDER = [
    "errors",
    "records",
    "schemas",
    "uploads",
    "queries",
    "answers",
    "config",
    "cores",
    "logs",
    "datasets",
    "decode",
    "validate",
    "splits",
    "store",
    "thumbnails",
    "encoders",
    "metrics",
    "quality",
    "index",
    "ranking",
    "columns",
    "filters",
    "compose",
    "families",
    "tune",
    "trials",
    "fronts",
    "artifact",
    "compare",
    "transfer",
    "retune",
    "embed",
    "modelstore",
    "build",
    "embedded",
    "evaluate",
    "index_quality",
    "evaluation_page",
    "evaluation_plot",
    "hits",
    "retriever",
    "engine",
    "results",
    "stats",
    "middleware",
    "http_protocol",
    "monitoring",
    "tracing",
    "http_page",
    "http_request",
    "http_search",
    "http_api",
    "calls",
    "client",
    "prepare",
    "finetuning",
    "finetune",
    "console",
    "server",
    "commands",
    "cli",
    "__main__",
]
"""Each module imports only from modules above it."""

DATASETS = [
    {"base"},
    {"rows"},
    {"flickr8k", "jsonl", "pictures", "sidecar", "table"},
]
"""Each file imports only from the groups above its own: readers share helpers and do not know each other."""

ENCODERS = [
    {"base"},
    {"preprocess", "tokenizer", "prefixes", "_torchvision"},
    {"_openclip"},
    {"fake", "torch", "openvino"},
    {"demo", "_tokenizer_export", "_towers", "_reference", "_quantise"},
    {"export"},
]
"""Likewise: runtimes do not know each other; what turns a model of one into that of another stands above both."""

TORCH = {"_openclip", "_reference", "_tokenizer_export", "_torchvision", "_towers", "demo", "export", "torch"}
OPENVINO = {"_quantise", "_reference", "export", "openvino"}
HEAVY = {
    "torch": TORCH,
    "torchvision": TORCH,
    "open_clip": TORCH,
    "timm": TORCH,
    "transformers": TORCH,
    "safetensors": TORCH,
    "openvino": OPENVINO,
    "nncf": OPENVINO,
}
"""The files of ``encoders/`` that may import each of these libraries; no other file may, but for the next line's."""

TRAINING = {"finetune", "finetuning/adapters", "finetuning/inputs", "finetuning/loop", "finetuning/towers"}
"""What may import torch and safetensors too: fine-tuning, apart from what the command line needs of it at once."""

FILES = sorted(PACKAGE.rglob("*.py"))


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Every module or name that a file imports, with dots, at its top or inside functions."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> set[tuple[str, ...]]:
    """What a file imports of this package, without the package's name: ``("encoders", "base", "Vectors")``."""
    split = (tuple(name.split(".")) for name in imports(path))
    return {parts[1:] for parts in split if parts[0] == "clip_retrieval" and parts[1:] != ("__version__",)}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_every_module_has_its_place_in_the_order() -> None:
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert modules | packages == set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    module = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    above = set() if module == "__init__" else set(ORDER[: ORDER.index(module)])
    assert {parts[0] for parts in own_imports(path)} <= above | {module}


@pytest.mark.parametrize(("package", "groups"), [("datasets", DATASETS), ("encoders", ENCODERS)])
def test_siblings_in_a_sub_package_do_not_know_each_other(package: str, groups: list[set[str]]) -> None:
    files = {path.stem: path for path in (PACKAGE / package).glob("*.py") if path.stem != "__init__"}
    assert set(files) == set(chain.from_iterable(groups)), "every file has its group"
    for number, group in enumerate(groups):
        above = set(chain.from_iterable(groups[:number]))
        for name in group:
            siblings = {parts[1] for parts in own_imports(files[name]) if parts[0] == package}
            assert siblings <= above, f"{package}/{name}.py imports {siblings - above}"


CLIENT = ("uploads", "queries", "answers", "calls", "client")
"""The modules of the client, which know nothing of the rest but the errors, the records' types and the schemas."""


@pytest.mark.parametrize("module", CLIENT)
def test_the_client_knows_nothing_but_errors_and_schemas(module: str) -> None:
    path = PACKAGE / f"{module}.py"
    assert {parts[0] for parts in own_imports(path)} <= {"errors", "records", "schemas", *CLIENT}
    third_party = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
    # Pillow is named for pictures that a user passes; a test below holds that it is not loaded.
    assert third_party <= {"clip_retrieval", "httpx", "pydantic", "PIL"}


def test_bentoml_is_imported_by_the_model_store_and_the_service_alone() -> None:
    users = {path for path in [*FILES, ROOT / "service.py"] if any(n.split(".")[0] == "bentoml" for n in imports(path))}
    assert users == {PACKAGE / "modelstore.py", ROOT / "service.py"}


@pytest.mark.parametrize("library", sorted(HEAVY))
def test_heavy_libraries_are_imported_in_the_files_of_their_encoders_alone(library: str) -> None:
    users = {path for path in [*FILES, ROOT / "service.py"] if any(n.split(".")[0] == library for n in imports(path))}
    training = TRAINING if library in {"torch", "safetensors"} else set()
    assert users <= {PACKAGE / f"{name}.py" for name in (*(f"encoders/{file}" for file in HEAVY[library]), *training)}


def loaded_by(statement: str, **environment: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after ``statement``."""
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    child = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return set(child.stdout.split("\n")[-2].split())


def test_importing_the_client_loads_little() -> None:
    loaded = loaded_by("import clip_retrieval.client")
    assert {"httpx", "pydantic"} <= loaded
    assert not loaded & {"torch", "open_clip", "openvino", "faiss", "bentoml", "numpy", "PIL", "fastapi", "typer"}


def test_importing_the_service_loads_no_torch(fake_artifact: Artifact) -> None:
    loaded = loaded_by("import service", BENTO_CLIP_ARTIFACT=str(fake_artifact.path))
    assert {"bentoml", "faiss", "service"} <= loaded
    assert not loaded & {"torch", "torchvision", "open_clip", "transformers", "timm", "typer"}


def test_importing_the_command_line_loads_no_torch() -> None:
    assert not loaded_by("import clip_retrieval.cli") & {"torch", "torchvision", "open_clip", "openvino"}


def test_the_command_without_its_packages_says_what_to_install() -> None:
    hidden = "import sys; sys.modules['typer'] = None; from clip_retrieval.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", hidden], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'bento-clip[build]'" in done.stderr
    assert "Traceback" not in done.stderr
