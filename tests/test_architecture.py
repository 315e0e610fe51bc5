"""The rules of the house: imports point one way, and heavy libraries load only where they are used.

A *wing* is a folder of the package. A wing imports only the leaves and the wings above it in ``WINGS``. Inside a wing a
file imports only files above it in the list of files that the docstring of the wing's ``__init__.py`` gives.
"""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

from clip_retrieval.artifacts.artifact import Artifact

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "clip_retrieval"

LEAVES = (
    *("errors", "records", "cores", "progress", "parallel", "stages"),
    *("atomic", "page_cache", "work_folder", "storage", "urls"),
)
"""Files at the root that any other may import; each imports only leaves above it."""

WINGS = (
    "contract",
    "client",
    "access",
    "images",
    "datasets",
    "encoders",
    "models",
    "indexes",
    "query_log",
    "artifacts",
    "search",
    "build",
    "live",
    "evaluation",
    "finetuning",
    "serving",
    "http",
    "cli",
)

FACES = {
    "retriever": "search",
    "service": "http",
    "encoder_service": "http",
    "split_service": "http",
    "__main__": "cli",
}
"""Files at the root that only pass on what a wing has, under the name by which it is known outside."""

STRANGERS = {"serving": {"http"}, "evaluation": {"search", "serving"}, "finetuning": {"search", "serving"}}
"""Wings that a wing does not import although the order lets it."""

LIBRARIES = {
    "torch": {"encoders/open_clip", "encoders/torch", "models", "finetuning"},
    "torchvision": {"encoders/open_clip"},
    "open_clip": {"encoders/open_clip"},
    "timm": {"encoders/open_clip"},
    "transformers": set(),
    "safetensors": {"models", "finetuning"},
    "huggingface_hub": {"encoders/open_clip"},
    "openvino": {"encoders/openvino/runtime", "models/export"},
    "nncf": {"models"},
    "faiss": {
        "indexes/faiss_cells",
        "indexes/faiss_index",
        "indexes/faiss_joined",
        "indexes/faiss_parameters",
        "indexes/faiss_rescoring",
    },
    "pymilvus": {"indexes/milvus_engine", "indexes/milvus_writer"},
    "milvus_lite": {"indexes/milvus_lite"},
    "grpc": {"indexes/milvus_engine"},
    "circus": {"serving/supervisor"},
    "bentoml": {
        *("artifacts/model_yaml", "artifacts/modelstore"),
        *("serving/bento_dispatch", "serving/encoder_proxy"),
        *("service", "encoder_service", "split_service"),
    },
    "fastapi": {"http"},
    "starlette": {"http", "service", "encoder_service"},
    "uvicorn": {"http"},
    "httptools": {"http"},
    "h11": {"http"},
    "rich": {"cli"},
    "typer": {"cli"},
    "matplotlib": {
        "indexes/pareto_plot",
        "evaluation/recall_plot",
        "evaluation/reliability_plot",
        "finetuning/training_plot",
    },
    "httpx": {"client", "cli"},
    "mcp": {"cli/mcp_tools"},
    "mcp_types": {"cli/mcp_tools"},
    "watchfiles": {"cli/watching"},
    "pillow_heif": {"images/heif"},
    "pillow_jxl": {"images/jxl"},
    "httpx2": {"datasets/fsspec_store"},
    "pyarrow": {"datasets/parquet_file", "datasets/parquet_images", "datasets/arrow_store"},
    "limits": {"access/limits", "access/shared_counts"},
    "redis": {"access/limits", "access/redis_url", "serving/replica_cache"},
    "fsspec": {"datasets/fsspec_store"},
    "aiohttp": {"datasets/fsspec_store", "serving/encoder_proxy"},
    "ray": {"build/embed_ray"},
}
"""The files, or the wings as a whole, that may import each of these libraries."""

LIGHT = {"contract": {"pydantic", "PIL"}, "client": {"pydantic", "httpx"}}
"""Wings of the base install and all that they may import of other packages; Pillow is named there, never loaded."""

FILES = sorted(PACKAGE.rglob("*.py"))


def place(path: Path) -> str:
    """Where a file stands in the package, without its ending: ``search/ranking``."""
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def wing_of(name: str) -> str:
    return FACES.get(name, name.split("/", maxsplit=1)[0])


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


def own_imports(path: Path) -> set[str]:
    """The places of the package that a file imports: ``encoders/base``, or ``encoders`` for the wing's own names."""
    found = set()
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "clip_retrieval" or parts[1:] == ["__version__"]:
            continue
        while len(parts) > 2 and not _is_module(parts):
            parts.pop()
        found.add("/".join(parts[1:]))
    return found


def _is_module(parts: list[str]) -> bool:
    path = ROOT.joinpath(*parts)
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def files_in_order(wing: str) -> list[str]:
    """The files and sub-folders that the docstring of a wing lists, in its order."""
    text = ast.get_docstring(ast.parse((PACKAGE / wing / "__init__.py").read_text(encoding="utf-8"))) or ""
    return [f"{wing}/{name}" for name in re.findall(r"^ *(\w+)(?:\.py|/) ", text, re.MULTILINE)]


def test_every_file_stands_in_a_wing_or_is_a_leaf() -> None:
    at_root = {place(path) for path in FILES if "/" not in place(path)}
    assert at_root == {"__init__", *LEAVES, *FACES}
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(WINGS)


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_lists_its_files(wing: str) -> None:
    stand = {f"{wing}/{path.stem}" for path in (PACKAGE / wing).glob("*.py") if path.stem != "__init__"}
    stand |= {f"{wing}/{path.parent.name}" for path in (PACKAGE / wing).glob("*/__init__.py")}
    assert sorted(files_in_order(wing)) == sorted(stand)


@pytest.mark.parametrize("path", FILES, ids=place)
def test_imports_point_one_way(path: Path) -> None:
    name = place(path)
    wing = wing_of(name)
    if wing in LEAVES:
        allowed = set(LEAVES[: LEAVES.index(wing)])
    else:
        above = set(WINGS) if wing == "__init__" else set(WINGS[: WINGS.index(wing)]) - STRANGERS.get(wing, set())
        allowed = {*LEAVES, *above, wing}
    assert {wing_of(other) for other in own_imports(path)} <= allowed


@pytest.mark.parametrize("path", [path for path in FILES if "/" in place(path)], ids=place)
def test_a_file_imports_only_what_stands_above_it_in_its_wing(path: Path) -> None:
    wing, file, *deeper = place(path).split("/")
    if file == "__init__":
        return
    folder = f"{wing}/{file}" if deeper else wing
    mine = place(path)
    if deeper == ["__init__"]:
        return
    order = files_in_order(folder)
    allowed = set(order[: order.index(mine)]) if mine in order else set(order)
    siblings = {other for other in own_imports(path) if other.startswith(f"{folder}/")} & set(order)
    assert siblings <= allowed, f"{mine} imports {siblings - allowed}, which its wing lists below it"


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_heavy_libraries_are_imported_in_the_files_named_for_them_alone(library: str) -> None:
    allowed = LIBRARIES[library]
    for path in FILES:
        if any(name.split(".")[0] == library for name in imports(path)):
            name = place(path)
            assert allowed & {name, *(parent.as_posix() for parent in Path(name).parents)}, f"{name} imports {library}"


@pytest.mark.parametrize("path", [path for path in FILES if wing_of(place(path)) in LIGHT], ids=place)
def test_the_wings_of_the_base_install_need_little(path: Path) -> None:
    wing = wing_of(place(path))
    assert {wing_of(other) for other in own_imports(path)} <= {"errors", "records", "contract", wing}
    third_party = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
    assert third_party <= {"clip_retrieval"} | LIGHT[wing]


def test_the_data_files_of_the_package_are_packed() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packed = {
        path
        for pattern in patterns["tool"]["setuptools"]["package-data"]["clip_retrieval"]
        for path in PACKAGE.glob(pattern.replace("**", "**/*"))
    }
    data = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert data - packed == set()


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
    loaded = loaded_by("import clip_retrieval.client.clients")
    assert {"httpx", "pydantic"} <= loaded
    assert not loaded & {"torch", "open_clip", "openvino", "faiss", "bentoml", "numpy", "PIL", "fastapi", "typer"}


@pytest.mark.slow
def test_importing_the_service_loads_no_torch(fake_artifact: Artifact) -> None:
    loaded = loaded_by("import clip_retrieval.service", BENTO_CLIP_ARTIFACT=str(fake_artifact.path))
    assert {"bentoml", "faiss", "clip_retrieval"} <= loaded
    assert not loaded & {"torch", "torchvision", "open_clip", "transformers", "timm", "typer"}


def test_a_worker_begins_to_load_before_anything_of_the_server_is_imported() -> None:
    loaded = loaded_by("import clip_retrieval.serving.beginning")
    assert "numpy" in loaded
    assert not loaded & {"bentoml", "_bentoml_sdk", "_bentoml_impl", "fastapi", "starlette", "uvicorn", "aiohttp"}


def test_importing_the_command_line_loads_no_torch() -> None:
    assert not loaded_by("import clip_retrieval.cli.app") & {"torch", "torchvision", "open_clip", "openvino"}


def test_handing_a_start_over_loads_nothing_that_the_service_loads_itself() -> None:
    loaded = loaded_by("import clip_retrieval.cli.app, clip_retrieval.cli.serve")
    assert {"typer", "rich"} <= loaded
    assert not loaded & {"bentoml", "numpy", "faiss", "pydantic", "httpx", "PIL", "psutil", "fastapi", "openvino"}


def test_the_supervisor_loads_no_package() -> None:
    """It is the one process of a service that does nothing for requests, and its imports are before all others."""
    loaded = loaded_by("import clip_retrieval.serving.launch, clip_retrieval.serving.starting")
    assert {"asyncio", "clip_retrieval"} <= loaded
    assert loaded - sys.stdlib_module_names - loaded_by("pass") <= {"clip_retrieval"}


def test_importing_the_readers_loads_no_library_of_shards_or_stores() -> None:
    names = ", ".join(f"clip_retrieval.datasets.{name}" for name in ("parquet", "img2dataset", "remote"))
    assert not loaded_by(f"import {names}") & {"pyarrow", "fsspec", "aiohttp", "huggingface_hub"}


def test_the_public_imports_of_the_readme_work() -> None:
    names = "from clip_retrieval.client import AsyncClient, Client, image_id, image, text"
    assert "httpx" in loaded_by(f"{names}; from clip_retrieval.retriever import Retriever")


def test_the_command_without_its_packages_says_what_to_install() -> None:
    hidden = "import sys; sys.modules['typer'] = None; from clip_retrieval.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", hidden], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"pip install -e '{ROOT}[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


ARCHITECTURE = ROOT / "docs" / "architecture.md"
NAMED = re.compile(r"`([a-z_0-9/]+\.py)`")
STAYS = re.compile(r"The way has (\d+) stays and passes (\d+) files, look-ups included\. It goes back (\d+) times")


def walks() -> list[tuple[list[list[str]], list[list[str]], tuple[int, ...]]]:
    """Each walk of the page: the files that each row is about, all that it names, and what is said of all rows."""
    found = []
    for section in ARCHITECTURE.read_text(encoding="utf-8").split("\n## "):
        if (said := STAYS.search(section)) is None:
            continue
        rows = [line for line in section.splitlines() if re.match(r"\| \d+ \|", line)]
        assert [int(row.split("|")[1]) for row in rows] == list(range(1, len(rows) + 1))
        about = [files_of(NAMED.findall(row.split("|")[2])) for row in rows]
        named = [files_of(NAMED.findall(row)) for row in rows]
        found.append((about, named, tuple(map(int, said.groups()))))
    return found


def files_of(names: list[str]) -> list[str]:
    """The paths of files. A name without a folder is in that of the file before it, or of the first, or is unique."""
    paths: list[str] = []
    for name in names:
        beside = [(Path(path).parent / name).as_posix() for path in (*paths[-1:], *paths[:1])]
        places = [path for path in (name, *beside) if (PACKAGE / path).is_file()]
        if not places:
            [one] = PACKAGE.rglob(name)
            places = [one.relative_to(PACKAGE).as_posix()]
        paths.append(places[0])
    return paths


def test_the_walks_of_the_architecture_name_files_that_there_are_and_count_them() -> None:
    assert len(walks()) == 2
    for about, named, (stays, files, returns) in walks():
        assert len(about) == stays
        assert len({path for row in named for path in row}) == files
        assert sum(row[0] in chain(*about[:number]) for number, row in enumerate(about)) == returns
